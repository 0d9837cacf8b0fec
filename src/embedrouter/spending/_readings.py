"""What a ledger can be asked: accounts, single requests, what is left of a budget, and how good estimates were."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TypeVar

from ..errors import ConfigError, LedgerError
from ..types import Table
from ._accounts import (
    Account,
    BookedRequest,
    Heading,
    ImplausibleBill,
    Period,
    Unconfirmed,
    read_accounts,
    read_implausible_bills,
    read_requests,
    read_unconfirmed,
    sum_accounts,
)
from ._bookings import current_day, free_tokens_used, spent
from ._books import TableName
from ._budget import Budget
from ._learned import Learned, read_learned

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CapLeft:
    """What is left of one cap. Money is US dollars."""

    tag: str
    """Whose spending the cap counts; ``""`` for everything."""
    cap: str
    """``"per_call"``, ``"per_day"``, ``"per_month"`` or ``"total"``."""
    limit: Decimal
    counted: Decimal
    """Spent, set aside or unconfirmed in the current window; of ``per_call`` nothing is counted."""
    left: Decimal
    """Never below zero."""
    resets_at: datetime | None
    """When the next window begins, UTC; ``None`` where there is none."""
    resets_in: timedelta | None
    """The time until then, in whole seconds."""


class Readings(ABC):
    """The questions to a ledger. None takes a lock: others may write meanwhile."""

    _now: Callable[[], float]

    @abstractmethod
    def _read(self, query: Callable[[sqlite3.Connection], T], *tables: TableName) -> list[T]:
        """Query these tables of the books, and apart from them what is in memory."""

    @abstractmethod
    def _is_empty(self) -> bool:
        """Say whether nothing was ever booked, without making the file."""

    def totals(
        self, by: Heading, *, since: date | str | None = None, until: date | str | None = None, tag: str | None = None
    ) -> Table[str, Account]:
        """Return what was spent and saved, by day, month, model or tag, in their order.

        Args:
            by: ``"day"``, ``"month"``, ``"model"`` or ``"tag"``.
            since: the first day that counts, such as ``"2026-03-01"`` or ``"2026-03"``. Days are UTC.
            until: the last day that counts, or the last month.
            tag: whose spending counts; ``""`` for what has no tag.

        Raises:
            ConfigError: a day is none.
        """
        found = self.accounts(by, since=since, until=until, tag=tag)
        return Table({name: account for (name,), account in found.items()})

    def accounts(
        self, *by: Heading, since: date | str | None = None, until: date | str | None = None, tag: str | None = None
    ) -> dict[tuple[str, ...], Account]:
        """Return what was spent and saved, by several of day, month, model and tag together, in their order.

        The other arguments are those of ``totals``.
        """
        period = Period.of(since, until, tag)
        return sum_accounts(
            self._read(
                partial(read_accounts, by=by, now=self._now(), period=period), "totals", "open requests", "savings"
            )
        )

    def requests(
        self,
        limit: int | None = 100,
        *,
        since: date | str | None = None,
        until: date | str | None = None,
        tag: str | None = None,
    ) -> list[BookedRequest]:
        """Return the last requests, the latest first, as long as their detail is kept.

        Args:
            limit: how many; ``None`` for all.

        The other arguments are those of ``totals``.
        """
        period = Period.of(since, until, tag)
        found = self._read(partial(read_requests, now=self._now(), period=period, limit=limit), "requests")
        return sorted((item for part in found for item in part), key=lambda item: item.at, reverse=True)[:limit]

    def unconfirmed(self) -> list[Unconfirmed]:
        """Return the requests that may have been billed, oldest first."""
        found = self._read(partial(read_unconfirmed, now=self._now()), "open requests")
        return sorted((request for part in found for request in part), key=lambda request: request.at)

    def implausible_bills(self) -> list[ImplausibleBill]:
        """Return the requests whose bill cannot be true, oldest first, as long as their detail is kept."""
        found = self._read(read_implausible_bills, "requests")
        return sorted((request for part in found for request in part), key=lambda request: request.at)

    def free_tokens(self, model: str, allowance: int) -> int:
        """Return how many of a model's free tokens are left."""
        if not allowance:
            return 0
        used = self._read(partial(free_tokens_used, model=model), "allowances")
        return max(0, allowance - sum(used))

    def left(self, budget: Budget) -> Table[str, CapLeft]:
        """Return what is left of each cap of a budget, by the name of the cap and its tag."""
        caps = [(tag, *cap) for tag, own in {"": budget, **budget.by_tag}.items() for cap in own.caps.items()]
        if not caps:
            return Table()
        now = self._now()

        def query(database: sqlite3.Connection) -> tuple[str, list[Decimal]]:
            day = current_day(database, now)
            windows = [(name, tag) for tag, name, _ in caps]
            return day, [Decimal(0) if name == "per_call" else spent(database, name, tag, day) for name, tag in windows]

        found = [] if self._is_empty() else self._read(query, "days", "tag_days")
        day = max((day for day, _ in found), default=datetime.fromtimestamp(now, UTC).date().isoformat())
        table: Table[str, CapLeft] = Table()
        for place, (tag, name, limit) in enumerate(caps):
            counted = sum((amounts[place] for _, amounts in found), Decimal(0))
            reset = _reset(name, day)
            wait = None if reset is None else timedelta(seconds=int(reset.timestamp() - now))
            left = max(Decimal(0), limit - counted)
            table[f"{name} of {tag}" if tag else name] = CapLeft(tag, name, limit, counted, left, reset, wait)
        return table

    def learned(self, model: str, input_type: str, *, exact: bool) -> Learned:
        """Return how far estimates of a model's tokens were from its bills.

        Args:
            exact: whether those of the model's own tokenizer, or others.
        """
        try:
            found = (
                []
                if self._is_empty()
                else self._read(partial(read_learned, model=model, input_type=input_type, exact=exact), "estimates")
            )
        except (ConfigError, LedgerError):  # an estimate spends nothing
            found = []
        return sum(found, Learned())


def _reset(cap: str, day: str) -> datetime | None:
    """Return when the window of a day ends."""
    begun = datetime.fromisoformat(f"{day}T00:00:00+00:00")
    if cap == "per_day":
        return begun + timedelta(days=1)
    return (begun.replace(day=1) + timedelta(days=32)).replace(day=1) if cap == "per_month" else None
