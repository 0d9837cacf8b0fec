"""SQLite files that threads and processes share."""

from ._failures import ForeignError, ReplacedError, failure, sqlite_error
from ._file import BUSY_TIMEOUT, LONGEST, SQLiteFile, ends_in

__all__ = [
    "BUSY_TIMEOUT",
    "LONGEST",
    "ForeignError",
    "ReplacedError",
    "SQLiteFile",
    "ends_in",
    "failure",
    "sqlite_error",
]
