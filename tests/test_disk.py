"""Disks that fail, folders that others wrote, processes that die or fork: an error or a miss, never a wrong vector."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
import pytest

from embedrouter import Budget, Router
from embedrouter.cache import VectorCache, is_sound
from embedrouter.cache._codec import VERSION, decode, encode, is_newer
from embedrouter.cache._disk import DiskCache
from embedrouter.cache._keys import HASH_BYTES, KEY_BYTES
from embedrouter.errors import CacheWarning, ConfigError, LedgerError
from embedrouter.spending import Ledger
from embedrouter.spending._keeping import FLUSH_INTERVAL
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Entry
from tests.cache_folders import KEYS, assert_complete, entry, fill, right
from tests.emulator import Emulator
from tests.hammer import Process, spending

TEXTS = ["a", "b", "c"]
ROOT = "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_vectors_1'"
"""The page where the index of keys begins."""


def answers(router: Router, times: int = 1) -> None:
    """Check that a router answers as one without a cache does."""
    fake = FakeBackend()
    with Router([fake.model()], cache=None) as other:
        expected = other.embed(TEXTS, input_type="document").vectors

    for _ in range(times):
        assert np.array_equal(router.embed(TEXTS, input_type="document").vectors, expected)


def reserved(ledger: Ledger, amount: str = "0.10") -> int:
    reservation = ledger.reserve(Budget(total="1"), spending(amount))
    assert isinstance(reservation, int)
    return reservation


def booked(ledger: Ledger) -> int:
    """Set money aside without a budget."""
    reservation = ledger.reserve(Budget(), spending("0.10"))
    assert isinstance(reservation, int)
    return reservation


def spent(file: Path) -> Decimal:
    with closing(Ledger(file)) as ledger:
        return sum((account.cost for account in ledger.totals("day").values()), Decimal(0))


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting needs rights")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def stuff(disk: Path) -> None:
    """Leave no byte."""
    with (disk / "stuff").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


# The cache


def test_a_full_disk_fails_no_call_and_is_told_once(full: Path) -> None:
    """What was written before is still found, and when there is room again all is kept again."""
    fake = FakeBackend(dimensions=1536)
    router = Router([fake.model()], cache=full / "cache", ledger=":memory:")
    router.embed(["before"], input_type="document")
    stuff(full)
    with pytest.warns(CacheWarning, match=r"could not be written.*not kept. Free space") as told:
        answered = [
            len(router.embed([f"{number} {text}" for text in range(100)], input_type="document")) for number in range(4)
        ]
    found = router.embed(["before"], input_type="document").cached
    lost = [router.embed([f"{number} 99"], input_type="document").cached for number in range(4)]
    (full / "stuff").unlink()
    router.embed(["after"], input_type="document")
    again = router.embed(["after"], input_type="document").cached
    router.close()

    assert answered == [100] * 4
    assert len(told) == 1, [str(one.message) for one in told]
    assert lost == [(False,)] * 4
    assert (found, again) == ((True,), (True,))


def test_a_file_that_may_not_grow_fails_no_call(tmp_path: Path) -> None:
    """A quota gives another error than a full disk."""
    store = DiskCache(tmp_path / "cache")
    cache = VectorCache(store)
    cache.write({KEYS[0]: entry(KEYS[0])})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.warns(CacheWarning):
            kept = cache.write({key: entry(key) for key in KEYS})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    found = cache.read(KEYS, 1536)

    assert not kept
    assert list(found) == [KEYS[0]]
    assert cache.write({key: entry(key) for key in KEYS})
    store.close()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_path_that_is_a_file_is_a_wrong_setting(place: str, tmp_path: Path) -> None:
    """It will be no folder later; the message names the folder that is there."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"is a file, not a folder\. Write cache=") as caught:
        Router([FakeBackend().model()], cache=tmp_path / place)

    assert str(caught.value).endswith(f"Write cache={str(tmp_path)!r}.")


@pytest.mark.parametrize("place", ["/proc/cache", "/dev/null/cache"])
def test_a_folder_that_cannot_be_made_fails_no_call(place: str, tmp_path: Path) -> None:
    """Reading and writing are two causes."""
    router = Router([FakeBackend().model()], cache=tmp_path / place, ledger=":memory:")
    with pytest.warns(CacheWarning, match="Give the right to read and write it") as told:
        answers(router, times=2)
    router.close()

    assert len(told) == 2


