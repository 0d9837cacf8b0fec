"""Accounts: what a ledger's tables say was spent, saved and left unconfirmed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, TypeVar

from .._display import shown_name
from ..types import dollars
from ._prices import UNIT

Heading = Literal["day", "month", "model", "tag"]
K = TypeVar("K", str, tuple[str, ...])

COLUMNS: dict[Heading, str] = {"day": "day", "month": "substr(day, 1, 7)", "model": "model", "tag": "tag"}
LOST = "state NOT IN ('settled', 'released') AND (state = 'unconfirmed' OR until < :now)"
"""Which requests may have been billed: a reservation past its time belongs to a process that is gone."""
OPEN = "state != 'settled'"
"""A condition that lets SQLite use the index of the requests that are not settled."""


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent and saved under one heading. Money is US dollars."""

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)
    """As billed, where the price is known."""
    unpriced_tokens: int = 0
    unconfirmed: Decimal = Decimal(0)
    """Estimates of requests that may have been billed; not in ``cost``."""
    saved_texts: int = 0
    saved_tokens: int = 0
    saved: Decimal = Decimal(0)

    def __add__(self, other: Account) -> Account:
        """Sum up two accounts."""
        return Account(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(Account)))

    def __str__(self) -> str:
        """Format an account for people, money without exponents."""
        unknown = f", {self.unpriced_tokens:,} tokens of unknown price" if self.unpriced_tokens else ""
        lost = f", {dollars(self.unconfirmed)} unconfirmed" if self.unconfirmed else ""
        return (
            f"{self.requests:,} requests, {self.tokens:,} tokens, {dollars(self.cost)}{unknown}{lost}; "
            f"saved {dollars(self.saved)}"
        )


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


def read_accounts(database: sqlite3.Connection, by: Sequence[Heading], now: float) -> dict[tuple[str, ...], Account]:
    """Read what was spent and saved, under each day, month, model or tag, or each combination of several."""
    if unknown := [heading for heading in by if heading not in COLUMNS]:
        known = ", ".join(map(repr, COLUMNS))
        raise ValueError(f"There are no totals by {shown_name(unknown[0])}, only by {known}.")
    names = ", ".join(COLUMNS[heading] for heading in by)

    def rows(columns: str, table: str) -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
        for row in database.execute(f"SELECT {names}, {columns} FROM {table} GROUP BY {names}", {"now": now}):
            yield row[: len(by)], row[len(by) :]

    spent = {
        name: Account(requests, texts, tokens, amount * UNIT, unpriced)
        for name, (requests, texts, tokens, amount, unpriced) in rows(
            "SUM(requests), SUM(texts), SUM(tokens), SUM(amount), SUM(unpriced_tokens)", "totals"
        )
    }
    unsettled = {
        name: Account(unconfirmed=amount * UNIT)
        for name, (amount,) in rows(
            f"COALESCE(SUM(amount) FILTER (WHERE {LOST}), 0)", f"requests WHERE {OPEN} AND state != 'released'"
        )
    }
    saved = {
        name: Account(saved_texts=texts, saved_tokens=tokens, saved=amount * UNIT)
        for name, (texts, tokens, amount) in rows("SUM(texts), SUM(tokens), SUM(amount)", "savings")
    }
    return sum_accounts([spent, unsettled, saved])


def read_unconfirmed(database: sqlite3.Connection, now: float) -> list[Unconfirmed]:
    """Read the requests that may have been billed, oldest first."""
    rows = database.execute(
        f"SELECT id, at, model, tag, texts, tokens, amount FROM requests WHERE {OPEN} AND {LOST} ORDER BY at",
        {"now": now},
    )
    return [
        Unconfirmed(number, datetime.fromtimestamp(at, UTC), model, tag, texts, tokens, None if n is None else n * UNIT)
        for number, at, model, tag, texts, tokens, n in rows
    ]


def read_implausible_bills(database: sqlite3.Connection) -> list[ImplausibleBill]:
    """Read the requests whose bill cannot be true, oldest first."""
    rows = database.execute(
        "SELECT at, model, tag, texts, tokens, bill, amount FROM requests"
        " WHERE state = 'settled' AND bill IS NOT NULL ORDER BY at"
    )
    return [
        ImplausibleBill(
            datetime.fromtimestamp(at, UTC), model, tag, texts, tokens, bill, None if n is None else n * UNIT
        )
        for at, model, tag, texts, tokens, bill, n in rows
    ]
