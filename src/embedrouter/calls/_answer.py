"""Check an answer, and read its bill."""

import math
from collections.abc import Sequence

import numpy as np

from ..models import parse_token_count, plausible_count
from ..types import Answer, Candidate, Vectors
from ._call import SizedText


def fault(answer: Answer, texts: int, dimensions: int) -> str | None:
    """Describe the defect of an answer; return ``None`` for a valid answer."""
    vectors = answer.vectors
    if vectors.dtype != np.float32:
        return f"vectors of {vectors.dtype} came, not of float32"
    if other_length(vectors, texts, dimensions):
        length = vectors.shape[1]
        return f"vectors of {length} dimensions came, not of {dimensions}: declare Model(…, dimensions={length})"
    if vectors.shape != (texts, dimensions):
        return f"vectors of shape {vectors.shape} came for {texts} texts in {dimensions} dimensions"
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors).tolist()  # np.vecdot needs numpy 2
    if min(squares) > 0 and sum(squares) < math.inf:  # otherwise look closer: squares of finite numbers may overflow
        return None
    if not np.isfinite(vectors).all():
        return "a vector holds numbers that are not finite"
    if not vectors.any(axis=1).all():
        return "a vector is all zeros"
    return None


def other_length(vectors: Vectors, texts: int, dimensions: int) -> bool:
    """Return whether each text has a vector, and the vectors have another number of dimensions."""
    return vectors.ndim == 2 and len(vectors) == texts and vectors.shape[1] != dimensions


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
