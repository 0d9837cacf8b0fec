"""The ledger: what was spent, set aside and saved, in a SQLite file or on a server that threads and processes share.

Money is set aside before a request and settled with the provider's own bill after it. Each is one step: a transaction
that takes the file's write lock when it begins, or a script on the server. So a budget holds for all who share the
books. A request that was sent and never answered (a timeout, a reset, a killed process) may have been billed: its
reservation stays counted, at its estimate, as *unconfirmed*. So a cap can be passed by no more than the error of the
estimate of each request in flight.

Reading takes no lock: accounts are shown while others write. Each bill is added to totals when it is booked, and the
detail of a settled request is removed after some days, a few requests at a time, so that the file does not grow with
the traffic.

Savings are added up in memory, because each warm call has some. They are written with the next booking, by ``flush``
and ``close``, and when the process ends; in processes of a ``multiprocessing`` pool at the end of each call.

The books may fail at any moment. Under a budget that is an error before a request, and nothing is spent, unless
``fails_open`` lets requests go out. All other bookings wait in memory and are written when the books work again: after
a request there is an answer to return, and what was set aside for it stays counted in the books until then.
"""

import atexit
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

from .._process import PerProcess, at_worker_exit, is_daemon_process
from .._sqlite import BUSY_TIMEOUT, failure
from ..errors import ConfigError, LedgerError
from ..events import BookingsLost, Events, LedgerFailed
from ..types import Spending
from ._bookings import Refusal, utc_day
from ._books import Bookings, Books, TableName
from ._budget import Budget
from ._readings import Readings
from ._sqlite_books import SQLiteBookings, SQLiteBooks
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


