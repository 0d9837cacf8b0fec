"""The catalogue: documented facts about each model and server, from data files that users can override or extend.

A ``Card`` is one row of a model, a ``Server`` one row of a provider: the maker's documented facts with their source and
the day on which they were checked. ``load_catalogue`` reads the rows that ship with the package and, when given, a
user's file of the same form: a row with the name of a shipped one replaces it, a row with another name is added.
"""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from decimal import Decimal
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from .._display import masked, shown, shown_name
from ..errors import ConfigError
from ..spending import as_price
from ..types import OutputDtype
from ._servers import Server

PRICE_MAX_AGE = timedelta(days=365)
"""Age after which a price in use is worth a warning."""

RETIREMENT_NOTICE = timedelta(days=90)
"""Time before the retirement of a model in which its use is worth a warning."""

HUB, LOCAL = "hub", "sentence-transformers"
"""The word before the names of open models of the Hugging Face hub, and the provider that loads them here."""

COPIED = ("space", "dimensions", "allowed", "matryoshka", "input_tokens", "input_types", "prompts", "own_prompts",
          "symmetric", "tokenizer")  # fmt: skip
"""The facts of a model that are the same in every place that serves it."""


TABLES = ("servers", "models", "refused")

KINDS = {str: "a text", tuple: "a list of texts", dict: "a table", bool: "true or false", int: "a whole number"}
"""How a message calls the types of a server's columns."""


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
    dtypes: tuple[OutputDtype, ...] = ()
    """Numbers that can be requested besides float32."""
    input_tokens: int | None = None
    """Tokens in one text."""
    texts: int
    """Texts in one request."""
    tokens: int | None = None
    """Tokens in one request."""
    size: int | None = None
    """Bytes of UTF-8 text in one request."""
    concurrency: int | None = None
    """Requests in flight at once, where another number than usual is right."""
    requests_per_minute: int | None = None
    """Requests that an account may send per minute; a declaration takes precedence."""
    texts_per_minute: int | None = None
    tokens_per_minute: int | None = None
    input_types: Mapping[str, str] | None = None
    """The provider's words for ``document`` and ``query``; ``None`` where requests do not name the input type."""
    prompts: Mapping[str, str] | None = None
    """Text that the maker documents to be put before each text, by input type, where no server puts it there."""
    own_prompts: bool = False
    """Whether the prompts are part of the model's files; otherwise vectors with them are a space of their own."""
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
    successor: str = ""
    """The model that the maker recommends in its place."""
    tokenizer: str | None = None
    """Name of a tiktoken encoding, or ``None``."""
    same_as: str = ""
    """The row of the same model in the place of its maker: vectors of both are the same, and share cache rows."""
    source: str = ""
    """Address of the maker's page."""
    checked: date | None = None
    """The day on which the page was read."""
    declared: bool = False
    """Whether the user declares the model, which the catalogue does not know. No column."""

    @property
    def provider(self) -> str:
        return self.model.partition(":")[0]

    @property
    def identity(self) -> str:
        """The name under which the model's vectors are cached."""
        return self.same_as or self.model

    def retirement(self, today: date, notice: timedelta = RETIREMENT_NOTICE) -> str | None:
        """Return when the model is or was retired, from ``notice`` before the day on."""
        if self.retired is None or today < self.retired - notice:
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


