"""OpenAI's Batch API: half the price, an answer within 24 hours.

Each text is a request of its own, because only then does a refused text leave the others alone; a batch may hold as
many requests as texts, so this costs nothing. The file of requests is built in memory: texts are not written to disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..errors import BackendError, BadResponseError
from ..models import BatchEndpoint, Model
from ..types import Answer, BatchProgress, InputType
from ._clients import Clients
from ._openai_protocol import answer, translated
from ._openai_requests import Sender

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

__all__ = ["OpenAIBatches"]

ENDPOINT: Final = "/v1/embeddings"
MARK = "embedrouter"
"""The key of a batch's metadata under which its mark stands."""
CODE = re.compile(r"[\w.-]{1,60}", re.ASCII)
OVER = frozenset({"completed", "expired", "cancelled"})


class OpenAIBatches(BatchEndpoint):
    """Calls ``/files`` and ``/batches``.

    Args:
        clients: the backend's.
        model: whose texts these are.
        request: makes the body of an embeddings request.
    """

    texts = 50_000
    size = 200_000_000
    overhead = 400

    def __init__(
        self,
        clients: Clients[Sender[OpenAI], Sender[AsyncOpenAI]],
        model: Model,
        request: Callable[[Sequence[str], InputType], dict[str, Any]],
    ) -> None:
        self._clients, self._model, self._request = clients, model, request

    def upload(self, texts: Mapping[str, str], input_type: InputType, *, timeout: float) -> str:
        lines = (
            {"custom_id": name, "method": "POST", "url": ENDPOINT, "body": self._request([text], input_type)}
            for name, text in texts.items()
        )
        content = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
        with self._clients.sync() as sender, self._errors(list(texts.values())):
            return sender.client.files.create(file=("texts.jsonl", content), purpose="batch", timeout=timeout).id

    def submit(self, uploaded: str, mark: str, *, timeout: float) -> str:
        with self._clients.sync() as sender, self._errors():
            batch = sender.client.batches.create(
                input_file_id=uploaded,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={MARK: mark},
                timeout=timeout,
            )
            return batch.id

    def find(self, mark: str, *, timeout: float) -> str | None:
        with self._clients.sync() as sender, self._errors():
            batches = sender.client.batches.list(limit=100, timeout=timeout)
            return next((batch.id for batch in batches if (batch.metadata or {}).get(MARK) == mark), None)

    def look(self, batch: str, *, timeout: float) -> BatchProgress:
        with self._clients.sync() as sender, self._errors():
            found = sender.client.batches.retrieve(batch, timeout=timeout)
            counts = found.request_counts
            codes = dict.fromkeys(_code(error.code) for error in (found.errors.data if found.errors else None) or [])
            return BatchProgress(
                ended=found.status in OVER or found.status == "failed",
                texts=counts.total if counts else 0,
                answered=counts.completed if counts else 0,
                refusal=", ".join(codes) or "no reason was given" if found.status == "failed" else "",
            )

    def answers(self, batch: str, *, timeout: float) -> Iterator[tuple[str, Answer | str]]:
        with self._clients.sync() as sender, self._errors():
            found = sender.client.batches.retrieve(batch, timeout=timeout)
            for file in (found.output_file_id, found.error_file_id):
                if file is None:
                    continue
                with sender.client.files.with_streaming_response.content(file, timeout=timeout) as response:
                    for line in _lines(response.iter_bytes()):
                        yield self._line(line)

    def cancel(self, batch: str, *, timeout: float) -> None:
        with self._clients.sync() as sender, self._errors():
            import openai

            with suppress(openai.ConflictError):  # it is over, or about to be
                sender.client.batches.cancel(batch, timeout=timeout)

    def _line(self, line: bytes) -> tuple[str, Answer | str]:
        """Read one line of an output or error file. What it says in words may quote the text: only codes are kept."""
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
            return name, answer(body, self._model)
        except BadResponseError:  # billed like any other
            return name, Answer(np.empty((0, 0), np.float32), None)

    @contextmanager
    def _errors(self, texts: Sequence[str] = ()) -> Iterator[None]:
        try:
            yield
            return
        except BackendError:
            raise
        except (AttributeError, TypeError, ValueError) as error:  # how the SDK meets a web page, or broken JSON
            raise BadResponseError("the answer is none of the Batch API's", model=self._model.name) from error
        except Exception as error:  # noqa: BLE001 - raised below
            failure = translated(error, self._model, texts)
        raise failure


def _code(said: object) -> str:
    """Return a word for an error; whatever is no single word may be a quotation."""
    return said if isinstance(said, str) and CODE.fullmatch(said) else "without a code"


def _lines(content: Iterator[bytes]) -> Iterator[bytes]:
    """Split at line feeds alone: JSON may hold other characters that end a line, such as U+2028."""
    rest = b""
    for piece in content:
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest
