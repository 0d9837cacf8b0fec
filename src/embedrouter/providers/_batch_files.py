"""What batch endpoints that work on files have in common: a line of JSON for each text goes up, and one comes down.

Each text is a request of its own, because only then does a refused text leave the others alone; a batch may hold as
many requests as texts, so this costs nothing. The file of requests is built in memory: texts are not written to disk.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import numpy as np

from ..errors import BackendError, BadResponseError
from ..models import BatchEndpoint, Model
from ..types import Answer, InputType
from ._clients import Clients

EMBEDDINGS = "/v1/embeddings"
"""The endpoint that a batch calls, as OpenAI, Voyage and Mistral name it."""
FILE_NAME = "texts.jsonl"
REFERENCE = "embedrouter"
"""The key of a batch's metadata under which the client reference stands."""
CODE = re.compile(r"[\w.-]{1,60}", re.ASCII)
NO_CODE = "without a code"
OK = 200
REFUSED = frozenset({400, 409, 422})
"""Statuses with which a provider says that there is nothing left to stop; which, is not documented everywhere."""


class EmbeddingsBackend(Protocol):
    """A backend whose clients, requests and errors a batch endpoint uses."""

    model: Model
    clients: Clients[Any, Any]

    def build_request(self, texts: Sequence[str], input_type: InputType) -> dict[str, Any]: ...

    def parse_body(self, body: Any) -> Answer: ...

    def chained(self, error: Exception, texts: Sequence[str]) -> Exception: ...


class FileBatches(BatchEndpoint):
    """Uploads lines of requests, and reads lines of results."""

    max_bytes = 200_000_000  # the lowest that a provider documents; where more is allowed, memory sets the limit
    bytes_per_text = 400

    def __init__(self, backend: EmbeddingsBackend) -> None:
        self._backend = backend
        self._model = backend.model

    @abstractmethod
    def line(self, text: str, input_type: InputType) -> dict[str, Any]:
        """Return the request for one text, without its name."""

    @abstractmethod
    def send_file(self, client: Any, content: bytes, timeout: float) -> str:
        """Upload the lines of a batch. Return the provider's id of the file."""

    @abstractmethod
    def result_files(self, client: Any, batch: str, timeout: float) -> Sequence[str | None]:
        """Return the provider's ids of the files with the results of a batch; ``None`` for one that does not exist."""

    @abstractmethod
    def stop(self, client: Any, batch: str, timeout: float) -> None:
        """Ask the provider to cancel a batch; an error is raised where it has ended, or is about to."""

    @abstractmethod
    def is_working(self, client: Any, batch: str, timeout: float) -> bool:
        """Return whether a batch can still be cancelled."""

    @abstractmethod
    def open_file(self, client: Any, file: str, timeout: float) -> AbstractContextManager[Iterator[bytes]]:
        """Download a file, piece by piece."""

    def upload(self, texts: Mapping[str, str], input_type: InputType, *, timeout: float) -> str:
        lines = ({"custom_id": name, **self.line(text, input_type)} for name, text in texts.items())
        content = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
        with self._backend.clients.lease() as client, self.errors(list(texts.values())):
            return self.send_file(client, content, timeout)

    def results(self, batch: str, *, timeout: float) -> Iterator[tuple[str, Answer | str]]:
        with self._backend.clients.lease() as client, self.errors():
            for file in filter(None, self.result_files(client, batch, timeout)):
                with self.open_file(client, file, timeout) as pieces:
                    for line in split_lines(pieces):
                        yield self.parse_line(line)

    def cancel(self, batch: str, *, timeout: float) -> None:
        with self._backend.clients.lease() as client:
            try:
                with self.errors():
                    self.stop(client, batch, timeout)
            except BackendError as error:
                with self.errors():
                    if error.status not in REFUSED or self.is_working(client, batch, timeout):
                        raise

    def parse_line(self, line: bytes) -> tuple[str, Answer | str]:
        """Parse one line of a file of results. Messages may quote the text: only codes are kept.

        Raises:
            BadResponseError: the line is none of a batch's results.
        """
        from pydantic_core import from_json

        try:
            fields = from_json(line)  # a list of 1,024 numbers in a sixth of the time of json.loads
            name, response, error = str(fields["custom_id"]), fields.get("response"), fields.get("error")
            if response is None or error:
                return name, _reason(response or {}, error)
            if response["status_code"] != OK:
                return name, _reason(response, None)
            body = response["body"]
        except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as failure:
            raise BadResponseError(
                "a line of the batch's answers cannot be understood", model=self._model.name
            ) from failure
        try:
            return name, self._backend.parse_body(body)
        except BadResponseError:  # billed as any other
            return name, Answer(np.empty((0, 0), np.float32), None)

    @contextmanager
    def errors(self, texts: Sequence[str] = ()) -> Iterator[None]:
        """Translate the errors of the library that the block calls, and leave out what they say of the texts."""
        try:
            yield
            return
        except BackendError:
            raise
        except (AttributeError, TypeError, ValueError, KeyError) as error:  # at a web page, or broken JSON
            raise BadResponseError("the answer is none of the batch endpoint's", model=self._model.name) from error
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self._backend.chained(error, texts)
        raise failure


def error_code(error: object) -> str:
    """Return the code of an error, an object or the code itself; what is not a single word may be a quotation."""
    code = error.get("code") if isinstance(error, Mapping) else error
    return str(code) if isinstance(code, str | int) and CODE.fullmatch(str(code)) else NO_CODE


def _reason(response: Mapping[str, Any], error: object) -> str:
    """Return why a text has no vector: the status and the code, as far as there are any."""
    status, body = response.get("status_code"), response.get("body")
    code = error_code(error)
    if code == NO_CODE and isinstance(body, Mapping):
        code = error_code(body.get("error") or body)
    if status is None:
        return code
    return f"{int(status)}" if code == NO_CODE else f"{int(status)} {code}"


def split_lines(content: Iterator[bytes]) -> Iterator[bytes]:
    """Split at line feeds alone: JSON may hold other characters that end a line, such as U+2028."""
    rest = b""
    for piece in content:
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
    if rest:
        yield rest
