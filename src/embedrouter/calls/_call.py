"""The types of one call: what is asked, what each stage hands up, and what is paid.

``Call`` goes down the stages unchanged but for what a stage narrows (``dataclasses.replace``). ``Embedded`` comes back
up. Stages that refuse texts raise ``TextsTooLong`` or ``TextsRejected``, which name texts; the first stage turns these
into the public errors, which name positions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ..errors import (
    AuthenticationError,
    BudgetExceededError,
    EmbedRouterError,
    InputRejectedError,
)
from ..spending import Charge
from ..types import Candidate, Found, InputType
from ._effects import Effects

__all__ = [
    "Call",
    "Degradation",
    "Embedded",
    "SizedText",
    "Stage",
    "TextsRejected",
    "TextsTooLong",
    "input_limit",
    "seconds_left",
    "without",
]


def _ignore(found: Mapping[str, Found]) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked of the stages."""

    effects: Effects
    input_type: InputType
    rank: int
    """Place of the asked tier among the router's tiers."""
    tag: str
    deadline: float | None
    """When all must be over, on the router's clock."""
    candidates: Sequence[Candidate]
    """The models at or above the asked tier, cheapest first; never empty."""
    lower: Sequence[Candidate] = ()
    """The models below it, the best first."""
    completed: int = 0
    """Texts that had been embedded in this process when the cache was read."""
    report: Callable[[Mapping[str, Found]], None] = _ignore
    """Receives the vectors of each request as soon as it is answered."""
    unaffordable: BudgetExceededError | None = None
    """Why nothing that costs money may be called."""

    @property
    def first(self) -> Candidate:
        """The model that is asked first."""
        return self.candidates[0]


class SizedText(NamedTuple):
    """A text to be sent, with its tokens."""

    text: str
    tokens: int


@dataclass(slots=True)
class Embedded:
    """What a stage has found, and what that was billed."""

    found: dict[str, Found] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    """Texts that the provider found over the model's limit, where the policy is to shorten them."""
    rejected: dict[str, InputRejectedError] = field(default_factory=dict)
    """Texts that the provider refused for another reason, or for good."""

    def add(self, other: Embedded) -> None:
        """Take over what another stage has found."""
        self.found.update(other.found)
        self.charges += other.charges
        self.too_long += other.too_long
        self.rejected.update(other.rejected)


class Stage(Protocol):
    """One step of a call: it answers the texts that it can, and hands the others to the next stage."""

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        """Return the vectors of all texts, which are distinct."""
        ...


def input_limit(candidate: Candidate) -> int:
    """Return the most tokens of one text that a model takes."""
    return candidate.limits.input_tokens or sys.maxsize


def without(texts: Iterable[str], found: Container[str]) -> list[str]:
    """Return the texts that have no vector yet."""
    return [text for text in texts if text not in found]


def seconds_left(call: Call, now: float) -> float | None:
    """Return the seconds until the deadline of a call; ``None`` where there is none."""
    return None if call.deadline is None else call.deadline - now


@dataclass(frozen=True, slots=True)
class Degradation:
    """When lower tiers may answer queries."""

    over_budget: bool
    unavailable: bool

    def allows(self, input_type: InputType, *failures: EmbedRouterError) -> bool:
        """Return whether a lower tier may answer after these failures. Documents stay in the index for good: never."""
        if input_type == "document" or any(isinstance(failure, AuthenticationError) for failure in failures):
            return False
        if all(isinstance(failure, BudgetExceededError) for failure in failures):
            return self.over_budget
        return self.unavailable


class TextsTooLong(EmbedRouterError):
    """Texts over the model's limit, before anything was sent."""

    def __init__(self, texts: Sequence[str], limit: int, model: str) -> None:
        super().__init__(f"{len(texts)} texts are too long")
        self.texts, self.limit, self.model = texts, limit, model


class TextsRejected(EmbedRouterError):
    """Texts that a provider refused, and why."""

    def __init__(self, reasons: Mapping[str, InputRejectedError], *, others_embedded: bool) -> None:
        super().__init__(f"{len(reasons)} texts were rejected")
        self.reasons, self.others_embedded = reasons, others_embedded
