"""Exact search over vectors that a store gives page by page, for stores that have no search of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from ..retrieval import exact_search
from ..types import Vectors

KEPT = 2**30
"""Bytes of vectors that are kept in memory between searches; larger files are read again for each."""
Pages: TypeAlias = Iterable[tuple[Sequence[str], Vectors]]


class ExactSearch:
    """Searches a file, whose vectors are parsed once if there is room for them.

    Args:
        pages: gives the ids and vectors, from the beginning.
        size: bytes of all vectors.
    """

    def __init__(self, pages: Callable[[], Pages], size: int) -> None:
        self._pages = pages
        self._kept = list(pages()) if size <= KEPT else None

    def nearest(self, vector: Vectors, count: int) -> list[str]:
        """Return the ids of the nearest vectors, nearest first."""
        return nearest(self._pages() if self._kept is None else self._kept, vector, count)


def nearest(pages: Pages, vector: Vectors, count: int) -> list[str]:
    """Return the ids of the vectors with the largest cosine, largest first; equal ones in their order."""
    best: list[tuple[float, int, str]] = []
    asked = np.asarray([vector], np.float32)
    seen = 0
    for ids, page in pages:
        if ids:
            found, cosines = exact_search.nearest(np.asarray(page, np.float32), asked, count)
            places: list[int] = found[0].tolist()
            best += [
                (-cosine, seen + place, ids[place]) for place, cosine in zip(places, cosines[0].tolist(), strict=True)
            ]
            best = sorted(best)[:count]
            seen += len(ids)
    return [name for *_, name in best]
