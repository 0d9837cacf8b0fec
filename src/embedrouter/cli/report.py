"""What the demo prints: as it goes for people, or one JSON object at the end for programs.

Colour and moving bars are for terminals; piped output is plain text.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.prompt import Confirm
from rich.table import Table
from rich.text import Text

from ..router import Router
from .corpus import Corpus
from .figures import Answer, AtTier, Index, Outcome
from .stores import BEST, NEAREST, Hit, sources

__all__ = ["Report", "money"]

PIPED_WIDTH = 110
SHOWN = 3
"""Sources that an answer names."""


def money(amount: Decimal) -> str:
    """Return US dollars, small amounts with two digits that say something."""
    if amount == 0 or amount >= Decimal("0.1"):
        return f"${amount:,.2f}"
    return f"${amount.quantize(Decimal(1).scaleb(amount.adjusted() - 1)):f}"


class Report:
    """Prints one run. With ``as_json`` it is silent until ``end``."""

    def __init__(self, *, as_json: bool) -> None:
        terminal = sys.stdout.isatty()
        self._console = Console(
            quiet=as_json, highlight=False, markup=False, emoji=False, width=None if terminal else PIPED_WIDTH
        )
        self._as_json = as_json
        self._moving = terminal and not as_json
        self._facts: dict[str, Any] = {}

    # While it runs

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Show that something takes a moment."""
        return self._console.status(f"{what} …") if self._moving else nullcontext()

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar; the function that is given moves it."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._moving) as bar:
            task = bar.add_task(what, total=total)
            yield lambda count: bar.advance(task, count)

    def confirm(self, question: str) -> bool:
        """Ask, where there is somebody to ask."""
        return self._moving and sys.stdin.isatty() and Confirm.ask(question, console=self._console, default=False)

    # Piece by piece

    def begin(self, corpus: Corpus, router: Router, place: str | None, missing: Sequence[str]) -> None:
        self._facts = {
            "corpus": corpus.name,
            "models": router.models,
            "space": str(router.space),
            "cache": place,
            "skipped": corpus.skipped,
            "missing_extras": list(missing),
        }
        self._line(f"{len(corpus.passages):,} texts: {corpus.name}", style="bold")
        for reason, files in corpus.skipped.items():
            more = f" and {len(files) - SHOWN:,} more" if len(files) > SHOWN else ""
            self._line(f"  skipped, {reason}: {', '.join(files[:SHOWN])}{more}")
        self._line(f"Model: {', '.join(router.models)}.  Cache: {place or 'none'}.")
        for extra in missing:
            self._line(f"Without {extra}; to see it too: pip install 'embedrouter[{extra}]'", style="yellow")
        self._line()

    def index(self, index: Index) -> None:
        if not index.computed:
            how = "all from cache, 0 calls"
        else:
            calls = f"{index.requests:,} call{'s' if index.requests != 1 else ''}"
            how = f"{index.cached:,} texts from cache, {index.computed:,} computed in {calls}"
        self._line(f"{index.store} index, tier {index.tier}: {index.texts:,} vectors, {how}, {index.seconds:.1f} s")

    def answers(self, answers: Sequence[Answer]) -> None:
        stores = list(answers[0].hits)
        table = Table("Question", *(f"Found with {store.partition(' ')[0]}" for store in stores), box=box.SIMPLE_HEAD)
        for answer in answers:
            table.add_row(answer.question, *(_found(hits) for hits in answer.hits.values()))
        self._console.print(table)
        self._line(f"Named are the sources of the {NEAREST} nearest passages, those with the best {BEST} first.")

    def tiers(self, question: str, tiers: Sequence[AtTier]) -> None:
        if not tiers:
            self._line("One tier only, so there is no second one to ask; a configuration can have more (--config).")
            return
        table = Table("Tier", "Answered by", "Space", "Found", box=box.SIMPLE_HEAD, title_justify="left")
        table.title = f'"{question}" at two tiers'
        for asked in tiers:
            table.add_row(asked.tier, asked.model, asked.space, _found(asked.hits))
        self._console.print(table)
        self._line(_lesson(tiers))

    # At the end

    def end(self, outcome: Outcome) -> None:
        if self._as_json:
            print(json.dumps({**self._facts, **_plain(outcome)}, indent=2, default=str))
            return
        indexes, usage = outcome.indexes, outcome.usage
        handed = sum(index.texts for index in indexes)
        computed = sum(index.computed for index in indexes)
        free = usage.tokens > 0 and not usage.cost and not usage.unpriced_tokens
        table = Table(box=box.SIMPLE_HEAD, show_header=False, title="This run", title_justify="left")
        table.add_column()
        table.add_column(justify="right")
        table.add_row("texts handed to the router", f"{handed:,} for {len(indexes)} indexes")
        table.add_row("computed", f"{computed:,}")
        table.add_row("from the cache, or the same text again", f"{handed - computed:,}")
        table.add_row("calls of the model, questions included", f"{usage.requests:,}")
        table.add_row("tokens computed", f"{usage.tokens:,}")
        cost = money(usage.cost) + (" and tokens of unknown price" if usage.unpriced_tokens else "")
        table.add_row("cost", cost + (", the model runs here" if free else ""))
        table.add_row("saved by cache and dedupe", money(usage.saved))
        again = sum(index.space == indexes[0].space for index in indexes)
        for other in outcome.elsewhere:
            about = "" if other.exact else "about "
            name = f"at OpenAI {other.model.removeprefix('openai:')}"
            table.add_row(f"{name}, each text once", f"{about}{money(other.cost)} for {other.tokens:,} tokens")
            if again > 1:
                table.add_row(f"  without a cache, {again} indexes, every run", f"{about}{money(other.cost * again)}")
        self._console.print(table)
        self._line(self._verdict(outcome), style="bold")

    def _verdict(self, outcome: Outcome) -> str:
        texts = outcome.indexes[0].texts
        seconds = f"{outcome.seconds:.1f} s"
        if not outcome.usage.requests:
            return f"All {texts:,} texts and the questions were in the cache: no embedding call was made. {seconds}."
        if self._facts["cache"] is None:
            return f"Done in {seconds}, without a cache: the next run computes everything again."
        return f"Done in {seconds}. Run it again: everything is in the cache now."

    def _line(self, text: str = "", style: str | None = None) -> None:
        self._console.print(text, style=style, soft_wrap=True)


