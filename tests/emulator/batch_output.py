"""What a batch writes: a line for each request, made when the file is read, so that a file reads the same each time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tests.emulator.batch_input import Line
from tests.emulator.exchange import Answer, Job, Reply
from tests.emulator.faults import Fault
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
    body: Any


@dataclass(frozen=True, slots=True)
class NotRun:
    """A request that the batch did not come to."""

    line: Line
    code: str


Outcome = Success | Failure | NotRun


class Renders(Protocol):
    """A maker, as far as it writes answers."""

    def render(self, answer: Answer) -> Reply: ...


class Lines:
    """The content of one output or error file."""

    def __init__(self, outcomes: Sequence[Outcome], written: Callable[[Outcome], bytes]) -> None:
        self._outcomes = outcomes
        self._written = written

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


def body_of(maker: Renders, success: Success) -> bytes:
    """Return the body of the answer to one request."""
    job = success.job
    vectors = tuple(vector(job.model.name, job.dimensions, job.input_type, text) for text in job.texts)
    answer = Answer(job, vectors, tuple(range(len(vectors))), job.tokens)
    return maker.render(success.fault.spoil(answer) if success.fault else answer).body
