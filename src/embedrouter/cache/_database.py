"""Open the SQLite file of a cache folder, and migrate files of earlier versions.

diskcache makes the tables when it first opens the file. The size of the pages cannot be changed after that, so it is
set here: a page holds whole rows, and the space that no further row fits into is lost. Of the sizes that SQLite offers,
32 KiB alone keeps vectors of 256 to 3,072 dimensions, as float32 and as float16, within 1.4 times their bytes (4 KiB:
twice, at 512 dimensions).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from .._sqlite import SQLiteFile

DATABASE = "cache.db"
"""diskcache's name for its file."""
VERSION = 1
"""Version 0 are files of diskcache itself, which need no change, and files of embedrouter that are migrated."""
PRAGMAS: dict[str, int | str] = {"page_size": 2**15, "auto_vacuum": "FULL"}
"""Pages of 32 KiB. Space that pruning frees is given back to the disk, as in diskcache's own files."""

OLD_TABLES = ("Places", "NewPlaces")
"""Used in version 0 in place of diskcache's index."""


def cache_file(folder: Path, *, busy_timeout: float) -> SQLiteFile:
    """Return the SQLite file of a cache folder; it is made or migrated when it is first used."""
    return SQLiteFile(folder / DATABASE, version=VERSION, migrate=_migrate, pragmas=PRAGMAS, busy_timeout=busy_timeout)


def _migrate(connection: sqlite3.Connection, _: int) -> None:
    """Remove what earlier versions of embedrouter put in the place of diskcache's index and triggers.

    Idle triggers and indexes on ``Settings`` had the names of diskcache's, so that diskcache left its own out. Now
    diskcache makes its own when it next opens the file. Its index allows one row for each key, and its triggers count
    on from the figures in ``Settings``.
    """
    idle = connection.execute(
        "SELECT type, name FROM sqlite_master"
        " WHERE tbl_name = 'Settings' AND type IN ('index', 'trigger') AND sql IS NOT NULL"
    ).fetchall()
    for kind, name in idle:
        connection.execute(f'DROP {kind} "{name}"')
    for table in OLD_TABLES:
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "Cache" in names and "Cache_key_raw" not in names:
        connection.execute(
            "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM (SELECT rowid, ROW_NUMBER() OVER"
            " (PARTITION BY key, raw ORDER BY store_time DESC, rowid DESC) AS age FROM Cache) WHERE age > 1)"
        )
        connection.execute("INSERT OR REPLACE INTO Settings SELECT 'count', COUNT(*) FROM Cache")
        connection.execute("INSERT OR REPLACE INTO Settings SELECT 'size', COALESCE(SUM(size), 0) FROM Cache")
