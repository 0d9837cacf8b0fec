"""What a comparison finds: what each variant of each model reaches on one collection, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..types import OutputDtype, Vectors
from ._questions import JudgedBy

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


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """All that ``Comparison`` shows and chooses from."""

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
