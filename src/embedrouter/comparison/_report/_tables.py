"""The tables of the report: all figures of each variant, latency as bars, each pair, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

import numpy as np

from ..._display import data_size, escaped
from .._findings import MEASURES, Findings, Measured, Pair
from .._frontier import difference_of
from ._chart import key_glyph
from ._figures import UNKNOWN, between, difference, differences, money, rate, score, seconds, share
from ._markup import Child, Markup, element
from ._standing import QUALITY, QUERIES, standings, worse_by_more_than_chance
from ._summary import name

OPEN_PAIRS = 15
"""Pairs up to which their table is open at first."""

Value: TypeAlias = float | Decimal | None


@dataclass(frozen=True, slots=True)
class _Figure:
    """A column of the table of all figures."""

    group: str
    title: str
    cell: Callable[[Measured], Child]
    value: Callable[[Measured], Value]
    """What the column is sorted by."""


def _measure(measure: str) -> _Figure:
    def cell(item: Measured) -> Child:
        interval = item.quality[measure]
        return score(interval.mean), element("small", between(interval))

    return _Figure("Quality, with 95 % interval", measure, cell, lambda item: item.quality[measure].mean)


def _speed(title: str, attribute: str, shown: Callable[[float | None], str]) -> _Figure:
    def value(item: Measured) -> float | None:
        return None if item.speed is None else getattr(item.speed, attribute)

    return _Figure("Speed, as measured", title, lambda item: shown(value(item)), value)


def _batch(item: Measured) -> str:
    return "none" if item.corpus_batch_cost is None else money(item.corpus_batch_cost)


FIGURES = (
    *map(_measure, MEASURES),
    _Figure("Dollars", "million queries", lambda item: money(item.queries_cost), lambda item: item.queries_cost),
    _Figure("Dollars", "documents, once", lambda item: money(item.corpus_cost), lambda item: item.corpus_cost),
    _Figure("Dollars", "the same, by batch", _batch, lambda item: item.corpus_batch_cost),
    _speed("docs a second", "documents_per_second", rate),
    _speed("query, median", "query_median", seconds),
    _speed("query, 95th", "query_95th", seconds),
    _Figure("Index", "size", lambda item: data_size(item.index_bytes), lambda item: item.index_bytes),
)


def figures(findings: Findings) -> Markup:
    """Return the table of all figures, a row for each variant."""
    better = worse_by_more_than_chance(findings)
    places = {item.variant.label: str(place + 1) for place, item in enumerate(findings.variants)}
    groups: dict[str, int] = {}
    for figure in FIGURES:
        groups[figure.group] = groups.get(figure.group, 0) + 1
    above = [element("th", group, scope="colgroup", colspan=number) for group, number in groups.items()]
    head = element(
        "thead",
        element("tr", element("th", "Variant", scope="col", rowspan=2), above,
                element("th", "More than chance", scope="colgroup", colspan=2)),
        element("tr", [element("th", figure.title, scope="col", data_sort=True) for figure in FIGURES],
                element("th", "better than", scope="col"), element("th", "dominated by", scope="col")),
    )  # fmt: skip
    standing = standings(findings, QUERIES)
    rows = []
    for place, item in enumerate(findings.variants):
        cells = [element("td", figure.cell(item), data_value=_number(figure.value(item))) for figure in FIGURES]
        by = item.dominated_by
        rows.append(
            element(
                "tr",
                element("th", name(place, item), element("small", _made_of(item)), scope="row"),
                cells,
                element("td", numbers(better[place]) or "none", class_="list"),
                element("td", "" if by is None else places.get(by, escaped(by)), class_="list"),
                class_=standing[place],
            )
        )
    caption = element("caption", f"Numbered by {QUALITY}, the best first.")
    return _scrolling("All figures", element("table", caption, head, element("tbody", rows), class_="figures"))


def _made_of(item: Measured) -> str:
    variant = item.variant
    parts = [f"{variant.dimensions:,} dimensions", str(variant.dtype or "float32")]
    if len(variant.models) > 1:
        parts.append(f"{escaped(variant.models[0])}, then {escaped(variant.models[1])}")
    elif variant.models and variant.models[0] not in variant.label:
        parts.append(escaped(variant.models[0]))
    if variant.escalated is not None:
        parts.append(f"{share(variant.escalated)} of the queries to the second")
    for kind, prompt in (variant.prompts or {}).items():
        parts.append(f"{kind}s after “{escaped(prompt)}”")
    return "; ".join(parts)


def _number(value: Value) -> str | None:
    return None if value is None else str(value)


def numbers(places: Sequence[int]) -> str:
    """Return the numbers of variants, neighbours as a range: "2, 4–7"."""
    parts: list[list[int]] = []
    for place in places:
        if parts and place == parts[-1][-1] + 1:
            parts[-1].append(place)
        else:
            parts.append([place])
    return ", ".join(
        "–".join(str(place + 1) for place in (part[0], part[-1])[: len(part)])
        if len(part) != 2
        else f"{part[0] + 1}, {part[1] + 1}"
        for part in parts
    )


def latency(findings: Findings) -> Markup:
    """Return the variants with their marks in the chart, and the time of a query from median to 95th as a bar."""
    variants = findings.variants
    standing = standings(findings, QUERIES)
    known = [
        time
        for item in variants
        if item.speed is not None
        for time in (item.speed.query_median, item.speed.query_95th)
        if time is not None and time > 0
    ]
    low, high = (math.log10(min(known)), math.log10(max(known))) if known else (0.0, 1.0)
    middle, half = (low + high) / 2, max(high - low, 1.0) / 2

    def x(time: float) -> float:
        return 4 + 92 * (math.log10(time) - middle + half) / (2 * half)

    rows = []
    for place, item in enumerate(variants):
        median = None if item.speed is None else item.speed.query_median
        slowest = None if item.speed is None else item.speed.query_95th
        bar = None
        if median is not None and median > 0:
            end = x(slowest) if slowest is not None and slowest > 0 else x(median)
            bar = element(
                "svg",
                element("path", class_="bar", d=f"M{x(median):.1f} 7H{end:.1f}"),
                element("circle", class_="median", cx=f"{x(median):.1f}", cy=7, r=3.5),
                viewBox="0 0 100 14", width=100, height=14, class_="bars", aria_hidden="true",
            )  # fmt: skip
        told = UNKNOWN if median is None else seconds(median)
        if median is not None and slowest is not None:
            told += f" to {seconds(slowest)}"
        named = element("th", element("span", key_glyph(standing[place]), name(place, item)), scope="row")
        rows.append(element("tr", named, element("td", bar, element("span", told)), class_=standing[place]))
    titles = (element("th", "Variant", scope="col"), element("th", "Median to 95th", scope="col"))
    caption = element("caption", "Query latency, from a text to its vector; the bars are logarithmic")
    return element("table", caption, element("thead", element("tr", titles)), element("tbody", rows), class_="latency")


def pairs(findings: Findings) -> Markup | None:
    """Return each pair of variants: the difference, on how many queries each is better, and whether it is chance."""
    if not findings.pairs:
        return None
    variants = {item.variant.label: (place, item) for place, item in enumerate(findings.variants)}
    known = [pair for pair in findings.pairs if pair.first in variants and pair.second in variants]
    rows = []
    for pair in sorted(known, key=lambda pair: sorted((variants[pair.first][0], variants[pair.second][0]))):
        rows.append(_pair(pair, *sorted((variants[pair.first], variants[pair.second]), key=lambda item: item[0])))
    titles = ("Variant", "Other variant", f"Difference in {QUALITY}", "p", "More than chance", "Queries better",
              "worse", "equal")  # fmt: skip
    head = element("thead", element("tr", [element("th", title, scope="col") for title in titles]))
    table = element("table", head, element("tbody", rows), class_="pairs")
    different = sum(pair.differs for pair in known)
    summary = f"{different:,} of {len(known):,} differences are more than chance"
    return element("details", element("summary", summary), _scrolling("Pairs of variants", table),
                   open=len(known) <= OPEN_PAIRS)  # fmt: skip


def _pair(pair: Pair, first: tuple[int, Measured], second: tuple[int, Measured]) -> Markup:
    found = difference_of(pair, first[1].variant.label)
    gains = np.asarray(first[1].by_query[QUALITY]) - np.asarray(second[1].by_query[QUALITY])
    better, worse = int((gains > 1e-9).sum()), int((gains < -1e-9).sum())
    return element(
        "tr",
        element("th", name(*first), scope="row"),
        element("td", name(*second), class_="list"),
        element("td", difference(found.mean), element("small", differences(found))),
        element("td", f"{pair.p:.4f}" if pair.p >= 0.0001 else "< 0.0001"),
        element("td", element("strong", "yes") if pair.differs else "no"),
        [element("td", f"{number:,}") for number in (better, worse, len(gains) - better - worse)],
    )


def left_out(findings: Findings) -> Markup | None:
    """Return the models that could not be compared, each with the reason."""
    if not findings.left_out:
        return None
    items = [
        (element("dt", element("bdi", escaped(model))), element("dd", escaped(reason)))
        for model, reason in findings.left_out.items()
    ]
    return element("section", element("h2", "Left out"), element("dl", items))


def _scrolling(label: str, table: Markup) -> Markup:
    return element("div", table, class_="scrolling", role="region", aria_label=label, tabindex=0)
