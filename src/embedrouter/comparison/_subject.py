"""One router of a comparison: what it is to embed, what that costs, and its vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

import numpy as np

from ..errors import ConfigError
from ..models.agreement import comparable
from ..providers import address_of, require_connectable
from ..router import Router, wiring_of
from ..spending import cost
from ..types import Candidate, Estimate, InputType, Usage, Vectors
from ._speed import ASKED_ALONE, NOTHING, Known, Measurements, speed_file

Advance: TypeAlias = Callable[[str, int, int, Decimal], object]
"""Is told how far a comparison is: what is embedded, texts done, all texts, dollars spent."""

STEP = 512
"""Texts in one call to a model of this machine."""
DECIMALS = 9
"""Of dollars for a million queries."""
PATIENCE = 30.0
"""Seconds in which texts are embedded alone; a limit of the rate may make each of them wait."""
VECTORS = 2**26
"""Bytes of vectors in one call."""


@dataclass(slots=True)
class Subject:
    """A router, and what it has embedded.

    Attributes:
        label: of the variant with the router's own vectors.
        owned: whether the comparison built the router, and closes it.
        speed: what is known of it when its texts have vectors.
        estimates: of the documents and of the queries.
        texts: that have a vector, by input type.
        usage: likewise.
        shortened: texts over the model's limit, likewise.
        recalled: texts whose vectors were in the cache.
        spent: dollars paid in this comparison, of earlier runs of the same plan, too.
    """

    label: str
    router: Router
    owned: bool
    measured: Measurements = field(init=False)
    speed: Known = NOTHING
    estimates: tuple[Estimate, Estimate] | None = None
    texts: dict[InputType, int] = field(default_factory=lambda: {"document": 0, "query": 0})
    usage: dict[InputType, Usage] = field(default_factory=lambda: {"document": Usage(), "query": Usage()})
    shortened: dict[InputType, int] = field(default_factory=lambda: {"document": 0, "query": 0})

    recalled: int = 0
    spent: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        wiring, first = wiring_of(self.router), self.candidate("query")
        address = str(address_of(wiring.backends[first.index]) or "")
        self.measured = Measurements(speed_file(wiring.cache.folder, first.name, first.fingerprint, address))

    def candidate(self, input_type: InputType) -> Candidate:
        """Return the model that embeds texts of an input type."""
        wiring = wiring_of(self.router)
        return wiring.first(self.router.tiers.index(wiring.default_tiers[input_type]))

    @property
    def total(self) -> Usage:
        """The usage of both input types."""
        return self.usage["document"] + self.usage["query"]

    def estimate(self, documents: Sequence[str], queries: Sequence[str]) -> None:
        """Estimate what is not in the cache, and find out whether that can be had at all. No request is made.

        Raises:
            ConfigError: a package is missing; or a budget is set, and the price is not known.
            AuthenticationError: the key is missing.
            InvalidInputError: a text cannot be embedded.
        """
        router, wiring = self.router, wiring_of(self.router)
        estimates = (
            router.estimate(documents, input_type="document"),
            router.estimate(queries, input_type="query"),
        )
        for estimate, kind in zip(estimates, self.usage, strict=True):
            if estimate.unique > estimate.cached:
                require_connectable(wiring.backends[self.candidate(kind).index])
                if estimate.cost is None and wiring.budget.has_caps:
                    raise ConfigError("its price is unknown, and a budget is set. Declare Model(…, price=…).")
        self.estimates = estimates

    def embed(self, texts: Sequence[str], input_type: InputType, advance: Callable[[int], object]) -> Vectors:
        """Return the vectors of texts, shape (texts, dimensions), packed bits as booleans; measure how long they take.

        Args:
            texts: distinct ones.
            advance: is called with the number of texts that have a vector.
        """
        parts: list[Vectors] = []
        self.texts[input_type], self.shortened[input_type], self.usage[input_type] = 0, 0, Usage()
        try:
            for chunk in self._chunks(texts, input_type):
                began = time.perf_counter()
                result = self.router.embed(chunk, input_type=input_type)
                self.measured.add(result, input_type, time.perf_counter() - began)
                self.usage[input_type] += result.usage
                self.spent += result.usage.cost
                self.shortened[input_type] += sum(result.shortened)
                self.recalled += sum(result.cached)
                self.texts[input_type] += len(chunk)
                parts.append(result.vectors)
                advance(self.texts[input_type])
        finally:  # of a run that is stopped, too: the next one finds these vectors in the cache
            self.speed = self.measured.result()
        return comparable(np.concatenate(parts), self.candidate(input_type).output_dtype)

    def _chunks(self, texts: Sequence[str], input_type: InputType) -> Iterator[Sequence[str]]:
        """Yield the texts: the first alone, because it waits for the model; some queries alone; then many at once."""
        candidate = self.candidate(input_type)
        alone = 1 + (ASKED_ALONE if input_type == "query" else 0)
        size = STEP if candidate.local else max(STEP, 2 * candidate.limits.texts * candidate.concurrency)
        size = min(size, max(1, VECTORS // (4 * candidate.dimensions)))
        began, start = time.monotonic(), 0
        while start < min(alone, len(texts)) and time.monotonic() - began < PATIENCE:
            yield [texts[start]]
            start += 1
        for place in range(start, len(texts), size):
            yield texts[place : place + size]

    # Prices of work like this, whether it was paid for now or before

    def corpus_cost(self, *, batch: bool = False) -> Decimal | None:
        """Return the dollars to embed the documents; ``None`` where the price is unknown, or there is no such price."""
        candidate = self.candidate("document")
        price = candidate.batch_price if batch else candidate.price
        tokens = self._tokens("document")
        return None if price is None or tokens is None else cost(tokens, price)

    def queries_cost(self) -> Decimal | None:
        """Return the dollars for a million queries like the ones that were embedded; ``None`` for an unknown price."""
        tokens, price = self._tokens("query"), self.candidate("query").price
        return None if price is None or tokens is None else round(tokens * price / self.texts["query"], DECIMALS)

    def _tokens(self, input_type: InputType) -> int | None:
        """Return the tokens of all texts, also of those that the cache had; ``None`` where the price is unknown."""
        usage, price = self.usage[input_type], self.candidate(input_type).price
        if price is None:
            return None
        each = cost(1, price)
        return usage.tokens + (round(usage.saved / each) if each else 0)

    def close(self) -> None:
        if self.owned:
            self.router.close()
