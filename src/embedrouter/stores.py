"""Vector stores whose own metadata say which space their vectors are in.

    from embedrouter.stores import guard, metadata

    store = guard(QdrantVectorStore(client, "handbook", embeddings), router)
    guard("./faiss", router)                  # before FAISS.load_local, and before the first save_local

The space is two entries in the store's own metadata, or in a small file of its folder. They travel with the store, so
every machine that opens the store through ``guard`` is held to them:

| store | where the entries are |
|---|---|
| a folder: FAISS of LangChain, what LlamaIndex's storage context persists | the file ``embedrouter.json`` |
| Chroma | the collection's metadata, see ``embedrouter.chroma`` |
| Qdrant | the collection's metadata; servers from 1.16 on have it |
| LanceDB | the metadata of the table's schema |
| LangChain's ``PGVector`` | the collection's row |

``guard`` checks the entries when a store is opened, and writes them into an empty store that has none. ``metadata``
returns the entries for those stores that take them when they are created, which is atomic. Of two processes that mark
an empty store in the same instant the later entries stay, and the other space is refused at the next opening.

Stores are recognised by their methods, so this module imports neither a store nor a framework.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from . import chroma
from ._process import in_thread
from .cache import read_record, write_once
from .errors import ConfigError
from .retrieval.store_guard import Marked, hold, metadata, require_same_router
from .router import Router

__all__ = ["aguard", "guard", "metadata"]

FILE = "embedrouter.json"

Store = TypeVar("Store")


def guard(store: Store, router: Router, *, adopt: bool = False) -> Store:
    """Return ``store`` if it is in the router's space; mark an empty store with that space. Nothing is embedded.

    In asynchronous code: ``await aguard(store, router)``.

    Args:
        store: a vector store of LangChain or LlamaIndex, or what has one: an index, a storage context; a LanceDB table,
            a Chroma collection; or the path of a folder. Just opened, or about to be.
        router: the router that embeds for the store.
        adopt: say that the vectors of a store without a mark were made in the router's space; the store is marked then.
            Vectors of another length, and another mark, are refused all the same.

    Raises:
        SpaceMismatchError: the store is in another space.
        ConfigError: the store holds vectors and no mark, or cannot keep one.
    """
    inner = getattr(store, "vector_store", store)
    require_same_router(inner, router)
    hold(_marked(inner), router, adopt=adopt)
    return store


async def aguard(store: Store, router: Router, *, adopt: bool = False) -> Store:
    """Do what ``guard`` does without blocking the event loop."""
    return await in_thread(guard, store, router, adopt=adopt)


def _marked(store: Any) -> Marked:
    """Return the adapter of a store, by what the store can do."""
    if isinstance(store, str | Path):
        return _Folder(Path(store).expanduser())
    if hasattr(store, "session_maker") and hasattr(store, "get_collection"):
        return _PGVector(store)
    client = getattr(store, "client", None)
    if hasattr(store, "collection_name") and hasattr(client, "update_collection"):
        return _Qdrant(client, store.collection_name)
    table = store.get_table() if hasattr(store, "get_table") else getattr(store, "table", store)
    if hasattr(table, "to_lance") and hasattr(table, "count_rows"):
        return _LanceTable(table)
    if (collection := chroma.find(store)) is not None:
        return collection
    raise ConfigError(
        f"guard knows no place for a mark in {type(store).__name__}. Name the store with index= of the adapter, which "
        "guards every store on one machine; a store that is saved to a folder is guarded by the folder: guard(path, …)."
    )


class _Folder:
    """A folder with the files of a store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.title = f"The folder {str(path)!r}"

    def read(self) -> Mapping[str, Any]:
        file = self._path / FILE
        try:
            return dict(read_record(file))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"{file} cannot be read ({error}). Set it right, or embed the texts again.") from error

    def write(self, entries: Mapping[str, str | int]) -> None:
        try:
            folder = self._path.resolve() if self._path.is_dir() else self._path  # a link to nothing is refused
            write_once(folder / FILE, entries)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be written ({error}). Check the path and its rights.") from error

    def dimensions(self) -> int | None:
        return 0 if self._path.is_dir() and any(self._path.iterdir()) else None

    def again(self, router: Router) -> str:
        return "embed the texts again, into another folder, or into this one after its files were removed."


