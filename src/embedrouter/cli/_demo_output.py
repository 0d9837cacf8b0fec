"""The output of the demo: step by step for people, or one JSON object at the end for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.table import Table

from ..router import Router
from ._console import Output, first_few, format_money
from ._corpus import Corpus
from ._demo_results import DemoResult, FilledStore, QuestionResult, TierResult
from ._demo_stores import HITS, HITS_PER_SOURCE

PIPED_WIDTH = 110
SHOWN = 3
"""Sources in an answer, and skipped files in a line."""


class DemoOutput(Output):
    """Print the steps of one run."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__(as_json=as_json, piped_width=PIPED_WIDTH)

    def show_start(self, corpus: Corpus, router: Router, cache_location: str | None, missing: Sequence[str]) -> None:
        """Print the texts, the models and the cache in use, and the frameworks that are not installed."""
        self.line(f"{len(corpus.passages):,} texts: {corpus.name}", style="bold")
        for reason, files in corpus.skipped.items():
            self.line(f"  skipped, {reason}: {first_few(files, SHOWN)}")
        self.line(f"Model: {', '.join(router.models)}.  Cache: {cache_location or 'none'}.")
        for extra in missing:
            self.line(f"Without {extra}; to include it: pip install 'embedrouter[{extra}]'", style="yellow")
        self.line()

    def show_index(self, index: FilledStore) -> None:
        """Print how a store was filled."""
        if not index.computed:
            how = "all from cache, 0 calls"
        else:
            calls = f"{index.requests:,} call{'s' if index.requests != 1 else ''}"
            how = f"{index.cached:,} texts from cache, {index.computed:,} computed in {calls}"
        self.line(f"{index.store} index, tier {index.tier}: {index.texts:,} vectors, {how}, {index.seconds:.1f} s")

    def show_answers(self, answers: Sequence[QuestionResult]) -> None:
        """Print the sources that each store found for each question."""
        stores = list(answers[0].hits)
        table = Table("Question", *(f"Found with {store.partition(' ')[0]}" for store in stores), box=box.SIMPLE_HEAD)
        for answer in answers:
            table.add_row(answer.question, *(", ".join(found[:SHOWN]) for found in answer.sources.values()))
        self.console.print(table)
        self.line(f"Shown are the sources of the {HITS} nearest passages, ranked by their best {HITS_PER_SOURCE}.")

    def show_tiers(self, question: str, tiers: Sequence[TierResult]) -> None:
        """Print the sources that one question finds at each tier."""
        if not tiers:
            self.line("There is one tier only; a configuration can have more (--config).")
            return
        table = Table("Tier", "Answered by", "Space", "Found", box=box.SIMPLE_HEAD, title_justify="left")
        table.title = f'"{question}" at two tiers'
        for asked in tiers:
            table.add_row(asked.tier, asked.model, asked.space, ", ".join(asked.sources[:SHOWN]))
        self.console.print(table)
        self.line(_explain(tiers))

    def show_result(self, result: DemoResult) -> None:
        """Print the totals, or the whole result as JSON."""
        self.json(asdict(result))
        self.console.print(_totals(result))
        self.line(_verdict(result), style="bold")


def _totals(result: DemoResult) -> Table:
    indexes, usage = result.indexes, result.usage
    texts = sum(index.texts for index in indexes)
    computed = sum(index.computed for index in indexes)
    local = usage.tokens > 0 and not usage.cost and not usage.unpriced_tokens
    table = Table(box=box.SIMPLE_HEAD, show_header=False, title="This run", title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    table.add_row("texts passed to the router", f"{texts:,} for {len(indexes)} indexes")
    table.add_row("computed", f"{computed:,}")
    table.add_row("from the cache, or repeated", f"{texts - computed:,}")
    table.add_row("calls of the model, questions included", f"{usage.requests:,}")
    table.add_row("tokens computed", f"{usage.tokens:,}")
    cost = format_money(usage.cost) + (" and tokens of unknown price" if usage.unpriced_tokens else "")
    table.add_row("cost", cost + (", the model runs on this machine" if local else ""))
    table.add_row("saved by cache and dedupe", format_money(usage.saved))
    copies = sum(index.space == indexes[0].space for index in indexes)
    for other in result.elsewhere:
        about = "" if other.exact else "about "
        name = f"at OpenAI {other.model.removeprefix('openai:')}"
        table.add_row(f"{name}, each text once", f"{about}{format_money(other.cost)} for {other.tokens:,} tokens")
        if copies > 1:
            table.add_row(
                f"  without a cache, {copies} indexes, every run", f"{about}{format_money(other.cost * copies)}"
            )
    return table


def _verdict(result: DemoResult) -> str:
    texts = result.indexes[0].texts
    seconds = f"{result.seconds:.1f} s"
    if result.all_from_cache:
        return f"All {texts:,} texts and the questions were in the cache: no embedding call was made. {seconds}."
    if result.cache is None:
        return f"Done in {seconds}, without a cache: the next run computes all vectors again."
    return f"Done in {seconds}. Run it again: all vectors are in the cache now."


def _explain(tiers: Sequence[TierResult]) -> str:
    if len({asked.space for asked in tiers}) > 1:
        return (
            "Two spaces: their vectors cannot be compared, so each tier has an index of its own, and the router never "
            "mixes the two."
        )
    if len({asked.model for asked in tiers}) > 1:
        return "One space: both tiers search the same index, so the documents were embedded once."
    return (
        "One space, one index: the vector of the better model was in the cache, so the lower tier used that vector at "
        "no cost."
    )
