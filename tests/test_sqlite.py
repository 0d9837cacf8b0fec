"""One SQLite file for threads and processes: who waits for whom, what errors leave behind, rights, versions, forks."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from embedrouter._sqlite import ReplacedError, SQLiteFile, failure


def create(database: sqlite3.Connection, found: int) -> None:
    """Make the tables of version 2, or bring those of version 1 to it."""
    if found == 0:
        database.execute("CREATE TABLE items (name TEXT)")
    database.execute("ALTER TABLE items ADD COLUMN number INTEGER")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "items.db"


@pytest.fixture
def file(path: Path) -> Iterator[SQLiteFile]:
    opened = SQLiteFile(path, version=2, migrate=create, busy_timeout=0.2)
    yield opened
    opened.close()


def names(file: SQLiteFile) -> list[str]:
    with file.reading() as database:
        return [name for (name,) in database.execute("SELECT name FROM items ORDER BY name")]


def add(file: SQLiteFile, name: str) -> None:
    with file.writing() as database:
        database.execute("INSERT INTO items (name) VALUES (?)", (name,))


def test_the_file_is_made_for_its_owner_alone(file: SQLiteFile, path: Path) -> None:
    """Its folder and the files beside it too; nothing is made before the first use."""
    assert not path.parent.exists()
    add(file, "a")

    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {item.name: item.stat().st_mode & 0o777 for item in path.parent.iterdir()} == {
        "items.db": 0o600,
        "items.db-wal": 0o600,
        "items.db-shm": 0o600,
    }


def test_readers_do_not_wait_for_another_process_that_writes(file: SQLiteFile, path: Path) -> None:
    """Nor does the first opening of a file that has its tables."""
    add(file, "a")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO items (name) VALUES ('b')")
        late = SQLiteFile(path, version=2, migrate=create)
        began = time.monotonic()
        seen = names(file), names(late)
        took = time.monotonic() - began
        late.close()

    assert seen == (["a"], ["a"])
    assert took < 0.2


def test_readers_do_not_wait_for_a_thread_that_writes(file: SQLiteFile) -> None:
    """A thread may wait long for the write lock."""
    add(file, "a")
    with ThreadPoolExecutor(1) as other, file.writing() as database:
        database.execute("INSERT INTO items (name) VALUES ('b')")
        seen_inside = names(file)
        seen = other.submit(names, file).result(timeout=5)

    assert (seen, seen_inside) == (["a"], ["a", "b"])
    assert names(file) == ["a", "b"]


def test_a_reader_cannot_write(file: SQLiteFile) -> None:
    """A write outside of ``writing`` would fail where another process writes."""
    with pytest.raises(sqlite3.OperationalError, match="readonly"), file.reading() as database:
        database.execute("DELETE FROM items")


def test_writers_give_up_after_their_time(file: SQLiteFile, path: Path) -> None:
    """Whether a thread or another process holds the lock; afterwards the file works as before."""
    add(file, "a")
    with ThreadPoolExecutor(1) as other, file.writing():
        by_thread = other.submit(add, file, "b").exception(timeout=5)
    with closing(sqlite3.connect(path, isolation_level=None)) as process:
        process.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as by_process:
            add(file, "c")
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError), file.writing(busy_timeout=0):
            pass
        took = time.monotonic() - began
    add(file, "d")

    assert failure(by_thread) == failure(by_process.value) == "busy"
    assert took < 0.1
    assert names(file) == ["a", "d"]


def test_what_fails_is_undone(file: SQLiteFile) -> None:
    """One transaction inside another is part of it."""

    def fail(error: Exception) -> None:
        with file.writing():
            add(file, "a")
            raise error

    for error in (ZeroDivisionError(), sqlite3.OperationalError("a failure of the disk")):
        with pytest.raises(type(error)):
            fail(error)
    add(file, "c")

    assert names(file) == ["c"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_or_replaced_is_refused_until_it_is_closed(
    file: SQLiteFile, path: Path, replaced: bool
) -> None:
    """What is written must be in the file that all others read."""
    add(file, "a")
    path.unlink()
    if replaced:
        path.touch()
    for use in (lambda: add(file, "b"), lambda: names(file)):
        with pytest.raises(ReplacedError, match="removed or replaced") as error:
            use()
        assert failure(error.value) == "replaced"
    file.close()

    assert names(file) == []


def test_a_damaged_file_is_told_from_a_locked_one(path: Path) -> None:
    """The one helps itself, the other has to be moved away."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, in spite of its name" * 99)
    with pytest.raises(sqlite3.DatabaseError) as error, SQLiteFile(path, version=2, migrate=create).reading():
        pass

    assert failure(error.value) == "damaged"


