"""The results of one run of the demo, as frozen types without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from ..types import Usage
from ._demo_stores import Hit


@dataclass(frozen=True, slots=True)
class FilledStore:
    """One vector store after the texts were added."""

    store: str
    tier: str
    space: str
    texts: int
    distinct: int
    cached: int
    """Distinct texts that were in the cache before."""
    computed: int
    """Distinct texts that were embedded in this run."""
    requests: int
    seconds: float


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """The hits of one question."""

    question: str
    sources: dict[str, list[str]]
    """By store, best first."""
    hits: dict[str, list[Hit]]


@dataclass(frozen=True, slots=True)
class TierResult:
    """The hits of one question at one tier."""

    tier: str
    model: str
    space: str
    own_index: bool
    hits: list[Hit]
    sources: list[str]


@dataclass(frozen=True, slots=True)
class ProviderCost:
    """The cost of the same texts and questions with a model of a provider, each embedded once."""

    model: str
    tokens: int
    cost: Decimal
    exact: bool
    """Whether the model's own tokenizer counted the tokens."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The results of a whole run: one JSON object."""

    corpus: str
    models: tuple[str, ...]
    space: str
    cache: str | None
    skipped: dict[str, list[str]]
    missing_extras: list[str]
    indexes: list[FilledStore]
    answers: list[QuestionResult]
    tiers: list[TierResult]
    usage: Usage
    elsewhere: list[ProviderCost]
    seconds: float
    all_from_cache: bool
