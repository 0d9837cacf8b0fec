"""Mistral's batch jobs: half the price, an answer within 24 hours, through ``/files`` and ``/batch/jobs``.

Files are uploaded and downloaded as OpenAI's are. The requests about jobs are those that OpenAI's client documents for
endpoints that it does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..types import BatchProgress, InputType
from ._batch_files import EMBEDDINGS, REFERENCE
from .openai_batches import OpenAIBatches

JOBS = "/batch/jobs"
WORKING = frozenset({"QUEUED", "RUNNING"})
ENDED = frozenset({"SUCCESS", "FAILED", "TIMEOUT_EXCEEDED", "CANCELLED"})
FAILED = "FAILED"
HOURS = 24
PAGE = 100


class MistralBatches(OpenAIBatches):
    """Calls ``/files`` and ``/batch/jobs`` with OpenAI's client."""

    max_texts = 100_000  # the maker's pages say 100,000 for one batch, and a million for all that are pending
    bytes_per_text = 200

    def line(self, text: str, input_type: InputType) -> dict[str, Any]:
        return {"body": self._backend.build_request([text], input_type)}

    def result_files(self, client: Any, batch: str, timeout: float) -> Sequence[str | None]:
        found = self._job(client, batch, timeout)
        return found.get("output_file"), found.get("error_file")

    def submit(self, file: str, reference: str, input_type: InputType, *, timeout: float) -> str:
        body = {
            "input_files": [file],
            "endpoint": EMBEDDINGS,
            "model": self._backend.build_request([], input_type)["model"],
            "metadata": {REFERENCE: reference},
            "timeout_hours": HOURS,
        }
        with self._backend.clients.lease() as client, self.errors():
            return str(client.post(JOBS, cast_to=object, body=body, options={"timeout": timeout})["id"])

    def find(self, reference: str, *, timeout: float) -> str | None:
        with self._backend.clients.lease() as client, self.errors():
            for job in self._all(client, timeout):
                if (job.get("metadata") or {}).get(REFERENCE) == reference:
                    return str(job["id"])
            return None

    def retrieve(self, batch: str, *, timeout: float) -> BatchProgress:
        with self._backend.clients.lease() as client, self.errors():
            found = self._job(client, batch, timeout)
            has_results = found.get("output_file") or found.get("error_file")
            return BatchProgress(
                ended=found["status"] in ENDED,
                texts=int(found["total_requests"]),
                answered=int(found["succeeded_requests"]),
                refusal="Mistral's console says why" if found["status"] == FAILED and not has_results else "",
            )

    def stop(self, client: Any, batch: str, timeout: float) -> None:
        client.post(f"{JOBS}/{batch}/cancel", cast_to=object, options={"timeout": timeout})

    def is_working(self, client: Any, batch: str, timeout: float) -> bool:
        return self._job(client, batch, timeout)["status"] in WORKING

    def _job(self, client: Any, batch: str, timeout: float) -> Any:
        return client.get(f"{JOBS}/{batch}", cast_to=object, options={"timeout": timeout})

    def _all(self, client: Any, timeout: float) -> Iterator[Any]:
        """Yield all jobs, page after page."""
        page = seen = 0
        while True:
            options = {"params": {"page": page, "page_size": PAGE}, "timeout": timeout}
            found = client.get(JOBS, cast_to=object, options=options)
            jobs = found.get("data") or []
            yield from jobs
            page, seen = page + 1, seen + len(jobs)
            if not jobs or seen >= found["total"]:
                return
