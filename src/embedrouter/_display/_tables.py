"""Tables of what was embedded and spent, as plain text and as HTML for notebooks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from html import escape
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MIN_DECIMALS = 2
"""Cents."""
FEW = 5
"""Names in a message that could have many."""
DIGITS = 100
"""Of an amount, so that none is rounded by accident."""


def amounts(column: Iterable[Decimal], *, total: bool = False) -> list[str]:
    """Format amounts of money that stand in one column: with the same number of decimals, two at least.

    Each amount is exact, so that it is never shown lower than it is.

    Args:
        total: whether the last amount is the sum of the others. Then all are rounded, half up, to the fewest decimals
            with which the column adds up as shown and each amount keeps two digits.
    """
    values = list(column)
    with localcontext(prec=DIGITS):
        decimals = exact = max((MIN_DECIMALS, *(-int(value.normalize().as_tuple().exponent) for value in values)))
        if total:
            fewest = max((MIN_DECIMALS, *(1 - value.adjusted() for value in values if value)))
            decimals = next((number for number in range(fewest, exact) if _adds_up(values, number)), exact)
        return [f"${_rounded(value, decimals):,f}" for value in values]


def _adds_up(values: Sequence[Decimal], decimals: int) -> bool:
    *parts, whole = (_rounded(value, decimals) for value in values)
    return sum(parts) == whole


def _rounded(amount: Decimal, decimals: int) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def dollars(amount: Decimal) -> str:
    """Format an amount of money: all digits, no exponent, at least two decimals."""
    return amounts([amount])[0]


def priced(record: Mapping[str, Any]) -> bool:
    """Return whether the cost of a record is known: where all is of unknown price, a cost of zero would mislead."""
    return bool(record.get("cost") or not record.get("unpriced_tokens"))


def cost_shown(amount: Decimal | None) -> str:
    """Format an amount of money that may be unknown."""
    return "unknown price" if amount is None else dollars(amount)


def data_size(size: int) -> str:
    """Format a number of bytes: "850 bytes", "12.3 kB", "5.2 GB"."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:,.1f} {unit}"
    return counted(size, "byte")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 text", "2,000 texts", "2 queries"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a noun: "texts", "queries"."""
    return f"{noun.removesuffix('y')}ies" if noun.endswith("ry") else f"{noun}s"


def first_few(names: Sequence[str], most: int = FEW, separator: str = ", ", *, count: int | None = None) -> str:
    """Join the first names, and say how many there are more: "a, b and 7 more".

    Args:
        count: of all names, where ``names`` holds only the first ones.
    """
    left = (len(names) if count is None else count) - most
    return separator.join(names[:most]) + (f" and {left:,} more" if left > 0 else "")


class Table(dict[K, V]):
    """A dictionary of records by name, which is shown as a table: a row for each name, a column for each fact.

    Facts that no record has, such as unconfirmed money where there is none, are left out, and so is the name again.
    """

    def __repr__(self) -> str:
        if not self:
            return "{}"
        columns = [list(column) for column in zip(*self._rows(), strict=True)]
        for place, column in enumerate(columns):
            width = max(map(len, column))
            columns[place] = [text.rjust(width) if place else text.ljust(width) for text in column]
        return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))

    def _repr_html_(self) -> str:
        heading, *rows = self._rows()
        return html_table(rows, heading)

    def _rows(self) -> list[list[str]]:
        records = {str(name): _facts(record) for name, record in self.items()}
        columns = list(dict.fromkeys(fact for facts in records.values() for fact in facts))
        shown = [
            name for name in columns if any(facts.get(name) not in (None, "", 0, row) for row, facts in records.items())
        ]
        formatted = [cells(facts.get(name) for facts in records.values()) for name in shown]
        heading = ["", *(name.replace("_", " ") for name in shown)]
        return [heading, *([name or "(none)", *row] for name, *row in zip(records, *formatted, strict=True))]


def cells(column: Iterable[object], *, unknown: str = "", total: bool = False) -> list[str]:
    """Format the values of one column: money with the same number of decimals, as ``amounts`` does it.

    Args:
        unknown: what stands for ``None``.
        total: whether the last value is the sum of the others.
    """
    values = list(column)
    money = iter(amounts((value for value in values if isinstance(value, Decimal)), total=total))
    return [next(money) if isinstance(value, Decimal) else _cell(value, unknown) for value in values]


def _cell(value: object, unknown: str) -> str:
    if value is None:
        return unknown
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _facts(record: Any) -> Mapping[str, Any]:
    if (as_shown := getattr(record, "as_shown", None)) is not None:
        shown: Mapping[str, Any] = as_shown()
        return shown
    if isinstance(record, Mapping):
        return record
    if is_dataclass(record):
        facts = {item.name: getattr(record, item.name) for item in fields(record)}
        return facts if priced(facts) else {**facts, "cost": "unknown"}
    return {"value": record}


def html_table(rows: Iterable[Sequence[str]], heading: Sequence[str] = ()) -> str:
    """Return rows of texts as an HTML table, whose first column is a heading too."""
    head = f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in heading)}</tr></thead>" if heading else ""
    parts = ((name, "".join(f"<td>{escape(text)}</td>" for text in rest)) for name, *rest in rows)
    body = "".join(f"<tr><th style='text-align: left'>{escape(name)}</th>{rest}</tr>" for name, rest in parts)
    return f"<table>{head}<tbody>{body}</tbody></table>"
