"""Vectors in a store of bytes: every row is checked on its way out, and what is damaged counts as absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..types import Entry
from . import Cache
from .codec import decode, encode

__all__ = ["VectorCache"]


class VectorCache:
    """Reads and writes entries. Without a store it finds nothing and keeps nothing.

    Attributes:
        store: what keeps the rows.
        damaged: rows found damaged so far; each was treated as absent and written again.
    """

    def __init__(self, store: Cache | None) -> None:
        self.store = store
        self.damaged = 0

    def read(self, keys: Sequence[bytes], dimensions: int) -> dict[bytes, Entry]:
        """Return the sound entries that exist, by key."""
        if self.store is None:
            return {}
        entries: dict[bytes, Entry] = {}
        for key, row in self.store.get_many(keys).items():
            entry = decode(row, dimensions)
            if entry is None:
                self.damaged += 1
            else:
                entries[key] = entry
        return entries

    def write(self, entries: Mapping[bytes, Entry]) -> None:
        """Keep entries."""
        if self.store is not None:
            self.store.put_many({key: encode(entry) for key, entry in entries.items()})

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
