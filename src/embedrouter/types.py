"""The words of the domain, as frozen types without behaviour.

``Space`` says which vectors may be compared. ``Candidate`` is one model of a router with every fact about it settled;
the pure layers read nothing else. ``Answer`` is what a backend gives back for one request, ``Entry`` what the cache
keeps for one text. ``EmbeddingResult``, ``Usage`` and ``Estimate`` are what users get.

This module imports nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray


def dollars(amount: Decimal) -> str:
    """Return an amount of money for people: in full, never with an exponent, at least to the cent."""
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


InputType: TypeAlias = Literal["document", "query"]
"""What a text is for: it is stored and searched (document), or it searches (query)."""

OverlongPolicy: TypeAlias = Literal["error", "truncate", "mean"]
"""What happens to a text over the model's limit: refuse it, embed its beginning, or average its parts' vectors."""

Vectors: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Space:
    """What makes two vectors comparable: a model, or a family whose maker says so, and the number of dimensions."""

    name: str
    dimensions: int

    def __str__(self) -> str:
        return f"{self.name} ({self.dimensions} dimensions)"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold, as the provider documents it; ``None`` where there is no limit."""

    texts: int
    """Texts in one request."""
    tokens: int | None = None
    """Tokens in one request, summed over its texts."""
    size: int | None = None
    """Bytes of UTF-8 in one request, summed over its texts."""
    input_tokens: int | None = None
    """Tokens in one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One model of a router with every fact about it settled."""

    index: int
    """Place in the order the user declared."""
    name: str
    """``provider:name``, for messages and results."""
    tier: str
    rank: int
    """Place of the tier among the router's tiers; 0 is the lowest."""
    space: Space
    fingerprint: str
    """What makes its vectors the same vectors; keys the cache."""
    symmetric: bool
    """Whether documents and queries are embedded alike, so that one vector serves both."""
    longer: tuple[tuple[int, str], ...] = ()
    """Longer vectors of the model whose beginnings, scaled to length 1, are its vectors: dimensions and fingerprint."""
    price: Decimal | None
    """US dollars per million tokens; ``None`` is unknown, never free."""
    batch_price: Decimal | None = None
    """The same through the provider's batch endpoint; ``None`` where there is none."""
    free_tokens: int = 0
    """Tokens that cost nothing before the price applies."""
    limits: Limits
    concurrency: int
    """Requests in flight at once."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout: float
    """Seconds for one HTTP attempt."""
    local: bool = False
    """Runs in this process: costs nothing, needs no network."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a provider says of its limits with an answer; ``None`` where it does not say."""

    requests: int | None = None
    """A minute."""
    requests_left: int | None = None
    requests_reset: float | None = None
    """Seconds until all are left again."""
    tokens: int | None = None
    """A minute."""
    tokens_left: int | None = None
    tokens_reset: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a backend returns for one request.

    ``vectors`` has shape (texts, dimensions) and dtype float32, in the order of the texts. ``tokens`` is what the
    provider says it bills, ``None`` where it does not say; ``limits`` what it says of the pace it bears.
    """

    vectors: Vectors
    tokens: int | None
    limits: RateLimits | None = None


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a provider is with a batch."""

    ended: bool
    """Nothing more will be answered: all is done, or it expired, was cancelled or refused."""
    texts: int
    answered: int
    refusal: str = ""
    """Why the whole batch was refused; then nothing was billed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """One request as the ledger books it, before it is sent."""

    model: str
    input_type: InputType
    tier: str
    tag: str
    texts: int
    tokens: int
    """As estimated."""
    amount: Decimal | None
    """As estimated, in US dollars, before free tokens; ``None`` where the price is unknown."""
    free_tokens: int = 0
    """Tokens of the model that cost nothing, in the whole life of the ledger."""
    attempt: int
    """1 for the first try."""
    timeout: float
    """Seconds that it may take."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of each text; ``exact`` when the model's own tokenizer counted them, otherwise an upper estimate."""

    tokens: Sequence[int]
    exact: bool


class Entry(NamedTuple):
    """What the cache keeps for one text: its vector (float32, shape (dimensions,)) and the tokens it was billed."""

    vector: Vectors
    tokens: int


class Origin(NamedTuple):
    """Where vectors came from."""

    candidate: Candidate
    cached: bool
    shortened: bool = False


class Found(NamedTuple):
    """The vector of one text: float32, shape (dimensions,)."""

    vector: Vectors
    tokens: int
    """That it was billed."""
    origin: Origin

    def again(self) -> Found:
        """Return it as whoever asks next is given it."""
        return self._replace(origin=self.origin._replace(cached=True))


@dataclass(frozen=True, slots=True)
class Usage:
    """What work was paid for. Money is US dollars."""

    tokens: int = 0
    """Tokens billed by providers, and counted by local models."""
    requests: int = 0
    """Requests answered by providers and local models; a warm call makes none."""
    cost: Decimal = Decimal(0)
    """Money for all tokens whose price is known."""
    saved: Decimal = Decimal(0)
    """Money that the cache and the removal of duplicates avoided, as far as prices are known."""
    unpriced_tokens: int = 0
    """Billed tokens whose price is unknown: they are in ``tokens`` and missing from ``cost``."""

    def __str__(self) -> str:
        """Return it for people; money without exponents."""
        unknown = f", {self.unpriced_tokens} tokens of unknown price" if self.unpriced_tokens else ""
        return (
            f"{self.tokens} tokens in {self.requests} requests, {dollars(self.cost)}{unknown}; "
            f"saved {dollars(self.saved)}"
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.tokens + other.tokens,
            self.requests + other.requests,
            self.cost + other.cost,
            self.saved + other.saved,
            self.unpriced_tokens + other.unpriced_tokens,
        )


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """Vectors in the order of the texts, and where each came from.

    Sequence fields have one item per text.
    """

    vectors: Vectors
    """float32, shape (texts, dimensions)."""
    space: Space
    """The one space all vectors are in."""
    models: tuple[str, ...]
    """The model that computed each vector, now or when it was cached."""
    cached: tuple[bool, ...]
    """Whether the vector was in the cache when the call began."""
    degraded: tuple[bool, ...]
    """Whether the vector is of a lower tier than was asked for."""
    shortened: tuple[bool, ...]
    """Whether the text was over the model's limit and only its beginning, or the mean of its parts, was embedded."""
    usage: Usage
    """What this call was billed and what it avoided."""

    def __len__(self) -> int:
        return len(self.models)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call would take; nothing was called. Tokens, requests and cost are those of the texts not yet cached."""

    texts: int
    unique: int
    """Distinct texts."""
    cached: int
    """Distinct texts whose vectors are already in the cache."""
    tokens: int
    requests: int
    cost: Decimal | None
    """US dollars; ``None`` where the price is unknown."""
    model: str
    """The model that would be asked first."""
    exact: bool
    """Whether the model's own tokenizer counted; otherwise ``tokens`` is an upper estimate."""

    def __str__(self) -> str:
        """Return it for people; money without exponents."""
        amount = "unknown price" if self.cost is None else dollars(self.cost)
        tokens = f"{'' if self.exact else 'about '}{self.tokens} tokens"
        return (
            f"{self.texts} texts, {self.unique} distinct, {self.cached} cached; the rest is {tokens} "
            f"in {self.requests} requests to {self.model}: {amount}"
        )
