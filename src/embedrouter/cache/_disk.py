"""Keep rows in a folder with diskcache: raw bytes only, without eviction.

diskcache's own ``Disk`` pickles values that are not plain and unpickles what it reads, so that anyone with the right to
write the folder can run code in every process that reads it (CVE-2025-69872). ``RawDisk`` stores bytes and refuses
everything else. Eviction is off, because the vectors were paid for.

diskcache writes, in one transaction for each ``put_many``, in the calling thread. Its connection belongs to that thread
and no other thread can close it, so it is closed again before the call returns. This costs half a millisecond, and
leaves no open file in threads that end or in forked children.

diskcache has no bulk read, so rows are read by a SELECT through a connection of this module, which never waits for a
writer.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import diskcache

from .._process import watch_forks
from .._sqlite import ReplacedError, failure
from ..errors import ConfigError
from ._database import cache_file

BUSY_TIMEOUT = 60.0
"""Seconds to wait for another process that writes."""
SLICE = 1.0
"""Seconds of one attempt. Between attempts other threads may write, close or fork."""
PAUSE = 0.01
"""Seconds between attempts."""
MOST_KEYS = 500
"""Keys in one SELECT."""

RAW = 1
"""diskcache's mode of a value that is in the database as it is."""
SELECT = f"""
SELECT key, value FROM Cache
WHERE rowid IN (SELECT rowid FROM Cache WHERE raw = 1 AND key IN ({{}}))
AND raw = 1 AND mode = {RAW} AND typeof(value) = 'blob'
"""
"""By row number, so that the key is read from the row and not from the index: one damaged bit in the index leads to the
row of another text, whose checksum is right."""

T = TypeVar("T")


class RawDisk(diskcache.Disk):  # type: ignore[misc]
    """Keys and values are bytes, stored as they are, inside the database."""

    def put(self, key: Any) -> tuple[Any, bool]:
        return sqlite3.Binary(_plain("keys", key)), True

    def get(self, key: Any, raw: bool) -> bytes:
        if not raw:
            raise ValueError("a key in the cache is not plain bytes")
        return bytes(key)

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, Any]:
        return 0, RAW, None, sqlite3.Binary(_plain("values", value))

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        if mode != RAW:
            raise ValueError("a value in the cache is not plain bytes")
        return bytes(value)


class RawCache(diskcache.Cache):  # type: ignore[misc]
    """diskcache with ``RawDisk`` and without eviction. Its constructor makes the tables that are missing.

    Raises:
        sqlite3.Error: the database cannot be written.
        TypeError, ValueError, AttributeError, LookupError, AssertionError: the settings in the database are damaged;
            diskcache takes each for an attribute.
    """

    def __init__(self, folder: Path) -> None:
        try:
            super().__init__(
                str(folder),
                timeout=SLICE,  # pyright: ignore[reportArgumentType] - it says int and takes any number
                disk=RawDisk,
                eviction_policy="none",
                cull_limit=0,
                size_limit=2**62,
                statistics=0,
                sqlite_mmap_size=0,
                sqlite_cache_size=-(2**15),
                sqlite_synchronous=1,  # NORMAL: after a crash of the system the last rows may be missing
            )
        except BaseException:
            with suppress(AttributeError, sqlite3.Error):
                self.close()
            raise

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store values in one transaction, and close the calling thread's connection."""
        failed: sqlite3.Error | None = None
        try:
            with self.transact():
                try:
                    for key, value in values.items():
                        self.set(key, value)
                except sqlite3.Error as error:
                    failed = error
                    raise
        except sqlite3.Error:
            if failed is None:
                raise
            raise failed from None  # and not that of ROLLBACK, which fails where SQLite has rolled back by itself
        except diskcache.Timeout as error:  # stands for every error of BEGIN
            raise error.__context__ or error from None
        finally:
            self.close()


class DiskCache:
    """Keeps rows in a folder, for all threads and processes that open it.

    The folder is made, with rights for its owner alone, when it is first read or written.

    Raises:
        ConfigError: the folder's name cannot be used.
        sqlite3.Error: from every method but ``close``: the folder cannot be read or written as a cache.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        if os.path.expandvars(self.folder) != str(self.folder):  # diskcache would write to another folder
            raise ConfigError(
                f"The cache folder {self.folder} contains the name of an environment variable. Give its value instead."
            )
        self._file = cache_file(self.folder, busy_timeout=SLICE)
        self._lock = threading.Lock()
        """Held while diskcache has an open connection."""
        self._writer: RawCache | None = None
        self._has_tables = False
        watch_forks(self)

    def __repr__(self) -> str:
        return f"DiskCache({str(self.folder)!r})"

    def __reduce__(self) -> tuple[type[DiskCache], tuple[Path]]:
        return DiskCache, (self.folder,)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values that exist, by key."""
        found = self._patiently(lambda: self._select(keys))
        return {key: found[key] for key in keys if key in found}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values in one transaction, replacing older ones."""
        for key, value in values.items():
            _plain("keys", key)
            _plain("values", value)
        self._patiently(lambda: self._write(values))

    def close(self) -> None:
        """Close the database; the next call opens it again."""
        self._file.close()
        self._writer, self._has_tables = None, False

    def _patiently(self, action: Callable[[], T]) -> T:
        """Repeat an action while another process writes, and once more in a new folder if the folder was removed."""
        deadline = time.monotonic() + BUSY_TIMEOUT
        while True:
            try:
                return action()
            except sqlite3.Error as error:
                again = isinstance(error, ReplacedError) or failure(error) == "busy"
                if not again or time.monotonic() > deadline:
                    raise
                if isinstance(error, ReplacedError):
                    self.close()
                time.sleep(PAUSE)

    def _select(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the rows to which the index leads, by their own keys."""
        self._make_tables()
        rows: dict[bytes, bytes] = {}
        with self._file.reading() as connection:
            for start in range(0, len(keys), MOST_KEYS):
                part = keys[start : start + MOST_KEYS]
                rows.update(connection.execute(SELECT.format(",".join("?" * len(part))), part))
        return rows

    def _make_tables(self) -> None:
        """Have diskcache make its tables, index and triggers, if the last of them is missing."""
        if not self._has_tables:
            last = "SELECT 1 FROM sqlite_master WHERE name = 'Settings_size_delete'"
            with self._file.reading() as connection:
                self._has_tables = connection.execute(last).fetchone() is not None
        if not self._has_tables:
            self._write({})
            self._has_tables = True

    def _write(self, values: Mapping[bytes, bytes]) -> None:
        # diskcache itself trusts the index, and would write over the row of another text
        if values and not self._select(list(values)).keys() <= values.keys():
            raise _damaged("its index leads to wrong rows")
        if self._writer is None:
            with self._file.writing():
                pass  # waits for one slice, where diskcache would wait for a minute while it opens
        with self._lock:
            try:
                if self._writer is None:
                    self._writer = RawCache(self.folder)
                self._writer.put_many(values)
            except (TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
                raise _damaged(f"its settings are not those of a cache: {error}") from error

    def before_fork(self) -> None:
        """Wait until no connection of diskcache is open, and open none until the fork is done."""
        self._lock.acquire()

    def after_fork(self, *, in_child: bool) -> None:
        """Let threads write again."""
        self._lock.release()


def _plain(what: str, item: Any) -> bytes:
    if type(item) is not bytes:
        raise TypeError(f"cache {what} are bytes, not {type(item).__name__}")
    return item


def _damaged(story: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(story)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
