"""Assemble the result of a call: vectors in the order of the input, cost and savings."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import DegradedWarning
from ..spending import Charge, Saving, usage_of
from ..types import Candidate, EmbeddingResult, Found, Space


def savings(texts: Sequence[str], found: Mapping[str, Found]) -> list[Saving]:
    """Return the savings of the cache and of deduplication, by model."""
    avoided: dict[int, tuple[Candidate, int, int]] = {}
    for text, times in Counter(texts).items():
        _, billed, (candidate, cached, _) = found[text]
        if free := times - (not cached):
            _, texts_so_far, tokens = avoided.get(candidate.index, (candidate, 0, 0))
            avoided[candidate.index] = (candidate, texts_so_far + free, tokens + billed * free)
    return [Saving(*item) for item in avoided.values()]


def assemble(
    texts: Sequence[str],
    found: Mapping[str, Found],
    charges: Sequence[Charge],
    avoided: Sequence[Saving],
    *,
    space: Space,
    number: str,
    rank: int,
) -> EmbeddingResult:
    """Copy the vectors, in the order of the texts, into a new array that the caller may change."""
    rows = [found[text] for text in texts]
    vectors = np.empty((len(rows), space.dimensions), number)
    for place, row in enumerate(rows):
        vectors[place] = row.vector
    origins = [row.origin for row in rows]
    return EmbeddingResult(
        vectors=vectors,
        space=space,
        models=tuple([origin.candidate.name for origin in origins]),
        cached=tuple([origin.cached for origin in origins]),
        degraded=tuple([origin.candidate.rank < rank for origin in origins]),
        shortened=tuple([origin.shortened for origin in origins]),
        usage=usage_of(charges, avoided),
    )


def warn_if_degraded(result: EmbeddingResult, stacklevel: int = 3) -> EmbeddingResult:
    """Warn where a lower tier has answered."""
    if any(result.degraded):
        used = sorted({model for model, low in zip(result.models, result.degraded, strict=True) if low})
        warnings.warn(
            f"{sum(result.degraded)} of {len(result)} queries were answered by {', '.join(used)}, below the requested "
            "tier: nothing better was available or affordable.",
            DegradedWarning,
            stacklevel=stacklevel,
        )
    return result
