"""What a ledger has in memory and not in its file yet: savings, and bookings that the file could not take.

The lock is held for arithmetic only, never while SQLite works: an event loop adds savings to this.
"""

import sqlite3
from collections.abc import Callable
from decimal import Decimal
from typing import TypeAlias

from .._process import Lock
from ._bookings import Savings, write_savings

MOST_BOOKINGS = 10_000
"""Bookings kept in memory; for older ones the file keeps counting what was set aside."""

NOTHING = (0, 0, Decimal(0))

Booking: TypeAlias = Callable[[sqlite3.Connection], object]


class Unwritten:
    """Collects savings and bookings from all threads of a process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._savings: Savings = {}
        self._bookings: list[Booking] = []

    def __bool__(self) -> bool:
        return bool(self._savings or self._bookings)

    @property
    def bookings(self) -> int:
        """The number of bookings, without savings."""
        return len(self._bookings)

    def save(self, key: tuple[str, str, str], texts: int, tokens: int, amount: Decimal) -> None:
        """Add to the savings under a day, model and tag."""
        with self._lock:
            before = self._savings.get(key, NOTHING)
            self._savings[key] = (before[0] + texts, before[1] + tokens, before[2] + amount)

    def add(self, booking: Booking) -> None:
        """Add a booking after the others."""
        with self._lock:
            self._bookings.append(booking)
            del self._bookings[:-MOST_BOOKINGS]

    def take(self) -> "Unwritten":
        """Return what is there and keep nothing, because it is about to be written."""
        taken = Unwritten()
        with self._lock:
            taken._savings, self._savings = self._savings, {}
            taken._bookings, self._bookings = self._bookings, []
        return taken

    def put_back(self, taken: "Unwritten") -> None:
        """Keep again, before what was added since, what could not be written."""
        with self._lock:
            self._bookings[:0] = taken._bookings
        for key, saving in taken._savings.items():
            self.save(key, *saving)

    def write(self, database: sqlite3.Connection) -> None:
        """Write what is there, inside a transaction of the caller, and keep it."""
        with self._lock:
            bookings, savings = list(self._bookings), dict(self._savings)
        for booking in bookings:
            booking(database)
        write_savings(database, savings)
