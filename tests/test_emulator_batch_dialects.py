"""The emulators of Voyage's and Mistral's batch endpoints against clients that are not ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.emulator import Emulator

TEXTS = ["This is a banana.", "Why is the sky blue?"]


def jsonl(*bodies: object) -> bytes:
    lines = [{"custom_id": f"request-{number}", "body": body} for number, body in enumerate(bodies, 1)]
    return "\n".join(map(json.dumps, lines)).encode()


def test_voyage_as_its_maker_s_notebook_uses_it(emulator: Emulator) -> None:
    """MongoDB's GenAI-Showcase, voyageai_batch_api_openai_compatibility: OpenAI's SDK at Voyage's address."""
    params = {"model": "voyage-3.5", "input_type": "document", "output_dimension": 512, "output_dtype": "uint8"}
    with openai.OpenAI(api_key="k", base_url=emulator.voyage_url, max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", jsonl(*({"input": [text]} for text in TEXTS))), purpose="batch")
        created = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/embeddings",
            completion_window="12h",  # type: ignore[arg-type]
            extra_body={"request_params": params},
        )
        with pytest.raises(openai.BadRequestError):
            client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        emulator.voyage_batches.finish()
        ended = client.batches.retrieve(created.id)
        lines = client.files.content(ended.output_file_id or "").content.splitlines()
        listed = [batch.id for batch in client.batches.list()]

    rows = [json.loads(line) for line in lines]
    assert (created.status, ended.status, listed) == ("validating", "completed", [created.id])
    assert {row["custom_id"] for row in rows} == {"request-1", "request-2"}
    assert all(len(row["response"]["body"]["data"][0]["embedding"]) == 512 for row in rows)


@pytest.mark.slow
def test_mistral_as_its_sdk_uses_it(emulator: Emulator) -> None:
    """Upload, create, list by metadata, wait and read, also with the typed client for batches of embeddings."""
    pytest.importorskip("mistralai")
    from mistralai.client import Mistral
    from mistralai.client.models import EmbeddingRequest, EmbeddingResponse
    from mistralai.extra.batch import BatchClient, BatchInput

    batches, url = emulator.mistral_batches, emulator.url_of("mistral").removesuffix("/v1")
    with Mistral(api_key="k", server_url=url) as client:
        content = jsonl({"input": TEXTS}, {"input": [""]})
        file = client.files.upload(file={"file_name": "in.jsonl", "content": content}, purpose="batch")
        told: dict[str, Any] = {"model": "mistral-embed", "endpoint": "/v1/embeddings"}
        queued = client.batch.jobs.create(input_files=[file.id], metadata={"kind": "one"}, **told)
        other = client.batch.jobs.create(input_files=[file.id], metadata={"kind": "two"}, **told)
        stopped = client.batch.jobs.cancel(job_id=other.id)
        batches.finish()
        ended = client.batch.jobs.get(job_id=queued.id)
        answered = json.loads(client.files.download(file_id=str(ended.output_file)).read())
        refused = json.loads(client.files.download(file_id=str(ended.error_file)).read())
        listed = client.batch.jobs.list(metadata={"kind": "one"}, status=["SUCCESS"])

    async def typed() -> list[str]:
        batches.instant = True
        async with Mistral(api_key="k", server_url=url) as client:
            jobs: BatchClient[EmbeddingRequest, EmbeddingResponse] = BatchClient(
                client, endpoint="/v1/embeddings", response_body_type=EmbeddingResponse
            )
            body = EmbeddingRequest(model="mistral-embed", inputs=TEXTS)
            uploaded = await jobs.upload(BatchInput.from_payload({"a": body}))
            handle = await jobs.wait(await jobs.create(uploaded, model="mistral-embed"), poll_interval_seconds=0)
            return list((await jobs.output(handle)).responses)

    found = asyncio.run(typed())

    assert (queued.status, queued.total_requests, stopped.status) == ("QUEUED", 0, "CANCELLATION_REQUESTED")
    assert (ended.status, ended.succeeded_requests, ended.failed_requests) == ("SUCCESS", 1, 1)
    assert (answered["custom_id"], len(answered["response"]["body"]["data"])) == ("request-1", 2)
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("request-2", 400)
    assert ([job.id for job in listed.data or []], listed.total) == ([queued.id], 1)
    assert found == ["a"]
