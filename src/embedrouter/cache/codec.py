"""The bytes of one cache row: a small header, then the vector's numbers.

Header, little-endian, 16 bytes: magic ``ER``, version, number type, dimensions (uint32), billed tokens (uint32),
CRC-32 of everything else (uint32). A row that does not fit its header, is of another version or fails the checksum is
no row: ``decode`` returns ``None`` and the text is embedded again.

Versions share a folder. So whoever changes this version also changes what ``keys`` hashes: rows of two versions then
have different keys, and neither writes over the other's. Rows of a newer one are not ours to judge or remove.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from ..types import Entry

__all__ = ["decode", "encode", "is_row"]

_HEADER = struct.Struct("<2sBBIII")
_MAGIC = b"ER"
VERSION = 1
_FLOAT32 = 1
_UNSUMMED = _HEADER.size - 4
_MOST_TOKENS = 2**32 - 1
DIMENSIONS = 3
"""Their place among the header's fields."""


def encode(entry: Entry) -> bytes:
    """Return the row that keeps ``entry``."""
    numbers = np.ascontiguousarray(entry.vector, dtype="<f4")
    tokens = max(0, min(entry.tokens, _MOST_TOKENS))
    start = _HEADER.pack(_MAGIC, VERSION, _FLOAT32, numbers.size, tokens, 0)[:_UNSUMMED]
    return b"".join((start, zlib.crc32(numbers.data, zlib.crc32(start)).to_bytes(4, "little"), numbers.data))


def decode(row: bytes, dimensions: int) -> Entry | None:
    """Return the entry of a row, or ``None`` if the row is damaged, foreign or of another number of dimensions."""
    if len(row) != _HEADER.size + 4 * dimensions:
        return None
    magic, version, dtype, size, tokens, checksum = _HEADER.unpack_from(row)
    if (magic, version, dtype, size) != (_MAGIC, VERSION, _FLOAT32, dimensions):
        return None
    view = memoryview(row)
    if zlib.crc32(view[_HEADER.size :], zlib.crc32(view[:_UNSUMMED])) != checksum:
        return None
    return Entry(np.frombuffer(row, "<f4", offset=_HEADER.size), tokens)


def is_row(row: bytes) -> bool:
    """Say whether bytes are a sound row, of whatever number of dimensions, or one of a newer version."""
    if len(row) < _HEADER.size:
        return False
    fields = _HEADER.unpack_from(row)
    return (fields[0] == _MAGIC and fields[1] > VERSION) or decode(row, fields[DIMENSIONS]) is not None
