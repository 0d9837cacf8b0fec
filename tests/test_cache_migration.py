"""Folders of earlier versions: every row is found, and is from then on in the table of this version."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from embedrouter.cache import CacheDatabase, VectorCache, open_cache
from embedrouter.cache._codec import encode
from embedrouter.cache._keys import HASH_BYTES
from tests.cache_folders import DIMENSIONS, KEYS, assert_complete, entry, right

FIRST_TABLE = """
CREATE TABLE Settings (key TEXT NOT NULL UNIQUE, value);
CREATE INDEX Cache_expire_time ON Settings (key) WHERE key IS NULL;
CREATE INDEX Cache_key_raw ON Settings (key) WHERE key IS NULL;
CREATE TRIGGER Settings_count_insert AFTER DELETE ON Settings WHEN 0 BEGIN SELECT 0; END;
CREATE TRIGGER Settings_count_delete AFTER DELETE ON Settings WHEN 0 BEGIN SELECT 0; END;
CREATE TRIGGER Settings_size_insert AFTER DELETE ON Settings WHEN 0 BEGIN SELECT 0; END;
CREATE TRIGGER Settings_size_update AFTER DELETE ON Settings WHEN 0 BEGIN SELECT 0; END;
CREATE TRIGGER Settings_size_delete AFTER DELETE ON Settings WHEN 0 BEGIN SELECT 0; END;
"""
OTHER_TABLES = """
INSERT INTO Settings VALUES
    ('statistics', 0), ('tag_index', 0), ('eviction_policy', 'none'), ('size_limit', 1073741824), ('cull_limit', 0),
    ('sqlite_auto_vacuum', 1), ('sqlite_cache_size', 8192), ('sqlite_journal_mode', 'wal'),
    ('sqlite_mmap_size', 67108864), ('sqlite_synchronous', 1), ('disk_min_file_size', 67108864),
    ('disk_pickle_protocol', 5), ('count', 0), ('size', 0), ('hits', 0), ('misses', 0);
CREATE TABLE Cache ( rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL, expire_time REAL,
    access_time REAL, access_count INTEGER DEFAULT 0, tag BLOB, size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0,
    filename TEXT, value BLOB);
CREATE TABLE Places (hash INTEGER PRIMARY KEY, row INTEGER NOT NULL);
CREATE TABLE NewPlaces (hash INTEGER PRIMARY KEY, row INTEGER NOT NULL);
"""
INSERT = "INSERT INTO Cache (rowid, key, raw, store_time, access_time, mode, value) VALUES (?, ?, 1, ?, ?, 1, ?)"
SPLIT = 40
"""Rows up to here have their place in the large table."""


def old_folder(folder: Path, *, tables: str = FIRST_TABLE + OTHER_TABLES) -> Path:
    """Make a folder as the version before the first release made it: two tables of places instead of an index."""
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as database:
        for pragma in ("page_size = 32768", "auto_vacuum = FULL", "journal_mode = WAL"):
            database.execute(f"PRAGMA {pragma}")
        database.executescript(tables)
        for row, key in enumerate(KEYS, 1) if OTHER_TABLES in tables else ():
            database.execute(INSERT, (row, key[-HASH_BYTES:], 1000.0 + row, 1000.0 + row, encode(entry(key))))
            place = int.from_bytes(key[-8:], "little", signed=True)
            database.execute(f"INSERT INTO {'Places' if row <= SPLIT else 'NewPlaces'} VALUES (?, ?)", (place, row))
    return folder


def all_found(folder: Path) -> bool:
    with closing(VectorCache(open_cache(folder))) as cache:
        found = cache.read(KEYS, DIMENSIONS)
        return found.keys() == set(KEYS) and right(found) and not cache.failures


def test_all_rows_are_found_and_others_are_written_beside_them(tmp_path: Path) -> None:
    """In one table; what was beside diskcache's index is gone."""
    folder = old_folder(tmp_path / "cache")
    assert all_found(folder)
    assert_complete(folder)
    with closing(VectorCache(open_cache(folder))) as cache:
        assert cache.write({KEYS[0]: entry(KEYS[0]), b"new": entry(KEYS[1])})
        assert cache.read([b"new"], DIMENSIONS).keys() == {b"new"}

    assert all_found(folder)
    assert_complete(folder, len(KEYS) + 1)


