"""Open a store to put vectors into it: one that is there, or a new one, which is made with its mark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import ConfigError
from ..retrieval.store_guard import hold
from ..router import Router
from ..types import Vectors
from ._reading import MAKERS, database
from ._transfer import Database, StoredText, Writable

COLLECTION = "documents"
"""The name of a new collection, where none is given."""


class Filling:
    """One store that is being filled; a new one is made by ``begin``, so that a run that is refused makes none."""

    def __init__(self, place: Database, name: str, router: Router) -> None:
        self._place, self._name, self._router = place, name, router
        self._store: Writable | None = None
        if name in place.names():
            self._store = place.open(name)
            hold(self._store, router, adopt=False)

    def begin(self) -> None:
        """Make the store, if there is none."""
        if self._store is None:
            self._store = self._place.create(self._name, self._router)

    def put(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        """Write rows, in place of those that have the same ids.

        Raises:
            ConfigError: the store cannot keep one of them.
        """
        assert self._store is not None, "it has begun"
        for row in rows:
            if (reason := self._place.refusal(row)) is not None:
                raise ConfigError(f"The text {row.id!r} is not written: {reason}.")
        self._store.write_rows(rows, vectors)

    def finish(self) -> None:
        """Put everything on disk."""
        if self._store is not None:
            self._store.finish()


@contextmanager
def filling(store: str, collection: str | None, router: Router) -> Iterator[Filling]:
    """Open a store that is held to the router's space.

    Args:
        store: a path or an address, or a new one by its kind, such as ``chroma:PATH``.
        collection: the name of a collection or table.
        router: gives the vectors.

    Raises:
        SpaceMismatchError: the store is in another space.
        ConfigError: the store cannot be opened, or is of a kind that is not written.
    """
    kind, found, _ = store.partition(":")
    new = bool(found) and kind in MAKERS
    with database(store) as place:
        names = place.names()
        name = place.named or collection or (COLLECTION if new or len(names) != 1 else names[0])
        if not new and name not in names and collection is None and names:
            raise ConfigError(f"There are several collections: {', '.join(names)}. Name one: --collection {names[0]}")
        made = Filling(place, name if name in names else place.fitting_name(name), router)
        yield made
        made.finish()
