"""Servers: what the catalogue tells of each provider before a request is made.

A ``Server`` is one row of ``servers.toml``: where requests go, which variable holds the key, how the fields of a
request are called, and what one request may hold. A server that speaks OpenAI's protocol needs no code of its own.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Server:
    """The documented facts of one server, or of all servers of one kind."""

    name: str
    """The word before the colon in ``provider:name``."""
    _: KW_ONLY
    protocol: str = "openai"
    """The module of ``embedrouter.providers`` that makes the requests."""
    url: str = ""
    """The address, where the user gives none."""
    address_variables: tuple[str, ...] = ()
    """Variables of the environment that hold another address, as the maker's SDK reads them."""
    key_addresses: Mapping[str, str] = field(default_factory=dict)
    """Other addresses, by the beginning of the keys that belong to them."""
    keys: tuple[str, ...] = ()
    """Variables of the environment that hold the key, in the order in which they are read."""
    key_required: bool = True
    """Whether requests need a key; many servers of one's own need none."""
    plain_http: bool = False
    """Whether ``client=`` is a client of httpx, which has neither a key nor an address."""
    texts: int = 32
    """Texts in one request, for models without a number of their own."""
    tokens: int | None = None
    """Tokens in one request."""
    formats: tuple[str, ...] = ("base64", "float", "omit")
    """Formats of numbers to ask for, in this order; ``"omit"`` leaves the field out."""
    format_field: str = "encoding_format"
    dimensions_field: str = "dimensions"
    """Name of the field; empty where there is none."""
    dtype_field: str = ""
    """Name of the field that asks for numbers other than floats; it may be the one of the format."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """The server's words for each ``output_dtype`` that requests can ask for."""
    input_type_field: str = ""
    """Name of the field that tells documents and queries apart; empty where there is none."""
    input_types: Mapping[str, str] | None = None
    """The server's words for ``document`` and ``query``, for models without words of their own."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request, such as one that forbids to cut texts."""
    cuts: bool = False
    """Whether the server cuts long texts silently, so that our count has to decide which are too long."""
    serves_hub: bool = False
    """Whether models have the names of the Hugging Face hub, so that the rows of these models apply."""
    passes_on: tuple[str, ...] = ()
    """Providers whose models a gateway serves under their own names, with their words: the rows of these apply."""
    price: Decimal | None = None
    """US dollars per million tokens of models without a price of their own: 0 for servers of one's own."""
    aliases: tuple[str, ...] = ()
    """Other names of the provider."""
    also: tuple[str, ...] = ()
    """Names that other libraries use for the provider, to suggest this one."""
    note: str = ""
    """What the message about a missing address says besides."""
    source: str = ""
    """Address of the maker's page."""
    checked: date | None = None
    """The day on which the page was read."""
