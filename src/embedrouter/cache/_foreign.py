"""Check rows from outside before they are taken: a checksum shows no more than that a row arrived as it was written.

A key is a hash, so no check can find out which text and which model a vector belongs to. What can be seen is checked:
the numbers, and the length of the vector where all vectors of as many dimensions have length 1, in the folder or, where
the folder has none, in the file. Vectors of integers have no usual length.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ._codec import decode_any, is_newer
from ._maintenance import is_sound

FEW = 10
"""Fewer vectors than this show nothing about the others."""
TOLERANCE = 0.01
"""Of length 1; float16 changes it by less than 0.001."""
MOST = 0.95
"""Share of a file's vectors of length 1 from which the others count as wrong."""
LONGEST = 1e4
"""No model's vectors are longer, or shorter than the inverse."""


class ForeignRows:
    """Check rows of other folders.

    Args:
        own: values of the folder's rows.
        any_length: takes vectors of any length.
    """

    def __init__(self, own: Iterable[bytes], *, any_length: bool = False) -> None:
        self._any_length = any_length
        self._normal = _normal(own, share=1.0)
        """Whether all vectors have length 1, by their number of dimensions."""

    def learn(self, values: Iterable[bytes]) -> None:
        """Learn from the first values of a file about the lengths that the folder tells nothing about."""
        self._normal = _normal(values, share=MOST) | self._normal

    def is_sound(self, key: bytes, value: bytes) -> bool:
        """Check whether a row is a key and a vector. Rows of a newer version cannot be checked, and are not."""
        return is_sound(key, value) and not is_newer(value)

    def fits(self, value: bytes) -> bool:
        """Check whether the length of a sound row's vector is possible beside the others."""
        dimensions, length = _measured(value)
        if self._any_length or not dimensions:
            return True
        if self._normal.get(dimensions):
            return abs(length - 1) <= TOLERANCE
        return 1 / LONGEST <= length <= LONGEST


def _normal(values: Iterable[bytes], share: float) -> dict[int, bool]:
    lengths: dict[int, list[bool]] = {}
    for dimensions, length in map(_measured, values):
        if dimensions:
            lengths.setdefault(dimensions, []).append(abs(length - 1) <= TOLERANCE)
    return {dimensions: sum(found) >= share * len(found) for dimensions, found in lengths.items() if len(found) >= FEW}


def _measured(value: bytes) -> tuple[int, float]:
    """Return the number of dimensions and the length of a row's vector of floats; zeros for any other."""
    entry = decode_any(value)
    if entry is None or entry.vector.dtype.kind != "f":
        return 0, 0.0
    return entry.vector.size, float(np.linalg.norm(entry.vector.astype(np.float64)))
