"""Rows that are gathered for a store that is saved as a whole: a SQLite file beside it, from which it is written.

Each call is one transaction, so a run that is killed goes on with what it had written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..types import Vectors
from ._metadata import packed, unpacked
from ._rows import parts, stored_text
from ._transfer import StoredText

OF_FORMAT = "format:"
"""The beginning of entries that only the format needs, which are not written into the store."""
AT_ONCE = 500
"""Ids in one statement."""


class Draft:
    """The rows of one store that is not whole yet, in the order in which they came first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = sqlite3.connect(path, check_same_thread=False)
        self._file.executescript(
            "CREATE TABLE IF NOT EXISTS rows (place INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, "
            "content TEXT NOT NULL, metadata TEXT NOT NULL, columns TEXT NOT NULL, "
            "vector BLOB NOT NULL, number TEXT NOT NULL);"
            "CREATE TABLE IF NOT EXISTS entries (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
        )

    def entries(self) -> dict[str, Any]:
        """Return the entries of the store: its mark, and what its format needs."""
        return {name: unpacked(value) for name, value in self._file.execute("SELECT name, value FROM entries")}

    def write_entries(self, entries: Mapping[str, Any]) -> None:
        with self._file:
            self._file.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?)",
                [(name, packed(value)) for name, value in entries.items()],
            )

    def count(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM rows").fetchone()[0])

    def ids(self) -> Iterator[str]:
        for (name,) in self._file.execute("SELECT id FROM rows ORDER BY place"):
            yield name

    def pages(self, size: int) -> Iterator[list[tuple[StoredText, Vectors]]]:
        """Yield the rows with their vectors."""
        place = -1
        while found := self._file.execute(
            "SELECT * FROM rows WHERE place > ? ORDER BY place LIMIT ?", (place, size)
        ).fetchall():
            place = found[-1][0]
            yield [_row(one) for one in found]

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        found: dict[str, tuple[StoredText, Vectors]] = {}
        for part in parts(ids, AT_ONCE):
            marks = ",".join("?" * len(part))
            for one in self._file.execute(f"SELECT * FROM rows WHERE id IN ({marks})", part):
                found[one[1]] = _row(one)
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    def write(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        """Write rows, in place of those that have the same ids."""
        numbers = np.ascontiguousarray(vectors)
        with self._file:
            self._file.executemany(
                "INSERT INTO rows (id, content, metadata, columns, vector, number) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET content = excluded.content, metadata = excluded.metadata, "
                "columns = excluded.columns, vector = excluded.vector, number = excluded.number",
                [
                    (row.id, row.content, packed(row.metadata), packed(row.columns), vector.tobytes(), vector.dtype.str)
                    for row, vector in zip(rows, numbers, strict=True)
                ],
            )

    def remove(self, ids: Sequence[str]) -> None:
        with self._file:
            self._file.executemany("DELETE FROM rows WHERE id = ?", [(name,) for name in ids])

    def discard(self) -> None:
        """Remove the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()


def has_begun(path: Path) -> bool:
    """Return whether there is a draft."""
    if not path.is_file():
        return False
    with closing(sqlite3.connect(path)) as file:
        return file.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone() is not None


def _row(found: Sequence[Any]) -> tuple[StoredText, Vectors]:
    _, name, content, metadata, columns, vector, number = found
    return stored_text(name, content, unpacked(metadata), unpacked(columns)), np.frombuffer(vector, number)
