"""What is made in folders where others may write: for the owner alone, and through no link."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import warnings
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from embedrouter import Budget, Router, stores
from embedrouter.cache import write_once
from embedrouter.cli._files import new_file
from embedrouter.doctor import ProbeRecords
from embedrouter.errors import CacheWarning, ConfigError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.retrieval.index_guard import users_folder
from embedrouter.spending import Ledger
from embedrouter.testing import FakeBackend
from tests.command_line import run
from tests.either import embed


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of somebody's, which all may read."""
    file = tmp_path / "theirs" / "notes.txt"
    file.parent.mkdir()
    file.write_text("mine\n")
    file.chmod(0o644)
    return file


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the rights and the content of every file in a folder."""
    return {
        str(file.relative_to(folder)): (mode(file), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in folder.rglob("*")
        if file.is_file()
    }


def use(folder: Path, asynchronous: bool, *, ledger: Path | None = None, budget: Budget | None = None) -> list[str]:
    """Embed with a cache and a ledger in a folder; return the warnings."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        router = Router([FakeBackend().model(price="1")], cache=folder, ledger=ledger, budget=budget)
        try:
            assert len(embed(router, asynchronous, ["a", "b"], input_type="document")) == 2
        finally:
            router.close()
    return [str(one.message) for one in told]


@pytest.mark.usefixtures("no_umask")
def test_every_folder_that_is_made_is_its_owners_alone(asynchronous: bool, tmp_path: Path) -> None:
    """Each level, whatever the umask: the cache's, the ledger's, those of the records, and those of the user's."""
    use(tmp_path / "a" / "b" / "cache", asynchronous, ledger=tmp_path / "c" / "d" / "e" / "ledger.db")
    RouterEmbeddings(Router([FakeBackend().model()], cache=tmp_path / "f" / "g"), index="one").embed_documents(["a"])
    RouterEmbeddings(Router([FakeBackend().model()], cache=None), index="one").embed_documents(["a"])
    ProbeRecords(tmp_path / "h" / "i" / "probes").write("f", "query", date(2026, 11, 29), "m", np.ones((1, 2), "f4"))
    write_once(tmp_path / "j" / "k" / "l" / "one.json", {"a": 1})
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]

    assert {path.name for path in made} > {"a", "b", "cache", "c", "d", "e", "indexes", "probes", "h", "j", "l"}
    assert {str(path): mode(path) for path in made if mode(path) != 0o700} == {}
    assert {mode(path) for path in tmp_path.rglob("*") if path.is_file()} == {0o600}


def test_a_folder_that_is_there_keeps_its_rights_and_may_be_reached_by_a_link(tmp_path: Path) -> None:
    """It is the user's, who has a larger disk."""
    (tmp_path / "disk").mkdir(mode=0o750)
    (tmp_path / "disk").chmod(0o750)
    (tmp_path / "link").symlink_to(tmp_path / "disk")

    assert use(tmp_path / "link" / "cache", asynchronous=False) == []
    assert mode(tmp_path / "disk") == 0o750
    assert (tmp_path / "disk" / "cache" / "cache.db").stat().st_size


LINKS = ("to nothing", "to a link to nothing", "to an empty file", "to a text", "to itself")


def plant(kind: str, link: Path, victim: Path) -> None:
    """Make a link of one of these kinds."""
    ends = {
        "to nothing": "new.db",
        "to an empty file": "empty",
        "to a text": victim.name,
        "to a link to nothing": "next",
    }
    if kind == "to an empty file":
        (victim.parent / "empty").touch(0o644)
    if kind == "to a link to nothing":
        (victim.parent / "next").symlink_to("new.db")
    link.symlink_to(link if kind == "to itself" else victim.parent / ends[kind])


@pytest.mark.parametrize("kind", LINKS)
def test_a_link_in_the_place_of_the_cache_is_refused(
    kind: str, asynchronous: bool, tmp_path: Path, victim: Path
) -> None:
    """Nothing is made or changed at its end; the call goes on without the cache, and says why."""
    (tmp_path / "shared").mkdir()
    plant(kind, tmp_path / "shared" / "cache.db", victim)
    before = state(victim.parent)
    told = use(tmp_path / "shared", asynchronous, ledger=tmp_path / "ledger.db")

    assert state(victim.parent) == before
    assert told
    assert all("cache" in one for one in told)
    assert kind == "to a text" or any("link" in one or "symbolic" in one for one in told)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["ledger.db", "ledger.db.old"])
