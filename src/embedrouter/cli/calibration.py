"""The arithmetic of ``embedrouter calibrate``: nearest documents, nDCG@10, and what each share of escalation brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..retrieval import DEPTH, Cascade
from ..types import Vectors

__all__ = ["Calibration", "Numbers", "Point", "agreement", "measure", "ndcg", "nearest"]

Numbers = NDArray[np.float64]

SHARES = [number / 10 for number in range(11)]
BLOCK = 256
"""Queries whose scores against all documents are in memory at once."""
DRAWS = 500
"""Samples of the queries from which the interval is made."""


@dataclass(frozen=True, slots=True)
class Point:
    """One share of queries escalated, and what it brings."""

    escalated: float
    quality: float
    kept: float
    """Of the good tier's quality."""
    closed: float | None
    """Of the gap between the tiers; ``None`` where the good one is not better. At random it is ``escalated``."""
    random: float
    """The quality with as many queries chosen at random."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the sample says."""

    cheap: float
    good: float
    points: list[Point]
    at: Point
    """At the share that was asked about."""
    interval: tuple[float, float] | None
    """Where ``at.closed`` lies with 95 % confidence, by bootstrap over the queries."""
    running: Point
    """What a ``Cascade`` of that share did, which saw the queries one by one in their order."""
    gaps: list[float]
    """Quantiles of the gaps, for ``Cascade(share, gaps=…)``; differences of cosine similarities."""


def nearest(documents: Vectors, queries: Vectors) -> tuple[NDArray[np.intp], Vectors]:
    """Return the indices of each query's nearest documents and their cosines, both (queries, at most 10)."""
    documents, queries = _unit(documents), _unit(queries)
    count = min(DEPTH, len(documents))
    found = np.empty((len(queries), count), np.intp)
    scores = np.empty((len(queries), count), np.float32)
    for start in range(0, len(queries), BLOCK):
        block = queries[start : start + BLOCK] @ documents.T
        best = np.argpartition(-block, count - 1, axis=1)[:, :count]
        values = np.take_along_axis(block, best, axis=1)
        order = np.lexsort((best, -values), axis=1)
        found[start : start + BLOCK] = np.take_along_axis(best, order, axis=1)
        scores[start : start + BLOCK] = np.take_along_axis(values, order, axis=1)
    return found, scores


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def ndcg(found: NDArray[np.intp], relevant: Sequence[Mapping[int, float]]) -> Numbers:
    """Return the nDCG of each query: gain is the relevance, discounted by the logarithm of the rank.

    Args:
        found: documents, shape (queries, ranks), best first.
        relevant: for each query the relevance of documents, at least one of them above 0.
    """
    depth = found.shape[1]
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal = np.zeros((len(found), DEPTH))
    for row, judged in zip(ideal, relevant, strict=True):
        best = sorted(judged.values(), reverse=True)[:DEPTH]
        row[: len(best)] = best
    gains = np.array([[judged.get(i, 0.0) for i in row] for row, judged in zip(found.tolist(), relevant, strict=True)])
    values: Numbers = (gains @ discount[:depth]) / (ideal @ discount)
    return values


def agreement(found: NDArray[np.intp], other: NDArray[np.intp]) -> Numbers:
    """Return for each query how much of ``other`` is in ``found``."""
    shared: Numbers = (found[:, :, None] == other[:, None, :]).any(axis=1).mean(axis=1)
    return shared


def measure(gaps: Numbers, cheap: Numbers, good: Numbers, share: float) -> Calibration:
    """Compare escalation in the order of doubt with escalation at random.

    Args:
        gaps: of the cheap tier's scores, one for each query.
        cheap: the quality of the cheap tier's answers.
        good: the quality of the good tier's.
        share: what to report about.
    """
    low, high, count = float(cheap.mean()), float(good.mean()), len(gaps)
    gains = np.concatenate([[0.0], np.cumsum((good - cheap)[np.argsort(gaps, kind="stable")])]) / count
    difference = high - low

    def point(escalated: float, gain: float) -> Point:
        closed = gain / difference if difference > 0 else None
        return Point(escalated, low + gain, (low + gain) / high if high else 1.0, closed, low + escalated * difference)

    cascade = Cascade(share)
    chosen = np.array([cascade.escalates([number, 0.0]) for number in gaps.tolist()])
    return Calibration(
        cheap=low,
        good=high,
        points=[point(part, float(gains[round(part * count)])) for part in SHARES],
        at=point(share, float(gains[round(share * count)])),
        interval=_interval(gaps, good - cheap, share) if difference > 0 else None,
        running=point(float(chosen.mean()), float((good - cheap)[chosen].sum() / count)),
        gaps=[round(float(number), 4) for number in np.quantile(gaps, (np.arange(20) + 0.5) / 20)],
    )


def _interval(gaps: Numbers, better: Numbers, share: float) -> tuple[float, float] | None:
    """Return the interval of the gap closed, from samples of the queries drawn with replacement."""
    rising = better[np.argsort(gaps, kind="stable")]
    chance = np.random.default_rng(0)
    upto = round(share * len(rising))
    closed = []
    for _ in range(DRAWS):
        drawn = rising[np.sort(chance.integers(len(rising), size=len(rising)))]
        if (whole := drawn.sum()) > 0:
            closed.append(drawn[:upto].sum() / whole)
    if len(closed) < DRAWS * 0.95:
        return None
    low, high = np.quantile(closed, (0.025, 0.975))
    return float(low), float(high)
