"""The declaration of a model by its user."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Literal, Self, TypeAlias, get_args
from urllib.parse import urlsplit

from .._display import explained, looks_like_key, shown, shown_name
from .._values import as_number, require_type
from ..errors import ConfigError
from ..spending import as_price
from ..types import OutputDtype, plain
from ._backend import Backend
from ._catalogue import did_you_mean, load_catalogue
from ._no_embedder import NoEmbedder

CALL = "Model('openai:text-embedding-3-small', tier='high')"
SIZES = ("dimensions", "batch_size", "max_input_tokens", "max_request_tokens", "max_concurrency", "timeout")
RATES = ("requests_per_minute", "texts_per_minute", "tokens_per_minute")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LocalRuntime: TypeAlias = Literal["auto", "torch", "openvino", "onnx"]
FRAMEWORK_METHODS = (("embed_documents", "embed_query"), ("get_text_embedding_batch", "get_query_embedding"))


@explained(CALL, model=CALL, model_name=CALL, model_id=CALL, provider=CALL)
@dataclass(frozen=True)
class Model:
    """Declare one model; settings that are left out come from the catalogue.

    A literal ``api_key``, SDK clients and secret headers are not pickled, and an ``azure_ad_token_provider`` only by
    its name, if it is a function of a module. A copy that lost its key reads the variable that ``api_key_env`` names,
    and no other: the provider's own variable may hold a key for another server. ``copy`` and ``deepcopy`` keep all.
    """

    name: str
    """``provider:name``, for instance ``"openai:text-embedding-3-small"``."""
    _: KW_ONLY
    tier: str = "high"
    """The quality tier of the model."""
    dimensions: int | None = None
    """Dimensions to request; the model's own number when left out."""
    output_dtype: OutputDtype | None = None
    """Numbers to request in place of float32, where the model has them: ``"int8"``, ``"uint8"``, or packed bits, eight
    dimensions to an int8 (``"binary"``) or a uint8 (``"ubinary"``). Vectors of each are a space of their own."""
    base_url: str | None = None
    """Another server with the provider's protocol; for Azure the resource's endpoint, or the address of the v1 API,
    which ends in ``/openai/v1``. When left out, the variable that the provider's SDK reads, such as
    ``OPENAI_BASE_URL``. Must not contain a password."""
    api_key: str | None = field(default=None, repr=False)
    api_key_env: str | None = None
    """The environment variable that holds the key, in place of the provider's; an empty string for none."""
    price: str | int | Decimal | None = None
    """US dollars per million tokens, instead of the catalogue's price."""
    free_tokens: int = 0
    """Tokens that cost nothing before the price applies, such as the 200 million for each model of a Voyage account;
    the ledger counts the tokens used."""
    space: str | None = None
    """Name of the embedding space; required for a model that is not in the catalogue."""
    max_concurrency: int | None = None
    """Requests in flight at once; 8 for providers, 1 for local models."""
    requests_per_minute: int | None = None
    """Requests that this process may send per minute; when left out, the catalogue's number, else the number that the
    provider reports, if any."""
    texts_per_minute: int | None = None
    """Texts that this process may send per minute, instead of the catalogue's number; Cohere limits these."""
    tokens_per_minute: int | None = None
    """Tokens that this process may send per minute; when left out, the catalogue's number, else the number that the
    provider reports, if any."""
    timeout: float = 30.0
    """Seconds for one HTTP attempt."""
    client: Any = field(default=None, repr=False, compare=False)
    """A synchronous client of the provider's SDK (of httpx for Voyage), instead of a new one; for a local model the
    loaded model. Its proxies, certificates and redirects are its own."""
    async_client: Any = field(default=None, repr=False, compare=False)
    """An asynchronous client of the provider's SDK (of httpx for Voyage); a client belongs to one event loop."""
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """HTTP headers of every request."""
    batch_size: int | None = None
    """Texts in one request, instead of the catalogue's number; many self-hosted servers accept 32."""
    max_input_tokens: int | None = None
    """Tokens in one text, instead of the catalogue's number."""
    max_request_tokens: int | None = None
    """Tokens in one request, instead of the catalogue's number."""
    encoding_format: Literal["base64", "float", "omit"] | None = None
    """The encoding of numbers to request. When left out, base64, and where the server refuses it lists, which take far
    longer to parse, then neither; ``"float"`` asks for lists, ``"omit"`` leaves the field out."""
    extra_body: Mapping[str, Any] | None = field(default=None, repr=False)
    """Further fields of every request to a server of OpenAI's protocol, such as ``{"truncate": "END"}``; or fields by
    input type: ``{"document": {"input_type": "passage"}, "query": {"input_type": "query"}}``. They are part of the
    space, unless they are known to leave vectors alone."""
    served_as: Sequence[str] = ()
    """Further names by which servers may call this model in their answers; any other change of the name is an error."""
    deployment: str | None = None
    """The name of the model at its server, for Azure, OpenRouter, LiteLLM and other gateways; the model's own name
    when left out."""
    api_version: str | None = None
    """Azure: the version of the API, such as ``"2024-10-21"``; the v1 API needs none."""
    azure_ad_token_provider: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    """Azure: a function that returns a Microsoft Entra token, instead of a key."""
    revision: str | None = None
    """Local: the commit of the model repository."""
    trust_remote_code: bool = False
    """Local: run Python code from the model repository. Read the code first; requires the commit as ``revision``."""
    prompts: Mapping[str, str] | None = None
    """Text before each input, by input type, instead of the model's own prompts; gives another space."""
    device: str | None = None
    """Local: ``"cpu"``, ``"cuda"`` …; sentence-transformers chooses when left out."""
    runtime: LocalRuntime = "auto"
    """Local, sentence-transformers: what computes the vectors. ``"auto"`` takes the fastest that is installed for the
    processor: OpenVINO, onnxruntime or torch. The model is converted at its first use and compared with torch."""
    file: str | None = None
    """Local, onnx: the graph within the model's folder, such as ``"onnx/model_qint8_avx512.onnx"``; when left out,
    ``onnx/model.onnx`` or ``model.onnx``. A graph with shorter numbers is a space of its own, unless
    ``space=`` says which."""
    backend: Backend | None = field(default=None, repr=False, compare=False)
    """Your own backend, instead of a provider's; see ``embedrouter.backends.Backend``."""
    embedder: Any = field(default=None, repr=False, compare=False)
    """An existing embedder; ``Model.wrap`` sets this field."""
    like: str | None = None
    """The model of the catalogue that the embedder calls; ``Model.wrap`` sets this field."""

    def __post_init__(self) -> None:
        self._keep_own_settings()
        for name, (kinds, right) in TYPES.items():
            require_type(getattr(self, name), kinds, f"{shown_name(self.name)}: {name}".replace("'", ""), right)
        provider, _, rest = self.name.partition(":") if isinstance(self.name, str) else ("", "", "")
        if not provider or not rest:
            meant = (did_you_mean(self.name) if isinstance(self.name, str) else "") or " embedrouter models lists them."
            raise ConfigError(f"Model name {shown_name(self.name)} must be written 'provider:name'.{meant}")
        as_price(self.price, self.name)
        check_address(self.base_url, f"{self.name}: base_url")
        _require_complete(self.base_url, f"{self.name}: base_url")
        if self.api_key_env and looks_like_key(self.api_key_env) and not VARIABLE.fullmatch(self.api_key_env):
            raise ConfigError(
                f"{self.name}: api_key_env= is the name of a variable, such as 'OPENAI_API_KEY', not the key itself."
            )
        for settings in ("headers", "prompts"):
            for name, content in (getattr(self, settings) or {}).items():
                require_type(
                    content, str, f"{self.name}: {settings}[{shown_name(name)}]", f"a text: '{shown(content)}'"
                )
        for name, content in (self.headers or {}).items():
            if not content.isprintable():
                raise ConfigError(
                    f"{self.name}: the header {shown_name(name)} contains a line end or another control character. "
                    "Remove it."
                )
        if self.tier is None:
            raise ConfigError(f"{self.name}: tier must be the name of a tier, such as 'low'; leave it out for 'high'.")
        for name in (*SIZES, *RATES, "free_tokens"):
            kind = float if name == "timeout" else int
            value = as_number(
                getattr(self, name), f"{self.name}: {name}", kind, needed=name in ("timeout", "free_tokens")
            )
            object.__setattr__(self, name, value)
            if value is not None and value <= 0 and name != "free_tokens":
                raise ConfigError(f"{self.name}: {name} must be positive, not {shown(value)}.")
        if self.free_tokens < 0:
            raise ConfigError(f"{self.name}: free_tokens must not be negative, not {shown(self.free_tokens)}.")
        if self.encoding_format not in (None, "base64", "float", "omit"):
            raise ConfigError(f"{self.name}: encoding_format must be 'base64', 'float' or 'omit'.")
        if self.runtime not in get_args(LocalRuntime):
            raise ConfigError(f"{self.name}: runtime must be 'auto', 'torch', 'openvino' or 'onnx'.")
        if self.runtime not in ("auto", "torch") and (self.client is not None or provider != "sentence-transformers"):
            only = "Leave client= or runtime= out" if self.client is not None else "Leave runtime= out"
            raise ConfigError(
                f"{self.name}: runtime= is for models that sentence-transformers loads from files. {only}."
            )
        if self.output_dtype not in (None, *get_args(OutputDtype)):
            accepted = ", ".join(map(repr, get_args(OutputDtype)))
            raise ConfigError(f"{self.name}: output_dtype must be one of {accepted}; leave it out for float32.")
        if isinstance(self.served_as, str):
            raise ConfigError(f"{self.name}: served_as= is a list of names: [{shown_name(self.served_as)}].")
        for body in (self.body("document"), self.body("query")):
            if reserved := {"input", "model"} & set(body):
                raise ConfigError(
                    f"{self.name}: extra_body must not set {sorted(reserved)}. The name of the model is deployment=."
                )
        if unknown := set(self.prompts or ()) - {"document", "query"}:
            raise ConfigError(f"{self.name}: prompts are for 'document' and 'query', not {shown_name(min(unknown))}.")

    def _keep_own_settings(self) -> None:
        """Copy lists and mappings, which the user may change later, and turn subclasses of ``str`` into plain text."""
        for item in fields(self):
            value = getattr(self, item.name)
            if issubclass(type(value), str):
                value = plain(value).strip() if item.name == "base_url" else plain(value)
            elif item.name in ("prompts", "headers", "extra_body", "served_as"):
                value = _own(value)
            object.__setattr__(self, item.name, value)

    @classmethod
    def wrap(
        cls,
        embedder: Any,
        *,
        space: str | None = None,
        like: str | None = None,
        dimensions: int | None = None,
        name: str | None = None,
        batch_size: int | None = None,
        max_concurrency: int = 1,
        **settings: Any,
    ) -> Model:
        """Declare a model that calls an existing embedder, behind the router's cache, tiers and budget.

        Args:
            embedder: a LangChain ``Embeddings``, a LlamaIndex ``BaseEmbedding``, or a function from a list of texts
                (and ``input_type=``, if it has such a parameter) to a list of vectors.
            space: name of the embedding space. The same name on two embedders declares that their vectors may be
                mixed, which no check can verify.
            like: the model that the embedder calls, by its name in the catalogue, such as
                ``"bedrock:amazon.titan-embed-text-v2:0"``: space, dimensions, limits, price and whether documents and
                queries differ are those of its row. In place of ``space``.
            dimensions: length of the vectors; optional with ``like``, and for a space of the catalogue.
            name: ``provider:name`` for results and messages, by default with the name of the class or function.
                Vectors are cached under this name, the space and the embedder's settings such as ``model``; another
                embedder needs another name.
            batch_size: texts in one call of the embedder; 256, or the number of the row that ``like`` names.
            max_concurrency: calls at the same time; more than 1 only if the embedder is thread-safe.
            settings: other arguments of ``Model``, such as ``tier`` and ``price``.

        Raises:
            ConfigError: the object is no embedder, or its dimensions are unknown.
        """
        if isinstance(embedder, type):
            raise ConfigError(
                f"Model.wrap takes an embedder, not a class. Write Model.wrap({embedder.__name__}(…), …)."
            )
        refused = inspect.iscoroutinefunction(embedder) or isinstance(embedder, NoEmbedder)
        is_function = callable(embedder) and not refused
        if framework_methods(embedder) is None and not is_function:
            raise ConfigError(
                f"Model.wrap takes a LangChain Embeddings, a LlamaIndex BaseEmbedding or a plain function from a list "
                f"of texts to a list of vectors, not {type(embedder).__name__}."
            )
        name = name or f"wrapped:{getattr(embedder, '__name__', None) or type(embedder).__name__}"
        if like is None:
            known = [card.dimensions for card in load_catalogue().values() if card.space == space]
            if space is None:
                raise ConfigError(
                    f"Which model does {name} call? For one of the catalogue write Model.wrap(…, like='openai:…'), "
                    "for another Model.wrap(…, space='…', dimensions=…)."
                )
            if dimensions is None and not known:
                raise ConfigError(
                    f"How many dimensions do the vectors of {name} have? Write Model.wrap(…, dimensions=…)."
                )
            dimensions, batch_size = dimensions or known[0], batch_size or 256
        return cls(
            name,
            space=space,
            like=like,
            dimensions=dimensions,
            batch_size=batch_size,
            max_concurrency=max_concurrency,
            embedder=embedder,
            **settings,
        )

    def body(self, input_type: str) -> Mapping[str, Any]:
        """Return the fields of ``extra_body`` for one input type."""
        extra = self.extra_body or {}
        if extra and set(extra) <= {"document", "query"}:
            return extra.get(input_type) or {}
        return extra

    @property
    def provider(self) -> str:
        return self.name.partition(":")[0]

    @property
    def id(self) -> str:
        """The name without the provider."""
        return self.name.partition(":")[2]

    def __copy__(self) -> Self:
        return replace(self)  # with mappings of its own

    def __deepcopy__(self, memo: object) -> Self:
        return replace(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {item.name: getattr(self, item.name) for item in fields(self)}
        state.update(dict.fromkeys(CREDENTIALS))
        if self.headers is not None:
            state["headers"] = {name: value for name, value in self.headers.items() if not is_secret(name, value)}
        if not has_name(self.azure_ad_token_provider):
            state["azure_ad_token_provider"] = None
        held_key = (*CREDENTIALS, "azure_ad_token_provider")
        lost_key = any(getattr(self, name) is not None and state[name] is None for name in held_key)
        if self.api_key_env is None and (lost_key or KEY_HEADERS & {name.lower() for name in self.headers or ()}):
            state["api_key_env"] = ""
        return state


def has_name(function: object) -> bool:
    """Return whether a function is pickled by its name; a pickle of another would hold what belongs to it, keys too."""
    return inspect.isfunction(function) and "<" not in function.__qualname__


def _own(value: Any) -> Any:
    """Return a copy of a setting with plain texts, in lists and mappings too."""
    if isinstance(value, Mapping):
        return {_own(name): _own(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_own(item) for item in value) if type(value) in (list, tuple) else [*map(_own, value)]
    return plain(value) if issubclass(type(value), str) else value


TEXT = (str, "a text")
TEXTS = (Mapping, "a mapping from 'document' and 'query' to texts, such as {'query': 'query: '}")
TYPES: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("tier", "base_url", "space", "deployment", "api_version", "revision", "device", "file"), TEXT),
    "api_key": (str, "a text; a function that returns one is azure_ad_token_provider=, for Azure"),
    "api_key_env": (str, "the name of a variable, such as 'OPENAI_API_KEY'"),
    "headers": (Mapping, "a mapping, such as {'X-Team': 'search'}"),
    "extra_body": (Mapping, "a mapping, such as {'truncate': 'END'}"),
    "prompts": TEXTS,
    "trust_remote_code": (bool, "True or False"),
}
"""Of settings that are no numbers, the type and how a value is written."""
ADDRESS = re.compile(r"(?:https?)?:?/*(?P<rest>[^/].*)", re.IGNORECASE)
"""What is written in place of an address: with half of a scheme, or none."""
LOCAL_HOST = re.compile(r"localhost|[\d.]+|\[|[^.]+$", re.IGNORECASE)

