"""Open a store that a path or an address names, to read it: nothing is created, converted or changed.

A path that does not exist is an error, because most stores would create an empty one there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from .._display import shown_name
from ..errors import ConfigError
from ..retrieval.store_guard import Marked
from . import _faiss_folder, _storage_context
from ._chroma import ChromaDatabase
from ._dumped import DumpedStore
from ._failures import plain, told
from ._folder import Folder
from ._lance import LanceTable
from ._milvus import MilvusCollection
from ._postgres import LangChainCollection, PostgresTable, by_address, columns_of, quoted
from ._qdrant import QdrantCollection
from ._transfer import Database

PATIENCE = 5.0
"""Seconds in which a server must say what it is."""
POSTGRES = ("postgresql", "postgres")


@contextmanager
def opened(store: str, collection: str | None = None) -> Iterator[Marked]:
    """Open a store, or one collection of it.

    Args:
        store: a folder, a file, or an address.
        collection: the name of a collection or table; needed where there are several.

    Raises:
        ConfigError: there is no such store, or it cannot be opened; the message has the next action.
    """
    opener, place = _opener(store)
    try:
        with opener(place, collection) as marked:
            marked.place = shlex.quote(plain(store))
            yield marked
    except ImportError as error:
        raise ConfigError(
            f"Opening {shown_name(plain(store))} needs {error.name or 'a package'}, which is not installed here. Run "
            "the command where the program runs that uses the store."
        ) from error


def _opener(store: str) -> tuple[Any, str]:
    scheme, found, _ = store.partition("://")
    if not found:
        path = Path(store).expanduser()
        if not path.exists():
            raise ConfigError(f"There is no {str(path)!r}. Nothing was created; check the path.")
        return _of_path(path), str(path)
    if scheme.partition("+")[0] in POSTGRES:
        return _postgres, store
    if scheme in ("http", "https"):
        return _server(store), store
    raise ConfigError(
        f"Addresses begin with http://, https:// or postgresql://, not {shown_name(scheme)}. Name a folder by its path."
    )


def _of_path(path: Path) -> Any:
    """Return what opens the files at a path, by their names."""
    if path.name == "chroma.sqlite3" or (path / "chroma.sqlite3").is_file():
        return _chroma_folder
    if (path / "meta.json").is_file() and (path / "collection").is_dir():
        return _qdrant_folder
    if path.suffix == ".lance" or (path.is_dir() and any(path.glob("*.lance"))):
        return _lance
    if path.is_dir() and (_faiss_folder.stores_in(path) or _storage_context.stores_in(path)):
        return _folder
    if path.suffix == ".json" and path.is_file():
        return _dumped
    if _is_milvus(path):
        return _milvus_lite
    here = ", ".join(sorted(item.name for item in path.iterdir())[:5]) if path.is_dir() else ""
    raise ConfigError(
        f"{str(path)!r} is no store that is known here{f' (it holds {here})' if here else ''}. Name the folder of "
        "Chroma, Qdrant, LanceDB, a FAISS store that LangChain saved or a storage context that LlamaIndex persisted, "
        "the file of Milvus Lite or of a dumped InMemoryVectorStore."
    )


def chosen(names: Sequence[str], wanted: str | None, noun: str) -> str:
    """Return the name of a collection: the one that is wanted, or the only one.

    Raises:
        ConfigError: there is none, or no such one, or there are several.
    """
    if wanted in names:
        return str(wanted)
    listed = ", ".join(map(shown_name, names[:20])) + (" …" if len(names) > 20 else "")
    if not names:
        raise ConfigError(f"The store has no {noun}.")
    if wanted is not None:
        raise ConfigError(f"There is no {noun} {shown_name(wanted)}. There are: {listed}.")
    if len(names) > 1:
        raise ConfigError(f"There are {len(names)} {noun}s: {listed}. Name one: --collection {names[0]}")
    return names[0]


# Folders and files


@contextmanager
def _folder(place: str, collection: str | None) -> Iterator[Marked]:
    path = Path(place)
    names = _faiss_folder.stores_in(path) or _storage_context.stores_in(path)
    yield Folder(path, chosen(names, collection or names[0], "store"))


@contextmanager
def _dumped(place: str, collection: str | None) -> Iterator[Marked]:
    yield DumpedStore(Path(place))


@contextmanager
def _chroma_folder(place: str, collection: str | None) -> Iterator[Marked]:
    path = Path(place)
    with closing(ChromaDatabase.in_folder(path.parent if path.is_file() else path)) as database:
        yield _one_of(database, collection, "collection")


@contextmanager
def _qdrant_folder(place: str, collection: str | None) -> Iterator[Marked]:
    from qdrant_client import QdrantClient

    with told("Qdrant"):
        client = QdrantClient(path=place)
    try:
        yield _qdrant_collection(client, collection)
    finally:
        client.close()


@contextmanager
def _lance(place: str, collection: str | None) -> Iterator[Marked]:
    import lancedb

    path = Path(place)
    if path.suffix == ".lance":
        path, collection = path.parent, path.stem
    names = sorted(item.stem for item in path.glob("*.lance"))
    with told("LanceDB"):
        table = lancedb.connect(str(path)).open_table(chosen(names, collection, "table"))
    yield LanceTable(table)


def _is_milvus(path: Path) -> bool:
    if path.is_dir():
        return (path / "collections").is_dir() and (path / "LOCK").exists()
    return path.suffix == ".db" and path.read_bytes()[:15] == b"SQLite format 3"


@contextmanager
def _milvus_lite(place: str, collection: str | None) -> Iterator[Marked]:
    from pymilvus import MilvusClient

    folders = int(metadata.version("milvus-lite").partition(".")[0]) >= 3
    if folders != Path(place).is_dir():
        wanted = "<3" if folders else ">=3"
        raise ConfigError(
            f"{place!r} was written by another version of Milvus Lite, which this one would convert. Run: pip install "
            f"'milvus-lite{wanted}'"
        )
    with told("Milvus Lite"):
        client = MilvusClient(place)
    try:
        yield _milvus_collection(client, collection)
    finally:
        client.close()


# Servers


def _server(address: str) -> Any:
    """Return what opens a server, after asking the server what it is."""
    if "heartbeat" in _answer(f"{address.rstrip('/')}/api/v2/heartbeat"):
        return _chroma_server
    if "qdrant" in _answer(address.rstrip("/") + "/") or "QDRANT_API_KEY" in os.environ:
        return _qdrant_server
    return _milvus_server


def _answer(url: str) -> str:
    try:
        with urlopen(Request(url, headers={"Accept": "application/json"}), timeout=PATIENCE) as answer:
            return str(answer.read(4096), "utf-8", "replace").lower()
    except HTTPError as error:
        with error:
            return str(error.read(4096), "utf-8", "replace").lower()
    except (OSError, ValueError, HTTPException):  # such as a server of another protocol
        return ""


@contextmanager
def _chroma_server(address: str, collection: str | None) -> Iterator[Marked]:
    with closing(ChromaDatabase.at_address(address)) as database:
        yield _one_of(database, collection, "collection")


@contextmanager
def _qdrant_server(address: str, collection: str | None) -> Iterator[Marked]:
    from qdrant_client import QdrantClient

    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 6333)
    with told("Qdrant"):
        client = QdrantClient(url=address, port=port, api_key=os.environ.get("QDRANT_API_KEY"), timeout=int(PATIENCE))
    try:
        yield _qdrant_collection(client, collection)
    finally:
        client.close()


@contextmanager
def _milvus_server(address: str, collection: str | None) -> Iterator[Marked]:
    from pymilvus import MilvusClient

    with told("server (neither Chroma nor Qdrant answers there, so Milvus was tried)"):
        client = MilvusClient(uri=address, token=os.environ.get("MILVUS_TOKEN", ""), timeout=PATIENCE)
    try:
        yield _milvus_collection(client, collection)
    finally:
        client.close()


def _one_of(database: Database, collection: str | None, noun: str) -> Marked:
    with told(database.kind):
        if collection is not None and database.leads_to(collection) is not None:
            return database.open(collection)
        return database.open(chosen(database.names(), collection, noun))


def _qdrant_collection(client: Any, collection: str | None) -> Marked:
    with told("Qdrant"):
        names = sorted(one.name for one in client.get_collections().collections)
        return QdrantCollection(client, chosen(names, collection, "collection"))


def _milvus_collection(client: Any, collection: str | None) -> Marked:
    with told("Milvus"):
        return MilvusCollection(client, chosen(sorted(client.list_collections()), collection, "collection"))


# PostgreSQL


@contextmanager
def _postgres(address: str, collection: str | None) -> Iterator[Marked]:
    run = by_address(address)
    with told("PostgreSQL"):
        found = run(
            "SELECT n.nspname AS schema, c.relname AS table FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE t.typname IN ('vector', 'halfvec') AND c.relkind IN ('r', 'p') AND NOT a.attisdropped "
            "ORDER BY c.relname"
        )
        tables = {one["table"]: one["schema"] for one in found}
        collections: list[str] = []
        if tables.pop("langchain_pg_embedding", None) is not None:
            collections = [one["name"] for one in run("SELECT name FROM langchain_pg_collection ORDER BY name")]
        if collection is not None and collection not in (*collections, *tables) and f"data_{collection}" in tables:
            collection = f"data_{collection}"  # as LlamaIndex calls the table
        name = chosen([*collections, *tables], collection, "collection")
        if name in collections:
            marked: Marked = LangChainCollection(run, name)
        else:
            columns = columns_of(run, tables[name], name)
            if columns is None:
                raise ConfigError(
                    f"The table {quoted(name)} has no column of texts, or several columns of vectors. Read its texts "
                    "and vectors, and compare them with router.check_vectors(texts, vectors)."
                )
            marked = PostgresTable(run, tables[name], name, columns)
    yield marked


__all__ = ["opened"]
