"""Bookings: what one request or saving changes in a ledger's tables. Each runs inside a transaction of its caller.

A booking that is repeated changes nothing: where a commit failed, whether it is in the file is not always known.
"""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple, TypeAlias

from .._display import shown_name
from ..types import Spending, dollars
from ._accounts import LOST, OPEN
from ._budget import Budget
from ._learned import learn
from ._prices import UNIT
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


def utc_day(seconds: float) -> str:
    """Return the UTC day of a time in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def current_day(database: sqlite3.Connection, now: float) -> str:
    """Return the day in whose windows money is counted: never one before a day on which money was counted.

    A clock that is set back would open the windows of a day again whose caps are used up.
    """
    (latest,) = database.execute("SELECT MAX(day) FROM days").fetchone()
    return max(latest or "", utc_day(now))


class Refusal(str):
    """Why an amount does not fit the budget: the cap, the amounts, and what to do."""

    tag: str
    """The tag whose cap it is; ``""`` where the cap counts everything."""

    def __new__(cls, reason: str, tag: str = "") -> "Refusal":
        refusal = super().__new__(cls, reason)
        refusal.tag = tag
        return refusal


def exceeded(
    database: sqlite3.Connection, budget: Budget, amount: Decimal | None, now: float, *, tag: str, whole_call: bool
) -> Refusal | None:
    """Say which cap an amount would pass, of everything or of its tag. ``per_call`` caps whole calls only."""
    scopes = budget.scopes(tag)
    if not scopes or amount == 0:
        return None
    if amount is None:
        return unknown_price(scopes[0][0])
    day = current_day(database, now)
    for scope, caps in scopes:
        for name, cap in caps.items():
            if name == "per_call":
                if whole_call and amount > cap:
                    return over_call(scope, cap, amount)
                continue
            counted = spent(database, name, scope, day)
            if counted + amount > cap:
                lost = _unanswered(database, name, scope, day, now)
                return over_cap(scope, name, cap, counted=counted, amount=amount, unconfirmed=lost, day=day, now=now)
    return None


def unknown_price(scope: str) -> Refusal:
    """Refuse an amount that is not known, because no cap can hold."""
    reason = "its price is unknown, so no budget can hold. Set Model(…, price=…), US dollars per million tokens."
    return Refusal(reason, scope)


def over_call(scope: str, cap: Decimal, amount: Decimal) -> Refusal:
    """Refuse a whole call over ``per_call``."""
    under, where = _named("per_call", scope)
    story = f"the call would cost about {dollars(amount)}{under}, over per_call={dollars(cap)}"
    return Refusal(f"{story}. Send fewer texts or raise {where}.", scope)


def over_cap(
    scope: str,
    name: str,
    cap: Decimal,
    *,
    counted: Decimal,
    amount: Decimal,
    unconfirmed: Decimal,
    day: str,
    now: float,
) -> Refusal:
    """Refuse an amount that would pass a cap of the window of a day, in which ``counted`` is counted already."""
    under, where = _named(name, scope)
    wait = "" if name == "total" else ", or wait for the next window"
    story = f"{dollars(counted)} are spent or set aside{under}; {dollars(amount)} more would pass"
    hints = _listed(unconfirmed) + _behind(day, now)
    return Refusal(f"{story} {name}={dollars(cap)}. Raise {where}{wait}.{hints}", scope)


def _named(cap: str, scope: str) -> tuple[str, str]:
    """Return whose spending a cap counts, and the name of the cap, as a message says them."""
    if not scope:
        return "", cap
    return f" under the tag {shown_name(scope)}", f"{cap} of the tag {shown_name(scope)}"


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


def _unanswered(database: sqlite3.Connection, cap: str, tag: str, day: str, now: float) -> Decimal:
    """Return how much of what a cap counts is unconfirmed."""
    counted = WINDOWS[cap] + (" AND tag = :tag" if tag else "")
    (units,) = database.execute(
        f"SELECT COALESCE(SUM(amount), 0) FROM requests WHERE {OPEN} AND {LOST} AND {counted}",
        {"day": day, "now": now, "tag": tag},
    ).fetchone()
    return Decimal(units) * UNIT


def _listed(unconfirmed: Decimal) -> str:
    """Say how much is unconfirmed, if any is."""
    if not unconfirmed:
        return ""
    return (
        f" {dollars(unconfirmed)} of them are unconfirmed: compare with the provider's bill, and release what was not "
        "billed: embedrouter ledger show."
    )


def _behind(day: str, now: float) -> str:
    """Say that the clock is behind the ledger, if it is."""
    if day == utc_day(now):
        return ""
    return (
        f" The windows are those of {day}, the latest day in the ledger; this machine's clock says {utc_day(now)}: "
        "set the clock right, or, if the ledger's day was never reached, begin a new ledger."
    )


def free_tokens_used(database: sqlite3.Connection, model: str) -> int:
    """Return how many of a model's free tokens are used or set aside."""
    row = database.execute("SELECT used FROM allowances WHERE model = ?", (model,)).fetchone()
    return row[0] if row else 0


