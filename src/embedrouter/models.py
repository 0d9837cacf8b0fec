"""What a user says about a model, and what follows from it.

``Model`` is the declaration, ``settle`` turns it and the catalogue's card into a ``Candidate``: space, fingerprint,
price and limits decided once, when the router is built, so that nothing further down asks again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Literal
from urllib.parse import urlsplit

from .backend import Backend
from .catalog import Card, load
from .errors import ConfigError, SpaceMismatchError
from .health import FINEST
from .prices import DECIMALS, as_price
from .types import Candidate, Space
from .wrapped import WrappedBackend

__all__ = ["Model", "check_address", "custom_card", "is_secret", "settle", "the_one_space"]

POSITIVE = (
    "dimensions",
    "max_concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "batch_size",
    "max_input_tokens",
    "max_request_tokens",
)


@dataclass(frozen=True)
class Model:
    """One model as the user declares it; whatever is left out comes from the catalogue.

    A literal ``api_key``, SDK clients and secret headers do not travel in a pickle: the copy reads ``api_key_env`` or
    the provider's own environment variable. An ``azure_ad_token_provider`` travels if it is a
    function of a module, by its name.
    """

    name: str
    """``provider:name``, for instance ``"openai:text-embedding-3-small"``."""
    _: KW_ONLY
    tier: str = "high"
    """The quality level the model has."""
    dimensions: int | None = None
    """Dimensions to ask for; the model's own number when left out."""
    base_url: str | None = None
    """Another server that speaks the provider's protocol; for Azure the resource's endpoint. No place for passwords."""
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    """The environment variable that holds the key."""
    price: str | int | Decimal | None = None
    """US dollars per million tokens, over the catalogue's."""
    free_tokens: int = 0
    """Tokens that cost nothing before the price applies, such as the 200 million that Voyage gives an account for each
    model; the ledger counts them."""
    space: str | None = None
    """Name of the embedding space; needed where the catalogue does not know the model."""
    max_concurrency: int | None = None
    """Requests in flight at once; 8 for providers, 1 for local models."""
    requests_per_minute: int | None = None
    """Requests that this process may send in a minute; otherwise what the provider reports, if it does."""
    tokens_per_minute: int | None = None
    """The same of tokens."""
    timeout: float = 30.0
    """Seconds for one HTTP attempt."""
    client: Any = field(default=None, repr=False, compare=False)
    """The provider SDK's synchronous client, instead of one of our making; for a local model the loaded one."""
    async_client: Any = field(default=None, repr=False, compare=False)
    """The provider SDK's asynchronous client; it belongs to one event loop."""
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """Sent with every request."""
    batch_size: int | None = None
    """Texts in one request, over the catalogue's; many self-hosted servers take 32."""
    max_input_tokens: int | None = None
    """Tokens in one text, over the catalogue's."""
    max_request_tokens: int | None = None
    """Tokens in one request, over the catalogue's."""
    encoding_format: Literal["base64", "float", "omit"] | None = None
    """How the server is asked to write numbers: OpenAI's protocol in base64 unless it is told otherwise, ``"omit"`` for
    servers that refuse the field; Cohere in lists, which take three times as long to read as ``"base64"``."""
    deployment: str | None = None
    """Azure: the deployment's name; the model's own name when left out."""
    api_version: str | None = None
    """Azure: the version of the interface, such as ``"2024-10-21"``."""
    azure_ad_token_provider: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """Azure: returns a Microsoft Entra token; instead of a key."""
    revision: str | None = None
    """Local: the commit of the model repository."""
    trust_remote_code: bool = False
    """Local: run Python code from the model repository. Read it first; needs the commit as ``revision``."""
    prompts: Mapping[str, str] | None = None
    """Text put before each input, by input type, over the model's own; makes another space."""
    device: str | None = None
    """Local: ``"cpu"``, ``"cuda"`` …; chosen by sentence-transformers when left out."""
    backend: Backend | None = field(default=None, repr=False, compare=False)
    """Your own code in place of a provider's; see ``embedrouter.backends.Backend``."""

    def __post_init__(self) -> None:
        provider, _, rest = self.name.partition(":")
        if not provider or not rest:
            raise ConfigError(f"Model name {self.name!r} must be written 'provider:name'.{similar(self.name)}")
        as_price(self.price, self.name)
        check_address(self.base_url, f"{self.name}: base_url")
        for name, content in (self.headers or {}).items():
            if not content.isprintable():
                raise ConfigError(f"{self.name}: the header {name!r} holds a line end or another control character.")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{self.name}: {name} must be positive, not {value!r}.")
        if self.free_tokens < 0:
            raise ConfigError(f"{self.name}: free_tokens must not be negative, not {self.free_tokens!r}.")
        if self.encoding_format not in (None, "base64", "float", "omit"):
            raise ConfigError(f"{self.name}: encoding_format must be 'base64', 'float' or 'omit'.")
        if unknown := set(self.prompts or ()) - {"document", "query"}:
            raise ConfigError(f"{self.name}: prompts are for 'document' and 'query', not {sorted(unknown)}.")

    @classmethod
    def wrap(
        cls,
        embedder: Any,
        *,
        space: str,
        dimensions: int | None = None,
        name: str | None = None,
        batch_size: int = 256,
        max_concurrency: int = 1,
        **settings: Any,
    ) -> Model:
        """Return a model that calls an embedder you already have, behind the router's cache, tiers and budget.

        Args:
            embedder: a LangChain ``Embeddings``, a LlamaIndex ``BaseEmbedding``, or a function from a list of texts
                (and ``input_type=``, if it has such a parameter) to a list of vectors.
            space: names what its vectors are comparable with. The same name on two embedders says that they may be
                mixed: only you can know that.
            dimensions: of its vectors; may be left out for a space of the catalogue.
            name: ``provider:name`` for results and messages.
            batch_size: texts handed over at once.
            max_concurrency: calls at the same time; more than 1 only if the embedder bears threads.
            settings: anything else of ``Model``, such as ``tier`` and ``price``.

        Raises:
            ConfigError: it is no embedder, or its dimensions are unknown.
        """
        name = name or f"wrapped:{getattr(embedder, '__name__', None) or type(embedder).__name__}"
        known = [card.dimensions for card in load().values() if card.space == space]
        if dimensions is None and not known:
            raise ConfigError(f"How many dimensions do the vectors of {name} have? Write Model.wrap(…, dimensions=…).")
        return cls(
            name,
            space=space,
            dimensions=dimensions or known[0],
            batch_size=batch_size,
            max_concurrency=max_concurrency,
            backend=WrappedBackend(embedder, name),
            **settings,
        )

    @property
    def provider(self) -> str:
        return self.name.partition(":")[0]

    @property
    def id(self) -> str:
        """The name without its provider, as the provider knows it."""
        return self.name.partition(":")[2]

    def __getstate__(self) -> dict[str, Any]:
        state = {item.name: getattr(self, item.name) for item in fields(self)}
        state.update(api_key=None, client=None, async_client=None)
        if self.headers is not None:
            state["headers"] = {name: value for name, value in self.headers.items() if not is_secret(name, value)}
        if not _has_name(self.azure_ad_token_provider):
            state["azure_ad_token_provider"] = None
        return state


