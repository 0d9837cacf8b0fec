"""The ledger: what was spent, set aside and saved, in one SQLite file that threads and processes share.

Money is set aside before a request and settled with the provider's own bill after it. Each is one transaction that
takes the file's write lock when it begins, so that a budget holds for all who share the file. A request that was sent
and never answered (a timeout, a reset, a killed process) may have been billed: its reservation stays counted, at its
estimate, as *unconfirmed*. So a cap can be passed by no more than the error of the estimate of each request in flight.

Reading takes no lock: accounts are shown while others write. Each bill is added to totals when it is booked, and the
detail of a settled request is removed after some days, a few requests at a time, so that the file does not grow with
the traffic.

Savings are added up in memory, because each warm call has some. They are written with the next booking, by ``flush``
and ``close``, and when the process ends; in processes of a ``multiprocessing`` pool at the end of each call.

The file may fail at any moment. Under a budget that is an error before a request, and nothing is spent. All other
bookings wait in memory and are written when the file works again: after a request there is an answer to return, and
what was set aside for it stays counted in the file until then.
"""

import atexit
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TypeVar

from .._process import PerProcess, at_worker_exit, is_daemon_process
from .._sqlite import BUSY_TIMEOUT, SQLiteFile, failure
from ..errors import ConfigError, LedgerError
from ..events import BookingsLost, Events, LedgerFailed
from ..types import Spending
from . import _bookings as bookings
from ._bookings import Refusal
from ._budget import Budget
from ._readings import Readings
from ._schema import VERSION, migrate, recognise
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
ADVICE = (
    "Free space on its disk, give the right to write it, end the process that locks it, or move a damaged file away; "
    "or name another file: ledger=…."
)

T = TypeVar("T")


