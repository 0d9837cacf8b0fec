"""Output of the commands: lines, tables, progress bars and questions for people, or one JSON object for programs.

Colour and moving bars are for terminals; piped output is plain text.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, is_dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.prompt import Confirm
from rich.table import Table

from ..errors import ConfigError
from ..types import Estimate

UNLIMITED = 100_000
"""Characters of a piped line: no line is cut or wrapped."""
INDENT = "    "
NO_BREAK = "\0"
"""Stands for a blank at which a line must not end."""


class Output:
    """Print lines and tables. With ``as_json``, only ``json`` prints."""

    def __init__(self, *, as_json: bool) -> None:
        terminal = sys.stdout.isatty()
        width = None if terminal else UNLIMITED
        self.console = Console(quiet=as_json, highlight=False, markup=False, emoji=False, width=width)
        self._animated = terminal and not as_json
        self._as_json = as_json

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one line."""
        self.console.print(text, style=style, soft_wrap=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        numbers: Container[str] = (),
        total: bool = False,
    ) -> None:
        """Print a table. Columns named in ``numbers`` are aligned right; with ``total`` the last row is set apart.

        On a terminal narrower than the table each row becomes a short paragraph: folded cells cannot be read, and a
        name in two pieces cannot be copied.
        """
        cells = [[_format_cell(value) for value in row] for row in rows]
        table = Table(box=box.SIMPLE_HEAD)
        for name in columns:
            table.add_column(name, justify="right" if name in numbers else "left", no_wrap=True)
        for number, row in enumerate(cells, 1):
            table.add_row(*row, end_section=total and number == len(cells) - 1)
        width = Measurement.get(self.console, self.console.options.update(width=UNLIMITED), table).maximum
        if width <= self.console.width:
            self.console.print(table)
        else:
            self._paragraphs(columns, cells)

    def _paragraphs(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print each row as a heading and its named cells. Lines end between cells, never inside one."""
        wrapper = textwrap.TextWrapper(
            self.console.width,
            initial_indent=INDENT,
            subsequent_indent=INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for head, *cells in rows:
            self.line(head, style="bold")
            named = [f"{name}: {cell}".replace(" ", NO_BREAK) for name, cell in zip(columns[1:], cells, strict=True)]
            self.line(wrapper.fill("; ".join(named)).replace(NO_BREAK, " "))
        self.line()

    def json(self, content: object) -> None:
        """Print an object as JSON, if the user asked for JSON."""
        if self._as_json:
            print(json.dumps(content, indent=2, ensure_ascii=False, default=_json_value))

    def require_agreement(self, question: str, refusal: str, *, yes: bool, piped: bool = False) -> None:
        """Ask the user, unless the answer was given before; without a terminal the answer is no.

        Args:
            yes: whether the user agreed by an option.
            piped: whether stdin is used up by texts.

        Raises:
            ConfigError: the user did not agree; the message ends with ``refusal``.
        """
        if yes:
            return
        can_ask = self._animated and not piped and sys.stdin.isatty()
        if not can_ask or not Confirm.ask(f"{question}. Go ahead?", console=self.console, default=False):
            raise ConfigError(f"{question}. {refusal}")

    def confirm_cost(self, estimates: Sequence[Estimate], refusal: str, *, yes: bool, piped: bool = False) -> None:
        """Show what texts would cost and ask, unless they are free of charge; see ``require_agreement``."""
        costs = {estimate.cost for estimate in estimates} - {0}
        if costs:
            known = sum((estimate.cost or Decimal(0) for estimate in estimates), Decimal(0))
            prices = [f"about {format_money(known)}"] if known else []
            prices += ["an unknown price"] if None in costs else []
            tokens = sum(estimate.tokens for estimate in estimates)
            models = ", ".join(dict.fromkeys(estimate.model for estimate in estimates))
            question = f"This embeds {tokens:,} tokens for {' and '.join(prices)} with {models}"
            self.require_agreement(question, f"Nothing was embedded. {refusal}", yes=yes, piped=piped)

    def busy(self, description: str) -> AbstractContextManager[object]:
        """Show a spinner."""
        return self.console.status(f"{description} …") if self._animated else nullcontext()

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int, Decimal], None]]:
        """Show a bar with texts per second, money and the time left; give the function that sets texts and money."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
        )
        began = time.monotonic()
        with Progress(
            *columns, TimeRemainingColumn(), console=self.console, transient=True, disable=not self._animated
        ) as bar:
            task = bar.add_task(description, total=total, speed="")

            def advance(done: int, spent: Decimal) -> None:
                speed = done / max(time.monotonic() - began, 1e-6)
                bar.update(task, completed=done, speed=f"{speed:,.0f} texts/s {format_money(spent)}")

            yield advance


@contextmanager
def exit_on_interrupt(message: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into a message on stderr and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{message()}", file=sys.stderr)
        raise typer.Exit(130) from None


def first_few(items: Sequence[str], shown: int, *, separator: str = ", ") -> str:
    """Join the first items, and count the others."""
    more = f" and {len(items) - shown:,} more" if len(items) > shown else ""
    return separator.join(items[:shown]) + more


def interrupt_message(cache_location: str | None) -> str:
    """Return the message about a run that the next run continues, if there is a cache."""
    if cache_location is None:
        return "Stopped. No cache is in use: the next run starts anew."
    return f"Stopped. Embedded texts are in the cache ({cache_location}): the next run continues from there."


def format_money(amount: Decimal) -> str:
    """Format US dollars, small amounts with two significant digits."""
    if amount == 0 or amount >= Decimal("0.1"):
        return f"${amount:,.2f}"
    return f"${amount.quantize(Decimal(1).scaleb(amount.adjusted() - 1)):f}"


def _format_cell(value: object) -> str:
    """Format a number, money, or an unknown amount (``None``); everything else is its string."""
    match value:
        case None:
            return "unknown"
        case int():
            return f"{value:,}"
        case Decimal():
            return format_money(value)
        case _:
            return str(value)


def _json_value(value: Any) -> Any:
    """Return money as a string without exponent, which loses no digit, and other objects in their usual form."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, date):
        return value.isoformat()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