def test_a_folder_that_cannot_be_made_is_an_error_of_sqlite(tmp_path: Path) -> None:
    """Callers handle one kind of error."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(sqlite3.OperationalError, match="file"),
        SQLiteFile(tmp_path / "file" / "a.db", version=2, migrate=create).writing(),
    ):
        pass


def test_older_tables_are_migrated_and_newer_ones_refused(file: SQLiteFile, path: Path) -> None:
    """A version counts only when its tables are whole."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript("CREATE TABLE items (name TEXT); INSERT INTO items VALUES ('a'); PRAGMA user_version = 1")
    with file.reading() as database:
        assert database.execute("SELECT name, number FROM items").fetchall() == [("a", None)]
    file.close()
    with closing(sqlite3.connect(path)) as new:
        new.execute("PRAGMA user_version = 3")

    with pytest.raises(sqlite3.DatabaseError, match="another version of embedrouter wrote it: 3, not 2"):
        names(file)


def test_pragmas_hold_for_a_new_file(path: Path) -> None:
    """The size of its pages cannot change later."""
    file = SQLiteFile(path, version=2, migrate=create, pragmas={"page_size": 32768})
    with file.reading() as database:
        size = database.execute("PRAGMA page_size").fetchone()[0]
    file.close()

    assert size == 32768


def test_many_open_a_new_file_at_once(path: Path) -> None:
    """SQLite does not wait while it switches to its log, and tables are made once."""
    files = [SQLiteFile(path, version=2, migrate=create) for _ in range(8)]
    with ThreadPoolExecutor(8) as crew:
        list(crew.map(add, files, "abcdefgh"))
    seen = names(files[0])
    for file in files:
        file.close()

    assert seen == list("abcdefgh")
    assert [item.name for item in path.parent.iterdir()] == ["items.db"], "SQLite takes its log away at the end"


def test_tables_in_memory_are_kept_when_the_file_is_closed() -> None:
    """There is nothing to open again."""
    file = SQLiteFile(None, version=2, migrate=create)
    add(file, "a")
    file.close()

    assert names(file) == ["a"]


def test_a_file_that_is_forgotten_is_closed(path: Path) -> None:
    """Python 3.13 warns of connections that are not."""
    file = SQLiteFile(path, version=2, migrate=create)
    add(file, "a")
    names(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del file
        gc.collect()

    assert [item.name for item in path.parent.iterdir()] == ["items.db"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_opens_the_file_anew(path: Path) -> None:
    """A child inherits neither the locks of its parent's threads, which are at work, nor an open file."""
    file = SQLiteFile(path, version=2, migrate=create)
    add(file, "a")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            add(file, "t")
            names(file)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            code = 3  # an exception must not go on into the tests that follow, which are the parent's
            try:
                code = use_in_child(file, path)
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in threads:
        thread.join()

    assert codes == [0] * 5
    assert names(file).count("c") == 5
    file.close()


def use_in_child(file: SQLiteFile, path: Path) -> int:
    links = [item.readlink() for item in Path("/proc/self/fd").iterdir() if item.is_symlink()]
    if any(str(path) in str(link) for link in links):
        return 1
    add(file, "c")
    return 0 if "a" in names(file) else 2
