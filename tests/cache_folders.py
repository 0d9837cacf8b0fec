"""Cache folders for tests: sixty known rows, and a check that a database is complete."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import numpy as np

from embedrouter.cache import VectorCache, open_cache
from embedrouter.cache._keys import KEY_BYTES
from embedrouter.types import Entry

DIMENSIONS = 1536
KEYS = [blake2b(bytes([number]), digest_size=KEY_BYTES).digest() for number in range(60)]


def entry(key: bytes) -> Entry:
    """Return the one right entry of a key: 1,536 numbers."""
    return Entry(np.full(DIMENSIONS, 1 + KEYS.index(key), np.float32), 7)


def fill(folder: Path) -> None:
    """Write the entries of all keys."""
    with closing(VectorCache(open_cache(folder))) as cache:
        assert cache.write({key: entry(key) for key in KEYS})


def right(found: Mapping[bytes, Entry]) -> bool:
    """Check that each key has its own vector."""
    return all(np.array_equal(vector.vector, entry(key).vector) for key, vector in found.items())


def assert_complete(folder: Path, keys: int = len(KEYS)) -> None:
    """Check that a database is sound, with one row for each key."""
    with closing(sqlite3.connect(folder / "cache.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT COUNT(*), COUNT(DISTINCT key) FROM vectors").fetchone() == (keys, keys)
