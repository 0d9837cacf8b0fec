"""Test doubles for code that uses embedrouter: a backend without network and a cache without disk.

    fake = FakeBackend(dimensions=8)
    router = Router([fake.model("fake:small")], cache=None, ledger=":memory:")
    router.embed(["a text"], input_type="document")
    assert fake.calls == [FakeCall(("a text",), "document")]

Outcomes can be scripted: ``FakeBackend(outcomes=[RateLimitedError("slow down"), None])`` fails the first request and
answers the second. ``NO_WAITING`` is a retry policy without waits between attempts.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._process import Lock, PerProcess
from .errors import BackendError
from .limits import RetryPolicy
from .models import Backend, Model
from .types import Answer, InputType, TokenCounts, Vectors

__all__ = ["NO_WAITING", "FakeBackend", "FakeCall", "MemoryCache"]

NO_WAITING = RetryPolicy(initial_wait=0, max_wait=0, cooldown=0)
"""A ``retry=`` of routers in tests: retries without a wait."""

_lock = PerProcess(Lock)
"""Of all backends, so that each of them can be pickled."""


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One request that a ``FakeBackend`` received."""

    texts: tuple[str, ...]
    input_type: InputType


class FakeBackend(Backend):
    """Answer with unit vectors that depend only on the space, the input type and the text.

    Args:
        dimensions: length of every vector.
        space: two backends with the same space name give equal vectors for equal texts.
        outcomes: one for each request, in order: an error is raised, an ``Answer`` is returned, and ``None`` gives a
            normal answer. Requests after the last outcome get a normal answer.

    Attributes:
        calls: every request, in the order of arrival.
        outcomes: the outcomes of the next requests; may be changed between calls.
    """

    def __init__(
        self, *, dimensions: int = 8, space: str = "fake", outcomes: Iterable[BackendError | Answer | None] = ()
    ) -> None:
        self.dimensions = dimensions
        self.space = space
        self.calls: list[FakeCall] = []
        self.outcomes = list(outcomes)

    def model(self, name: str = "fake:model", **settings: Any) -> Model:
        """Declare a model that this backend serves; ``settings`` are arguments of ``Model``."""
        return Model(name, **{"space": self.space, "dimensions": self.dimensions, "backend": self, **settings})

    def vector(self, text: str, input_type: InputType) -> Vectors:
        """Return the vector of one text, shape (dimensions,)."""
        seed = hashlib.sha256(f"{self.space}\0{input_type}\0{text}".encode()).digest()
        numbers = np.random.default_rng(np.frombuffer(seed, np.uint64)).standard_normal(self.dimensions)
        return (numbers / np.linalg.norm(numbers)).astype(np.float32)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        with _lock.get():
            self.calls.append(FakeCall(tuple(texts), input_type))
            outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BackendError):
            raise outcome
        if outcome is not None:
            return outcome
        vectors = np.stack([self.vector(text, input_type) for text in texts])
        return Answer(vectors, sum(self.count(texts, input_type).tokens))

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return self.embed(texts, input_type, timeout=timeout)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count words as tokens."""
        return TokenCounts([len(text.split()) or 1 for text in texts], exact=True)


class MemoryCache:
    """Keep cache rows in a dictionary: ``Router(…, cache=MemoryCache())``."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self.rows.update(values)

    def close(self) -> None:
        """Keep the rows: a closed cache opens again on the next call."""
