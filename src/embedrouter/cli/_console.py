"""Output of the commands: lines, tables, progress bars and questions for people, or one JSON object for programs.

Colour and moving bars are for terminals; piped output is plain text, one line for each row of a table. Bars go to
stderr. Everything that is printed goes through this file, which escapes what a terminal would obey.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, is_dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import Progress, TextColumn
from rich.prompt import Confirm
from rich.text import Text
from typer.core import TyperGroup

from .._display import escaped, masked
from ..errors import ConfigError, EmbedRouterError
from ..spending import sum_of
from ..types import Estimate, dollars
from ._layout import table_lines, wrap

UNLIMITED = 100_000
"""Characters of a piped line: no line is cut or wrapped."""
USAGE_ERROR: Any = typer.BadParameter.__base__
"""The base of the errors about arguments, which newer releases of typer bring themselves."""
STEP = 512
"""Texts embedded at once where the model is slow: one step of the progress bar."""
WIDE = 100
"""Cells of a screen in which a moving bar has room."""
NARROW = 70
"""Cells below which a description and the texts per second have none."""


class Output:
    """Print lines and tables, and ask questions.

    Args:
        as_json: print by ``json`` alone.
        yes: whether the user agreed by an option.
    """

    def __init__(self, *, as_json: bool, yes: bool = False) -> None:
        width = None if sys.stdout.isatty() else UNLIMITED
        self.console = Console(quiet=as_json, highlight=False, markup=False, emoji=False, width=width)
        self._bars = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._as_json = as_json
        self._yes = yes

    def line(self, text: str = "", style: str | None = None) -> None:
        """Print one sentence, in several lines where the window is narrow."""
        for line in _broken(text, self.console.width):
            self.console.print(line, style=style, soft_wrap=True)

    def code(self, text: str) -> None:
        """Print lines that are to be copied: none is broken."""
        for line in text.split("\n"):
            self.console.print(escaped(line), soft_wrap=True)

    def table(self, rows: Sequence[Mapping[str, object]], *, total: bool = False, optional: Sequence[str] = ()) -> None:
        """Print a table of rows by column; with ``total`` the last row is their sum. See ``table_lines``."""
        for line, strong in table_lines(rows, self.console.width, total=total, optional=optional) if rows else ():
            self.console.print(line, style="bold" if strong else None, soft_wrap=True)
        self.line()

    def json(self, content: object) -> None:
        """Print an object as JSON, if the user asked for JSON."""
        if self._as_json:
            plain = not is_unicode(sys.stdout)
            for line in json.dumps(content, indent=2, ensure_ascii=plain, default=_json_value).split("\n"):
                print(line if line.isprintable() else _ascii(line))

    def require_agreement(self, question: str, refusal: str, *, piped: bool = False) -> None:
        """Ask the user, unless the answer was given before; without a terminal the answer is no.

        Args:
            piped: whether stdin is used up by texts.

        Raises:
            ConfigError: the user did not agree; the message ends with ``refusal``.
        """
        if self._yes:
            return
        can_ask = sys.stdout.isatty() and not self._as_json and not piped and sys.stdin.isatty()
        asked = Text(escaped(f"{question}. Go ahead?"))
        if not can_ask or not Confirm.ask(asked, console=self.console, default=False):
            raise ConfigError(f"{question}. {refusal}")

    def confirm_cost(self, estimates: Sequence[Estimate], refusal: str, *, piped: bool = False) -> None:
        """Show what texts would cost and ask, unless they are free of charge; see ``require_agreement``."""
        total = sum_of(estimate.cost for estimate in estimates)
        if total != 0:
            price = "an unknown price" if total is None else _likely_and_most(estimates, total)
            tokens = sum(estimate.likely_tokens for estimate in estimates)
            models = ", ".join(dict.fromkeys(estimate.model for estimate in estimates))
            question = f"This embeds {tokens:,} tokens for {price} with {models}"
            self.require_agreement(question, f"Nothing was embedded. {refusal}", piped=piped)

    def busy(self, description: str) -> AbstractContextManager[object]:
        """Show a spinner."""
        spinner = "dots" if is_unicode(sys.stderr) else "line"
        text = Text(escaped(f"{description} …"))
        return self._bars.status(text, spinner=spinner) if sys.stderr.isatty() else nullcontext()

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int, Decimal], None]]:
        """Show a bar with texts per second, money and the time left; give the function that sets texts and money."""
        wide = self._bars.width >= WIDE
        name = (TextColumn("{task.description}"),) if self._bars.width >= NARROW else ()
        columns = Progress.get_default_columns() if wide else name
        began = time.monotonic()
        with Progress(
            *columns,
            TextColumn("{task.fields[facts]}"),
            console=self._bars,
            transient=True,
            disable=not sys.stderr.isatty(),
        ) as bar:
            task = bar.add_task(escape_markup(escaped(description)), total=total, facts="")

            def advance(done: int, spent: Decimal) -> None:
                speed = done / max(time.monotonic() - began, 1e-6)
                left = "" if wide else f", {timedelta(seconds=round((total - done) / max(speed, 1e-6)))} left"
                pace = f", {speed:,.0f} texts/s" if self._bars.width >= NARROW else ""
                facts = f"{done:,}/{total:,}{pace}, {dollars(spent)}{left}"
                bar.update(task, completed=done, facts=facts)

            yield advance


@contextmanager
def exit_on_interrupt(message: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C into a message on stderr and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"\n{message()}")
        raise typer.Exit(130) from None


def say(text: str) -> None:
    """Print one sentence, in commands that print neither tables nor JSON."""
    print("\n".join(_broken(text, _width(sys.stdout))))


def complain(text: str) -> None:
    """Print lines on stderr."""
    for line in text.split("\n"):
        print("\n".join(_broken(line, _width(sys.stderr))), file=sys.stderr)


def complain_of(error: EmbedRouterError) -> None:
    """Print an error with its notes on stderr."""
    complain("\n".join((f"embedrouter: {error}", *getattr(error, "__notes__", ()))))


def _width(stream: TextIO) -> int:
    return Console(file=stream).width if stream.isatty() else UNLIMITED


def _broken(text: str, width: int) -> list[str]:
    """Return a sentence in lines. One with escapes stays whole: a line may not begin with words that others chose."""
    shown = escaped(text)
    return wrap(shown, width) if shown == text else [shown]


def is_unicode(stream: TextIO) -> bool:
    """Return whether a stream can show every character."""
    return (stream.encoding or "utf-8").lower().startswith("utf")


class Commands(TyperGroup):
    """The commands; what is wrong about their arguments is told without escapes and keys."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _plain_usage_errors():
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; refuse an option that takes one value and is given twice: the last would win silently."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not hasattr(command, "commands") and not ctx.resilient_parsing:  # while completing
            inner = typer.Context(command, info_name=name, parent=ctx, **command.context_settings)
            _, _, given = command.make_parser(inner).parse_args(list(rest))
            for option, count in Counter(given).items():
                if count > 1 and not (getattr(option, "multiple", False) or getattr(option, "is_flag", False)):
                    raise typer.BadParameter(
                        f"{option.opts[0]} is given {count} times, and takes one value: write it once."
                    )
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        with _plain_usage_errors():
            return super().invoke(ctx)


