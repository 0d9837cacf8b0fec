"""What one call knows: the router's rules, and what its flows have found, paid and met so far."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Literal

from .budget import Budget
from .errors import Attempt, AuthenticationError, BudgetExceededError, EmbedRouterError, InputRejectedError
from .flights import Flights
from .policy import RetryPolicy
from .types import Candidate, InputType, OverlongPolicy, Space, Usage, Vectors

__all__ = ["Charge", "Found", "Item", "Job", "Rules"]


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
    book: Callable[[Job], None]
    """Adds what a call was billed and saved to the totals, however it ended."""
    abandon: Callable[[int], None]
    """Books what becomes of a reservation whose flow is closed before the answer."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    chance: Callable[[], float]
    """A random number from 0 to 1."""


@dataclass(slots=True)
class Found:
    """The vector of one text and where it came from."""

    vector: Vectors
    candidate: Candidate
    tokens: int
    cached: bool
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One text to be sent, with its size."""

    text: str
    tokens: int


@dataclass(slots=True)
class Charge:
    """What one answered request was billed."""

    tokens: int
    amount: Decimal | None
    """US dollars; ``None`` where the price is unknown."""


@dataclass(slots=True, kw_only=True)
class Job:
    """One call under way. Its flows run side by side and share ``found``, ``charges``, ``attempts`` and ``refused``."""

    rules: Rules
    texts: Sequence[str]
    """As the user gave them, for positions in messages."""
    input_type: InputType
    rank: int
    tag: str = ""
    batch: bool = False
    """It goes through a batch endpoint: only models that have one are candidates, at its price."""
    deadline: float | None = None
    found: dict[str, Found] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    landed: int = 0
    """How many texts had been embedded here when the cache was read."""
    rejected: dict[str, InputRejectedError] = field(default_factory=dict)
    """Texts that a provider refused, and why."""
    refused: list[str] = field(default_factory=list)
    """Texts that a provider found too long."""
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The parts that stand in for texts over the limit, each an ordinary text."""
    unaffordable: BudgetExceededError | None = None
    """Why nothing that costs money may be called."""
    saved: Decimal = Decimal(0)
    """What the cache and the removal of duplicates avoided."""
    savings: list[tuple[Candidate, int, int]] = field(default_factory=list)
    """The same by model: texts and tokens."""

    @property
    def candidates(self) -> list[Candidate]:
        """The models at or above the asked tier, cheapest first, unknown prices last."""
        able = [candidate for candidate in self.rules.candidates if candidate.rank >= self.rank]
        if self.batch:
            able = [replace(item, price=item.batch_price) for item in able if item.batch_price is not None]
        return sorted(able, key=lambda candidate: (candidate.price is None, candidate.price or 0, candidate.index))

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

    def name(self, text: str) -> Hashable:
        """Return what tells a text from others that are under way: whoever shares it can use the same vector."""
        return (self.rank, self.input_type, text)

    def positions(self, texts: Sequence[str]) -> list[int]:
        """Return where ``texts``, or the texts that they are parts of, stand in the input."""
        wanted = set(texts)
        for whole, parts in reversed(self.parts.items()):
            if not wanted.isdisjoint(parts):
                wanted.add(whole)
        return [index for index, text in enumerate(self.texts) if text in wanted]

    def usage(self) -> Usage:
        """Return what was billed and avoided so far."""
        return Usage(
            tokens=sum(charge.tokens for charge in self.charges),
            requests=len(self.charges),
            cost=sum((charge.amount for charge in self.charges if charge.amount is not None), Decimal(0)),
            saved=self.saved,
            unpriced_tokens=sum(charge.tokens for charge in self.charges if charge.amount is None),
        )
