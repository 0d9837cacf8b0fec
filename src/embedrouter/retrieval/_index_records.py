"""The recorded space of each named vector store, and the guard that holds a store to it; see ``index_guard``."""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import platformdirs

from ..cache import FolderRecords, Records, as_records
from ..errors import ConfigError, SpaceMismatchError
from ..router import Router, wiring_of
from ..types import Space

FOLDER = "indexes"
"""Inside the user's data folder, and in earlier versions inside the cache's folder."""

FRESH = 1.0
"""Seconds for which a record that workers share is not read again."""
PAUSE = 3.0
"""Seconds without a question after a server has not answered."""


class UnreachableRecordsError(ConfigError):
    """The server with the records does not answer."""


def users_folder() -> Path:
    """Return the folder of the user's records on this machine."""
    return Path(platformdirs.user_data_dir("embedrouter", appauthor=False)) / FOLDER


def places_of(router: Router) -> tuple[Path | Records, ...]:
    """Return where the records of indexes are that a router's adapters fill; the first is written."""
    wiring = wiring_of(router)
    folders = dict.fromkeys((users_folder(), wiring.folder / FOLDER))
    return (wiring.shared.indexes, *folders) if wiring.shared is not None else (*folders,)


class IndexGuard:
    """Hold one vector store to one space.

    Both methods use files, or a server: in asynchronous code they belong in a thread.

    Args:
        place: where records are kept: a folder, or records that workers share.
        name: of the vector store.
        space: of the router in front of the store.
        others: where earlier versions kept records, or the machine before its state was shared. They count, too, and
            are used where ``place`` is a folder that cannot be written.

    Raises:
        SpaceMismatchError: the store is recorded in another space.
    """

    def __init__(self, place: Path | Records, name: str, space: Space, *others: Path | Records | None) -> None:
        if not name or not isinstance(name, str):
            raise ConfigError("index= must be the name of the vector store that is being filled, such as 'handbook'.")
        self.name = name
        self._places = [as_records(item) for item in dict.fromkeys((place, *others)) if item is not None]
        self._space = space
        self._found_at: float | None = None
        """When a shared record was read last, and was of this space."""
        self._silent_until = 0.0
        with suppress(UnreachableRecordsError):  # the first call finds out
            self.check()

    def check(self) -> bool:
        """Refuse a store that is recorded in another space; return whether there is a record.

        Raises:
            UnreachableRecordsError: the server with the records does not answer, and has not confirmed this space to
                this process before.
        """
        now, found = time.monotonic(), False
        if self._found_at is not None and now < self._found_at + FRESH:
            return True
        for records in self._places:
            try:
                if records.shared and now < self._silent_until:
                    raise OSError("it did not answer a moment ago")
                space = _read(records, self.name)
            except OSError as error:
                found = found or self._unanswered(records, error)
                continue
            found = found or space is not None
            if space is not None and space != self._space:
                raise SpaceMismatchError(
                    f"The index {self.name!r} holds vectors in the space {space}; this router gives {self._space}, and "
                    f"a distance between the two means nothing. Use a router of the space {space.name}, or embed the "
                    "documents again into an empty index and then run: embedrouter cache forget-index "
                    f"{shlex.join([self.name, *self._option(records)])}; or give another index another name."
                )
            if space is not None and records.shared:
                self._found_at = now
        return found

    def record(self) -> None:
        """Record the space of a store that has no record yet; otherwise check the record.

        Raises:
            ConfigError: the record cannot be written.
        """
        if self._found_at is not None and time.monotonic() < self._found_at + FRESH:
            return
        failure: OSError | None = None
        for records in self._places:
            try:
                records.write_once(self.name, {"index": self.name, **asdict(self._space)})
                break
            except OSError as error:
                failure = error
                if records.shared and self._found_at is not None:  # and has this space
                    return
                if records.shared:  # no other worker would see one on this machine
                    raise ConfigError(self._unwritable(error)) from error
        else:
            assert failure is not None
            raise ConfigError(self._unwritable(failure)) from failure
        self.check()

    def _unanswered(self, records: Records, error: OSError) -> bool:
        """Go on without a server that has confirmed this space before."""
        if not records.shared:
            raise error
        self._silent_until = time.monotonic() + PAUSE
        if self._found_at is None:
            raise UnreachableRecordsError(
                f"The record of the index {self.name!r} on {records.place} cannot be read ({error}), and whether its "
                "vectors are in this router's space is not known. Try again when the server answers, or leave index= "
                "out."
            ) from error
        return True

    def _unwritable(self, failure: OSError) -> str:
        first = self._places[0]
        what = "Try again when the server answers" if first.shared else "Give the right to write there"
        return (
            f"The space of the index {self.name!r} cannot be recorded in {first.place} ({failure}). {what}, or leave "
            "index= out."
        )

    def _option(self, records: Records) -> list[str]:
        """Return the option with which forget-index finds records."""
        if records.shared:
            return ["--state", records.place]
        here = self._places[0].place, str(users_folder())
        return [] if records.place in here else ["--cache", str(Path(records.place).parent)]


def recorded(*places: Path | Records) -> dict[str, Space]:
    """Return the recorded space of every index in some places, by name; the first place that has a name counts."""
    found: dict[str, Space] = {}
    for records in map(as_records, places):
        for name in records.names():
            space = _read(records, name)
            if space is not None:
                found.setdefault(name, space)
    return found


def forget(name: str, *places: Path | Records) -> Space:
    """Remove the records of an index that was emptied or embedded again, and return the space of the first.

    Raises:
        ConfigError: there is no such record; the message lists the names of all records.
    """
    known = recorded(*places)
    if name not in known:
        names = ", ".join(map(repr, known)) or "none"
        where = " and ".join(as_records(item).place for item in places)
        raise ConfigError(f"No index {name!r} is recorded in {where}. There are: {names}.")
    for records in map(as_records, places):
        records.remove(name)
    return known[name]


def move(name: str, space: Space, *places: Path | Records) -> None:
    """Record the space of an index in place of what is recorded: the index was moved to another space.

    Raises:
        OSError: the record cannot be written.
    """
    first, *others = map(as_records, dict.fromkeys(places))
    first.write_again(name, {"index": name, **asdict(space)})
    for records in others:
        records.remove(name)


def _read(records: Records, name: str) -> Space | None:
    """Return the recorded space of an index; ``None`` without a record.

    Raises:
        OSError: the server with the records does not answer.
        ConfigError: the record is damaged.
    """
    try:
        record = records.read(name)
        return None if record is None else Space(record["name"], record["dimensions"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        if records.shared and isinstance(error, OSError):
            raise
        what = f"{name!r} on {records.place}"
        where = records.path(name) if isinstance(records, FolderRecords) else what
        raise ConfigError(f"The record {where} of an index cannot be read. Remove it if the index is new.") from error
