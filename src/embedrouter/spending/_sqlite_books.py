"""Accounts in one SQLite file, or in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from .._sqlite import SQLiteFile
from ._bookings import SQLiteBookings
from ._books import TableName
from ._budget import Budget
from ._refusals import Refusal
from ._schema import VERSION, migrate, recognise

T = TypeVar("T")

ADVICE = (
    "Free space on its disk, give the right to write it, end the process that locks it, or move a damaged file away; "
    "or name another file: ledger=…."
)


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

    def close(self) -> None:
        self.database.close()
