"""Where the row of a key lies: two tables in the place of an index.

Keys are hashes, so neighbours in time are none in an index: of a million rows every batch writes to every page of it.
Here new places go into a small table. After so many rows they move to the large one, in order, and all at once: what a
batch costs does not grow with the folder.

A place is the last eight bytes of a key, as a number, and the number of a row. It is a hint: a row counts as found if
it has the whole key, and a place that leads nowhere, or elsewhere, does no harm. It stands in one table only, so that
of a large folder's rows most are found without a look into the small one.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

__all__ = ["MOST_NEW", "add", "forget", "known", "prepare", "rows"]

MOST_KEYS = 500
"""Keys in one SELECT."""
MOST_NEW = 2**16
"""Rows after which the places in the small table move: 1.3 MB, in a tenth of a second when the large has a million."""

ROW = "Cache AS row ON row.rowid = placed.row AND typeof(row.key) = 'blob'"
CREATE = "CREATE TABLE {} (hash INTEGER PRIMARY KEY, row INTEGER NOT NULL)"


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, if they are missing, for the rows that are there."""
    if _exist(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    if not _exist(connection):  # another process may have been making them
        connection.execute(CREATE.format("Places"))
        connection.execute(CREATE.format("NewPlaces"))
        rows = "SELECT key, rowid FROM Cache WHERE raw = 1 AND typeof(key) = 'blob' ORDER BY rowid"
        add(connection, connection.execute(rows).fetchall())
    connection.execute("COMMIT")


def _exist(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'NewPlaces'").fetchone() is not None


def rows(connection: sqlite3.Connection, keys: Sequence[bytes], where: str) -> Iterator[tuple[bytes, Any]]:
    """Return keys and values of the rows at the places of keys; the key says whether it is the row that was meant."""
    return _asked(connection, f"SELECT row.key, row.value FROM placed CROSS JOIN {ROW} WHERE {where}", keys)


def known(connection: sqlite3.Connection, keys: Collection[bytes]) -> dict[bytes, int]:
    """Return the rows of those keys that have one, and remove the places of others, before they get new ones."""
    select = f"SELECT row.key, row.rowid, hash FROM placed LEFT JOIN {ROW} WHERE placed.row IS NOT NULL"
    found = list(_asked(connection, select, keys))
    lost = [(place,) for key, _, place in found if key not in keys]
    connection.executemany("DELETE FROM Places WHERE hash = ?", lost)
    return {key: row for key, row, _ in found if key in keys}


def _asked(connection: sqlite3.Connection, select: str, keys: Iterable[bytes]) -> Iterator[Any]:
    hashes = [_hash(key) for key in keys]
    parts = (hashes[start : start + MOST_KEYS] for start in range(0, len(hashes), MOST_KEYS))
    return chain.from_iterable(connection.execute(_statement(select, len(part)), part) for part in parts)


@functools.cache
def _statement(select: str, count: int) -> str:
    return f"""
    WITH asked (hash) AS (VALUES {",".join(["(?)"] * count)}),
    placed AS (
        SELECT hash, COALESCE(
            (SELECT row FROM Places WHERE hash = asked.hash), (SELECT row FROM NewPlaces WHERE hash = asked.hash)
        ) AS row FROM asked
    )
    {select}
    """


def add(connection: sqlite3.Connection, places: Sequence[tuple[bytes, int]]) -> None:
    """Enter the rows of keys, in ascending order, over older ones."""
    if not places:
        return
    connection.executemany("INSERT OR REPLACE INTO NewPlaces VALUES (?, ?)", [(_hash(key), row) for key, row in places])
    if (places[0][1] - 1) // MOST_NEW != places[-1][1] // MOST_NEW:
        connection.execute("INSERT OR REPLACE INTO Places SELECT * FROM NewPlaces ORDER BY hash")
        connection.execute("DELETE FROM NewPlaces")


def forget(connection: sqlite3.Connection, places: Iterable[tuple[bytes, int]]) -> None:
    """Remove the places of rows that are removed."""
    gone = [(_hash(key), row) for key, row in places]
    for table in ("Places", "NewPlaces"):
        connection.executemany(f"DELETE FROM {table} WHERE hash = ? AND row = ?", gone)


def _hash(key: bytes) -> int:
    return int.from_bytes(key[-8:], "little", signed=True)
