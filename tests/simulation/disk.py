"""Files of a history: the ledger's database and the cache's rows, which outlive a killed process, and how they fail.

``sqlite3.connect`` is replaced for as long as the simulation runs, so that the ledger's own connections fail where a
real file fails: at the lock, at the commit, or with a commit of which nothing is known. A process may be killed at each
of these moments.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scheduler import Killed

if TYPE_CHECKING:
    from .world import Process, World

FAULTS = (
    "",
    "locked",
    "full",
    "commit unknown",
    "store busy",
    "store full",
    *(f"killed at {moment}" for moment in range(1, 6)),
)
"""What may happen while a blocking function runs; the first is nothing."""


class Fault:
    """What happens to the files while one blocking function runs."""

    def __init__(self, process: Process, name: str) -> None:
        self.process, self.name = process, name
        self._left = int(name.rpartition(" ")[2]) if name.startswith("killed") else 0
        self.happened = False

    def moment(self) -> None:
        """Kill the process if this is the moment: before or after a change of a file."""
        if self._left:
            self._left -= 1
            if not self._left:
                self.happened = True
                self.process.dead = True
                raise Killed

    def fails(self, *names: str) -> bool:
        if self.name in names and not self.happened:
            self.happened = True
            return True
        return False


class Connection(sqlite3.Connection):
    """A connection of a simulated process to the ledger's file."""

    process: Process

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if self.process.dead:
            raise _error(sqlite3.SQLITE_IOERR, "the process is dead")
        fault = self.process.world.fault
        if fault is None or fault.process is not self.process or not sql.startswith(("BEGIN IMMEDIATE", "COMMIT")):
            return super().execute(sql, parameters)
        fault.moment()
        if sql == "COMMIT":
            if fault.fails("full"):
                raise _error(sqlite3.SQLITE_FULL, "database or disk is full")
        elif fault.fails("locked"):
            raise _error(sqlite3.SQLITE_BUSY, "database is locked")
        cursor = super().execute(sql, parameters)
        if sql == "COMMIT":
            fault.moment()
            if fault.fails("commit unknown"):
                raise _error(sqlite3.SQLITE_IOERR, "disk I/O error")
        return cursor


class Store:
    """Rows of the cache, for all processes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows: dict[bytes, bytes] = {}
        self.stored: dict[bytes, int] = {}
        """The number of effects when a row was stored."""
        self.unread: dict[Process, int] = {}
        """The number of effects when a process last failed to read."""
        self.not_kept: set[bytes] = set()
        """Rows that could not be stored, or were damaged."""

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        if (fault := self._world.fault) is not None and fault.fails("store busy", "store full"):
            self.unread[fault.process] = self._world.effects
            raise _store_error(fault.name)
        return {key: self.rows[key] for key in keys if key in self.rows}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        if (fault := self._world.fault) is not None:
            fault.moment()
            if fault.fails("store busy", "store full"):
                self.not_kept |= values.keys()
                raise _store_error(fault.name)
        self.rows.update(values)
        for key in values:
            self.stored.setdefault(key, self._world.effects)
        if fault is not None:
            fault.moment()

    def damage(self, key: bytes) -> None:
        """Cut a row short, which then counts as absent."""
        self.rows[key] = self.rows[key][:-1]
        self.stored.pop(key, None)
        self.not_kept.add(key)

    def clear(self) -> None:
        self.rows.clear()
        self.stored.clear()

    def close(self) -> None:
        pass


def _error(code: int, message: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


def _store_error(name: str) -> Exception:
    return OSError(errno.ENOSPC, "no space") if name == "store full" else _error(sqlite3.SQLITE_BUSY, "locked")


@contextmanager
def failing_files(owner: Callable[[Path], Process | None]) -> Iterator[None]:
    """Let connections fail as the simulation decides; those of a dead process reach no file."""
    connect = sqlite3.connect

    def simulated(database: Any, **settings: Any) -> sqlite3.Connection:
        process = owner(database) if isinstance(database, Path) else None
        if process is None:
            return connect(database, **settings)
        if process.dead:
            return connect(":memory:", **settings)
        connection = connect(database, factory=Connection, **settings)
        connection.process = process
        return connection

    sqlite3.connect = simulated  # type: ignore[assignment]
    try:
        yield
    finally:
        sqlite3.connect = connect
