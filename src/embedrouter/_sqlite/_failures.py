"""Tell the causes of SQLite's errors apart."""

import sqlite3
from typing import Literal, TypeAlias

Failure: TypeAlias = Literal[
    "busy", "full", "damaged", "replaced", "foreign", "slow", "no locks", "read-only", "cannot open", "other"
]

CAUSES: dict[int, Failure] = {
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
    sqlite3.SQLITE_INTERRUPT: "slow",
    sqlite3.SQLITE_NOLFS: "no locks",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_CANTOPEN: "cannot open",
    sqlite3.SQLITE_IOERR_SHMSIZE: "full",
}


class ForeignError(sqlite3.DatabaseError):
    """The tables are not those that this package makes."""


class ReplacedError(sqlite3.OperationalError):
    """The file is not the one that was opened: it was removed, or another has its name."""


def failure(error: BaseException | None) -> Failure:
    """Return the cause of an error, such as another writer, a full disk, or a damaged, replaced or foreign file."""
    if isinstance(error, ReplacedError):
        return "replaced"
    if isinstance(error, ForeignError):
        return "foreign"
    code = getattr(error, "sqlite_errorcode", 0)
    return CAUSES.get(code) or CAUSES.get(code & 0xFF, "other")


def sqlite_error(code: int, message: str) -> sqlite3.OperationalError:
    """Return an error whose cause ``failure`` tells."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error
