"""Where money is reserved before a request and booked after it.

``MemoryLedger`` counts within the process. Its lock is held for arithmetic only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal

from .budget import Budget
from .types import dollars

__all__ = ["MemoryLedger"]


def today() -> date:
    return datetime.now(UTC).date()


class MemoryLedger:
    """Spending of this process, by UTC day, and what is set aside for requests in flight."""

    def __init__(self, today: Callable[[], date] = today) -> None:
        self._today = today
        self._lock = threading.Lock()
        self._spent: dict[date, Decimal] = {}
        self._reserved = Decimal(0)

    def refusal(self, budget: Budget, amount: Decimal | None) -> str | None:
        """Say why a whole call that costs ``amount`` does not fit the budget, or return ``None``."""
        with self._lock:
            return self._exceeded(budget, amount, whole_call=True)

    def reserve(self, budget: Budget, amount: Decimal | None) -> str | None:
        """Set the cost of one request aside and return ``None``, or say why it does not fit."""
        with self._lock:
            refusal = self._exceeded(budget, amount, whole_call=False)
            if refusal is None:
                self._reserved += amount or Decimal(0)
            return refusal

    def settle(self, reserved: Decimal | None, spent: Decimal | None) -> None:
        """Replace what was set aside for a request by what it cost."""
        with self._lock:
            self._reserved -= reserved or Decimal(0)
            day = self._today()
            self._spent[day] = self._spent.get(day, Decimal(0)) + (spent or Decimal(0))

    def _exceeded(self, budget: Budget, amount: Decimal | None, *, whole_call: bool) -> str | None:
        today = self._today()
        spent = {
            "per_day": self._spent.get(today, Decimal(0)),
            "per_month": sum(
                (money for day, money in self._spent.items() if (day.year, day.month) == (today.year, today.month)),
                Decimal(0),
            ),
            "total": sum(self._spent.values(), Decimal(0)),
        }
        caps = {name: cap for name in ("per_call", *spent) if (cap := getattr(budget, name)) is not None}
        if not caps or amount == 0:
            return None
        if amount is None:
            return "its price is unknown, so no budget can hold. Set Model(…, price=…), US dollars per million tokens."
        if whole_call and (cap := caps.get("per_call")) is not None and amount > cap:
            return (
                f"the call would cost about {dollars(amount)}, over per_call={dollars(cap)}. "
                "Send fewer texts or raise per_call."
            )
        for name, already in spent.items():
            cap = caps.get(name)
            if cap is not None and already + self._reserved + amount > cap:
                return (
                    f"{dollars(already)} are spent and {dollars(self._reserved)} set aside; {dollars(amount)} more "
                    f"would pass {name}={dollars(cap)}. Raise {name}, or wait for the next window."
                )
        return None