CREDENTIALS = ("api_key", "client", "async_client")
"""Arguments that hold a key, and are never pickled."""
KEY_HEADERS = {"authorization", "api-key", "x-api-key"}
"""Headers that take the place of the key."""
SECRET_HEADERS = ("auth", "key", "token", "secret", "cookie", "pass", "credential", "session", "signature", "jwt")
SECRET_VALUES = ("bearer ", "basic ", "sk-")


def is_secret(header: str, value: str) -> bool:
    """Return whether a header must not be shown."""
    return any(word in header.lower() for word in SECRET_HEADERS) or value.lower().startswith(SECRET_VALUES)


def check_address(url: str | None, what: str) -> None:
    """Refuse an address with a secret, because messages, logs and tracebacks show addresses.

    Raises:
        ConfigError: the address has a user, a password, a query or a fragment; the message does not repeat the address.
    """
    try:
        parts = urlsplit(url or "")
        harmless = "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:  # its message repeats the address
        harmless = False
    if not harmless:
        raise ConfigError(
            f"{what} must be an address without user, password, query and fragment. Give a key with api_key_env= or "
            "api_key=, and other credentials with headers=."
        )


def _require_complete(url: str | None, what: str) -> None:
    """Refuse an address without scheme or host, which no request reaches.

    Raises:
        ConfigError: the message has the address that was probably meant.
    """
    if not url:
        return
    parts = urlsplit(url)
    try:
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ConfigError(f"{what}={url!r}: its port is no number from 1 to 65535. Correct the address.") from None
    if complete:
        return
    rest = "" if parts.scheme and parts.netloc else (found := ADDRESS.fullmatch(url)) and found["rest"]
    if not rest:
        raise ConfigError(f"{what}={url!r} must begin with https:// or http:// and a host.")
    scheme = "http" if LOCAL_HOST.match(rest.split("/")[0].split(":")[0] or "localhost") else "https"
    raise ConfigError(f"{what}={url!r} has no scheme. Write base_url='{scheme}://{rest}'.")


def framework_methods(item: object) -> tuple[str, str] | None:
    """Return the names of the methods by which LangChain or LlamaIndex embeds documents and a query, if there are any.

    The asynchronous methods have an ``a`` before these names.
    """
    return next((names for names in FRAMEWORK_METHODS if all(hasattr(item, name) for name in names)), None)
