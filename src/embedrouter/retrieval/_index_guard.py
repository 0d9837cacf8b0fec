"""Which space each named index is in, remembered on disk.

A vector store does not know which model filled it. Whoever names the index when an adapter is built,
``RouterEmbeddings(router, index="handbook")``, has its space recorded with the first documents, and every router of
another space is refused from then on, on this machine: before it fills the index, and before it asks it.

LangChain's ``QdrantVectorStore`` embeds a text of its own whenever it is opened, to measure its length, and that counts
as a document: open a store that is only asked with ``validate_embeddings=False``.

For Chroma there is a second guard, ``embedrouter.chroma``: it writes the space into the collection itself, holds on
every machine, and looks when the collection is opened. This one needs nothing of the store, holds on one machine, and
looks at each call. Neither knows of the other, and both may be used.

A record is one small JSON file in the folder ``indexes`` beside the cache (without a cache, in the user's data folder).
It is written once, atomically: of two processes that come first at the same time one wins, and the other is checked
against it.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote, unquote

from ..errors import ConfigError, SpaceMismatchError
from ..router import Router, wiring_of
from ..types import InputType, Space

__all__ = ["FOLDER", "IndexGuard", "forget", "guard", "guarded", "recorded"]

FOLDER = "indexes"
"""Inside the cache's folder, or the user's data folder."""

SUFFIX = ".json"


class IndexGuard:
    """Holds one index to one space.

    Args:
        folder: where records lie.
        name: the index's.
        space: of the router in front of it.

    Raises:
        SpaceMismatchError: the index is recorded in another space.
    """

    def __init__(self, folder: Path, name: str, space: Space) -> None:
        if not name:
            raise ConfigError("index= must be the name of the vector store that is being filled.")
        self.name = name
        self._path = folder / (quote(name, safe="") + SUFFIX)
        self._space = space
        self.check()

    def check(self) -> None:
        """Refuse if the index is in another space; an index without a record is in none yet."""
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
        """Remember the space, if nothing is remembered yet."""
        if not self._path.exists():
            for folder in (self._path.parent.parent, self._path.parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, suffix=".tmp", encoding="utf-8") as file:
                json.dump({"index": self.name, **asdict(self._space)}, file)
                file.flush()
                with suppress(FileExistsError):
                    os.link(file.name, self._path)
        self.check()


def guard(router: Router, index: str) -> IndexGuard:
    """Return the guard that holds the vector store named ``index`` to a router's space.

    Raises:
        SpaceMismatchError: it is recorded in another space.
    """
    return IndexGuard(wiring_of(router).folder / FOLDER, index, router.space)


@contextmanager
def guarded(guard: IndexGuard | None, texts: Sequence[str], input_type: InputType) -> Iterator[None]:
    """Check the index before a call, and record its space after one that embedded documents."""
    if guard is not None:
        guard.check()
    yield
    if guard is not None and input_type == "document" and texts:
        guard.record()


def recorded(folder: Path) -> dict[str, Space]:
    """Return the space of every index with a record."""
    records = {unquote(path.name.removesuffix(SUFFIX)): _read(path) for path in sorted(folder.glob("*" + SUFFIX))}
    return {name: space for name, space in records.items() if space is not None}


def forget(folder: Path, name: str) -> Space:
    """Remove the record of an index that was emptied or embedded again; return the space it was in.

    Raises:
        ConfigError: there is no such record; the message lists those there are.
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
