"""Voyage's Batch API: a third off, an answer within 12 hours, through ``/files`` and ``/batches``.

A line holds the text alone; what else a request says stands in ``request_params`` of the batch. Of the format of
numbers it says nothing: the page shows lists of numbers, and no base64. A text that is too long is refused, alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..types import BatchProgress, InputType
from ._batch_files import EMBEDDINGS, FILE_NAME, REFERENCE, FileBatches, error_code
from ._connections import DOWNLOAD

IN_A_LINE = "input"
LEFT_OUT = frozenset({IN_A_LINE, "encoding_format"})
WORKING = frozenset({"validating", "in_progress"})
ENDED = frozenset({"completed", "cancelled", "canceled", "partially_completed", "expired"})
"""The page names the first two; its examples and the maker's notebook have the others."""
FAILED = "failed"
PAGE = 100


class VoyageBatches(FileBatches):
    """Calls ``/files`` and ``/batches`` with httpx, as the backend calls ``/embeddings``."""

    window = 43_200.0
    max_texts = 100_000
    bytes_per_text = 200

    def line(self, text: str, input_type: InputType) -> dict[str, Any]:
        body = self._backend.build_request([text], input_type)["json"]
        return {"body": {IN_A_LINE: body[IN_A_LINE]}}

    def send_file(self, client: Any, content: bytes, timeout: float) -> str:
        form = {"data": {"purpose": "batch"}, "files": {"file": (FILE_NAME, content)}}
        return str(self._ask(client, "POST", "/files", timeout, **form)["id"])

    @contextmanager
    def open_file(self, client: Any, file: str, timeout: float) -> Iterator[Iterator[bytes]]:
        """Download a file; the reference's own example follows a redirect, which needs no key."""
        asked = self._to(f"/files/{file}/content")
        settings: dict[str, Any] = {"timeout": timeout, "follow_redirects": False, "extensions": DOWNLOAD}
        with ExitStack() as stack:
            response = stack.enter_context(client.stream("GET", **asked, **settings))
            if response.has_redirect_location:
                there = response.url.join(response.headers["location"])
                response = stack.enter_context(client.stream("GET", there, **settings))
            if not response.is_success:
                response.read()
            response.raise_for_status()
            yield response.iter_bytes()

    def result_files(self, client: Any, batch: str, timeout: float) -> Sequence[str | None]:
        found = self._ask(client, "GET", f"/batches/{batch}", timeout)
        return found.get("output_file_id"), found.get("error_file_id")

    def submit(self, file: str, reference: str, input_type: InputType, *, timeout: float) -> str:
        request = self._backend.build_request([], input_type)["json"]
        body = {
            "input_file_id": file,
            "endpoint": EMBEDDINGS,
            "completion_window": "12h",
            "request_params": {name: value for name, value in request.items() if name not in LEFT_OUT},
            "metadata": {REFERENCE: reference},
        }
        with self._backend.clients.lease() as client, self.errors():
            return str(self._ask(client, "POST", "/batches", timeout, json=body)["id"])

    def find(self, reference: str, *, timeout: float) -> str | None:
        with self._backend.clients.lease() as client, self.errors():
            for batch in self._all(client, timeout):
                if (batch.get("metadata") or {}).get(REFERENCE) == reference:
                    return str(batch["id"])
            return None

    def retrieve(self, batch: str, *, timeout: float) -> BatchProgress:
        with self._backend.clients.lease() as client, self.errors():
            found = self._ask(client, "GET", f"/batches/{batch}", timeout)
            status, counts = found["status"], found.get("request_counts") or {}
            codes = dict.fromkeys(map(error_code, (found.get("errors") or {}).get("data") or []))
            return BatchProgress(
                ended=status in ENDED or status == FAILED,
                texts=int(counts.get("total") or 0),
                answered=int(counts.get("completed") or 0),
                refusal=", ".join(codes) or "no reason was given" if status == FAILED else "",
            )

    def stop(self, client: Any, batch: str, timeout: float) -> None:
        self._ask(client, "POST", f"/batches/{batch}/cancel", timeout)

    def is_working(self, client: Any, batch: str, timeout: float) -> bool:
        return self._ask(client, "GET", f"/batches/{batch}", timeout)["status"] in WORKING

    def _all(self, client: Any, timeout: float) -> Iterator[Any]:
        """Yield all batches, page after page."""
        asked, last = {"limit": PAGE}, None
        while True:
            page = self._ask(client, "GET", "/batches", timeout, params=asked)
            yield from page["data"]
            before, last = last, page["data"][-1]["id"] if page["data"] else None
            if not page.get("has_more") or last in (None, before):
                return
            asked = {"limit": PAGE, "after": last}

    def _ask(self, client: Any, method: str, path: str, timeout: float, **content: Any) -> Any:
        """Make a request; return the parsed JSON of the answer."""
        response = client.request(method, **self._to(path), timeout=timeout, **content)
        response.raise_for_status()
        return response.json()

    def _to(self, path: str) -> dict[str, Any]:
        """Return the address of a path and the headers, as a request for vectors has them."""
        request = self._backend.build_request([], "document")
        return {"url": request["url"].removesuffix("/embeddings") + path, "headers": request["headers"]}
