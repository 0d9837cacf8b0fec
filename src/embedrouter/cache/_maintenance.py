"""Maintain a cache folder row by row: count, check, remove and export what is stored.

A row is sound if the router would use it: bytes that fit their own header and checksum, numbers that are finite and not
all zero, under a key of the right length. No lock is held between two chunks of rows, so that a run that embeds
meanwhile does not wait, and a row that was written again after it was read is not removed.
"""

import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .._sqlite import SQLiteFile, free_bytes, is_read_only, size_on_disk
from ..errors import ConfigError
from ._codec import decode_any, is_newer, is_vector
from ._disk import DATABASE, cache_file
from ._keys import is_key, split_key
from ._names import recorded_names

CHUNK_ROWS = 500
"""Rows in memory at once."""

ROWS = """
SELECT vectors.rowid, stored, CAST(model || vectors.key AS BLOB), CAST(value AS BLOB)
FROM vectors LEFT JOIN uses USING (key)
WHERE vectors.rowid > ? AND +stored < ? AND MAX(+stored, COALESCE(used, 0)) < ?{}
ORDER BY vectors.rowid LIMIT ?
"""

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
    if not is_key(key):
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
        return size_on_disk(self.path / DATABASE)

    @property
    def free_bytes(self) -> int:
        """Return the bytes that are free where the folder is, or will be."""
        there = next(place for place in (self.path, *self.path.parents) if place.is_dir())
        return free_bytes(there / DATABASE)

    @property
    def is_read_only(self) -> bool:
        """Check whether there is a cache that this process may only read."""
        return is_read_only(self.path / DATABASE)

    def require_writable(self) -> None:
        """Refuse to remove rows where the file may only be read.

        Raises:
            ConfigError: the message has the next action.
        """
        if self.is_read_only:
            raise ConfigError(
                f"{self.path} may only be read, so nothing was removed. Give the right to write it and its folder; or "
                "copy the folder, and name the copy: --cache DIR."
            )

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return the number of rows and the bytes of their values, by model; the name is empty where it is unknown."""
        names = self.names()
        sums: dict[str, tuple[int, int]] = {}
        with self._open() as file, file.reading() as connection:
            found = connection.execute("SELECT model, COUNT(*), SUM(LENGTH(value)) FROM vectors GROUP BY model")
            for mark, rows, size in found:
                name = names.get(mark, "")
                others = sums.get(name, (0, 0))
                sums[name] = others[0] + rows, others[1] + size
        return sums

    def names(self) -> Mapping[bytes, str]:
        """Return the names of the models that have rows, or had rows, by the mark in their keys."""
        return recorded_names(self.path)

    def rows(
        self,
        *,
        stored_before: float = math.inf,
        used_before: float = math.inf,
        marks: Collection[bytes] | None = None,
    ) -> Iterator[StoredRow]:
        """Return the rows for which all of these hold.

        Args:
            stored_before: seconds since 1970.
            used_before: seconds since 1970: neither written nor read since then. Reads are noted once a day.
            marks: of models; ``None`` for all models.
        """
        last = 0
        query = ROWS.format("" if marks is None else f" AND model IN ({','.join('?' * len(marks))})")
        with self._open() as file:
            while True:
                values = (last, stored_before, used_before, *(marks or ()), CHUNK_ROWS)
                with file.reading() as connection:
                    chunk = connection.execute(query, values).fetchall()
                if not chunk:
                    return
                yield from (StoredRow(*row) for row in chunk)
                last = chunk[-1][0]

    def remove(self, rows: Iterable[StoredRow]) -> int:
        """Remove rows, except those written again since they were read, and return how many were removed."""
        chosen = list(rows)
        with self._open() as file, file.writing() as connection:
            connection.executemany("DELETE FROM uses WHERE key = ?", [split_key(row.key)[1:] for row in chosen])
            numbers = [(row.number, row.stored) for row in chosen]
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
