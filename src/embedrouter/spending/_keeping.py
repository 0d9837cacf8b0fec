"""Keep bookings and savings in memory while books fail, or need not be written yet, and write them when it is time.

Savings are added up in memory, because each warm call has some. They are written with the next booking, by ``flush``
and ``close``, and when the process ends; in processes of a ``multiprocessing`` pool at the end of each call.
"""

import atexit
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from .._process import PerProcess, at_worker_exit, is_daemon_process
from .._sqlite import BUSY_TIMEOUT, failure
from ..errors import ConfigError, LedgerError
from ..events import BookingsLost, Events, LedgerFailed
from ._bookings import SQLiteBookings
from ._books import Bookings, Books, TableName
from ._readings import Readings
from ._sqlite_books import SQLiteBooks
from ._unwritten import Booking, Unwritten

DAY = 86_400.0
FLUSH_INTERVAL = 5.0
"""Seconds between two attempts to write what is in memory, where it can wait."""
PATIENCE = 0.5
"""Seconds to wait for another writer with what can wait in memory instead."""
LAST_WAIT = 1.0
"""The same with savings when the process ends, and for another ledger."""
LAST_WAIT_FOR_BILLS = 8.0
"""The same with bookings when the process ends, for all ledgers: less than a container is given to end by itself."""
T = TypeVar("T")