SECRET_HEADERS = ("auth", "key", "token", "secret", "cookie", "pass", "credential", "session", "signature", "jwt")
SECRET_VALUES = ("bearer ", "basic ", "sk-")


def is_secret(header: str, value: str) -> bool:
    """Say whether a header is one that must not be shown."""
    return any(word in header.lower() for word in SECRET_HEADERS) or value.lower().startswith(SECRET_VALUES)


def check_address(url: str | None, what: str) -> None:
    """Refuse an address that holds a secret: it would be shown in messages, logs and tracebacks.

    Raises:
        ConfigError: it has a user, a password, a query or a fragment; the message does not repeat it.
    """
    try:
        parts = urlsplit(url or "")
        plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:  # which quotes it
        plain = False
    if not plain:
        raise ConfigError(
            f"{what} must be an address without user, password, query and fragment. Give a key with api_key_env= or "
            "api_key=, and what else the server asks for with headers=."
        )


def _has_name(function: object) -> bool:
    """Say whether a pickle would hold the name of a function, and not what it carries along."""
    return inspect.isfunction(function) and "<" not in function.__qualname__


def custom_card(model: Model, dimensions: int | None, **facts: Any) -> Card:
    """Return the card of a model that the catalogue does not know, from what the user declares.

    Raises:
        ConfigError: ``space`` or ``dimensions`` is missing; the message says how to give it.
    """
    dimensions = model.dimensions or dimensions
    missing = [name for name, value in (("space", model.space), ("dimensions", dimensions)) if value is None]
    if model.space is None or dimensions is None:
        raise ConfigError(
            f"The catalogue does not know {model.name!r}.{similar(model.name)} If it is a model of your own, declare "
            f"it: Model({model.name!r}, {', '.join(f'{name}=…' for name in missing)})."
        )
    known = {"model": model.name, "space": model.space, "dimensions": dimensions, "texts": 32, "symmetric": False}
    return Card(**{**known, **facts})


