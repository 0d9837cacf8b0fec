"""What a ledger needs of the place where its accounts are: a SQLite file, or a Redis server.

A booking that is repeated changes nothing, because whether one that failed was carried out is not always known. All
amounts and figures are the same in every place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from ..types import Spending
from ._bookings import Savings
from ._budget import Budget
from ._refusals import Refusal
from ._schema import migrate

T = TypeVar("T")

TableName: TypeAlias = Literal[
    "requests", "open requests", "days", "tag_days", "allowances", "savings", "totals", "estimates"
]
"""A table that a question reads; ``"open requests"`` are those that are not settled."""


class Bookings(Protocol):
    """What changes the accounts. ``now`` is seconds since 1970, of this machine."""

    def refusal(self, budget: Budget, amount: Decimal | None, now: float, tag: str) -> Refusal | None:
        """Say why a whole call that costs ``amount`` does not fit the budget; nothing is changed."""
        ...

    def reserve_within(self, budget: Budget, spending: Spending, now: float, number: int | None) -> int | Refusal:
        """Set the cost of a request aside if it fits the budget, in one step.

        Args:
            number: one that ``Books.new_number`` has given.
        """
        ...

    def reserve(self, spending: Spending, now: float, number: int | None, *, late: bool = False) -> int:
        """Set the cost of a request aside, without a look at a budget.

        Args:
            number: one that ``Books.new_number`` has given; where it is late, the number that it has already.
            late: whether it belongs to the day of ``now``, also where a later one has begun.
        """
        ...

    def settle(
        self, reservation: int, tokens: int, amount: Decimal | None, bill: str | None, *, reported: bool
    ) -> Decimal | None:
        """Book what a request was billed in place of what was set aside; return it without what was free."""
        ...

    def release(self, number: int, now: float) -> int:
        """Give back what was set aside; return of how many requests."""
        ...

    def confirm(self, number: int, now: float) -> int:
        """Book an unconfirmed request at its estimate; return how many."""
        ...

    def change_older(self, change: Literal["release", "confirm"], age: float, now: float) -> int:
        """Release or confirm all unconfirmed requests that are older than ``age`` seconds; return how many."""
        ...

    def mark_unconfirmed(self, reservation: int) -> None:
        """Keep counting the estimate of a request that was sent and never answered."""
        ...

    def write_savings(self, savings: Savings, parcel: str) -> None:
        """Add to what was not paid for. Savings that come again in the same ``parcel`` are there already."""
        ...

    def fold(self, state: Literal["settled", "released"], age: float, now: float) -> int:
        """Remove the detail of some requests that are older than ``age`` seconds; return of how many."""
        ...

    def tidy(self, age: float, now: float) -> None:
        """Remove some detail of settled requests in passing."""
        ...


class Books(Protocol):
    """The place of the accounts."""

    file: Path | None
    """The SQLite file, if it is one."""
    place: str
    """As people are told."""
    is_lasting: bool
    """Whether the accounts outlive the process."""
    is_remote: bool
    """Whether a server may be away for a while."""
    advice: str
    """What to do where the place fails."""
    savings_interval: float
    """Seconds between two writings of savings: 0 where they cost nothing beside a booking."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The errors of a place that fails."""
        ...

    @property
    def is_writing(self) -> bool:
        """Whether this thread is inside ``writing``, so that a further one waits for nothing."""
        ...

    def is_uncertain(self, error: BaseException | None) -> bool:
        """Say whether a booking that ended with this error may have been carried out all the same."""
        ...

    def is_empty(self) -> bool:
        """Say whether nothing was ever booked, as far as that can be said without touching a file or a server."""
        ...

    def new_number(self) -> int | None:
        """Return the number of a request to come; ``None`` where it is given when the request is booked."""
        ...

    def writing(self, patience: float) -> AbstractContextManager[Bookings]:
        """Book; of a file all of it or nothing, on a server each booking for itself."""
        ...

    def read(self, query: Callable[[sqlite3.Connection], T], tables: Iterable[TableName]) -> T:
        """Ask the tables, at least those that are named. Waits for no writer."""
        ...

    def refusal(self, budget: Budget, amount: Decimal | None, now: float, tag: str) -> Refusal | None:
        """Say why a whole call does not fit the budget; waits for no writer."""
        ...

    def vacuum(self) -> None:
        """Give unused room back."""
        ...

    def close(self) -> None:
        """Close files and connections, which the next use opens again."""
        ...


def query_rows(rows: Mapping[str, Iterable[tuple[Any, ...]]], query: Callable[[sqlite3.Connection], T]) -> T:
    """Put rows into the tables of a ledger in memory, and ask these."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        migrate(database, 0)
        database.execute("BEGIN")
        for table, content in rows.items():
            content = list(content)
            if content:
                marks = ", ".join("?" * len(content[0]))
                database.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", content)
        return query(database)
