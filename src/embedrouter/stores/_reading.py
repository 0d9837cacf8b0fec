"""Open a store to read it to its end, or the place where a new collection is made: by path, address or store object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._display import shown_name
from ..errors import ConfigError
from ._chroma import ChromaDatabase
from ._json_lines import JsonLinesFormat
from ._opening import opened
from ._recognition import recognised
from ._transfer import Database, Readable, Writable
from ._whole import WholeDatabase

FILES: dict[str, Any] = {".jsonl": JsonLinesFormat()}
"""Formats of files, by the ends of their names."""
MAKERS: dict[str, Callable[[Path], Any]] = {"chroma": ChromaDatabase.in_folder}
"""What makes a new store of each kind, by the word before the colon."""


@contextmanager
def readable(store: Any, collection: str | None = None) -> Iterator[Readable]:
    """Open a store, or one collection of it, to read it; nothing is created or changed.

    Args:
        store: a folder, a file, an address, or a vector store of LangChain or LlamaIndex, which stays open.
        collection: the name of a collection or table; needed where there are several.

    Raises:
        ConfigError: there is no such store, it cannot be opened, or is of a kind that cannot be read to its end.
    """
    if not isinstance(store, str | Path):
        yield _required(recognised(getattr(store, "vector_store", store)))
        return
    with opened(str(store), collection) as marked:
        yield _required(marked)


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
        yield _required(recognised(getattr(place, "vector_store", place))).database
        return
    kind, found, rest = str(place).partition(":")
    path = Path(rest if found and kind in MAKERS else place).expanduser()
    form = next((form for suffix, form in FILES.items() if path.name.lower().endswith(suffix)), None)
    if form is not None:
        made: Any = WholeDatabase(path.parent, form, path.name)
    elif found and kind in MAKERS:
        made = MAKERS[kind](path)
    else:
        raise ConfigError(f"{shown_name(str(place))} is no store that can be written.")
    try:
        yield made
    finally:
        made.close()


def _required(marked: Any) -> Any:
    if not isinstance(marked, Writable):
        title = getattr(marked, "title", "This")
        raise ConfigError(f"{title} is of a kind that is not read to its end.")
    return marked
