"""``embedrouter calibrate``: show what a cascade of two tiers would bring, measured on the user's own queries.

The command embeds documents and queries with both tiers and prints what ``retrieval.calibrate`` computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ..errors import ConfigError
from ..retrieval.calibration import Calibration, Point, TierVectors, calibrate
from ..router import Router
from ..tiered import TieredRouter
from ..types import InputType, Vectors
from ._console import Output, exit_on_interrupt, format_money, interrupt_message
from ._options import AsJson, CacheFolder, ConfigFile, NoCache, Yes, exclusive, named_config
from ._retrieval_files import read_judgements, read_texts
from ._routers import WORDLLAMA, assemble, build_router, choose_cache, compared_tiers, single_model

MINILM = "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"
CHUNK_SIZE = 512
"""Texts embedded at once: one step of the progress bar."""
CHART_WIDTH = 50
PIPED_WIDTH = 110


def command(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help='Documents: JSON lines {"id", "text", "title"?}.')],
    queries: Annotated[Path, typer.Argument(metavar="QUERIES", help='Queries: JSON lines {"id", "text"}.')],
    qrels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judgements: query id, document id, relevance (BEIR or TREC).")
    ] = None,
    cheap: Annotated[str | None, typer.Option(metavar="MODEL", help=f"The tier to search first; {WORDLLAMA}.")] = None,
    good: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The tier to escalate to; all-MiniLM-L6-v2 if installed.")
    ] = None,
    config: ConfigFile = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="The share of escalated queries to report on.")] = 0.3,
    limit: Annotated[int | None, typer.Option(min=2, help="Use so many queries, evenly from the file.")] = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Compare the share of queries escalated to a better tier with the quality kept.

    Run it twice: the second run takes every vector from the cache.
    """
    exclusive(config=config, cheap=cheap)
    exclusive(config=config, good=good)
    folder = choose_cache(cache, no_cache)
    documents, asked = read_texts(corpus), read_texts(queries)
    if limit is not None and limit < len(asked):
        names = list(asked)
        asked = {name: asked[name] for name in (names[i * len(names) // limit] for i in range(limit))}
    relevant = read_judgements(qrels, asked, documents) if qrels else None
    if config:
        router, cache_location = build_router(None, named_config(config), folder)
    else:
        chosen = {"low": cheap or WORDLLAMA, "high": good or _installed_minilm()}
        router, cache_location = assemble({tier: single_model(name) for tier, name in chosen.items()}, folder)
    if not isinstance(router, TieredRouter):
        raise ConfigError(f"{config} describes a single router. A cascade needs two: [routers.low], [routers.high].")
    output = Output(as_json=as_json, piped_width=PIPED_WIDTH)
    run_calibration(router, cache_location, documents, asked, relevant, share, yes, output)


def _installed_minilm() -> str:
    if find_spec("sentence_transformers") is None:
        raise ConfigError(
            "Name the tier to escalate to, such as --good openai:text-embedding-3-small, or install a local model: "
            "pip install 'embedrouter[sentence-transformers]'"
        )
    return MINILM


def run_calibration(
    router: TieredRouter,
    cache_location: str | None,
    documents: dict[str, str],
    queries: dict[str, str],
    relevant: dict[str, dict[str, float]] | None,
    share: float,
    yes: bool,
    output: Output,
) -> None:
    """Embed documents and queries with the lowest and the highest tier, and show the calibration.

    Args:
        cache_location: folder of the cache, or ``None``.
        relevant: the relevance of documents, by query; without judgements the good tier is the measure.
        share: the share of escalated queries to report on.
        yes: whether to spend money without a question.

    Raises:
        ConfigError: the tiers are one router, or the user did not agree to the price.
    """
    with router, exit_on_interrupt(lambda: interrupt_message(cache_location)):
        without_judgement = 0
        if relevant is not None:
            without_judgement = len(queries) - len(relevant)
            queries = {name: text for name, text in queries.items() if name in relevant}
        with output.busy("reading models"):
            pair = [compared.router for compared in compared_tiers(router)]
        if len(pair) < 2:
            raise ConfigError("The tiers are one router. A cascade needs two, each with an index of its own.")
        left_out = f"; {without_judgement:,} more have no judgement" if without_judgement else ""
        output.line(f"{len(documents):,} documents, {len(queries):,} queries{left_out}", style="bold")
        _confirm_cost(pair, list(documents.values()), list(queries.values()), yes, output)

        cheap, good = (
            TierVectors(
                _embed(single, list(documents.values()), "document", output),
                _embed(single, list(queries.values()), "query", output),
            )
            for single in pair
        )
        judgements = None
        if relevant is not None:
            positions = {name: index for index, name in enumerate(documents)}
            judgements = [
                {positions[document]: value for document, value in relevant[name].items()} for name in queries
            ]
        found = calibrate(cheap, good, share=share, relevant=judgements)
        quality = "nDCG@10" if relevant is not None else "agreement with the good tier's ten best"
        output.json(
            {
                "documents": len(documents),
                "queries": len(queries),
                "queries_without_judgement": without_judgement,
                "tiers": [{"models": single.models, "space": str(single.space)} for single in pair],
                "quality": quality,
                **asdict(found),
                "usage": asdict(pair[0].usage + pair[1].usage),
            }
        )
        _show(found, pair, quality, share, output)
        if found.at.closed is not None and relevant is None:
            output.line("Agreement shows where the tiers differ, not which tier is right; use judgements (--qrels).")


def _embed(router: Router, texts: list[str], input_type: InputType, output: Output) -> Vectors:
    parts = []
    with output.progress(f"{input_type}s, {router.models[-1]}", len(texts)) as advance:
        for start in range(0, len(texts), CHUNK_SIZE):
            part = router.embed(texts[start : start + CHUNK_SIZE], input_type=input_type)
            parts.append(part.vectors)
            advance(len(part))
    return np.concatenate(parts)


def _confirm_cost(pair: Sequence[Router], documents: list[str], queries: list[str], yes: bool, output: Output) -> None:
    """Show the cost and ask, if there is any.

    Raises:
        ConfigError: the user did not agree.
    """
    with output.busy("counting tokens"):
        estimates = [router.estimate(documents, input_type="document") for router in pair]
        estimates += [router.estimate(queries, input_type="query") for router in pair]
    total = sum((estimate.cost for estimate in estimates if estimate.cost is not None), Decimal(0))
    unknown = any(estimate.cost is None for estimate in estimates)
    if total or unknown:
        price = format_money(total) + (" and tokens of unknown price" if unknown else "")
        question = f"This run embeds {sum(estimate.tokens for estimate in estimates):,} tokens for about {price}"
        output.require_agreement(question, "Nothing was embedded. Agree with --yes, or try a --limit first.", yes=yes)


# Output


def _show(found: Calibration, pair: Sequence[Router], quality: str, share: float, output: Output) -> None:
    for name, router, value in (("cheap", pair[0], found.cheap), ("good", pair[1], found.good)):
        output.line(f"{name + ':':6} {', '.join(router.models)}, {quality} {value:.3f}")
    heads = ("escalated", quality.partition(" ")[0], "of the good tier's", "at random", "gap closed")
    rows = [
        (f"{at.escalated:.0%}", f"{at.quality:.3f}", f"{at.kept:.1%}", f"{at.random:.3f}", _percent(at.closed))
        for at in found.points
    ]
    output.table(heads, rows, numbers=heads)
    if found.at.closed is None:
        output.line("On these queries the good tier is not better: there is nothing to escalate for.", style="bold")
        return
    _show_chart(found.points, output)
    output.line(_verdict(found, share), style="bold")
    output.line(
        f"Cascade(share={share:g}), which decided these queries one by one in their order, escalated "
        f"{found.running.escalated:.1%} and closed {_percent(found.running.closed)} of the gap."
    )
    output.line(f"To start with these gaps, in stores that score by cosine: gaps={found.gaps}")


def _show_chart(points: Sequence[Point], output: Output) -> None:
    full, empty = ("█", "·") if output.console.encoding.startswith("utf") else ("#", ".")
    output.line("The gap that is closed, by the share escalated; | marks a random choice:")
    for point in points:
        filled = max(0, min(CHART_WIDTH, round((point.closed or 0) * CHART_WIDTH)))
        bar = list(full * filled + empty * (CHART_WIDTH - filled))
        bar[min(CHART_WIDTH - 1, round(point.escalated * CHART_WIDTH))] = "|"
        output.line(f"  {point.escalated:4.0%} {''.join(bar)} {_percent(point.closed):>5}")
    output.line()


def _verdict(found: Calibration, share: float) -> str:
    closed = found.at.closed or 0.0
    within = f" (95 %: {found.interval[0]:.0%} to {found.interval[1]:.0%})" if found.interval else ""
    times = f", {closed / share:.1f} times as much as a random choice" if share else ""
    return f"With {share:.0%} escalated {closed:.0%} of the gap is closed{within}{times}."


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"
