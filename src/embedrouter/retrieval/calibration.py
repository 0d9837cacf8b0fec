"""Calibration of a cascade: the quality that each share of escalated queries brings, measured on sample queries.

Every query searches the documents of both tiers exactly. Then the queries are escalated in ascending order of their gap
(``Cascade``), and the quality of each share is compared with that of equally many queries chosen at random, which is
the straight line between the two tiers. Quality is nDCG@10 where relevance judgements exist; otherwise it is the share
of the good tier's ten nearest documents in the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import Vectors
from . import resampling
from ._cascade import DEPTH, Cascade, gap
from .exact_search import nearest
from .resampling import Floats

SHARES = [number / 10 for number in range(11)]
BOOTSTRAP_SAMPLES = 500


class TierVectors(NamedTuple):
    """The vectors of one tier, each of shape (texts, dimensions); packed bits unpacked, as booleans."""

    documents: Vectors
    queries: Vectors


@dataclass(frozen=True, slots=True)
class Point:
    """The result of escalating one share of the queries."""

    escalated: float
    quality: float
    kept: float
    """Share of the good tier's quality."""
    closed: float | None
    """Share of the gap between the tiers; ``None`` where the good tier is not better. At random: ``escalated``."""
    random: float
    """Quality with equally many queries chosen at random."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The quality of both tiers and of every share between them."""

    cheap: float
    good: float
    points: list[Point]
    at: Point
    """The result at the requested share."""
    interval: tuple[float, float] | None
    """95 % confidence interval of ``at.closed``, by bootstrap over the queries."""
    running: Point
    """The result of a ``Cascade`` with the requested share that decides the queries one by one, in their order."""
    gaps: list[float]
    """Quantiles of the gaps, for ``Cascade(share, gaps=…)``; differences of cosine similarities."""


def calibrate(
    cheap: TierVectors, good: TierVectors, *, share: float, relevant: Sequence[Mapping[int, float]] | None = None
) -> Calibration:
    """Measure a cascade of two tiers on the same documents and queries.

    Args:
        share: the share of escalated queries to report on.
        relevant: for each query the relevance of documents, by index. When left out, the good tier's ten nearest
            documents are the measure.
    """
    first, scores = nearest_documents(*cheap)
    second, _ = nearest_documents(*good)
    gaps = np.array([gap(row) for row in scores.tolist()])
    if relevant is None:
        return measure(gaps, overlap(first, second), np.ones(len(gaps)), share)
    return measure(gaps, ndcg(first, relevant), ndcg(second, relevant), share)


def nearest_documents(documents: Vectors, queries: Vectors) -> tuple[NDArray[np.intp], Vectors]:
    """Return the indices of each query's nearest documents and their cosines, both (queries, at most 10)."""
    return nearest(documents, queries, DEPTH)


def ndcg(found: NDArray[np.intp], relevant: Sequence[Mapping[int, float]]) -> Floats:
    """Return the nDCG@10 of each query: gain is the relevance, discounted by the logarithm of the rank.

    Args:
        found: documents, shape (queries, ranks), best first.
        relevant: for each query the relevance of documents, at least one of them above 0.
    """
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal = np.zeros((len(found), DEPTH))
    for row, judged in zip(ideal, relevant, strict=True):
        best = sorted(judged.values(), reverse=True)[:DEPTH]
        row[: len(best)] = best
    gains = np.array([[judged.get(i, 0.0) for i in row] for row, judged in zip(found.tolist(), relevant, strict=True)])
    return np.asarray((gains @ discount[: found.shape[1]]) / (ideal @ discount))


def overlap(found: NDArray[np.intp], other: NDArray[np.intp]) -> Floats:
    """Return for each query the share of ``other`` that is in ``found``."""
    return np.asarray((found[:, :, None] == other[:, None, :]).any(axis=1).mean(axis=1))


def measure(gaps: Floats, cheap: Floats, good: Floats, share: float) -> Calibration:
    """Compare escalation in ascending order of the gap with escalation at random.

    Args:
        gaps: of the cheap tier's scores, one for each query.
        cheap: quality of the cheap tier's answers, one for each query.
        good: quality of the good tier's answers, one for each query.
        share: the share of escalated queries to report on.
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
        interval=_confidence_interval(gaps, good - cheap, share) if difference > 0 else None,
        running=point(float(chosen.mean()), float((good - cheap)[chosen].sum() / count)),
        gaps=[round(float(number), 4) for number in np.quantile(gaps, (np.arange(20) + 0.5) / 20)],
    )


def _confidence_interval(gaps: Floats, gains: Floats, share: float) -> tuple[float, float] | None:
    """Return the 95 % interval of the gap closed, from samples of the queries drawn with replacement."""
    ordered = gains[np.argsort(gaps, kind="stable")]
    chosen = np.concatenate(list(resampling.samples(len(ordered), BOOTSTRAP_SAMPLES)))
    samples = ordered[np.sort(chosen, axis=1)]
    samples = samples[samples.sum(axis=1) > 0]
    if len(samples) < BOOTSTRAP_SAMPLES * 0.95:
        return None
    closed = samples[:, : round(share * len(ordered))].sum(axis=1) / samples.sum(axis=1)
    return resampling.interval(closed)
