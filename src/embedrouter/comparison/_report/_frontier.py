"""Which variants are worth their price: the frontier of money and quality, and what is behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

from .._comparison import MEASURES, Comparison, Interval, Measured, Pair

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
    """

    key: Literal["queries", "corpus"]
    title: str
    short: str

    def cost(self, measured: Measured) -> Decimal | None:
        """Return the dollars of a variant; ``None`` where they are unknown."""
        return measured.queries_cost if self.key == "queries" else measured.corpus_cost


QUERIES = Axis("queries", "dollars for a million queries", "a million queries")
CORPUS = Axis("corpus", "dollars to embed the documents once", "the documents, once")
AXES = (QUERIES, CORPUS)

REACHED = {
    "judgements": QUALITY,
    "known items": f"{QUALITY} on known items",
    "agreement": f"agreement ({QUALITY})",
}
"""What the height of a variant in the chart is, by how it was judged."""


def frontier(variants: Sequence[Measured], axis: Axis) -> list[int]:
    """Return the places of the variants that are better than all cheaper ones, the cheapest first.

    Of equal price and quality the first counts. An unknown price is not on the frontier.
    """
    priced = [(cost, place) for place, item in enumerate(variants) if (cost := axis.cost(item)) is not None]
    found: list[int] = []
    for _, place in sorted(priced, key=lambda item: (item[0], -mean(variants[item[1]]), item[1])):
        if not found or mean(variants[place]) > mean(variants[found[-1]]):
            found.append(place)
    return found


def standings(variants: Sequence[Measured], axis: Axis) -> list[Standing]:
    """Return where each variant stands by one price."""
    on = set(frontier(variants, axis))
    return [
        "frontier" if place in on else "behind" if item.dominated_by is None else "dominated"
        for place, item in enumerate(variants)
    ]


def mean(measured: Measured) -> float:
    """Return the measure that decides."""
    return measured.quality[QUALITY].mean


def pairs_by_labels(comparison: Comparison) -> Mapping[frozenset[str], Pair]:
    """Return the pairs by the labels of their variants."""
    return {frozenset((pair.first, pair.second)): pair for pair in comparison.pairs}


def difference_of(pair: Pair, label: str) -> Interval:
    """Return the difference of a pair, as that of the variant with ``label`` minus the other."""
    found = pair.difference
    return found if pair.first == label else Interval(-found.mean, -found.high, -found.low)


def worse_by_more_than_chance(comparison: Comparison) -> list[list[int]]:
    """Return for each variant the places of those that it is better than by more than chance."""
    place = {item.variant.label: number for number, item in enumerate(comparison.variants)}
    found: list[list[int]] = [[] for _ in comparison.variants]
    for pair in comparison.pairs:
        if pair.differs and pair.first in place and pair.second in place:
            better, worse = (pair.first, pair.second) if pair.difference.mean > 0 else (pair.second, pair.first)
            found[place[better]].append(place[worse])
    return [sorted(places) for places in found]
