"""Let the user's programs open the new collection, go back, and remove the old one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._display import counted, first_few, shown_name
from ..errors import ConfigError
from ..retrieval.given_router import GivenRouter
from ..retrieval.index_guard import move, places_of, recorded
from ..retrieval.store_guard import recorded_space
from ..router import Router
from ..stores import Database, NotSwitchable, Writable
from ..types import Space
from ._check import Verification
from ._entry import Entry, write_entry
from ._migration import Opened, migration, without_ending
from ._verify import verified


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch has changed.

    Attributes:
        alias: the name in the user's programs.
        name: the collection that the programs are to open now.
        line: what to change by hand; empty where the name leads to the collection already.
        old: the name of the other collection now.
        model: what programs embed queries and further texts with from now on; empty on the way back, where it is the
            old one again.
        records: names of ``index=`` whose records follow.
        undone: whether it was the way back.
        surplus: on the way back, ids of rows of the new collection that the old one lacks.
        verification: on which it was done; ``None`` on the way back, and where it was forced.
    """

    alias: str
    name: str
    line: str
    old: str
    model: str = ""
    records: tuple[str, ...] = ()
    undone: bool = False
    surplus: tuple[str, ...] = ()
    verification: Verification | None = None

    def __str__(self) -> str:
        """Describe the switch, with the line to change."""
        ours, other = ("old", "new") if self.undone else ("new", "old")
        what = self.line or f"{shown_name(self.alias)} is the {ours} collection now; the {other} one is {self.old}."
        with_ = f"with {self.model} from now on" if self.model else "with the old model again"
        what += f" Programs have to embed queries and further texts {with_}."
        if self.records:
            what += f" The record of the index {', '.join(map(shown_name, self.records))} follows."
        if self.surplus:
            what += (
                f" The new one holds {counted(len(self.surplus), 'row')} that the old one lacks: "
                f"{first_few(self.surplus)}. Put them into the old one: the next run removes them."
            )
        return what


def switch(
    source: Any,
    target: GivenRouter | None = None,
    *,
    collection: str | None = None,
    into: Any = None,
    name: str | None = None,
    undo: bool = False,
    force: bool = False,
    verification: Verification | None = None,
    index: str | None = None,
    **settings: Any,
) -> Switched:
    """Give the new collection the name of the old one, where the store can; otherwise return the line to change.

    Queries have to be embedded by the new model from then on, so programs change their router at the same time.
    Programs that keep a collection open, as with Chroma, see the new one when they open it again. Killed in between and
    called again, this goes on.

    Args:
        source: a ``Plan``, or the arguments of ``plan``.
        undo: give the name back to the old collection.
        force: switch although the verification has failed.
        verification: what ``verify`` has returned a moment ago; by default it is done now.
        index: the name that the programs give as ``index=``; by default that of the collection.

    Raises:
        ConfigError: the verification has failed, or nothing was moved, or there is nothing to undo.
    """
    asked = migration(source, target, collection, into, name, settings)
    with asked.opened() as opened:
        new, entry = opened.filled()
        if undo:
            return _back(opened, new, entry)
        if not entry.switched and not force:
            verification = verification or verified(opened)
            if not verification.passed:
                raise ConfigError(
                    f"Nothing was switched, because the verification has failed. {verification.failure} Or switch all "
                    "the same: force=True, --force."
                )
        return _forth(opened, new, entry, index or opened.alias, verification)


def _forth(opened: Opened, new: Writable, entry: Entry, index: str, verification: Verification | None) -> Switched:
    database, line = opened.database, ""
    if entry.state != "switched":
        if entry.state != "switching":
            places, old = places_of(opened.router), recorded_space(opened.source)
            known = {one: space for one, space in recorded(*places).items() if one == index}
            moved = {one: (space.name, space.dimensions) for one, space in known.items() if old in (None, space)}
            aside = database.leads_to(opened.alias) or _free_name(database, f"{without_ending(opened.alias)}--old")
            entry = replace(entry, state="switching", name=opened.name, aside=aside, records=moved)
        line = _elsewhere(opened)
        entry = write_entry(new, replace(entry, aside=None) if line else entry)
        if not line and not opened.renamed:
            assert entry.aside is not None, "names are changed"
            try:
                database.switch(opened.alias, opened.name, entry.aside)
            except NotSwitchable as refusal:
                line, entry = str(refusal), replace(entry, aside=None)
            else:
                new = database.open(database.leads_to(opened.alias) or opened.alias)
        _set_records(opened.router, dict.fromkeys(entry.records, opened.router.space))
        entry = write_entry(new, replace(entry, state="switched"))
    elif entry.aside is None:
        line = _elsewhere(opened) or f"Programs are to open {shown_name(opened.name)}; no name was changed."
    old_name = entry.aside or opened.source.name
    model = opened.router.models[0]
    return Switched(opened.alias, new.name, line, old_name, model, tuple(entry.records), verification=verification)


