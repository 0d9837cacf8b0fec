"""The rows of a cache folder, one page at a time: to count, check, remove and share them.

A row is sound if the router would believe it: plain bytes under a plain key that fit their own header and checksum.
Reading holds no lock between pages, so a run that embeds meanwhile is not held up, and a row that is written anew
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
from urllib.parse import quote

from ..errors import ConfigError
from . import _places as places
from ._codec import is_row
from ._keys import KEY_BYTES

__all__ = ["PAGE", "Folder", "Row", "pages", "sound"]

DATABASE = "cache.db"
PAGE = 500
"""Rows in memory at once."""
BUSY = 30.0
"""Seconds to wait for another process."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it lies in the folder."""

    number: int
    stored: float
    """Seconds since 1970."""
    key: bytes
    value: bytes
    plain: bool
    """Whether the router would read it at all."""
    file: str | None

    @property
    def sound(self) -> bool:
        return self.plain and sound(self.key, self.value)


def sound(key: bytes, value: bytes) -> bool:
    """Say whether these are a key and a row that a router could have written."""
    return len(key) == KEY_BYTES and is_row(value)


def pages(items: Iterable[T]) -> Iterator[list[T]]:
    """Cut into lists that memory can hold."""
    rest = iter(items)
    while page := list(islice(rest, PAGE)):
        yield page


class Folder:
    """A cache folder.

    Raises:
        ConfigError: from every method but ``exists``: there is no cache in it, or it cannot be read as one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        return (self.path / DATABASE).exists()

    @property
    def bytes_on_disk(self) -> int:
        return sum(file.stat().st_size for file in self.path.glob(f"{DATABASE}*"))

    def size(self) -> tuple[int, int]:
        """Return how many rows there are, and their bytes."""
        with self._open() as database:
            count, total = database.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(value)), 0) FROM Cache").fetchone()
        return count, total

    def rows(self, older_than: float | None = None) -> Iterator[Row]:
        """Return every row; with ``older_than``, in seconds since 1970, those stored before."""
        last = 0
        before = float("inf") if older_than is None else older_than
        with self._open() as database:
            while True:
                page = database.execute(
                    "SELECT rowid, store_time, CAST(key AS BLOB), CAST(value AS BLOB),"
                    " raw = 1 AND mode = 1 AND typeof(key) = 'blob' AND typeof(value) = 'blob', filename"
                    " FROM Cache WHERE rowid > ? AND +store_time < ? ORDER BY rowid LIMIT ?",
                    (last, before, PAGE),
                ).fetchall()
                if not page:
                    return
                for number, stored, key, value, plain, file in page:
                    yield Row(number, stored, key or b"", value or b"", bool(plain), file)
                last = page[-1][0]

    def remove(self, rows: Iterable[Row]) -> int:
        """Remove rows, unless they were written anew since they were read; return how many."""
        removed = 0
        with self._open() as database:
            places.prepare(database)
            database.execute("BEGIN IMMEDIATE")
            for row in rows:
                gone = database.execute(
                    "DELETE FROM Cache WHERE rowid = ? AND store_time = ?", (row.number, row.stored)
                ).rowcount
                if gone and row.file:
                    self._unlink(row.file)
                if gone:
                    places.forget(database, [(row.key, row.number)])
                removed += gone
            database.execute("COMMIT")
        return removed

    def _unlink(self, file: str) -> None:
        place = (self.path / file).resolve()
        if place.is_relative_to(self.path.resolve()):  # the name comes from the database
            place.unlink(missing_ok=True)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if not self.exists:
            raise ConfigError(f"There is no cache in {self.path}. Name its folder: --cache DIR.")
        address = f"file:{quote(str(self.path / DATABASE))}?mode=rw"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=BUSY, isolation_level=None)) as database:
                yield database
        except sqlite3.Error as error:
            raise ConfigError(f"{self.path / DATABASE} cannot be read as a cache ({error}).") from error
