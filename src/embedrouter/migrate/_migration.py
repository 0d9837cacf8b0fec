"""What is moved, and where to: the old collection, the router of the new space, the new collection and its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from .. import stores
from .._display import shown_name
from ..errors import ConfigError, SpaceMismatchError
from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.store_guard import recorded_space
from ..router import Router
from ..stores import FILES, Database, Readable, Writable, readable
from ..tiered import TieredRouter
from ..types import Space
from ._entry import Entry, read_entry

LONGEST_NAME = 58
"""Characters: PostgreSQL takes 63, and LlamaIndex puts five before the name of a table."""


@dataclass(frozen=True, slots=True, eq=False)
class Migration:
    """A migration as it is asked for; nothing is open.

    Attributes:
        source: the path or the address of the old store, or a store object.
        router: gives the new vectors.
        own: whether the router was built for this migration, and is closed after each step.
        collection: the name of the old collection, where the store has several.
        into: another store for the new collection; ``None`` for the old one's.
        name: of the new collection; ``None`` for the old one's name with the new space.
    """

    source: Any
    router: Router
    own: bool
    collection: str | None = None
    into: Any = None
    name: str | None = None

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """Open the old collection, and the new one if it is there. Nothing is made.

        Raises:
            SpaceMismatchError: the new collection is in another space.
            ConfigError: a store cannot be opened, or a collection in the new one's place is of something else.
        """
        with ExitStack() as stack:
            if self.own:
                stack.callback(self.router.close)
            try:
                first, alias = stack.enter_context(_readable(self.source, self.collection))
            except ConfigError as error:
                first, alias = stack.enter_context(_readable(self.source, self._found_again(error)))
            entry = read_entry(first)
            if entry is not None and entry.switched and recorded_space(first) == self.router.space:
                yield _since_the_switch(self, first, alias, entry)
                return
            database = first.database if self.into is None else stack.enter_context(_database(self.into))
            yield _before_a_switch(self, first, alias, entry, database)

    def _found_again(self, error: ConfigError) -> str:
        """Return the name of the old collection where migrations explain why it was not found.

        There are several collections because one is the new one; or a switch was killed between two names, and is
        finished here.

        Raises:
            ConfigError: that is not the reason; it is ``error``.
        """
        with ExitStack() as stack:
            try:
                database = stack.enter_context(_database(self.source))
            except ConfigError:
                raise error from None
            names = set(database.names())
            made = {name: entry for name in names if (entry := read_entry(database.open(name))) is not None}
            for entry in made.values():
                between = entry.state in ("switching", "undoing") and entry.aside and entry.alias not in names
                if between and self.collection in (None, entry.alias):
                    pair = (entry.name, str(entry.aside))
                    database.switch(entry.alias, *(pair if entry.state == "switching" else reversed(pair)))
                    return entry.alias
            asides = {entry.aside for entry in made.values() if entry.switched}
            left = names - asides - {name for name, entry in made.items() if not entry.switched or entry.name == name}
            if self.collection is None and len(left) == 1:
                return left.pop()
        raise error


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The two collections of a migration, open.

    Attributes:
        source: the old collection.
        database: where the new one is, or will be.
        name: of the new collection, as the database has it now.
        alias: the name that the user's programs open.
        target: the new collection; ``None`` while there is none.
        entry: the state that the new collection shows.
        renamed: whether the user's name leads to the new collection now.
    """

    source: Readable
    database: Database
    router: Router
    name: str
    alias: str
    target: Writable | None = None
    entry: Entry | None = None
    renamed: bool = False

    @property
    def switched(self) -> bool:
        """Whether the user's programs are to open the new collection."""
        return self.entry is not None and self.entry.switched

    def filled(self) -> tuple[Writable, Entry]:
        """Return the new collection and its entry.

        Raises:
            ConfigError: no run has begun, or none has ended.
        """
        if self.target is None or self.entry is None:
            raise ConfigError(
                f"There is no collection {shown_name(self.name)} yet: the migration has not run. First: run(…), "
                "embedrouter migrate without a step."
            )
        if self.entry.state == "filling":
            raise ConfigError(
                f"The migration into {shown_name(self.name)} has not ended. Run it again: it goes on, and pays nothing "
                "twice."
            )
        return self.target, self.entry


def migration(
    source: Any,
    target: GivenRouter | None,
    collection: str | None,
    into: Any,
    name: str | None,
    settings: Mapping[str, Any],
) -> Migration:
    """Return the migration of a plan, or the one that arguments describe.

    Raises:
        ConfigError: the router cannot be built, or none is named.
    """
    if isinstance(planned := getattr(source, "migration", source), Migration):
        return planned
    if target is None:
        raise ConfigError(
            "A migration needs the model of the new space: plan(source, 'openai:text-embedding-3-small')."
        )
    if into is not None and isinstance(into, str) and into == source:
        into = None
    router = as_router(target, settings)
    return Migration(source, router, not isinstance(target, Router | TieredRouter), collection, into, name)


