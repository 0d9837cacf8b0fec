"""Index guards: the space of each named vector store, recorded on disk.

A vector store does not know which model filled it. An adapter that is built with a name for its store,
``RouterEmbeddings(router, index="handbook")``, records the space with the first documents. From then on a router of
another space is refused on this machine: before it adds documents, and before it searches.

LangChain's ``QdrantVectorStore`` embeds a text of its own as a document whenever it is opened, to measure its length.
A store that is only searched is opened with ``validate_embeddings=False``.

``embedrouter.chroma`` has a second guard, for Chroma alone: it writes the space into the collection, holds on every
machine, and checks when the collection is opened. This guard needs nothing of the store, holds on one machine, and
checks at each call. The two are independent, and both may be used.

A record is one small JSON file in the folder ``indexes`` beside the cache (without a cache, in the user's data folder).
A record is written once, atomically: of two processes that write at the same time one wins, and the other is checked
against the winner's record.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, unquote

from ..errors import ConfigError, SpaceMismatchError
from ..types import Space

FOLDER = "indexes"
"""Inside the cache's folder, or the user's data folder."""

SUFFIX = ".json"


class IndexGuard:
    """Hold one vector store to one space.

    Both methods use files: in asynchronous code they belong in a thread.

    Args:
        folder: where records are kept.
        name: of the vector store.
        space: of the router in front of the store.

    Raises:
        SpaceMismatchError: the store is recorded in another space.
    """

    def __init__(self, folder: Path, name: str, space: Space) -> None:
        if not name:
            raise ConfigError("index= must be the name of the vector store that is being filled.")
        self.name = name
        self._path = folder / (quote(name, safe="") + SUFFIX)
        self._space = space
        self.check()

    def check(self) -> None:
        """Refuse a store that is recorded in another space; a store without a record is accepted."""
        space = _read(self._path)
        if space is not None and space != self._space:
            raise SpaceMismatchError(
                f"The index {self.name!r} holds vectors in the space {space}; this router gives {self._space}, and a "
                f"distance between the two means nothing. Use a router of the space {space.name}, or embed the "
                "documents again into an empty index and then run: "
                + shlex.join(
                    ["embedrouter", "cache", "forget-index", self.name, "--cache", str(self._path.parent.parent)]
                )
            )

    def record(self) -> None:
        """Record the space of a store that has no record yet; otherwise check the record."""
        if not self._path.exists():
            for folder in (self._path.parent.parent, self._path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, suffix=".tmp", encoding="utf-8") as file:
                json.dump({"index": self.name, **asdict(self._space)}, file)
                file.flush()
                with suppress(FileExistsError):
                    os.link(file.name, self._path)
        self.check()


def recorded(folder: Path) -> dict[str, Space]:
    """Return the recorded space of every index in a folder, by name."""
    records = {unquote(path.name.removesuffix(SUFFIX)): _read(path) for path in sorted(folder.glob("*" + SUFFIX))}
    return {name: space for name, space in records.items() if space is not None}


def forget(folder: Path, name: str) -> Space:
    """Remove the record of an index that was emptied or embedded again, and return the space of the record.

    Raises:
        ConfigError: there is no such record; the message lists the names of all records.
    """
    known = recorded(folder)
    if name not in known:
        names = ", ".join(map(repr, known)) or "none"
        raise ConfigError(f"No index {name!r} is recorded in {folder}. There are: {names}.")
    (folder / (quote(name, safe="") + SUFFIX)).unlink()
    return known[name]


def _read(path: Path) -> Space | None:
    try:
        record = json.loads(path.read_text("utf-8"))
        return Space(record["name"], record["dimensions"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(f"The record {path} of an index cannot be read. Remove it if the index is new.") from error
