"""Open a store to read it to its end, or the place where a new collection is made: by path, address or store object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._display import shown_name
from ..errors import ConfigError
from ._chroma import ChromaDatabase
from ._faiss_folder import FaissFormat
from ._lance import LanceDatabase
from ._opening import FILES, StoresInFolder, format_of, located, opened
from ._qdrant import QdrantDatabase
from ._recognition import UnknownStore, recognised
from ._storage_context import ContextFormat
from ._transfer import Database, Readable
from ._whole import WholeDatabase

MAKERS: dict[str, Callable[[Path], Any]] = {
    "chroma": ChromaDatabase.in_folder,
    "qdrant": QdrantDatabase.in_folder,
    "lancedb": LanceDatabase.in_folder,
    "faiss": lambda path: WholeDatabase(path.absolute().parent, FaissFormat(), path.name),
    "llama-index": lambda path: WholeDatabase(path.absolute().parent, ContextFormat(), path.name),
}
"""What makes a new store of each kind, by the word before the colon; the last two are a folder for one store."""


@contextmanager
def readable(store: Any, collection: str | None = None) -> Iterator[Readable]:
    """Open a store, or one collection of it, to read it; nothing is created or changed.

    Args:
        store: a folder, a file, an address, or a vector store of LangChain or LlamaIndex, which stays open.
        collection: the name of a collection or table; needed where there are several.

    Raises:
        ConfigError: there is no such store, it cannot be opened, or is of a kind that cannot be read to its end.
    """
    if isinstance(store, str | Path):
        with opened(str(store), collection) as marked:
            yield _required(marked)
    else:
        yield _behind(store)


@contextmanager
def database(place: Any) -> Iterator[Database]:
    """Open the place where a new collection is made; nothing is made yet.

    Args:
        place: the folder or address of a store, a new one as ``chroma:DIR``, a file with the end of a format, or a
            vector store of LangChain or LlamaIndex, beside which the collection is made. Qdrant opens a folder only
            once: for a new collection in the store that is read, use ``Readable.database``.

    Raises:
        ConfigError: it is of a kind that is not written.
    """
    if not isinstance(place, str | Path):
        yield _behind(place).database
        return
    made: Any = _made(str(place))
    try:
        yield made
    finally:
        made.close()


def _made(place: str) -> Any:
    kind, found, rest = place.partition(":")
    if found and kind in MAKERS:
        return MAKERS[kind](Path(rest).expanduser())
    path = Path(place).expanduser()
    if "://" not in place and (form := format_of(path)) is not None:
        return WholeDatabase(path.parent, form, path.name)
    if "://" not in place and not path.exists():
        raise ConfigError(
            f"{shown_name(place)} is no store that is there, and no file that is written ({', '.join(FILES)}). A new "
            f"store is made by its kind: {', '.join(f'{kind}:{place}' for kind in MAKERS)}."
        )
    made, named = located(place)
    if isinstance(made, StoresInFolder):
        return made.database(named or "")
    if not isinstance(made, Database):
        raise ConfigError(
            f"A store of {made.kind} is only read. Name one of another kind, or write a file, and load that: "
            "FILE.parquet."
        )
    if isinstance(made, LanceDatabase):
        made.named = named
    return made


def _behind(store: Any) -> Any:
    """Return what reads an open store of a framework.

    Raises:
        ConfigError: it is of a kind that is not read.
    """
    inner = getattr(store, "vector_store", store)
    try:
        found = recognised(inner)
    except UnknownStore as error:
        raise ConfigError(
            f"A {type(inner).__name__} is not read to its end. If it is kept in memory, save it and name the folder: "
            "store.save_local('DIR') of LangChain's FAISS, storage_context.persist('DIR') of LlamaIndex; otherwise "
            "name the folder or address of its database."
        ) from error
    return _required(found)


def _required(marked: Any) -> Any:
    """Return a store that is read to its end.

    Raises:
        ConfigError: it is of another kind.
    """
    if not hasattr(marked, "write_rows"):
        title = getattr(marked, "title", "This store")
        raise ConfigError(
            f"{title} is of a kind that is only checked. Read its texts with the framework, and write them into a file "
            "of JSON lines with the fields id, text and metadata."
        )
    return marked
