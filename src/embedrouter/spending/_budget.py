"""The caps a user sets on spending."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from typing import Literal

from .._display import explained, shown
from ..errors import ConfigError

AMOUNT = re.compile(r"\d+(?:\.\d+)?")
PERIOD = re.compile(r"\s*\$?(?P<amount>\d+(?:\.\d+)?)\s*(?:/|per)\s*(?P<period>call|day|month)\s*")


CALL = "Budget(per_day='5.00')"


@explained(
    CALL, limit=CALL, daily=CALL, day=CALL, per_week="Budget(per_month='20.00')", monthly="Budget(per_month='20.00')"
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Caps in US dollars; ``None`` is no cap. Days and months are UTC calendar days and months.

    A window never comes back: where a clock is set back, the latest day in the ledger stays the current one.

    Write amounts as strings (``per_day="5.00"``): a float cannot hold most amounts exactly.

    ``per_call`` caps each ``embed`` or ``aembed`` by its estimate, and a whole ``embedrouter warm``, which is one call
    to its user. The other caps count what is spent and set aside by all processes that share the ledger.
    """

    per_call: Decimal | str | int | None = None
    per_day: Decimal | str | int | None = None
    per_month: Decimal | str | int | None = None
    total: Decimal | str | int | None = None
    when_exceeded: Literal["raise", "degrade"] = "raise"
    """``"degrade"``: queries are answered by lower tiers of the space; documents are refused all the same."""

    @classmethod
    def of(cls, given: object) -> Budget | None:
        """Return a budget as it is, or the one that a text says: ``"5.00/day"``, ``"0.10/call, 50/month"``.

        Raises:
            ConfigError: it says none; the message has the line to write.
        """
        if given is None or isinstance(given, cls):
            return given
        parts = [PERIOD.fullmatch(part) for part in given.split(",")] if isinstance(given, str) else [None]
        caps = {f"per_{part['period']}": part["amount"] for part in parts if part is not None}
        if None not in parts:
            return cls(per_call=caps.get("per_call"), per_day=caps.get("per_day"), per_month=caps.get("per_month"))
        if isinstance(given, Mapping):
            raise ConfigError("budget= is no mapping. Write Budget(per_day='5'), with your amount.")
        said = AMOUNT.search(given) if isinstance(given, str) else None
        amount = said[0] if said else given if isinstance(given, int | float | Decimal) else "5.00"
        raise ConfigError(
            f'budget= is an amount in US dollars and its period, such as budget="{amount}/day", "{amount}/month" or '
            f'"{amount}/call"; for the whole life of the ledger Budget(total="{amount}").'
        )

    @property
    def caps(self) -> dict[str, Decimal]:
        """Return the caps that are set, by name."""
        names = ("per_call", "per_day", "per_month", "total")
        return {name: Decimal(cap) for name in names if (cap := getattr(self, name)) is not None}

    def __post_init__(self) -> None:
        if self.when_exceeded not in ("raise", "degrade"):
            raise ConfigError(f"Budget.when_exceeded must be 'raise' or 'degrade', not {shown(self.when_exceeded)}.")
        for item in fields(self):
            if item.name != "when_exceeded" and (value := getattr(self, item.name)) is not None:
                object.__setattr__(self, item.name, _amount(value, item.name))


def _amount(value: object, name: str) -> Decimal:
    if isinstance(value, float):
        raise ConfigError(f'Budget.{name}: write the amount as a string, such as "{value}", so that it is exact.')
    try:
        amount = Decimal("nan" if isinstance(value, bool) else value)  # type: ignore[arg-type]
    except (InvalidOperation, TypeError, ValueError):
        amount = Decimal("nan")
    if not amount.is_finite():
        raise ConfigError(f'Budget.{name}: {shown(value)} is not an amount in US dollars, such as "5.00".')
    if amount < 0:
        raise ConfigError(f"Budget.{name} must not be negative, not {amount}.")
    return amount
