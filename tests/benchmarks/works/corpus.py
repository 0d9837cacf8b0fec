"""What everybody embeds: short texts, and the vectors of those that are known already."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 1536
NAME = "text-embedding-3-small"
ROUNDS = 5
"""How often each query comes again in one measurement: alone they would last only as long as the first of them, for
which the processor has nothing at hand."""


def documents(number: int, first: int = 0) -> list[str]:
    """Return so many different texts of about ten tokens."""
    return [f"Document {first + i}: how to reset the password of an account" for i in range(number)]


def queries(number: int, first: int = 0) -> list[str]:
    """Return so many different questions."""
    return [f"How do I reset the password of account {first + i}?" for i in range(number)]


def fresh(number: int) -> Iterator[list[str]]:
    """Return lists of documents that were not embedded yet, without end."""
    return (documents(number, round_ * number) for round_ in itertools.count())


@functools.cache
def matrix(number: int) -> NDArray[np.float32]:
    """Return so many vectors of length 1."""
    drawn = np.random.default_rng(3).standard_normal((number, DIMENSIONS)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


class Known:
    """An embedder that may be asked while a cache is being filled; asked later, it says that the cache missed."""

    def __init__(self) -> None:
        self.filling = True

    def vectors(self, number: int) -> NDArray[np.float32]:
        if not self.filling:
            raise LookupError(f"{number} texts were not in the cache")
        return matrix(number)
