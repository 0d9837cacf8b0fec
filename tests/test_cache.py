"""The cache: rows that are checked, and a folder that cannot run code. Of stores: test_cache_contract.py."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedrouter import Router
from embedrouter.cache import DEFAULT, VectorCache, open_cache
from embedrouter.cache._codec import decode, encode
from embedrouter.cache._disk import DiskCache
from embedrouter.errors import ConfigError
from embedrouter.redis import open_caches
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Entry

# Rows


@given(arrays(np.float32, st.integers(1, 64), elements=st.floats(width=32)), st.integers(0, 2**32 - 1))
def test_a_row_gives_back_the_same_numbers(vector: np.ndarray, tokens: int) -> None:
    """Bit for bit."""
    entry = decode(encode(Entry(vector, tokens)), vector.size)

    assert entry is not None
    assert entry.vector.tobytes() == vector.tobytes()
    assert entry.tokens == tokens


@given(st.data())
def test_any_flipped_bit_makes_a_row_absent(data: st.DataObject) -> None:
    """A wrong vector is worse than none."""
    row = bytearray(encode(Entry(np.arange(8, dtype=np.float32), 3)))
    position = data.draw(st.integers(0, len(row) - 1))
    row[position] ^= 1 << data.draw(st.integers(0, 7))

    assert decode(bytes(row), 8) is None


@given(st.binary(max_size=200), st.integers(0, 64))
def test_foreign_bytes_are_no_row(row: bytes, dimensions: int) -> None:
    """Whatever lies in the folder, reading it raises nothing."""
    assert decode(row, dimensions) is None


def test_a_row_of_another_dimension_is_absent() -> None:
    """It could only get there by a mistake, and must not get out."""
    assert decode(encode(Entry(np.ones(8, np.float32), 1)), 4) is None


def test_a_vector_from_the_cache_cannot_be_changed_by_a_caller() -> None:
    """Rows are shared bytes."""
    entry = decode(encode(Entry(np.ones(8, np.float32), 1)), 8)

    assert entry is not None
    assert not entry.vector.flags.writeable


def test_damaged_rows_are_misses_and_are_counted(tmp_path: Path) -> None:
    """The text is embedded again and the row replaced."""
    fake = FakeBackend()
    store = MemoryCache()
    router = Router([fake.model()], cache=store)
    first = router.embed(["a", "b"], input_type="document")
    damaged = next(iter(store.rows))
    store.rows[damaged] = store.rows[damaged][:-1] + b"\x55"

    again = router.embed(["a", "b"], input_type="document")

    assert sorted(again.cached) == [False, True]
    assert np.array_equal(again.vectors, first.vectors)
    assert router.cache.damaged == 1
    assert router.embed(["a", "b"], input_type="document").cached == (True, True)


# The folder


class Planted:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_pickles_planted_in_the_folder_are_inert(tmp_path: Path) -> None:
    """The right to write the folder must not be a way to run code in its readers (CVE-2025-69872)."""
    cache = DiskCache(tmp_path)
    cache.put_many({b"good": b"row", b"key": b"row"})
    cache.close()
    mark = tmp_path / "mark"
    payload = pickle.dumps(Planted(mark))
    with sqlite3.connect(tmp_path / "cache.db") as database:
        database.execute("UPDATE vectors SET value = ? WHERE key = ?", (payload, b"key"))
        database.execute("UPDATE vectors SET key = ? WHERE key = ?", (payload, b"good"))
    database.close()

    assert dict(cache.get_many([b"key", b"good", payload])) == {b"key": payload, payload: b"row"}
    assert VectorCache(cache).read([b"key", payload], 8) == {}
    assert not mark.exists()


def test_rows_of_every_size_stay_in_the_database(tmp_path: Path) -> None:
    """A vector of 16,384 dimensions is larger than a page."""
    cache = DiskCache(tmp_path)
    row = encode(Entry(np.ones(16_384, np.float32), 1))
    cache.put_many({b"large": row})

    assert dict(cache.get_many([b"large"])) == {b"large": row}


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    """Vectors can be turned back into text, roughly."""
    DiskCache(tmp_path / "cache").put_many({b"a": b"1"})

    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_nothing_is_created_before_the_first_use(tmp_path: Path) -> None:
    """Constructors touch no file."""
    Router([FakeBackend().model()], cache=tmp_path / "cache")

    assert not (tmp_path / "cache").exists()


def write_rows(folder: Path, worker: int) -> None:
    cache = DiskCache(folder)
    for number in range(50):
        cache.put_many({bytes([worker, number]): bytes([worker]) * 1000})


@pytest.mark.slow
def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Several workers of a service, one cache: nothing is lost."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write_rows, args=(tmp_path, worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    keys = [bytes([worker, number]) for worker in range(4) for number in range(50)]
    assert DiskCache(tmp_path).get_many(keys) == {key: key[:1] * 1000 for key in keys}


KILLED = """
import sys
from embedrouter.cache._disk import DiskCache
cache = DiskCache(sys.argv[1])
number = 0
while True:
    cache.put_many({(number + i).to_bytes(4, "big"): (number + i).to_bytes(4, "big") * 500 for i in range(20)})
    number += 20
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_only_whole_rows(tmp_path: Path) -> None:
    """Everything that put_many returned from is there; what it was writing is there whole or not at all."""
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    written = 0
    while written < 200:
        written = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.communicate()[0].split()
    written = int(rest[-1]) if rest else written

    rows = DiskCache(tmp_path).get_many([number.to_bytes(4, "big") for number in range(written + 20)])
    assert {number.to_bytes(4, "big") for number in range(written)} <= rows.keys()
    assert all(row == key * 500 for key, row in rows.items())
    assert len(rows) in (written, written + 20)


def test_a_store_travels_to_another_process_by_its_path(tmp_path: Path) -> None:
    """Pickles hold the folder's name, no connection."""
    cache = DiskCache(tmp_path)
    cache.put_many({b"a": b"1"})

    assert pickle.loads(pickle.dumps(cache)).get_many([b"a"]) == {b"a": b"1"}


# What a router's cache= may be


def test_the_default_is_the_users_cache_folder() -> None:
    """$XDG_CACHE_HOME on Linux."""
    (cache,) = open_caches(DEFAULT)

    assert isinstance(cache, DiskCache)
    assert cache.folder == Path(os.environ["XDG_CACHE_HOME"]) / "embedrouter"


def test_a_home_folder_is_expanded() -> None:
    """Configuration files say ~/.cache."""
    cache = open_cache("~/vectors")

    assert isinstance(cache, DiskCache)
    assert cache.folder == Path.home() / "vectors"


@pytest.mark.parametrize("wrong", ["nothing://localhost", 7, object(), [], [7]])
def test_anything_else_is_refused_at_construction(wrong: object) -> None:
    """An error at start, not at the first paid answer."""
    with pytest.raises(ConfigError, match="cache"):
        open_caches(wrong)  # type: ignore[arg-type]


def test_without_a_cache_nothing_is_kept() -> None:
    """cache=None switches it off."""
    fake = FakeBackend()
    router = Router([fake.model()], cache=None)
    router.embed(["a"], input_type="document")
    router.embed(["a"], input_type="document")

    assert len(fake.calls) == 2
    assert VectorCache(None).read([b"k"], 4) == {}