class Keeping(Readings):
    """Writes to books, or keeps in memory what they cannot take; answers from both.

    The arguments are those of ``Ledger``.
    """

    def __init__(
        self,
        file: Path | None = None,
        *,
        books: Books | None = None,
        required: bool = False,
        fails_open: bool = False,
        now: Callable[[], float] = time.time,
        keep_detail_days: float = 30,
        busy_timeout: float = BUSY_TIMEOUT,
        events: Events | None = None,
    ) -> None:
        self._events = events or Events()
        self._required = required and not fails_open
        self._fails_open = fails_open
        self._now = now
        self._keep_detail = keep_detail_days * DAY
        self._busy_timeout = busy_timeout
        self._patience = busy_timeout if required else min(busy_timeout, PATIENCE)
        self.books = books or SQLiteBooks(file, busy_timeout=self._patience)
        self.file = self.books.file
        """The SQLite file, if it is one."""
        self.place = self.books.place
        """Where the accounts are, as people are told."""
        self._unwritten = PerProcess(Unwritten)
        """A forked child begins with nothing: what the parent has in memory is the parent's to write."""
        self._opened = False
        """Whether the books worked before."""
        self._failing = False
        """Whether the last transaction failed."""
        self._tried = now()
        """When the last transaction ended, or ``flush`` was found to be due."""
        self._saved = float("-inf")
        """When savings were written the last time."""
        self._told: set[str] = set()

    # Writing what is in memory

    def flush_due(self) -> bool:
        """Say whether ``flush`` is due; ``True`` at most every few seconds. Waits for nothing."""
        pause_is_over = self._pause_is_over() or (is_daemon_process() and not self._failing)
        if not self._unwritten.get() or not pause_is_over:
            return False
        self._tried = self._now()
        return True

    def flush(self) -> None:
        """Write what is in memory, also that of ledgers that are garbage; what cannot be written stays there."""
        self._flush(self._patience)
        for other in _waiting.get() - {self}:
            if other._may_try():
                other._flush(LAST_WAIT)

    def close(self) -> None:
        """Write what is in memory and close the file or connection; the next call opens it again."""
        self._flush(self._patience)
        self.books.close()
        self._failing = False

    # Reading

    @property
    def is_persistent(self) -> bool:
        """Whether accounts outlive this process, and not only in memory."""
        return self.books.is_lasting and bool(self._read_books(lambda _: True, ()))

    def _is_empty(self) -> bool:
        return not self._unwritten.get() and self.books.is_empty()

    def _read(self, query: Callable[[sqlite3.Connection], T], *tables: TableName) -> list[T]:
        answers = self._read_books(query, tables)
        if unwritten := self._unwritten.get():
            with SQLiteBooks(None, busy_timeout=0).writing(0) as in_memory:
                unwritten.write(in_memory)
                answers.append(query(in_memory.database))
        return answers

    def _read_books(self, query: Callable[[sqlite3.Connection], T], tables: Sequence[TableName]) -> list[T]:
        """Ask the books; where they fail and no budget depends on them, log the error and return nothing."""
        try:
            with self._reading():
                return [self.books.read(query, tables)]
        except (LedgerError, ConfigError) as error:
            if self._required:
                raise
            self._report(error)
            return []

    # The books

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the file's write lock, and commit unless something is raised; for what must change with the accounts.

        Raises:
            ConfigError: the accounts are on a server, and not in SQLite.
        """
        with self.writing() as books:
            if not isinstance(books, SQLiteBookings):
                raise ConfigError(f"The ledger {self.place} is no SQLite file. Name one: ledger=….")
            yield books.database

    @contextmanager
    def writing(self, *, patience: float | None = None, savings: bool = False) -> Iterator[Bookings]:
        """Book, with what is in memory; in a file all of it or nothing.

        Args:
            patience: seconds to wait for another process that writes.
            savings: whether savings are written even where it is early for them.
        """
        if self.books.is_writing:  # one inside another: the outer one translates errors
            with self.books.writing(0) as books:
                yield books
            return
        unwritten, taken, now = self._unwritten.get(), Unwritten(), self._now()
        due = savings or now - self._saved >= self.books.savings_interval
        try:
            with self.books.writing(self._busy_timeout if patience is None else patience) as books:
                _waiting.get().discard(self)
                taken = unwritten.take(savings=due)
                taken.write(books)
                yield books
        except BaseException as error:
            unwritten.put_back(taken)
            if unwritten:
                self._wait()
            if not isinstance(error, self.books.errors):
                raise
            self._failing, self._tried = True, self._now()
            raise self._translated(error) from error
        self._opened, self._failing, self._tried = True, False, self._now()
        if due:
            self._saved = now
        elif unwritten:
            self._wait()
        self._told.clear()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except self.books.errors as error:
            if self.books.is_remote:  # which is not asked again at once
                self._failing, self._tried = True, self._now()
            raise self._translated(error) from error
        self._opened = True

    def _book(self, booking: Callable[[Bookings], T], *, later: Booking | None = None, otherwise: T) -> T:
        """Book now; where the books fail, have ``later`` (or the booking) wait in memory and return ``otherwise``."""
        if self.books.is_writing or self._may_try():
            try:
                with self.writing(patience=self._patience) as books:
                    outcome = booking(books)
                    books.tidy(self._keep_detail, self._now())
                return outcome
            except (LedgerError, ConfigError) as error:
                self._report(error)
        self._keep(later or booking)
        return otherwise

    def _keep(self, booking: Booking) -> None:
        """Have a booking wait in memory."""
        self._unwritten.get().add(booking)
        self._wait()

    def _flush(self, busy_timeout: float) -> None:
        if self._unwritten.get():
            try:
                with self.writing(patience=busy_timeout, savings=True):
                    pass
            except (LedgerError, ConfigError) as error:
                self._report(error)

    def _flush_last(self, seconds: float) -> None:
        """Write what is in memory and close the file, because the process ends; log what could not be written."""
        unwritten = self._unwritten.get()
        self._flush(seconds if unwritten.bookings else min(seconds, LAST_WAIT))
        self.books.close()
        if self._failing and unwritten.bookings:
            advice = self.books.advice
            self._events.emit(BookingsLost, file=self.place, bookings=unwritten.bookings, advice=advice)

    def _wait(self) -> None:
        """Stay alive until what is in memory is written."""
        if self.books.is_lasting:
            _waiting.get().add(self)

    def _may_try(self) -> bool:
        return not self._failing or self._pause_is_over()

    def _pause_is_over(self) -> bool:
        return abs(self._now() - self._tried) > FLUSH_INTERVAL

    # Errors

    def _translated(self, error: BaseException) -> LedgerError | ConfigError:
        if failure(error) == "replaced" and not self._required:
            self.books.close()  # begin a new file the next time
        failed = self._opened or self.books.is_remote
        kind, what = (LedgerError, "failed") if failed else (ConfigError, "cannot be opened")
        return kind(f"The ledger {self.place} {what} ({error}), so no budget can hold. {self.books.advice}")

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Report an error that is raised because a budget depends on the file."""
        try:
            yield
        except (LedgerError, ConfigError) as error:
            self._report(error)
            raise

    def _report(self, error: LedgerError | ConfigError) -> None:
        """Report what became of the file, once until it works again."""
        if (reason := str(error.__cause__)) not in self._told:
            self._told.add(reason)
            story = "nothing is spent, and " if self._required else ""
            story = "no budget is checked, and " if self._fails_open else story
            story += "what is booked waits in memory"
            self._events.emit(LedgerFailed, file=self.place, reason=reason, consequence=story, advice=self.books.advice)


# Garbage, and the end of the interpreter


def _none_waiting() -> set[Keeping]:
    at_worker_exit(_write_at_exit)
    return set()


_waiting: PerProcess[set[Keeping]] = PerProcess(_none_waiting)
"""Ledgers with something in memory that is not in their file. They do not become garbage before it is written: the
collector may run in an event loop, or in a thread that writes to the same file, where nothing can be written."""


@atexit.register
def _write_at_exit() -> None:
    until = time.monotonic() + LAST_WAIT_FOR_BILLS
    for ledger in list(_waiting.get()):
        ledger._flush_last(max(0.0, until - time.monotonic()))
