"""Vectors in a store of bytes: every row is checked on its way out, and what is damaged counts as absent.

A store that fails, whoever made it, fails no call: what cannot be read is absent, what cannot be written is not kept.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from ..errors import CacheWarning
from ..types import Entry, Vectors
from ._codec import decoder, encode, rounded
from ._store import Cache

__all__ = ["VectorCache"]

logger = logging.getLogger("embedrouter")

BUGS = (TypeError, ValueError, AttributeError, NameError, LookupError, ArithmeticError, AssertionError, ImportError)
"""Errors of who wrote a store, not of what it runs on."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

AT_ONCE = 16
"""Keys whose rows are looked up in about the time that it takes to hand them to another thread and back."""

T = TypeVar("T")


class VectorCache:
    """Reads and writes entries. Without a store it finds nothing and keeps nothing.

    Attributes:
        store: what keeps the rows.
        dtype: the number type of the rows it writes. It reads those of every type.
        damaged: rows found damaged so far; each was treated as absent and written again.
        failures: how often the store could not be read, written or closed so far.
    """

    def __init__(self, store: Cache | None, dtype: str = "float32") -> None:
        self.store = store
        self.dtype = dtype
        self.damaged = 0
        self.failures = 0
        self._told: set[tuple[object, ...]] = set()
        at_once = vars(type(store)).get("get_at_once")  # who wraps a store or extends it reads in a way of its own
        self._at_once: Callable[[Sequence[bytes]], Mapping[bytes, bytes] | None] | None
        self._at_once = at_once and partial(at_once, store)

    def read(self, keys: Sequence[bytes], dimensions: int) -> dict[bytes, Entry]:
        """Return the sound entries that exist, by key."""
        store = self.store
        if store is None:
            return {}
        rows: dict[bytes, bytes] | None = self._tried(
            lambda: dict(store.get_many(keys)), "read", "its texts are embedded, and paid for, as if it were empty"
        )
        return self._entries(rows or {}, dimensions)

    def read_at_once(self, keys: Sequence[bytes], dimensions: int) -> dict[bytes, Entry] | None:
        """Return the same if that takes no longer than to hand it to another thread, or ``None``."""
        if self.store is None:
            return {}
        if self._at_once is None or len(keys) > AT_ONCE:
            return None
        try:
            rows = self._at_once(keys)
        except Exception:  # noqa: BLE001 - the other thread meets it again
            return None
        return None if rows is None else self._entries(rows, dimensions)

    def _entries(self, rows: Mapping[bytes, bytes], dimensions: int) -> dict[bytes, Entry]:
        decode = decoder(dimensions)
        entries: dict[bytes, Entry] = {}
        for key, row in rows.items():
            entry = decode(row)
            if entry is None:
                self.damaged += 1
            else:
                entries[key] = entry
        return entries

    def rounded(self, vectors: Vectors) -> Vectors:
        """Return vectors as they will be read again, so that they are the same before and after."""
        if self.dtype == "float32" or vectors.dtype != np.float32:  # what is no vector is refused later
            return vectors
        return rounded(vectors, self.dtype)

    def write(self, entries: Mapping[bytes, Entry]) -> bool:
        """Keep entries, and say whether they are kept."""
        store = self.store
        if store is None or not entries:
            return store is not None
        rows = {key: encode(entry, self.dtype) for key, entry in entries.items()}
        failures = self.failures
        self._tried(lambda: store.put_many(rows), "written", "vectors that are paid for are returned, but not kept")
        return self.failures == failures

    def close(self) -> None:
        if self.store is not None:
            self._tried(self.store.close, "closed", "what was written before is kept")

    def _tried(self, action: Callable[[], T], what: str, consequence: str) -> T | None:
        try:
            return action()
        except BUGS:
            raise
        except Exception as error:  # noqa: BLE001 - a store of the user's may have errors of its own
            self.failures += 1
            place = getattr(self.store, "folder", None) or type(self.store).__name__
            cause = (what, type(error), getattr(error, "sqlite_errorcode", None), getattr(error, "errno", None))
            if cause not in self._told:
                self._told.add(cause)
                story = f"The cache {place} could not be {what} ({error}): {consequence}. {_advice(error, place)}"
                logger.warning("%s", story)
                warnings.warn(story, CacheWarning, stacklevel=3)
            return None


def _advice(error: Exception, place: object) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in DAMAGED:
        return f"Look at it with: embedrouter cache verify --cache {place}; or move it away, and a new one is made."
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in FULL:
        return "Free space on its disk."
    if code in HELD:
        return "Another process has locked it: wait for it, or end it."
    return "Give the right to read and write it and space on its disk, or name another: cache=…, or None for no cache."
