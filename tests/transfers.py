"""Moves rows between stores as a migration does, without embedding what need not be embedded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from embedrouter import Router
from embedrouter.stores._reading import database
from embedrouter.stores._transfer import Database, Readable, StoredText, Writable
from embedrouter.types import Vectors

FREE = "wordllama:l2_supercat_256"
NAME = "handbook"
PLACES = {
    "chroma": "chroma:{}",
    "qdrant": "qdrant:{}",
    "lancedb": "lancedb:{}",
    "faiss": "faiss:{}/handbook",
    "llama-index": "llama-index:{}/handbook",
    "jsonl": "{}/handbook.jsonl",
    "parquet": "{}/handbook.parquet",
}
"""How a new store of each kind is named; all but PostgreSQL's."""


def router(dimensions: int = 64) -> Router:
    return Router([FREE], dimensions=dimensions, cache=None, ledger=":memory:")


@contextmanager
def made(kind: str, folder: Path, address: str | None = None) -> Iterator[Database]:
    """Open the place of a store in a folder, or at the address of an empty database of PostgreSQL."""
    folder.mkdir(parents=True, exist_ok=True)
    with database(address or PLACES[kind].format(folder)) as place:
        yield place


def created(place: Database, like: Readable | None = None, space: Router | None = None) -> Writable:
    return place.create(place.named or NAME, space or router(), like)


def vectors_of(rows: Sequence[StoredText], dimensions: int = 64) -> Vectors:
    """Return vectors of length 1 that depend on the texts alone."""
    found = [np.random.default_rng(list(row.text.encode())).normal(size=dimensions) for row in rows]
    array = np.array(found, np.float32).reshape(len(rows), dimensions)
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True), np.float32)


def move(source: Readable, target: Writable, embed: Any = vectors_of, size: int = 3) -> None:
    """Write all rows of a store into another, and put them on disk."""
    for page in source.pages(size):
        target.write_rows(page, embed(page))
    target.finish()


def contents(store: Readable, size: int = 3) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return what is to be equal before and after, by id; no id comes twice."""
    rows = [row for page in store.pages(size) for row in page]
    found = {row.id: (row.text, row.content, row.entries()) for row in rows}
    assert len(found) == len(rows) == store.count()
    assert list(store.ids()) == [row.id for row in rows]
    return found