class Ledger(Readings):
    """Keeps accounts in books: a file that is made when something is first booked, or a server.

    Args:
        file: the same file is the same ledger; ``None`` keeps accounts in memory, for this object alone.
        books: another place than a file.
        required: whether a budget depends on it, so that books that fail are an error. Otherwise bookings wait in
            memory until the books work again.
        fails_open: whether requests go out under a budget that cannot be checked because the books fail.
        now: seconds since 1970.
        keep_detail_days: after so many days a settled request is part of the totals only.
        busy_timeout: seconds to wait for another process that writes, where a budget depends on it.

    Raises:
        ConfigError: from the first method that needs the file: it cannot be opened, and a budget depends on it.
        LedgerError: the same, of a file that worked before, or of a server.
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

    # Before and after a request

    def refusal(self, budget: Budget, amount: Decimal | None, tag: str = "") -> Refusal | None:
        """Say why a whole call that costs ``amount`` does not fit the budget, or return ``None``."""
        if amount == 0 or not budget.scopes(tag):
            return None
        if self._fails_open and not self._may_try():
            return None
        try:
            with self._reported(), self._reading():
                return self.books.refusal(budget, amount, self._now(), tag)
        except (LedgerError, ConfigError):
            if not self._fails_open:
                raise
            return None

    def new_number(self) -> int | None:
        """Return the number of a reservation to come; ``None`` where it is known when it is made."""
        return self.books.new_number()

    def reserve(self, budget: Budget, spending: Spending, number: int | None = None) -> int | Refusal:
        """Set the cost of one request aside and return the reservation, or say why it does not fit.

        Args:
            number: one that ``new_number`` has given.

        Raises:
            LedgerError: the books fail under a budget.
        """
        now, number = self._now(), number or self.books.new_number()
        waiting = number or -1 - secrets.randbits(62)  # no number that SQLite gives, and none of another process

        def later(books: Bookings) -> int:
            return books.reserve(spending, now, waiting, late=True)

        if not (self._required or budget.has_caps):
            return self._book(lambda books: books.reserve(spending, now, number), later=later, otherwise=waiting)
        if not self._fails_open or self._may_try():
            try:
                with self._reported(), self.writing() as books:
                    return books.reserve_within(budget, spending, now, number)
            except (LedgerError, ConfigError):
                if not self._fails_open:
                    if number is not None:  # it may be there, and the request is not sent
                        self._keep(lambda books: books.release(waiting, now))
                    raise
        self._keep(later)
        return waiting

    def settle(
        self,
        reservation: int,
        tokens: int,
        amount: Decimal | None,
        bill: str | None = None,
        *,
        reported: bool = True,
    ) -> Decimal | None:
        """Book what a request was billed in place of what was set aside; return it without what was free.

        Args:
            bill: what the provider reported as the billed tokens, where it cannot be true; the other arguments are then
                those of the estimate.
            reported: whether the provider reported the tokens, so that the estimate can be compared with them.
        """
        return self._book(
            lambda books: books.settle(reservation, tokens, amount, bill, reported=reported), otherwise=amount
        )

    def release(self, number: int | None = None, *, older_than: timedelta | None = None) -> int:
        """Give back what was set aside for requests that were not billed; return the number of requests.

        Args:
            number: of one request: a reservation that was refused, or one of ``unconfirmed``.
            older_than: all unconfirmed requests that are older.
        """
        return self._resolve("release", number, older_than)

    def confirm(self, number: int | None = None, *, older_than: timedelta | None = None) -> int:
        """Book unconfirmed requests at their estimates, because they were billed; return the number of requests.

        Args:
            number: of one of ``unconfirmed``.
            older_than: all unconfirmed requests that are older.
        """
        return self._resolve("confirm", number, older_than)

    def _resolve(self, change: Literal["release", "confirm"], number: int | None, older_than: timedelta | None) -> int:
        now = self._now()
        if number is not None and older_than is None:
            if change == "release":
                return self._book(lambda books: books.release(number, now), otherwise=0)
            return self._book(lambda books: books.confirm(number, now), otherwise=0)
        if older_than is not None and number is None:
            age = older_than.total_seconds()
            return self._book(lambda books: books.change_older(change, age, now), otherwise=0)
        raise ConfigError("Name one request by its number, or all by older_than=timedelta(…).")

    def mark_unconfirmed(self, reservation: int) -> None:
        """Keep counting a request that was sent and never answered: it may have been billed."""
        self._book(lambda books: books.mark_unconfirmed(reservation), otherwise=None)

    def save(self, model: str, tag: str, texts: int, tokens: int, amount: Decimal) -> None:
        """Add to what was not paid for, in memory alone; when ``flush_due`` says so, call ``flush`` in a thread."""
        self._unwritten.get().save((utc_day(self._now()), model, tag), texts, tokens, amount)
        self._wait()

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

    def compact(self, older_than: timedelta = timedelta()) -> int:
        """Remove the detail of settled and released requests, and give the room in the file back to the disk.

        The totals stay. Returns the number of requests whose detail was removed.

        Raises:
            LedgerError: the file failed; what was removed before stays removed.
        """
        age, removed = older_than.total_seconds(), 0
        states: tuple[Literal["settled", "released"], ...] = ("settled", "released")
        for state in states:
            folded = 1
            while folded:  # a few at a time: others write in between
                with self.writing() as books:
                    folded = books.fold(state, age, self._now())
                removed += folded
        try:
            self.books.vacuum()
        except self.books.errors as error:
            raise self._translated(error) from error
        return removed

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


def _none_waiting() -> set[Ledger]:
    at_worker_exit(_write_at_exit)
    return set()


_waiting: PerProcess[set[Ledger]] = PerProcess(_none_waiting)
"""Ledgers with something in memory that is not in their file. They do not become garbage before it is written: the
collector may run in an event loop, or in a thread that writes to the same file, where nothing can be written."""


@atexit.register
def _write_at_exit() -> None:
    until = time.monotonic() + LAST_WAIT_FOR_BILLS
    for ledger in list(_waiting.get()):
        ledger._flush_last(max(0.0, until - time.monotonic()))
