"""``embedrouter calibrate``: what a cascade of two tiers would bring, measured on the user's own queries.

Every query is asked of both tiers, in memory and exactly. Then the queries are escalated in the order of doubt that
``embedrouter.cascade`` goes by, and the quality of each share is compared with that of as many queries chosen at random
(which needs no dice: it is the straight line between the two tiers). Quality is nDCG@10 where there are judgements;
without, it is how much of the good tier's ten best are among the answer's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.table import Table

from ..errors import ConfigError
from ..retrieval import gap
from ..router import Router
from ..tiered import TieredRouter
from ..types import InputType, Vectors
from .calibration import Calibration, Point, agreement, measure, ndcg, nearest
from .report import Report, money

__all__ = ["command", "judgements", "texts"]

CHEAP = "wordllama:l2_supercat_256"
GOOD = "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"
SLICE = 512
"""Texts handed to a router at once: the progress bar's step."""
WIDTH = 50
"""Characters of the chart's longest bar."""


def command(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help='Documents: JSON lines {"id", "text", "title"?}.')],
    queries: Annotated[Path, typer.Argument(metavar="QUERIES", help='Queries: JSON lines {"id", "text"}.')],
    qrels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judgements: query id, document id, relevance (BEIR or TREC).")
    ] = None,
    cheap: Annotated[str | None, typer.Option(metavar="MODEL", help=f"The tier to ask first; {CHEAP}.")] = None,
    good: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The tier to escalate to; all-MiniLM-L6-v2 if installed.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="The lowest and highest router of this file; 'auto' searches.")
    ] = None,
    share: Annotated[float, typer.Option(min=0, max=1, help="The share to report about.")] = 0.3,
    limit: Annotated[int | None, typer.Option(min=2, help="Take so many queries, evenly from the file.")] = None,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="A cache folder instead of the user's.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute everything anew and keep nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before spending money.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw the share of queries escalated to a better tier against the quality kept.

    Run it twice: the second run takes every vector from the cache.
    """
    if config and (cheap or good):
        raise typer.BadParameter("--config and --cheap or --good exclude each other.")
    if cache and no_cache:
        raise typer.BadParameter("--cache and --no-cache exclude each other.")
    place: str | None = None
    try:
        from . import levels

        documents, asked = texts(corpus), texts(queries)
        if limit is not None and limit < len(asked):
            names = list(asked)
            asked = {names[i * len(names) // limit]: asked[names[i * len(names) // limit]] for i in range(limit)}
        judged = judgements(qrels, asked, documents) if qrels else None
        folder = None if no_cache else cache or "default"
        if config:
            chosen, place = levels.choose(None, config, folder)
        else:
            low, place = levels.choose(cheap or CHEAP, None, folder)
            high, _ = levels.choose(good or _good(), None, folder)
            assert isinstance(low, Router)
            assert isinstance(high, Router)
            chosen = TieredRouter({"low": low, "high": high})
        if not isinstance(chosen, TieredRouter):
            raise ConfigError(
                f"{config} describes a single router. A cascade needs two: [routers.low], [routers.high]."
            )
        with chosen:
            _run(chosen, documents, asked, judged, share, yes, _Findings(as_json=as_json))
    except KeyboardInterrupt:
        kept = f"What was embedded so far is in the cache ({place}): the next run continues from there."
        print(f"\nStopped. {kept if place else 'No cache is in use: the next run starts anew.'}", file=sys.stderr)
        raise typer.Exit(130) from None


def _good() -> str:
    if find_spec("sentence_transformers") is None:
        raise ConfigError(
            "Name the tier to escalate to, such as --good openai:text-embedding-3-small, or install a local one: "
            "pip install 'embedrouter[sentence-transformers]'"
        )
    return GOOD


# What is read


def texts(path: Path) -> dict[str, str]:
    """Return the texts of a JSON lines file by id, each with its title before it, if it has one.

    Raises:
        ConfigError: the file cannot be read, or a line is not as expected; the message says which.
    """
    found: dict[str, str] = {}
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            name = str(row.get("id", row.get("_id", "")))
            text = " ".join(part for part in (row.get("title"), row["text"]) if part).strip()
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ConfigError(f'{path}, line {number}: expected {{"id": …, "text": …}}.') from None
        if not name or not text:
            raise ConfigError(f"{path}, line {number}: the {'text' if name else 'id'} is missing.")
        if name in found:
            raise ConfigError(f"{path}, line {number}: the id {name!r} is there twice.")
        found[name] = text
    if not found:
        raise ConfigError(f"{path} holds no texts.")
    return found


def judgements(path: Path, queries: Mapping[str, str], documents: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return the relevance of documents by query; what is about other queries or documents is left out.

    A line holds query, document and relevance, apart by tabs or blanks; TREC's second of four columns is skipped, and
    relevance is 1 where it is not given. A heading may come first.

    Raises:
        ConfigError: the file cannot be read, a line is not as expected, or no line is about these queries.
    """
    found: dict[str, dict[str, float]] = {}
    for number, line in _lines(path):
        columns = line.rstrip("\n").split("\t") if "\t" in line else line.split()
        try:
            relevance = float(columns[-1]) if len(columns) > 2 else 1.0
            query, document = {2: (0, 1), 3: (0, 1), 4: (0, 2)}[len(columns)]
        except (ValueError, KeyError):
            if number == 1:
                continue
            raise ConfigError(f"{path}, line {number}: expected a query id, a document id and a number.") from None
        if relevance > 0 and columns[query] in queries and columns[document] in documents:
            found.setdefault(columns[query], {})[columns[document]] = relevance
    if not found:
        raise ConfigError(f"No line of {path} says that a document of the corpus is relevant to one of the queries.")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.expanduser().open(encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text.") from error


# The run


def _run(
    chosen: TieredRouter,
    documents: dict[str, str],
    queries: dict[str, str],
    judged: dict[str, dict[str, float]] | None,
    share: float,
    yes: bool,
    report: _Findings,
) -> None:
    left_out = 0
    if judged is not None:
        left_out = len(queries) - len(judged)
        queries = {name: text for name, text in queries.items() if name in judged}
    with report.busy("reading models"):
        from .levels import levels_of

        pair = [level.router for level in levels_of(chosen, next(iter(queries.values())))]
    if len(pair) < 2:
        raise ConfigError("The tiers are one router. A cascade needs two, each with an index of its own.")
    report.sizes(len(documents), len(queries), left_out)
    _agree(pair, list(documents.values()), list(queries.values()), yes, report)

    found = []
    for router in pair:
        vectors = _embed(router, list(documents.values()), "document", report)
        found.append(nearest(vectors, _embed(router, list(queries.values()), "query", report)))
    (first, scores), (second, _) = found
    if judged is not None:
        place = {name: index for index, name in enumerate(documents)}
        relevant = [{place[document]: value for document, value in judged[name].items()} for name in queries]
        cheap, good = ndcg(first, relevant), ndcg(second, relevant)
    else:
        cheap, good = agreement(first, second), np.ones(len(queries))
    gaps = np.array([gap(row) for row in scores.tolist()])
    report.calibration(measure(gaps, cheap, good, share), pair, judged is not None, share)


def _embed(router: Router, texts: list[str], input_type: InputType, report: _Findings) -> Vectors:
    parts = []
    with report.progress(f"{input_type}s, {router.models[-1]}", len(texts)) as advance:
        for start in range(0, len(texts), SLICE):
            part = router.embed(texts[start : start + SLICE], input_type=input_type)
            parts.append(part.vectors)
            advance(len(part))
    return np.concatenate(parts)


def _agree(pair: Sequence[Router], documents: list[str], queries: list[str], yes: bool, report: _Findings) -> None:
    """Say what the run costs and ask, if it costs anything.

    Raises:
        ConfigError: nobody agreed.
    """
    with report.busy("counting tokens"):
        estimates = [router.estimate(documents, input_type="document") for router in pair]
        estimates += [router.estimate(queries, input_type="query") for router in pair]
    total = sum((estimate.cost for estimate in estimates if estimate.cost is not None), Decimal(0))
    unknown = any(estimate.cost is None for estimate in estimates)
    if total or unknown:
        price = money(total) + (" and tokens of unknown price" if unknown else "")
        asked = f"This run embeds {sum(estimate.tokens for estimate in estimates):,} tokens for about {price}"
        if not yes and not report.confirm(f"{asked}. Go ahead?"):
            raise ConfigError(f"{asked}. Nothing was embedded. Agree with --yes, or try a --limit first.")


class _Findings(Report):
    """Prints a calibration."""

    def sizes(self, documents: int, queries: int, left_out: int) -> None:
        self._facts = {"documents": documents, "queries": queries, "queries_without_judgement": left_out}
        without = f"; {left_out:,} more have no judgement" if left_out else ""
        self._line(f"{documents:,} documents, {queries:,} queries{without}", style="bold")

    def calibration(self, found: Calibration, pair: Sequence[Router], labelled: bool, share: float) -> None:
        quality = "nDCG@10" if labelled else "agreement with the good tier's ten best"
        if self._as_json:
            tiers = [{"models": router.models, "space": str(router.space)} for router in pair]
            usage = asdict(pair[0].usage + pair[1].usage)
            facts = {**self._facts, "tiers": tiers, "quality": quality, **asdict(found), "usage": usage}
            print(json.dumps(facts, indent=2, default=str))
            return
        for name, router, value in (("cheap", pair[0], found.cheap), ("good", pair[1], found.good)):
            self._line(f"{name + ':':6} {', '.join(router.models)}, {quality} {value:.3f}")
        heads = ("escalated", quality.partition(" ")[0], "of the good tier's", "at random", "gap closed")
        table = Table(*heads, box=box.SIMPLE_HEAD)
        for column in table.columns:
            column.justify = "right"
        for point in found.points:
            kept = f"{point.kept:.1%}"
            table.add_row(
                f"{point.escalated:.0%}", f"{point.quality:.3f}", kept, f"{point.random:.3f}", _percent(point.closed)
            )
        self._console.print(table)
        if found.at.closed is None:
            self._line("On these queries the good tier is not better: there is nothing to escalate for.", style="bold")
            return
        self._chart(found.points)
        self._line(_verdict(found, share), style="bold")
        how = f"escalated {found.running.escalated:.1%} and closed {_percent(found.running.closed)} of the gap"
        self._line(f"Cascade(share={share:g}), which met these queries one by one in this order, {how}.")
        if not labelled:
            self._line("Agreement says where the tiers differ, not which of them is right; judgements (--qrels) do.")
        self._line(f"To begin with what was seen here, for stores that score by cosine: gaps={found.gaps}")

    def _chart(self, points: Sequence[Point]) -> None:
        full, empty = ("█", "·") if self._console.encoding.startswith("utf") else ("#", ".")
        self._line("The gap that is closed, by the share escalated; | is where a random choice would be:")
        for point in points:
            filled = max(0, min(WIDTH, round((point.closed or 0) * WIDTH)))
            bar = list(full * filled + empty * (WIDTH - filled))
            bar[min(WIDTH - 1, round(point.escalated * WIDTH))] = "|"
            self._line(f"  {point.escalated:4.0%} {''.join(bar)} {_percent(point.closed):>5}")
        self._line()


def _verdict(found: Calibration, share: float) -> str:
    closed = found.at.closed or 0.0
    within = f" (95 %: {found.interval[0]:.0%} to {found.interval[1]:.0%})" if found.interval else ""
    times = f", {closed / share:.1f} times what a random choice closes" if share else ""
    return f"With {share:.0%} escalated {closed:.0%} of the gap is closed{within}{times}."


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"
