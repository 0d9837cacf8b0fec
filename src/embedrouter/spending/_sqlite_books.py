"""Accounts in one SQLite file, or in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

from .._sqlite import SQLiteFile
from ..types import Spending
from . import _bookings as bookings
from ._bookings import Refusal, Savings
from ._books import TableName
from ._budget import Budget
from ._schema import VERSION, migrate, recognise

T = TypeVar("T")

ADVICE = (
    "Free space on its disk, give the right to write it, end the process that locks it, or move a damaged file away; "
    "or name another file: ledger=…."
)


class SQLiteBookings:
    """Books inside one transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def refusal(self, budget: Budget, amount: Decimal | None, now: float, tag: str) -> Refusal | None:
        return bookings.exceeded(self.database, budget, amount, now, tag=tag, whole_call=True)

    def reserve_within(self, budget: Budget, spending: Spending, now: float, number: int | None) -> int | Refusal:
        amount, _ = bookings.price_without_free(self.database, spending)
        refusal = bookings.exceeded(self.database, budget, amount, now, tag=spending.tag, whole_call=False)
        return refusal or bookings.reserve(self.database, spending, now)

    def reserve(self, spending: Spending, now: float, number: int | None, *, late: bool = False) -> int:
        return bookings.reserve(self.database, spending, now, late=number if late else None)

    def settle(
        self, reservation: int, tokens: int, amount: Decimal | None, bill: str | None, *, reported: bool
    ) -> Decimal | None:
        return bookings.settle(self.database, reservation, tokens, amount, bill, reported=reported)

    def release(self, number: int, now: float) -> int:
        return bookings.release(self.database, number, now)

    def confirm(self, number: int, now: float) -> int:
        return bookings.confirm(self.database, number, now)

    def change_older(self, change: Literal["release", "confirm"], age: float, now: float) -> int:
        one = bookings.release if change == "release" else bookings.confirm
        return bookings.change_older(self.database, one, now - age, now)

    def mark_unconfirmed(self, reservation: int) -> None:
        bookings.mark_unconfirmed(self.database, reservation)

    def write_savings(self, savings: Savings, parcel: str) -> None:
        bookings.write_savings(self.database, savings)

    def fold(self, state: Literal["settled", "released"], age: float, now: float) -> int:
        return bookings.fold(self.database, now - age, state=state)

    def tidy(self, age: float, now: float) -> None:
        bookings.fold(self.database, now - age)


class SQLiteBooks:
    """The file; ``None`` keeps the accounts in memory, for this object alone."""

    advice = ADVICE
    is_remote = False
    savings_interval = 0.0
    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, file: Path | None, *, busy_timeout: float) -> None:
        self.file = file
        self.place = str(file)
        self.is_lasting = file is not None
        self.database = SQLiteFile(
            file, version=VERSION, migrate=migrate, recognise=recognise, busy_timeout=busy_timeout
        )

    @property
    def is_writing(self) -> bool:
        return self.database.is_writing

    def is_uncertain(self, error: BaseException | None) -> bool:
        return False  # what is not committed is not there

    def is_empty(self) -> bool:
        return self.file is not None and not self.file.exists()

    def new_number(self) -> int | None:
        return None

    @contextmanager
    def writing(self, patience: float) -> Iterator[SQLiteBookings]:
        """Hold the file's write lock, and commit unless something is raised."""
        if self.database.is_writing:
            with self.database.writing() as database:
                yield SQLiteBookings(database)
            return
        with self.database.writing(busy_timeout=patience) as database:
            yield SQLiteBookings(database)

    def read(self, query: Callable[[sqlite3.Connection], T], tables: Iterable[TableName] = ()) -> T:
        with self.database.reading() as database:
            return query(database)

    def refusal(self, budget: Budget, amount: Decimal | None, now: float, tag: str) -> Refusal | None:
        with self.database.reading() as database:
            return SQLiteBookings(database).refusal(budget, amount, now, tag)

    def vacuum(self) -> None:
        self.database.vacuum()

    def close(self, *, replaced: bool = False) -> None:
        self.database.close()
