"""What a ledger has in memory and not in its books yet: savings, and bookings that a file or a server could not take.

The lock is held for arithmetic only, never while SQLite or Redis works: an event loop adds savings to this.
"""

import secrets
from collections.abc import Callable
from decimal import Decimal
from typing import TypeAlias

from .._process import Lock
from ._bookings import Savings
from ._books import Bookings

MOST_BOOKINGS = 10_000
"""Bookings kept in memory; for older ones the books keep counting what was set aside."""

MOST_PARCELS = 20
"""Savings that were not written are kept apart from others so many times."""

NOTHING = (0, 0, Decimal(0))

Booking: TypeAlias = Callable[[Bookings], object]


class Unwritten:
    """Collects savings and bookings from all threads of a process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._savings: Savings = {}
        self._parcels: list[tuple[str, Savings]] = []
        """Savings that were about to be written, under the name by which the books know whether they were."""
        self._bookings: list[Booking] = []

    def __bool__(self) -> bool:
        return bool(self._savings or self._parcels or self._bookings)

    @property
    def bookings(self) -> int:
        """The number of bookings, without savings."""
        return len(self._bookings)

    def save(self, key: tuple[str, str, str], texts: int, tokens: int, amount: Decimal) -> None:
        """Add to the savings under a day, model and tag."""
        with self._lock:
            _add(self._savings, {key: (texts, tokens, amount)})

    def add(self, booking: Booking) -> None:
        """Add a booking after the others."""
        with self._lock:
            self._bookings.append(booking)
            del self._bookings[:-MOST_BOOKINGS]

    def take(self, *, savings: bool = True) -> "Unwritten":
        """Return what is there, with or without the savings, because it is about to be written; keep nothing of it."""
        taken = Unwritten()
        with self._lock:
            taken._bookings, self._bookings = self._bookings, []
            if savings:
                taken._parcels, self._parcels = self._parcels, []
                if self._savings:
                    taken._parcels.append((secrets.token_hex(8), self._savings))
                    self._savings = {}
        return taken

    def put_back(self, taken: "Unwritten") -> None:
        """Keep again, before what was added since, what could not be written."""
        with self._lock:
            self._bookings[:0] = taken._bookings
            self._parcels[:0] = taken._parcels
            while len(self._parcels) > MOST_PARCELS:
                (_, first), (_, second) = self._parcels[0], self._parcels.pop(1)
                _add(first, second)

    def write(self, books: Bookings) -> None:
        """Write what is there, inside a transaction of the caller, and keep it."""
        with self._lock:
            bookings, parcels = list(self._bookings), [*self._parcels, ("", dict(self._savings))]
        for booking in bookings:
            booking(books)
        for name, savings in parcels:
            if savings:
                books.write_savings(savings, name)


def _add(savings: Savings, further: Savings) -> None:
    for key, (texts, tokens, amount) in further.items():
        before = savings.get(key, NOTHING)
        savings[key] = (before[0] + texts, before[1] + tokens, before[2] + amount)