def test_a_folder_that_is_first_written_is_migrated_too(tmp_path: Path) -> None:
    """Rows that exist are replaced, not doubled."""
    folder = old_folder(tmp_path / "cache")
    with closing(VectorCache(open_cache(folder))) as cache:
        assert cache.write({key: entry(key) for key in KEYS})

    assert_complete(folder)
    assert all_found(folder)


def test_of_several_rows_of_a_key_the_newest_is_kept(tmp_path: Path) -> None:
    """A place that was lost, as by a damaged page, led to a second row."""
    folder = old_folder(tmp_path / "cache")
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as database:
        older, newer = encode(entry(KEYS[5])), encode(entry(KEYS[1]))
        database.execute("UPDATE Cache SET value = ? WHERE key = ?", (older, KEYS[1][-HASH_BYTES:]))
        database.execute(INSERT, (100, KEYS[1][-HASH_BYTES:], 2000.0, 2000.0, newer))
        database.execute(INSERT, (101, KEYS[2][-HASH_BYTES:], 10.0, 10.0, older))

    assert all_found(folder)
    assert_complete(folder)


def test_a_folder_whose_making_was_interrupted_is_made(tmp_path: Path) -> None:
    """The earlier version was killed after its first table."""
    folder = old_folder(tmp_path / "cache", tables=FIRST_TABLE)
    with closing(VectorCache(open_cache(folder))) as cache:
        assert cache.read(KEYS, DIMENSIONS) == {}
        assert cache.write({key: entry(key) for key in KEYS})

    assert_complete(folder)


def test_the_command_line_may_be_the_first_to_open_it(tmp_path: Path) -> None:
    """What it leaves is found."""
    folder = old_folder(tmp_path / "cache")
    database = CacheDatabase(folder)

    assert database.sizes() == {"": (len(KEYS), len(KEYS) * len(encode(entry(KEYS[0]))))}
    assert all(row.sound for row in database.rows())
    assert database.remove(list(database.rows())[:20]) == 20
    with closing(VectorCache(open_cache(folder))) as cache:
        assert cache.read(KEYS, DIMENSIONS).keys() == set(KEYS[20:])
    assert_complete(folder, len(KEYS) - 20)


OPEN = """
import sys
from pathlib import Path
from contextlib import closing
from embedrouter.cache import VectorCache, open_cache
from tests.cache_folders import DIMENSIONS, KEYS, entry, right
print("ready", flush=True)
sys.stdin.readline()
with closing(VectorCache(open_cache(Path(sys.argv[1])))) as cache:
    found = cache.read(KEYS, DIMENSIONS)
    assert found.keys() == set(KEYS) and right(found), len(found)
    assert cache.write({key: entry(key) for key in KEYS[::2]})
    assert not cache.failures
"""


@pytest.mark.slow
def test_several_processes_may_open_it_at_once(tmp_path: Path) -> None:
    """One migrates, the others wait or find it done."""
    folder = old_folder(tmp_path / "cache")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers: list[Any] = [subprocess.Popen([sys.executable, "-c", OPEN, str(folder)], **pipes) for _ in range(3)]
    for worker in workers:
        worker.stdout.readline()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)

    assert [worker.returncode for worker in workers] == [0] * 3
    assert_complete(folder)


def killed_at(statement: int, folder: Path) -> bool:
    """Open a folder in a child that is killed before its n-th statement; return whether it came so far."""

    class Connection(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            nonlocal statement
            statement -= 1
            if not statement:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*arguments)

    child = os.fork()
    if not child:
        connect = sqlite3.connect
        sqlite3.connect = lambda *names, **settings: connect(*names, factory=Connection, **settings)  # type: ignore
        open_cache(folder).get_many(KEYS)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_is_killed_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """Whichever statement was its last: the next process finds all rows and ends what was begun."""
    whole = old_folder(tmp_path / "whole")
    statement = 1
    while killed_at(statement, shutil.copytree(whole, tmp_path / str(statement))):
        assert all_found(tmp_path / str(statement))
        assert_complete(tmp_path / str(statement))
        statement += 1 if statement < 32 else 15

    assert statement > 15
