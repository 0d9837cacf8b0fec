"""``embedrouter models``: show the catalogue as a table."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated

import typer

from .._display import shown_name
from ..errors import ConfigError
from ..models import PRICE_MAX_AGE, Card, Server, load_catalogue
from ..types import dollars
from . import _completion
from ._console import Output
from ._options import AsJson, ConfigFile
from ._price_lists import differences, installed_lists
from ._routers import read_config

OPTIONAL = ("longest input", "batch price", "or fewer", "space", "source", "checked", "retired")
"""Columns that a narrow window may leave out, the most important first."""


def command(
    provider: Annotated[
        str | None,
        typer.Option(metavar="P", help="The models of one provider only.", autocompletion=_completion.providers),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the price list of an installed litellm or genai-prices.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the models of the catalogue, with prices in US dollars per million tokens and their sources.

    An unknown price is not a price of zero. With --config, the rows of its catalog= are included.
    """
    cards: dict[str, Card] = {}
    routers = read_config(config).routers() if config else {"": {}}
    servers: dict[str, Server] = {}
    for extra in {settings.get("catalog") for settings in routers.values()}:
        catalogue = load_catalogue(extra)
        cards |= dict(catalogue)
        servers |= catalogue.servers
    shown = [card for card in cards.values() if provider in (None, card.provider)]
    if not shown:
        known = ", ".join(sorted({card.provider for card in cards.values()}))
        raise ConfigError(f"The catalogue has no models of {shown_name(provider)}. Choose one of {known}.")
    output = Output(as_json=as_json)
    if check:
        _compare(output, shown, servers)
        return
    sources = {source: str(number) for number, source in enumerate(dict.fromkeys(card.source for card in shown), 1)}
    rows = [
        {
            "model": card.model,
            "space": card.space,
            "dimensions": card.dimensions,
            "or fewer": _fewer(card),
            "longest input": card.input_tokens,
            "price": card.price,
            "batch price": card.batch_price,
            "retired": card.retired or "no",
            "checked": card.checked,
            "source": sources[card.source],
        }
        for card in shown
    ]
    output.table(rows, optional=OPTIONAL)
    for source, number in sources.items():
        output.line(f"{number:>3}  {source or 'unknown'}")
    if warning := staleness_warning(shown, datetime.now(UTC).date()):
        output.line(warning, style="magenta")
    output.json({"models": shown, "warning": warning})


def _compare(output: Output, cards: Iterable[Card], servers: Mapping[str, Server]) -> None:
    """Print where the catalogue and installed price lists differ."""
    lists = installed_lists()
    found = [
        difference
        for card in cards
        if card.provider in servers
        for price_list in lists
        for difference in differences(card, servers[card.provider], price_list)
    ]
    rows = [
        {
            "model": item.model,
            "fact": item.fact.replace("_", " "),
            "catalogue": _value(item.fact, item.ours),
            "list": _value(item.fact, item.theirs),
            "of": item.origin,
        }
        for item in found
    ]
    output.table(rows)
    compared = " and ".join(price_list.origin for price_list in lists)
    output.line(f"{len(found)} differences from {compared}. Lists err, too: read the maker's page before you decide.")
    output.json({"differences": found, "compared": compared})


def _value(fact: str, value: Decimal | int | None) -> str | None:
    return dollars(Decimal(value)) if value is not None and "price" in fact else None if value is None else f"{value:,}"


def staleness_warning(cards: Iterable[Card], today: date) -> str | None:
    """Return a warning if no row was checked within a year."""
    checks = [card.checked for card in cards if card.checked is not None]
    if checks and max(checks) + PRICE_MAX_AGE >= today:
        return None
    when = f"last checked on {max(checks)}" if checks else "never checked"
    return f"Prices and limits were {when}. Check the makers' pages, and correct rows with catalog= or Model(price=…)."


def _fewer(card: Card) -> str:
    if card.allowed == "any":
        return "any"
    return ", ".join(str(number) for number in card.allowed if number != card.dimensions)
