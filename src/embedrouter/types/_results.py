"""What users get: ``EmbeddingResult``, ``Usage`` and ``Estimate``."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from .._display import cost_shown, counted, data_size, dollars, html_table
from ._domain import Space, Vectors


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, requests and money spent and saved. Money is US dollars."""

    tokens: int = 0
    """Tokens billed by providers and counted by local models."""
    requests: int = 0
    """Requests answered by providers and local models."""
    cost: Decimal = Decimal(0)
    """Cost of all tokens whose price is known."""
    saved: Decimal = Decimal(0)
    """Cost avoided by the cache and by deduplication, as far as prices are known."""
    unpriced_tokens: int = 0
    """Billed tokens whose price is unknown: counted in ``tokens``, not in ``cost``."""

    def __str__(self) -> str:
        """Describe the usage in one line."""
        unknown = f", {counted(self.unpriced_tokens, 'token')} of unknown price" if self.unpriced_tokens else ""
        tokens, requests = counted(self.tokens, "token"), counted(self.requests, "request")
        return f"{tokens} in {requests}, {dollars(self.cost)}{unknown}; saved {dollars(self.saved)}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.tokens + other.tokens,
            self.requests + other.requests,
            self.cost + other.cost,
            self.saved + other.saved,
            self.unpriced_tokens + other.unpriced_tokens,
        )


MEANT = {
    **dict.fromkeys(("cost", "tokens", "requests", "saved"), "usage.{}"),
    **dict.fromkeys(("embedding", "embeddings", "data", "vector"), "vectors"),
    "model": "models",
    "tolist": "to_list()",
    "dimensions": "space.dimensions",
}
"""What is meant by names that a result of other libraries has."""


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddingResult:
    """Vectors in the order of the texts, and the source of each.

    Sequence fields have one item for each text. The result is a sequence of its vectors: ``len(result)``,
    ``result[0]``, ``for vector in result`` and ``np.asarray(result)`` give them, ``result.to_list()`` lists of numbers.
    """

    vectors: Vectors
    """Shape (texts, dimensions); float32, or int8 or uint8 where the models' ``output_dtype`` says so."""
    space: Space
    """The space of all vectors."""
    models: tuple[str, ...]
    """The model that computed each vector, now or when it was cached."""
    cached: tuple[bool, ...]
    """Whether the vector was in the cache before the call."""
    degraded: tuple[bool, ...]
    """Whether the vector is of a lower tier than requested."""
    shortened: tuple[bool, ...]
    """Whether the text was over the model's limit: only its beginning, or the mean of its parts, was embedded."""
    usage: Usage
    """Tokens, requests and money spent and saved by the call."""

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Vectors]:
        return iter(self.vectors)

    def __getitem__(self, index: Any) -> Vectors:
        """Return the vector of one text, or the vectors of several."""
        found: Vectors = self.vectors[index]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Vectors:
        """Return the vectors, for ``np.asarray``."""
        vectors: Vectors = np.array(self.vectors, dtype=dtype) if copy else np.asarray(self.vectors, dtype=dtype)
        return vectors

    def to_list(self) -> list[list[float]]:
        """Return the vectors as lists of Python numbers."""
        numbers: list[list[float]] = self.vectors.tolist()
        return numbers

    def __getattr__(self, name: str) -> Any:
        """Say which attribute is meant.

        Raises:
            AttributeError: always.
        """
        hint = f" Did you mean result.{MEANT[name].format(name)}?" if name in MEANT else ""
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}.{hint}")

    def __repr__(self) -> str:
        """Describe the result in one line, however many vectors it has."""
        return f"<{counted(len(self), 'vector')} in {self.space}: {sum(self.cached):,} from the cache; {self.usage}>"

    def _repr_html_(self) -> str:
        answered = Counter(zip(self.models, self.cached, strict=True))
        rows = [
            [model, "from the cache" if cached else "embedded", f"{number:,}"]
            for (model, cached), number in sorted(answered.items())
        ]
        for what, marks in (("degraded", self.degraded), ("shortened", self.shortened)):
            rows += [[what, "", f"{sum(marks):,}"]] if any(marks) else []
        title = html.escape(f"{counted(len(self), 'vector')} in {self.space}")
        return f"<p>{title}</p>{html_table(rows)}{self.usage._repr_html_()}"


def figures(results: Sequence[EmbeddingResult]) -> dict[str, Any]:
    """Return what was answered and what it cost, as plain data for tracing: neither texts nor vectors."""
    usage = sum((result.usage for result in results), Usage())
    return {
        "model": ", ".join(dict.fromkeys(model for result in results for model in result.models)),
        "texts": sum(map(len, results)),
        "cached": sum(sum(result.cached) for result in results),
        "degraded": sum(sum(result.degraded) for result in results),
        "requests": usage.requests,
        "tokens": usage.tokens,
        "cost": None if usage.unpriced_tokens else float(usage.cost),
        "saved": float(usage.saved),
    }


@dataclass(frozen=True, slots=True)
class Estimate:
    """The expected tokens, requests and cost of a call, for the texts that are not cached: at most, and likely."""

    texts: int
    unique: int
    """Distinct texts."""
    cached: int
    """Distinct texts whose vectors are in the cache."""
    tokens: int
    requests: int
    cost: Decimal | None
    """US dollars; ``None`` where the price is unknown."""
    model: str
    """The model that would be called first."""
    exact: bool
    """Whether the model's own tokenizer counted; otherwise ``tokens`` is an upper estimate."""
    likely_tokens: int
    """The share of ``tokens`` that bills of the model had before, or usually have; all, where the count is exact."""
    likely_cost: Decimal | None
    is_bound: bool
    """Whether ``tokens`` and ``cost`` are bounds: no recent bill in the ledger was over such an estimate."""
    cache_bytes: int
    """The disk that the vectors will take in the cache."""
    too_long: int = 0
    """Texts over the model's limit, as far as that count shows; they are shortened, or refused (``on_too_long``)."""

    def __str__(self) -> str:
        """Describe the estimate in one line."""
        tokens, amount = counted(self.likely_tokens, "token"), cost_shown(self.likely_cost)
        if not self.is_bound:
            tokens, amount = f"about {tokens}", f"about {amount}, and some bills were over the estimate"
        elif self.likely_tokens != self.tokens:
            tokens = f"about {tokens}, at most {self.tokens:,},"
            amount = amount if self.cost == self.likely_cost else f"about {amount}, at most {cost_shown(self.cost)}"
        disk = f"; {data_size(self.cache_bytes)} on disk" if self.cache_bytes else ""
        return (
            f"{counted(self.texts, 'text')}, {self.unique:,} distinct, {self.cached:,} cached; the rest is {tokens} "
            f"in {counted(self.requests, 'request')} to {self.model}: {amount}{disk}"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>"
