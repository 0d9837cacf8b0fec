"""The declaration of a model by its user."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..spending import as_price
from ._backend import Backend
from ._catalogue import did_you_mean, load_catalogue

__all__ = ["Model", "check_address", "is_secret"]

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
    """How the server is asked to write numbers: in base64 by default; ``"float"`` asks for lists, which take far longer
    to read; ``"omit"`` is for servers of OpenAI's protocol that refuse the field."""
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
    embedder: Any = field(default=None, repr=False, compare=False)
    """An embedder that exists already; set by ``Model.wrap``."""

    def __post_init__(self) -> None:
        provider, _, rest = self.name.partition(":")
        if not provider or not rest:
            raise ConfigError(f"Model name {self.name!r} must be written 'provider:name'.{did_you_mean(self.name)}")
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
        if not is_embedder(embedder):
            raise ConfigError(
                f"Model.wrap takes a LangChain Embeddings, a LlamaIndex BaseEmbedding or a plain function from a list "
                f"of texts to a list of vectors, not {type(embedder).__name__}."
            )
        name = name or f"wrapped:{getattr(embedder, '__name__', None) or type(embedder).__name__}"
        known = [card.dimensions for card in load_catalogue().values() if card.space == space]
        if dimensions is None and not known:
            raise ConfigError(f"How many dimensions do the vectors of {name} have? Write Model.wrap(…, dimensions=…).")
        return cls(
            name,
            space=space,
            dimensions=dimensions or known[0],
            batch_size=batch_size,
            max_concurrency=max_concurrency,
            embedder=embedder,
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


def is_embedder(item: object) -> bool:
    """Return whether an object has the methods of LangChain's or LlamaIndex's embedders, or is a plain function."""
    return (
        (hasattr(item, "embed_documents") and hasattr(item, "embed_query"))
        or (hasattr(item, "get_text_embedding_batch") and hasattr(item, "get_query_embedding"))
        or (callable(item) and not inspect.iscoroutinefunction(item))
    )
