"""The queries on which variants differ most, with the answers of the best and the worst of them side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..._display import counted, escaped
from .._findings import Findings, Hit, Measured
from ._figures import score
from ._markup import Child, Markup, clean, element
from ._standing import QUALITY
from ._summary import name

SHOWN = 12
"""Queries."""
FIRST = 3
"""Documents of an answer that are shown at first."""
MISSED = 3
"""Relevant documents in neither answer that are shown."""
CUT = 240
"""Letters of a text that are shown at first."""
SLACK = 60
"""Letters that are not worth a cut."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """A query on which two variants differ."""

    query: int
    """The place of the query."""
    best: int
    worst: int
    difference: float


def disputes(findings: Findings, most: int = SHOWN) -> list[Dispute]:
    """Return the queries on which two variants differ most, the most different first.

    Of each query the best and the worst variant are compared, among those that are not dominated where these are two or
    more. Of equal differences those come first whose pair of variants has been shown least.
    """
    places = [place for place, item in enumerate(findings.variants) if item.dominated_by is None]
    if len(places) < 2:
        places = list(range(len(findings.variants)))
    if len(places) < 2 or not findings.queries:
        return []
    values = np.array([findings.variants[place].by_query[QUALITY] for place in places], dtype=np.float64)
    best, worst = values.argmax(axis=0), values.argmin(axis=0)
    spread = np.round(values.max(axis=0) - values.min(axis=0), 6)
    rest = [
        Dispute(int(query), places[best[query]], places[worst[query]], float(spread[query]))
        for query in np.argsort(-spread, kind="stable")
        if spread[query] > 0
    ]
    found: list[Dispute] = []
    seen: Counter[tuple[int, int]] = Counter()
    while rest and len(found) < most:
        equal = [item for item in rest if item.difference == rest[0].difference]
        chosen = min(equal, key=lambda item: seen[item.best, item.worst])
        seen[chosen.best, chosen.worst] += 1
        found.append(chosen)
        rest.remove(chosen)
    return found


def answers(findings: Findings) -> Markup | None:
    """Return the section of the queries on which variants differ most."""
    found = disputes(findings)
    if not found:
        return None
    queries = list(findings.queries.items())
    parts = [_dispute(findings, item, *queries[item.query]) for item in found]
    return element(
        "section",
        element("h2", "Where they differ most"),
        element(
            "p",
            f"The {counted(len(found), 'query')} with the largest difference in {QUALITY} "
            "between two variants, both answers side by side.",
        ),
        parts,
        class_="answers",
    )


def _dispute(findings: Findings, found: Dispute, key: str, text: str) -> Markup:
    relevant = findings.relevant.get(key, {})
    sides = [(place, findings.variants[place]) for place in (found.best, found.worst)]
    hits = {hit.document for _, item in sides for hit in item.answers[found.query]}
    missed = [document for document in relevant if document not in hits]
    return element(
        "article",
        element("h3", "Query ", _key(key)),
        element("blockquote", _text(text), dir="auto"),
        element("div", [_side(findings, found.query, relevant, *side) for side in sides], class_="sides"),
        _missed(findings.documents, missed),
    )


def _side(findings: Findings, query: int, relevant: Mapping[str, int], place: int, item: Measured) -> Markup:
    hits = item.answers[query]
    value = float(item.by_query[QUALITY][query])
    right = [rank for rank, hit in enumerate(hits, 1) if hit.document in relevant]
    where = f"relevant at {', '.join(map(str, right))}" if right else f"nothing relevant among {len(hits)}"
    rest = hits[FIRST:]
    return element(
        "section",
        element("h4", name(place, item), element("small", f"{QUALITY} {score(value)}, {where}")),
        _list(findings.documents, relevant, hits[:FIRST], 1),
        element(
            "details",
            element("summary", f"{FIRST + 1} to {len(hits)}"),
            _list(findings.documents, relevant, rest, FIRST + 1),
        )
        if rest
        else None,
    )


def _list(documents: Mapping[str, str], relevant: Mapping[str, int], hits: Sequence[Hit], start: int) -> Markup:
    graded = len(set(relevant.values())) > 1
    items = []
    for hit in hits:
        grade = relevant.get(hit.document)
        label = None if grade is None else element("b", f"✓ relevant{f', grade {grade}' if graded else ''}")
        head = element(
            "p", label, element("bdi", escaped(hit.document), class_="id"), f" {hit.score:.3f}", class_="hit"
        )
        items.append(
            element("li", head, _document(documents, hit.document), class_=None if grade is None else "relevant")
        )
    return element("ol", items, start=start)


def _missed(documents: Mapping[str, str], missed: Sequence[str]) -> Markup | None:
    if not missed:
        return None
    parts: list[Child] = [
        element(
            "li",
            element("p", element("bdi", escaped(document), class_="id"), class_="hit"),
            _document(documents, document),
        )
        for document in missed[:MISSED]
    ]
    more = len(missed) - MISSED
    title = f"Relevant, and in neither answer{f' (and {more:,} more)' if more > 0 else ''}"
    return element("div", element("h4", title), element("ul", parts), class_="missed")


def _key(key: str) -> Markup:
    return element("bdi", escaped(key))


def _document(documents: Mapping[str, str], key: str) -> Markup | None:
    return element("div", _text(documents[key]), class_="text", dir="auto") if key in documents else None


def _text(text: str) -> Child:
    """Return a text; of a long one the beginning, behind which all of it can be opened."""
    text = clean(text).strip()
    if len(text) <= CUT + SLACK:
        return text
    begin = text[:CUT]
    begin = begin[: begin.rfind(" ")] if " " in begin[CUT // 2 :] else begin
    summary = element(
        "summary", element("span", begin, " …", class_="cut"), element("span", "the whole text", class_="more")
    )
    return element("details", summary, text, class_="long")
