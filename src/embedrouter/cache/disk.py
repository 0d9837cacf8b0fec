"""A cache in a folder: diskcache with raw bytes only.

diskcache's own ``Disk`` pickles what is not plain and unpickles what it reads, so that whoever can write the folder
can run code in whoever reads it (CVE-2025-69872). Ours stores bytes and refuses everything else. Eviction is off: the
vectors were paid for. diskcache has no bulk read, so ``get_many`` asks its SQLite table directly, as ``rows`` does for
the command line; these two modules are the reason for the pinned version.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW, UNKNOWN

__all__ = ["DiskCache"]

MOST_KEYS = 500
"""Keys in one SELECT."""
LARGEST_ROW = 2**26
"""Bytes: rows stay inside the database, however many dimensions a model has."""


class RawDisk(diskcache.Disk):  # type: ignore[misc]
    """Keys and values are bytes, as they are."""

    def put(self, key: Any) -> tuple[Any, bool]:
        if type(key) is not bytes:
            raise TypeError(f"cache keys are bytes, not {type(key).__name__}")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: bool) -> bytes:
        if not raw:
            raise ValueError("a key in the cache is not plain bytes")
        return bytes(key)

    def store(self, value: Any, read: bool, key: Any = UNKNOWN) -> Any:
        if type(value) is not bytes:
            raise TypeError(f"cache values are bytes, not {type(value).__name__}")
        return super().store(value, read, key=key)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode not in (MODE_RAW, MODE_BINARY):
            raise ValueError("a value in the cache is not plain bytes")
        return super().fetch(mode, filename, value, read)


class DiskCache:
    """Keeps rows in a folder, for all threads and processes that open it.

    The folder is made, for its owner alone, when something is first read or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._opening = threading.Lock()
        self._cache: diskcache.Cache | None = None

    def __repr__(self) -> str:
        return f"DiskCache({str(self.folder)!r})"

    def __reduce__(self) -> tuple[type[DiskCache], tuple[Path]]:
        return DiskCache, (self.folder,)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        sql = self._open()._sql
        values: dict[bytes, bytes] = {}
        for start in range(0, len(keys), MOST_KEYS):
            some = keys[start : start + MOST_KEYS]
            marks = ",".join("?" * len(some))
            values.update(
                sql(
                    f"SELECT key, value FROM Cache WHERE raw = 1 AND mode = {MODE_RAW} AND typeof(value) = 'blob' "
                    f"AND key IN ({marks})",
                    some,
                )
            )
        return values

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        cache = self._open()
        with cache.transact(retry=True):
            for key, value in values.items():
                cache.set(key, value, retry=True)

    def close(self) -> None:
        with self._opening:
            cache, self._cache = self._cache, None
        if cache is not None:
            cache.close()

    def _open(self) -> Any:
        if self._cache is None:
            with self._opening:
                if self._cache is None:
                    self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._cache = diskcache.Cache(
                        str(self.folder),
                        disk=RawDisk,
                        disk_min_file_size=LARGEST_ROW,
                        eviction_policy="none",
                        cull_limit=0,
                        statistics=0,
                    )
        return self._cache
