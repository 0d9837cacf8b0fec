"""The result of a comparison: what each variant of each model reaches on one collection, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from ..types import OutputDtype, Vectors
from ._questions import JudgedBy

if TYPE_CHECKING:
    from ._choice import Choice

MEASURES = ("nDCG@10", "recall@10", "recall@100", "MRR@10")
"""The measures, the one that decides first."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over the queries, and its 95 % interval by bootstrap."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One document in an answer."""

    document: str
    score: float
    """The cosine of query and document."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to use a model, or a cascade of two.

    Attributes:
        label: names the variant in reports, and differs from all others of the comparison.
        models: the model, or the first and the second one of a cascade.
        dimensions: of its vectors; of a cascade, those of the second model.
        dtype: of the stored vectors; ``None`` for float32.
        prompts: of documents and of queries, where they are not the model's own.
        escalated: the share of the queries that a cascade asks its second model.
        declared: the arguments of the ``Router``, of a cascade those of both, for ``Comparison.best_under``.
    """

    label: str
    models: tuple[str, ...]
    dimensions: int
    dtype: OutputDtype | str | None = None
    prompts: Mapping[str, str] | None = None
    escalated: float | None = None
    declared: tuple[Mapping[str, Any], ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a model answered, measured on requests that were really made.

    Attributes:
        documents_per_second: while documents were embedded.
        query_median: seconds from a query to its vector, asked alone; of a cascade also to the second one's, where it
            is asked.
        query_95th: the same, for the slowest of twenty.
        at: when it was measured: in this run, or in an earlier one where all vectors were in the cache.
    """

    documents_per_second: float | None
    query_median: float | None
    query_95th: float | None
    at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What one variant reaches and costs.

    Attributes:
        quality: each of ``MEASURES``.
        by_query: for each measure the values, in the order of ``Comparison.queries``.
        answers: for each query the ten nearest documents.
        corpus_cost: dollars to embed the documents, by the list price, of a cascade with both models; ``None`` where
            the price is unknown.
        corpus_batch_cost: the same by the batch endpoint; ``None`` where there is none.
        queries_cost: dollars for a million queries like those of the collection.
        index_bytes: of the stored vectors, without the store's own structures.
        spent: dollars paid in this comparison; what was in the cache costs nothing.
        dominated_by: the label of a variant that is not dearer, of the documents and of the queries, and better by more
            than chance, if there is one. Between variants of one model the larger index is the dearer.
    """

    variant: Variant
    quality: Mapping[str, Interval]
    by_query: Mapping[str, Vectors]
    answers: Sequence[Sequence[Hit]]
    corpus_cost: Decimal | None
    corpus_batch_cost: Decimal | None
    queries_cost: Decimal | None
    index_bytes: int
    speed: Speed | None
    spent: Decimal
    dominated_by: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two variants on the same queries.

    Attributes:
        difference: nDCG@10 of the first minus that of the second, with its interval.
        p: the chance of a difference as large between equal variants, by paired randomisation, or by Hoeffding's bound
            where that is lower.
        differs: whether that is below 5 %, corrected for the number of pairs (Holm).
    """

    first: str
    second: str
    difference: Interval
    p: float
    differs: bool


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Comparison:
    """The result of ``embedrouter.compare``.

    Attributes:
        collection: its name.
        judged_by: who says which documents answer a query.
        documents: the text of each document that stands in an answer or is relevant.
        document_count: how many documents were searched.
        queries: the text of each query with a relevant document.
        relevant: for each query its relevant documents and their grades.
        variants: by nDCG@10, the best first.
        pairs: each pair of variants.
        left_out: models that could not be compared, each with the reason.
        at: when.
        notes: sentences that belong beside every figure: those of the questions, and what models could not take.
        spent: dollars paid in this comparison.
    """

    collection: str
    judged_by: JudgedBy
    documents: Mapping[str, str]
    document_count: int
    queries: Mapping[str, str]
    relevant: Mapping[str, Mapping[str, int]]
    variants: Sequence[Measured]
    pairs: Sequence[Pair]
    left_out: Mapping[str, str]
    at: datetime
    notes: Sequence[str] = ()
    spent: Decimal = Decimal(0)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each variant, the best first: quality with intervals, dollars as ``Decimal``, speed, bytes.

        What is not known is ``None``.
        """
        from . import _tables

        return _tables.rows(self)

    def to_pandas(self) -> Any:
        """Return the rows as a data frame of pandas, dollars as floats.

        Raises:
            ConfigError: pandas is not installed.
        """
        from . import _tables

        return _tables.frame(self)

    def to_dict(self, *, by_query: bool = False) -> dict[str, Any]:
        """Return the comparison as JSON holds it: dollars as texts, which lose no digit, times in ISO 8601.

        Args:
            by_query: whether each variant has the measures and the answer of each query.
        """
        from . import _tables

        return _tables.content(self, by_query=by_query)

    def to_json(self, *, by_query: bool = False) -> str:
        """Return ``to_dict`` as a text."""
        from . import _tables

        return _tables.as_json(self, by_query=by_query)

    def to_html(self) -> str:
        """Return one page for a browser, with charts and answers side by side, that needs no other file."""
        from ._report import html_report

        return html_report(self)

    def frontier(self, by: Literal["queries_cost", "corpus_cost"] = "queries_cost") -> list[str]:
        """Return the labels of the variants whose nDCG@10 no other reaches for as much money or less, cheapest first.

        Args:
            by: the money: dollars for a million queries, or for the documents. Variants of unknown price are left out.
        """
        from . import _frontier

        return _frontier.frontier(self.variants, by)

    def best_under(
        self,
        dollars_per_million: Decimal | str | float | None = None,
        *,
        corpus_dollars: Decimal | str | float | None = None,
        index_bytes: int | None = None,
    ) -> Choice:
        """Return the variant with the highest nDCG@10 that costs no more, as a configuration.

        Where agreement is measured, that is the first model wherever its price allows.

        Args:
            dollars_per_million: for a million queries like those of the comparison.
            corpus_dollars: for the documents of the comparison, once.
            index_bytes: of the stored vectors of these documents.

        Raises:
            ConfigError: no variant keeps to the limits; the message names the one that takes least.
        """
        from . import _choice

        return _choice.best_under(self.variants, dollars_per_million, corpus_dollars, index_bytes)

    def __str__(self) -> str:
        """Describe the comparison in a table."""
        from . import _tables

        return _tables.as_text(self)

    def __repr__(self) -> str:
        best = self.variants[0].variant.label
        return f"<Comparison on {self.collection}: {len(self.variants)} variants, the best is {best}>"

    def _repr_html_(self) -> str:
        from . import _tables

        return _tables.as_html(self)
