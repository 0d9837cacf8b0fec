"""What the commands about money print: tables and lines for people, or one JSON object for programs."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Literal, Protocol

from rich import box
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .report import Report, money

__all__ = ["Advance", "Sheet", "price"]

WIDE = 100_000
"""Characters of a piped line: nothing is cut or wrapped."""
INDENT = "    "
GLUE = "\0"
"""Stands for a blank at which a line must not end."""


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
        """Print a table. Columns named in ``numbers`` end at the right; with ``total`` the last row is set apart.

        On a terminal that is too narrow for it each row becomes a short paragraph: folded cells cannot be read, and a
        name in two pieces cannot be copied.
        """
        table = Table(box=box.SIMPLE_HEAD)
        for name in columns:
            justify: Literal["left", "right"] = "right" if name in numbers else "left"
            table.add_column(name, justify=justify, no_wrap=True)
        for number, row in enumerate(rows, 1):
            table.add_row(*row, end_section=total and number == len(rows) - 1)
        width = Measurement.get(self._console, self._console.options.update(width=WIDE), table).maximum
        if width <= self._console.width:
            self._console.print(table)
        else:
            self._paragraphs(columns, rows)

    def _paragraphs(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print each row as a heading and its cells with their names. Lines end between cells, never inside one."""
        for head, *cells in rows:
            self.line(head, style="bold")
            named = [f"{name}: {cell}".replace(" ", GLUE) for name, cell in zip(columns[1:], cells, strict=True)]
            for line in textwrap.wrap(
                "; ".join(named),
                self._console.width,
                initial_indent=INDENT,
                subsequent_indent=INDENT,
                break_long_words=False,
                break_on_hyphens=False,
            ):
                self.line(line.replace(GLUE, " "))
        self.line()

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
