"""Retirement: which models in use their makers stop serving, when, and the lines that lead to another model.

In use is what a router names, what the working directory's project was billed for in the last weeks, and what an index
on this machine was filled with.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta

from ..errors import ConfigError, EmbedRouterError
from ..models import HUB, Card, Catalogue
from ..spending import Ledger
from ..types import Space
from ._finding import Finding, warning

NOTICE = timedelta(days=180)
"""Before the end of a model: time to compare others, to embed all documents again, and to change programs."""
RECENT = timedelta(days=30)
"""How long ago a model of the ledger counts as in use."""

CHECK = "retirement"


def recent_models(ledger: Ledger, project: str, today: date) -> list[str]:
    """Return the models that a project has used in the last weeks; of a ledger that cannot be read, none."""
    with suppress(EmbedRouterError, sqlite3.Error):
        return list(ledger.totals("model", since=today - RECENT, tag=project))
    return []


def check_retirement(
    uses: Mapping[str, Sequence[str]], indexes: Mapping[str, Space], cards: Catalogue, today: date
) -> Iterator[Finding]:
    """Warn of each model in use whose last day is near or past, and of each index that no other model can search.

    Args:
        uses: the places where a model is in use, by its name.
        indexes: the space of each index, by its name.
        today: the day to which ``NOTICE`` is added.
    """
    told: set[str] = set()
    for name, places in uses.items():
        try:
            card = cards.find(name)
        except ConfigError as error:  # no router can use it: the message has the reason
            story = f"{error} In use: {', '.join(places)}"
            yield warning(name, CHECK, story, _lines(name, "", ended=True), uses=list(places))
            continue
        if card is not None and _ends(card, today):
            filled = [index for index, space in indexes.items() if _serves(card, space)]
            told.update(filled)
            yield _warned(card, name, [*places, *map(_index, filled)], cards, today)
    for index, space in indexes.items():
        serving = [card for card in cards.values() if _serves(card, space)]
        if serving and index not in told and all(_ends(card, today) for card in serving):
            last = max(serving, key=lambda card: (card.retired or date.max, card.model))
            yield _warned(last, last.model, [_index(index)], cards, today)


def _ends(card: Card, today: date) -> bool:
    return card.retirement(today, NOTICE) is not None


def _serves(card: Card, space: Space) -> bool:
    """Return whether a model gives vectors of a space, perhaps with prompts or another type of numbers."""
    return space.name.partition("+")[0] in (card.space, card.identity.partition(":")[2])


def _warned(card: Card, name: str, places: Sequence[str], cards: Catalogue, today: date) -> Finding:
    assert card.retired is not None
    days = (card.retired - today).days
    story = f"the model {card.retirement(today, NOTICE)}{f', in {days:,} days' if days > 0 else ''}"
    facts = {"retired": card.retired, "successor": card.successor or None, "uses": list(places)}
    if (other := _comparable(card, cards, today)) is not None:
        advice = f"Write {other} in its place: its vectors are comparable, and no text has to be embedded again."
    else:
        advice = _lines(name, card.successor, ended=days <= 0)
    source = f" See {card.source}." if card.source else ""
    return warning(name, CHECK, f"{story}; in use: {', '.join(places)}", advice + source, **facts)


def _comparable(card: Card, cards: Catalogue, today: date) -> str | None:
    """Return a model whose vectors are comparable and that is served longer, the maker's successor first."""
    found = [
        other.model
        for other in cards.values()
        if other.space == card.space and other.provider != HUB and not _ends(other, today)
    ]
    return card.successor if card.successor in found else next(iter(found), None)


def _lines(name: str, successor: str, *, ended: bool) -> str:
    """Return what to run: a comparison, as long as the model answers, and the move of an index."""
    move = f"embedrouter migrate INDEX --to {successor or 'MODEL'}"
    if not ended:
        return f"Run: embedrouter compare CORPUS --model {name} --model {successor or 'MODEL'}, then: {move}."
    if successor:
        return f"Run: {move}."
    return f"Choose another model (embedrouter compare CORPUS --model MODEL --model MODEL), then run: {move}."


def _index(name: str) -> str:
    return f"the index {name!r}"
