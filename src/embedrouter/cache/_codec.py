"""Encode one vector as the bytes of a cache row: a small header, the numbers, and a checksum.

The header has 12 bytes, little-endian: magic ``ER``, version, number type, dimensions (uint32), billed tokens (uint32).
The CRC-32 (uint32) of everything before it is at the end, so that the CRC-32 of every whole row is the same number. A
row that does not fit its header, has another version or fails the checksum is damaged: ``decode`` returns ``None`` and
the text is embedded again.

Numbers are float32, or float16 for half the space, which is decoded as float32. Vectors of int8 and uint8, packed bits
among these, are kept as they are, a byte for each number.

Two versions of the package may share a folder. So a change of ``VERSION`` needs a change of what ``key_function``
hashes: rows of two versions then have different keys, and neither version overwrites rows of the other. Rows of a newer
version count as sound, because this version can neither check nor replace them.
"""

import math
import struct
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ..types import Entry, Vectors

VERSION = 1

MAGIC = b"ER"
_HEADER = struct.Struct("<2sBBII")
_CHECKSUM_BYTES = 4
_WHOLE = 0x2144DF1C
"""CRC-32 of any bytes that are followed by their own CRC-32."""
_NUMBERS: dict[str, tuple[int, np.dtype[Any]]] = {
    "float32": (1, np.dtype("<f4")),
    "float16": (2, np.dtype("<f2")),
    "int8": (3, np.dtype("i1")),
    "uint8": (4, np.dtype("u1")),
}
"""Number types, and their codes in the header."""
_NUMBER_OF_CODE = dict(_NUMBERS.values())
_MOST_TOKENS = 2**32 - 1


def rounded(vectors: Vectors, dtype: str) -> Vectors:
    """Return vectors of any shape as they come back from rows of ``dtype``, "float32" or "float16".

    Float16 keeps eleven bits of a number: values from 6.1e-5 to 65,504 change by less than 0.05 %. Smaller ones change
    by up to 3e-8, and those below 3e-8 become 0. Larger ones become infinite, which no row should hold.
    """
    return _converted(vectors, _NUMBERS[dtype][1]).astype(np.float32)


def encode(entry: Entry, dtype: str = "float32") -> bytes:
    """Return the row of an entry: floats as "float32" or "float16", integers as they are."""
    code, number = _NUMBERS[dtype if entry.vector.dtype.kind == "f" else entry.vector.dtype.name]
    tokens = max(0, min(entry.tokens, _MOST_TOKENS))
    header = _HEADER.pack(MAGIC, VERSION, code, entry.vector.size, tokens)
    row = header + _converted(entry.vector, number).tobytes()
    return row + crc32(row).to_bytes(_CHECKSUM_BYTES, "little")


def row_size(dimensions: int, dtype: str) -> int:
    """Return the bytes of a row: of numbers of a type, the header and the checksum."""
    return _HEADER.size + _NUMBERS[dtype][1].itemsize * dimensions + _CHECKSUM_BYTES


def decode(row: bytes, dimensions: int) -> Entry | None:
    """Return the entry of a row, or ``None`` if the row is damaged, foreign or of another number of dimensions."""
    if len(row) < _HEADER.size + _CHECKSUM_BYTES:
        return None
    magic, version, code, size, tokens = _HEADER.unpack_from(row)
    number = _NUMBER_OF_CODE.get(code)
    if magic != MAGIC or version != VERSION or number is None or size != dimensions:
        return None
    if len(row) != _HEADER.size + number.itemsize * dimensions + _CHECKSUM_BYTES or crc32(row) != _WHOLE:
        return None
    vector = np.frombuffer(row, number, dimensions, _HEADER.size)
    if number.kind == "f":
        vector = vector.astype(np.float32, copy=False)
    vector.flags.writeable = False
    return Entry(vector, tokens)


def is_vector(vector: Vectors) -> bool:
    """Check whether a vector is one that a router stores: finite numbers, not all zeros."""
    if vector.dtype.kind != "f":
        return bool(vector.any())
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(vector @ vector)
    if 0 < square < math.inf:
        return True
    return bool(np.isfinite(vector).all() and vector.any())  # the squares of small and large numbers have no value


def is_newer(row: bytes) -> bool:
    """Check whether bytes are a row of a newer version, which this version cannot check."""
    return len(row) >= _HEADER.size + _CHECKSUM_BYTES and row.startswith(MAGIC) and row[len(MAGIC)] > VERSION


def decode_any(row: bytes) -> Entry | None:
    """Return the entry of a row of any number of dimensions, or ``None`` if the row is damaged or foreign."""
    return decode(row, _HEADER.unpack_from(row)[3]) if len(row) >= _HEADER.size else None


def _converted(vectors: Vectors, number: np.dtype[Any]) -> NDArray[Any]:
    if vectors.dtype == number:
        return vectors
    with np.errstate(over="ignore", invalid="ignore"):  # a number too large becomes infinite
        return vectors.astype(number, copy=False)
