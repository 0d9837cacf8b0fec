"""One way into a file: a connection, with which the threads of a process take turns."""

import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .._process import LAST_WAIT, is_barred
from ._failures import sqlite_error

INDEX_SIZE = 2**15
"""Bytes of the index of SQLite's log, at least."""
STEPS = 20_000
"""Instructions of SQLite between two looks at the time: about a millisecond."""


class Way:
    """One way into a file: its connection while it is open, and the lock by which threads take turns with it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.busy_timeout: float | None = None
        self.until = math.inf
        """End of the transaction, of ``time.monotonic``."""

    @contextmanager
    def turn(self, seconds: float, reason: str) -> Iterator[None]:
        """Wait for the other threads; while the interpreter ends a daemon thread waits for ever."""
        if not self.lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            raise sqlite_error(sqlite3.SQLITE_BUSY, reason)
        try:
            if not (barred := is_barred()):
                yield
        finally:
            self.lock.release()
        if barred:  # inside SQLite the thread would crash when Python frees what is left
            threading.Event().wait()

    def is_over(self) -> bool:
        """Say whether the statement that runs is to be interrupted."""
        return time.monotonic() > self.until

    def close(self) -> None:
        if self.connection is not None:
            with suppress(sqlite3.Error):
                self.connection.close()
            self.connection = self.busy_timeout = None


def close_unused(*ways: Way) -> None:
    """Close what no thread uses. A connection that is only forgotten is a ``ResourceWarning``."""
    for way in ways:
        if way.lock.acquire(timeout=LAST_WAIT):
            way.close()
            way.lock.release()
