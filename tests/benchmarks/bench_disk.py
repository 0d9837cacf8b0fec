"""What a folder of vectors takes: bytes for a vector, time for a text as it grows, and reading beside SQLite alone.

    python -m pytest tests/benchmarks -o python_files="bench_disk.py" -s

`EMBEDROUTER_BENCH_ROWS` says how far it grows: a million rows of 256 dimensions are 1.2 GB, in the folder for temporary
files until the end. What is compared takes turns in one process; a ratio is the median of the ratios of one turn.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pytest

from embedrouter.cache.disk import DiskCache
from embedrouter.cache.vectors import VectorCache
from embedrouter.types import Entry

DIMENSIONS = (256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072)
BATCH = 2048
FEW = 10_240
MANY = int(os.environ.get("EMBEDROUTER_BENCH_ROWS", "1000000"))
HEADER = 16


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is removed at once; pytest would keep those of three runs."""
    with TemporaryDirectory() as place:
        yield Path(place)


def added(cache: VectorCache, rows: int, dimensions: int) -> list[bytes]:
    """Write rows in batches, and return their keys."""
    entry = Entry(np.random.default_rng(1).random(dimensions, np.float32), 7)
    keys = [os.urandom(20) for _ in range(rows)]
    for start in range(0, rows, BATCH):
        assert cache.write(dict.fromkeys(keys[start : start + BATCH], entry))
    return keys


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def compared(name: str, one: Callable[[], object], other: Callable[[], object], each: int, rounds: int = 15) -> None:
    """Print what both take for a text, in microseconds, and how many times as long the other takes."""
    one(), other()
    turns = [(seconds(one), seconds(other)) for _ in range(rounds)]
    first, second = (1e6 * median(times) / each for times in zip(*turns, strict=True))
    print(f"{name:<44} {first:9.1f} {second:9.1f} {median(there / here for here, there in turns):8.2f}")


def test_bytes_on_disk(folder: Path) -> None:
    """After close; at most 1.4 times the vectors' float32 bytes."""
    print(f"\nbytes on disk / float32 bytes\n{'dimensions':>10} {'float32':>8} {'float16':>8}")
    for dimensions in DIMENSIONS:
        ratios = []
        for dtype in ("float32", "float16"):
            place = folder / f"{dimensions}-{dtype}"
            with closing(VectorCache(DiskCache(place), dtype)) as cache:
                added(cache, FEW, dimensions)
            ratios.append(sum(file.stat().st_size for file in place.iterdir()) / (FEW * 4 * dimensions))
            for file in place.iterdir():
                file.unlink()
        print(f"{dimensions:>10} {ratios[0]:8.2f} {ratios[1]:8.2f}")


def test_growth(folder: Path) -> None:
    """From 10 k rows of 256 dimensions: look-ups at most 1.5 times as long, writing the same, opening < 50 ms more."""
    chance = np.random.default_rng(2)
    small, large = VectorCache(DiskCache(folder / "small")), VectorCache(DiskCache(folder / "large"))
    few, many = added(small, FEW, 256), added(large, MANY, 256)

    def drawn(keys: Sequence[bytes], count: int) -> list[bytes]:
        return [keys[index] for index in chance.integers(0, len(keys), count)]

    def singles(cache: VectorCache, keys: Sequence[bytes]) -> Callable[[], None]:
        return lambda: [cache.read([key], 256) for key in drawn(keys, 1000)] and None

    def bulk(cache: VectorCache, keys: Sequence[bytes]) -> Callable[[], None]:
        return lambda: [cache.read(drawn(keys, 500), 256) for _ in range(20)] and None

    def opened(cache: VectorCache, keys: Sequence[bytes]) -> Callable[[], None]:
        def work() -> None:
            cache.close()
            assert cache.read(keys[:1], 256)

        return work

    print(f"\n{'µs':<44} {FEW:>9,} {MANY:>9,} {'ratio':>8}")
    for _ in range(10):  # maps the file's pages
        bulk(large, many)()
    compared("read one random key", singles(small, few), singles(large, many), 1000)
    compared("read 500 random keys, each", bulk(small, few), bulk(large, many), 10_000)
    compared("open, read one, close", opened(small, few), opened(large, many), 1)
    compared(
        f"write {BATCH:,} rows, each", lambda: added(small, BATCH, 256), lambda: added(large, BATCH, 256), BATCH, 10
    )
    small.close()
    large.close()


def test_arrays_out_of_the_disk(folder: Path) -> None:
    """At least half as fast as SQLite alone on the same file."""
    with closing(VectorCache(DiskCache(folder))) as cache:
        keys = added(cache, 2000, 1536)
        with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as database:
            database.execute(f"PRAGMA mmap_size = {2**40}")
            select = f"SELECT key, value FROM Cache WHERE raw = 1 AND key IN ({','.join('?' * 500)})"

            def limit() -> dict[bytes, object]:
                return {
                    key: np.frombuffer(row, "<f4", offset=HEADER)
                    for start in range(0, len(keys), 500)
                    for key, row in database.execute(select, keys[start : start + 500])
                }

            assert limit().keys() == cache.read(keys, 1536).keys() == set(keys)
            print(f"\n{'µs':<44} {'SQLite':>9} {'ours':>9} {'ratio':>8}")
            compared("2,000 × 1,536 numbers as arrays, each", limit, lambda: cache.read(keys, 1536), len(keys))
