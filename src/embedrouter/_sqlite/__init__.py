"""SQLite files that threads and processes share, and what is made for its owner alone."""

from ._failures import ForeignError, ReplacedError, failure, sqlite_error
from ._file import BUSY_TIMEOUT, LONGEST, SQLiteFile, ends_in
from ._file_system import free_bytes, is_read_only, size_on_disk
from ._own_files import make_file, make_folder, refuse_link

__all__ = [
    "BUSY_TIMEOUT",
    "LONGEST",
    "ForeignError",
    "ReplacedError",
    "SQLiteFile",
    "ends_in",
    "failure",
    "free_bytes",
    "is_read_only",
    "make_file",
    "make_folder",
    "refuse_link",
    "size_on_disk",
    "sqlite_error",
]
