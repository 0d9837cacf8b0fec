"""The way into a file that may only be read: in an image, on a read-only mount, of another user, or on a full disk.

Nothing is made beside the file. Which of SQLite's ways is right depends on what is there:

* a log and its index: another process may write. ``mode=ro`` takes SQLite's locks and shows what is written meanwhile.
* a log without its index, such as in a copy of a folder in use: the log is read with an index in memory
  (``vfs=unix-none`` and an exclusive lock that is none). Without its log the file may be damaged.
* no log: no process has the file open, so ``immutable=1``, which needs no index.

With the last two SQLite does not notice when a process begins to write, perhaps on the other side of a mount. So the
state of the files is compared before and after each transaction.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ._failures import ReplacedError, failure
from ._file_system import size
from ._way import INDEX_SIZE, STEPS, Way

Prepare: TypeAlias = Callable[[sqlite3.Connection], sqlite3.Connection]
"""Prepares a new connection, and returns it, or one to a copy in memory."""


class ReadOnlyWay(Way):
    """Opens a file to read it, and finds out when another process has written to it."""

    def __init__(self) -> None:
        super().__init__()
        self._state: tuple[object, ...] | None = None
        """Of the files when they were opened; ``None`` where SQLite itself notices changes."""

    def open(self, path: Path, seconds: float, prepare: Prepare) -> sqlite3.Connection:
        """Return a connection that can write nothing, waiting ``seconds`` for another process."""
        state = _state(path)
        has_index = size(f"{path}-shm") >= INDEX_SIZE  # a full disk leaves a shorter one
        watched = size(f"{path}-journal") >= 0 or (size(f"{path}-wal") >= 0 and has_index)
        alone = not watched and size(f"{path}-wal") > 0
        query = "" if watched else "&vfs=unix-none" if alone else "&immutable=1"
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro{query}",
            uri=True,
            timeout=seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.set_progress_handler(self.is_over, STEPS)
            connection.execute("PRAGMA mmap_size = 0")
            if alone:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE").close()
            shown = prepare(connection)
        except BaseException:
            connection.close()
            raise
        if shown is not connection:
            connection.close()
            shown.set_progress_handler(self.is_over, STEPS)
        self._state = None if watched and shown is connection else state
        return shown

    def close_if_changed(self, path: Path) -> None:
        """Close the file if another process has written to it, so that it is opened anew."""
        if self._state not in (None, _state(path)):
            self.close()

    def require_unchanged(self, path: Path) -> None:
        """Refuse what was read while another process began to write.

        Raises:
            ReplacedError: read again.
        """
        if self._state not in (None, _state(path)):
            raise ReplacedError("another process wrote to it while it was read")


def may_be_read(path: Path, error: sqlite3.Error) -> bool:
    """Return whether a file that cannot be opened to be written may be read all the same."""
    return failure(error) in ("read-only", "full", "cannot open") and size(path) > 0


def _state(path: Path) -> tuple[object, ...]:
    return tuple(_facts(f"{path}{suffix}") for suffix in ("", "-wal", "-journal"))


def _facts(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - half the time of Path.stat
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
