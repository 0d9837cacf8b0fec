"""What the report says first: the answer in sentences, and what the measures mean for these queries."""

from __future__ import annotations

import re

from ..._display import counted, data_size, escaped
from .._findings import Findings, Measured
from .._frontier import cheapest_as_good, difference_of, ndcg, smallest_as_good
from ._figures import between, difference, differences, money, score
from ._markup import Markup, element
from ._standing import AXES, QUALITY, Axis, frontier, pairs_by_labels

FEW = 50
"""Queries below which most differences cannot be told from chance."""

JUDGED = {
    "judgements": (
        "Judgements",
        "People or labels said which documents answer which query.",
    ),
    "known items": (
        "Known items, no judgements",
        "Each query was made from one document, and that document alone counts as right: others that would answer as "
        "well count as wrong. The measures say how well a model finds a text again from a part of it, not how well it "
        "answers questions.",
    ),
    "agreement": (
        "Agreement, no judgements",
        "What the first model has among its ten nearest counts as right. The measures say how much a model ranks like "
        "the first, not which model is better: one that is better than the first would score lower, too.",
    ),
}

METHOD = (
    "Every variant ranks all documents by its own vectors, by exact search. Intervals hold 95 % of the means of "
    "samples of the queries (bootstrap). Two variants differ by more than chance where paired randomisation gives a "
    "difference as large in less than 5 %, corrected for the number of pairs (Holm). Dominated: another variant is not "
    "dearer, and better by more than chance; of the variants of one model, one whose index is not larger."
)


def name(place: int, item: Measured) -> Markup:
    """Return the number and the label of a variant."""
    pieces = re.split(r"(?<=[:/_])(?=.)", escaped(item.variant.label))
    broken = [part for piece in pieces for part in (element("wbr"), piece)][1:]
    label = element("bdi", broken, class_="label")
    return element("span", element("b", str(place + 1), class_="place"), " ", label, class_="variant")


def answer(findings: Findings) -> Markup:
    """Say which variant is best, which cheaper one may do, and which are on the frontier."""
    variants = findings.variants
    best = variants[0]
    sentences = [
        element(
            "li",
            element("strong", "The best: "),
            name(0, best),
            f". {QUALITY} {score(ndcg(best))} ({between(best.quality[QUALITY])}), {_price(best)}.",
        ),
        _cheaper(findings),
        _smaller(findings),
        [_on_frontier(findings, axis) for axis in AXES],
    ]
    return element("ul", sentences, class_="answer")


def _price(item: Measured) -> str:
    if item.queries_cost is None:
        return "of unknown price"
    if not item.queries_cost:
        return "free of charge"
    return f"{money(item.queries_cost)} for a million queries"


def _cheaper(findings: Findings) -> Markup | None:
    """Name the cheapest variant that is not worse than the best by more than chance."""
    best, found = findings.variants[0], cheapest_as_good(findings)
    if found is None:
        limit = best.queries_cost
        costs = [item.queries_cost for item in findings.variants if item.queries_cost is not None]
        if limit is None or min(costs) >= limit:
            return None
        return element("li", "No variant whose queries cost less is as good, as far as these queries can tell.")
    pair = pairs_by_labels(findings)[frozenset((best.variant.label, found.variant.label))]
    gap = difference_of(pair, found.variant.label)
    return element(
        "li",
        element("strong", "The cheapest that is not worse by more than chance: "),
        name(findings.variants.index(found), found),
        f". {QUALITY} {score(ndcg(found))}, {_price(found)}; "
        f"{difference(gap.mean)} ({differences(gap)}) against the best.",
    )


def _smaller(findings: Findings) -> Markup | None:
    """Name the variant with the smallest index that is not worse than the best by more than chance."""
    found = smallest_as_good(findings)
    if found is None:
        return None
    return element(
        "li",
        element("strong", "The smallest index that is not worse by more than chance: "),
        name(findings.variants.index(found), found),
        f". {data_size(found.index_bytes)}, in place of {data_size(findings.variants[0].index_bytes)}.",
    )


def _on_frontier(findings: Findings, axis: Axis) -> Markup | None:
    """List the numbers of the variants on the frontier, the cheapest first."""
    places = frontier(findings, axis)
    if len(places) < 2:
        return None
    listed = ", ".join(str(place + 1) for place in places)
    return element("li", f"On the frontier by {axis.title}, the cheapest first: ", element("b", listed), ".")


def judged(findings: Findings) -> Markup:
    """Say who decided which documents answer a query, and what that means for the measures."""
    title, meaning = JUDGED[findings.judged_by]
    number = len(findings.queries)
    few = f"With only {counted(number, 'query')} the intervals are wide, and few differences can be told from chance."
    return element(
        "section",
        element("h2", "How it was judged: ", title[0].lower() + title[1:], id="judged"),
        element("p", meaning),
        element("p", few) if number < FEW else None,
        [element("p", escaped(note)) for note in findings.notes],
        element("p", METHOD),
        class_="judged" if findings.judged_by == "judgements" else "judged caution",
        aria_labelledby="judged",
    )