class Ledger(Readings):
    """Keeps accounts in a file that is made when something is first booked.

    Args:
        file: the same file is the same ledger; ``None`` keeps accounts in memory, for this object alone.
        required: whether a budget depends on it, so that a file that fails is an error. Otherwise bookings wait in
            memory until the file works again.
        now: seconds since 1970.
        keep_detail_days: after so many days a settled request is part of the totals only.
        busy_timeout: seconds to wait for another process that writes, where a budget depends on it.

    Raises:
        ConfigError: from the first method that needs the file: it cannot be opened, and a budget depends on it.
        LedgerError: the same, of a file that worked before.
    """

    def __init__(
        self,
        file: Path | None = None,
        *,
        required: bool = False,
        now: Callable[[], float] = time.time,
        keep_detail_days: float = 30,
        busy_timeout: float = BUSY_TIMEOUT,
        events: Events | None = None,
    ) -> None:
        self.file = file
        self._events = events or Events()
        self._required = required
        self._now = now
        self._keep_detail = keep_detail_days * DAY
        self._busy_timeout = busy_timeout
        self._patience = busy_timeout if required else min(busy_timeout, PATIENCE)
        self._database = SQLiteFile(
            file, version=VERSION, migrate=migrate, recognise=recognise, busy_timeout=self._patience
        )
        self._unwritten = PerProcess(Unwritten)
        """A forked child begins with nothing: what the parent has in memory is the parent's to write."""
        self._opened = False
        """Whether the file worked before."""
        self._failing = False
        """Whether the last transaction failed."""
        self._tried = now()
        """When the last transaction ended, or ``flush`` was found to be due."""
        self._told: set[str] = set()

    # Before and after a request

    def refusal(self, budget: Budget, amount: Decimal | None, tag: str = "") -> Refusal | None:
        """Say why a whole call that costs ``amount`` does not fit the budget, or return ``None``."""
        if amount == 0 or not budget.scopes(tag):
            return None
        with self._reported(), self._reading() as database:
            return bookings.exceeded(database, budget, amount, self._now(), tag=tag, whole_call=True)

    def reserve(self, budget: Budget, spending: Spending) -> int | Refusal:
        """Set the cost of one request aside and return the reservation, or say why it does not fit."""
        now, tag = self._now(), spending.tag
        if self._required or budget.has_caps:
            with self._reported(), self.transaction() as database:
                amount, _ = bookings.price_without_free(database, spending)
                refusal = bookings.exceeded(database, budget, amount, now, tag=tag, whole_call=False)
                return refusal or bookings.reserve(database, spending, now)
        waiting = -1 - secrets.randbits(62)  # no number that SQLite gives, and none of another process
        booking = partial(bookings.reserve, spending=spending, now=now)
        return self._book(booking, later=partial(booking, late=waiting), otherwise=waiting)

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
            partial(
                bookings.settle, reservation=reservation, tokens=tokens, amount=amount, bill=bill, reported=reported
            ),
            otherwise=amount,
        )

    def release(self, number: int | None = None, *, older_than: timedelta | None = None) -> int:
        """Give back what was set aside for requests that were not billed; return the number of requests.

        Args:
            number: of one request: a reservation that was refused, or one of ``unconfirmed``.
            older_than: all unconfirmed requests that are older.
        """
        return self._resolve(bookings.release, number, older_than)

    def confirm(self, number: int | None = None, *, older_than: timedelta | None = None) -> int:
        """Book unconfirmed requests at their estimates, because they were billed; return the number of requests.

        Args:
            number: of one of ``unconfirmed``.
            older_than: all unconfirmed requests that are older.
        """
        return self._resolve(bookings.confirm, number, older_than)

    def _resolve(
        self, change: Callable[[sqlite3.Connection, int, float], int], number: int | None, older_than: timedelta | None
    ) -> int:
        now = self._now()
        if number is not None and older_than is None:
            return self._book(lambda database: change(database, number, now), otherwise=0)
        if older_than is not None and number is None:
            before = now - older_than.total_seconds()
            return self._book(lambda database: bookings.change_older(database, change, before, now), otherwise=0)
        raise ConfigError("Name one request by its number, or all by older_than=timedelta(…).")

    def mark_unconfirmed(self, reservation: int) -> None:
        """Keep counting a request that was sent and never answered: it may have been billed."""
        self._book(partial(bookings.mark_unconfirmed, reservation=reservation), otherwise=None)

    def save(self, model: str, tag: str, texts: int, tokens: int, amount: Decimal) -> None:
        """Add to what was not paid for, in memory alone; when ``flush_due`` says so, call ``flush`` in a thread."""
        self._unwritten.get().save((bookings.utc_day(self._now()), model, tag), texts, tokens, amount)
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
        """Write what is in memory and close the file; the next call opens it again."""
        self._flush(self._patience)
        self._database.close()
        self._failing = False

    def compact(self, older_than: timedelta = timedelta()) -> int:
        """Remove the detail of settled and released requests, and give the room in the file back to the disk.

        The totals stay. Returns the number of requests whose detail was removed.

        Raises:
            LedgerError: the file failed; what was removed before stays removed.
        """
        before, removed = self._now() - older_than.total_seconds(), 0
        for state in ("settled", "released"):
            folded = 1
            while folded:  # a few at a time: others write in between
                with self.transaction() as database:
                    folded = bookings.fold(database, before, state=state)
                removed += folded
        try:
            self._database.vacuum()
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return removed

    # Reading

    @property
    def is_persistent(self) -> bool:
        """Whether accounts are in a file, and not in memory."""
        return self.file is not None and bool(self._read_file(lambda _: True))

    def _is_empty(self) -> bool:
        return self.file is not None and not self._unwritten.get() and not self.file.exists()

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> list[T]:
        """Query the file, and apart from it what is in memory."""
        answers = self._read_file(query)
        if unwritten := self._unwritten.get():
            with SQLiteFile(None, version=VERSION, migrate=migrate).writing() as database:
                unwritten.write(database)
                answers.append(query(database))
        return answers

    def _read_file(self, query: Callable[[sqlite3.Connection], T]) -> list[T]:
        """Query the file; where it fails and no budget depends on it, log the error and return nothing."""
        try:
            with self._reading() as database:
                return [query(database)]
        except (LedgerError, ConfigError) as error:
            if self._required:
                raise
            self._report(error)
            return []

    # The file

    @contextmanager
    def transaction(self, *, busy_timeout: float | None = None) -> Iterator[sqlite3.Connection]:
        """Hold the file's write lock, and commit unless something is raised; for what must change with the accounts."""
        if self._database.is_writing:  # one inside another: the outer one translates errors
            with self._database.writing() as database:
                yield database
            return
        unwritten, taken = self._unwritten.get(), Unwritten()
        seconds = self._busy_timeout if busy_timeout is None else busy_timeout
        try:
            with self._database.writing(busy_timeout=seconds) as database:
                _waiting.get().discard(self)
                taken = unwritten.take()
                taken.write(database)
                yield database
        except BaseException as error:
            unwritten.put_back(taken)
            if unwritten:
                self._wait()
            if not isinstance(error, sqlite3.Error):
                raise
            self._failing, self._tried = True, self._now()
            raise self._translated(error) from error
        self._opened, self._failing, self._tried = True, False, self._now()
        self._told.clear()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._database.reading() as database:
                yield database
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self._opened = True

    def _book(self, booking: Callable[[sqlite3.Connection], T], *, later: Booking | None = None, otherwise: T) -> T:
        """Book now; where the file fails, have ``later`` (or the booking) wait in memory and return ``otherwise``."""
        if self._database.is_writing or self._may_try():
            try:
                with self.transaction(busy_timeout=self._patience) as database:
                    outcome = booking(database)
                    bookings.fold(database, self._now() - self._keep_detail)
                return outcome
            except (LedgerError, ConfigError) as error:
                self._report(error)
        self._unwritten.get().add(later or booking)
        self._wait()
        return otherwise

    def _flush(self, busy_timeout: float) -> None:
        if self._unwritten.get():
            try:
                with self.transaction(busy_timeout=busy_timeout):
                    pass
            except (LedgerError, ConfigError) as error:
                self._report(error)

    def _flush_last(self, seconds: float) -> None:
        """Write what is in memory and close the file, because the process ends; log what could not be written."""
        unwritten = self._unwritten.get()
        self._flush(seconds if unwritten.bookings else min(seconds, LAST_WAIT))
        self._database.close()
        if self._failing and unwritten.bookings:
            self._events.emit(BookingsLost, file=str(self.file), bookings=unwritten.bookings, advice=ADVICE)

    def _wait(self) -> None:
        """Stay alive until what is in memory is written."""
        if self.file is not None:
            _waiting.get().add(self)

    def _may_try(self) -> bool:
        return not self._failing or self._pause_is_over()

    def _pause_is_over(self) -> bool:
        return abs(self._now() - self._tried) > FLUSH_INTERVAL

    # Errors

    def _translated(self, error: sqlite3.Error) -> LedgerError | ConfigError:
        if failure(error) == "replaced" and not self._required:
            self._database.close()  # begin a new file the next time
        kind, what = (LedgerError, "failed") if self._opened else (ConfigError, "cannot be opened")
        return kind(f"The ledger {self.file} {what} ({error}), so no budget can hold. {ADVICE}")

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
            story = ("nothing is spent, and " if self._required else "") + "what is booked waits in memory"
            self._events.emit(LedgerFailed, file=str(self.file), reason=reason, consequence=story, advice=ADVICE)


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
