"""The bytes of one cache row: a small header, the vector's numbers, and a checksum.

Header, little-endian, 12 bytes: magic ``ER``, version, number type, dimensions (uint32), billed tokens (uint32). The
CRC-32 (uint32) of everything before it stands at the end, so that the CRC-32 of a whole sound row is always the same
number. A row that does not fit its header, is of another version or fails the checksum is no row: ``decode`` returns
``None`` and the text is embedded again.

Numbers are float32, or float16 for half the space. Either way a vector comes out as float32.

Versions share a folder. So whoever changes this version also changes what ``keys`` hashes: rows of two versions then
have different keys, and neither writes over the other's. Rows of a newer one are not ours to judge or remove.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..types import Entry, Vectors

__all__ = ["decode", "decoder", "encode", "is_row", "rounded"]

_START = struct.Struct("<2sBBI")
_TOKENS = struct.Struct("<I")
_HEADER = _START.size + _TOKENS.size
_CHECKSUM = 4
_EMPTY = _HEADER + _CHECKSUM
_SOUND = 0x2144DF1C
"""CRC-32 of whatever ends with its own CRC-32."""
_MAGIC = b"ER"
VERSION = 1
_NUMBERS: dict[str, tuple[int, np.dtype[Any]]] = {"float32": (1, np.dtype("<f4")), "float16": (2, np.dtype("<f2"))}
"""Number types, and what the header calls them."""
_MOST_TOKENS = 2**32 - 1


def rounded(vectors: Vectors, dtype: str) -> Vectors:
    """Return vectors of any shape as they come back from rows of ``dtype``, "float32" or "float16".

    Float16 keeps eleven bits of a number: values from 6.1e-5 to 65,504 change by less than 0.05 %. Smaller ones change
    by up to 3e-8, and those below 3e-8 become 0. Larger ones become infinite, which no row should hold.
    """
    return _as(_as(vectors, _NUMBERS[dtype][1]), np.dtype(np.float32))


def encode(entry: Entry, dtype: str = "float32") -> bytes:
    """Return the row that keeps ``entry``, its numbers as "float32" or "float16"."""
    code, number = _NUMBERS[dtype]
    numbers = np.ascontiguousarray(_as(entry.vector, number)).data
    tokens = max(0, min(entry.tokens, _MOST_TOKENS))
    header = _START.pack(_MAGIC, VERSION, code, entry.vector.size) + _TOKENS.pack(tokens)
    return b"".join((header, numbers, crc32(numbers, crc32(header)).to_bytes(_CHECKSUM, "little")))


def decode(row: bytes, dimensions: int) -> Entry | None:
    """Return the entry of a row, or ``None`` if the row is damaged, foreign or of another number of dimensions."""
    return decoder(dimensions)(row)


@functools.lru_cache(maxsize=64)
def decoder(dimensions: int) -> Callable[[bytes], Entry | None]:
    """Return ``decode`` for one number of dimensions."""
    half = _START.size
    forms = {
        _START.pack(_MAGIC, VERSION, code, dimensions): (number, _EMPTY + number.itemsize * dimensions)
        for code, number in _NUMBERS.values()
    }

    def decode(row: bytes) -> Entry | None:
        number, size = forms.get(row[:half], (None, 0))
        if number is None or len(row) != size or crc32(row) != _SOUND:
            return None
        vector = np.frombuffer(row, number, dimensions, _HEADER)
        if number.itemsize == 2:
            vector = _as(vector, np.dtype(np.float32))
            vector.flags.writeable = False
        return Entry(vector, _TOKENS.unpack_from(row, half)[0])

    return decode


def is_row(row: bytes) -> bool:
    """Say whether bytes are a sound row, of whatever number of dimensions, or one of a newer version."""
    if len(row) < _EMPTY:
        return False
    magic, version, _, dimensions = _START.unpack_from(row)
    return (magic == _MAGIC and version > VERSION) or decode(row, dimensions) is not None


def _as(vectors: NDArray[Any], number: np.dtype[Any]) -> NDArray[Any]:
    if vectors.dtype == number:
        return vectors
    with np.errstate(over="ignore", invalid="ignore"):  # a number too large becomes infinite
        return vectors.astype(number)