class Catalogue(Mapping[str, Card]):
    """The cards by model name, and the servers by provider.

    Attributes:
        servers: the servers by the word before the colon, under their aliases too.
        refused: patterns of names of models that no router can use, with the reason.
    """

    def __init__(self, cards: Mapping[str, Card], servers: dict[str, Server], refused: Mapping[str, str]) -> None:
        self._cards = cards
        self.servers = servers
        self.refused = refused

    def __getitem__(self, name: str) -> Card:
        return self._cards[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)

    def find(self, name: str) -> Card | None:
        """Return the card of a model, also under an alias of its provider, or from the hub's row of the model.

        Raises:
            ConfigError: the model is one that no router can use; the message says why.
        """
        provider, _, rest = name.partition(":")
        server = self.servers.get(provider)
        canonical = name if server is None else f"{server.name}:{rest}"
        if (card := self._cards.get(canonical)) is not None:
            return card
        for pattern, reason in self.refused.items():
            if fnmatchcase(canonical, pattern):
                raise ConfigError(f"{name} cannot be used: {reason}")
        if server is not None and (maker := self._of_maker(rest, server.passes_on)) is not None:
            texts = min(maker.texts, server.texts)
            return replace(maker, model=canonical, same_as=maker.identity, texts=texts, batch_price=None)
        if server is None or not server.serves_hub:
            return None
        hub = self._cards.get(f"{HUB}:{rest}")
        if hub is None:
            return None
        copied = {column: getattr(hub, column) for column in COPIED if column != "input_types"}
        if not server.dimensions_field:
            copied["allowed"] = ()
        return Card(**copied, model=canonical, texts=server.texts, tokens=server.tokens, price=server.price,
                    source=hub.source, checked=hub.checked)  # fmt: skip

    def _of_maker(self, name: str, providers: Collection[str]) -> Card | None:
        """Return the card of a model by its maker's name, alone or behind a word for the provider and a slash."""
        word, _, rest = name.partition("/")
        for provider in providers:
            server = self.servers[provider]
            own = rest if word in (provider, *server.aliases, *server.also) else name
            if (card := self._cards.get(f"{provider}:{own}")) is not None:
                return card
        return None

    def with_rows(self, text: str, origin: str) -> "Catalogue":
        """Return the catalogue with the rows of a TOML file, which replace its own rows of the same names.

        Raises:
            ConfigError: a row is wrong; the message names it.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            reason: str | None = masked(str(error))
        else:
            reason = None
        if reason is not None:
            raise ConfigError(f"{origin} is not valid TOML: {reason}. Correct the file.")
        if unknown := sorted(tables.keys() - TABLES):
            raise ConfigError(f"{origin}: unknown table {shown_name(unknown[0])}. Tables are {', '.join(TABLES)}.")
        servers = dict(self.servers)
        for number, row in enumerate(tables.get("servers", []), 1):
            server = _server(row, f"{origin}, server {number}")
            servers |= dict.fromkeys((server.name, *server.aliases), server)
        cards = dict(self._cards)
        for number, row in enumerate(tables.get("models", []), 1):
            card = _card(row, f"{origin}, row {number}", cards, servers)
            cards[card.model] = card
        refused = {row["model"]: row["reason"] for row in tables.get("refused", [])}
        return Catalogue(cards, servers, {**self.refused, **refused})


def load_catalogue(extra: Path | None = None) -> Catalogue:
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
    return _shipped().with_rows(text, str(extra))


@cache
def _shipped() -> Catalogue:
    folder = resources.files("embedrouter.models")
    shipped = Catalogue({}, {}, {})
    for name in ("servers.toml", "catalogue.toml"):
        shipped = shipped.with_rows(folder.joinpath(name).read_text("utf-8"), name)
    return shipped


def _card(row: dict[str, Any], where: str, cards: Mapping[str, Card], servers: Mapping[str, Server]) -> Card:
    _require_columns(row, {field.name for field in fields(Card)} - {"declared"}, where)
    provider, colon, _ = str(row.get("model", "")).partition(":")
    if not colon:
        raise ConfigError(f"{where}: model must be written 'provider:name'.")
    where = f"{where} ({row['model']})"
    server = servers.get(provider)
    alike = not {"input_types", *(["prompts"] if row.get("own_prompts") else [])} & row.keys()
    copied: dict[str, Any] = {}
    if same_as := row.get("same_as"):
        if (other := cards.get(same_as)) is None:
            raise ConfigError(f"{where}: same_as names {shown_name(same_as)}, which is no earlier row.")
        copied = {column: getattr(other, column) for column in COPIED}
        copied |= {"symmetric": other.symmetric and alike, "same_as": "" if other.provider == HUB else other.identity}
        if server is not None and not server.dimensions_field:
            copied["allowed"] = ()
    defaults = {"texts": server.texts, "tokens": server.tokens, "price": server.price} if server else {}
    merged = {**defaults, "symmetric": alike, **copied, **row, "same_as": copied.get("same_as", "")}
    if provider == HUB:
        merged.setdefault("texts", 1)  # each server has its own number
    for column in ("space", "dimensions", "texts"):
        if column not in merged:
            raise ConfigError(f"{where}: the column {column!r} is missing.")
    allowed = merged.get("allowed", ())
    _require_dtypes(dtypes := tuple(merged.get("dtypes", ())), where)
    return Card(
        **{
            **merged,
            "allowed": allowed if allowed == "any" else tuple(allowed),
            "dtypes": dtypes,
            "price": as_price(merged.get("price"), where),
            "batch_price": as_price(row.get("batch_price"), where),
        }
    )


def _server(row: dict[str, Any], where: str) -> Server:
    _require_columns(row, {field.name for field in fields(Server)} - {"_"}, where)
    if not isinstance(row.get("name"), str) or ":" in row["name"]:
        raise ConfigError(f"{where}: name must be the word before the colon of its models.")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    values["price"] = as_price(row.get("price"), where)
    usual = Server("")
    for name, value in values.items():
        default = getattr(usual, name)
        if default is not None and type(value) is not type(default):
            raise ConfigError(f"{where}: {name} must be {KINDS[type(default)]}, not {shown(value)}.")
    if "formats" in values and (not values["formats"] or set(values["formats"]) - set(usual.formats)):
        raise ConfigError(f"{where}: formats must be some of {', '.join(usual.formats)}, in the order to ask for.")
    _require_dtypes(values.get("dtypes", {}), where)
    if values.get("dtypes") and not values.get("dtype_field"):
        raise ConfigError(f"{where}: dtypes need dtype_field, the name of the field that says them.")
    return Server(**values)


def _require_dtypes(dtypes: Collection[str], where: str) -> None:
    known = get_args(OutputDtype)
    if unknown := sorted(set(dtypes) - set(known)):
        raise ConfigError(
            f"{where}: unknown number type {shown_name(unknown[0])} in dtypes. Known are {', '.join(known)}."
        )


def _require_columns(row: Mapping[str, object], known: Collection[str], where: str) -> None:
    if unknown := sorted(row.keys() - known):
        raise ConfigError(f"{where}: unknown column {shown_name(unknown[0])}. Columns are {', '.join(sorted(known))}.")


def did_you_mean(name: str) -> str:
    """Return a question that names the most similar model of the catalogue, or an empty string."""
    similar = _similar(name, load_catalogue())
    return f" Did you mean {shown_name(similar)}?" if similar else ""


def _similar(name: str, catalogue: Catalogue) -> str:
    provider, colon, rest = name.partition(":")
    local = [known for known in catalogue if known.startswith(f"{LOCAL}:")]
    if found := next((known for known in local if known.partition(":")[2].endswith(name)), ""):
        return found
    if not colon and "/" in name:  # as LiteLLM writes a model, and the hub
        provider, _, rest = name.partition("/")
    wanted = provider.strip().lower().replace("-", "_")
    for server in catalogue.servers.values():
        own = (server.name, *server.aliases)
        if rest and wanted in (*own, *server.also) and not (colon and provider in own):
            return f"{server.name}:{rest}"
    if not colon and name.count("/") == 1:
        return f"{LOCAL}:{name}"
    names = [known for known in catalogue if not known.startswith(f"{HUB}:")]
    short = {known.partition(":")[2]: known for known in reversed(names)}
    return short.get(name) or next(iter(get_close_matches(name, names, 1, cutoff=0.8)), "")