def require_unswitched(alias: str, switched: bool) -> None:
    """Refuse to fill a collection that programs write to.

    Raises:
        ConfigError: they were switched to it.
    """
    if switched:
        raise ConfigError(
            f"{shown_name(alias)} was switched to the new collection, and a run would remove what was added there "
            "since. Go back first: switch(…, undo=True), --undo."
        )


def new_name(alias: str, space: Space, old: Space | None = None) -> str:
    """Return the name of a collection in a space, which every kind of store takes.

    Args:
        alias: the name of the old collection; the space that an earlier migration has put at its end is replaced.
        old: the space of the old collection.
    """
    alias = without_ending(alias)
    if old is not None:
        alias = alias.removesuffix(f"--{_slug(old)}")
    base = re.sub(r"[^A-Za-z0-9_.-]+", "-", alias).strip("-_.") or "index"
    name = f"{base}--{_slug(space)}"
    if len(name) > LONGEST_NAME:
        digest = blake2b(f"{alias}\0{space}".encode(), digest_size=4).hexdigest()
        name = f"{name[: LONGEST_NAME - 9].rstrip('-_.')}-{digest}"
    return name


def without_ending(alias: str) -> str:
    """Return the name of a collection without the ending that it has as a file."""
    return next((alias.removesuffix(end) for end in FILES if alias.endswith(end)), alias)


def _slug(space: Space) -> str:
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", space.name.rpartition("/")[2]).strip("-.")
    return f"{plain or 'space'}-{space.dimensions}"


def _since_the_switch(asked: Migration, first: Readable, alias: str, entry: Entry) -> Opened:
    """Return the collections where the user's name leads to the new one."""
    database = first.database
    name = database.leads_to(alias) or alias
    if entry.aside is None or entry.aside not in database.names():
        raise ConfigError(
            f"{first.title} is in the space {asked.router.space} already, and the collection that it has replaced "
            "is gone. There is nothing to do."
        )
    target = database.open(name)
    return Opened(database.open(entry.aside), database, asked.router, name, alias, target, entry, renamed=True)


def _before_a_switch(asked: Migration, first: Readable, alias: str, entry: Entry | None, database: Database) -> Opened:
    """Return the collections where the user's name leads to the old one."""
    router, old = asked.router, recorded_space(first)
    if entry is not None and not entry.switched and entry.state != "ended":
        raise ConfigError(
            f"{first.title} is itself being filled from {entry.alias!r}. Name that collection as the one to migrate."
        )
    name = asked.name or (database.named if asked.into is not None else None)
    name = name or database.fitting_name(new_name(alias, router.space, old))
    inside = asked.into is None
    if inside and (name in (alias, first.name) or old == router.space):
        raise ConfigError(
            f"{first.title} is in the space {router.space} already: there is nothing to do. To change it, name "
            "another model: --to."
            if old == router.space
            else f"The new collection needs another name than {shown_name(name)}, which is the old one's."
        )
    there = name in database.names()
    if asked.name and not there and (fitting := database.fitting_name(name)) != name:
        raise ConfigError(f"A store of {database.kind} takes no name like {shown_name(name)}; it takes {fitting!r}.")
    target = database.open(name) if there else None
    known = None if target is None else _checked(target, alias, first.kind, router)
    return Opened(first, database, router, name, alias, target, known)


def _checked(target: Writable, alias: str, kind: str, router: Router) -> Entry | None:
    """Return the entry of a collection in the new one's place.

    Raises:
        SpaceMismatchError: it is in another space.
        ConfigError: it is not filled by this migration.
    """
    space, entry = recorded_space(target), read_entry(target)
    other = f"Choose another name for the new collection, or remove {shown_name(target.name)}."
    if space is not None and space != router.space:
        raise SpaceMismatchError(f"{target.title} is in the space {space}; this router gives {router.space}. {other}")
    if entry is None:
        if target.count():
            raise ConfigError(f"{target.title} holds rows that no migration has written. {other}")
        return None
    if (entry.alias, entry.origin) != (alias, kind):
        raise ConfigError(
            f"{target.title} is filled from {entry.alias!r} ({entry.origin}), not from {alias!r}. {other}"
        )
    return entry


@contextmanager
def _readable(source: Any, collection: str | None) -> Iterator[tuple[Readable, str]]:
    """Give the collection that programs open, and the name by which they do: an alias, where the store has them."""
    if isinstance(source, Database) and collection is not None:
        yield source.open(collection), collection
        return
    with readable(source, collection) as found:
        wanted, database = collection or found.name, found.database
        aliased = database.leads_to(wanted) is not None
        if isinstance(source, str | Path) or not (aliased or wanted in database.names()):
            yield found, wanted if aliased else found.name
        else:  # what a store object has open may have another name since a switch
            yield database.open(wanted), wanted


@contextmanager
def _database(into: Any) -> Iterator[Database]:
    if isinstance(into, Database):
        yield into
        return
    with stores.database(into) as found:
        yield found
