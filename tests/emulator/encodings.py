"""How a vector is written into JSON: a list of numbers or base64, in full precision or quantised."""

from __future__ import annotations

import base64
import math

import numpy as np
from numpy.typing import NDArray

from tests.emulator.vectors import Vector

QUANTISED = ("int8", "uint8", "binary", "ubinary")


def as_base64(values: NDArray[np.generic]) -> str:
    """Return the little-endian bytes of `values` in base64."""
    return base64.b64encode(values.astype(values.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def quantise(values: Vector, dtype: str) -> NDArray[np.generic]:
    """Return `values` in one of the makers' smaller types; "float" leaves them as they are.

    The makers do not publish their scales; here one standard deviation is 32 steps. The binary types hold one sign
    bit a dimension, eight to a byte.
    """
    if dtype == "float":
        return values
    if dtype in ("binary", "ubinary"):
        packed = np.packbits(values > 0)
        return packed if dtype == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    scaled = np.rint(np.nan_to_num(values) * (32 * math.sqrt(values.size)))
    steps: NDArray[np.int16] = np.clip(scaled, -128, 127).astype(np.int16)
    if dtype == "int8":
        return steps.astype(np.int8)
    return (steps + 128).astype(np.uint8)