def _back(opened: Opened, new: Writable, entry: Entry) -> Switched:
    if not entry.switched:
        raise ConfigError(f"{shown_name(opened.alias)} was not switched: there is nothing to undo.")
    database, line = opened.database, ""
    held = set(opened.source.ids())
    surplus = tuple(one for one in new.ids() if one not in held)
    entry = write_entry(new, replace(entry, state="undoing"))
    if entry.aside is None:
        line = f"Programs are to open {shown_name(opened.source.name)} again: no name was changed."
    elif opened.renamed:
        database.switch(opened.alias, entry.aside, entry.name)
        new = database.open(entry.name)
    _set_records(opened.router, entry.spaces())
    write_entry(new, replace(entry, state="filled", aside=None, records={}))
    moved = tuple(entry.records)
    return Switched(opened.alias, opened.alias, line, entry.name, "", moved, undone=True, surplus=surplus)


def drop_old(
    source: Any,
    target: GivenRouter | None = None,
    *,
    collection: str | None = None,
    into: Any = None,
    name: str | None = None,
    force: bool = False,
    **settings: Any,
) -> str:
    """Remove the old collection with everything in it, after the switch; return what was removed. It cannot be undone.

    Args:
        source: a ``Plan``, or the arguments of ``plan``.
        force: remove it although it holds rows that the new one lacks.

    Raises:
        ConfigError: programs were not switched, or the old collection holds rows that the new one lacks.
    """
    asked = migration(source, target, collection, into, name, settings)
    with asked.opened() as opened:
        new, entry = require_droppable(opened, force=force)
        old, title = opened.source, described(opened)
        old.database.open(old.name).drop()
        write_entry(new, replace(entry, state="ended", aside=None))
        return title


def described(opened: Opened) -> str:
    """Return what ``drop_old`` removes."""
    source = opened.source
    place = "" if os.sep in source.title else f" in {source.database.place}"  # a file's title has its path
    return f"{source.title}{place}, {counted(source.count(), 'row')}"


def require_droppable(opened: Opened, *, force: bool) -> tuple[Writable, Entry]:
    """Return the new collection and its entry, if the old one may be removed.

    Raises:
        ConfigError: programs were not switched, or the old collection holds rows that the new one lacks.
    """
    new, entry = opened.filled()
    if entry.state != "switched":
        raise ConfigError(
            f"{opened.source.title} stays until programs open the new one. First: switch(…), embedrouter migrate "
            "--switch."
        )
    held, left_out = set(new.ids()), {one for ids in entry.left_out.values() for one in ids}
    lacking = [one for one in opened.source.ids() if one not in held and one not in left_out]
    if lacking and not force:
        raise ConfigError(
            f"{opened.source.title} holds {counted(len(lacking), 'row')} that the new one lacks: {first_few(lacking)}. "
            "If they were added since the switch, put them into the new one; if they were deleted there, remove the "
            "old one all the same: force=True, --force."
        )
    return new, entry


# Names and records


def _elsewhere(opened: Opened) -> str:
    """Return the line to change where the new collection is in another store; empty where it is in the old one's."""
    if opened.source.database is opened.database or opened.source.database.place == opened.database.place:
        return ""
    named = "" if opened.database.place.endswith(opened.name) else f"{shown_name(opened.name)} in "
    return (
        f"Programs are to open {named}{opened.database.place} ({opened.database.kind}) in place of "
        f"{shown_name(opened.alias)}."
    )


def _free_name(database: Database, wanted: str) -> str:
    taken, name, number = set(database.names()), database.fitting_name(wanted), 1
    while name in taken:
        number += 1
        name = database.fitting_name(f"{wanted}-{number}")
    return name


def _set_records(router: Router, spaces: Mapping[str, Space]) -> None:
    """Record indexes in other spaces than before."""
    for name, space in spaces.items():
        move(name, space, *places_of(router))
