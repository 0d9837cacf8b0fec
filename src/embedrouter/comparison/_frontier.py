"""Choose the variants that are worth their price: no other reaches as much for the same money."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Literal, TypeAlias

from ._findings import MEASURES, Findings, Interval, Measured, Pair

Cost: TypeAlias = Literal["queries_cost", "corpus_cost"]
"""Dollars for a million queries, or for the documents."""


def frontier(measured: Sequence[Measured], by: Cost) -> list[str]:
    """Return the labels of the variants with the highest nDCG@10 among all that cost as much or less, cheapest first.

    Variants of unknown price are not among them. Of equal ones the smaller index counts.
    """
    priced = [(cost, item) for item in measured if (cost := getattr(item, by)) is not None]
    found: list[str] = []
    best = -1.0
    for _, item in sorted(priced, key=lambda pair: (pair[0], -ndcg(pair[1]), pair[1].index_bytes)):
        if ndcg(item) > best:
            found.append(item.variant.label)
            best = ndcg(item)
    return found


def ndcg(measured: Measured) -> float:
    """Return the nDCG@10 of a variant."""
    return measured.quality[MEASURES[0]].mean


def difference_of(pair: Pair, label: str) -> Interval:
    """Return the difference of a pair, as that of the variant with ``label`` minus the other."""
    found = pair.difference
    return found if pair.first == label else Interval(-found.mean, -found.high, -found.low)


def by_merit(measured: Measured) -> tuple[float, bool, Decimal, int]:
    """Return what variants are sorted by, the best first: nDCG@10; of equal ones the cheapest, then the smallest."""
    cost = measured.queries_cost
    return -ndcg(measured), cost is None, cost or Decimal(0), measured.index_bytes


def as_good(found: Findings) -> list[Measured]:
    """Return the variants that are not worse than the best by more than chance, without the best.

    Nor are they by the interval of the difference alone: with many pairs the correction leaves hardly any that differ.
    """
    best = found.variants[0].variant.label
    alike = {
        frozenset((pair.first, pair.second))
        for pair in found.pairs
        if not pair.differs and pair.difference.low <= 0 <= pair.difference.high
    }
    return [item for item in found.variants[1:] if frozenset((best, item.variant.label)) in alike]


def cheapest_as_good(found: Findings) -> Measured | None:
    """Return of the variants that are as good as the best the one whose queries cost least, if they cost less."""
    limit = found.variants[0].queries_cost
    priced = [(item.queries_cost, item) for item in as_good(found) if item.queries_cost is not None]
    cost, item = min(priced, key=lambda pair: pair[0], default=(None, None))
    return item if cost is not None and limit is not None and cost < limit else None


def smallest_as_good(found: Findings) -> Measured | None:
    """Return of the variants that are as good as the best the one with the smallest index, if it is smaller."""
    best = found.variants[0]
    item = min(as_good(found), key=lambda item: item.index_bytes, default=best)
    return item if item.index_bytes < best.index_bytes else None


def with_dominated(measured: Sequence[Measured], pairs: Sequence[Pair], reference: str | None) -> list[Measured]:
    """Return the variants, each with the best variant that is not dearer and better by more than chance.

    Args:
        reference: the variant that the others are to agree with, which dominates none: it agrees with itself.
    """
    differing = {frozenset((pair.first, pair.second)) for pair in pairs if pair.differs}
    others = [item for item in measured if item.variant.label != reference]
    return [replace(item, dominated_by=_better(item, others, differing)) for item in measured]


def _better(item: Measured, others: Sequence[Measured], differing: set[frozenset[str]]) -> str | None:
    better = [
        other
        for other in others
        if frozenset((item.variant.label, other.variant.label)) in differing
        and ndcg(other) > ndcg(item)
        and not _dearer(other, item)
    ]
    return max(better, key=ndcg).variant.label if better else None


def _dearer(one: Measured, other: Measured) -> bool:
    """Return whether a variant costs more, of the documents or of the queries; or may.

    Variants of one model cost the same dollars. Of these, the one with the larger index is the dearer.
    """
    if one.variant.models == other.variant.models and one.index_bytes > other.index_bytes:
        return True
    costs = ((one.corpus_cost, other.corpus_cost), (one.queries_cost, other.queries_cost))
    return any(mine is None or mine > (theirs or 0) for mine, theirs in costs)
