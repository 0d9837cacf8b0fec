"""OpenAI's Batch API: half the price, an answer within 24 hours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..types import BatchProgress, InputType
from ._batch_files import EMBEDDINGS, FILE_NAME, REFERENCE, FileBatches, error_code

WORKING = frozenset({"validating", "in_progress"})
ENDED = frozenset({"completed", "expired", "cancelled"})


class OpenAIBatches(FileBatches):
    """Calls ``/files`` and ``/batches`` with the SDK's client."""

    window = 86_400.0
    max_texts = 50_000

    def line(self, text: str, input_type: InputType) -> dict[str, Any]:
        return {"method": "POST", "url": EMBEDDINGS, "body": self._backend.build_request([text], input_type)}

    def send_file(self, client: Any, content: bytes, timeout: float) -> str:
        file: str = client.files.create(file=(FILE_NAME, content), purpose="batch", timeout=timeout).id
        return file

    @contextmanager
    def open_file(self, client: Any, file: str, timeout: float) -> Iterator[Iterator[bytes]]:
        with client.files.with_streaming_response.content(file, timeout=timeout) as response:
            yield response.iter_bytes()

    def result_files(self, client: Any, batch: str, timeout: float) -> Sequence[str | None]:
        found = client.batches.retrieve(batch, timeout=timeout)
        return found.output_file_id, found.error_file_id

    def submit(self, file: str, reference: str, input_type: InputType, *, timeout: float) -> str:
        with self._backend.clients.lease() as client, self.errors():
            batch: str = client.batches.create(
                input_file_id=file,
                endpoint=EMBEDDINGS,
                completion_window="24h",
                metadata={REFERENCE: reference},
                timeout=timeout,
            ).id
            return batch

    def find(self, reference: str, *, timeout: float) -> str | None:
        with self._backend.clients.lease() as client, self.errors():
            batches = client.batches.list(limit=100, timeout=timeout)
            return next((batch.id for batch in batches if (batch.metadata or {}).get(REFERENCE) == reference), None)

    def retrieve(self, batch: str, *, timeout: float) -> BatchProgress:
        with self._backend.clients.lease() as client, self.errors():
            found = client.batches.retrieve(batch, timeout=timeout)
            counts = found.request_counts
            errors = (found.errors.data if found.errors else None) or []
            codes = dict.fromkeys(error_code(error.code) for error in errors)
            return BatchProgress(
                ended=found.status in ENDED or found.status == "failed",
                texts=counts.total if counts else 0,
                answered=counts.completed if counts else 0,
                refusal=", ".join(codes) or "no reason was given" if found.status == "failed" else "",
            )

    def stop(self, client: Any, batch: str, timeout: float) -> None:
        client.batches.cancel(batch, timeout=timeout)

    def is_working(self, client: Any, batch: str, timeout: float) -> bool:
        return client.batches.retrieve(batch, timeout=timeout).status in WORKING
