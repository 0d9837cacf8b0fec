"""The ledger: what was spent, set aside and saved, in a SQLite file or on a server that threads and processes share.

Money is set aside before a request and settled with the provider's own bill after it. Each is one step: a transaction
that takes the file's write lock when it begins, or a script on the server. So a budget holds for all who share the
books. A request that was sent and never answered (a timeout, a reset, a killed process) may have been billed: its
reservation stays counted, at its estimate, as *unconfirmed*. So a cap can be passed by no more than the error of the
estimate of each request in flight.

Reading takes no lock: accounts are shown while others write. Each bill is added to totals when it is booked, and the
detail of a settled request is removed after some days, a few requests at a time, so that the file does not grow with
the traffic.

The books may fail at any moment. Under a budget that is an error before a request, and nothing is spent, unless
``fails_open`` lets requests go out. All other bookings wait in memory and are written when the books work again: after
a request there is an answer to return, and what was set aside for it stays counted in the books until then.
"""

import secrets
from datetime import timedelta
from decimal import Decimal
from typing import Literal

from ..errors import ConfigError, LedgerError
from ..types import Spending
from ._accounts import utc_day
from ._books import Bookings
from ._budget import Budget
from ._keeping import Keeping
from ._refusals import Refusal


class Ledger(Keeping):
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
            except (LedgerError, ConfigError) as error:
                if not self._fails_open:
                    if self.books.is_uncertain(error.__cause__):  # it may be there, and the request is not sent
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
