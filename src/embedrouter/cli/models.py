"""``embedrouter models``: the catalogue as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..models import Card, load_catalogue
from ..types import dollars
from .choice import AsJson, ConfigFile
from .sheet import Sheet

__all__ = ["command", "stale"]

OLD = timedelta(days=365)


def command(
    provider: Annotated[str | None, typer.Option(metavar="P", help="The models of one provider only.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the models that are known, with prices in US dollars per million tokens and where they were read.

    A price that is not known is no price of zero. With --config the rows of its catalog= count too.
    """
    cards: dict[str, Card] = {}
    for extra in _catalogs(config):
        cards |= load_catalogue(extra)
    shown = [card for card in cards.values() if provider in (None, card.provider)]
    if not shown:
        known = ", ".join(sorted({card.provider for card in cards.values()}))
        raise ConfigError(f"The catalogue has no models of {provider!r}. It has those of {known}.")
    sheet = Sheet(as_json=as_json)
    sources = {source: str(number) for number, source in enumerate(dict.fromkeys(card.source for card in shown), 1)}
    columns = ("model", "space", "dimensions", "longest input", "price", "batch price", "checked", "source")
    rows = [
        (
            card.model,
            card.space,
            _dimensions(card),
            "unknown" if card.input_tokens is None else f"{card.input_tokens:,}",
            _price(card.price),
            _price(card.batch_price),
            str(card.checked or "unknown"),
            sources[card.source],
        )
        for card in shown
    ]
    sheet.table(columns, rows, numbers=columns[3:6])
    for source, number in sources.items():
        sheet.line(f"{number:>3}  {source or 'unknown'}")
    warning = stale(shown, datetime.now(UTC).date())
    if warning:
        sheet.line(warning, style="yellow")
    sheet.json({"models": [asdict(card) for card in shown], "warning": warning})


def stale(cards: Iterable[Card], today: date) -> str | None:
    """Return a warning if no price was checked within a year."""
    checks = [card.checked for card in cards if card.checked is not None]
    if checks and max(checks) + OLD >= today:
        return None
    when = f"last checked on {max(checks)}" if checks else "never checked"
    return (
        f"Prices and limits were {when}. Look at the makers' pages, and correct rows with catalog= or Model(price=…)."
    )


def _catalogs(config: str | None) -> set[Path | None]:
    if config is None:
        return {None}
    from ..config import load as configuration

    loaded = configuration(None if config == "auto" else config)
    tables = list(loaded.tiered()[0].values()) if "routers" in loaded.content else [loaded.router()]
    return {table.get("catalog") for table in tables}


def _price(amount: Decimal | None) -> str:
    return "unknown" if amount is None else dollars(amount)


def _dimensions(card: Card) -> str:
    if card.allowed == "any":
        return f"{card.dimensions} or fewer"
    others = [str(number) for number in card.allowed if number != card.dimensions]
    return f"{card.dimensions} ({', '.join(others)})" if others else str(card.dimensions)
