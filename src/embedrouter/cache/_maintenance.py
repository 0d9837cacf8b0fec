"""Maintain a cache folder row by row: count, check, remove and export what is stored.

A row is sound if the router would use it: bytes that fit their own header and checksum, numbers that are finite and not
all zero, under a key of the right length. No lock is held between two chunks of rows, so that a run that embeds
meanwhile does not wait, and a row that was written again after it was read is not removed.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .._sqlite import SQLiteFile
from ..errors import ConfigError
from ._codec import decode_any, is_newer, is_vector
from ._disk import DATABASE, cache_file
from ._keys import KEY_BYTES

CHUNK_ROWS = 500
"""Rows in memory at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One row of the database as it is, sound or not."""

    number: int
    stored: float
    """Seconds since 1970."""
    key: bytes
    value: bytes

    @property
    def sound(self) -> bool:
        """Check whether the router would use the row."""
        return is_sound(self.key, self.value)


def is_sound(key: bytes, value: bytes) -> bool:
    """Check whether a router could have written this value under this key."""
    if len(key) != KEY_BYTES:
        return False
    entry = decode_any(value)
    return is_newer(value) if entry is None else is_vector(entry.vector)


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
            sums = connection.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0) FROM vectors").fetchone()
        return sums[0], sums[1]

    def rows(self, older_than: float | None = None) -> Iterator[StoredRow]:
        """Return all rows, or with ``older_than``, in seconds since 1970, the rows stored before."""
        last = 0
        before = float("inf") if older_than is None else older_than
        with self._open() as file:
            while True:
                with file.reading() as connection:
                    chunk = connection.execute(
                        "SELECT rowid, stored, CAST(key AS BLOB), CAST(value AS BLOB) FROM vectors"
                        " WHERE rowid > ? AND +stored < ? ORDER BY rowid LIMIT ?",
                        (last, before, CHUNK_ROWS),
                    ).fetchall()
                if not chunk:
                    return
                yield from (StoredRow(*row) for row in chunk)
                last = chunk[-1][0]

    def remove(self, rows: Iterable[StoredRow]) -> int:
        """Remove rows, except those written again since they were read, and return how many were removed."""
        numbers = [(row.number, row.stored) for row in rows]
        with self._open() as file, file.writing() as connection:
            return connection.executemany("DELETE FROM vectors WHERE rowid = ? AND stored = ?", numbers).rowcount

    @contextmanager
    def _open(self) -> Iterator[SQLiteFile]:
        if not self.exists:
            raise ConfigError(f"There is no cache in {self.path}. Name its folder: --cache DIR.")
        try:
            with closing(cache_file(self.path, longest=math.inf)) as file:
                yield file
        except sqlite3.Error as error:
            raise ConfigError(f"{self.path / DATABASE} cannot be read as a cache ({error}).") from error
