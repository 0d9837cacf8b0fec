"""Pairwise combinations: a few rows in which every two values of different dimensions still meet.

Most faults of a matrix need two values to show, not all of them, so a row for each pair finds what the full product
would find: 27 forms × 7 ways × 3 tiers × 9 methods are 5,103 calls in full and about 250 by pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations, product
from typing import Any

__all__ = ["pairs", "pairwise"]

Row = tuple[Any, ...]
Pair = tuple[int, Any, int, Any]


def pairwise(*dimensions: Iterable[Any], allowed: Callable[..., bool] = lambda *_: True) -> list[Row]:
    """Return rows of one value from each dimension that cover every allowed pair; the same rows each time.

    Args:
        dimensions: the values of each.
        allowed: whether a row may be; a pair that is in no allowed row need not be covered.
    """
    containing: dict[Pair, list[Row]] = {}
    for row in product(*dimensions):
        if allowed(*row):
            for pair in pairs(row):
                containing.setdefault(pair, []).append(row)
    uncovered = set(containing)
    chosen: list[Row] = []
    for pair, rows in sorted(containing.items(), key=lambda item: len(item[1])):  # first what few rows contain
        if pair in uncovered:
            best = max(rows, key=lambda row: sum(pair in uncovered for pair in pairs(row)))
            chosen.append(best)
            uncovered.difference_update(pairs(best))
    return chosen


def pairs(row: Row) -> list[Pair]:
    """Return each two values of a row, with their places."""
    return [(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)]
