"""What chance can do to means over queries: bootstrap samples of the queries, and paired randomisation.

Both are seeded, so the same values give the same answer. All variants see the same samples, so that two are compared
query by query.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCK = 2**23
"""Numbers drawn at once."""
ROUNDING = 1e-12
"""Sums of the same numbers in another order may differ by less."""


def samples(queries: int, count: int) -> Iterator[NDArray[np.int64]]:
    """Yield ``count`` samples of as many queries, drawn with replacement, in arrays (samples, queries) of positions."""
    chance = np.random.default_rng(0)
    for size in _parts(queries, count):
        yield chance.integers(queries, size=(size, queries))


def bootstrap_means(values: Floats, count: int = 2000) -> Floats:
    """Return the means of each column over samples of the rows, shape (samples, columns).

    Args:
        values: shape (queries, columns).
    """
    queries = len(values)
    parts = []
    for drawn in samples(queries, count):
        times = np.array([np.bincount(row, minlength=queries) for row in drawn], np.float64)
        parts.append(times @ values / queries)
    return np.concatenate(parts)


def randomised_means(values: Floats, count: int = 10_000) -> Floats:
    """Return the means of each column with a random sign for each row, shape (rounds, columns).

    The sign of a row is the same in all columns. So the difference of two columns is the mean difference of two
    variants whose answers to each query were swapped, or not, by chance.
    """
    queries = len(values)
    chance = np.random.default_rng(0)
    parts = []
    for size in _parts(queries, count):
        bits = np.unpackbits(chance.integers(256, size=(size, -(-queries // 8)), dtype=np.uint8), axis=1)
        signs = 2.0 * bits[:, :queries] - 1
        parts.append(signs @ values / queries)
    return np.concatenate(parts)


def chance_of(differences: Floats, by_chance: Floats) -> float:
    """Return the chance of a mean difference at least as large, in either direction, where signs are random.

    It is the share of the rounds; where hardly any round comes near, Hoeffding's bound is lower, which holds for any
    differences. So the chance has no floor, and many comparisons can be corrected for.

    Args:
        differences: one for each query.
        by_chance: the means with random signs, shape (rounds,).
    """
    observed, squares = abs(float(differences.sum())), float((differences**2).sum())
    as_large = int(np.count_nonzero(np.abs(by_chance) * len(differences) >= observed - ROUNDING * len(differences)))
    bound = 2 * math.exp(-(observed**2) / (2 * squares)) if squares else 1.0
    return min((1 + as_large) / (1 + len(by_chance)), max(bound, sys.float_info.min))


def interval(means: Floats) -> tuple[float, float]:
    """Return the 95 % interval of bootstrap means, shape (samples,)."""
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def holm(chances: Sequence[float], level: float = 0.05) -> list[bool]:
    """Return which of several tests are significant at a level that holds for all of them together (Holm)."""
    significant = [False] * len(chances)
    for step, place in enumerate(sorted(range(len(chances)), key=lambda place: chances[place])):
        if chances[place] > level / (len(chances) - step):
            break
        significant[place] = True
    return significant


def _parts(queries: int, count: int) -> list[int]:
    size = max(1, BLOCK // max(1, queries))
    return [min(size, count - start) for start in range(0, count, size)]
