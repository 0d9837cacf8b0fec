"""Comparisons made up for reports: real in form, of any number of variants, with prices, times and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from embedrouter.comparison import MEASURES, Comparison, Hit, Interval, JudgedBy, Measured, Pair, Speed, Variant

AT = datetime(2026, 11, 30, 9, 30, tzinfo=UTC)
SUBJECTS = ("the ferry to the island", "a pass for the tram", "the lost luggage", "bicycles on the night train")
LONG = " It leaves from the second pier, whatever the board in the hall may say, and waits for nobody." * 6
DOCUMENTS = 40


@dataclass(frozen=True, slots=True)
class Told:
    """What a comparison is made from: one variant, its mean quality and its dollars for a million queries."""

    label: str
    quality: float
    cost: str | None
    dimensions: int = 1024
    dtype: str | None = None
    median: float | None = None
    slowest: float | None = None
    models: tuple[str, ...] = ()
    escalated: float | None = None


CASCADE = ("wordllama:l2_supercat_256", "voyage:voyage-4-large")
USUAL = (
    Told("voyage:voyage-4-large", 0.84, "1.80", median=0.142, slowest=0.390),
    Told("openai:text-embedding-3-large", 0.82, "1.95", median=0.185, slowest=0.52),
    Told("openai:text-embedding-3-small", 0.785, "0.30", median=0.161, slowest=0.43),
    Told("openai:text-embedding-3-small at 512", 0.77, "0.30", 512, median=0.16, slowest=0.41),
    Told("openai:text-embedding-3-small at 256, int8", 0.70, "0.30", 256, "int8", median=0.16, slowest=0.4),
    Told("voyage:voyage-4-lite", 0.80, "0.30", median=0.12, slowest=0.33),
    Told("all-MiniLM-L6-v2", 0.72, "0", 384, median=0.0081, slowest=0.012),
    Told(CASCADE[0], 0.65, "0", 256, median=0.00012, slowest=0.0003),
    Told("wordllama, then voyage-4-large", 0.815, "0.54", models=CASCADE, escalated=0.3, median=0.0004, slowest=0.31),
    Told("a server of our own", 0.76, None, median=0.03),
)
"""Nine variants with a price, of which four share one and two are free, and one without."""


def comparison(
    told: Sequence[Told] = USUAL,
    *,
    queries: int = 60,
    judged_by: JudgedBy = "judgements",
    left_out: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    texts: Sequence[str] = SUBJECTS,
) -> Comparison:
    """Return a comparison of variants whose mean quality is near what is told, and of documents about ``texts``."""
    random = np.random.default_rng(1)
    documents = {
        f"d{number}": f"About {texts[number % len(texts)]}, part {number}.{LONG if number % 3 else ''}"
        for number in range(DOCUMENTS)
    }
    asked = {f"q{number}": f"When is {texts[number % len(texts)]} open ({number})?" for number in range(queries)}
    relevant = {
        key: {f"d{number % DOCUMENTS}": 1, f"d{(number * 7 + 3) % DOCUMENTS}": 2} for number, key in enumerate(asked)
    }
    hard = random.normal(0, 0.15, queries)
    measured = []
    for item in told:
        values = np.clip(item.quality + hard + random.normal(0, 0.15, queries), 0, 1).astype(np.float32)
        measured.append(_measured(item, values, list(relevant.values()), random))
    measured.sort(key=lambda item: -item.quality["nDCG@10"].mean)
    pairs = [_pair(one, other) for place, one in enumerate(measured) for other in measured[place + 1 :]]
    better = {(pair.first, pair.second) for pair in pairs if pair.differs}
    return Comparison(
        collection="handbook of the port",
        judged_by=judged_by,
        documents=documents,
        document_count=12_345,
        queries=asked,
        relevant=relevant,
        variants=[replace(item, dominated_by=_dominating(item, measured, better)) for item in measured],
        pairs=pairs,
        left_out=left_out or {},
        at=AT,
        notes=notes,
        spent=sum((item.spent for item in measured), Decimal(0)),
    )


def _interval(values: Any) -> Interval:
    mean, half = float(np.mean(values)), 1.96 * float(np.std(values)) / len(values) ** 0.5
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half))


def _measured(told: Told, values: Any, relevant: Sequence[Mapping[str, int]], random: Any) -> Measured:
    cost = None if told.cost is None else Decimal(told.cost)
    shifts = zip(MEASURES, (0, 0.05, 0.1, -0.03), strict=True)
    by_query = {measure: np.clip(values + shift, 0, 1) for measure, shift in shifts}
    known = told.median is not None or told.slowest is not None
    return Measured(
        variant=Variant(
            told.label, told.models or (told.label,), told.dimensions, told.dtype, escalated=told.escalated
        ),
        quality={measure: _interval(by_query[measure]) for measure in MEASURES},
        by_query=by_query,
        answers=[_answer(value, right, random) for value, right in zip(values, relevant, strict=True)],
        corpus_cost=None if cost is None else cost * Decimal("0.6173"),
        corpus_batch_cost=None if not cost else cost * Decimal("0.30865"),
        queries_cost=cost,
        index_bytes=12_345 * told.dimensions * (1 if told.dtype == "int8" else 2),
        speed=Speed(480.0, told.median, told.slowest, AT) if known else None,
        spent=Decimal("0.002"),
    )


def _answer(value: float, right: Mapping[str, int], random: Any) -> list[Hit]:
    """Return ten documents, with the right ones the nearer, the better the answer is."""
    others = [f"d{number}" for number in random.permutation(DOCUMENTS) if f"d{number}" not in right]
    for document in right if value > 0.3 else ():
        others.insert(int(9 * (1 - value)), document)
    return [Hit(document, 0.9 - 0.03 * rank) for rank, document in enumerate(others[:10])]


def _pair(one: Measured, other: Measured) -> Pair:
    interval = _interval(one.by_query["nDCG@10"] - other.by_query["nDCG@10"])
    differs = not interval.low <= 0 <= interval.high
    return Pair(one.variant.label, other.variant.label, interval, 0.0005 if differs else 0.31, differs)


def _dominating(item: Measured, others: Sequence[Measured], better: set[tuple[str, str]]) -> str | None:
    for other in others:
        if item.queries_cost is None or other.queries_cost is None or other.queries_cost > item.queries_cost:
            continue
        if (other.variant.label, item.variant.label) in better:
            return other.variant.label
    return None
