"""Folders that may only be read are read: hits are hits, and what cannot be kept is told once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from embedrouter import Budget, Router
from embedrouter.cache import CacheDatabase, VectorCache, open_cache
from embedrouter.errors import CacheWarning, ConfigError
from embedrouter.events import CacheFailed, Event, LedgerFailed
from embedrouter.spending import Ledger
from embedrouter.testing import FakeBackend
from tests import command_line
from tests.cache_folders import DIMENSIONS, KEYS, entry, fill, right
from tests.either import embed
from tests.read_only import fill_up, read_only, small_disk
from tests.test_cache_migration import all_found, old_folder

HALF = KEYS[:30]


def fill_half(folder: Path) -> None:
    with closing(VectorCache(open_cache(folder))) as cache:
        assert cache.write({key: entry(key) for key in HALF})


def found_in(folder: Path) -> int:
    """Return how many of the keys are found; each has its own vector."""
    with closing(VectorCache(open_cache(folder))) as cache:
        found = cache.read(KEYS, DIMENSIONS)
        assert right(found)
        assert not cache.failures
    return len(found)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def as_a_version_2(folder: Path) -> Iterator[Path]:
    """Take from a folder what version 3 added."""
    fill(folder)
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as database:
        rows = database.execute("SELECT key, stored, value FROM vectors").fetchall()
        database.execute("DROP TABLE vectors")
        database.execute("DROP TABLE uses")
        database.execute("CREATE TABLE vectors (key BLOB NOT NULL UNIQUE, stored REAL NOT NULL, value BLOB NOT NULL)")
        database.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)
        database.execute("PRAGMA user_version = 2")
    with read_only(folder) as place:
        yield place


def test_hits_are_hits_misses_are_embedded_and_what_is_lost_is_told_once(asynchronous: bool, tmp_path: Path) -> None:
    """Nothing is made in the folder; the event and the warning end with what to do."""
    fake, events = FakeBackend(), list[Event]()
    with Router([fake.model(price="1")], cache=tmp_path / "cache") as before:
        expected = before.embed(["a", "b"], input_type="document")

    with read_only(tmp_path / "cache") as folder, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        there = names(folder)
        router = Router([fake.model(price="1")], cache=folder, ledger=":memory:", on_event=events.append)
        results = [embed(router, asynchronous, ["a", "b", text], input_type="document") for text in ("c", "d")]
        router.close()
        assert names(folder) == there

    assert [list(result.cached) for result in results] == [[True, True, False]] * 2
    assert results[0].vectors[:2].tobytes() == expected.vectors.tobytes()
    (event,) = [event for event in events if isinstance(event, CacheFailed)]
    assert event.action == "written"
    assert [one.category for one in told] == [CacheWarning]
    assert str(told[0].message).endswith("or copy the folder, and name the copy: cache=….")


def test_what_another_process_writes_meanwhile_is_read(tmp_path: Path) -> None:
    """The folder is mounted for reading here, and written there: before, while and after the writer has it open."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "cache"
    fill_half(folder)
    with read_only(folder) as place, closing(VectorCache(open_cache(place))) as reader:
        assert len(reader.read(KEYS, DIMENSIONS)) == 30
        with closing(VectorCache(open_cache(folder))) as writer:
            for number in range(30, 60):
                key = KEYS[number]
                assert writer.write({key: entry(key)})
                assert len(reader.read(KEYS, DIMENSIONS)) == number + 1
            assert (place / "cache.db-wal").stat().st_size
        assert right(reader.read(KEYS, DIMENSIONS))
        with closing(VectorCache(open_cache(place))) as other:
            assert len(other.read(KEYS, DIMENSIONS)) == 60
        assert not reader.failures


@pytest.mark.parametrize("index", [True, False])
def test_a_copy_of_a_folder_in_use_is_read_with_its_log(index: bool, tmp_path: Path) -> None:
    """An image is made while a process writes: rows are in the log, with and without SQLite's index of the log."""
    folder, copy = tmp_path / "cache", tmp_path / "copy"
    copy.mkdir()
    with closing(VectorCache(open_cache(folder))) as writer:
        assert writer.write({key: entry(key) for key in KEYS})
        for suffix in ("", "-wal", "-shm") if index else ("", "-wal"):
            shutil.copy(folder / f"cache.db{suffix}", copy)
    with read_only(copy) as place:
        before = names(place)
        assert found_in(place) == 60
        assert names(place) == before


