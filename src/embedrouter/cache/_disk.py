"""Keep rows in a folder: tables of keys and values in an SQLite file, for all threads and processes.

A row is found by the hash in its key. When a row is read that has not been used for a day, the use is noted in a table
of its own, so that rows that are not used any more can be told from the others; reading writes nothing else.

A page holds whole rows, and the space that no further row fits into is lost. Of the sizes that SQLite offers, 32 KiB
alone keeps vectors of 256 to 3,072 dimensions, as float32 and as float16, within 1.4 times their bytes (4 KiB: twice,
at 512 dimensions).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from .._display import data_size
from .._sqlite import BUSY_TIMEOUT, LONGEST, ForeignError, ReplacedError, SQLiteFile, free_bytes, sqlite_error
from ._codec import MAGIC
from ._keys import HASH_BYTES, split_key

T = TypeVar("T")

DATABASE = "cache.db"
VERSION = 3
"""Of the tables. In versions 0 and 1 the rows were in the table of diskcache, whose own files have version 0, too.
Version 2 had neither marks of models nor uses.
"""
PAGE_SIZE = 2**15
PRAGMAS: dict[str, int | str] = {"page_size": PAGE_SIZE, "auto_vacuum": "FULL"}
"""Set in a new file. ``auto_vacuum`` gives the space that pruning frees back to the disk."""
LOG_BYTES = 1_000 * PAGE_SIZE
"""Of SQLite's log, before it is written into the file."""
MOST_KEYS = 500
"""Keys in one SELECT."""
MOST_BYTES = 2**22
"""Of one row that is read: a million numbers."""
UNNOTED = 86_400.0
"""Seconds for which the uses of a row are not noted again."""

VECTORS_V2 = "CREATE TABLE vectors (key BLOB NOT NULL UNIQUE, stored REAL NOT NULL, value BLOB NOT NULL)"
VECTORS = VECTORS_V2[:-1] + ", model BLOB NOT NULL DEFAULT x'')"
"""``key`` is the hash, ``model`` the mark of the model, empty in rows of earlier versions."""
USES = "CREATE TABLE uses (key BLOB PRIMARY KEY, used REAL NOT NULL) WITHOUT ROWID"
SELECT = f"""
SELECT vectors.key, value, MAX(stored, COALESCE(used, 0)) < ? FROM vectors LEFT JOIN uses USING (key)
WHERE vectors.rowid IN (SELECT rowid FROM vectors WHERE key IN ({{}}))
AND typeof(value) = 'blob' AND length(value) <= {MOST_BYTES}
"""
"""By row number, so that the key is read from the row and not from the index: one damaged bit in the index leads to the
row of another text, whose checksum is right."""
UPSERT = """
INSERT INTO vectors (key, stored, value, model) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET stored = excluded.stored, value = excluded.value, model = excluded.model
WHERE vectors.key = excluded.key
"""
"""The condition is false where a damaged index leads to the row of another text, which must stay."""
SETTINGS = "CREATETABLESettings(keyTEXTNOTNULLUNIQUE,value)"
"""How diskcache's first table is made."""
EARLIER = f"""raw = 1 AND mode = 1 AND typeof(key) = 'blob' AND length(key) = {HASH_BYTES}
AND typeof(value) = 'blob' AND substr(value, 1, {len(MAGIC)}) = x'{MAGIC.hex()}'"""
"""Rows of this package in the table of diskcache."""


def cache_file(folder: Path, *, busy_timeout: float = BUSY_TIMEOUT, longest: float = LONGEST) -> SQLiteFile:
    """Return the SQLite file of a cache folder; it is made or migrated when it is first used."""
    return SQLiteFile(
        folder / DATABASE,
        version=VERSION,
        migrate=_migrate,
        pragmas=PRAGMAS,
        busy_timeout=busy_timeout,
        check=_check,
        recognise=_recognise,
        longest=longest,
        stand_in=_stand_in,
    )


