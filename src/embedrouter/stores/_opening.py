"""Find the store that a path or an address names, to read it: nothing is created, converted or changed.

A path that does not exist is an error, because most stores would create an empty one there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from .._display import shown_name
from ..errors import ConfigError
from ..retrieval.store_guard import Marked
from . import _faiss_folder, _storage_context
from ._chroma import ChromaDatabase
from ._dumped import DumpedStore
from ._failures import explained, shown_address
from ._json_lines import JsonLinesFormat
from ._lance import LanceDatabase
from ._milvus import MilvusDatabase, is_milvus_lite
from ._parquet import ParquetFormat
from ._postgres import PostgresDatabase
from ._qdrant import QdrantDatabase
from ._whole import Format, WholeDatabase

PATIENCE = 5.0
"""Seconds in which a server must say what it is."""
POSTGRES = ("postgresql", "postgres")
FILES: dict[str, Format] = {form.suffix: form for form in (JsonLinesFormat(), ParquetFormat())}
"""Formats of files, by the ends of their names."""


class Collections(Protocol):
    """What a path or an address names: one or several collections. ``Database`` has more."""

    kind: str

    def names(self) -> Sequence[str]: ...
    def leads_to(self, alias: str) -> str | None: ...
    def open(self, name: str) -> Marked: ...
    def close(self) -> None: ...


@contextmanager
def opened(store: str, collection: str | None = None) -> Iterator[Marked]:
    """Open a store, or one collection of it.

    Args:
        store: a folder, a file, or an address.
        collection: the name of a collection or table; needed where there are several.

    Raises:
        ConfigError: there is no such store, or it cannot be opened; the message has the next action.
    """
    try:
        found, named = located(store)
        try:
            with explained(found.kind):
                if collection is not None and found.leads_to(collection) is not None:
                    marked = found.open(collection)
                else:
                    marked = found.open(_chosen(found, collection or named))
            marked.place = shlex.quote(shown_address(store))
            yield marked
        finally:
            found.close()
    except ImportError as error:
        raise ConfigError(
            f"Opening {shown_name(shown_address(store))} needs {error.name or 'a package'}, which is not installed "
            "here. Run the command where the program runs that uses the store."
        ) from error


def located(store: str) -> tuple[Any, str | None]:
    """Return what a path or an address names, and the collection where it names one of several.

    Raises:
        ConfigError: there is no such store, or none that is known.
    """
    scheme, found, _ = store.partition("://")
    if not found:
        path = Path(store).expanduser()
        if not path.exists():
            raise ConfigError(f"There is no {str(path)!r}. Nothing was created; check the path.")
        return _at_path(path)
    if scheme.partition("+")[0] in POSTGRES:
        return PostgresDatabase.at_address(store), None
    if scheme in ("http", "https"):
        return _server(store), None
    raise ConfigError(
        f"Addresses begin with http://, https:// or postgresql://, not {shown_name(scheme)}. Name a folder by its path."
    )


def is_store(path: Path) -> bool:
    """Return whether the files at a path are those of a vector store, by their names; files of rows are none."""
    return format_of(path) is None and _known(path) is not None


def _at_path(path: Path) -> tuple[Any, str | None]:
    """Return what reads the files at a path.

    Raises:
        ConfigError: they are of no store.
    """
    if path.is_file() and (form := format_of(path)) is not None:
        return WholeDatabase(path.parent, form, path.name), path.name
    if (known := _known(path)) is not None:
        return known()
    here = ", ".join(sorted(item.name for item in path.iterdir())[:5]) if path.is_dir() else ""
    raise ConfigError(
        f"{str(path)!r} is no store that is known here{f' (it holds {here})' if here else ''}. Name the folder of "
        "Chroma, Qdrant, LanceDB, a FAISS store that LangChain saved or a storage context that LlamaIndex persisted, "
        "the file of Milvus Lite or of a dumped InMemoryVectorStore, JSON lines or Parquet."
    )


def _known(path: Path) -> Callable[[], tuple[Any, str | None]] | None:
    """Return what opens the files at a path, by their names; ``None`` where they are of no store."""
    if path.name == "chroma.sqlite3" or (path / "chroma.sqlite3").is_file():
        return lambda: (ChromaDatabase.in_folder(path.parent if path.is_file() else path), None)
    if (path / "meta.json").is_file() and (path / "collection").is_dir():
        return lambda: (QdrantDatabase.in_folder(path), None)
    if path.suffix == ".lance":
        return lambda: (LanceDatabase.in_folder(path.parent), path.stem)
    if path.is_dir() and any(path.glob("*.lance")):
        return lambda: (LanceDatabase.in_folder(path), None)
    if path.is_dir() and (faiss := _faiss_folder.stores_in(path)):
        return lambda: (StoresInFolder(path, faiss, _faiss_folder.FaissFormat), faiss[0])
    if path.is_dir() and (contexts := _storage_context.stores_in(path)):
        return lambda: (StoresInFolder(path, contexts, _storage_context.ContextFormat), contexts[0])
    if path.suffix == ".json" and path.is_file():
        return lambda: (_Dump(path), None)
    return (lambda: (MilvusDatabase.in_file(path), None)) if is_milvus_lite(path) else None


def format_of(path: Path) -> Format | None:
    """Return the format of a file, by the end of its name."""
    return FILES.get(path.suffix.lower())


class StoresInFolder:
    """The stores in one folder of files, of which there may be several with names of their own."""

    def __init__(self, path: Path, names: Sequence[str], form: Any) -> None:
        self._path, self._names, self._form = path, names, form
        self.kind = form().kind

    def names(self) -> Sequence[str]:
        return self._names

    def leads_to(self, alias: str) -> str | None:
        return None

    def database(self, name: str) -> WholeDatabase:
        """Return the folder above, in which new folders are made."""
        return WholeDatabase(self._path.absolute().parent, self._form(name), self._path.name)

    def open(self, name: str) -> Marked:
        return self.database(name).open(self._path.absolute().name)

    def close(self) -> None:
        """Do nothing: no file stays open."""


class _Dump:
    """The one store in a dump."""

    kind = DumpedStore.kind

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> Sequence[str]:
        return [self._path.name]

    def leads_to(self, alias: str) -> str | None:
        return alias

    def open(self, name: str) -> Marked:
        return DumpedStore(self._path)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _chosen(found: Collections, wanted: str | None) -> str:
    """Return the name of a collection: the one that is wanted, or the only one.

    Raises:
        ConfigError: there is none, or no such one, or there are several.
    """
    names, noun = found.names(), NOUNS.get(found.kind, "collection")
    if wanted in names:
        return str(wanted)
    if wanted is not None and isinstance(found, PostgresDatabase) and found.knows(wanted):
        return wanted
    listed = ", ".join(map(shown_name, names[:20])) + (" …" if len(names) > 20 else "")
    if not names:
        raise ConfigError(f"The store has no {noun}.")
    if wanted is not None:
        raise ConfigError(f"There is no {noun} {shown_name(wanted)}. There are: {listed}.")
    if len(names) > 1:
        raise ConfigError(f"There are {len(names)} {noun}s: {listed}. Name one: --collection {names[0]}")
    return names[0]


NOUNS = {"LanceDB": "table", "FAISS": "store", "LlamaIndex's storage context": "store"}


def _server(address: str) -> Collections:
    """Return what reads a server, after asking the server what it is."""
    if "heartbeat" in _answer(f"{address.rstrip('/')}/api/v2/heartbeat"):
        return ChromaDatabase.at_address(address)
    if "qdrant" in _answer(address.rstrip("/") + "/") or "QDRANT_API_KEY" in os.environ:
        return QdrantDatabase.at_address(address)
    return MilvusDatabase.at_address(address)


def _answer(url: str) -> str:
    try:
        with urlopen(Request(url, headers={"Accept": "application/json"}), timeout=PATIENCE) as answer:
            return str(answer.read(4096), "utf-8", "replace").lower()
    except HTTPError as error:
        with error:
            return str(error.read(4096), "utf-8", "replace").lower()
    except (OSError, ValueError, HTTPException):  # such as a server of another protocol
        return ""
