"""The caps a user sets on spending."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal, InvalidOperation
from typing import Literal

from .._display import explained, shown, shown_name
from ..errors import ConfigError

AMOUNT = re.compile(r"\d+(?:\.\d+)?")
PERIOD = re.compile(r"\s*\$?(?P<amount>\d+(?:\.\d+)?)\s*(?:/|per)\s*(?P<period>call|day|month)\s*")


CALL = "Budget(per_day='5.00')"
TAGS = "Budget(per_day='5.00', tags={'team-a': Budget(per_day='2.00'), 'team-b': '0.50/day'})"


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

    ``tags`` has further caps for what is booked under a tag: ``{"team-a": Budget(per_day="2"), "team-b": "0.50/day"}``.
    They count the spending of the tag alone, and this budget's own caps count everything.
    """

    per_call: Decimal | str | int | None = None
    per_day: Decimal | str | int | None = None
    per_month: Decimal | str | int | None = None
    total: Decimal | str | int | None = None
    when_exceeded: Literal["raise", "degrade"] | None = None
    """``"degrade"``: queries are answered by lower tiers of the space; documents are refused all the same. ``None`` is
    ``"raise"``, and in the budget of a tag what the outer budget says."""
    tags: Mapping[str, Budget | str] = field(default_factory=dict, hash=False)
    """The caps of each tag, by its name."""

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

    @property
    def by_tag(self) -> dict[str, Budget]:
        """Return the budget of each tag, with this budget's ``when_exceeded`` where the tag has none of its own."""
        return {name: replace(own, when_exceeded=own.when_exceeded or self.when_exceeded) for name, own in self._own()}

    def scopes(self, tag: str) -> list[tuple[str, dict[str, Decimal]]]:
        """Return the caps that count spending under a tag: those of everything, named ``""``, and those of the tag."""
        own = self.tags.get(tag)
        scopes = [("", self.caps), (tag, own.caps if isinstance(own, Budget) else {})]
        return [(name, caps) for name, caps in scopes if caps]

    @property
    def has_caps(self) -> bool:
        """Whether there is any cap, of everything or of a tag."""
        return bool(self.caps) or any(own.caps for _, own in self._own())

    @property
    def caps_calls(self) -> bool:
        """Whether ``per_call`` is set, for every call or for those under a tag."""
        return self.per_call is not None or any(own.per_call is not None for _, own in self._own())

    def _own(self) -> Iterator[tuple[str, Budget]]:
        """Yield the budgets of tags, which the constructor has made of texts."""
        for name, own in self.tags.items():
            if isinstance(own, Budget):
                yield name, own

    def __post_init__(self) -> None:
        if self.when_exceeded not in (None, "raise", "degrade"):
            raise ConfigError(f"Budget.when_exceeded must be 'raise' or 'degrade', not {shown(self.when_exceeded)}.")
        for item in fields(self):
            if item.name not in ("when_exceeded", "tags") and (value := getattr(self, item.name)) is not None:
                object.__setattr__(self, item.name, _amount(value, item.name))
        object.__setattr__(self, "tags", _budgets(self.tags))


def _budgets(tags: object) -> dict[str, Budget]:
    """Return the budgets of tags, of which a text says one as well.

    Raises:
        ConfigError: these are no budgets of tags; the message has the line to write.
    """
    if not isinstance(tags, Mapping):
        raise ConfigError(f"Budget.tags is a mapping of names to budgets, such as {TAGS}, not {shown(tags)}.")
    budgets: dict[str, Budget] = {}
    for name, given in tags.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"Budget.tags: the name of a tag is a text, as in {TAGS}, not {shown(name)}.")
        try:
            own = Budget.of(given)
        except ConfigError as error:
            story = f"Budget.tags[{shown_name(name)}]: {error}"
        else:
            story = f"Budget.tags[{shown_name(name)}] is no budget. Write {TAGS}, with your amounts."
            if own is not None and own.tags:
                story = f"Budget.tags[{shown_name(name)}] has tags of its own. Put these beside it: {TAGS}."
            elif own is not None:
                budgets[name] = own
                continue
        raise ConfigError(story)
    return budgets


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
