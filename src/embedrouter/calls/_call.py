"""Types of one call: the request, the result of each stage, and errors about texts.

``Call`` is passed down the stages; a stage that changes a field passes a copy (``dataclasses.replace``). ``Embedded``
is passed back up. Stages that refuse texts raise ``TextsTooLong`` or ``TextsRejected``, which name texts; ``Calls``
turns these errors into the public errors, which name positions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, Protocol, TypeAlias, TypedDict

from .._process import Future
from ..errors import AuthenticationError, BudgetExceededError, EmbedRouterError, InputRejectedError
from ..spending import Charge
from ..types import Candidate, Found, InputType
from ._effects import Effects

Limiter: TypeAlias = Callable[[Hashable], Future[None]]
"""A framework's rate limiter: given ``Effects.loop``, it returns what is done when one request is allowed."""


def ignore(embedded: Embedded) -> None:
    """Do nothing with what a request has brought."""


class About(TypedDict):
    """The fields of an event that say what it is about."""

    model: str
    tier: str
    input_type: InputType | None
    tag: str


def about(candidate: Candidate, input_type: InputType | None, tag: str) -> About:
    """Return what an event about a model says of who has asked."""
    return {"model": candidate.name, "tier": candidate.tier, "input_type": input_type, "tag": tag}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The request that is passed down the stages."""

    effects: Effects
    input_type: InputType
    rank: int
    """Position of the requested tier among the router's tiers; 0 is the lowest."""
    tag: str
    deadline: float | None
    """Time on the router's clock at which the call must end."""
    candidates: Sequence[Candidate]
    """The models at or above the requested tier, cheapest first; never empty."""
    lower: Sequence[Candidate] = ()
    """The models below the requested tier, best first."""
    completed: int = 0
    """Texts that had been embedded in this process when the cache was read."""
    report: Callable[[Embedded], None] = ignore
    """Receives what each request has brought, as soon as it is answered; also where another request fails."""
    limiter: Limiter | None = None
    """Is asked before each request that goes out."""
    exact: bool | None = None
    """Whether the first model's own tokenizer counted the texts; ``None`` where nothing was counted."""
    unaffordable: BudgetExceededError | None = None
    """Why nothing that costs money may be called."""

    def about(self, candidate: Candidate) -> About:
        """Return what an event about a model says of the call."""
        return about(candidate, self.input_type, self.tag)

    def asks(self) -> About:
        """Return what an event that is about no model says of the call."""
        return {"model": "", "tier": "", "input_type": self.input_type, "tag": self.tag}

    def seconds_left(self, now: float) -> float:
        """Return the seconds until the deadline; endless without one."""
        return inf if self.deadline is None else self.deadline - now

    @property
    def first(self) -> Candidate:
        """The model that is called first."""
        return self.candidates[0]

    @property
    def unlimited(self) -> bool:
        """Whether all models are: to count or to share their texts would take longer than to embed them."""
        return all(candidate.unlimited for candidate in self.candidates)


class SizedText(NamedTuple):
    """A text to be sent, with its number of tokens."""

    text: str
    tokens: int
    is_piece: bool = False
    """Whether it is a part of a text over the model's limit."""


@dataclass(slots=True)
class Embedded:
    """The result of a stage: vectors, charges and refused texts."""

    found: dict[str, Found] = field(default_factory=dict)
    charges: list[Charge] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)
    """Texts that the provider refuses as too long, where the policy is to shorten such texts."""
    rejected: dict[str, InputRejectedError] = field(default_factory=dict)
    """Other texts that the provider refuses, with the errors."""

    def add(self, other: Embedded) -> None:
        """Add the result of another stage. A text that one model refuses may have a vector of another."""
        self.found.update(other.found)
        self.charges += other.charges
        self.too_long += other.too_long
        rejected = {**self.rejected, **other.rejected}
        self.rejected = {text: error for text, error in rejected.items() if text not in self.found}


class Stage(Protocol):
    """One step of a call: answer some texts, and pass the other texts to the next stage."""

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        """Return the vectors of ``texts``, which are distinct."""
        ...


def input_limit(candidate: Candidate) -> int:
    """Return the maximum number of tokens that a model accepts in one text."""
    return candidate.limits.input_tokens or sys.maxsize


def without(texts: Iterable[str], found: Container[str]) -> list[str]:
    """Return the texts that have no vector yet."""
    return [text for text in texts if text not in found]


@dataclass(frozen=True, slots=True)
class Degradation:
    """Conditions under which lower tiers may answer queries."""

    over_budget: bool
    unavailable: bool
    over_budget_of: Mapping[str, bool] = field(default_factory=dict)
    """``over_budget`` for the caps of a tag, by the tag's name."""

    def allows(self, input_type: InputType, *failures: EmbedRouterError) -> bool:
        """Return whether a lower tier may answer after these failures; never for documents, which stay in the index."""
        if input_type == "document" or any(isinstance(failure, AuthenticationError) for failure in failures):
            return False
        refusals = [failure for failure in failures if isinstance(failure, BudgetExceededError)]
        if len(refusals) == len(failures):
            return all(self.over_budget_of.get(failure.tag, self.over_budget) for failure in refusals)
        return self.unavailable


class TextsTooLong(EmbedRouterError):
    """Texts are over the model's limit; no request was made."""

    def __init__(self, texts: Sequence[str], limit: int, model: str) -> None:
        super().__init__(f"{len(texts)} texts are too long")
        self.texts, self.limit, self.model = texts, limit, model


class TextsRejected(EmbedRouterError):
    """A provider refuses texts; ``reasons`` has the error of each text."""

    def __init__(self, reasons: Mapping[str, InputRejectedError], *, others_embedded: bool) -> None:
        super().__init__(f"{len(reasons)} texts were rejected")
        self.reasons, self.others_embedded = reasons, others_embedded
