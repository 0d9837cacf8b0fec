"""``embedrouter models``: show the catalogue as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from ..errors import ConfigError
from ..models import PRICE_MAX_AGE, Card, load_catalogue
from ..types import dollars
from ._console import Output
from ._options import AsJson, ConfigFile, named_config


def command(
    provider: Annotated[str | None, typer.Option(metavar="P", help="The models of one provider only.")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the catalogue, with prices in US dollars per million tokens and their sources.

    An unknown price is not a price of zero. With --config, the rows of its catalog= are included.
    """
    cards: dict[str, Card] = {}
    loaded = named_config(config)
    for extra in {settings.get("catalog") for settings in loaded.routers().values()} if loaded else {None}:
        cards |= load_catalogue(extra)
    shown = [card for card in cards.values() if provider in (None, card.provider)]
    if not shown:
        known = ", ".join(sorted({card.provider for card in cards.values()}))
        raise ConfigError(f"The catalogue has no models of {provider!r}. Choose one of {known}.")
    output = Output(as_json=as_json)
    sources = {source: str(number) for number, source in enumerate(dict.fromkeys(card.source for card in shown), 1)}
    columns = ("model", "space", "dimensions", "longest input", "price", "batch price", "retired", "checked", "source")
    rows = [
        (
            card.model,
            card.space,
            _dimensions(card),
            "unknown" if card.input_tokens is None else f"{card.input_tokens:,}",
            *("unknown" if price is None else dollars(price) for price in (card.price, card.batch_price)),
            str(card.retired or ""),
            str(card.checked or "unknown"),
            sources[card.source],
        )
        for card in shown
    ]
    output.table(columns, rows, numbers=columns[3:6])
    for source, number in sources.items():
        output.line(f"{number:>3}  {source or 'unknown'}")
    warning = staleness_warning(shown, datetime.now(UTC).date())
    if warning:
        output.line(warning, style="yellow")
    output.json({"models": [asdict(card) for card in shown], "warning": warning})


def staleness_warning(cards: Iterable[Card], today: date) -> str | None:
    """Return a warning if no row was checked within a year."""
    checks = [card.checked for card in cards if card.checked is not None]
    if checks and max(checks) + PRICE_MAX_AGE >= today:
        return None
    when = f"last checked on {max(checks)}" if checks else "never checked"
    return f"Prices and limits were {when}. Check the makers' pages, and correct rows with catalog= or Model(price=…)."


def _dimensions(card: Card) -> str:
    if card.allowed == "any":
        return f"{card.dimensions} or fewer"
    others = [str(number) for number in card.allowed if number != card.dimensions]
    return f"{card.dimensions} ({', '.join(others)})" if others else str(card.dimensions)
