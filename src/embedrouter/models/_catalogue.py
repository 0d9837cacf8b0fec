"""The catalogue: documented facts about each model, from a data file that users can override or extend.

A ``Card`` is one row: the maker's documented facts with their source and the day on which they were checked.
``load_catalogue`` reads the rows that ship with the package and, when given, a user's file of the same form: a row with
the name of a shipped model replaces the shipped row, a row with another name is added.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from .._display import masked, shown_name
from ..errors import ConfigError
from ..spending import as_price

PRICE_MAX_AGE = timedelta(days=365)
"""Age after which a price in use is worth a warning."""

RETIREMENT_NOTICE = timedelta(days=90)
"""Time before the retirement of a model in which its use is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The documented facts of one model."""

    model: str
    """``provider:name``."""
    space: str
    """Models with the same space name give comparable vectors at equal dimensions."""
    dimensions: int
    """Default number of dimensions."""
    allowed: tuple[int, ...] | Literal["any"] = ()
    """Other numbers that can be requested; ``"any"`` is every number below ``dimensions``."""
    input_tokens: int | None = None
    """Tokens in one text."""
    texts: int
    """Texts in one request."""
    tokens: int | None = None
    """Tokens in one request."""
    size: int | None = None
    """Bytes of UTF-8 text in one request."""
    requests_per_minute: int | None = None
    """Requests that an account may send per minute; a declaration takes precedence."""
    texts_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_types: Mapping[str, str] | None = None
    """The provider's words for ``document`` and ``query``; ``None`` where requests do not name the input type."""
    symmetric: bool
    """Whether documents and queries are embedded alike."""
    matryoshka: bool = False
    """Whether the maker documents that shorter vectors are the beginnings of longer ones, scaled to length 1."""
    price: Decimal | None = None
    """US dollars per million tokens; ``None`` is unknown."""
    batch_price: Decimal | None = None
    """Price through the provider's batch endpoint."""
    retired: date | None = None
    """The day on which the maker stops serving the model, where one is announced."""
    tokenizer: str | None = None
    """Name of a tiktoken encoding, or ``None``."""
    source: str = ""
    """Address of the maker's page."""
    checked: date | None = None
    """The day on which the page was read."""
    declared: bool = False
    """Whether the user declares the model, which the catalogue does not know. No column."""

    @property
    def provider(self) -> str:
        return self.model.partition(":")[0]

    def retirement(self, today: date) -> str | None:
        """Return when the model is or was retired, within ``RETIREMENT_NOTICE`` before the day and ever after."""
        if self.retired is None or today < self.retired - RETIREMENT_NOTICE:
            return None
        return f"is retired on {self.retired}" if today < self.retired else f"was retired on {self.retired}"

    def longer_than(self, dimensions: int) -> list[int]:
        """Return the numbers of longer vectors whose beginning is the vector of ``dimensions``, ascending."""
        others = self.allowed if isinstance(self.allowed, tuple) else ()
        return sorted(length for length in {self.dimensions, *others} if length > dimensions and self.matryoshka)

    def offers(self, dimensions: int) -> bool:
        """Return whether the model can give ``dimensions``."""
        if dimensions == self.dimensions:
            return True
        return 0 < dimensions < self.dimensions if self.allowed == "any" else dimensions in self.allowed


def load_catalogue(extra: Path | None = None) -> Mapping[str, Card]:
    """Return the cards by model name; rows of the user's file replace shipped rows.

    Raises:
        ConfigError: the file is missing or a row is wrong; the message names the row.
    """
    if extra is None:
        return _shipped()
    try:
        text = extra.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"The catalogue {extra} cannot be read ({error.strerror}). Check the path.") from error
    return {**_shipped(), **_parse(text, str(extra))}


@cache
def _shipped() -> Mapping[str, Card]:
    return _parse(resources.files("embedrouter.models").joinpath("catalogue.toml").read_text("utf-8"), "catalogue.toml")


def _parse(text: str, origin: str) -> dict[str, Card]:
    try:
        rows = tomllib.loads(text).get("models", [])
    except tomllib.TOMLDecodeError as error:
        reason: str | None = masked(str(error))
    else:
        reason = None
    if reason is not None:
        raise ConfigError(f"{origin} is not valid TOML: {reason}. Correct the file.")
    cards = [_card(row, f"{origin}, row {number}") for number, row in enumerate(rows, 1)]
    return {card.model: card for card in cards}


def _card(row: dict[str, Any], where: str) -> Card:
    known = {field.name for field in fields(Card)} - {"declared"}
    if unknown := sorted(row.keys() - known):
        raise ConfigError(f"{where}: unknown column {shown_name(unknown[0])}. Columns are {', '.join(sorted(known))}.")
    if ":" not in str(row.get("model", "")):
        raise ConfigError(f"{where}: model must be written 'provider:name'.")
    where = f"{where} ({row['model']})"
    for column in ("space", "dimensions", "texts"):
        if column not in row:
            raise ConfigError(f"{where}: the column {column!r} is missing.")
    allowed = row.get("allowed", ())
    return Card(
        **{
            "symmetric": "input_types" not in row,
            **row,
            "allowed": allowed if allowed == "any" else tuple(allowed),
            "price": as_price(row.get("price"), where),
            "batch_price": as_price(row.get("batch_price"), where),
        }
    )


def did_you_mean(name: str) -> str:
    """Return a question that names the most similar model of the catalogue, or an empty string."""
    names = list(load_catalogue())
    short = {known.partition(":")[2]: known for known in reversed(names)}
    close = [short[name]] if name in short else get_close_matches(name, names, 1, cutoff=0.8)
    return f" Did you mean {close[0]!r}?" if close else ""