def price_without_free(database: sqlite3.Connection, spending: Spending) -> tuple[Decimal | None, int]:
    """Return the cost of a request without its free tokens, and how many those are."""
    left = max(0, spending.free_tokens - free_tokens_used(database, spending.model)) if spending.free_tokens else 0
    free = min(left, spending.tokens)
    return without_free(spending.amount, spending.tokens, free), free


def reserve(database: sqlite3.Connection, spending: Spending, now: float, late: int | None = None) -> int:
    """Set the cost of a request aside and return the reservation.

    A request that is booked ``late``, under a number that it has already, belongs to the day on which it was made.
    """
    amount, free = price_without_free(database, spending)
    units, day = whole_units(amount), current_day(database, now) if late is None else utc_day(now)
    number = _next_number(database) if late is None else late
    row = (
        number, now, day, spending.model, spending.input_type, spending.tier, spending.tag,
        spending.texts - spending.pieces, spending.pieces, spending.tokens, spending.tokens, spending.exact, units,
        spending.attempt, now + spending.timeout + GRACE, free,
    )  # fmt: skip
    cursor = database.execute(
        "INSERT OR IGNORE INTO requests"
        " (id, at, day, state, model, input_type, tier, tag, texts, pieces, tokens, estimate, exact, amount, attempt,"
        " until, free) VALUES (?, ?, ?, 'reserved', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )
    if cursor.rowcount:
        _count(database, Place(day, spending.model, spending.tag), units or 0, free)
    return number


def settle(
    database: sqlite3.Connection,
    reservation: int,
    tokens: int,
    amount: Decimal | None,
    bill: str | None = None,
    *,
    reported: bool = True,
) -> Decimal | None:
    """Book what a request was billed in place of what was set aside; return it without what was free.

    Args:
        reported: whether the provider reported the tokens, so that the estimate can be compared with them.
    """
    reserved = _find(database, reservation)
    if reserved is None:
        return amount
    place, set_aside, free_set_aside = reserved
    free = min(free_set_aside, tokens)
    amount = without_free(amount, tokens, free)
    units = whole_units(amount)
    _count(database, place, (units or 0) - set_aside, free - free_set_aside)
    if reported and bill is None:
        learn(database, reservation, tokens)
    database.execute(
        "UPDATE requests SET state = 'settled', tokens = ?, amount = ?, free = ?, bill = ? WHERE id = ?",
        (tokens, units, free, bill, reservation),
    )
    add_to_totals(database, reservation)
    return amount


def release(database: sqlite3.Connection, number: int, now: float) -> int:
    """Give back what was set aside for a request that was not billed; return of how many requests.

    One that was refused is removed. One that was unconfirmed stays in the file: a late answer is still booked.
    """
    reserved = _find(database, number)
    if reserved is None:
        return 0
    place, set_aside, free = reserved
    _count(database, place, -set_aside, -free)
    told = {"number": number, "now": now}
    kept = database.execute(f"UPDATE requests SET state = 'released', free = 0 WHERE id = :number AND {LOST}", told)
    if kept.rowcount:
        return 1
    return database.execute("DELETE FROM requests WHERE id = :number AND state = 'reserved'", told).rowcount


def confirm(database: sqlite3.Connection, number: int, now: float) -> int:
    """Book an unconfirmed request at its estimate, because it was billed; return of how many requests."""
    told = {"number": number, "now": now}
    changed = database.execute(f"UPDATE requests SET state = 'settled' WHERE id = :number AND {LOST}", told).rowcount
    if changed:
        add_to_totals(database, number)
    return changed


def change_older(
    database: sqlite3.Connection, change: Callable[[sqlite3.Connection, int, float], int], before: float, now: float
) -> int:
    """Release or confirm all unconfirmed requests that were made before a time; return how many."""
    rows = database.execute(
        f"SELECT id FROM requests WHERE {OPEN} AND {LOST} AND at < :before", {"now": now, "before": before}
    ).fetchall()
    return sum(change(database, number, now) for (number,) in rows)


def mark_unconfirmed(database: sqlite3.Connection, reservation: int) -> None:
    """Keep counting the estimate of a request that was sent and never answered."""
    database.execute("UPDATE requests SET state = 'unconfirmed' WHERE id = ? AND state = 'reserved'", (reservation,))


def write_savings(database: sqlite3.Connection, savings: Savings) -> None:
    """Add to what was not paid for."""
    database.executemany(
        "INSERT INTO savings VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, model, tag) DO UPDATE SET"
        " texts = texts + excluded.texts, tokens = tokens + excluded.tokens, amount = amount + excluded.amount",
        [(*key, texts, tokens, whole_units(amount)) for key, (texts, tokens, amount) in savings.items()],
    )


def fold(database: sqlite3.Connection, before: float, *, state: str = "settled") -> int:
    """Remove the detail of some settled requests that were made before a time, and return of how many.

    The totals count them already; released ones are in no total.
    """
    return database.execute(
        "DELETE FROM requests WHERE id IN"
        f" (SELECT id FROM requests WHERE state = '{state}' AND at < ? ORDER BY at LIMIT ?)",
        (before, FOLDED_AT_ONCE),
    ).rowcount


def _next_number(database: sqlite3.Connection) -> int:
    """Return a number that no request had before, also none that was removed."""
    database.execute("UPDATE numbers SET last = last + 1")
    number: int = database.execute("SELECT last FROM numbers").fetchone()[0]
    return number


class Place(NamedTuple):
    """Where a request is counted."""

    day: str
    model: str
    tag: str


def _find(database: sqlite3.Connection, reservation: int) -> tuple[Place, int, int] | None:
    """Return where a request counts, the money and the free tokens set aside, if it is in this file and not settled."""
    found = database.execute(
        "SELECT day, model, tag, CASE state WHEN 'released' THEN 0 ELSE COALESCE(amount, 0) END, free FROM requests"
        " WHERE id = ? AND state != 'settled'",
        (reservation,),
    ).fetchone()
    return (Place(*found[:3]), found[3], found[4]) if found else None


def _count(database: sqlite3.Connection, place: Place, units: int, free: int) -> None:
    """Add money to what a day counts, of everything and of a tag, and free tokens to what a model has used."""
    if units:
        database.execute(
            "INSERT INTO days VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET amount = amount + excluded.amount",
            (place.day, units),
        )
    if units and place.tag:
        database.execute(
            "INSERT INTO tag_days VALUES (?, ?, ?)"
            " ON CONFLICT (tag, day) DO UPDATE SET amount = amount + excluded.amount",
            (place.tag, place.day, units),
        )
    if free:
        database.execute(
            "INSERT INTO allowances VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET used = used + excluded.used",
            (place.model, free),
        )


def without_free(amount: Decimal | None, tokens: int, free: int) -> Decimal | None:
    """Return the part of an amount that is left when some of the tokens are free; exact, as prices are."""
    return amount if amount is None or not free else amount / tokens * (tokens - free)


def whole_units(amount: Decimal | None) -> int | None:
    """Return an amount in whole units, rounded up where it has more decimals than there are."""
    if amount is None:
        return None
    whole = amount / UNIT
    return int(whole) + (whole != int(whole))
