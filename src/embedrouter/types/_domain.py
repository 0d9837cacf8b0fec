"""Types that the rooms hand to each other.

``Space`` says which vectors may be compared. ``Candidate`` is one model of a router with every fact about the model
resolved. ``Answer`` is the result of one provider request, ``Entry`` the content of one cache row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray


def plain(text: str) -> str:
    """Return a text as a plain ``str``. Subclasses may join, format or compare otherwise; enums are their values."""
    return text if type(text) is str else str.__str__(text)


InputType: TypeAlias = Literal["document", "query"]
"""The purpose of a text: stored and searched (document), or searching (query)."""

OverlongPolicy: TypeAlias = Literal["error", "truncate", "mean"]
"""Treatment of a text over the model's limit: refuse the text, embed its beginning, or average its parts' vectors."""

OVERLONG: Mapping[OverlongPolicy, str] = {
    "mean": "the vectors of their parts are averaged",
    "truncate": "only their beginning is embedded",
    "error": "the model decides whether it refuses them",
}
"""What happens to texts over the model's limit, for messages."""

OutputDtype: TypeAlias = Literal["int8", "uint8", "binary", "ubinary"]
"""Numbers other than float32. Those of ``"binary"`` (int8) and ``"ubinary"`` (uint8) hold eight dimensions, a bit each.
"""

PACKED: frozenset[str | None] = frozenset({"binary", "ubinary"})
"""Each ``OutputDtype`` whose numbers hold eight dimensions."""

Vectors: TypeAlias = NDArray[Any]
"""float32; int8 or uint8 where a model's ``output_dtype`` says so."""


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space: a model, or a family that its maker declares comparable, and the number of dimensions."""

    name: str
    dimensions: int
    """Numbers in one vector, as a vector store counts them: packed bits are eight to a number."""

    def __str__(self) -> str:
        return f"{self.name} ({self.dimensions} dimensions)"


@dataclass(frozen=True, slots=True)
class Limits:
    """The size limits of one request, as the provider documents them; ``None`` is no limit."""

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
    """One model of a router with every fact about the model resolved."""

    index: int
    """Position in the order that the user declared."""
    name: str
    """``provider:name``, for messages and results."""
    tier: str
    rank: int
    """Position of the tier among the router's tiers; 0 is the lowest."""
    space: Space
    fingerprint: str
    """Identity of the model's vectors: equal fingerprints share cache rows."""
    output_dtype: OutputDtype | None = None
    """The numbers that are requested; ``None`` is float32."""
    symmetric: bool
    """Whether documents and queries are embedded alike, so that one vector serves both."""
    longer: tuple[tuple[int, str], ...] = ()
    """Longer vectors of the model whose beginnings, scaled to length 1, are its vectors: dimensions and fingerprint."""
    price: Decimal | None
    """US dollars per million tokens; ``None`` is unknown, never free."""
    batch_price: Decimal | None = None
    """The price through the provider's batch endpoint; ``None`` without such an endpoint."""
    free_tokens: int = 0
    """Tokens that cost nothing before the price applies."""
    batch_free_tokens: int = 0
    """The same through the provider's batch endpoint, where some providers give none."""
    limits: Limits
    concurrency: int
    """Requests in flight at once."""
    requests_per_minute: int | None = None
    texts_per_minute: int | None = None
    tokens_per_minute: int | None = None
    served_as: tuple[str, ...] = ()
    """Further names by which servers may call the model."""
    timeout: float
    """Seconds for one HTTP attempt."""
    local: bool = False
    """Whether the model runs in this process: no cost, no network."""
    instant: bool = False
    """Whether the model makes a vector in less time than a cache needs to read one."""
    cuts: bool = False
    """Whether the provider cuts long texts silently, so that the estimate decides which texts are too long."""
    repeats: bool = False
    """Whether the same texts get the same answer again: from a model in this process, or a wrapped embedder."""
    reads_context: bool = False
    """Whether code of the user's makes the requests, which may read the caller's context variables, such as a key."""

    @property
    def number(self) -> str:
        """The type of the vectors' numbers: "float32", "int8" or "uint8"."""
        if self.output_dtype is None:
            return "float32"
        return "uint8" if self.output_dtype.startswith("u") else "int8"

    @property
    def dimensions(self) -> int:
        """The number of dimensions that is requested."""
        return self.space.dimensions * (8 if self.output_dtype in PACKED else 1)

    @property
    def unlimited(self) -> bool:
        """Whether nothing depends on the number of tokens of its texts."""
        return self.local and self.limits.tokens is None and self.limits.input_tokens is None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The rate limits that a provider reports with an answer; ``None`` where the provider reports no number."""

    requests: int | None = None
    """Requests per minute."""
    requests_left: int | None = None
    requests_reset: float | None = None
    """Seconds until ``requests_left`` is full again."""
    tokens: int | None = None
    """Tokens per minute."""
    tokens_left: int | None = None
    tokens_reset: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one provider request."""

    vectors: Vectors
    """float32, or the model's ``output_dtype``; shape (texts, dimensions), in the order of the texts."""
    tokens: int | None
    """Tokens that the provider bills; ``None`` where the provider reports no number."""
    limits: RateLimits | None = None
    model: str | None = None
    """The name by which the server calls the model, where the server reports one."""
    implausible: str | None = None
    """The number that was reported as the billed tokens, where no bill can have it; ``tokens`` is then ``None``."""


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """The progress of a batch at the provider."""

    ended: bool
    """Whether the batch is completed, expired, cancelled or refused: no further text will be answered."""
    texts: int
    answered: int
    refusal: str = ""
    """Reason why the provider refused the whole batch; a refused batch is not billed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """One request as the ledger records it, before the request is sent."""

    model: str
    input_type: InputType
    tier: str
    tag: str
    texts: int
    pieces: int = 0
    """Texts among them that are parts of a text over the model's limit."""
    tokens: int
    """Estimate."""
    exact: bool | None = None
    """Whether the model's own tokenizer counted ``tokens``; ``None`` where the bill says nothing about the estimate."""
    amount: Decimal | None
    """Estimate in US dollars, before free tokens are deducted; ``None`` where the price is unknown."""
    free_tokens: int = 0
    """Tokens of the model that cost nothing, counted over the whole life of the ledger."""
    attempt: int
    """1 for the first attempt."""
    timeout: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The number of tokens of each text."""

    tokens: Sequence[int]
    exact: bool
    """Whether the model's own tokenizer counted; otherwise the numbers are upper estimates."""


class Entry(NamedTuple):
    """The content of one cache row."""

    vector: Vectors
    """Shape (dimensions,)."""
    tokens: int
    """Tokens that were billed for the text."""


class Origin(NamedTuple):
    """The source of a vector."""

    candidate: Candidate
    cached: bool
    shortened: bool = False


class Found(NamedTuple):
    """The vector of one text: shape (dimensions,)."""

    vector: Vectors
    tokens: int
    """Tokens that were billed for the text."""
    origin: Origin

    def again(self) -> Found:
        """Return the same vector, marked as cached."""
        return self._replace(origin=self.origin._replace(cached=True))
