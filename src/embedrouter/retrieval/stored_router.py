"""A router as plain data, for frameworks that keep the configuration of an embedder beside its vectors.

``described`` writes what a TOML file would say. Keys are not written: the router that is built from the data reads them
from the environment. Neither is what only a program has: clients, embedders that were wrapped, ``on_event``.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from ..cache import Default
from ..config import ONLY_IN_CODE, Config
from ..errors import ConfigError, SpaceMismatchError
from ..models import Model, RouterSettings, is_secret
from ..router import Router, settings_of
from ..spending import Budget

OF_A_PROGRAM = ("on_event", "clock", "sleep", "random")
OF_A_MACHINE = ("cache", "ledger")
"""Settings that a vector store, which travels, does not keep."""
LIVE: WeakValueDictionary[str, Router] = WeakValueDictionary()
"""The routers of this process that a store keeps, by the mark in what is kept."""
IN_CODE = "only_in_code"
"""The entry that names models which only the program has."""


def described(router: Router) -> dict[str, Any]:
    """Return a router's settings as a TOML file would have them, in types that JSON and YAML have.

    Settings that have their default are left out.
    """
    settings = settings_of(router)
    models = [item if isinstance(item, Model) else Model(item) for item in settings.models]
    content: dict[str, Any] = {"models": [_row(model) for model in models]}
    if code := [model.name for model in models if model.backend is not None or model.embedder is not None]:
        content[IN_CODE] = code
    for item in fields(RouterSettings):
        value = getattr(settings, item.name)
        if item.name not in ("models", *OF_A_PROGRAM) and value != item.default:
            content[item.name] = _plain(value)
    if settings.cache is None:
        content["cache"] = False
    elif not isinstance(settings.cache, str | Path | Default):
        content.pop("cache")
    return content


def stored(router: Router) -> dict[str, Any]:
    """Return what a vector store keeps: the router without what belongs to a machine, its space, and a mark of its own.

    In the process that made the content, the mark finds the router itself, with its cache, keys and accounts.
    """
    content = {name: value for name, value in described(router).items() if name not in OF_A_MACHINE}
    mark = next((mark for mark, live in LIVE.items() if live is router), None) or uuid4().hex
    LIVE[mark] = router
    return {"router": content, "space": router.space.name, "dimensions": router.space.dimensions, "mark": mark}


def rebuild(kept: Mapping[str, Any], *, title: str, remedy: str) -> Router:
    """Return the router of which a vector store keeps ``stored``, built once for the same content and environment.

    A vector store may be of another author. So its content is trusted no more than a configuration that was found by
    search.

    Args:
        title: of the content, as the beginning of a sentence.
        remedy: the sentence that says how to go on where the router cannot be built.

    Raises:
        ConfigError: the content is damaged, or has what only a trusted file may have.
        SpaceMismatchError: the router has another space now.
    """
    if (live := LIVE.get(str(kept.get("mark")))) is not None:
        return live
    environment = hash(frozenset(os.environ.items()))  # decides keys and addresses
    return _rebuilt(json.dumps(kept, sort_keys=True), title, remedy, environment)


@lru_cache(maxsize=32)
def _rebuilt(kept: str, title: str, remedy: str, environment: int) -> Router:
    content: Any = json.loads(kept)
    settings = content.get("router")
    if not isinstance(settings, dict):
        raise ConfigError(f"{title} says of no router. {remedy}")
    if code := settings.get(IN_CODE):
        raise ConfigError(f"{title} names {', '.join(map(str, code))}, which only a program has. {remedy}")
    router = Router(**Config(Path(title), settings, named=False, trusting=remedy).router())
    space = router.space
    if (space.name, space.dimensions) != (content.get("space"), content.get("dimensions")):
        raise SpaceMismatchError(
            f"{title} is of the space {content.get('space')} ({content.get('dimensions')} dimensions), and the router "
            f"that it describes gives {space} now. {remedy}"
        )
    return router


def _row(model: Model) -> dict[str, Any]:
    """Return the table of a model, without what a pickle leaves out either."""
    state = model.__getstate__()
    row = {item.name: state[item.name] for item in fields(Model) if item.name not in ONLY_IN_CODE}
    given = {item.name: _plain(row[item.name]) for item in fields(Model) if item.name in row}
    defaults = {item.name: item.default for item in fields(Model)}
    return {"model": model.name} | {name: value for name, value in given.items() if row[name] != defaults[name]}


def _plain(value: Any) -> Any:
    if isinstance(value, Budget):
        return {name: str(cap) for name, cap in value.caps.items()} | {"when_exceeded": value.when_exceeded}
    if isinstance(value, Decimal | Path):
        return str(value)
    if isinstance(value, Mapping):
        parts = {name: item for name, item in value.items() if not (isinstance(item, str) and is_secret(name, item))}
        return {str(name): _plain(item) for name, item in parts.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
