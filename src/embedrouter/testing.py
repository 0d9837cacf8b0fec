"""For tests of code that uses embedrouter: a backend that needs no network, and a cache that needs no disk.

    fake = FakeBackend(dimensions=8)
    router = Router([fake.model("fake:small")], cache=None, ledger=":memory:")
    router.embed(["a text"], input_type="document")
    assert fake.calls == [FakeCall(("a text",), "document")]

Outcomes can be scripted: ``FakeBackend(outcomes=[RateLimitedError("slow down"), None])`` fails the first request and
answers the second. ``NO_WAITING`` is a retry policy that does not wait.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import BackendError
from .limits import RetryPolicy
from .models import Backend, Model
from .types import Answer, InputType, TokenCounts, Vectors

__all__ = ["NO_WAITING", "FakeBackend", "FakeCall", "MemoryCache"]

NO_WAITING = RetryPolicy(initial_wait=0, max_wait=0, cooldown=0)


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One request a ``FakeBackend`` got."""

    texts: tuple[str, ...]
    input_type: InputType


class FakeBackend(Backend):
    """Answers with unit vectors that depend on the space, the input type and the text alone.

    Args:
        dimensions: of every vector.
        space: two backends with the same space name give equal vectors for equal texts.
        outcomes: what happens to the requests, in order: an error is raised, an ``Answer`` returned, ``None`` means a
            normal answer, as do all requests after the last outcome.

    Attributes:
        calls: every request, in the order of arrival.
    """

    def __init__(
        self, *, dimensions: int = 8, space: str = "fake", outcomes: Iterable[BackendError | Answer | None] = ()
    ) -> None:
        self.dimensions = dimensions
        self.space = space
        self.calls: list[FakeCall] = []
        self._outcomes = list(outcomes)
        self._lock = threading.Lock()

    def model(self, name: str = "fake:model", **settings: Any) -> Model:
        """Return a declaration of a model that this backend serves; ``settings`` are those of ``Model``."""
        return Model(name, **{"space": self.space, "dimensions": self.dimensions, "backend": self, **settings})

    def vector(self, text: str, input_type: InputType) -> Vectors:
        """Return the vector of one text, shape (dimensions,)."""
        seed = hashlib.sha256(f"{self.space}\0{input_type}\0{text}".encode()).digest()
        numbers = np.random.default_rng(np.frombuffer(seed, np.uint64)).standard_normal(self.dimensions)
        return (numbers / np.linalg.norm(numbers)).astype(np.float32)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        with self._lock:
            self.calls.append(FakeCall(tuple(texts), input_type))
            outcome = self._outcomes.pop(0) if self._outcomes else None
        if isinstance(outcome, BackendError):
            raise outcome
        if outcome is not None:
            return outcome
        vectors = np.stack([self.vector(text, input_type) for text in texts])
        return Answer(vectors, sum(self.count(texts, input_type).tokens))

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return self.embed(texts, input_type, timeout=timeout)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count words."""
        return TokenCounts([len(text.split()) or 1 for text in texts], exact=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class MemoryCache:
    """A cache for one process and one test: ``Router(…, cache=MemoryCache())``."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self.rows.update(values)

    def close(self) -> None:
        """Keep everything: a closed cache opens again."""
