"""OpenAI's Batch API: half the price, an answer within 24 hours.

Each text is a request of its own, because only then does a refused text leave the others alone; a batch may hold as
many requests as texts, so this costs nothing. The file of requests is built in memory: texts are not written to disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import numpy as np

from ..errors import BackendError, BadResponseError
from ..models import BatchEndpoint
from ..types import Answer, BatchProgress, InputType

if TYPE_CHECKING:
    from .openai import OpenAIBackend

ENDPOINT: Final = "/v1/embeddings"
REFERENCE = "embedrouter"
"""The key of a batch's metadata under which the client reference stands."""
CODE = re.compile(r"[\w.-]{1,60}", re.ASCII)
ENDED = frozenset({"completed", "expired", "cancelled"})


class OpenAIBatches(BatchEndpoint):
    """Calls ``/files`` and ``/batches`` with the client, the requests and the errors of a backend."""

    max_texts = 50_000
    max_bytes = 200_000_000
    bytes_per_text = 400

    def __init__(self, backend: OpenAIBackend) -> None:
        self._backend = backend
        self._model = backend.model

    def upload(self, texts: Mapping[str, str], input_type: InputType, *, timeout: float) -> str:
        build = self._backend.build_request
        lines = (
            {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": build([text], input_type)}
            for name, text in texts.items()
        )
        content = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
        with self._backend.clients.lease() as client, self._errors(list(texts.values())):
            return client.files.create(file=("texts.jsonl", content), purpose="batch", timeout=timeout).id

    def submit(self, file: str, reference: str, *, timeout: float) -> str:
        with self._backend.clients.lease() as client, self._errors():
            batch = client.batches.create(
                input_file_id=file,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={REFERENCE: reference},
                timeout=timeout,
            )
            return batch.id

    def find(self, reference: str, *, timeout: float) -> str | None:
        with self._backend.clients.lease() as client, self._errors():
            batches = client.batches.list(limit=100, timeout=timeout)
            return next((batch.id for batch in batches if (batch.metadata or {}).get(REFERENCE) == reference), None)

    def retrieve(self, batch: str, *, timeout: float) -> BatchProgress:
        with self._backend.clients.lease() as client, self._errors():
            found = client.batches.retrieve(batch, timeout=timeout)
            counts = found.request_counts
            codes = dict.fromkeys(_code(error.code) for error in (found.errors.data if found.errors else None) or [])
            return BatchProgress(
                ended=found.status in ENDED or found.status == "failed",
                texts=counts.total if counts else 0,
                answered=counts.completed if counts else 0,
                refusal=", ".join(codes) or "no reason was given" if found.status == "failed" else "",
            )

    def results(self, batch: str, *, timeout: float) -> Iterator[tuple[str, Answer | str]]:
        with self._backend.clients.lease() as client, self._errors():
            found = client.batches.retrieve(batch, timeout=timeout)
            for file in filter(None, (found.output_file_id, found.error_file_id)):
                with client.files.with_streaming_response.content(file, timeout=timeout) as response:
                    for line in split_lines(response.iter_bytes()):
                        yield self.parse_line(line)

    def cancel(self, batch: str, *, timeout: float) -> None:
        with self._backend.clients.lease() as client, self._errors():
            import openai

            with suppress(openai.ConflictError):  # the batch has ended, or is about to
                client.batches.cancel(batch, timeout=timeout)

    def parse_line(self, line: bytes) -> tuple[str, Answer | str]:
        """Parse one line of an output or error file. Messages may quote the text: only codes are kept.

        Raises:
            BadResponseError: the line is none of a batch's results.
        """
        try:
            fields = json.loads(line)
            name = str(fields["custom_id"])
            if fields.get("error"):
                return name, _code(fields["error"]["code"])
            status, body = fields["response"]["status_code"], fields["response"]["body"]
            if status != 200:
                code = (body.get("error") or {}).get("code") if isinstance(body, dict) else None
                return name, f"{int(status)} {_code(code)}" if code else f"{int(status)}"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadResponseError(
                "a line of the batch's answers cannot be understood", model=self._model.name
            ) from error
        try:
            return name, self._backend.parse_body(body)
        except BadResponseError:  # billed as any other
            return name, Answer(np.empty((0, 0), np.float32), None)

    @contextmanager
    def _errors(self, texts: Sequence[str] = ()) -> Iterator[None]:
        try:
            yield
            return
        except BackendError:
            raise
        except (AttributeError, TypeError, ValueError) as error:  # raised by the SDK at a web page, or broken JSON
            raise BadResponseError("the answer is none of the Batch API's", model=self._model.name) from error
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self._backend.chained(error, texts)
        raise failure


def _code(code: object) -> str:
    """Return an error code; what is not a single word may be a quotation."""
    return code if isinstance(code, str) and CODE.fullmatch(code) else "without a code"


def split_lines(content: Iterator[bytes]) -> Iterator[bytes]:
    """Split at line feeds alone: JSON may hold other characters that end a line, such as U+2028."""
    rest = b""
    for piece in content:
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest
