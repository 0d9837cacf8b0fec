"""One SQLite file that threads and processes share, for the ledger and for the tables beside the cache.

There are two ways in. ``writing`` is a transaction that takes the file's write lock when it begins, so that what it
reads stays true until it commits. ``reading`` takes no write lock: SQLite's write-ahead log (WAL) shows the file as it
was at the first query, and a reader neither waits for a writer nor delays one. Each way has a connection of its own.
The threads of a process take turns with a connection: one for each thread could not be closed before a fork, where a
child must not inherit it.

A cursor must not outlive the block in which it was made: when it is freed it resets its statement, which another thread
may be executing by then, and until then it keeps a closed file open.

The file may be another's by now: a view, a trigger or a lost page can make a statement endless. So each transaction has
an end: some seconds, or the end of the call for which it is made (``ends_in``). No part of the file is mapped into
memory but SQLite's index of its log, because a mapped file that is cut short ends the process (SIGBUS).

A file that may only be read is read through a third way (see ``_read_only``); ``writing`` refuses it.

Errors are SQLite's own (``sqlite3.Error``), also those of the file system.
"""

import math
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from .._process import LAST_WAIT, watch_end, watch_forks
from ._failures import ReplacedError, failure, sqlite_error
from ._file_system import identity, is_read_only, require_locks
from ._own_files import make_file, make_folder
from ._read_only import ReadOnlyWay, may_be_read
from ._way import INDEX_SIZE, STEPS, Way, close_unused

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another writer."""
LONGEST = 30.0
"""Seconds that a transaction may take, where the caller names no other time."""
LEAST_READING, LEAST_WRITING = 0.25, 1.0
"""Seconds that a transaction may take, however little time the call has left; what is written is paid for."""

_end_of_call: ContextVar[float] = ContextVar("embedrouter_end_of_call", default=math.inf)
"""Of ``time.monotonic``."""


@contextmanager
def ends_in(seconds: float | None) -> Iterator[None]:
    """End the transactions that the block makes after so many seconds, or soon after: they are part of one call."""
    if seconds is None:
        yield
        return
    before = _end_of_call.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        with suppress(ValueError):  # the coroutine of a call is closed from elsewhere
            _end_of_call.reset(before)


class SQLiteFile:
    """Opens a file when it is first used, makes it and its tables if they are missing, and closes it before a fork.

    Args:
        path: the file; its folders are made with rights for the owner alone, and so is the file, and neither through a
            link. ``None`` keeps the tables in memory.
        version: of the tables, kept as SQLite's ``user_version``.
        migrate: makes or changes the tables, given the version that was found (0 in a new file), inside a transaction;
            it must not commit, which ``executescript`` does.
        pragmas: set while the file is empty, such as ``page_size``: some wait for the write lock of a file in use.
        busy_timeout: seconds to wait for another writer.
        check: raises ``ForeignError`` where the tables, which others may change, are not as they were made; called
            again when they have changed.
        recognise: raises ``ForeignError`` where the tables, given the version that was found, are another program's;
            called before anything is written to them.
        longest: seconds that one transaction may take.
        stand_in: makes temporary views on the tables of an earlier version, given that version, in a file that may only
            be read; by default such a file is copied into memory and migrated there.

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
        check: Callable[[sqlite3.Connection], None] | None = None,
        recognise: Callable[[sqlite3.Connection, int], None] | None = None,
        longest: float = LONGEST,
        stand_in: Callable[[sqlite3.Connection, int], None] | None = None,
    ) -> None:
        self.path = path
        self._version, self._migrate, self._recognise = version, migrate, recognise
        self._check, self._longest, self._stand_in = check, longest, stand_in
        self._checked: int | None = None
        """The number that SQLite gives to the state of the tables, when they were checked."""
        self._pragmas = pragmas or {}
        self._busy_timeout = busy_timeout
        self._identity: tuple[int, int] | None = None
        """Of the file that was opened first."""
        self._index_size = INDEX_SIZE
        """The largest size of the index of SQLite's log so far."""
        self._writer: int | None = None
        """The thread that is inside a transaction."""
        self._writing, self._reading, self._read_only = Way(), Way(), ReadOnlyWay()
        """Their locks are taken in this order by a thread that needs several."""
        weakref.finalize(self, close_unused, self._read_only, self._reading, self._writing)
        watch_forks(self)
        watch_end(self)

    @property
    def is_writing(self) -> bool:
        """Whether the calling thread is inside ``writing``."""
        return self._writer == threading.get_ident()

    @contextmanager
    def writing(self, *, busy_timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        """Hold the write lock, and commit unless something is raised; inside another ``writing``, be part of it."""
        longest = min(self._longest, max(LEAST_WRITING, _end_of_call.get() - time.monotonic()))
        seconds = min(longest, self._busy_timeout if busy_timeout is None else busy_timeout)
        with self._writing.turn(seconds, "another thread holds the write lock"):
            self._require_writable()
            before = self._writer
            try:
                with self._transaction(self._writing, "BEGIN IMMEDIATE", seconds, longest) as connection:
                    self._writer = threading.get_ident()
                    yield connection
            finally:
                self._writer = before

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Show the file as it is at the first query; inside ``writing``, as that transaction has made it."""
        if self.path is None or self.is_writing:
            with self.writing() as connection:
                yield connection
            return
        # half of what is left, so that a slow file leaves time to do without it
        longest = min(self._longest, max(LEAST_READING, (_end_of_call.get() - time.monotonic()) / 2))
        seconds, reason = min(longest, self._busy_timeout), "another thread reads"
        way = self._reading
        if self._writing.connection is None:  # the first connection makes the tables
            try:
                with self._writing.turn(longest, reason):
                    self._require_writable()
                    self._writing.until = time.monotonic() + longest
                    self._connect(self._writing, seconds)
            except sqlite3.Error as error:
                if not may_be_read(self.path, error):
                    raise
                way = self._read_only
        with way.turn(longest, reason), self._transaction(way, "BEGIN", seconds, longest) as connection:
            yield connection
            if way is self._read_only:
                self._read_only.require_unchanged(self.path)

    def vacuum(self) -> None:
        """Write the file anew without its empty pages, and empty the log. Waits for other writers."""
        with self._writing.lock:
            self._require_writable()
            connection = self._connect(self._writing, self._busy_timeout)
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def close(self) -> None:
        """Close the file; the next use opens it again, also if it was replaced. Tables in memory stay."""
        with self._writing.lock, self._reading.lock, self._read_only.lock:
            self._close_file()
        self._identity, self._index_size = None, INDEX_SIZE

    def _require_writable(self) -> None:
        if self.path is not None and self._writing.connection is None and is_read_only(self.path):
            raise sqlite_error(sqlite3.SQLITE_READONLY, "it may only be read")

    def _close_file(self) -> None:
        if self.path is not None:
            self._mend_index()
            self._read_only.close()
            self._reading.close()
            self._writing.close()

    # Connections

    @contextmanager
    def _transaction(self, way: Way, begin: str, seconds: float, longest: float) -> Iterator[sqlite3.Connection]:
        """A lock or a full disk passes, and the connection stays: on a full disk no new one could be opened."""
        if way.connection is not None and way.connection.in_transaction:  # one inside another
            yield way.connection
            return
        way.until = time.monotonic() + longest
        connection = self._connect(way, seconds)
        try:
            connection.execute(begin)
            self._check_tables(connection)
            yield connection
            connection.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                connection.rollback()
            lasting = isinstance(error, sqlite3.Error) and failure(error) not in ("busy", "full", "slow")
            if self.path is not None and (lasting or connection.in_transaction):
                way.close()
            raise

    def _connect(self, way: Way, seconds: float) -> sqlite3.Connection:
        if self._identity is not None and identity(self.path) != self._identity:
            raise ReplacedError("it was removed or replaced; close the router to begin a new one")
        self._mend_index()
        if self.path is not None and way is self._read_only:
            self._read_only.close_if_changed(self.path)
        if way.connection is None:
            try:
                way.connection = self._new_connection(way, seconds)
            except OSError as error:
                raise sqlite3.OperationalError(str(error)) from error
            self._identity = identity(self.path)
        if way.busy_timeout != seconds:
            way.connection.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")
            way.busy_timeout = seconds
        return way.connection

    def _mend_index(self) -> None:
        """Make the index of the log as long as it was, where a program has cut it short: SQLite has it mapped.

        SQLite itself never shortens the index of an open file, and makes an index of zeros anew from the log.
        """
        if self._identity is None:
            return
        index = f"{self.path}-shm"
        with suppress(OSError):
            index_now = os.lstat(index)  # half the time of Path.lstat
            size = index_now.st_size
            if size < self._index_size and stat.S_ISREG(index_now.st_mode):
                os.truncate(index, self._index_size)
            self._index_size = max(size, self._index_size)

    def _check_tables(self, connection: sqlite3.Connection) -> None:
        if self._check is not None:
            (state,) = connection.execute("PRAGMA schema_version").fetchone()
            if state != self._checked:
                self._check(connection)
                self._checked = state

    def _new_connection(self, way: Way, seconds: float) -> sqlite3.Connection:
        if self.path is not None and way is self._read_only:
            return self._read_only.open(self.path, seconds, self._show)
        if self.path is not None:
            make_folder(self.path.parent)
            make_file(self.path)
            if way is self._writing:
                if self._identity is None:
                    require_locks(self.path.parent)
                self._require_own(self.path, way, seconds)
        connection = sqlite3.connect(
            self.path or ":memory:", timeout=seconds, isolation_level=None, check_same_thread=False
        )
        self._checked = None
        try:
            connection.set_progress_handler(way.is_over, STEPS)
            connection.execute("PRAGMA mmap_size = 0")  # SQLite may be built with another default
            is_new = self.path is None or not self.path.stat().st_size
            if self.path is not None and is_new:
                self.path.chmod(0o600)  # the files that SQLite puts beside it get the same rights
            if way is self._writing:
                for pragma, value in self._pragmas.items() if is_new else ():
                    connection.execute(f"PRAGMA {pragma} = {value}")
                self._prepare(connection, seconds)
            else:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_own(self, path: Path, way: Way, seconds: float) -> None:
        """Refuse the tables of another program, or of a later version, on a connection that changes nothing.

        Without a log a read-only connection would leave one behind; with a log another would write it into the file.
        """
        if not path.stat().st_size:
            return
        mode = "ro" if Path(f"{path}-wal").exists() else "rw"
        address = f"{path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=seconds)) as connection:
            connection.set_progress_handler(way.is_over, STEPS)
            connection.execute("PRAGMA mmap_size = 0")
            self._recognised(connection)

    def _recognised(self, connection: sqlite3.Connection) -> int:
        """Return the version of the tables, if they are this package's."""
        connection.execute("BEGIN")  # another process may be making the tables
        found = _user_version(connection)
        self._refuse_later(found)
        if self._recognise and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            self._recognise(connection, found)
        connection.execute("COMMIT")
        return found

    def _show(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Return a connection to tables of this version, where those in the file cannot be changed."""
        self._checked = None
        found = self._recognised(connection)
        if found == self._version:
            return connection
        if self._stand_in is not None:
            self._stand_in(connection, found)
            (self._checked,) = connection.execute("PRAGMA schema_version").fetchone()  # they were recognised
            return connection
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        connection.backup(copy)
        self._migrate(copy, found)
        return copy

    def _refuse_later(self, found: int) -> None:
        if found > self._version:
            raise sqlite3.DatabaseError(f"another version of embedrouter wrote it: {found}, not {self._version}")

    def _prepare(self, connection: sqlite3.Connection, seconds: float) -> None:
        """Switch to the write-ahead log and bring the tables to this version; no lock is taken where both are done."""
        deadline = time.monotonic() + seconds
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
        self._refuse_later(found)
        if found < self._version:
            self._migrate(connection, found)
            connection.execute(f"PRAGMA user_version = {self._version}")
        connection.execute("COMMIT")

    # The end of the interpreter

    def at_end(self, deadline: float) -> None:
        """Close the file when no thread uses it. A statement that is not over at the deadline is interrupted."""
        self._mend_index()
        for way in (self._writing, self._reading, self._read_only):
            if not way.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                with suppress(sqlite3.Error, AttributeError):  # closed meanwhile
                    way.connection.interrupt()  # type: ignore[union-attr]
                if not way.lock.acquire(timeout=LAST_WAIT / 4):
                    continue  # the thread waits inside SQLite, and stays there
            if self.path is not None:
                way.close()
            way.lock.release()

    # Forks

    def before_fork(self) -> None:
        """Close the file and keep other threads out: a child that inherits an open file takes its parent's locks for
        its own, and its bookings are lost when the parent closes the file.
        """
        self._writing.lock.acquire()
        self._reading.lock.acquire()
        self._read_only.lock.acquire()
        self._close_file()

    def after_fork(self, *, in_child: bool) -> None:
        """Let other threads in again; in the child begin without the parent's tables in memory."""
        if in_child:
            self._writing.close()
        self._read_only.lock.release()
        self._reading.lock.release()
        self._writing.lock.release()


def _user_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
