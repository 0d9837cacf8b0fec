"""What one run of the demo gives: figures and answers, as frozen types without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from ..types import Usage
from .stores import Hit

__all__ = ["Answer", "AtTier", "Elsewhere", "Index", "Outcome"]


@dataclass(frozen=True, slots=True)
class Index:
    """One vector store that was filled."""

    store: str
    tier: str
    space: str
    texts: int
    distinct: int
    cached: int
    """Distinct texts that were in the cache before."""
    requests: int
    seconds: float

    @property
    def computed(self) -> int:
        return self.distinct - self.cached


@dataclass(frozen=True, slots=True)
class Answer:
    """What each store found."""

    question: str
    hits: dict[str, list[Hit]]
    """By store, best first."""


@dataclass(frozen=True, slots=True)
class AtTier:
    """A question asked at one tier."""

    tier: str
    model: str
    space: str
    own_index: bool
    hits: list[Hit]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What the same texts and questions cost at a provider, once."""

    model: str
    tokens: int
    cost: Decimal
    exact: bool
    """Whether the tokens were counted by the model's own tokenizer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything there is to show."""

    indexes: list[Index]
    answers: list[Answer]
    tiers: list[AtTier]
    usage: Usage
    elsewhere: list[Elsewhere]
    seconds: float
