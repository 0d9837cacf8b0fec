"""One SQLite file that threads and processes share, for the ledger and for the tables beside the cache.

There are two ways in. ``writing`` is a transaction that takes the file's write lock when it begins, so that what it
reads stays true until it commits. ``reading`` takes no write lock: SQLite's write-ahead log (WAL) shows the file as it
was at the first query, and a reader neither waits for a writer nor delays one. Each way has a connection of its own.
The threads of a process take turns with a connection: one for each thread could not be closed before a fork, where a
child must not inherit it.

A cursor must not outlive the block in which it was made: when it is freed it resets its statement, which another thread
may be executing by then, and until then it keeps a closed file open.

Errors are SQLite's own (``sqlite3.Error``), also those of the file system. ``failure`` tells their causes apart.
"""

import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

from ._process import watch_forks

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another writer."""
LAST_WAIT = 1.0
"""Seconds that a file which is forgotten without being closed waits for a thread that still uses it."""

Failure: TypeAlias = Literal["busy", "full", "damaged", "replaced", "other"]

CAUSES: dict[int, Failure] = {
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}


class ReplacedError(sqlite3.OperationalError):
    """The file is not the one that was opened: it was removed, or another has its name."""


def failure(error: BaseException | None) -> Failure:
    """Return the cause of an error: another writer, a full disk, a damaged file, a replaced one, or another."""
    if isinstance(error, ReplacedError):
        return "replaced"
    return CAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "other")


def sqlite_error(code: int, message: str) -> sqlite3.OperationalError:
    """Return an error whose cause ``failure`` tells."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


class _Way:
    """One way into a file: its connection while it is open, and the lock by which threads take turns with it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.busy_timeout: float | None = None

    def close(self) -> None:
        if self.connection is not None:
            with suppress(sqlite3.Error):
                self.connection.close()
            self.connection = self.busy_timeout = None


def _close_unused(*ways: _Way) -> None:
    """Close what no thread uses. A connection that is only forgotten is a ``ResourceWarning``."""
    for way in ways:
        if way.lock.acquire(timeout=LAST_WAIT):
            way.close()
            way.lock.release()


class SQLiteFile:
    """Opens a file when it is first used, makes it and its tables if they are missing, and closes it before a fork.

    Args:
        path: the file; its folders are made with rights for the owner alone, and so is the file. ``None`` keeps the
            tables in memory.
        version: of the tables, kept as SQLite's ``user_version``.
        migrate: makes or changes the tables, given the version that was found (0 in a new file), inside a transaction;
            it must not commit, which ``executescript`` does.
        pragmas: set while the file is empty, such as ``page_size``: some wait for the write lock of a file in use.
        busy_timeout: seconds to wait for another writer.

    Raises:
        sqlite3.Error: from ``writing`` and ``reading``: the file cannot be opened, read or written, or a later version
            of the tables is in it (``DatabaseError``).
        ReplacedError: from the same, until ``close``: the file was removed or replaced while it was in use.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        version: int,
        migrate: Callable[[sqlite3.Connection, int], None],
        pragmas: Mapping[str, int | str] | None = None,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> None:
        self.path = path
        self._version, self._migrate = version, migrate
        self._pragmas = pragmas or {}
        self._busy_timeout = busy_timeout
        self._identity: tuple[int, int] | None = None
        """Of the file that was opened first."""
        self._writer: int | None = None
        """The thread that is inside a transaction."""
        self._writing, self._reading = _Way(), _Way()
        """Their locks are taken in this order by a thread that needs both."""
        weakref.finalize(self, _close_unused, self._reading, self._writing)
        watch_forks(self)

    @property
    def is_writing(self) -> bool:
        """Whether the calling thread is inside ``writing``."""
        return self._writer == threading.get_ident()

    @contextmanager
    def writing(self, *, busy_timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        """Hold the write lock, and commit unless something is raised; inside another ``writing``, be part of it."""
        seconds = self._busy_timeout if busy_timeout is None else busy_timeout
        if not self._writing.lock.acquire(timeout=seconds):
            raise sqlite_error(sqlite3.SQLITE_BUSY, "another thread holds the write lock")
        before = self._writer
        try:
            with self._transaction(self._writing, "BEGIN IMMEDIATE", seconds) as connection:
                self._writer = threading.get_ident()
                yield connection
        finally:
            self._writer = before
            self._writing.lock.release()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Show the file as it is at the first query; inside ``writing``, as that transaction has made it."""
        if self.path is None or self.is_writing:
            with self.writing() as connection:
                yield connection
            return
        if self._writing.connection is None:  # the first connection makes the tables
            with self._writing.lock:
                self._connect(self._writing, self._busy_timeout)
        with self._reading.lock, self._transaction(self._reading, "BEGIN", self._busy_timeout) as connection:
            yield connection

    def vacuum(self) -> None:
        """Write the file anew without its empty pages, and empty the log. Waits for other writers."""
        with self._writing.lock:
            connection = self._connect(self._writing, self._busy_timeout)
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def close(self) -> None:
        """Close the file; the next use opens it again, also if it was replaced. Tables in memory stay."""
        with self._writing.lock, self._reading.lock:
            self._close_file()
        self._identity = None

    def close_if_replaced(self) -> None:
        """Close the file if it was removed or replaced, so that the next use begins a new one."""
        if self._is_replaced():
            self.close()

    def _is_replaced(self) -> bool:
        return self._identity is not None and _identity(self.path) != self._identity

    def _close_file(self) -> None:
        if self.path is not None:
            self._reading.close()
            self._writing.close()

    # Connections

    @contextmanager
    def _transaction(self, way: _Way, begin: str, seconds: float) -> Iterator[sqlite3.Connection]:
        """A lock or a full disk passes, and the connection stays: on a full disk no new one could be opened."""
        if way.connection is not None and way.connection.in_transaction:  # one inside another
            yield way.connection
            return
        connection = self._connect(way, seconds)
        try:
            connection.execute(begin)
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                connection.rollback()
            lasting = isinstance(error, sqlite3.Error) and failure(error) not in ("busy", "full")
            if self.path is not None and (lasting or connection.in_transaction):
                way.close()
            raise

    def _connect(self, way: _Way, seconds: float) -> sqlite3.Connection:
        if self._is_replaced():
            raise ReplacedError("it was removed or replaced; close the router to begin a new one")
        if way.connection is None:
            try:
                way.connection = self._new_connection(writing=way is self._writing)
            except OSError as error:
                raise sqlite3.OperationalError(str(error)) from error
            self._identity = _identity(self.path)
        if way.busy_timeout != seconds:
            way.connection.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")
            way.busy_timeout = seconds
        return way.connection

    def _new_connection(self, *, writing: bool) -> sqlite3.Connection:
        if self.path is not None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path or ":memory:", timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            is_new = self.path is None or not self.path.stat().st_size
            if self.path is not None and is_new and not self.path.is_symlink():
                self.path.chmod(0o600)  # the files that SQLite puts beside it get the same rights
            for pragma, value in self._pragmas.items() if is_new else ():
                connection.execute(f"PRAGMA {pragma} = {value}")
            if writing:
                self._prepare(connection)
            else:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Switch to the write-ahead log and bring the tables to this version; no lock is taken where both are done."""
        deadline = time.monotonic() + self._busy_timeout
        while True:  # SQLite itself does not wait for others while it switches a new file
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if failure(error) != "busy" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        connection.execute("PRAGMA synchronous = NORMAL")
        if _user_version(connection) == self._version:
            return
        connection.execute("BEGIN IMMEDIATE")
        found = _user_version(connection)  # another process may have been first
        if found > self._version:
            raise sqlite3.DatabaseError(f"another version of embedrouter wrote it: {found}, not {self._version}")
        if found < self._version:
            self._migrate(connection, found)
            connection.execute(f"PRAGMA user_version = {self._version}")
        connection.execute("COMMIT")

    # Forks

    def before_fork(self) -> None:
        """Close the file and keep other threads out: a child that inherits an open file takes its parent's locks for
        its own, and its bookings are lost when the parent closes the file.
        """
        self._writing.lock.acquire()
        self._reading.lock.acquire()
        self._close_file()

    def after_fork(self, *, in_child: bool) -> None:
        """Let other threads in again; in the child begin without the parent's tables in memory."""
        if in_child:
            self._writing.close()
        self._reading.lock.release()
        self._writing.lock.release()


def _user_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        found = None
    return None if found is None else (found.st_dev, found.st_ino)