def test_folders_of_earlier_versions_are_read_where_they_cannot_be_migrated(tmp_path: Path) -> None:
    """By the router, and by the commands of maintenance."""
    with read_only(old_folder(tmp_path / "first")) as place:
        assert all_found(place)
        assert sum(row.sound for row in CacheDatabase(place).rows()) == 60
    with as_a_version_2(tmp_path / "second") as place:
        assert found_in(place) == 60
        assert CacheDatabase(place).sizes()[""][0] == 60


def test_commands_that_read_work_and_commands_that_write_say_so(tmp_path: Path) -> None:
    folder, file = tmp_path / "cache", tmp_path / "rows.jsonl"
    fill(folder)
    with read_only(folder) as place:
        for command in (["info"], ["verify"], ["export", file]):
            done = command_line.run("cache", *command, "--cache", place)
            assert done.returncode == 0, done.stderr
            assert "60" in done.stdout
        for command in (["prune", "--older-than", "0", "--yes"], ["verify", "--remove"], ["import", file]):
            done = command_line.run("cache", *command, "--cache", place)
            assert done.returncode == 1
            assert "may only be read" in done.stderr
            assert done.stderr.count("\n") < 3


def test_a_ledger_that_may_only_be_read_is_read_and_told(asynchronous: bool, tmp_path: Path) -> None:
    """Its totals are shown; what is booked waits in memory; under a budget nothing is spent."""
    folder, events = tmp_path / "cache", list[Event]()
    with Router([FakeBackend().model(price="1")], cache=folder) as before:
        before.embed(["a"], input_type="document")
        spent = before.ledger.totals("month")
    with read_only(folder) as place:
        with closing(Ledger(place / "ledger.db")) as ledger:
            assert ledger.totals("month") == spent
        fake = FakeBackend()
        router = Router([fake.model(price="1")], cache=None, ledger=place / "ledger.db", on_event=events.append)
        embed(router, asynchronous, ["b"], input_type="document")
        router.close()
        budget = Budget(per_day="1")
        capped = Router([fake.model(price="1")], cache=None, ledger=place / "ledger.db", budget=budget)
        with pytest.raises(ConfigError, match="may only be read"):
            embed(capped, asynchronous, ["c"], input_type="document")
        capped.close()

    assert [type(event) for event in events].count(LedgerFailed) == 1
    assert [call.texts for call in fake.calls] == [("b",)]


def test_a_ledger_of_an_earlier_version_is_read_in_a_copy(tmp_path: Path) -> None:
    from embedrouter.spending import _schema

    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as database:
        for statement in _schema.REQUESTS:
            database.execute(statement)
        database.execute(
            "INSERT INTO requests VALUES (1, 1000, '1970-01-01', 'settled', 'a:b', 'document', 'high', '', 1, 7, 5, 1,"
            " 1000, 0)"
        )
        database.execute("PRAGMA user_version = 1")
    (tmp_path / "folder").mkdir()
    shutil.move(tmp_path / "ledger.db", tmp_path / "folder")
    with read_only(tmp_path / "folder") as place, closing(Ledger(place / "ledger.db")) as ledger:
        assert ledger.totals("model")["a:b"].tokens == 7


def test_the_cache_of_a_full_disk_is_read(tmp_path: Path) -> None:
    """SQLite cannot make the index of its log there."""
    with small_disk(tmp_path / "disk", "2m") as disk:
        fill_half(disk / "cache")
        fill_up(disk)
        assert found_in(disk / "cache") == 30
        (disk / "rest").unlink()
        fill(disk / "cache")
        assert found_in(disk / "cache") == 60


def test_a_file_that_must_not_change_is_read(tmp_path: Path) -> None:
    """``chattr +i`` binds root, too."""
    folder = tmp_path / "cache"
    fill(folder)
    try:
        done = subprocess.run(["chattr", "+i", folder / "cache.db"], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no chattr here: {error}")
    if done.returncode:
        pytest.skip(f"chattr is not permitted here: {done.stderr.strip()}")
    try:
        assert found_in(folder) == 60
        assert names(folder) == ["cache.db"]
    finally:
        subprocess.run(["chattr", "-i", folder / "cache.db"], check=True)