def test_a_link_in_the_place_of_the_ledger_is_refused(
    kind: str, name: str, asynchronous: bool, tmp_path: Path, victim: Path
) -> None:
    """Under a budget that is an error before money is spent, otherwise accounts are kept in memory."""
    (tmp_path / "shared").mkdir()
    link = tmp_path / "shared" / name
    plant(kind, link, victim)
    before = state(victim.parent)
    use(tmp_path / "cache", asynchronous, ledger=link)
    with pytest.raises(ConfigError, match="link|symbolic" if kind != "to a text" else "not a database"):
        use(tmp_path / "cache2", asynchronous, ledger=link, budget=Budget(total="1"))

    assert state(victim.parent) == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_link_beside_a_database_is_not_followed(suffix: str, tmp_path: Path, victim: Path) -> None:
    """SQLite's own files have known names, too; and the index of the log is made longer where it was cut."""
    folder = tmp_path / "shared"
    use(folder, asynchronous=False)
    before = state(victim.parent)
    link = folder / f"cache.db{suffix}"
    link.symlink_to(victim)
    use(folder, asynchronous=False)
    link.unlink(missing_ok=True)
    router = Router([FakeBackend().model()], cache=folder, ledger=":memory:")
    router.embed(["a", "d"], input_type="document")
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        router.embed(["a", "e"], input_type="document")
        router.close()

    assert state(victim.parent) == before


def record_index(cache: Path) -> None:
    RouterEmbeddings(Router([FakeBackend().model()], cache=cache, ledger=":memory:"), index="one").embed_documents(
        ["a"]
    )


def record_probe(cache: Path) -> None:
    records = ProbeRecords(cache / "probes")
    records.write("f", "query", date(2026, 11, 29), "m", np.ones((1, 2), "f4"))
    assert records.read("f", "query", (1, 2))


@pytest.mark.parametrize("kind", ["index", "probe"])
def test_a_link_in_the_place_of_the_folder_of_records_is_refused(kind: str, tmp_path: Path, victim: Path) -> None:
    """Nothing is made at its end, and no guard is off without a word."""
    shared = tmp_path / "shared"
    for link in (users_folder(), shared / "indexes") if kind == "index" else (shared / "probes",):
        link.parent.mkdir(parents=True)
        link.symlink_to(victim.parent)
    before = state(victim.parent)
    with pytest.raises((ConfigError, OSError), match="link"):
        (record_index if kind == "index" else record_probe)(shared)

    assert state(victim.parent) == before


@pytest.mark.parametrize("end", ["new.json", "notes.txt"])
def test_a_link_in_the_place_of_a_record_is_refused(end: str, tmp_path: Path, victim: Path) -> None:
    """Of an index; the file that a process writes before has a name that nobody can foresee."""
    for folder in (users_folder(), tmp_path / "shared" / "indexes"):
        folder.mkdir(parents=True)
        (folder / "one.json").symlink_to(victim.parent / end)
    before = state(victim.parent)
    with pytest.raises((ConfigError, OSError), match=r"link|cannot be read"):
        record_index(tmp_path / "shared")

    assert state(victim.parent) == before


