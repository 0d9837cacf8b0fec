"""``embedrouter calibrate``: show what a cascade of two tiers would bring, measured on the user's own queries.

The command embeds documents and queries with both tiers and prints what ``retrieval.calibrate`` computes.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated

import numpy as np
import typer

from ..comparison import Questions, read_questions
from ..errors import ConfigError
from ..models.agreement import comparable
from ..retrieval.calibration import Calibration, Point, TierVectors, calibrate
from ..router import Router, wiring_of
from ..tiered import TieredRouter
from ..types import InputType, Vectors
from ._console import STEP, Output, exit_on_interrupt, interrupt_message
from ._exclusive import exclusive
from ._options import AsJson, CachePlace, ConfigFile, NoCache, Yes
from ._routers import WORDLLAMA, build_router, cache_location, separate_routers, settings_for

MINILM = "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"
CHART_WIDTH = 50


def command(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="Documents, as embedrouter compare reads them.")],
    queries: Annotated[str, typer.Argument(metavar="QUERIES", help="Queries: a file, one a line or as documents.")],
    qrels: Annotated[str | None, typer.Option(metavar="FILE", help="Judgements, as BEIR or TREC writes them.")] = None,
    cheap: Annotated[str | None, typer.Option(metavar="MODEL", help=f"The tier to search first; {WORDLLAMA}.")] = None,
    good: Annotated[str | None, typer.Option(metavar="MODEL", help="The better tier; all-MiniLM-L6-v2.")] = None,
    config: ConfigFile = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="The share of escalated queries to report on.")] = 0.3,
    limit: Annotated[int | None, typer.Option(min=2, help="Use so many queries, evenly from the file.")] = None,
    cache: CachePlace = None,
    no_cache: NoCache = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Compare the share of queries escalated to a better tier with the quality kept.

    Run it twice: the second run takes every vector from the cache.
    """
    exclusive(config=config, cheap=cheap)
    exclusive(config=config, good=good)
    tiers = {"low": settings_for(cheap or WORDLLAMA), "high": settings_for(good or MINILM)}
    router = build_router(config, {"routers": tiers}, cache, no_cache)
    if not isinstance(router, TieredRouter):
        raise ConfigError(f"{config} describes a single router. A cascade needs two: [routers.low], [routers.high].")
    questions = read_questions(corpus, queries, qrels)
    if limit is not None and limit < len(questions.queries):
        every = list(questions.queries.items())
        kept = dict(every[number * len(every) // limit] for number in range(limit))
        questions = replace(questions, queries=kept)
    run_calibration(router, questions, share, Output(as_json=as_json, yes=yes))


def run_calibration(router: TieredRouter, questions: Questions, share: float, output: Output) -> None:
    """Embed documents and queries with the lowest and the highest tier, and show the calibration.

    Args:
        questions: what to measure on; without judgements the good tier is the measure.
        share: the share of escalated queries to report on.

    Raises:
        ConfigError: the tiers are one router, or the user did not agree to the price.
    """
    with router, exit_on_interrupt(lambda: interrupt_message(cache_location(router))):
        documents, asked, relevant = questions.documents, questions.queries, questions.relevant
        tiers = separate_routers(router)
        pair = tiers[0], tiers[-1]
        if len(tiers) == 1:
            raise ConfigError("The tiers are one router. A cascade needs two, each with an index of its own.")
        output.line(f"{len(documents):,} documents, {len(asked):,} queries", style="bold")
        for note in questions.notes:
            output.line(note)
        texts: dict[InputType, list[str]] = {"document": list(documents.values()), "query": list(asked.values())}
        with output.busy("counting tokens"):
            estimates = [single.estimate(texts[kind], input_type=kind) for single in pair for kind in texts]
        output.confirm_cost(estimates, "Agree with --yes, or try a --limit first.")

        vectors = [TierVectors(*(_embed(single, texts[kind], kind, output) for kind in texts)) for single in pair]
        judgements = None
        if relevant:
            positions = {name: index for index, name in enumerate(documents)}
            judgements = [{positions[document]: value for document, value in relevant[name].items()} for name in asked]
        found = calibrate(*vectors, share=share, relevant=judgements)
        quality = "nDCG@10" if relevant else "agreement with the good tier's ten best"
        counts = {"documents": len(documents), "queries": len(asked), "notes": list(questions.notes)}
        compared = [{"models": single.models, "space": str(single.space)} for single in pair]
        output.json({**counts, "tiers": compared, "quality": quality, **asdict(found), "usage": router.usage})
        _show(found, pair, quality, share, output)
        if found.at.closed is not None and not relevant:
            output.line("Agreement shows where the tiers differ, not which tier is right; use judgements (--qrels).")


def _embed(router: Router, texts: list[str], input_type: InputType, output: Output) -> Vectors:
    parts: list[Vectors] = []
    with output.progress(f"{input_type}s, {router.models[-1]}", len(texts)) as advance:
        for part in router.embed_iter(texts, input_type=input_type, chunk_size=STEP):
            parts.append(part.vectors)
            advance(sum(map(len, parts)), router.usage.cost)
    return comparable(np.concatenate(parts), wiring_of(router).candidates[0].output_dtype)


# Output


def _show(found: Calibration, pair: Sequence[Router], quality: str, share: float, output: Output) -> None:
    for name, router, value in (("cheap", pair[0], found.cheap), ("good", pair[1], found.good)):
        output.line(f"{name + ':':6} {', '.join(router.models)}, {quality} {value:.3f}")
    output.table([{**asdict(point), "escalated": f"{point.escalated:.0%}"} for point in found.points])
    if found.at.closed is None:
        output.line("On these queries the good tier is not better: there is nothing to escalate for.", style="bold")
        return
    _show_chart(found.points, output)
    within = f" (95 %: {found.interval[0]:.0%} to {found.interval[1]:.0%})" if found.interval else ""
    times = f", {found.at.closed / share:.1f} times as much as a random choice" if share else ""
    verdict = f"With {share:.0%} escalated {found.at.closed:.0%} of the gap is closed{within}{times}."
    output.line(verdict, style="bold")
    output.line(
        f"Cascade(share={share:g}), which decided these queries one by one in their order, escalated "
        f"{found.running.escalated:.1%} and closed {found.running.closed or 0:.0%} of the gap."
    )
    output.line(f"To start with these gaps, in stores that score by cosine: gaps={found.gaps}")


def _show_chart(points: Sequence[Point], output: Output) -> None:
    full, empty = ("█", "·") if output.console.encoding.startswith("utf") else ("#", ".")
    output.line("The gap that is closed, by the share escalated; | marks a random choice:")
    for point in points:
        closed = point.closed or 0
        filled = max(0, min(CHART_WIDTH, round(closed * CHART_WIDTH)))
        bar = list(full * filled + empty * (CHART_WIDTH - filled))
        bar[min(CHART_WIDTH - 1, round(point.escalated * CHART_WIDTH))] = "|"
        output.line(f"  {point.escalated:4.0%} {''.join(bar)} {closed:>5.0%}")
    output.line()
