"""Tables of what was embedded and spent, as plain text and as HTML for notebooks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from decimal import Decimal
from html import escape
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


def dollars(amount: Decimal) -> str:
    """Format an amount of money: all digits, no exponent, at least two decimals."""
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction.rstrip('0').ljust(2, '0')}"


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
    """Return a number with its noun: "1 text", "2,000 texts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
        heading = ["", *(name.replace("_", " ") for name in shown)]
        return [
            heading,
            *([name or "(none)", *(cell(facts.get(column)) for column in shown)] for name, facts in records.items()),
        ]


def _facts(record: Any) -> Mapping[str, Any]:
    if (as_shown := getattr(record, "as_shown", None)) is not None:
        shown: Mapping[str, Any] = as_shown()
        return shown
    if is_dataclass(record):
        return {item.name: getattr(record, item.name) for item in fields(record)}
    return {"value": record}


def cell(value: object) -> str:
    """Return a value as a table shows it: money in dollars, numbers with commas, nothing where there is none."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return dollars(value)
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if type(value) is int else str(value)


def html_table(rows: Iterable[Sequence[str]], heading: Sequence[str] = ()) -> str:
    """Return rows of texts as an HTML table, whose first column is a heading too."""
    head = f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in heading)}</tr></thead>" if heading else ""
    cells = ((name, "".join(f"<td>{escape(text)}</td>" for text in rest)) for name, *rest in rows)
    body = "".join(f"<tr><th style='text-align: left'>{escape(name)}</th>{rest}</tr>" for name, rest in cells)
    return f"<table>{head}<tbody>{body}</tbody></table>"
