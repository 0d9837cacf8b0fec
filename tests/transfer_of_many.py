"""20,000 rows through every kind of store: times and memory. Run by hand: ``python -m tests.transfer_of_many [ROWS]``.

Each store is written and read in a process of its own, so that its largest memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from embedrouter.stores._transfer import StoredText
from tests.transfers import PLACES, created, made, router
from tests.vector_stores import PostgreSQL

DIMENSIONS, PAGE = 256, 500


def rows(count: int) -> Iterator[list[StoredText]]:
    for start in range(0, count, PAGE):
        yield [
            StoredText(f"row-{one}", text, text, {"source": f"{one % 100}.md", "page": one, "tags": {"a": [one]}})
            for one in range(start, min(count, start + PAGE))
            if (text := f"Text {one} of many. " * 25)
        ]


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def play(kind: str, folder: Path, address: str | None, count: int) -> dict[str, float]:
    warnings.simplefilter("ignore")
    numbers: Any = np.random.default_rng(1).normal(size=(count, DIMENSIONS)).astype(np.float32)
    measured: dict[str, float] = {}
    with made(kind, folder / kind, address) as place:
        store = created(place, space=router(DIMENSIONS))
        before = memory()

        def timed(name: str, work: Any) -> Any:
            began = time.monotonic()
            result = work()
            measured[name] = time.monotonic() - began
            measured[f"MB after {name}"] = memory() - before
            return result

        def write() -> None:
            for number, page in enumerate(rows(count)):
                store.write_rows(page, numbers[number * PAGE : number * PAGE + len(page)])

        timed("write", write)
        timed("finish", store.finish)
        seen = timed("read", lambda: {row.id for page in store.pages(PAGE) for row in page})
        assert len(seen) == count == store.count()
        assert timed("ids", lambda: set(store.ids())) == seen
        found = timed("fetch 500", lambda: store.fetch([f"row-{one}" for one in range(0, count, count // 500)]))
        assert len(found) >= 500
        nearest = timed("search 20", lambda: [store.search(numbers[one], 10) for one in range(20)])
        # an approximate index misses a few of random vectors, which are the hardest
        measured["found themselves"] = sum(ids[:1] == [f"row-{one}"] for one, ids in enumerate(nearest))
    return measured


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    with TemporaryDirectory() as folder, PostgreSQL(Path(folder) / "pg") as server:
        for kind in [*PLACES, "postgresql"]:
            address = server.new_database() if kind == "postgresql" else None
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                measured = pool.submit(play, kind, Path(folder), address, count).result()
            print(kind, ", ".join(f"{name} {value:.2f}" for name, value in measured.items()), flush=True)


if __name__ == "__main__":
    main()
