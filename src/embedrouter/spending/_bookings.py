"""Bookings in SQLite: what one request or saving changes in a ledger's tables, inside a transaction of the caller.

A booking that is repeated changes nothing: where a commit failed, whether it is in the file is not always known.
"""

import sqlite3
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from ..types import Spending
from ._accounts import LOST, OPEN, utc_day
from ._budget import Budget
from ._learned import learn
from ._prices import UNIT
from ._refusals import Refusal, over_call, over_cap, unknown_price
from ._schema import add_to_totals

GRACE = 60.0
"""Seconds after its time limit when a reservation that was not settled counts as unconfirmed."""
FOLDED_AT_ONCE = 1000
"""Requests whose detail one booking removes: a few milliseconds."""

MONTH = "substr(:day, 1, 7)"
WINDOWS = {"per_day": "day = :day", "per_month": f"day BETWEEN {MONTH} || '-01' AND {MONTH} || '-31'", "total": "1"}
"""Which days each cap counts."""

Savings: TypeAlias = dict[tuple[str, str, str], tuple[int, int, Decimal]]
"""Texts, tokens and amount by day, model and tag."""


class Place(NamedTuple):
    """Where a request is counted."""

    day: str
    model: str
    tag: str


class SQLiteBookings:
    """The bookings of one transaction; ``Bookings`` says what each does."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def refusal(self, budget: Budget, amount: Decimal | None, now: float, tag: str) -> Refusal | None:
        return self._exceeded(budget, amount, now, tag=tag, whole_call=True)

    def reserve_within(self, budget: Budget, spending: Spending, now: float, number: int | None) -> int | Refusal:
        amount, _ = self._price_without_free(spending)
        refusal = self._exceeded(budget, amount, now, tag=spending.tag, whole_call=False)
        return refusal or self.reserve(spending, now, number)

    def reserve(self, spending: Spending, now: float, number: int | None, *, late: bool = False) -> int:
        amount, free = self._price_without_free(spending)
        units, day = whole_units(amount), utc_day(now) if late else current_day(self.database, now)
        number = self._next_number() if number is None else number
        row = (
            number, now, day, spending.model, spending.input_type, spending.tier, spending.tag,
            spending.texts - spending.pieces, spending.pieces, spending.tokens, spending.tokens, spending.exact, units,
            spending.attempt, now + spending.timeout + GRACE, free,
        )  # fmt: skip
        cursor = self.database.execute(
            "INSERT OR IGNORE INTO requests"
            " (id, at, day, state, model, input_type, tier, tag, texts, pieces, tokens, estimate, exact, amount,"
            " attempt, until, free) VALUES (?, ?, ?, 'reserved', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        if cursor.rowcount:
            self._count(Place(day, spending.model, spending.tag), units or 0, free)
        return number

    def settle(
        self, reservation: int, tokens: int, amount: Decimal | None, bill: str | None, *, reported: bool
    ) -> Decimal | None:
        reserved = self._find(reservation)
        if reserved is None:
            return amount
        place, set_aside, free_set_aside = reserved
        free = min(free_set_aside, tokens)
        amount = without_free(amount, tokens, free)
        units = whole_units(amount)
        self._count(place, (units or 0) - set_aside, free - free_set_aside)
        if reported and bill is None:
            learn(self.database, reservation, tokens)
        self.database.execute(
            "UPDATE requests SET state = 'settled', tokens = ?, amount = ?, free = ?, bill = ? WHERE id = ?",
            (tokens, units, free, bill, reservation),
        )
        add_to_totals(self.database, reservation)
        return amount

    def release(self, number: int, now: float) -> int:
        """Remove a request that was refused. One that was unconfirmed stays: a late answer is still booked."""
        reserved = self._find(number)
        if reserved is None:
            return 0
        place, set_aside, free = reserved
        self._count(place, -set_aside, -free)
        told = {"number": number, "now": now}
        kept = self.database.execute(
            f"UPDATE requests SET state = 'released', free = 0 WHERE id = :number AND {LOST}", told
        )
        if kept.rowcount:
            return 1
        return self.database.execute("DELETE FROM requests WHERE id = :number AND state = 'reserved'", told).rowcount

    def confirm(self, number: int, now: float) -> int:
        changed = self.database.execute(
            f"UPDATE requests SET state = 'settled' WHERE id = :number AND {LOST}", {"number": number, "now": now}
        ).rowcount
        if changed:
            add_to_totals(self.database, number)
        return changed

    def change_older(self, change: Literal["release", "confirm"], age: float, now: float) -> int:
        rows = self.database.execute(
            f"SELECT id FROM requests WHERE {OPEN} AND {LOST} AND at < :before", {"now": now, "before": now - age}
        ).fetchall()
        change_one = self.release if change == "release" else self.confirm
        return sum(change_one(number, now) for (number,) in rows)

    def mark_unconfirmed(self, reservation: int) -> None:
        self.database.execute(
            "UPDATE requests SET state = 'unconfirmed' WHERE id = ? AND state = 'reserved'", (reservation,)
        )

    def write_savings(self, savings: Savings, parcel: str) -> None:
        self.database.executemany(
            "INSERT INTO savings VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, model, tag) DO UPDATE SET"
            " texts = texts + excluded.texts, tokens = tokens + excluded.tokens, amount = amount + excluded.amount",
            [(*key, texts, tokens, whole_units(amount)) for key, (texts, tokens, amount) in savings.items()],
        )

    def fold(self, state: Literal["settled", "released"], age: float, now: float) -> int:
        """Remove some detail: the totals count settled requests already, and released ones are in no total."""
        return self.database.execute(
            "DELETE FROM requests WHERE id IN"
            f" (SELECT id FROM requests WHERE state = '{state}' AND at < ? ORDER BY at LIMIT ?)",
            (now - age, FOLDED_AT_ONCE),
        ).rowcount

    def tidy(self, age: float, now: float) -> None:
        self.fold("settled", age, now)

    def _exceeded(
        self, budget: Budget, amount: Decimal | None, now: float, *, tag: str, whole_call: bool
    ) -> Refusal | None:
        """Say which cap an amount would pass, of everything or of its tag. ``per_call`` caps whole calls only."""
        scopes = budget.scopes(tag)
        if not scopes or amount == 0:
            return None
        if amount is None:
            return unknown_price(scopes[0][0])
        day = current_day(self.database, now)
        for scope, caps in scopes:
            for name, cap in caps.items():
                if name == "per_call":
                    if whole_call and amount > cap:
                        return over_call(scope, cap, amount)
                    continue
                counted = spent(self.database, name, scope, day)
                if counted + amount > cap:
                    lost = self._unanswered(name, scope, day, now)
                    return over_cap(
                        scope, name, cap, counted=counted, amount=amount, unconfirmed=lost, day=day, now=now
                    )
        return None

    def _unanswered(self, cap: str, tag: str, day: str, now: float) -> Decimal:
        """Return how much of what a cap counts is unconfirmed."""
        counted = WINDOWS[cap] + (" AND tag = :tag" if tag else "")
        (units,) = self.database.execute(
            f"SELECT COALESCE(SUM(amount), 0) FROM requests WHERE {OPEN} AND {LOST} AND {counted}",
            {"day": day, "now": now, "tag": tag},
        ).fetchone()
        return Decimal(units) * UNIT

    def _price_without_free(self, spending: Spending) -> tuple[Decimal | None, int]:
        """Return the cost of a request without its free tokens, and how many those are."""
        used = free_tokens_used(self.database, spending.model) if spending.free_tokens else 0
        free = min(max(0, spending.free_tokens - used), spending.tokens)
        return without_free(spending.amount, spending.tokens, free), free

    def _next_number(self) -> int:
        """Return a number that no request had before, also none that was removed."""
        self.database.execute("UPDATE numbers SET last = last + 1")
        number: int = self.database.execute("SELECT last FROM numbers").fetchone()[0]
        return number

    def _find(self, reservation: int) -> tuple[Place, int, int] | None:
        """Return where a request counts, and the money and free tokens set aside; ``None`` if it is settled or gone."""
        found = self.database.execute(
            "SELECT day, model, tag, CASE state WHEN 'released' THEN 0 ELSE COALESCE(amount, 0) END, free FROM requests"
            " WHERE id = ? AND state != 'settled'",
            (reservation,),
        ).fetchone()
        return (Place(*found[:3]), found[3], found[4]) if found else None

    def _count(self, place: Place, units: int, free: int) -> None:
        """Add money to what a day counts, of everything and of a tag, and free tokens to what a model has used."""
        if units:
            self.database.execute(
                "INSERT INTO days VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET amount = amount + excluded.amount",
                (place.day, units),
            )
        if units and place.tag:
            self.database.execute(
                "INSERT INTO tag_days VALUES (?, ?, ?)"
                " ON CONFLICT (tag, day) DO UPDATE SET amount = amount + excluded.amount",
                (place.tag, place.day, units),
            )
        if free:
            self.database.execute(
                "INSERT INTO allowances VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET used = used + excluded.used",
                (place.model, free),
            )


# What is counted


def current_day(database: sqlite3.Connection, now: float) -> str:
    """Return the day in whose windows money is counted: never one before a day on which money was counted.

    A clock that is set back would open the windows of a day again whose caps are used up.
    """
    (latest,) = database.execute("SELECT MAX(day) FROM days").fetchone()
    return max(latest or "", utc_day(now))


def spent(database: sqlite3.Connection, cap: str, tag: str, day: str) -> Decimal:
    """Return what a cap counts in the window of a day: what is spent, set aside or unconfirmed.

    Args:
        tag: whose spending is counted; ``""`` for everything.
    """
    table = "tag_days WHERE tag = :tag AND" if tag else "days WHERE"
    (units,) = database.execute(
        f"SELECT COALESCE(SUM(amount), 0) FROM {table} {WINDOWS[cap]}", {"day": day, "tag": tag}
    ).fetchone()
    return Decimal(units) * UNIT


def free_tokens_used(database: sqlite3.Connection, model: str) -> int:
    """Return how many of a model's free tokens are used or set aside."""
    row = database.execute("SELECT used FROM allowances WHERE model = ?", (model,)).fetchone()
    return row[0] if row else 0


def without_free(amount: Decimal | None, tokens: int, free: int) -> Decimal | None:
    """Return the part of an amount that is left when some of the tokens are free; exact, as prices are."""
    return amount if amount is None or not free else amount / tokens * (tokens - free)


def whole_units(amount: Decimal | None) -> int | None:
    """Return an amount in whole units, rounded up where it has more decimals than there are."""
    if amount is None:
        return None
    whole = amount / UNIT
    return int(whole) + (whole != int(whole))
