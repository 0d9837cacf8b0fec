"""What a ledger has in memory and not in its file yet: savings, and bookings that the file could not take.

The lock is held for arithmetic only, never while SQLite works: an event loop adds savings to this.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple, TypeAlias

from .._process import Lock
from ._bookings import Savings, write_savings

MOST_BOOKINGS = 10_000
"""Bookings kept in memory; for older ones the file keeps counting what was set aside."""

NOTHING = (0, 0, Decimal(0))

Booking: TypeAlias = Callable[[sqlite3.Connection], object]


class Items(NamedTuple):
    """Savings, and bookings in their order."""

    savings: Savings
    bookings: list[Booking]

    def write(self, database: sqlite3.Connection) -> None:
        """Write all of them, inside a transaction of the caller."""
        for booking in self.bookings:
            booking(database)
        write_savings(database, self.savings)


class Unwritten:
    """Collects savings and bookings from all threads of a process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._items = Items({}, [])

    def __bool__(self) -> bool:
        return bool(self._items.savings or self._items.bookings)

    def save(self, key: tuple[str, str, str], texts: int, tokens: int, amount: Decimal) -> None:
        """Add to the savings under a day, model and tag."""
        with self._lock:
            savings = self._items.savings
            before = savings.get(key, NOTHING)
            savings[key] = (before[0] + texts, before[1] + tokens, before[2] + amount)

    def add(self, booking: Booking) -> None:
        """Add a booking after the others."""
        with self._lock:
            bookings = self._items.bookings
            bookings.append(booking)
            del bookings[:-MOST_BOOKINGS]

    def copy(self) -> Items:
        """Return what is there."""
        with self._lock:
            return Items(dict(self._items.savings), list(self._items.bookings))

    def take(self) -> Items:
        """Return what is there and keep nothing, because it is about to be written."""
        with self._lock:
            taken, self._items = self._items, Items({}, [])
        return taken

    def put_back(self, items: Items) -> None:
        """Keep again, before what was added since, what could not be written."""
        with self._lock:
            self._items.bookings[:0] = items.bookings
        for key, saving in items.savings.items():
            self.save(key, *saving)
