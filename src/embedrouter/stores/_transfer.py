"""What a migration needs of a store: pages of rows with ids, texts and metadata, and a new collection to write them to.

A ``Database`` is where collections are: a server, a folder of a store, the folder in which a file stands. It makes the
new collection beside the old one, and gives it the old one's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from ..errors import ConfigError
from ..retrieval.store_guard import Marked
from ..router import Router
from ..types import Vectors

Distance: TypeAlias = Literal["cosine", "l2", "ip"]
"""How a collection compares vectors; ``ip`` is the inner product."""


class NotSwitchable(ConfigError):
    """A store cannot give a name to another collection; the message has the line to change."""


@dataclass(frozen=True, slots=True)
class StoredText:
    """One row of a store, without its vector.

    Attributes:
        id: as the store's framework knows it.
        text: as it is embedded; LlamaIndex embeds a node with its metadata. Empty where the store has no text.
        content: as it is stored.
        metadata: as it is stored beside the text, untouched; a node of LlamaIndex is in it as JSON.
        columns: what else the store keeps with the row, in columns or fields of its own. A store that has no place for
            it keeps it among the metadata.
    """

    id: str
    text: str
    content: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)

    def entries(self) -> dict[str, Any]:
        """Return the metadata together with the further columns: equal before and after a migration."""
        return {**self.columns, **self.metadata}


class Readable(Marked, Protocol):
    """A store that is read to its end. Nothing in here changes it."""

    kind: str
    name: str
    """Of the collection, table or folder."""

    @property
    def database(self) -> Database:
        """Where the collection is; new collections are made beside it there."""
        ...

    def distance(self) -> Distance | None:
        """Return how vectors are compared; ``None`` where the store does not say."""
        ...

    def count(self) -> int:
        """Return the number of rows."""
        ...

    def pages(self, size: int) -> Iterator[Sequence[StoredText]]:
        """Yield all rows once, in an order that stays while nothing is written.

        Rows that were there at the beginning are neither lost nor repeated while others are added.

        Raises:
            Unreadable: the store does not give its rows.
        """
        ...

    def ids(self) -> Iterator[str]:
        """Yield the ids of all rows."""
        ...

    def fetch(self, ids: Sequence[str]) -> Sequence[tuple[StoredText, Vectors]]:
        """Return rows by their ids, with their vectors; ids that are not there are left out.

        Raises:
            Unreadable: the store has no vectors.
        """
        ...

    def search(self, vector: Vectors, count: int) -> Sequence[str]:
        """Return the ids of the rows nearest to a vector, nearest first, as the store's own search finds them.

        Raises:
            Unreadable: the store has no vectors.
        """
        ...


@runtime_checkable
class Writable(Readable, Protocol):
    """A collection that is written to."""

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        """Write rows, in place of those that have the same ids."""
        ...

    def remove(self, ids: Sequence[str]) -> None:
        """Remove rows; ids that are not there are passed over."""
        ...

    def finish(self) -> None:
        """Put everything on disk, for stores that are saved as a whole; before that they are read as they were."""
        ...

    def drop(self) -> None:
        """Remove the collection with everything in it."""
        ...


@runtime_checkable
class Database(Protocol):
    """Where collections are."""

    kind: str
    title: str
    """Names it, as the beginning of a sentence."""
    place: str
    """What ``opened`` and ``database`` take for it, without user and password."""
    named: str | None
    """The collection, where the address already names one (a file, a folder)."""

    def names(self) -> Sequence[str]:
        """Return the names of the collections."""
        ...

    def fitting_name(self, wanted: str) -> str:
        """Return a name that the store takes, as near as possible to the one that is wanted."""
        ...

    def refusal(self, row: StoredText) -> str | None:
        """Return why a row cannot be kept here without loss, as the end of a sentence; ``None`` where it can."""
        ...

    def open(self, name: str) -> Writable:
        """Open a collection.

        Raises:
            ConfigError: there is no such collection.
        """
        ...

    def create(self, name: str, router: Router, like: Readable | None = None) -> Writable:
        """Make a collection, with the router's space in its metadata and the settings of ``like``; or open it.

        Args:
            name: one that ``fitting_name`` returns.
            like: the old collection, whose distance and layout (LangChain's or LlamaIndex's) the new one has. Without
                one the new collection is as LangChain's class makes it.

        Raises:
            SpaceMismatchError: a collection of that name is there, in another space.
            ConfigError: it cannot be made like this.
        """
        ...

    def leads_to(self, alias: str) -> str | None:
        """Return the collection that an alias leads to; ``None`` for the name of a collection itself, or no name."""
        ...

    def switch(self, alias: str, to: str, aside: str) -> None:
        """Let a name lead to another collection.

        Where the store has aliases, ``alias`` is one, and ``aside`` stays as it is: the name of the collection that it
        led to. Otherwise the collection of that name is called ``aside`` from now on. Killed in between and started
        again it goes on; done twice it changes nothing. The way back is ``switch(alias, aside, to)``.

        Raises:
            NotSwitchable: the store cannot; the message has the line to change.
        """
        ...
