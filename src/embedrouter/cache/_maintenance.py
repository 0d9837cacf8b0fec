"""Maintain a cache folder row by row: count, check, remove and export what is stored.

A row is sound if the router would use it: plain bytes under a plain key that fit their own header and checksum. No lock
is held between two chunks of rows, so that a run that embeds meanwhile does not wait, and a row that was written again
after it was read is not removed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .._sqlite import SQLiteFile
from ..errors import ConfigError
from ._codec import is_row
from ._database import DATABASE, cache_file
from ._keys import KEY_BYTES
from ._store import open_cache

CHUNK_ROWS = 500
"""Rows in memory at once."""
BUSY_TIMEOUT = 30.0
"""Seconds to wait for another process that writes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row of the database as it is, sound or not."""

    number: int
    stored: float
    """Seconds since 1970."""
    key: bytes
    value: bytes
    plain: bool
    """Whether key and value are plain bytes inside the database; the router reads no others."""
    file: str | None
    """Where diskcache itself put the value, if not into the database."""

    @property
    def sound(self) -> bool:
        """Check whether the router would use the row."""
        return self.plain and is_sound(self.key, self.value)


def is_sound(key: bytes, value: bytes) -> bool:
    """Check whether a router could have written this value under this key."""
    return len(key) == KEY_BYTES and is_row(value)


def chunked(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut an iterable into lists of at most ``CHUNK_ROWS`` items."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK_ROWS)):
        yield chunk


class CacheDatabase:
    """The database of a cache folder, for maintenance.

    Raises:
        ConfigError: from every method: there is no cache in the folder, or the file cannot be read as a cache.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Check whether the folder contains a cache."""
        return (self.path / DATABASE).exists()

    @property
    def bytes_on_disk(self) -> int:
        """Return the size of the database and of SQLite's files beside it."""
        return sum(file.stat().st_size for file in self.path.glob(f"{DATABASE}*"))

    def size(self) -> tuple[int, int]:
        """Return the number of rows and the bytes of their values."""
        with self._open() as file, file.reading() as connection:
            count, total = connection.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0) FROM Cache").fetchone()
        return count, total

    def rows(self, older_than: float | None = None) -> Iterator[StoredRow]:
        """Return all rows, or with ``older_than``, in seconds since 1970, the rows stored before."""
        last = 0
        before = float("inf") if older_than is None else older_than
        with self._open() as file:
            while True:
                with file.reading() as connection:
                    chunk = connection.execute(
                        "SELECT rowid, store_time, CAST(key AS BLOB), CAST(value AS BLOB),"
                        " raw = 1 AND mode = 1 AND typeof(key) = 'blob' AND typeof(value) = 'blob', filename"
                        " FROM Cache WHERE rowid > ? AND +store_time < ? ORDER BY rowid LIMIT ?",
                        (last, before, CHUNK_ROWS),
                    ).fetchall()
                if not chunk:
                    return
                for number, stored, key, value, plain, name in chunk:
                    yield StoredRow(number, stored, key or b"", value or b"", bool(plain), name)
                last = chunk[-1][0]

    def remove(self, rows: Iterable[StoredRow]) -> int:
        """Remove rows, except those written again since they were read, and return how many were removed."""
        removed = []
        with self._open() as file:
            with closing(open_cache(self.path)) as cache:
                cache.get_many([])  # has diskcache make its triggers, if they are missing: they count rows
            with file.writing() as connection:
                for row in rows:
                    deleted = connection.execute(
                        "DELETE FROM Cache WHERE rowid = ? AND store_time = ?", (row.number, row.stored)
                    )
                    if deleted.rowcount:
                        removed.append(row)
        for row in removed:
            if row.file:
                self._unlink(row.file)
        return len(removed)

    def _unlink(self, name: str) -> None:
        path = (self.path / name).resolve()
        if path.is_relative_to(self.path.resolve()):  # the name comes from the database
            path.unlink(missing_ok=True)

    @contextmanager
    def _open(self) -> Iterator[SQLiteFile]:
        if not self.exists:
            raise ConfigError(f"There is no cache in {self.path}. Name its folder: --cache DIR.")
        try:
            with closing(cache_file(self.path, busy_timeout=BUSY_TIMEOUT)) as file:
                yield file
        except sqlite3.Error as error:
            raise ConfigError(f"{self.path / DATABASE} cannot be read as a cache ({error}).") from error
