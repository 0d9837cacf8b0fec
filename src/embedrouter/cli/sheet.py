"""What the commands about money print: tables and lines for people, or one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Literal, Protocol

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .report import Report, money

__all__ = ["Advance", "Sheet", "price"]

WIDE = 1000
"""Characters of a piped line: nothing is cut."""


class Advance(Protocol):
    """Moves a bar to so many texts, at so many a second, for so much money."""

    def __call__(self, done: int, *, speed: float, spent: Decimal) -> None: ...


class Sheet(Report):
    """Prints tables and lines. With ``as_json`` only ``json`` prints."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        if not sys.stdout.isatty():
            self._console.width = WIDE

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one line."""
        self._line(text, style)

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Container[str], total: bool = False
    ) -> None:
        """Print a table. Columns named in ``numbers`` end at the right; with ``total`` the last row is set apart."""
        table = Table(box=box.SIMPLE_HEAD)
        for name in columns:
            justify: Literal["left", "right"] = "right" if name in numbers else "left"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=name == columns[0])
        for number, row in enumerate(rows, 1):
            table.add_row(*row, end_section=total and number == len(rows) - 1)
        self._console.print(table)

    def json(self, content: object) -> None:
        """Print an object, if that is what was asked for."""
        if self._as_json:
            print(json.dumps(content, indent=2, ensure_ascii=False, default=_plain))

    @contextmanager
    def spending(self, what: str, total: int) -> Iterator[Advance]:
        """Show a bar with texts per second, money and the time left."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TextColumn("{task.fields[spent]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True, disable=not self._moving) as bar:
            task = bar.add_task(what, total=total, pace="", spent="")

            def advance(done: int, *, speed: float, spent: Decimal) -> None:
                bar.update(task, completed=done, pace=f"{speed:,.0f} texts/s", spent=money(spent))

            yield advance


def price(amount: Decimal | None) -> str:
    """Return an amount of money, or that nobody knows it."""
    return "unknown" if amount is None else money(amount)


def _plain(value: Any) -> str:
    """Write money as a string without exponent, which loses nothing, and everything else as itself."""
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)
