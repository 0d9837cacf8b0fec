"""The space that all models of a router share."""

from __future__ import annotations

from ..errors import SpaceMismatchError
from ..types import Candidate, Space


def shared_space(candidates: list[Candidate]) -> Space:
    """Return the space that all candidates share.

    Raises:
        SpaceMismatchError: two candidates have different spaces; the message names both and the reason.
    """
    first = candidates[0]
    for other in candidates[1:]:
        if other.space == first.space:
            continue
        if other.space.name == first.space.name:
            reason = "vectors of different length cannot be compared"
            advice = "Set dimensions= on the router to a number that every model offers."
        else:
            reason = "they were trained apart: a distance between their vectors means nothing, even at equal dimensions"
            advice = (
                "Give each space a router of its own, and use TieredRouter to choose between them; "
                "each router then needs its own vector store."
            )
        raise SpaceMismatchError(
            f"{first.name} gives vectors in the space {first.space}, {other.name} in {other.space}: {reason}. {advice}"
        )
    return first.space
