"""What a folder of vectors takes: bytes for a vector, and time for a text as it grows.

    python -m pytest tests/benchmarks -o python_files="bench_disk.py" -s

`EMBEDROUTER_BENCH_ROWS` says how far it grows: a million rows of 256 dimensions are 1.2 GB, in the folder for temporary
files until the end. What is compared takes turns in one process; a ratio is the median of the ratios of one turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pytest

from embedrouter import Model, Router
from embedrouter.cache import VectorCache
from embedrouter.cache._disk import DiskCache
from embedrouter.models import Backend
from embedrouter.types import Answer, Entry, InputType

DIMENSIONS = (256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072)
BATCH = 2048
FEW = 10_240
MANY = int(os.environ.get("EMBEDROUTER_BENCH_ROWS", "1000000"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is removed at once; pytest would keep those of three runs."""
    with TemporaryDirectory() as place:
        yield Path(place)


def added(cache: VectorCache, rows: int, dimensions: int) -> None:
    """Write new rows in batches."""
    entry = Entry(np.ones(dimensions, np.float32), 7)
    for start in range(0, rows, BATCH):
        assert cache.write({os.urandom(20): entry for _ in range(min(BATCH, rows - start))})


class Ones(Backend):
    """A model whose vectors cost nothing."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return Answer(np.ones((len(texts), 256), np.float32), len(texts))


class Filled:
    """A router whose cache holds so many documents of 256 dimensions."""

    def __init__(self, folder: Path, texts: int) -> None:
        self.texts = texts
        self._chance = np.random.default_rng(2)
        self._router = Router([Model("bench:ones", space="ones", dimensions=256, backend=Ones())], cache=folder)
        for _ in self._router.embed_iter(map(str, range(texts)), input_type="document", chunk_size=BATCH):
            pass
        self._cache = VectorCache(DiskCache(folder))

    def look_up(self, at_once: int) -> Callable[[], None]:
        """Return what looks random texts up, 10,000 all together."""

        def work() -> None:
            for _ in range(10_000 // at_once):
                some = [str(number) for number in self._chance.integers(0, self.texts, at_once)]
                assert all(self._router.embed(some, input_type="document").cached)

        return work

    def reopen(self) -> None:
        self._router.close()
        self._router.embed(["0"], input_type="document")

    def write(self) -> None:
        added(self._cache, BATCH, 256)

    def close(self) -> None:
        self._router.close()
        self._cache.close()


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def compared(name: str, one: Callable[[], object], other: Callable[[], object], each: int, rounds: int) -> None:
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
    """From 10 k texts of 256 dimensions: look-ups at most twice as long, opening < 50 ms more.

    Writing takes longer in a large folder: keys are hashes, so that every batch changes all pages of the index.
    """
    small, large = Filled(folder / "small", FEW), Filled(folder / "large", MANY)
    for _ in range(5):  # the system reads the file into its memory
        large.look_up(500)()
    print(f"\n{'µs':<44} {FEW:>9,} {MANY:>9,} {'ratio':>8}")
    compared("look up one text", small.look_up(1), large.look_up(1), 10_000, 9)
    compared("look up 500 texts, each", small.look_up(500), large.look_up(500), 10_000, 15)
    compared("open, look up one text", small.reopen, large.reopen, 1, 15)
    compared(f"write {BATCH:,} rows, each", small.write, large.write, BATCH, 20)
    small.close()
    large.close()
