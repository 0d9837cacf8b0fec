"""What a batch writes: a line for each request, made when the file is read.

An HTTP answer, good or bad, stands under `response`; a request that never ran has `response` null and says why under
`error` (API reference, the request output object). Ids depend on the batch and the `custom_id` alone, so a file reads
the same each time.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.emulator.batch_input import Line
from tests.emulator.exchange import Answer, Job
from tests.emulator.faults import Fault
from tests.emulator.openai import OpenAI
from tests.emulator.vectors import vector

_PIECE = 1 << 16

NOT_RUN = {
    "batch_expired": "This request could not be executed before the completion window expired.",
    "batch_cancelled": "The batch was cancelled before this request executed.",
}


@dataclass(frozen=True, slots=True)
class Success:
    """A request that was computed and billed; `fault` spoils what is written of it."""

    line: Line
    job: Job
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was refused, or that met an error."""

    line: Line
    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NotRun:
    """A request that the batch did not come to."""

    line: Line
    code: str


Outcome = Success | Failure | NotRun


class Lines:
    """The content of one output or error file."""

    def __init__(self, maker: OpenAI, batch_id: str, outcomes: Sequence[Outcome]) -> None:
        self._maker = maker
        self._batch_id = batch_id
        self._outcomes = outcomes

    @property
    def size(self) -> int:
        return self._size

    @functools.cached_property
    def _size(self) -> int:
        return sum(map(len, self.pieces()))

    def pieces(self) -> Iterator[bytes]:
        """Yield the file in pieces of about 64 kB."""
        waiting, size = [], 0
        for outcome in self._outcomes:
            written = self._written(outcome)
            waiting.append(written)
            size += len(written)
            if size >= _PIECE:
                yield b"".join(waiting)
                waiting, size = [], 0
        yield b"".join(waiting)

    def _written(self, outcome: Outcome) -> bytes:
        custom_id = outcome.line.custom_id
        stamp = hashlib.blake2b(f"{self._batch_id}/{custom_id}".encode("utf-8", "surrogatepass"), digest_size=16)
        head = f'{{"id": "batch_req_{stamp.hexdigest()}", "custom_id": {json.dumps(custom_id)}, '
        if isinstance(outcome, NotRun):
            error = {"code": outcome.code, "message": NOT_RUN[outcome.code]}
            return f'{head}"response": null, "error": {json.dumps(error)}}}\n'.encode()
        status, body = (200, self._body(outcome)) if isinstance(outcome, Success) else _refusal(outcome)
        head += f'"response": {{"status_code": {status}, "request_id": "{stamp.hexdigest()[::-1]}", "body": '
        return head.encode() + body + b'}, "error": null}\n'

    def _body(self, success: Success) -> bytes:
        job = success.job
        vectors = tuple(vector(job.model.name, job.dimensions, None, text) for text in job.texts)
        answer = Answer(job, vectors, tuple(range(len(vectors))), job.tokens)
        return self._maker.render(success.fault.spoil(answer) if success.fault else answer).body


def _refusal(failure: Failure) -> tuple[int, bytes]:
    return failure.status, json.dumps(failure.body).encode()
