"""The settings of a router: every argument of ``Router`` with its type, its default and what is refused; presets.

``Router`` repeats the names in its signature, for editors, and passes the values on; ``embedrouter.config`` derives its
TOML table from the fields. A test compares the signature with the fields.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from .._display import shown, shown_name
from .._values import as_bytes, as_number, require_type
from ..cache import DEFAULT, CacheLike, Default, as_list
from ..errors import ConfigError
from ..events import Event
from ..limits import RetryPolicy
from ..redis import SCHEMES, RedisState
from ..spending import Budget
from ..types import OverlongPolicy
from ._declaration import Model, framework_methods, has_name
from ._tiers import TIERS, rank

MAX_MICRO_BATCH_WINDOW = 1.0
"""Seconds."""


class SetOnce:
    """An object whose public attributes are set once, so that what they show is what was built."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same object. LlamaIndex compares with ``"default"`` what is to embed for it.

        Raises:
            ConfigError: LlamaIndex asks, which would refuse a router without a word.
        """
        asking = inspect.currentframe() if other == "default" else None
        if asking is not None and asking.f_back is not None and asking.f_back.f_code.co_name == "resolve_embed_model":
            raise ConfigError(
                f"LlamaIndex takes an embedder, and a {type(self).__name__} is none yet: from embedrouter.llama_index "
                "import RouterEmbedding; embed_model=RouterEmbedding(router)."
            )
        return self is other

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__ and not name.startswith("_"):
            kind = type(self).__name__
            raise ConfigError(f"{name} of a {kind} cannot be changed. Build another {kind}.")
        super().__setattr__(name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """Hold the arguments of one ``Router``, validated. ``Router`` documents each of them.

    Raises:
        ConfigError: a setting is wrong; the message names it and the values it takes.
    """

    models: Sequence[str | Model]
    dimensions: int | None = None
    cache: CacheLike | Default = DEFAULT
    budget: Budget | str | None = None
    ledger: str | Path | RedisState | None = None
    retry: RetryPolicy | None = None
    query_tier: str | None = None
    document_tier: str | None = None
    tiers: Sequence[str] = TIERS
    on_too_long: OverlongPolicy = "error"
    when_unavailable: Literal["raise", "degrade"] = "raise"
    when_ledger_fails: Literal["closed", "open"] = "closed"
    cache_dtype: Literal["float32", "float16"] = "float32"
    cache_memory: int = 64 * 2**20
    micro_batch_window: float = 0.01
    state: str | RedisState | None = None
    catalog: str | Path | None = None
    on_event: Callable[[Event], object] | None = None
    clock: Callable[[], float] | None = None
    sleep: Callable[[float], object] | None = None
    random: Callable[[], float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", _models(self.models))
        object.__setattr__(self, "budget", Budget.of(self.budget))
        if isinstance(self.state, str):
            object.__setattr__(self, "state", RedisState(self.state))
        require_type(self.state, RedisState, "state", "the address of a Redis server, or a RedisState")
        if isinstance(self.catalog, str | Path):  # as the folders of the cache and the ledger
            object.__setattr__(self, "catalog", Path(self.catalog).expanduser().absolute())
        object.__setattr__(self, "dimensions", as_number(self.dimensions, "dimensions"))
        if self.dimensions is not None and self.dimensions <= 0:
            raise ConfigError(f"dimensions must be positive, not {shown(self.dimensions)}; leave it out for all.")
        object.__setattr__(self, "cache_memory", as_bytes(self.cache_memory, "cache_memory"))
        object.__setattr__(self, "micro_batch_window", as_number(self.micro_batch_window, "micro_batch_window", float))
        if isinstance(self.cache, bool):  # as in a TOML file
            object.__setattr__(self, "cache", DEFAULT if self.cache else None)
        for item in as_list(self.cache):
            if not isinstance(item, str) or item.lower() not in NO_FOLDERS:
                continue
            raise ConfigError(
                f"cache={shown(item)} would be a folder of that name. Write cache=None for no cache, in TOML "
                "cache = false; or leave it out for the user's cache folder."
            )
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise ConfigError(f"retry must be a RetryPolicy, such as RetryPolicy(attempts={_attempts(self.retry)}).")
        if not isinstance(self.tiers, list | tuple) or not all(isinstance(name, str) for name in self.tiers):
            raise ConfigError(f"tiers must be a list of names, such as {[*TIERS]}, not {shown(self.tiers)}.")
        if len(set(self.tiers)) != len(self.tiers) or not self.tiers:
            raise ConfigError("tiers must be different names, in a list, lowest first.")
        if isinstance(self.ledger, str) and self.ledger.startswith(SCHEMES):
            object.__setattr__(self, "ledger", RedisState(self.ledger))
        kinds = "a file, the address of a Redis server, or ':memory:' for this router alone"
        require_type(self.ledger, str | Path | RedisState, "ledger", kinds)
        require_type(self.catalog, str | Path, "catalog", "a TOML file")
        for name in ("clock", "sleep", "random"):
            if (function := getattr(self, name)) is not None and not callable(function):
                raise ConfigError(f"{name} must be a function, not {shown(function)}.")
        self._require_one_of("on_too_long", get_args(OverlongPolicy))
        self._require_one_of("when_unavailable", ("raise", "degrade"))
        self._require_one_of("when_ledger_fails", ("closed", "open"))
        self._require_one_of("cache_dtype", ("float32", "float16"))
        if self.cache_memory < 0:
            raise ConfigError(f"cache_memory must be a number of bytes, 0 or more, not {shown(self.cache_memory)}.")
        if not 0 <= self.micro_batch_window <= MAX_MICRO_BATCH_WINDOW:
            raise ConfigError(
                f"micro_batch_window must be from 0 to {MAX_MICRO_BATCH_WINDOW} seconds, "
                f"not {shown(self.micro_batch_window)}."
            )
        receiver = self.on_event
        if receiver is not None and (not callable(receiver) or inspect.iscoroutinefunction(receiver)):
            raise ConfigError(
                f"on_event must be a function, and no coroutine function, not {type(receiver).__name__}. It is called "
                "in a thread; there, loop.call_soon_threadsafe hands an event to an event loop."
            )
        for tier in (self.query_tier, self.document_tier):
            if tier is not None:
                rank(tier, self.tiers)

    def _require_one_of(self, name: str, accepted: tuple[str, ...]) -> None:
        if (value := getattr(self, name)) not in accepted:
            *others, last = map(repr, accepted)
            raise ConfigError(f"{name} must be {', '.join(others)} or {last}, not {shown(value)}.")

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of ``Router`` that give these settings again, in a pickle too."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return own if has_name(self.on_event) else own | {"on_event": None}


NO_FOLDERS = {"", "none", "null", "no", "off", "false", "yes", "on", "true", "default", "memory", ":memory:"}
"""What is written where no folder is meant."""


def _models(given: Any) -> list[str | Model]:
    """Return the models as a list.

    Raises:
        ConfigError: these are none; the message has the line to write.
    """
    such = "models must be a list of at least one model, such as"
    if isinstance(given, Model):
        raise ConfigError(f"{such} [Model({shown_name(given.name)})].")
    if isinstance(given, str | Mapping | set | frozenset) or not isinstance(given, Iterable):
        tiers = " A tier is Model('openai:text-embedding-3-small', tier='low')." if isinstance(given, Mapping) else ""
        raise ConfigError(f"{such} ['openai:text-embedding-3-small'], not {type(given).__name__}.{tiers}")
    models = list(given)
    if not models:
        raise ConfigError(f"{such} ['openai:text-embedding-3-small'].")
    for item in models:
        if isinstance(item, str | Model):
            continue
        how = "Model('openai:text-embedding-3-small', tier='high')"
        if framework_methods(item) is not None or callable(item):
            how = "Model.wrap(embedder, like='openai:text-embedding-3-small')"
        raise ConfigError(f"Each of models is a name or a Model, not {type(item).__name__}. Write {how}.")
    return models


def _attempts(retry: Any) -> int:
    """Return the attempts that were meant by a number, or by a switch."""
    if isinstance(retry, bool):
        return 5 if retry else 1
    digits = re.sub(r"\D", "", retry) if isinstance(retry, str) else ""
    found = retry.get("attempts", 5) if isinstance(retry, Mapping) else digits or retry
    return int(found) if isinstance(found, int | str) and 1 <= int(found) < 1000 else 5


# Ready-made settings: in a family of models the best one embeds documents and the cheapest one queries, in one space


NANO = "sentence-transformers:voyageai/voyage-4-nano"

PRESETS: dict[str, dict[str, Any]] = {
    "voyage-4": {
        "models": [
            Model("voyage:voyage-4-large", tier="high"),
            Model("voyage:voyage-4", tier="medium"),
            Model("voyage:voyage-4-lite", tier="low"),
        ],
        "dimensions": 1024,
        "query_tier": "low",
    },
    "cohere-v5": {
        "models": [Model("cohere:embed-v5.0-pro", tier="high"), Model("cohere:embed-v5.0-fast", tier="low")],
        "query_tier": "low",
    },
    "openai-small": {"models": ["openai:text-embedding-3-small"]},
    "openai-large": {"models": ["openai:text-embedding-3-large"]},
    "local": {"models": ["sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"]},
    "offline": {"models": ["wordllama:l2_supercat_256"]},
}


def preset(name: str, revision: str | None = None, trust_remote_code: bool = False) -> dict[str, Any]:
    """Return the arguments of ``Router`` for a preset.

    Raises:
        ConfigError: the name is unknown, or the local model is requested from another preset or without its conditions.
    """
    if name not in PRESETS:
        raise ConfigError(f"Unknown preset {shown_name(name)}. Choose one of {', '.join(PRESETS)}.")
    settings = dict(PRESETS[name])
    if revision is not None or trust_remote_code:
        if name != "voyage-4":
            raise ConfigError(f"revision= and trust_remote_code= are for the preset 'voyage-4', not {name!r}.")
        nano = Model(NANO, tier="low", revision=revision, trust_remote_code=trust_remote_code)
        settings["models"] = [*settings["models"], nano]
    return settings
