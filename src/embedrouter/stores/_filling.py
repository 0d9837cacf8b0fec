"""Open a store to put vectors into it: one that is there, or a new one, which is made with its mark."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..errors import ConfigError
from ..retrieval.store_guard import Item, Marked, hold, metadata
from ..router import Router
from ._chroma import ChromaCollection
from ._lance import LanceTable
from ._opening import opened
from ._qdrant import QdrantCollection

COLLECTION = "documents"
"""The name of a new collection, where none is given."""


@runtime_checkable
class Fillable(Marked, Protocol):
    """A store that takes rows by their ids."""

    def put(self, items: Sequence[Item], vectors: Any) -> None:
        """Write rows, in place of those that have the same ids."""
        ...


class Filling:
    """One store that is being filled; a new one is made by ``begin``, so that a run that is refused makes none."""

    def __init__(self, stack: ExitStack, store: Fillable | None, make: Callable[[], Any]) -> None:
        self._stack, self._store, self._make = stack, store, make

    def begin(self) -> None:
        """Make the store, if there is none."""
        if self._store is None:
            self._store = self._stack.enter_context(self._make())

    def put(self, items: Sequence[Item], vectors: Any) -> None:
        """Write rows, in place of those that have the same ids."""
        assert self._store is not None, "it has begun"
        self._store.put(items, vectors)


@contextmanager
def filling(store: str, collection: str | None, router: Router) -> Iterator[Filling]:
    """Open a store that is held to the router's space.

    Args:
        store: a path or an address, or ``chroma:PATH``, ``lancedb:PATH`` or ``qdrant:PATH``, which may be made.
        collection: the name of a collection or table.
        router: gives the vectors.

    Raises:
        SpaceMismatchError: the store is in another space.
        ConfigError: the store cannot be opened, or is of a kind that is not written.
    """
    kind, found, place = store.partition(":")
    known = bool(found) and kind in MAKERS
    path = Path(place if known else store).expanduser().absolute()
    with ExitStack() as stack:
        if known:
            marked = stack.enter_context(MAKERS[kind](path, collection or COLLECTION, None)) if path.exists() else None
        else:
            marked = stack.enter_context(opened(store, collection))
        if marked is not None:
            if not isinstance(marked, Fillable):
                raise ConfigError(
                    f"{marked.title} cannot be filled by this command. Name a folder or a server of Chroma or Qdrant, "
                    "or a folder of LanceDB; or write a file, and load that: --to FILE.parquet."
                )
            hold(marked, router, adopt=False)
        yield Filling(stack, marked, lambda: MAKERS[kind](path, collection or COLLECTION, router))


@contextmanager
def _chroma(path: Path, name: str, router: Router | None) -> Iterator[Marked | None]:
    """Give a collection; where there is none, a new one for ``router``, and nothing without a router."""
    from chromadb import PersistentClient
    from chromadb.config import Settings

    client: Any = PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    with client:
        if name in [one.name for one in client.list_collections()]:
            yield ChromaCollection(client.get_collection(name, embedding_function=None))
        elif router is None:
            yield None
        else:
            yield ChromaCollection(client.create_collection(name, embedding_function=None, metadata=metadata(router)))


@contextmanager
def _qdrant(path: Path, name: str, router: Router | None) -> Iterator[Marked | None]:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(path))
    try:
        if router is not None and not client.collection_exists(name):
            vectors = models.VectorParams(size=router.space.dimensions, distance=models.Distance.COSINE)
            client.create_collection(name, vectors_config=vectors, metadata=dict(metadata(router)))
        yield QdrantCollection(client, name) if client.collection_exists(name) else None
    finally:
        client.close()


@contextmanager
def _lance(path: Path, name: str, router: Router | None) -> Iterator[Marked | None]:
    import lancedb
    import pyarrow

    connection = lancedb.connect(str(path))
    if (path / f"{name}.lance").exists():
        yield LanceTable(connection.open_table(name))
    elif router is None:
        yield None
    else:
        schema = pyarrow.schema(
            [
                ("id", pyarrow.string()),
                ("text", pyarrow.string()),
                ("vector", pyarrow.list_(pyarrow.float32(), router.space.dimensions)),
                ("metadata", pyarrow.struct([("source", pyarrow.string())])),
            ],
            metadata={key: str(value) for key, value in metadata(router).items()},
        )
        yield LanceTable(connection.create_table(name, schema=schema))


MAKERS: dict[str, Callable[[Path, str, Router | None], Any]] = {"chroma": _chroma, "lancedb": _lance, "qdrant": _qdrant}
"""What makes a new store of each kind."""