def _lesson(tiers: Sequence[AtTier]) -> str:
    if len({asked.space for asked in tiers}) > 1:
        return (
            "Two spaces: their vectors cannot be compared, so each tier has an index of its own, and the router never "
            "mixes them."
        )
    if len({asked.model for asked in tiers}) > 1:
        return "One space: both tiers ask the same index, so the documents were embedded once."
    return (
        "One space, one index: the vector of the better model was in the cache, so the lower tier got it for nothing."
    )


def _found(hits: Sequence[Hit]) -> str:
    return ", ".join(sources(hits)[:SHOWN])


def _plain(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome as JSON's own types; money is written as strings, which lose nothing."""
    answers = [
        {"question": answer.question, "sources": {store: sources(hits) for store, hits in answer.hits.items()}}
        | {"hits": {store: [asdict(hit) for hit in hits] for store, hits in answer.hits.items()}}
        for answer in outcome.answers
    ]
    return {
        **asdict(outcome),
        "indexes": [asdict(index) | {"computed": index.computed} for index in outcome.indexes],
        "answers": answers,
        "all_from_cache": outcome.usage.requests == 0,
        "tiers": [asdict(asked) | {"sources": sources(asked.hits)} for asked in outcome.tiers],
    }


class _Rate(ProgressColumn):
    """Texts per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} texts/s" if speed else "", style="progress.data.speed")