@contextmanager
def _plain_usage_errors() -> Iterator[None]:
    try:
        yield
    except USAGE_ERROR as error:
        error.message = masked(escaped(error.message))
        raise


def interrupt_message(cache_location: str | None) -> str:
    """Return the message about a run that the next run continues, if there is a cache."""
    if cache_location is None:
        return "Stopped. No cache is in use: the next run starts anew."
    return f"Stopped. Embedded texts are in the cache ({cache_location}): the next run continues from there."


def resume_message(spent: str, cache_location: object) -> str:
    """Return what a run has spent, and how the same command goes on."""
    if cache_location is None:
        return f"{spent} No cache is in use: the next run starts anew."
    return (
        f"{spent} What was answered is in the cache ({cache_location}): the same command continues from there and pays "
        "for nothing twice."
    )


def _likely_and_most(estimates: Sequence[Estimate], most: Decimal) -> str:
    """Describe what texts would cost: about so much, at most so much."""
    likely = sum((estimate.likely_cost or Decimal(0) for estimate in estimates), Decimal(0))
    bound = likely != most and all(estimate.is_bound for estimate in estimates)
    return f"about {dollars(likely)}{f', at most {dollars(most)},' if bound else ''}"


def _ascii(line: str) -> str:
    """Escape a line of JSON, in which all that is not ASCII stands in strings."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def _json_value(value: Any) -> Any:
    """Return money as a string without exponent, which loses no digit, and other objects in their usual form."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, date):
        return value.isoformat()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
