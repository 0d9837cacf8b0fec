"""Compare the catalogue with the price lists that installed packages carry: litellm's file and genai-prices.

Both packages copy the makers' pages, as the catalogue does: where they differ, the maker's page decides. Nothing is
downloaded, and litellm is not imported, only its file is read.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError
from ..models import Card, Server

LITELLM_FILE = "model_prices_and_context_window_backup.json"
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact of one model on which the catalogue and a list differ."""

    model: str
    fact: str
    ours: Decimal | int | None
    """``None`` is unknown."""
    theirs: Decimal | int
    origin: str
    """The list, with its version."""


class PriceList(Protocol):
    """The facts that a package has of models."""

    origin: str

    def facts(self, card: Card, server: Server) -> Mapping[str, Decimal | int]:
        """Return the facts of a model, by the columns of the catalogue; empty where the list lacks the model."""
        ...


def installed_lists() -> Sequence[PriceList]:
    """Return the lists of installed packages.

    Raises:
        ConfigError: none is installed.
    """
    kinds: tuple[tuple[str, type[PriceList]], ...] = (("litellm", LiteLLM), ("genai_prices", GenaiPrices))
    lists = [kind() for name, kind in kinds if find_spec(name) is not None]
    if not lists:
        raise ConfigError("models --check compares with a price list that is installed. Run: pip install genai-prices")
    return lists


def differences(card: Card, server: Server, price_list: PriceList) -> Iterator[Difference]:
    """Yield the facts of one model that differ."""
    for fact, theirs in price_list.facts(card, server).items():
        ours = getattr(card, fact)
        if ours != theirs:
            yield Difference(card.model, fact, ours, theirs, price_list.origin)


class LiteLLM:
    """The file of litellm: prices, dimensions and the longest input, under several spellings of a provider."""

    def __init__(self) -> None:
        self.origin = f"litellm {metadata.version('litellm')}"
        spec = find_spec("litellm")
        folders = list(spec.submodule_search_locations or []) if spec else []
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}
        for name, row in json.loads((Path(folders[0]) / LITELLM_FILE).read_text("utf-8")).items():
            if row.get("mode") == "embedding":
                provider = str(row.get("litellm_provider", "")).removesuffix("-embedding-models")
                self._rows[provider, name.removeprefix(f"{provider}/")] = row

    def facts(self, card: Card, server: Server) -> Mapping[str, Decimal | int]:
        """Return the facts of a model."""
        model = card.model.partition(":")[2]
        names = ((provider, model) for provider in (server.name, *server.aliases, *server.also))
        row = next((self._rows[name] for name in names if name in self._rows), {})
        found: dict[str, Decimal | int] = {}
        for fact, column in (("price", "input_cost_per_token"), ("batch_price", "input_cost_per_token_batches")):
            if isinstance(cost := row.get(column), int | float) and cost:
                found[fact] = (Decimal(str(cost)) * MILLION).normalize()
        for fact, column in (("dimensions", "output_vector_size"), ("input_tokens", "max_input_tokens")):
            if isinstance(number := row.get(column), int):
                found[fact] = number
        return found


class GenaiPrices:
    """The list of genai-prices: prices alone."""

    def __init__(self) -> None:
        self.origin = f"genai-prices {metadata.version('genai-prices')}"

    def facts(self, card: Card, server: Server) -> Mapping[str, Decimal | int]:
        """Return the facts of a model."""
        from genai_prices import Usage, calc_price

        for provider in (server.name, *server.aliases, *server.also):
            try:
                found = calc_price(Usage(input_tokens=MILLION), card.model.partition(":")[2], provider_id=provider)
            except LookupError:
                continue
            return {"price": found.total_price.normalize()}
        return {}
