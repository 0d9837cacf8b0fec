"""What a migration needs of a store: pages of rows with ids, texts and metadata, and a new collection to write them to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..retrieval.store_guard import Marked
from ..router import Router
from ..types import Vectors


@dataclass(frozen=True, slots=True)
class StoredText:
    """One row of a store, without its vector.

    Attributes:
        id: as the store's framework knows it.
        text: as it is embedded; LlamaIndex embeds a node with its metadata.
        content: as it is stored.
        metadata: as it is stored beside the text, untouched; a node of LlamaIndex is in it as JSON.
    """

    id: str
    text: str
    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Readable(Marked, Protocol):
    """A store that is read to its end. Nothing in here changes it."""

    kind: str
    name: str
    """Of the collection, table or folder."""

    def count(self) -> int:
        """Return the number of rows."""
        ...

    def pages(self, size: int) -> Iterator[Sequence[StoredText]]:
        """Yield all rows once, in an order that stays while nothing is written."""
        ...

    def ids(self) -> Iterator[str]:
        """Yield the ids of all rows."""
        ...

    def fetch(self, ids: Sequence[str]) -> Sequence[tuple[StoredText, Vectors]]:
        """Return rows by their ids, with their vectors; ids that are not there are left out."""
        ...

    def search(self, vector: Vectors, count: int) -> Sequence[str]:
        """Return the ids of the rows nearest to a vector, as the store's own search finds them."""
        ...


@runtime_checkable
class Writable(Readable, Protocol):
    """A collection that is written to."""

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        """Write rows, in place of those that have the same ids."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        ...

    def finish(self) -> None:
        """Put everything on disk, for stores that are saved as a whole."""
        ...

    def drop(self) -> None:
        """Remove the collection with everything in it."""
        ...


class Switchable(Protocol):
    """A store that can give one name to another collection in one step, which can be undone."""

    def switch(self, alias: str, to: str) -> str | None:
        """Let a name lead to a collection; return what it led to before."""
        ...


class NewCollection(Protocol):
    """Makes the new collection of a migration, or opens the one that an earlier run has begun."""

    def __call__(self, name: str, router: Router, like: Readable) -> Writable:
        """Return the collection, with the router's space in its metadata and the settings of ``like``.

        Args:
            like: the old collection, whose distance and layout (LangChain's or LlamaIndex's) the new one has.
        """
        ...
