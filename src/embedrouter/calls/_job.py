"""What one call knows: the router's rules, and what its flows have found, paid and met so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from ..cache import QueryMemory, key_function
from ..errors import (
    Attempt,
    AuthenticationError,
    BudgetExceededError,
    EmbedRouterError,
    InputRejectedError,
)
from ..limits import Admission, RetryPolicy
from ..spending import Budget, cost
from ..types import (
    Candidate,
    Found,
    InputType,
    Origin,
    OverlongPolicy,
    Space,
    Usage,
    Vectors,
)
from ._single_flight import Flights, Landing

__all__ = ["Charge", "Item", "Job", "Rules", "Saving", "saving"]

NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a router decided when it was built."""

    candidates: Sequence[Candidate]
    space: Space
    retry: RetryPolicy
    on_too_long: OverlongPolicy
    when_unavailable: Literal["raise", "degrade"]
    budget: Budget
    flights: Flights[Found]
    """What is being embedded at this moment."""
    memory: QueryMemory
    """Queries asked lately."""
    cached: bool
    """Whether there is a cache."""
    cache_dtype: str
    """The number type of its rows."""
    together: bool
    """Whether calls of few texts that come at the same time are sent as one."""
    book: Callable[[Job], None]
    """Adds what a call was billed and saved to the totals, however it ended."""
    abandon: Callable[[int], None]
    """Books what becomes of a reservation whose flow is closed before the answer."""
    withdraw: Callable[[Candidate, Admission], None]
    """Takes back what was let out and will not be sent."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    chance: Callable[[], float]
    """A random number from 0 to 1."""


class Item(NamedTuple):
    """One text to be sent, with its size."""

    text: str
    tokens: int


@dataclass(slots=True)
class Charge:
    """What one answered request was billed, or this call's share of it."""

    tokens: int
    amount: Decimal | None
    """US dollars; ``None`` where the price is unknown."""
    requests: int = 1
    """0 where another call counts it."""


class Saving(NamedTuple):
    """What was not paid for."""

    candidate: Candidate
    texts: int
    tokens: int
    amount: Decimal
    """US dollars, as far as the price is known."""


def saving(candidate: Candidate, texts: int, tokens: int) -> Saving:
    """Return what not asking a model for texts avoided."""
    return Saving(candidate, texts, tokens, cost(tokens, candidate.price) or NOTHING)


def _nothing() -> None:
    pass


