"""The emulator's Batch API against OpenAI's real SDK: files in, a batch, files out, and all that may go wrong."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import openai
import pytest
from openai.types import Batch

from tests.emulator import Emulator, Fault, Limits, Received, count_tokens, vector

SMALL = "text-embedding-3-small"
URL: Final = "/v1/embeddings"
TEXTS = [f"the tram number {place} stops at the harbour" for place in range(10)]


@pytest.fixture
def oai(emulator: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url=emulator.openai_url, max_retries=0) as client:
        yield client


def request(place: int, text: str, **body: Any) -> dict[str, Any]:
    body = {"model": SMALL, "input": [text], "dimensions": 8, **body}
    return {"custom_id": f"r{place}", "method": "POST", "url": URL, "body": body}


REQUESTS = [request(place, text) for place, text in enumerate(TEXTS)]


def jsonl(*lines: object) -> bytes:
    return b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)


def upload(client: openai.OpenAI, *lines: object) -> str:
    return client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch").id


def start(client: openai.OpenAI, *lines: object, **options: Any) -> Batch:
    return client.batches.create(input_file_id=upload(client, *lines), endpoint=URL, completion_window="24h", **options)


def read(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    """Return the lines of an output or error file by `custom_id`, in the order of the file."""
    if file_id is None:
        return {}
    rows = [json.loads(line) for line in client.files.content(file_id).iter_lines()]
    return {row["custom_id"]: row for row in rows}


def counts(batch: Batch) -> tuple[int, int, int]:
    assert batch.request_counts is not None
    return batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed


class TestHappyPath:
    def test_every_step(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Each status comes with its timestamp and its counts, and files are there at the end only."""
        created = start(oai, *REQUESTS, metadata={"job": "docs"})
        seen = [created]
        for _ in range(3):
            emulator.batches.advance(created.id)
            seen.append(oai.batches.retrieve(created.id))
        done = seen[-1]

        assert [batch.status for batch in seen] == ["validating", "in_progress", "finalizing", "completed"]
        assert [counts(batch) for batch in seen] == [(0, 0, 0), (10, 0, 0), (10, 10, 0), (10, 10, 0)]
        assert [batch.output_file_id is None for batch in seen] == [True, True, True, False]
        assert (seen[0].in_progress_at, seen[1].finalizing_at, seen[2].completed_at) == (None, None, None)
        moments = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at, done.expires_at]
        assert moments == sorted(moments, key=lambda moment: moment or 0)
        assert len(set(moments)) == 5
        assert done.expires_at == done.created_at + 24 * 3600
        assert (done.failed_at, done.expired_at, done.cancelling_at, done.cancelled_at) == (None, None, None, None)
        assert (done.metadata, done.model, done.error_file_id) == ({"job": "docs"}, SMALL, None)

    def test_vectors_are_those_of_the_endpoint(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """A cache may be filled from both."""
        batch = start(oai, *REQUESTS, request(10, "in base64", encoding_format="base64"))
        emulator.batches.finish()
        output = read(oai, oai.batches.retrieve(batch.id).output_file_id)
        direct = oai.embeddings.create(model=SMALL, input=TEXTS[3], dimensions=8, encoding_format="float")
        body = output["r3"]["response"]["body"]

        assert output["r3"]["error"] is None
        assert output["r3"]["id"].startswith("batch_req_")
        assert output["r3"]["response"]["status_code"] == 200
        assert body == direct.to_dict()
        assert isinstance(output["r10"]["response"]["body"]["data"][0]["embedding"], str)

    def test_the_order_is_another(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """The service does not keep it, so nobody may rely on it; the same seed gives the same order."""
        orders = []
        for shuffled in (True, False):
            emulator.batches.shuffled = shuffled
            batch = start(oai, *REQUESTS)
            emulator.batches.finish()
            file_id = oai.batches.retrieve(batch.id).output_file_id
            orders.append(list(read(oai, file_id)))
            assert list(read(oai, file_id)) == orders[-1]

        assert sorted(orders[0]) == sorted(orders[1])
        assert orders[0] != orders[1] == [line["custom_id"] for line in REQUESTS]

    def test_automatic_mode(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """A program that polls comes to its end without a test beside it."""
        emulator.batches.automatic = True
        batch = start(oai, *REQUESTS)
        seen = [oai.batches.retrieve(batch.id).status for _ in range(4)]

        assert seen == ["in_progress", "finalizing", "completed", "completed"]

    def test_the_bill_is_apart(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Batch tokens cost half, and are billed when they are computed, not when the file is read."""
        tokens = [count_tokens("openai", text) for text in TEXTS]
        batch = start(oai, *REQUESTS)
        emulator.batches.progress(share=0.4)
        part = emulator.billed_in_batches
        emulator.batches.finish()
        usage = oai.batches.retrieve(batch.id).usage

        assert part == {("openai", SMALL): sum(tokens[:4])}
        assert emulator.billed_in_batches == {("openai", SMALL): sum(tokens)}
        assert usage is not None
        assert usage.total_tokens == sum(tokens)
        assert not emulator.billed
        assert emulator.calls == 0
        assert [(received.method, received.endpoint) for received in emulator.batches.received] == [
            ("POST", "files"),
            ("POST", "batches"),
            ("GET", "batches"),
        ]

    def test_async(self, emulator: Emulator) -> None:
        """The async SDK takes another road to the same socket."""
        emulator.batches.automatic = True

        async def run() -> list[str]:
            async with openai.AsyncOpenAI(api_key="k", base_url=emulator.openai_url, max_retries=0) as client:
                file = await client.files.create(file=("in.jsonl", jsonl(*REQUESTS)), purpose="batch")
                batch = await client.batches.create(input_file_id=file.id, endpoint=URL, completion_window="24h")
                while batch.status != "completed":
                    batch = await client.batches.retrieve(batch.id)
                listed = [row.id async for row in client.batches.list(limit=1)]
                assert listed == [batch.id]
                assert batch.output_file_id is not None
                async with client.files.with_streaming_response.content(batch.output_file_id) as content:
                    return [json.loads(line)["custom_id"] async for line in content.iter_lines()]

        assert sorted(asyncio.run(run())) == sorted(line["custom_id"] for line in REQUESTS)

    def test_fifty_thousand_requests(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """The largest file there may be, read as a stream."""
        started = time.monotonic()
        batch = start(oai, *(request(place, f"text {place}") for place in range(50_000)))
        emulator.batches.finish()
        done = oai.batches.retrieve(batch.id)
        assert done.output_file_id is not None
        with oai.files.with_streaming_response.content(done.output_file_id) as content:
            ids = {line[line.index('"r') : line.index('", "resp')] for line in content.iter_lines()}

        assert counts(done) == (50_000, 50_000, 0)
        assert len(ids) == 50_000
        assert time.monotonic() - started < 60


class TestFiles:
    def test_life_of_a_file(self, emulator: Emulator, oai: openai.OpenAI, tmp_path: Path) -> None:
        """Uploaded from a path, listed, read back and deleted."""
        path = tmp_path / "requests.jsonl"
        path.write_bytes(jsonl(*REQUESTS))
        file = oai.files.create(file=path, purpose="batch")
        other = oai.files.create(file=("b.jsonl", b"{}"), purpose="user_data")

        assert (file.filename, file.bytes, file.purpose) == ("requests.jsonl", path.stat().st_size, "batch")
        assert file.expires_at == file.created_at + 30 * 24 * 3600
        assert other.expires_at is None
        assert oai.files.retrieve(file.id) == file
        assert oai.files.content(file.id).read() == path.read_bytes()
        assert [row.id for row in oai.files.list()] == [other.id, file.id]
        assert [row.id for row in oai.files.list(order="asc", limit=1)] == [file.id, other.id]
        assert [row.id for row in oai.files.list(purpose="batch")] == [file.id]
        with pytest.raises(openai.BadRequestError, match="Not allowed to download"):
            oai.files.content(other.id)
        assert oai.files.delete(file.id).deleted
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            oai.files.retrieve(file.id)

    def test_output_files(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Their size is that of their content, and after their time they are gone."""
        batch = start(oai, *REQUESTS, output_expires_after={"anchor": "created_at", "seconds": 3600})
        emulator.batches.finish()
        file_id = oai.batches.retrieve(batch.id).output_file_id or ""
        file = oai.files.retrieve(file_id)
        size = len(oai.files.content(file_id).read())
        emulator.batches.pass_time(3600)

        assert (file.purpose, file.bytes, file.expires_at) == ("batch_output", size, file.created_at + 3600)
        with pytest.raises(openai.NotFoundError):
            oai.files.content(file_id)

    def test_an_upload_of_unknown_length(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Clients that stream send chunks."""
        with httpx.Client(base_url=emulator.openai_url, headers={"authorization": "Bearer k"}) as client:
            form = client.build_request(
                "POST", "/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", jsonl(*REQUESTS))}
            )
            answer = client.post(
                "/files", content=iter([form.read()]), headers={"content-type": form.headers["content-type"]}
            )

        assert answer.json()["bytes"] == len(jsonl(*REQUESTS))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"purpose": "embeddings"}, "is not one of"),
            ({"file": b"{}"}, "Must be .jsonl"),
            ({"file": ("in.txt", b"{}")}, "Must be .jsonl"),
            ({"file": ("in.jsonl", b"")}, "Must be .jsonl"),
            ({"file": ("in.jsonl", b"{oops\n")}, "Must be .jsonl"),
            ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "below minimum"),
            ({"expires_after": {"anchor": "last_used", "seconds": 3600}}, "Supported values are"),
            ({"extra_body": {"model": SMALL}}, "Unknown parameter"),
        ],
    )
    def test_refused_uploads(
        self, emulator: Emulator, oai: openai.OpenAI, options: dict[str, Any], message: str
    ) -> None:
        """What the service refuses at once."""
        with pytest.raises(openai.BadRequestError, match=message):
            oai.files.create(**{"file": ("in.jsonl", b"{}"), "purpose": "batch", **options})

        assert not list(oai.files.list())


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"endpoint": "/v1/chat/completions"}, "endpoint"),
            ({"completion_window": "48h"}, "completion_window"),
            ({"input_file_id": openai.omit}, "input_file_id"),
            ({"metadata": {"tags": ["a"]}}, "metadata.tags"),
            ({"metadata": {str(place): "" for place in range(17)}}, "metadata"),
            ({"metadata": {"k" * 65: ""}}, "metadata"),
            ({"metadata": {"k": "v" * 513}}, "metadata.k"),
            ({"output_expires_after": {"anchor": "created_at", "seconds": 10}}, "output_expires_after.seconds"),
            ({"extra_body": {"priority": 1}}, "priority"),
        ],
    )
    def test_refused_batches(self, emulator: Emulator, oai: openai.OpenAI, options: dict[str, Any], param: str) -> None:
        """A wrong parameter is a 400 that names it, and no batch."""
        usual = {"input_file_id": upload(oai, *REQUESTS), "endpoint": URL, "completion_window": "24h"}
        with pytest.raises(openai.BadRequestError) as caught:
            oai.batches.create(**{**usual, **options})

        assert caught.value.param == param
        assert emulator.batches.ids == ()
        assert len(emulator.refused) == 1

    def test_the_whole_allowance_of_metadata(self, oai: openai.OpenAI) -> None:
        """The limit itself is inside the limit."""
        labels = {f"{place:02}".ljust(64, "k"): "v" * 512 for place in range(16)}

        assert start(oai, *REQUESTS, metadata=labels).metadata == labels

    @pytest.mark.parametrize(
        ("line", "code", "param"),
        [
            (b"{oops\n", "invalid_json_line", None),
            (b"\n", "invalid_json_line", None),
            (b"\xef\xbb\xbf" + jsonl(request(1, "x")), "invalid_json_line", None),
            (b'{"custom_id": NaN}\n', "invalid_json_line", None),
            ([1], "invalid_request", None),
            ({**REQUESTS[1], "custom_id": None}, "missing_required_parameter", "custom_id"),
            ({**REQUESTS[1], "custom_id": 7}, "invalid_type", "custom_id"),
            ({**REQUESTS[1], "custom_id": "r0"}, "duplicate_custom_id", "custom_id"),
            ({**REQUESTS[1], "method": "GET"}, "invalid_method", "method"),
            ({**REQUESTS[1], "url": "/embeddings"}, "invalid_url", "url"),
            ({**REQUESTS[1], "body": None}, "missing_required_parameter", "body"),
            ({**REQUESTS[1], "body": "x"}, "invalid_type", "body"),
            (request(1, "x", model=None), "invalid_request", "body.model"),
            (request(1, "x", model="text-embedding-3-large"), "mismatched_model", "body.model"),
        ],
    )
    def test_invalid_lines(
        self, emulator: Emulator, oai: openai.OpenAI, line: object, code: str, param: str | None
    ) -> None:
        """The batch is made and fails later, saying where and why; nothing is billed."""
        batch = start(oai, REQUESTS[0], line, REQUESTS[2])
        emulator.batches.advance()
        failed = oai.batches.retrieve(batch.id)

        assert batch.status == "validating"
        assert (failed.status, counts(failed)) == ("failed", (0, 0, 0))
        assert failed.failed_at is not None
        assert failed.errors is not None
        assert failed.errors.data is not None
        assert [(error.code, error.param, error.line) for error in failed.errors.data] == [(code, param, 2)]
        assert not emulator.billed_in_batches

    def test_unknown_model(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Said once: the rest of the file has the same model."""
        batch = start(oai, request(0, "x", model="text-embedding-4"))
        emulator.batches.advance()
        errors = oai.batches.retrieve(batch.id).errors

        assert errors is not None
        assert [error.code for error in errors.data or []] == ["model_not_found"]

    def test_file_of_another_kind(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """A file that is not there, or has another purpose, fails the batch and not the call."""
        other = oai.files.create(file=("in.jsonl", jsonl(*REQUESTS)), purpose="user_data").id
        for file_id in ("file-unknown", other):
            batch = oai.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h")
            emulator.batches.advance()
            errors = oai.batches.retrieve(batch.id).errors
            assert errors is not None
            assert [(error.code, error.param) for error in errors.data or []] == [("invalid_request", "file_id")]

    @pytest.mark.parametrize(
        ("limits", "code"),
        [
            (Limits(), None),
            (Limits(requests=9), "too_many_tasks"),
            (Limits(inputs=10), "too_many_inputs"),
            (Limits(bytes=1000), "file_too_large"),
        ],
    )
    def test_limits(self, emulator: Emulator, oai: openai.OpenAI, limits: Limits, code: str | None) -> None:
        """Requests, inputs and bytes each have their own."""
        emulator.batches.limits = limits
        batch = start(oai, *REQUESTS[:9], request(9, "", input=["one", "two"]))
        emulator.batches.advance()
        failed = oai.batches.retrieve(batch.id)

        assert [error.code for error in (failed.errors and failed.errors.data) or []] == ([code] if code else [])

    def test_fifty_thousand_inputs(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Counted over the file, not by request."""
        full = [request(place, "", input=["a"] * 2000) for place in range(25)]
        good, bad = start(oai, *full), start(oai, *full, request(25, "one more"))
        emulator.batches.advance()

        assert oai.batches.retrieve(good.id).status == "in_progress"
        assert oai.batches.retrieve(bad.id).status == "failed"

    def test_unknown_ids_and_keys(self, oai: openai.OpenAI) -> None:
        """404 and 401 in OpenAI's shape, at every door."""
        for call in (oai.batches.retrieve, oai.batches.cancel, oai.files.retrieve, oai.files.content, oai.files.delete):
            with pytest.raises(openai.NotFoundError) as unknown:
                call("nothing")
            assert unknown.value.type == "invalid_request_error"
        with (
            Emulator(keys={"right"}) as strict,
            openai.OpenAI(api_key="wrong-key-0123456789", base_url=strict.openai_url, max_retries=0) as client,
        ):
            for attempt in (lambda: upload(client, *REQUESTS), client.batches.list, client.files.list):
                with pytest.raises(openai.AuthenticationError) as wrong:
                    attempt()
                assert wrong.value.code == "invalid_api_key"

    def test_wrong_methods_and_paths(self, emulator: Emulator) -> None:
        """Embeddings are not for GET, and half a path leads nowhere."""
        with httpx.Client(base_url=emulator.openai_url, headers={"authorization": "Bearer k"}) as client:
            statuses = [
                client.request(method, path).status_code
                for method, path in (("GET", "/embeddings"), ("DELETE", "/batches/x"), ("POST", "/files/x/cancel"))
            ]

        assert statuses == [405, 405, 404]


class TestPartialResults:
    def test_refused_lines(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """A body that the endpoint refuses is in the error file, as the endpoint says it; the batch completes."""
        batch = start(oai, REQUESTS[0], request(1, ""), request(2, "x", dimensions=9999), request(3, "x", role="query"))
        emulator.batches.finish()
        done = oai.batches.retrieve(batch.id)
        errors = read(oai, done.error_file_id)
        with pytest.raises(openai.BadRequestError) as direct:
            oai.embeddings.create(model=SMALL, input="x", dimensions=9999)

        assert (done.status, counts(done)) == ("completed", (4, 1, 3))
        assert set(errors) == {"r1", "r2", "r3"}
        assert errors["r2"]["error"] is None
        assert errors["r2"]["response"]["status_code"] == 400
        assert errors["r2"]["response"]["body"]["error"] == direct.value.body
        assert set(read(oai, done.output_file_id)) == {"r0"}

    def test_nothing_succeeds(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """The batch is completed all the same, without an output file."""
        emulator.batches.fail_lines(lambda line: True, 429)
        batch = start(oai, *REQUESTS)
        emulator.batches.finish()
        done = oai.batches.retrieve(batch.id)

        assert (done.status, counts(done), done.output_file_id) == ("completed", (10, 0, 10), None)
        assert not emulator.billed_in_batches
        assert read(oai, done.error_file_id)["r0"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"

    def test_failing_once(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Sending the failed requests again helps."""
        emulator.batches.fail_lines({"r1", "r2"}, once=True)
        results = []
        for lines in (REQUESTS, REQUESTS[1:3]):
            batch = start(oai, *lines)
            emulator.batches.finish(batch.id)
            results.append(oai.batches.retrieve(batch.id))

        assert [counts(batch) for batch in results] == [(10, 8, 2), (2, 2, 0)]
        assert read(oai, results[0].error_file_id)["r1"]["response"]["status_code"] == 500

    def test_spoilt_lines(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """An answer of a batch may be as wrong as any other."""
        emulator.batches.spoil_lines({"r1"}, Fault.nan())
        batch = start(oai, *REQUESTS)
        emulator.batches.finish()
        output = read(oai, oai.batches.retrieve(batch.id).output_file_id)

        assert np.isnan(output["r1"]["response"]["body"]["data"][0]["embedding"][0])
        assert not np.isnan(output["r2"]["response"]["body"]["data"][0]["embedding"][0])

    def test_expiry(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """What is done is there and billed; what is not says so, and counts as nothing."""
        batch = start(oai, *REQUESTS)
        emulator.batches.expire(batch.id, share=0.6)
        done = oai.batches.retrieve(batch.id)
        errors = read(oai, done.error_file_id)

        assert (done.status, counts(done)) == ("expired", (10, 6, 0))
        assert done.expired_at == done.expires_at
        assert (done.completed_at, done.failed_at) == (None, None)
        assert set(read(oai, done.output_file_id)) == {f"r{place}" for place in range(6)}
        assert set(errors) == {f"r{place}" for place in range(6, 10)}
        assert errors["r9"]["response"] is None
        assert errors["r9"]["error"] == {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        }
        assert sum(emulator.billed_in_batches.values()) == sum(count_tokens("openai", text) for text in TEXTS[:6])

    def test_time_expires_a_batch(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """A day later it is over, done or not."""
        batch = start(oai, *REQUESTS)
        emulator.batches.progress(share=0.1)
        emulator.batches.pass_time(24 * 3600)
        done = oai.batches.retrieve(batch.id)

        assert (done.status, counts(done)) == ("expired", (10, 1, 0))

    def test_cancel(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """It takes its time; requests under way still complete; the rest says that it was cancelled."""
        batch = start(oai, *REQUESTS)
        emulator.batches.progress(share=0.3)
        cancelling = oai.batches.cancel(batch.id)
        again = oai.batches.cancel(batch.id)
        emulator.batches.progress(share=0.5)
        emulator.batches.advance()
        done = oai.batches.retrieve(batch.id)
        errors = read(oai, done.error_file_id)

        assert (cancelling.status, counts(cancelling), cancelling.output_file_id) == ("cancelling", (10, 3, 0), None)
        assert again == cancelling
        assert (done.status, counts(done)) == ("cancelled", (10, 5, 0))
        assert done.cancelling_at is not None
        assert done.cancelled_at is not None
        assert done.cancelling_at < done.cancelled_at
        assert len(read(oai, done.output_file_id)) == 5
        assert {row["error"]["code"] for row in errors.values()} == {"batch_cancelled"}
        assert oai.batches.cancel(batch.id).status == "cancelled"

    def test_cancel_before_validation(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Then there are no files at all."""
        batch = start(oai, *REQUESTS)
        oai.batches.cancel(batch.id)
        emulator.batches.advance()
        done = oai.batches.retrieve(batch.id)

        assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)

    def test_what_has_ended_cannot_be_cancelled(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """409, for a client that comes too late."""
        batch = start(oai, *REQUESTS)
        emulator.batches.finish()

        with pytest.raises(openai.ConflictError, match="Cannot cancel a batch with status 'completed'"):
            oai.batches.cancel(batch.id)


class TestLists:
    def test_pages(self, oai: openai.OpenAI) -> None:
        """Newest first; the SDK follows `has_more`."""
        file_id = upload(oai, *REQUESTS)
        made = [oai.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h").id for _ in range(25)]
        first = oai.batches.list()
        second = oai.batches.list(after=first.data[-1].id, limit=5)

        assert [batch.id for batch in first.data] == made[:4:-1]
        assert (first.has_more, second.has_more) == (True, False)
        assert [batch.id for batch in second.data] == made[4::-1]
        assert [batch.id for batch in oai.batches.list(limit=10)] == made[::-1]

    @pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 101}, {"after": "batch_unknown"}])
    def test_wrong_pages(self, oai: openai.OpenAI, options: dict[str, Any]) -> None:
        """100 at most, after something that exists."""
        with pytest.raises(openai.BadRequestError):
            oai.batches.list(**options)

    def test_an_empty_list(self, oai: openai.OpenAI) -> None:
        """A new account."""
        assert list(oai.batches.list()) == []


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "error", "made"),
        [
            (Fault.status(500), openai.InternalServerError, 0),
            (Fault.rate_limited(), openai.RateLimitError, 0),
            (Fault.insufficient_quota(), openai.RateLimitError, 0),
            (Fault.reset(), openai.APIConnectionError, 0),
            (Fault.unavailable(), openai.InternalServerError, 0),
            (Fault.lost(), openai.APIConnectionError, 1),
            (Fault.half_body(), openai.APIConnectionError, 1),
        ],
    )
    def test_creating(
        self, emulator: Emulator, oai: openai.OpenAI, fault: Fault, error: type[Exception], made: int
    ) -> None:
        """A client that sees no answer does not know whether there is a batch: it has to look at the list."""
        file_id = upload(oai, *REQUESTS)
        emulator.script(fault)
        with pytest.raises(error):
            oai.batches.create(input_file_id=file_id, endpoint=URL, completion_window="24h")

        assert len(list(oai.batches.list())) == len(emulator.batches.ids) == made

    def test_a_truncated_download(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Some lines arrive, one is torn, and the end is an error."""
        batch = start(oai, *REQUESTS)
        emulator.batches.finish()
        file_id = oai.batches.retrieve(batch.id).output_file_id or ""
        emulator.script(Fault.half_body(), Fault.half_body(), Fault.lost())
        with pytest.raises(openai.APIConnectionError):
            oai.files.content(file_id)
        seen: list[str] = []

        def download() -> None:
            with oai.files.with_streaming_response.content(file_id) as content:
                seen.extend(content.iter_lines())

        with pytest.raises(Exception, match="incomplete chunked read"):
            download()
        with pytest.raises(openai.APIConnectionError):
            oai.files.content(file_id)

        assert 0 < len(seen) < 10
        assert seen[0].endswith('"error": null}')
        assert len(read(oai, file_id)) == 10

    def test_rules_see_what_is_asked(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Downloads fail while the rest works."""

        def rule(received: Received) -> Fault | None:
            return Fault.status(500) if received.path.endswith("/content") else None

        emulator.fault_for = rule
        file_id = upload(oai, *REQUESTS)
        with pytest.raises(openai.InternalServerError):
            oai.files.content(file_id)

        assert oai.embeddings.create(model=SMALL, input="a").data

    def test_a_scripted_error_is_no_step(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Automatic mode counts the looks that were answered."""
        emulator.batches.automatic = True
        batch = start(oai, *REQUESTS)
        emulator.script(Fault.status(500))
        with pytest.raises(openai.InternalServerError):
            oai.batches.retrieve(batch.id)

        assert oai.batches.retrieve(batch.id).status == "in_progress"

    def test_faults_of_vectors_are_not_for_files(self) -> None:
        """A script that goes to the wrong request must not pass silently."""

        def run() -> None:
            with Emulator() as emulator, httpx.Client(headers={"authorization": "Bearer k"}) as client:
                emulator.script(Fault.nan())
                client.get(f"{emulator.openai_url}/batches")

        with pytest.raises(ValueError, match="spoil_lines"):
            run()

    def test_errors_while_a_file_is_written_are_not_swallowed(self) -> None:
        """A broken emulator must not look like a broken connection."""

        def run() -> None:
            with (
                Emulator() as emulator,
                openai.OpenAI(api_key="k", base_url=emulator.openai_url, max_retries=0) as client,
            ):
                emulator.batches.spoil_lines({"r0"}, Fault("dimensions", amount=-1))
                batch = start(client, *REQUESTS)
                emulator.batches.finish()
                file_id = client.batches.retrieve(batch.id).output_file_id or ""
                with pytest.raises(openai.APIConnectionError):
                    client.files.content(file_id)

        with pytest.raises(ValueError, match="new_shape"):
            run()


def test_reset_forgets(emulator: Emulator, oai: openai.OpenAI) -> None:
    """One emulator can serve a whole test module."""
    batch = start(oai, *REQUESTS)
    emulator.batches.automatic = True
    emulator.batches.finish()
    emulator.reset()

    assert (emulator.batches.ids, emulator.batches.received, emulator.billed_in_batches) == ((), (), {})
    assert not emulator.batches.automatic
    with pytest.raises(openai.NotFoundError):
        oai.batches.retrieve(batch.id)


def test_vectors_do_not_depend_on_the_batch(emulator: Emulator, oai: openai.OpenAI) -> None:
    """In full length and in base64, to the last bit."""
    batch = start(oai, request(0, TEXTS[0], dimensions=None, encoding_format="base64"))
    emulator.batches.finish()
    row = read(oai, oai.batches.retrieve(batch.id).output_file_id)["r0"]["response"]["body"]["data"][0]
    values = np.frombuffer(base64.b64decode(row["embedding"]), "<f4")

    assert np.array_equal(values, vector(SMALL, None, None, TEXTS[0]))
