"""A cache in a folder: diskcache with raw bytes only.

diskcache's own ``Disk`` pickles what is not plain and unpickles what it reads, so that whoever can write the folder
can run code in whoever reads it (CVE-2025-69872). Ours stores bytes and refuses everything else. Eviction is off: the
vectors were paid for. diskcache has no bulk read or write, so its SQLite table is used directly, as ``rows`` does for
the command line.

diskcache opens one connection for each thread, which no other can close. But a forked child that inherits an open one
takes its parent's locks for its own. So here all threads take turns with one, and it is closed before a fork. These
are the reasons for the pinned version.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, MODE_BINARY, MODE_RAW, UNKNOWN

__all__ = ["DiskCache"]

MOST_KEYS = 500
"""Keys in one SELECT."""
LARGEST_ROW = 2**26
"""Bytes: rows stay inside the database, however many dimensions a model has."""
BUSY = 60.0
"""Seconds to wait for another process that writes."""
TURN = 1.0
"""Seconds of them in which other threads wait too."""

SELECT = f"""
SELECT row.key, row.value FROM Cache AS found CROSS JOIN Cache AS row ON row.rowid = found.rowid AND row.key = found.key
WHERE row.mode = {MODE_RAW} AND row.raw = 1 AND typeof(row.value) = 'blob' AND found.raw = 1 AND found.key IN
"""
"""The row itself must have the key: the index that finds it may be damaged, and lead to the row of another text."""

INSERT = f"""
INSERT INTO Cache (key, raw, store_time, access_time, mode, value) VALUES (?, 1, ?, ?, {MODE_RAW}, ?)
ON CONFLICT (key, raw) DO UPDATE SET key = excluded.key, store_time = excluded.store_time, mode = excluded.mode,
filename = NULL, value = excluded.value
"""
"""For the same reason the key is always written with its value."""


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

    Raises:
        sqlite3.Error: from every method but ``close``: the folder cannot be read or written as a cache.
        OSError: the same, of the folder itself.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._start()
        _caches.add(self)

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._cache: diskcache.Cache | None = None

    def __repr__(self) -> str:
        return f"DiskCache({str(self.folder)!r})"

    def __reduce__(self) -> tuple[type[DiskCache], tuple[Path]]:
        return DiskCache, (self.folder,)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        values: dict[bytes, bytes] = {}
        with self._turn() as cache:
            for start in range(0, len(keys), MOST_KEYS):
                some = keys[start : start + MOST_KEYS]
                values.update(cache._sql(f"{SELECT} ({','.join('?' * len(some))})", some))
        return values

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        deadline = time.monotonic() + BUSY
        while True:
            now = time.time()
            try:
                with self._turn() as cache:
                    put, store = cache.disk.put, cache.disk.store
                    rows = [(put(key)[0], now, now, store(value, False)[-1]) for key, value in values.items()]
                    with cache.transact():
                        cache._con.executemany(INSERT, rows)
                return
            except (diskcache.Timeout, sqlite3.Error) as error:
                cause = _cause(error)
                if cause.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise cause from None

    def close(self) -> None:
        with self._lock:
            cache, self._cache = self._cache, None
            if cache is not None:
                with suppress(sqlite3.Error):
                    cache.close()

    @contextmanager
    def _turn(self) -> Iterator[Any]:
        """Give one thread the connection.

        What fails in passing leaves it open: on a full disk it could not be opened again, and can still be read.
        """
        with self._lock:
            if self._cache is not None and not (self.folder / DBNAME).exists():  # removed, or moved away
                self.close()
            try:
                yield self._open()
            except BaseException as error:
                connection = None if self._cache is None else self._cache._con
                if connection is not None and connection.in_transaction:  # a COMMIT failed
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                passing = isinstance(error, diskcache.Timeout | sqlite3.OperationalError)
                if not passing or connection is None or connection.in_transaction:
                    self.close()
                raise

    def _open(self) -> Any:
        if self._cache is None:
            database = self.folder / DBNAME
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = not database.exists()
            try:
                cache = diskcache.Cache(
                    str(self.folder),
                    disk=RawDisk,
                    disk_min_file_size=LARGEST_ROW,
                    eviction_policy="none",
                    cull_limit=0,
                    statistics=0,
                )
            except (TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
                damaged = sqlite3.DatabaseError(f"its settings are not those of a cache: {error}")
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged from error
            cache.close()
            connection = sqlite3.connect(database, timeout=TURN, isolation_level=None, check_same_thread=False)
            cache._local = SimpleNamespace(pid=os.getpid(), con=connection)
            self._cache = cache
            for name, value in DEFAULT_SETTINGS.items():
                if name.startswith("sqlite_"):
                    cache.reset(name, value, update=False)
            if new:
                for file in self.folder.glob(f"{DBNAME}*"):
                    file.chmod(0o600)
        return self._cache


def _cause(error: BaseException) -> sqlite3.Error:
    """Return what happened first: diskcache hides it behind a ``Timeout``, or behind a ROLLBACK that failed too."""
    cause = error
    while isinstance(cause.__context__, sqlite3.Error):
        cause = cause.__context__
    assert isinstance(cause, sqlite3.Error)
    return cause


_caches: weakref.WeakSet[DiskCache] = weakref.WeakSet()
_forking: list[DiskCache] = []


def _before_fork() -> None:
    """Close every folder, as the ledger closes its files. Nobody may be inside meanwhile."""
    for cache in list(_caches):
        cache._lock.acquire()
        _forking.append(cache)
        cache.close()


def _after_in_parent() -> None:
    while _forking:
        _forking.pop()._lock.release()


def _after_in_child() -> None:
    while _forking:
        _forking.pop()._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