READ_ONLY = """
import os, sys, warnings
from pathlib import Path
from embedrouter import Router
from embedrouter.testing import FakeBackend
router, other = [Router([FakeBackend().model()], cache=Path(name), ledger=":memory:") for name in sys.argv[1:]]
other.embed(["a"], input_type="document")  # imports, perhaps from where only the owner may read
os.setgid(65534)
os.setuid(65534)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    router.embed(["a"], input_type="document")
print([str(one.message) for one in told])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("mode", "told"), [(0o555, ["written"]), (0o000, ["read", "written"])])
def test_a_folder_that_is_read_only_fails_no_call(mode: int, told: list[str]) -> None:
    """For whom rights are binding. What may be read is read."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "cache"
        fill(folder)
        (folder / "cache.db").chmod(0o444)
        folder.chmod(mode)
        names = [str(folder), str(Path(place) / "other")]
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, *names], capture_output=True, text=True, check=True, timeout=30
        )

    assert done.stdout.count(f"The cache {folder}") == len(told)
    assert all(f"could not be {action}" in done.stdout for action in told)


def test_the_folder_and_its_files_are_its_owners_alone(tmp_path: Path) -> None:
    """Cache and ledger; vectors can be turned back into text, roughly."""
    router = Router([FakeBackend().model(price="1")], cache=tmp_path / "new" / "cache")
    router.embed(["a"], input_type="document")
    items = list((tmp_path / "new" / "cache").rglob("*"))
    modes = {item.name: item.stat().st_mode & 0o777 for item in items if item.is_file()}
    folders = {item.stat().st_mode & 0o777 for item in (tmp_path / "new" / "cache", *items) if item.is_dir()}
    router.close()

    assert folders == {0o700}
    assert {"cache.db", "cache.db-wal", "ledger.db", "ledger.db-wal"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_folder_that_the_user_made_keeps_its_rights(tmp_path: Path) -> None:
    """They had their reasons."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o755)
    fill(tmp_path / "own")

    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "own" / "cache.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", ["nothing", "a file without a byte"])
def test_a_folder_that_was_not_made_to_the_end_is_made(left: str, tmp_path: Path) -> None:
    """The process that made it was killed: pages, rights and tables are those of a new folder."""
    if left == "a file without a byte":
        (tmp_path / "cache.db").touch()
    fill(tmp_path)

    assert (tmp_path / "cache.db").stat().st_mode & 0o777 == 0o600
    assert_complete(tmp_path)
    with closing(sqlite3.connect(tmp_path / "cache.db")) as database:
        assert database.execute("PRAGMA page_size").fetchone() == (32_768,)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("dimensions", [256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072])
def test_a_vector_takes_at_most_1_4_times_its_bytes(dimensions: int, dtype: str, tmp_path: Path) -> None:
    """Pages decide: of 4 KiB they hold one vector of 512 dimensions, and half of each is lost."""
    size = dimensions * np.dtype(dtype).itemsize
    rows = 2**23 // size
    vector = Entry(np.ones(dimensions, np.float32), 7)
    keys = [blake2b(number.to_bytes(4, "big"), digest_size=KEY_BYTES).digest() for number in range(rows)]
    cache = VectorCache(DiskCache(tmp_path), dtype)
    cache.write(dict.fromkeys(keys, vector))
    cache.close()

    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1.4 * rows * size


def test_a_folder_of_diskcache_itself_keeps_the_rows_of_others(tmp_path: Path) -> None:
    """It may be the cache of another program, with settings of its own."""
    theirs: Any
    with diskcache.Cache(str(tmp_path)) as theirs:
        theirs["text"] = ["pickled"]
        theirs[KEYS[0][-HASH_BYTES:]] = encode(entry(KEYS[0]))
    cache = VectorCache(DiskCache(tmp_path))
    first = cache.read(KEYS, 1536)
    fill(tmp_path)
    found = cache.read(KEYS, 1536)
    cache.close()

    assert list(first) == KEYS[:1]
    assert len(found) == len(KEYS)
    assert right(found)
    with diskcache.Cache(str(tmp_path)) as theirs:
        assert theirs["text"] == ["pickled"]
        assert theirs.eviction_policy == "least-recently-stored"
        assert len(theirs) == 1


def test_a_store_that_wraps_or_extends_a_folder_is_used_through_its_own_methods(tmp_path: Path) -> None:
    """It may encrypt what it stores."""

    class Wrapping:
        def __init__(self) -> None:
            self.inner = DiskCache(tmp_path)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    class Extending(DiskCache):
        pass

    fill(tmp_path)
    stores: tuple[Any, ...] = (Wrapping(), Extending(tmp_path))
    for store in stores:
        cache = VectorCache(store)
        assert right(cache.read(KEYS, 1536))
        cache.close()


def test_a_folder_that_is_removed_in_use_is_made_anew(tmp_path: Path) -> None:
    """What is written to a file without a name would be lost."""
    cache = VectorCache(DiskCache(tmp_path / "cache"))
    cache.write({KEYS[0]: entry(KEYS[0])})
    shutil.rmtree(tmp_path / "cache")
    cache.write({KEYS[1]: entry(KEYS[1])})
    cache.close()

    assert list(VectorCache(DiskCache(tmp_path / "cache")).read(KEYS, 1536)) == [KEYS[1]]


@pytest.mark.parametrize("damage", [b"no database at all, but text" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_folder_that_is_no_cache_any_more_is_told_and_left_alone(damage: bytes, tmp_path: Path) -> None:
    """Nothing is removed: somebody may be able to save it."""
    (tmp_path / "cache.db").write_bytes(damage)
    router = Router([FakeBackend().model()], cache=tmp_path, ledger=":memory:")
    with pytest.warns(CacheWarning, match="embedrouter cache verify --cache"):
        answers(router)
    router.close()

    assert (tmp_path / "cache.db").read_bytes() == damage


def test_bits_flipped_anywhere_in_the_file_never_give_a_wrong_vector(tmp_path: Path) -> None:
    """Nor does writing over what was damaged. Every third time the bits are in the index of keys."""
    fill(tmp_path / "whole")
    whole = (tmp_path / "whole" / "cache.db").read_bytes()
    with closing(sqlite3.connect(tmp_path / "whole" / "cache.db")) as database:
        page = database.execute("PRAGMA page_size").fetchone()[0]
        root = database.execute(ROOT).fetchone()[0]
    chance = np.random.default_rng(5)
    failures = 0
    for number in range(60):
        damaged = bytearray(whole)
        start, end = ((root - 1) * page, root * page) if number % 3 == 0 else (100, len(whole))
        for position in chance.integers(start, end, 30):
            damaged[position] ^= 1 << int(chance.integers(8))
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "cache.db").write_bytes(damaged)
        cache = VectorCache(DiskCache(folder))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            first = cache.read(KEYS, 1536)
            cache.write({key: entry(key) for key in KEYS[::2]})
            second = cache.read(KEYS, 1536)
            cache.close()
        assert right(first)
        assert right(second)
        assert {warning.category for warning in told} <= {CacheWarning}
        failures += cache.failures

    assert failures


def test_an_index_that_leads_to_another_row_gives_no_hit_and_spoils_no_row(tmp_path: Path) -> None:
    """One damaged bit there would give the vector of another text, with a sound checksum, or write over that vector."""
    fill(tmp_path)
    file = tmp_path / "cache.db"
    with closing(sqlite3.connect(file)) as database:
        page = database.execute("PRAGMA page_size").fetchone()[0]
        root = database.execute(ROOT).fetchone()[0]
        name = KEYS[7][-HASH_BYTES:]
        (row,) = database.execute("SELECT rowid FROM vectors WHERE key = ?", [name]).fetchone()
    content = bytearray(file.read_bytes())
    position = content.index(name, (root - 1) * page, root * page) + HASH_BYTES
    assert content[position] == row
    content[position] = row + 1
    file.write_bytes(content)
    cache = VectorCache(DiskCache(tmp_path))
    first = cache.read(KEYS, 1536)
    alone = cache.read([KEYS[7]], 1536)
    with pytest.warns(CacheWarning, match="its index leads to wrong rows.*embedrouter cache verify"):
        kept = cache.write({KEYS[7]: entry(KEYS[7])})
    second = cache.read(KEYS, 1536)
    cache.close()

    assert first.keys() == second.keys() == set(KEYS) - {KEYS[7]}
    assert not alone
    assert not kept
    assert right(first)
    assert right(second)


def test_rows_of_a_newer_version_are_absent_and_not_taken_for_damage(tmp_path: Path) -> None:
    """The command line must not remove them; and a change of the version needs a change of the keys."""
    row = bytearray(encode(entry(KEYS[1])))
    row[2] = VERSION + 1

    assert VERSION == 1, "change what keys hash too, so that versions share a folder"
    assert decode(bytes(row), 1536) is None
    assert is_newer(bytes(row))
    assert is_sound(KEYS[1], bytes(row))


class Planted:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_pickles_planted_as_rows_are_inert(tmp_path: Path) -> None:
    """As values and as keys, in the table and in diskcache's."""
    folder, mark = tmp_path / "cache", tmp_path / "mark"
    fill(folder)
    payload = pickle.dumps(Planted(mark))
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as database:
        database.execute("UPDATE vectors SET value = ? WHERE rowid % 4 = 0", (payload,))
        database.execute("UPDATE vectors SET value = CAST(value AS TEXT) WHERE rowid % 4 = 1")
        database.execute("UPDATE vectors SET key = ? || rowid WHERE rowid % 4 = 2", (payload,))
    with diskcache.Cache(str(folder)) as theirs:
        theirs[KEYS[0]] = Planted(mark)
    cache = VectorCache(DiskCache(folder))
    found = cache.read(KEYS, 1536)
    cache.write({key: entry(key) for key in KEYS})
    again = cache.read(KEYS, 1536)
    cache.close()

    assert len(found) == len(KEYS) // 4
    assert len(again) == len(KEYS)
    assert right(again)
    assert not mark.exists()


class Broken(MemoryCache):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def get_many(self, keys: object) -> dict[bytes, bytes]:
        raise self.error

    def put_many(self, values: object) -> None:
        raise self.error


class ServerError(Exception):
    """As client libraries have them: of no built-in kind."""


def test_any_store_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    """Also those that users make."""
    router = Router([FakeBackend().model()], cache=Broken(ServerError("gone")))
    with pytest.warns(CacheWarning, match=r"The cache Broken could not be (read|written) \(gone\)") as told:
        answers(router, times=2)

    assert len(told) == 2 == len([record for record in caplog.records if "Broken" in record.message])


def test_a_store_that_is_wrong_is_not_covered_up() -> None:
    """Its maker wants to know."""
    with pytest.raises(TypeError, match="argument"):
        VectorCache(Broken(TypeError("missing argument"))).read([b"k"], 4)


def test_what_a_store_that_is_wrong_does_not_keep_is_booked() -> None:
    """It was billed all the same."""

    class Wrong(MemoryCache):
        def put_many(self, values: Mapping[bytes, bytes]) -> None:
            raise TypeError("missing argument")

    router = Router([FakeBackend().model(price="1")], cache=Wrong(), ledger=":memory:")
    with pytest.raises(TypeError, match="argument"):
        router.embed(["a"], input_type="document")
    (account,) = router.ledger.totals("model").values()

    assert (account.requests, account.unconfirmed) == (1, 0)


def test_a_folder_that_another_process_locks_is_read_and_then_skipped(
    tmp_path: Path,
) -> None:
    """A writer waits for its turn, not for ever; a reader waits for no writer, not even to open the folder."""
    fill(tmp_path)
    cache = VectorCache(DiskCache(tmp_path, busy_timeout=0.1))
    cache.read(KEYS, 1536)
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        found = cache.read(KEYS, 1536)
        assert DiskCache(tmp_path).get_many(KEYS).keys() == set(KEYS)
        with pytest.warns(CacheWarning, match="Another process has locked it"):
            kept = cache.write({KEYS[0]: entry(KEYS[0])})
        other.execute("ROLLBACK")

    assert len(found) == len(KEYS)
    assert not kept
    assert cache.write({KEYS[0]: entry(KEYS[0])})
    cache.close()


def hammer(folder: Path, worker: int) -> None:
    cache = VectorCache(DiskCache(folder))
    chance = np.random.default_rng(worker)
    for _ in range(10**6 if worker % 2 else 15):
        some = [KEYS[number] for number in chance.integers(0, len(KEYS), 10)]
        cache.write({key: entry(key) for key in some})
        assert right(cache.read(KEYS, 1536))
    assert cache.failures == 0
    cache.close()


@pytest.mark.slow
def test_sixteen_processes_share_a_folder_though_half_of_them_are_killed(tmp_path: Path) -> None:
    """In the middle of writing, with overlapping keys."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_disk"])
    workers = [context.Process(target=hammer, args=(tmp_path, number)) for number in range(16)]
    for worker in workers:
        worker.start()
    time.sleep(3)
    for worker in workers[1::2]:
        worker.kill()
    for worker in workers:
        worker.join(60)
    cache = VectorCache(DiskCache(tmp_path))
    cache.write({key: entry(key) for key in KEYS})
    found = cache.read(KEYS, 1536)
    cache.close()

    assert [worker.exitcode for worker in workers] == [0, -signal.SIGKILL] * 8
    assert len(found) == len(KEYS)
    assert right(found)
    assert cache.damaged == 0
    with closing(sqlite3.connect(tmp_path / "cache.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# The ledger


def test_under_a_budget_a_ledger_that_fails_refuses_before_money_is_spent(full: Path) -> None:
    """It worked before; the answers in flight are booked when there is room again."""
    fake = FakeBackend()
    file = full / "ledger.db"
    router = Router([fake.model(price="1")], cache=None, ledger=file, budget=Budget(total="1"))
    router.embed(["a"], input_type="document")
    calls = len(fake.calls)
    stuff(full)

    def spend() -> None:
        nonlocal calls
        for number in range(200):
            router.embed([f"text {number}"], input_type="document")
            calls += 1

    with pytest.raises(LedgerError, match=r"ledger.db failed \(.*Free space on its disk"):
        spend()
    (full / "stuff").unlink()
    made = len(fake.calls)
    router.embed(["b"], input_type="document")
    router.close()

    assert calls == made
    tokens = sum(len(text.split()) for call in fake.calls for text in call.texts)
    assert spent(file) == Decimal(tokens) / 1_000_000


def test_bills_wait_in_memory_while_the_ledger_is_locked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that was paid for reaches its caller, and its cost the accounts."""
    file = tmp_path / "ledger.db"
    ledger = Ledger(file, required=True, busy_timeout=0.1)
    first, second, third = (reserved(ledger) for _ in range(3))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.settle(first, 10, Decimal("0.01"))
        ledger.release(second)
        ledger.mark_unconfirmed(third)
        ledger.save("m", "", 1, 1, Decimal("0.5"))
        ledger.flush()
        with pytest.raises(LedgerError, match="database is locked"):
            ledger.reserve(Budget(total="1"), spending("0.1"))
        ledger.close()
        other.execute("ROLLBACK")
    ledger.flush()
    totals = ledger.totals("day")
    ledger.close()
    (account,) = totals.values()

    assert (account.cost, account.requests, account.unconfirmed) == (Decimal("0.01"), 1, Decimal("0.10"))
    assert sum(one.saved for one in totals.values()) == Decimal("0.5")
    own = [record.getMessage() for record in caplog.records if str(file) in record.getMessage()]
    assert len([message for message in own if "waits in memory" in message]) == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_a_ledger_that_was_removed_does_not_begin_anew_under_a_budget(tmp_path: Path, replaced: bool) -> None:
    """What was spent would be forgotten. Closing is the way to say that this is meant."""
    file = tmp_path / "ledger.db"
    ledger = Ledger(file, required=True)
    late = reserved(ledger)
    for item in tmp_path.iterdir():
        item.unlink()
    if replaced:
        Ledger(file).totals("day")
    for _ in range(2):
        with pytest.raises(LedgerError, match="removed or replaced"):
            ledger.reserve(Budget(total="1"), spending("0.1"))
    ledger.settle(late, 10, Decimal("0.01"))
    ledger.close()

    assert ledger.totals("day") == {}
    ledger.close()


def test_without_a_budget_accounts_go_on_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever becomes of the file, also with a request in flight."""
    file = tmp_path / "ledger.db"
    ledger = Ledger(file)
    late = reserved(ledger)
    ledger.close()
    file.write_bytes(b"no database" * 1000)
    assert ledger.settle(late, 10, Decimal("0.01")) == Decimal("0.01")
    for _ in range(2):
        ledger.settle(booked(ledger), 10, Decimal("0.25"))
    totals = ledger.totals("day")
    ledger.close()

    assert [account.cost for account in totals.values()] == [Decimal("0.50")]
    assert len([record for record in caplog.records if "waits in memory" in record.message]) == 1
    assert file.read_bytes() == b"no database" * 1000


def test_without_a_budget_accounts_go_back_to_a_file_that_works_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure passes: a lock that was held for long, a folder that was not there yet."""
    now = time.time()
    file = tmp_path / "ledger.db"
    ledger = Ledger(file, now=lambda: now, busy_timeout=0.1)
    early = booked(ledger)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.settle(early, 10, Decimal("0.01"))
        ledger.settle(booked(ledger), 10, Decimal("0.25"))
        ledger.release(booked(ledger))
        late, lost = booked(ledger), booked(ledger)
        ledger.save("m", "", 1, 1, Decimal("0.5"))
        while_locked = ledger.totals("day"), ledger.flush_due()
        other.execute("ROLLBACK")
    ledger.mark_unconfirmed(lost)
    ledger.settle(late, 10, Decimal("0.50"))
    before = spent(file)
    now += FLUSH_INTERVAL + 1
    due = ledger.flush_due()
    ledger.flush()
    after = spent(file)
    (account,) = ledger.totals("day").values()
    ledger.close()

    assert [one.cost for one in while_locked[0].values()] == [Decimal("0.25")]
    assert (while_locked[1], due) == (False, True)
    assert (before, after) == (0, Decimal("0.76")), "a file that failed is left alone for a while"
    assert (account.requests, account.unconfirmed, account.saved) == (3, Decimal("0.10"), Decimal("0.5"))
    assert len([record for record in caplog.records if "waits in memory" in record.message]) == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_without_a_budget_a_ledger_that_was_removed_begins_anew(tmp_path: Path, replaced: bool) -> None:
    """Perhaps with the cache folder that it lies in; the service runs on, and what it spends is booked."""
    now = time.time()
    file = tmp_path / "ledger.db"
    ledger = Ledger(file, now=lambda: now)
    ledger.settle(booked(ledger), 10, Decimal("0.01"))
    for item in tmp_path.iterdir():
        item.unlink()
    if replaced:
        Ledger(file).totals("day")
    ledger.settle(booked(ledger), 10, Decimal("0.25"))
    now += FLUSH_INTERVAL + 1
    ledger.settle(booked(ledger), 10, Decimal("0.50"))
    after = spent(file)
    ledger.close()

    assert after == Decimal("0.75")


def test_a_ledger_that_never_opened_is_a_wrong_setting(tmp_path: Path) -> None:
    """Nothing was called yet."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be opened.*so no budget can hold"):
        Ledger(tmp_path / "file" / "ledger.db", required=True).refusal(Budget(total="1"), Decimal(1))


# Forks


@pytest.mark.slow
def test_children_of_a_server_embed_beside_their_parent(tmp_path: Path, emulator: Emulator) -> None:
    """As gunicorn --preload does it: connections, locks and files are the parent's, and open."""
    story = Process.run("serve", url=emulator.openai_url, folder=str(tmp_path), price="1", timeout=10, cap="1")

    assert story["children"] == [0] * 4
    assert story["wrong"] == 0
    with closing(DiskCache(tmp_path)) as cache, closing(sqlite3.connect(cache.folder / "cache.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert spent(tmp_path / "ledger.db") == Decimal(emulator.billed.total()) / 1_000_000


@pytest.mark.slow
def test_a_child_works_though_a_thread_was_inside_the_cache_at_the_fork(tmp_path: Path) -> None:
    """The child could not release its lock; and no open file may be carried over."""
    story = Process.run("fork_cache", folder=str(tmp_path))

    assert story == {"children": [0] * 10, "inherited": 0, "seconds": story["seconds"]}


def test_the_threads_of_a_process_leave_no_file_open(tmp_path: Path) -> None:
    """One connection for each of them could not be closed before a fork."""
    cache = DiskCache(tmp_path)
    wait = threading.Event()

    def work() -> None:
        cache.put_many({b"k": b"v"})
        wait.wait(10)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not cache.get_many([b"k"]):
        pass
    cache.close()
    wait.set()
    for thread in threads:
        thread.join()
    cache.close()

    assert not [item for item in tmp_path.iterdir() if item.name.endswith("-wal")]
