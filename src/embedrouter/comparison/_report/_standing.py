"""Which variants are worth their price: the frontier of money and quality, and what is behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from .._findings import MEASURES, Findings, Measured, Pair
from .._frontier import Cost
from .._frontier import frontier as labels_on_frontier

QUALITY = MEASURES[0]

Standing: TypeAlias = Literal["frontier", "behind", "dominated"]
"""On the frontier; behind it, perhaps by chance; dominated: another is not dearer, and better by more than chance."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A price by which variants are compared.

    Attributes:
        key: names the axis in the page.
        title: what the dollars buy.
        short: the same in a heading.
        cost_name: of the field that holds them.
    """

    key: Literal["queries", "corpus"]
    title: str
    short: str
    cost_name: Cost

    def cost(self, measured: Measured) -> Decimal | None:
        """Return the dollars of a variant; ``None`` where they are unknown."""
        cost: Decimal | None = getattr(measured, self.cost_name)
        return cost


QUERIES = Axis("queries", "dollars for a million queries", "a million queries", "queries_cost")
CORPUS = Axis("corpus", "dollars to embed the documents once", "the documents, once", "corpus_cost")
AXES = (QUERIES, CORPUS)

REACHED = {
    "judgements": QUALITY,
    "known items": f"{QUALITY} on known items",
    "agreement": f"agreement ({QUALITY})",
}
"""What the height of a variant in the chart is, by how it was judged."""


def frontier(findings: Findings, axis: Axis) -> list[int]:
    """Return the places of the variants on the frontier, the cheapest first."""
    places = {item.variant.label: place for place, item in enumerate(findings.variants)}
    return [places[label] for label in labels_on_frontier(findings.variants, axis.cost_name)]


def standings(findings: Findings, axis: Axis) -> list[Standing]:
    """Return where each variant stands by one price."""
    on = set(frontier(findings, axis))
    return [
        "frontier" if place in on else "behind" if item.dominated_by is None else "dominated"
        for place, item in enumerate(findings.variants)
    ]


def pairs_by_labels(findings: Findings) -> Mapping[frozenset[str], Pair]:
    """Return the pairs by the labels of their variants."""
    return {frozenset((pair.first, pair.second)): pair for pair in findings.pairs}


def worse_by_more_than_chance(findings: Findings) -> list[list[int]]:
    """Return for each variant the places of those that it is better than by more than chance."""
    place = {item.variant.label: number for number, item in enumerate(findings.variants)}
    found: list[list[int]] = [[] for _ in findings.variants]
    for pair in findings.pairs:
        if pair.differs and pair.first in place and pair.second in place:
            better, worse = (pair.first, pair.second) if pair.difference.mean > 0 else (pair.second, pair.first)
            found[place[better]].append(place[worse])
    return [sorted(places) for places in found]