class DiskCache:
    """Keeps rows in a folder, for all threads and processes that open it.

    The folder is made, with rights for its owner alone, when it is first read or written. A folder that may only be
    read is read; nothing is made in it.

    Args:
        busy_timeout: seconds to wait for another process that writes. Readers never wait.

    Raises:
        sqlite3.Error: from every method but ``close``: the folder cannot be read or written as a cache.
    """

    def __init__(self, folder: str | Path, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self._file = cache_file(self.folder, busy_timeout=busy_timeout)

    def __repr__(self) -> str:
        return f"DiskCache({str(self.folder)!r})"

    def __reduce__(self) -> tuple[type[DiskCache], tuple[Path]]:
        return DiskCache, (self.folder,)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values that exist, by key."""
        return self._again_if_replaced(lambda: self._read(keys))

    def _again_if_replaced(self, work: Callable[[], T]) -> T:
        """Work with the file; once more where it was removed, replaced, or written while it may only be read here."""
        try:
            return work()
        except ReplacedError:
            self._file.close()
            return work()

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        hashes = [split_key(key)[1] for key in keys]
        found: dict[bytes, bytes] = {}
        idle: list[bytes] = []
        before = time.time() - UNNOTED
        with self._file.reading() as database:
            for start in range(0, len(keys), MOST_KEYS):
                part = hashes[start : start + MOST_KEYS]
                for key, value, is_idle in database.execute(SELECT.format(",".join("?" * len(part))), (before, *part)):
                    found[key] = value
                    if is_idle:
                        idle.append(key)
        if idle:
            self._note_uses(idle)
        return {key: found[name] for key, name in zip(keys, hashes, strict=True) if name in found}

    def _note_uses(self, hashes: Sequence[bytes]) -> None:
        """Note that rows are used, unless another writer is at work or the file cannot be written."""
        with suppress(sqlite3.Error), self._file.writing(busy_timeout=0) as database:
            now = time.time()
            database.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?)", ((key, now) for key in hashes))

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values in one transaction, replacing older ones."""
        self._again_if_replaced(lambda: self._write(values))

    def _write(self, values: Mapping[bytes, bytes]) -> None:
        with self._file.writing() as database:
            now = time.time()
            parts = ((split_key(key), value) for key, value in values.items())
            rows = ((rest, now, value, beginning) for (beginning, rest), value in parts)
            if values and database.executemany(UPSERT, rows).rowcount < len(values):
                raise sqlite_error(sqlite3.SQLITE_CORRUPT, "its index leads to wrong rows")

    def require_room(self, size: int) -> None:
        """Find out by writing whether rows can be kept, and whether so many bytes are free on the disk.

        Raises:
            sqlite3.Error: they cannot be kept.
        """
        self._again_if_replaced(self._try_to_write)
        free = free_bytes(self.folder / DATABASE)
        if size + min(size, LOG_BYTES) > free:
            raise sqlite_error(
                sqlite3.SQLITE_FULL, f"about {data_size(size)} are needed, and {data_size(free)} are free"
            )

    def _try_to_write(self) -> None:
        for statement in ("INSERT OR REPLACE INTO uses VALUES (x'', 0)", "DELETE FROM uses WHERE key = x''"):
            with self._file.writing() as database:
                database.execute(statement)

    def close(self) -> None:
        """Close the database; the next call opens it again."""
        self._file.close()


def _migrate(database: sqlite3.Connection, found: int) -> None:
    """Make the tables, and move the rows into them that earlier versions of this package kept in diskcache's table.

    All else stays: the folder may be a cache of another program, too.
    """
    if found == VERSION - 1:
        _check_tables(database, {"vectors": VECTORS_V2})
        database.execute("ALTER TABLE vectors ADD COLUMN" + VECTORS.removeprefix(VECTORS_V2[:-1])[1:-1])
        database.execute(USES)
        return
    database.execute(VECTORS)
    database.execute(USES)
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache' AND type = 'table'").fetchone():
        database.execute(
            "INSERT OR REPLACE INTO vectors (key, stored, value)"
            f" SELECT key, COALESCE(store_time, 0), value FROM Cache WHERE {EARLIER} ORDER BY store_time, rowid"
        )
        database.execute(f"DELETE FROM Cache WHERE {EARLIER}")
        for table in ("Places", "NewPlaces"):
            database.execute(f"DROP TABLE IF EXISTS {table}")


def _stand_in(database: sqlite3.Connection, found: int) -> None:
    """Show the rows of an earlier version in a file that may only be read, where they cannot be moved."""
    stored, table = ("stored", "vectors") if found == VERSION - 1 else ("COALESCE(store_time, 0)", "Cache")
    rows = f"SELECT rowid AS rowid, key, {stored} AS stored, value, x'' AS model FROM main.{table}"
    database.execute(f"CREATE TEMP VIEW vectors AS {rows}" + ("" if table == "vectors" else f" WHERE {EARLIER}"))
    database.execute("CREATE TEMP TABLE uses (key BLOB PRIMARY KEY, used REAL NOT NULL)")


def _check(database: sqlite3.Connection) -> None:
    """Refuse tables that others have made or changed: a view or a trigger in their place can do anything, for ever."""
    _check_tables(database, {"vectors": VECTORS, "uses": USES})


def _recognise(database: sqlite3.Connection, found: int) -> None:
    if found == VERSION:
        _check(database)
    elif found == VERSION - 1:
        _check_tables(database, {"vectors": VECTORS_V2})
    elif (
        database.execute("SELECT 1 FROM sqlite_master WHERE replace(sql, ' ', '') = ?", (SETTINGS,)).fetchone() is None
    ):
        raise ForeignError("it is another program's")


def _check_tables(database: sqlite3.Connection, tables: Mapping[str, str]) -> None:
    names = "lower(name), lower(tbl_name)"
    for name, sql in tables.items():
        found = database.execute(f"SELECT type, sql FROM sqlite_master WHERE '{name}' IN ({names}) AND sql NOT NULL")
        if found.fetchmany(9) != [("table", sql)]:
            raise ForeignError(f"its table {name} is not embedrouter's own, or has a trigger or an index more")
