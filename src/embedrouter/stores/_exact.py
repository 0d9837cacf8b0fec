"""Exact search over vectors that a store gives page by page, for stores that have no search of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..types import Vectors


def nearest(pages: Iterable[tuple[Sequence[str], Vectors]], vector: Vectors, count: int) -> list[str]:
    """Return the ids of the vectors with the largest cosine, largest first; equal ones in their order."""
    best: list[tuple[float, int, str]] = []
    asked = np.asarray(vector, np.float32)
    asked = asked / (np.linalg.norm(asked) or 1)
    seen = 0
    for ids, page in pages:
        matrix = np.asarray(page, np.float32)
        if not len(ids):
            continue
        cosines = matrix @ asked / np.maximum(np.linalg.norm(matrix, axis=1), np.finfo(np.float32).tiny)
        best += [
            (-float(cosine), seen + place, name) for place, (name, cosine) in enumerate(zip(ids, cosines, strict=True))
        ]
        best = sorted(best)[:count]
        seen += len(ids)
    return [name for *_, name in best]