@dataclass(slots=True, kw_only=True)
class Job:
    """One call under way. Its flows run side by side and share what is found, paid and met.

    The vectors stand in one array from the moment they come, in the order of the distinct texts. Those of parts of
    texts, which are found like any other, stand behind them.
    """

    rules: Rules
    texts: Sequence[str]
    """As the user gave them."""
    first: int = 0
    """The position of the first text, for messages."""
    input_type: InputType
    rank: int
    tag: str = ""
    batch: bool = False
    """It goes through a batch endpoint: only models that have one are candidates, at its price."""
    deadline: float | None = None
    distinct: int = field(init=False)
    """How many different texts there are."""
    rows: dict[str, int] = field(init=False)
    """The distinct texts, and the parts of some, and their places in ``vectors``."""
    vectors: Vectors = field(init=False)
    found: dict[str, Origin] = field(default_factory=dict)
    """Of the texts and parts whose vectors are known so far, where these came from."""
    billed: dict[str, int] = field(default_factory=dict)
    """The tokens that each was billed."""
    charges: list[Charge] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    landed: int = 0
    """How many texts had been embedded here when the cache was read."""
    shared: bool = True
    """Whether others that need the same texts meanwhile may wait for this call."""
    rejected: dict[str, InputRejectedError] = field(default_factory=dict)
    """Texts that a provider refused, and why."""
    refused: list[str] = field(default_factory=list)
    """Texts that a provider found too long."""
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The parts that stand in for texts over the limit, each an ordinary text."""
    unaffordable: BudgetExceededError | None = None
    """Why nothing that costs money may be called."""
    savings: list[Saving] = field(default_factory=list)
    """What the cache and the removal of duplicates avoided, by model."""
    leave: Callable[[], None] = _nothing
    """To be called at the end, when others may wait for this call."""
    _candidates: list[Candidate] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.rows = {text: row for row, text in enumerate(dict.fromkeys(self.texts))}
        self.distinct = len(self.rows)
        self.vectors = np.empty((self.distinct, self.rules.space.dimensions), np.float32)

    def make_room(self, parts: Sequence[str]) -> None:
        """Give parts of texts, each named once, places of their own."""
        new = [part for part in parts if part not in self.rows]
        self.rows |= {part: row for row, part in enumerate(new, len(self.rows))}
        self.vectors = np.concatenate((self.vectors, np.empty((len(new), self.vectors.shape[1]), np.float32)))

    def put(self, text: str, found: Found) -> None:
        """Enter what was found for a text or a part."""
        self.vectors[self.rows[text]], self.billed[text], self.found[text] = found

    def enter(self, vectors: Iterable[tuple[str, Vectors, int]], origin: Origin) -> None:
        """Enter the vectors of texts and parts, each with the tokens that it was billed, all of one origin."""
        rows, places, billed, found = self.rows, self.vectors, self.billed, self.found
        for text, vector, tokens in vectors:
            places[rows[text]], billed[text], found[text] = vector, tokens, origin

    def find(self, text: str) -> Found:
        """Return what was found for a text or a part. The vector is a row of ``vectors``, which will be the user's."""
        return Found(self.vectors[self.rows[text]], self.billed[text], self.found[text])

    def remember(self, texts: Iterable[str]) -> None:
        """Keep what was found for queries in memory."""
        if self.input_type == "query":
            for text in texts:
                if text in self.found:
                    self.rules.memory.keep(text, self.find(text))

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Return those of which nothing is known yet."""
        return [text for text in texts if text not in self.found]

    @property
    def candidates(self) -> list[Candidate]:
        """The models at or above the asked tier, cheapest first, unknown prices last."""
        if self._candidates is None:
            able = [candidate for candidate in self.rules.candidates if candidate.rank >= self.rank]
            if self.batch:
                able = [replace(item, price=item.batch_price) for item in able if item.batch_price is not None]
            able.sort(key=lambda candidate: (candidate.price is None, candidate.price or 0, candidate.index))
            self._candidates = able
        return self._candidates

    @property
    def lesser(self) -> list[Candidate]:
        """The models below the asked tier, the best first."""
        below = [candidate for candidate in self.rules.candidates if candidate.rank < self.rank]
        return sorted(below, key=lambda candidate: (-candidate.rank, candidate.index))

    def may_degrade(self, *failures: EmbedRouterError) -> bool:
        """Say whether a lower tier may answer after these failures. Documents stay in the index for good: never."""
        if self.input_type == "document" or any(isinstance(failure, AuthenticationError) for failure in failures):
            return False
        if all(isinstance(failure, BudgetExceededError) for failure in failures):
            return self.rules.budget.when_exceeded == "degrade"
        return self.rules.when_unavailable == "degrade"

    def key(self, candidate: Candidate, *, fingerprint: str = "", policy: str = "") -> Callable[[str], bytes]:
        """Return the function from a text to its cache key under one model."""
        return key_function(
            candidate, self.input_type, fingerprint=fingerprint, dtype=self.rules.cache_dtype, policy=policy
        )

    def name(self, text: str) -> str:
        """Return what tells a text from others that are under way: whoever shares it can use the same vector."""
        return f"{self.rank} {self.input_type} {text}"

    def land(self, texts: Iterable[str], left: Literal["handed over", "failed"] = "failed") -> None:
        """Tell who follows texts what was found; of the others, how they were ``left``."""
        names: dict[Hashable, str] = {self.name(text): text for text in texts}

        def outcome(name: Hashable) -> Landing[Found]:
            text = names[name]
            if text not in self.found:
                return left
            found = self.find(text)
            return found._replace(vector=found.vector.copy())

        self.rules.flights.land(names, outcome)

    def positions(self, texts: Sequence[str]) -> list[int]:
        """Return where ``texts``, or the texts that they are parts of, stand in the input."""
        wanted = set(texts)
        for whole, parts in reversed(self.parts.items()):
            if not wanted.isdisjoint(parts):
                wanted.add(whole)
        return [index for index, text in enumerate(self.texts, self.first) if text in wanted]

    def save(self) -> None:
        """Add up what the cache and the removal of duplicates avoided."""
        times = Counter(self.texts) if len(self.texts) > self.distinct else {}
        avoided: dict[int, tuple[Candidate, int, int]] = {}
        for text in islice(self.rows, self.distinct):
            candidate, cached, _ = self.found[text]
            if free := times.get(text, 1) - (not cached):
                _, texts, tokens = avoided.get(candidate.index, (candidate, 0, 0))
                avoided[candidate.index] = (candidate, texts + free, tokens + self.billed[text] * free)
        self.savings = [saving(candidate, texts, tokens) for candidate, texts, tokens in avoided.values()]

    def usage(self) -> Usage:
        """Return what was billed and avoided so far."""
        saved = sum([avoided.amount for avoided in self.savings], NOTHING)
        if not self.charges:
            return Usage(saved=saved)
        return Usage(
            tokens=sum(charge.tokens for charge in self.charges),
            requests=sum(charge.requests for charge in self.charges),
            cost=sum((charge.amount for charge in self.charges if charge.amount is not None), NOTHING),
            saved=saved,
            unpriced_tokens=sum(charge.tokens for charge in self.charges if charge.amount is None),
        )
