"""Rank documents for queries with the vectors of one model, whole, cut, or in fewer bits; and with two models.

Two stores of vectors in fewer bits, int8 and binary, search in two steps, as vector stores do: the nearest by the query
in the same few bits, four times as many as are wanted, and then their order by the query in floats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ..retrieval import DEPTH, Cascade
from ..retrieval.exact_search import blocks, highest, nearest, unit
from ..types import PACKED, Candidate, Vectors

StoredDtype: TypeAlias = Literal["float16", "int8", "binary"]
"""Numbers in which a store may keep vectors that the model gives in float32."""
STORED_DTYPES: tuple[StoredDtype, ...] = get_args(StoredDtype)

DEEP = 100
"""Documents in a ranking: as many as the deepest measure counts."""
OVERSAMPLED = 4
"""Documents that are found in few bits for each one that is wanted."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The nearest documents of each query, best first."""

    found: NDArray[np.intp]
    """Positions of documents, shape (queries, at most 100)."""
    scores: Vectors
    """Their cosines, likewise."""


def cut(vectors: Vectors, dimensions: int) -> Vectors:
    """Return the beginnings of vectors; searching scales them to length 1."""
    return vectors if vectors.shape[1] <= dimensions else vectors[:, :dimensions]


def rank(documents: Vectors, queries: Vectors, stored: StoredDtype | None) -> Ranking:
    """Rank by exact search.

    Args:
        documents: shape (documents, dimensions).
        queries: shape (queries, dimensions).
        stored: the numbers in which the store keeps the documents; ``None`` as they are.
    """
    if stored is None:
        return Ranking(*nearest(documents, queries, DEEP))
    documents, queries = unit(documents), unit(queries)
    kept = _kept(documents, stored)
    if stored == "float16":
        return Ranking(*nearest(kept, queries, DEEP))
    rough, _ = nearest(kept, _kept(queries, stored), OVERSAMPLED * DEEP)
    return _scored_again(unit(kept), queries, np.sort(rough, axis=1))


def _kept(vectors: Vectors, stored: StoredDtype) -> Vectors:
    """Return unit vectors in the numbers of a store; int8 with one scale for each vector."""
    match stored:
        case "float16":
            return vectors.astype(np.float16).astype(np.float32)
        case "int8":
            return np.asarray(np.rint(vectors * (127 / np.abs(vectors).max(axis=1, keepdims=True))), np.float32)
        case "binary":
            return np.asarray(vectors > 0)


def _scored_again(documents: Vectors, queries: Vectors, rough: NDArray[np.intp]) -> Ranking:
    """Return the best of the documents that were found roughly, by the cosine with the whole query."""
    count = min(DEEP, rough.shape[1])
    found = np.empty((len(queries), count), np.intp)
    scores = np.empty((len(queries), count), np.float32)
    for part in blocks(len(queries), len(documents)):
        cosines = np.take_along_axis(queries[part] @ documents.T, rough[part], axis=1)
        places, scores[part] = highest(cosines, count)
        found[part] = np.take_along_axis(rough[part], places, axis=1)
    return Ranking(found, scores)


def cascaded(first: Ranking, second: Ranking, share: float) -> tuple[Ranking, NDArray[np.bool_]]:
    """Rank by a cascade that decides query after query; return which queries its second ranking answers, too."""
    cascade = Cascade(share)
    escalated = np.array([cascade.escalates(row) for row in first.scores[:, :DEPTH].tolist()], np.bool_)
    chosen = escalated[:, None]
    found = np.where(chosen, second.found, first.found)
    return Ranking(found, np.where(chosen, second.scores, first.scores)), escalated


def index_bytes(candidate: Candidate, dimensions: int, stored: StoredDtype | None) -> int:
    """Return the bytes of one stored vector."""
    if candidate.output_dtype is not None:
        return dimensions // 8 if candidate.output_dtype in PACKED else dimensions
    match stored:
        case None:
            return 4 * dimensions
        case "float16":
            return 2 * dimensions
        case "int8":
            return dimensions + 4  # the scale
        case "binary":
            return -(-dimensions // 8)