def similar(name: str) -> str:
    """Return the question whether another model of the catalogue was meant, or nothing."""
    names = list(load())
    short = {known.partition(":")[2]: known for known in reversed(names)}
    close = [short[name]] if name in short else get_close_matches(name, names, 1, cutoff=0.8)
    return f" Did you mean {close[0]!r}?" if close else ""


def settle(
    model: Model,
    card: Card,
    *,
    dimensions: int | None,
    index: int,
    rank: int,
    local: bool,
    batches: bool = False,
    identity: str | None = None,
) -> Candidate:
    """Decide every fact about a model of a router.

    Args:
        dimensions: what the router asks all its models for.
        local: it runs in this process.
        batches: its provider has a batch endpoint.
        identity: what tells this model's vectors from others', where that is more than the card's name (a revision, the
            hash of a local folder).

    Raises:
        ConfigError: the declaration contradicts the card.
    """
    wanted = model.dimensions or dimensions or card.dimensions
    if not card.offers(wanted):
        offered = "every number below" if card.allowed == "any" else ", ".join(map(str, sorted(card.allowed))) or "none"
        raise ConfigError(
            f"{model.name} does not offer {wanted} dimensions, only {card.dimensions} (others: {offered}). "
            f"Set dimensions= to one of these."
        )
    if model.space is not None and model.space != card.space:
        raise ConfigError(
            f"{model.name} is known to be in the space {card.space!r}, not {model.space!r}. Leave space= out."
        )
    prompts = dict(sorted((model.prompts or {}).items()))
    space = card.space + (f"+prompts-{_digest(prompts)}" if prompts else "")

    def fingerprint(length: int) -> str:
        return json.dumps([identity or _identity(card), card.space, length, prompts, "float32"])

    limits = replace(
        card.limits,
        texts=model.batch_size or card.texts,
        tokens=_request_tokens(model, card),
        input_tokens=model.max_input_tokens or card.input_tokens,
    )
    return Candidate(
        index=index,
        name=model.name,
        tier=model.tier,
        rank=rank,
        space=Space(space, wanted),
        fingerprint=fingerprint(wanted),
        longer=tuple((length, fingerprint(length)) for length in card.longer_than(wanted)),
        symmetric=card.symmetric and not prompts,
        price=as_price(model.price, model.name) if model.price is not None else card.price,
        batch_price=_batch_price(model, card) if batches else None,
        free_tokens=model.free_tokens,
        limits=limits,
        concurrency=model.max_concurrency or (1 if local else 8),
        requests_per_minute=model.requests_per_minute,
        tokens_per_minute=model.tokens_per_minute,
        timeout=model.timeout,
        local=local,
    )


def _request_tokens(model: Model, card: Card) -> int | None:
    """Return how many tokens one request may hold: few enough that requests fill a limit of tokens a minute.

    Half of the requests of a minute have to suffice for that, because the bill may be little more than half of an
    estimate.
    """
    most = model.max_request_tokens or card.tokens
    if model.tokens_per_minute is None:
        return most
    parts = min(FINEST, (model.requests_per_minute or 2 * FINEST) // 2) or 1
    share = max(1, model.tokens_per_minute // parts)
    return share if most is None else min(most, share)


def _batch_price(model: Model, card: Card) -> Decimal | None:
    """Return the price through the batch endpoint; of a price that the user declares, the same share."""
    price = as_price(model.price, model.name)
    if price is None or card.batch_price is None or not card.price:
        return card.batch_price
    return round(price * card.batch_price / card.price, DECIMALS)


def _identity(card: Card) -> str:
    """One name for a model wherever it is served: Azure serves OpenAI's own models."""
    return card.model.replace("azure_openai:", "openai:", 1)


def _digest(prompts: Mapping[str, str]) -> str:
    return hashlib.blake2b(json.dumps(prompts).encode(), digest_size=4).hexdigest()


def the_one_space(candidates: list[Candidate]) -> Space:
    """Return the space that all candidates share.

    Raises:
        SpaceMismatchError: there are two; the message names both and why they would not be comparable.
    """
    first = candidates[0]
    for other in candidates[1:]:
        if other.space == first.space:
            continue
        if other.space.name == first.space.name:
            reason = "vectors of different length cannot be compared"
            advice = "Set dimensions= on the router to a number that every model offers."
        else:
            reason = "they were trained apart: a distance between their vectors means nothing, even at equal dimensions"
            advice = (
                "Give each space a router of its own, and use TieredRouter to choose between them; "
                "each router then needs its own vector store."
            )
        raise SpaceMismatchError(
            f"{first.name} gives vectors in the space {first.space}, {other.name} in {other.space}: {reason}. {advice}"
        )
    return first.space