class _Qdrant:
    """A collection behind a Qdrant client."""

    def __init__(self, client: Any, name: str) -> None:
        if inspect.iscoroutinefunction(client.get_collection):
            raise ConfigError(
                "guard takes a store with a synchronous client. Open the collection with one to guard it."
            )
        if not client.collection_exists(name):
            raise ConfigError(
                f"There is no collection {name!r} in Qdrant yet. Create it with its mark: client.create_collection("
                f"{name!r}, vectors_config=…, metadata=metadata(router))."
            )
        self._client, self._name = client, name
        self.title = f"The collection {name!r}"

    def read(self) -> Mapping[str, Any]:
        return getattr(self._client.get_collection(self._name).config, "metadata", None) or {}

    def write(self, entries: Mapping[str, str | int]) -> None:
        self._client.update_collection(self._name, metadata=dict(entries))

    def dimensions(self) -> int | None:
        if not self._client.count(self._name, exact=True).count:
            return None
        vectors = self._client.get_collection(self._name).config.params.vectors
        sizes = {one.size for one in (vectors.values() if isinstance(vectors, dict) else [vectors]) if one is not None}
        return sizes.pop() if len(sizes) == 1 else 0

    def again(self, router: Router) -> str:
        return (
            "embed the texts again: into a collection of another name, or into this one after "
            f"client.delete_collection({self._name!r})."
        )


class _LanceTable:
    """A table of LanceDB, on a disk that this process reaches."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.title = f"The table {table.name!r}"

    def read(self) -> Mapping[str, Any]:
        self._table.checkout_latest()
        return {name.decode(): value.decode() for name, value in (self._table.schema.metadata or {}).items()}

    def write(self, entries: Mapping[str, str | int]) -> None:
        try:
            dataset = self._table.to_lance()
        except ImportError as error:
            raise ConfigError(
                f"{self.title} has no mark, and writing one needs {error.name or 'pylance'}. Run: pip install pylance; "
                "or create the table with metadata(router), as texts, in the metadata of its schema."
            ) from error
        dataset.update_schema_metadata({name: str(value) for name, value in entries.items()})

    def dimensions(self) -> int | None:
        if not self._table.count_rows():
            return None
        sizes = {size for field in self._table.schema if (size := getattr(field.type, "list_size", 0)) > 0}
        return sizes.pop() if len(sizes) == 1 else 0

    def again(self, router: Router) -> str:
        return f"embed the texts again, into a table of another name, or after drop_table({self._table.name!r})."


class _PGVector:
    """A collection of LangChain's ``PGVector``."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.title = f"The collection {store.collection_name!r}"
        if not hasattr(store.session_maker(), "__enter__"):
            raise ConfigError("guard takes a store with a synchronous engine. Open the store with one to guard it.")

    def read(self) -> Mapping[str, Any]:
        with self._store.session_maker() as session:
            return dict(self._store.get_collection(session).cmetadata or {})

    def write(self, entries: Mapping[str, str | int]) -> None:
        with self._store.session_maker() as session:
            collection = self._store.get_collection(session)
            collection.cmetadata = {**(collection.cmetadata or {}), **entries}
            session.commit()

    def dimensions(self) -> int | None:
        with self._store.session_maker() as session:
            collection = self._store.get_collection(session)
            first = session.query(self._store.EmbeddingStore).filter_by(collection_id=collection.uuid).first()
            return None if first is None else len(first.embedding)

    def again(self, router: Router) -> str:
        return "embed the texts again, into a collection of another name, or after store.delete_collection()."