def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path: Path) -> None:
    """Nobody writes into it: where earlier versions kept the record of an index, and of a probe."""
    for folder in ("indexes", "probes"):
        (tmp_path / folder).mkdir()
    os.mkfifo(tmp_path / "indexes" / "one.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        record_index(tmp_path)
    record_probe(tmp_path)
    [path] = (tmp_path / "probes").iterdir()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        ProbeRecords(tmp_path / "probes").read("f", "query", (1, 2))


def test_the_mark_of_a_stores_folder_is_made_through_no_link(tmp_path: Path, victim: Path) -> None:
    """Nor is a new folder; one that is there may be reached by a link, because it is the store's."""
    router = Router([FakeBackend().model()], cache=None)
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    stores.guard(tmp_path / "link", router)
    assert (tmp_path / "store" / "embedrouter.json").is_file()
    (tmp_path / "dangling").symlink_to(victim.parent / "new")
    (tmp_path / "marked").mkdir()
    (tmp_path / "marked" / "embedrouter.json").symlink_to(victim.parent / "new.json")
    before = state(victim.parent)
    for folder in ("dangling", "marked"):
        with pytest.raises(ConfigError, match="link"):
            stores.guard(tmp_path / folder, router, adopt="unchecked")

    assert state(victim.parent) == before
    assert not (victim.parent / "new").exists()


def test_a_probe_replaces_a_link_and_not_its_end(tmp_path: Path, victim: Path) -> None:
    """A record that is written again."""
    records = ProbeRecords(tmp_path / "probes")
    records.write("f", "query", date(2026, 11, 28), "m", np.ones((1, 2), "f4"))
    [path] = (tmp_path / "probes").iterdir()
    path.unlink()
    path.symlink_to(victim)
    before = state(victim.parent)
    records.write("f", "query", date(2026, 11, 29), "m", np.ones((1, 2), "f4"))

    assert state(victim.parent) == before
    assert not path.is_symlink()
    assert [file.name for file in (tmp_path / "probes").iterdir()] == [path.name]
    assert json.loads(path.read_text())["day"] == "2026-11-29"


@pytest.mark.parametrize("place", [".part-rows.jsonl", "rows.jsonl"])
def test_an_export_is_written_through_no_link(place: str, tmp_path: Path, victim: Path) -> None:
    """Neither at the name of the file nor at the one that it has while it is written."""
    use(tmp_path / "cache", asynchronous=False)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / place).symlink_to(victim if place.startswith(".") else victim.parent / "new")
    before = state(victim.parent)
    done = run("cache", "export", shared / "rows.jsonl", "--cache", tmp_path / "cache")

    assert done.returncode == 0, done.stderr
    assert state(victim.parent) == before
    assert (shared / "rows.jsonl").read_text().count("\n") == 3
    assert [file.name for file in shared.iterdir()] == ["rows.jsonl"]
    with pytest.raises(ConfigError, match="exists already"), new_file(shared / "rows.jsonl"):
        pass


# Databases of other programs

THEIRS = {
    "tables": "CREATE TABLE notes (body TEXT); INSERT INTO notes VALUES ('mine')",
    "a table of our name": "CREATE TABLE vectors (id INTEGER); CREATE TABLE requests (url TEXT, method TEXT)",
    "a table of diskcache's name": "CREATE TABLE Settings (name TEXT, value TEXT); CREATE TABLE Cache (url TEXT)",
    "our version": "PRAGMA user_version = 3; CREATE TABLE notes (body TEXT); INSERT INTO notes VALUES ('mine')",
    "version 1": "PRAGMA user_version = 1; CREATE TABLE requests (url TEXT)",
    "version 2": "PRAGMA user_version = 2; CREATE TABLE vectors (key BLOB, value BLOB)",
    "a later version": "PRAGMA user_version = 4; CREATE TABLE notes (body TEXT)",
    "a view": "CREATE VIEW vectors AS SELECT 1",
}


@pytest.mark.slow
@pytest.mark.parametrize("journal", ["DELETE", "WAL", "WAL, in use"])
@pytest.mark.parametrize("kind", THEIRS)
def test_a_database_of_another_program_stays_as_it_is(kind: str, journal: str, tmp_path: Path) -> None:
    """Its journal, too: no byte is changed and no file is left beside it."""
    folder = tmp_path / "shared"
    folder.mkdir()
    theirs = [sqlite3.connect(folder / name, isolation_level=None) for name in ("cache.db", "ledger.db")]
    for database in theirs:
        database.executescript(f"PRAGMA journal_mode = {journal.partition(',')[0]}; {THEIRS[kind]}")
        if "in use" not in journal:
            database.close()
    before = untouched(folder)
    told = use(folder, asynchronous=journal == "WAL")
    for required in (True, False):
        with closing(Ledger(folder / "ledger.db", required=required)) as ledger, suppress(ConfigError):
            assert ledger.totals("day") == {}
            assert not required
    for command in (["cache", "info"], ["cache", "verify"], ["stats"], ["ledger", "show"]):
        run(*command, "--cache", folder)
    after = untouched(folder)
    for database in theirs:
        database.close()

    assert any("cache" in one and ("program" in one or "version" in one or "own" in one) for one in told)
    assert after == before


def untouched(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the state of a folder, without the marks of those who read."""
    return {name: facts for name, facts in state(folder).items() if not name.endswith("-shm")}


def test_a_ledger_that_is_one_is_still_opened(tmp_path: Path) -> None:
    """Also while another process has it open, and after one was killed."""
    for _ in range(2):
        with closing(Ledger(tmp_path / "ledger.db", required=True)) as ledger:
            assert ledger.totals("day") == {}
            with closing(Ledger(tmp_path / "ledger.db", required=True)) as other:
                assert other.totals("day") == {}
