"""Accounts: what a ledger's tables say was spent, saved and left unconfirmed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar

from .._display import shown_name
from ..errors import ConfigError
from ..types import dollars
from ._prices import UNIT

Heading = Literal["day", "month", "model", "tag"]
DAY = re.compile(r"\d{4}(-\d{2}){0,2}")
"""A day, a month or a year."""
K = TypeVar("K", str, tuple[str, ...])

COLUMNS: dict[Heading, str] = {"day": "day", "month": "substr(day, 1, 7)", "model": "model", "tag": "tag"}
LOST = "state NOT IN ('settled', 'released') AND (state = 'unconfirmed' OR until < :now)"
"""Which requests may have been billed: a reservation past its time belongs to a process that is gone."""
OPEN = "state != 'settled'"
"""A condition that lets SQLite use the index of the requests that are not settled."""


def utc_day(seconds: float) -> str:
    """Return the UTC day of a time in seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent and saved under one heading. Money is US dollars."""

    requests: int = 0
    texts: int = 0
    """Sent whole; those over the model's limit are sent in ``pieces``."""
    tokens: int = 0
    cost: Decimal = Decimal(0)
    """As billed, where the price is known."""
    unpriced_tokens: int = 0
    unconfirmed: Decimal = Decimal(0)
    """Estimates of requests that may have been billed; not in ``cost``."""
    saved_texts: int = 0
    saved_tokens: int = 0
    saved: Decimal = Decimal(0)
    pieces: int = 0
    """Parts of texts over the model's limit that were sent."""
    free_tokens: int = 0
    """Tokens among ``tokens`` that cost nothing, such as those of local models."""
    saved_free_tokens: int = 0
    """Tokens among ``saved_tokens`` that would have cost nothing, or are of unknown price."""

    def __add__(self, other: Account) -> Account:
        """Sum up two accounts."""
        return Account(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Account)))

    @property
    def is_unknown(self) -> bool:
        """Whether the price of every token is unknown, so that the cost is."""
        return self.unpriced_tokens == self.tokens > 0

    def as_shown(self) -> dict[str, object]:
        """Return the account as tables show it: a cost that is unknown is no zero."""
        facts = asdict(self)
        return {**facts, "cost": "unknown"} if self.is_unknown and not self.cost else facts

    def __str__(self) -> str:
        """Format an account for people, money without exponents."""
        unknown = f", {self.unpriced_tokens:,} tokens of unknown price" if self.unpriced_tokens else ""
        unknown += f", {self.free_tokens:,} tokens free of charge" if self.free_tokens else ""
        lost = f", {dollars(self.unconfirmed)} unconfirmed" if self.unconfirmed else ""
        return (
            f"{self.requests:,} requests, {self.tokens:,} tokens, {dollars(self.cost)}{unknown}{lost}; "
            f"saved {dollars(self.saved)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedRequest:
    """One request of which the ledger has the detail."""

    number: int = field(compare=False)
    """By which ``Ledger.confirm`` and ``Ledger.release`` name it, if it is unconfirmed."""
    at: datetime
    model: str
    input_type: str
    tier: str
    tag: str
    texts: int
    """Sent whole."""
    pieces: int
    """Parts of texts over the model's limit."""
    tokens: int
    """As billed; as estimated, where the request is not settled."""
    estimate: int | None
    """Tokens; ``None`` in requests that an earlier version of the package has booked."""
    amount: Decimal | None
    """US dollars, without what was free; ``None`` where the price is unknown."""
    attempt: int
    """1 for the first attempt."""
    state: str
    """``"reserved"``, ``"settled"``, ``"unconfirmed"`` or ``"released"``."""


@dataclass(frozen=True, slots=True)
class Period:
    """Which days count, and which tag; ``None`` is no limit."""

    since: str | None = None
    """The first day, UTC."""
    until: str | None = None
    """The last day, UTC."""
    tag: str | None = None

    @classmethod
    def of(cls, since: date | str | None, until: date | str | None, tag: str | None) -> Period:
        """Return a period whose ends are days, months (``"2026-03"``) or years.

        Raises:
            ConfigError: an end is none of these, or the last day is before the first.
        """
        first, last = _day(since, "since", "-01-01"), _day(until, "until", "-12-31")
        if first is not None and last is not None and last < first:
            raise ConfigError(f"until={last} is before since={first}. Write the earlier day as since.")
        return cls(first, last, tag)

    def condition(self) -> str:
        """Return what is true of the rows that count, in SQL."""
        ends = (("since", "day >= :since"), ("until", "day <= :until"), ("tag", "tag = :tag"))
        return " AND ".join(["1", *(condition for name, condition in ends if getattr(self, name) is not None)])


def _day(given: date | str | None, name: str, end: str) -> str | None:
    """Return a day; a month or a year becomes its first or last day."""
    if given is None:
        return None
    if isinstance(given, datetime):
        return (given.astimezone(UTC) if given.tzinfo else given).date().isoformat()
    if isinstance(given, date):
        return given.isoformat()
    if isinstance(given, str) and DAY.fullmatch(given):
        with suppress(ValueError):
            day = given + end[3 * given.count("-") :]
            if len(given) < len(day) and name == "until":  # months have 28 to 31 days
                begun = date.fromisoformat(f"{day[:7]}-01")
                return ((begun + timedelta(days=31)).replace(day=1) - timedelta(days=1)).isoformat()
            return date.fromisoformat(day).isoformat()
    raise ConfigError(f"{name}={shown_name(given)} is no day such as '2026-03-01', and no month such as '2026-03'.")


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A request that was sent and never answered."""

    number: int = field(compare=False)
    """By which ``Ledger.confirm`` and ``Ledger.release`` name it."""
    at: datetime
    model: str
    tag: str
    texts: int
    tokens: int
    amount: Decimal | None


@dataclass(frozen=True, slots=True)
class ImplausibleBill:
    """A request for which its estimate was booked, because the provider's bill cannot be true."""

    at: datetime
    model: str
    tag: str
    texts: int
    tokens: int
    """As booked."""
    reported: str
    """Tokens, as the provider reported them."""
    amount: Decimal | None
    """As booked."""


def sum_accounts(tables: Iterable[dict[K, Account]]) -> dict[K, Account]:
    """Sum up accounts of the same name, in the order of the names."""
    sums: dict[K, Account] = {}
    for table in tables:
        for name, account in table.items():
            sums[name] = sums.get(name, Account()) + account
    return {name: sums[name] for name in sorted(sums)}


def read_accounts(
    database: sqlite3.Connection, by: Sequence[Heading], now: float, period: Period
) -> dict[tuple[str, ...], Account]:
    """Read what was spent and saved, under each day, month, model or tag, or each combination of several."""
    if unknown := [heading for heading in by if heading not in COLUMNS]:
        known = ", ".join(map(repr, COLUMNS))
        raise ValueError(f"There are no totals by {shown_name(unknown[0])}, only by {known}.")
    names = ", ".join(COLUMNS[heading] for heading in by)

    told = {"now": now, **asdict(period)}

    def rows(columns: str, table: str, condition: str = "1") -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
        where = f"{condition} AND {period.condition()}"
        for row in database.execute(f"SELECT {names}, {columns} FROM {table} WHERE {where} GROUP BY {names}", told):
            yield row[: len(by)], row[len(by) :]

    spent = {
        name: Account(requests, texts, tokens, amount * UNIT, unpriced, pieces=pieces, free_tokens=free)
        for name, (requests, texts, tokens, amount, unpriced, pieces, free) in rows(
            "SUM(requests), SUM(texts), SUM(tokens), SUM(amount), SUM(unpriced_tokens), SUM(pieces), SUM(free_tokens)",
            "totals",
        )
    }
    unsettled = {
        name: Account(unconfirmed=amount * UNIT)
        for name, (amount,) in rows(
            f"COALESCE(SUM(amount) FILTER (WHERE {LOST}), 0)", "requests", f"{OPEN} AND state != 'released'"
        )
    }
    saved = {
        name: Account(saved_texts=texts, saved_tokens=tokens, saved=amount * UNIT, saved_free_tokens=free)
        for name, (texts, tokens, amount, free) in rows(
            "SUM(texts), SUM(tokens), SUM(amount), COALESCE(SUM(tokens) FILTER (WHERE amount = 0), 0)", "savings"
        )
    }
    return sum_accounts([spent, unsettled, saved])


def read_requests(database: sqlite3.Connection, now: float, period: Period, limit: int | None) -> list[BookedRequest]:
    """Read the last requests of which the detail is kept, the latest first."""
    rows = database.execute(
        "SELECT id, at, model, input_type, tier, tag, texts, pieces, tokens, estimate, amount, attempt,"
        f" CASE WHEN {OPEN} AND {LOST} THEN 'unconfirmed' ELSE state END FROM requests"
        f" WHERE {period.condition()} ORDER BY at DESC, id DESC LIMIT :limit",
        {"now": now, "limit": -1 if limit is None else limit, **asdict(period)},
    )
    names = [item.name for item in fields(BookedRequest)]
    found = (dict(zip(names, row, strict=True)) for row in rows)
    return [
        BookedRequest(
            **{
                **row,
                "at": datetime.fromtimestamp(row["at"], UTC),
                "amount": None if row["amount"] is None else row["amount"] * UNIT,
            }
        )
        for row in found
    ]


def read_unconfirmed(database: sqlite3.Connection, now: float) -> list[Unconfirmed]:
    """Read the requests that may have been billed, oldest first."""
    rows = database.execute(
        f"SELECT id, at, model, tag, texts + pieces, tokens, amount FROM requests WHERE {OPEN} AND {LOST} ORDER BY at",
        {"now": now},
    )
    return [
        Unconfirmed(number, datetime.fromtimestamp(at, UTC), model, tag, texts, tokens, None if n is None else n * UNIT)
        for number, at, model, tag, texts, tokens, n in rows
    ]


def read_implausible_bills(database: sqlite3.Connection) -> list[ImplausibleBill]:
    """Read the requests whose bill cannot be true, oldest first."""
    rows = database.execute(
        "SELECT at, model, tag, texts + pieces, tokens, bill, amount FROM requests"
        " WHERE state = 'settled' AND bill IS NOT NULL ORDER BY at"
    )
    return [
        ImplausibleBill(
            datetime.fromtimestamp(at, UTC), model, tag, texts, tokens, bill, None if n is None else n * UNIT
        )
        for at, model, tag, texts, tokens, bill, n in rows
    ]
