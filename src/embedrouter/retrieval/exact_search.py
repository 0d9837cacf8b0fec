"""Exact search: the nearest documents of each query, by cosine, among all documents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..types import Vectors

BLOCK_BYTES = 2**26
"""Of scores in memory at once."""
TINY = float(np.finfo(np.float32).tiny)


def unit(vectors: Vectors) -> Vectors:
    """Return vectors at length 1, float32; booleans are the signs of floats."""
    if vectors.dtype == np.bool_:
        vectors = 2.0 * vectors - 1
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, TINY), np.float32)


def nearest(documents: Vectors, queries: Vectors, count: int) -> tuple[NDArray[np.intp], Vectors]:
    """Return the positions of each query's nearest documents and their cosines, both (queries, at most ``count``).

    Of documents with equal scores the one at the lower position comes first.

    Args:
        documents: shape (documents, dimensions); of any length, or booleans.
        queries: shape (queries, dimensions); likewise.
    """
    documents, queries = unit(documents), unit(queries)
    count = min(count, len(documents))
    found = np.empty((len(queries), count), np.intp)
    scores = np.empty((len(queries), count), np.float32)
    for part in blocks(len(queries), len(documents)):
        found[part], scores[part] = highest(queries[part] @ documents.T, count)
    return found, scores


def blocks(queries: int, documents: int) -> Iterator[slice]:
    """Yield the queries in parts whose scores of all documents are in memory together."""
    size = max(1, BLOCK_BYTES // (4 * max(1, documents)))
    for start in range(0, queries, size):
        yield slice(start, start + size)


def highest(scores: Vectors, count: int) -> tuple[NDArray[np.intp], Vectors]:
    """Return the positions and values of the ``count`` highest numbers of each row, equal ones by their position."""
    columns = scores.shape[1]
    best = np.argpartition(scores, columns - count, axis=1)[:, columns - count :]
    values = np.take_along_axis(scores, best, axis=1)
    least = values.min(axis=1)
    for row in np.flatnonzero((scores >= least[:, None]).sum(axis=1) > count):  # equal scores at the end
        tied = np.flatnonzero(scores[row] >= least[row])
        best[row] = tied[np.argsort(-scores[row, tied], kind="stable")[:count]]
    values = np.take_along_axis(scores, best, axis=1)
    order = np.lexsort((best, -values), axis=1)
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
