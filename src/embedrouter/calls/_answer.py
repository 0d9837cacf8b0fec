"""Read an answer: check it as a whole, then each vector, and find what it costs.

A vector of which nothing can be used does not spoil the others: backends put NaN in its place (see
``providers/_responses.py``), and the check names its position.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..models import parse_token_count, plausible_count
from ..types import Answer, Candidate, Vectors
from ._call import SizedText

MISSING = "a vector is missing, of another length, or holds numbers that are not finite"
ZEROS = "a vector is all zeros"
NO_INTEGERS = "a vector is missing, of another length, all zeros, or holds numbers of another type"


def fault(answer: Answer, texts: int, candidate: Candidate) -> str | None:
    """Describe the defect of an answer of which no vector can be used; return ``None`` for any other answer."""
    vectors, dimensions = answer.vectors, candidate.space.dimensions
    if vectors.dtype != candidate.number:
        return f"vectors of {vectors.dtype} came, not of {candidate.number}"
    if has_other_length(vectors, texts, dimensions):
        length = vectors.shape[1]
        if candidate.output_dtype is not None:
            return (
                f"vectors of {length} numbers came, not of {dimensions} for {candidate.dimensions} dimensions as "
                f"{candidate.output_dtype}: check dimensions= and output_dtype="
            )
        if length == 2 * dimensions and _are_doubles(vectors):
            return "numbers of 64 bits came in base64, not of 32: declare Model(…, encoding_format='float')"
        return f"vectors of {length} dimensions came, not of {dimensions}: declare Model(…, dimensions={length})"
    if vectors.shape != (texts, dimensions):
        return f"vectors of shape {vectors.shape} came for {texts} texts in {dimensions} dimensions"
    return None


def has_other_length(vectors: Vectors, texts: int, dimensions: int) -> bool:
    """Return whether each text has a vector, and the vectors have another number of dimensions."""
    return vectors.ndim == 2 and len(vectors) == texts and vectors.shape[1] != dimensions


def _are_doubles(vectors: Vectors) -> bool:
    """Return whether each two numbers are one of 64 bits: vectors that are read so have about length 1."""
    if vectors.dtype != np.float32:
        return False
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(np.ascontiguousarray(vectors).view(np.float64), axis=1)
    return bool(((lengths > 0.5) & (lengths < 2)).all())


def unusable(vectors: Vectors) -> dict[int, str]:
    """Return the positions of the vectors that cannot be used, each with the reason."""
    if vectors.dtype.kind != "f":
        return {index: NO_INTEGERS for index, vector in enumerate(vectors) if not vector.any()}
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors).tolist()  # np.vecdot needs numpy 2
    if min(squares) > 0 and sum(squares) < math.inf:  # otherwise look closer: squares of finite numbers may overflow
        return {}
    found: dict[int, str] = {}
    for index, vector in enumerate(vectors):
        if not np.isfinite(vector).all():
            found[index] = MISSING
        elif not vector.any():
            found[index] = ZEROS
    return found


def billed(answer: Answer, candidate: Candidate, texts: Sequence[SizedText]) -> tuple[int | None, str | None]:
    """Return the tokens to book, ``None`` for the estimate; and what was reported in their place, if no bill can be."""
    if answer.implausible is not None:
        return None, answer.implausible
    if candidate.local:  # counts by itself, and its estimate may be one of characters
        return parse_token_count(answer.tokens), None
    return plausible_count(answer.tokens, sum(item.tokens for item in texts), len(texts))


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Split the billed tokens of a request in proportion to ``weights``; the shares add up to ``total``."""
    whole = sum(weights) or 1
    parts, given, seen = [], 0, 0
    for weight in weights:
        seen += weight
        share = total * seen // whole - given
        parts.append(share)
        given += share
    return parts
