"""A cache in a folder: diskcache with raw bytes only.

diskcache's own ``Disk`` pickles what is not plain and unpickles what it reads, so that whoever can write the folder
can run code in whoever reads it (CVE-2025-69872). Ours stores bytes and refuses everything else. Eviction is off: the
vectors were paid for. diskcache has no bulk read or write, so its SQLite table is used directly, as ``rows`` does for
the command line.

A new database is made here, before diskcache opens it, because the size of its pages cannot change later: a page holds
whole rows, and what no further row fits into is lost. Of the sizes that SQLite has, 32 KiB alone keeps vectors of 256
to 3,072 dimensions, of four bytes a number and of two, within 1.4 times their bytes (4 KiB: twice, at 512).

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
from diskcache.core import DBNAME, MODE_BINARY, MODE_RAW, UNKNOWN

from . import _places as places

__all__ = ["DiskCache"]

LARGEST_ROW = 2**26
"""Bytes: rows stay inside the database, however many dimensions a model has."""
BUSY = 60.0
"""Seconds to wait for another process that writes."""
TURN = 1.0
"""Seconds of them in which other threads wait too."""
PAGE_BYTES = 2**15

CREATE = [
    "CREATE TABLE IF NOT EXISTS Settings (key TEXT NOT NULL UNIQUE, value)",
    "CREATE INDEX IF NOT EXISTS Cache_expire_time ON Settings (key) WHERE key IS NULL",
    "CREATE INDEX IF NOT EXISTS Cache_key_raw ON Settings (key) WHERE key IS NULL",
    *(
        f"CREATE TRIGGER IF NOT EXISTS Settings_{event} AFTER DELETE ON Settings WHEN 0 BEGIN SELECT 0; END"
        for event in ("count_insert", "count_delete", "size_insert", "size_update", "size_delete")
    ),
]
"""diskcache's first table, and idle things under the names of its triggers and indexes, which it then leaves out.

Its own count the rows and sort them by age, for an eviction that is off here, and make writing take four times as long.
Where keys are, ``places`` says.
"""
PRAGMAS = {"busy_timeout": int(1000 * TURN), "synchronous": "NORMAL", "cache_size": -(2**15), "mmap_size": 2**40}
"""A cache of 32 MiB (negative numbers are KiB), and as much mapped as SQLite can: that halves the time of reading in a
million rows."""

SOUND = f"row.raw = 1 AND row.mode = {MODE_RAW} AND typeof(row.value) = 'blob'"
INSERT = f"""
INSERT OR REPLACE INTO Cache (rowid, key, raw, store_time, access_time, mode, value)
VALUES (?, ?, 1, ?, ?, {MODE_RAW}, ?)
"""
UPDATE = f"""
UPDATE OR REPLACE Cache SET raw = 1, store_time = ?, mode = {MODE_RAW}, filename = NULL, value = ? WHERE rowid = ?
"""


def _plain(what: str, item: Any) -> bytes:
    if type(item) is not bytes:
        raise TypeError(f"cache {what} are bytes, not {type(item).__name__}")
    return item


class RawDisk(diskcache.Disk):  # type: ignore[misc]
    """Keys and values are bytes, as they are."""

    def put(self, key: Any) -> tuple[Any, bool]:
        return sqlite3.Binary(_plain("keys", key)), True

    def get(self, key: Any, raw: bool) -> bytes:
        if not raw:
            raise ValueError("a key in the cache is not plain bytes")
        return bytes(key)

    def store(self, value: Any, read: bool, key: Any = UNKNOWN) -> Any:
        return super().store(_plain("values", value), read, key=key)

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
        self._database = self.folder / DBNAME
        self._start()
        _caches.add(self)

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._cache: diskcache.Cache | None = None
        self._apart = False
        """Whether who reads need not wait for who writes: some file systems cannot do that."""

    def __repr__(self) -> str:
        return f"DiskCache({str(self.folder)!r})"

    def __reduce__(self) -> tuple[type[DiskCache], tuple[Path]]:
        return DiskCache, (self.folder,)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self._turn() as connection:
            return self._find(connection, keys)

    def get_at_once(self, keys: Sequence[bytes]) -> dict[bytes, bytes] | None:
        """Return the same without waiting for anybody, or ``None`` when others are inside or the folder is not open."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._cache is None or not self._apart or not self._database.exists():
                return None
            return self._find(self._cache._con, keys)
        finally:
            self._lock.release()

    @staticmethod
    def _find(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found = dict(places.rows(connection, keys, SOUND))
        for stranger in found.keys() - set(keys):
            del found[stranger]
        return found

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        for key, value in values.items():
            _plain("keys", key), _plain("values", value)
        deadline = time.monotonic() + BUSY
        while True:
            try:
                with self._turn() as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    self._put(connection, values)
                    connection.execute("COMMIT")
                return
            except sqlite3.Error as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise

    @staticmethod
    def _put(connection: sqlite3.Connection, values: Mapping[bytes, bytes]) -> None:
        now = time.time()
        known = places.known(connection, values)
        if known:
            connection.executemany(UPDATE, [(now, values[key], row) for key, row in known.items()])
        (last,) = connection.execute("SELECT COALESCE(MAX(rowid), 0) FROM Cache").fetchone()
        new = [(key, row) for row, key in enumerate((key for key in values if key not in known), last + 1)]
        connection.executemany(INSERT, [(row, key, now, now, values[key]) for key, row in new])
        places.add(connection, new)

    def close(self) -> None:
        with self._lock:
            cache, self._cache = self._cache, None
            if cache is not None:
                with suppress(sqlite3.Error):
                    cache.close()

    @contextmanager
    def _turn(self) -> Iterator[sqlite3.Connection]:
        """Give one thread the connection.

        What fails in passing leaves it open: on a full disk it could not be opened again, and can still be read.
        """
        with self._lock:
            if self._cache is not None and not self._database.exists():  # removed, or moved away
                self.close()
            try:
                yield self._open()._con
            except BaseException as error:
                connection = None if self._cache is None else self._cache._con
                if connection is not None and connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                passing = isinstance(error, sqlite3.OperationalError)
                if not passing or connection is None or connection.in_transaction:
                    self.close()
                raise

    def _open(self) -> Any:
        if self._cache is None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(self._database, timeout=BUSY, isolation_level=None, check_same_thread=False)
            try:
                self._create(connection)
                cache = diskcache.Cache(  # its own connections are not the last to close, which would wait for the disk
                    str(self.folder),
                    disk=RawDisk,
                    disk_min_file_size=LARGEST_ROW,
                    eviction_policy="none",
                    cull_limit=0,
                    statistics=0,
                )
                cache.close()
                places.prepare(connection)
                self._apart = connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
                for name, value in PRAGMAS.items():
                    connection.execute(f"PRAGMA {name} = {value}")
            except (TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
                connection.close()
                damaged = sqlite3.DatabaseError(f"its settings are not those of a cache: {error}")
                damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise damaged from error
            except BaseException:
                connection.close()
                raise
            cache._local = SimpleNamespace(pid=os.getpid(), con=connection)
            self._cache = cache
        return self._cache

    def _create(self, connection: sqlite3.Connection) -> None:
        """Make an empty database ours. Processes take turns, and one that is killed here leaves it empty."""
        if connection.execute("PRAGMA page_count").fetchone() == (0,):
            self._database.chmod(0o600)  # the files that SQLite puts beside it get the same rights
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = FULL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in CREATE:
                connection.execute(statement)
            connection.execute("COMMIT")


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
