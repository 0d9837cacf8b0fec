"""Every kind of store is written from every other, and the frameworks' own classes find what was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from tests.test_transfer import ROWS
from tests.transfers import PLACES, contents, created, made, move, router, vectors_of
from tests.vector_stores import PostgreSQL

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    # pytest closes its own folders to other users, and PostgreSQL is another user where the tests run as root
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)  # where the package keeps its lock
        with PostgreSQL(Path(folder) / "data") as running:
            yield running


LIGHT = ("chroma", "llama-index", "jsonl", "parquet")


def moved(source: str, target: str, folder: Path, address: Any) -> None:
    """Move the odd rows from a store of one kind into one of another."""
    with made(source, folder / "from", address(source)) as old, ExitStack() as stack:
        first = created(old, space=router(128))
        first.write_rows(ROWS, vectors_of(ROWS, 128))
        first.finish()
        new = stack.enter_context(made(target, folder / f"to-{target}", address(target)))
        second = created(new, first)
        move(first, second)
        assert contents(second) == contents(first)
        found = second.fetch([row.id for row in ROWS])
        np.testing.assert_allclose([vector for _, vector in found], vectors_of(ROWS), atol=1e-6)
        assert contents(first) == {row.id: (row.text, row.content, dict(row.metadata)) for row in ROWS}


@pytest.mark.parametrize("source", LIGHT)
def test_every_kind_of_store_is_written_from_every_other(source: str, tmp_path: Path) -> None:
    for target in LIGHT:
        moved(source, target, tmp_path, lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("source", [*PLACES, "postgresql"])
def test_every_kind_of_store_is_written_from_every_other_also_the_large_ones(
    source: str, tmp_path: Path, server: PostgreSQL
) -> None:
    for target in [*PLACES, "postgresql"]:
        if not {source, target} <= set(LIGHT):
            moved(source, target, tmp_path, lambda kind: server.new_database() if kind == "postgresql" else None)
