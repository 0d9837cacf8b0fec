"""Describe a router as a configuration file does: what ``config`` reads, this module writes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from .cache import has_secret, is_address
from .config import MISSING, ONLY_IN_CODE
from .limits import RetryPolicy
from .models import Model, RouterSettings, is_secret, load_catalogue
from .redis import RedisState
from .spending import Budget

__all__ = ["describe"]


OF_A_PROGRAM = ("cache", "state", "on_event", "clock", "sleep", "random")
"""Settings that may be objects, and decide no vector."""


def describe(settings: RouterSettings, places: Mapping[str, Path], *, strict: bool = True) -> dict[str, Any]:
    """Return the content of a configuration file for a router; ``config.given`` reads it, and gives an equal router.

    Keys, secret headers and objects, such as functions and clients, are left out. ``only_in_code`` then names them, and
    the content is refused by ``Config.router``.

    Args:
        settings: the router's arguments.
        places: the folder of the cache and the file of the ledger, where relative paths have become absolute ones.
        strict: whether keys, and objects that decide no vector, are named; otherwise the router that is built of the
            content reads keys from the environment, and has a cache and no ``on_event`` as by default.
    """
    missing: list[str] = []
    content: dict[str, Any] = {"models": [_describe_model(model, missing, strict) for model in settings.models]}
    for item in fields(settings):
        value = getattr(settings, item.name)
        plain = isinstance(value, str | int | float | tuple)
        if item.name == "models" or value is item.default or (plain and value == item.default):
            continue
        if item.name == "cache" and value is None:
            content["cache"] = False
        elif item.name == "cache" and isinstance(value, list | tuple):
            if (own := _caches(value)) is not None:
                content["cache"] = own
            elif strict:
                missing.append("the list of caches, of which one is an object or has a password: Router(…, cache=…)")
        elif isinstance(value, RedisState) and value.address is not None and not has_secret(value.address):
            content[item.name] = value.address
        elif item.name == "cache" and is_address(value) and has_secret(str(value)):
            if strict:
                missing.append("the address of the cache, which has a password: Router(…, cache=…)")
        elif item.name == "cache" and is_address(value):
            content["cache"] = value
        elif isinstance(value, Budget | RetryPolicy):
            content[item.name] = _described(asdict(value))
        elif isinstance(value, str | Path) and item.name in ("cache", "ledger", "catalog"):
            content[item.name] = str(places.get(item.name, value))
        elif (written := _written(value)) is not None:
            content[item.name] = written
        elif strict or item.name not in OF_A_PROGRAM:
            missing.append(f"the {item.name} {type(value).__name__}: Router(…, {item.name}=…)")
    return {**content, **({MISSING: missing} if missing else {})}


def _caches(given: Sequence[Any]) -> list[str] | None:
    """Return a list of caches as a file has it, or ``None`` where one is an object or its address has a password."""
    if any(has_secret(item) if is_address(item) else not isinstance(item, str | Path) for item in given):
        return None
    return [item if is_address(item) else str(Path(item).expanduser().absolute()) for item in given]


def _describe_model(given: str | Model, missing: list[str], strict: bool) -> dict[str, Any]:
    """Return the table of one model; what it leaves out is added to ``missing``."""
    model = Model(given) if isinstance(given, str) else given
    row: dict[str, Any] = {"model": model.name}
    for item in fields(model):
        value = getattr(model, item.name)
        if item.name in ("name", "like") or value is None or (item.name not in ONLY_IN_CODE and value == item.default):
            continue
        if item.name == "api_key" and not strict:
            continue
        if item.name == "api_key":
            server = load_catalogue().servers.get(model.provider)
            variable = (server.keys if server else ()) or ("THE_KEY",)
            missing.append(f"the key of {model.name}: Model(…, api_key_env={variable[0]!r}) reads it again")
        elif item.name in ONLY_IN_CODE:
            how = "Model.wrap(…)" if item.name == "embedder" else f"Model({model.name!r}, {item.name}=…)"
            missing.append(f"the {item.name} {type(value).__name__} of {model.name}: {how}")
        elif secrets := _secrets(value) if item.name in ("headers", "extra_body") else []:
            missing.append(f"{', '.join(secrets)} of {model.name}: Model({model.name!r}, {item.name}=…)")
        elif (written := _written(value)) is not None:
            row[item.name] = written
        else:
            missing.append(f"the {item.name} of {model.name}: Model({model.name!r}, {item.name}=…)")
    return row


def _described(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without what is not set; that of a budget has tables of tags in it."""
    parts = {name: _described(part) if isinstance(part, Mapping) else part for name, part in table.items()}
    return {name: _written(part) for name, part in parts.items() if part not in (None, {})}


def _written(value: Any) -> Any:
    """Return a value as a configuration file holds it; ``None`` where it can hold none."""
    if isinstance(value, Mapping):
        parts = {name: _written(part) for name, part in value.items()}
        return None if None in parts.values() else parts
    if isinstance(value, list | tuple):
        items = [_written(part) for part in value]
        return None if None in items else items
    return str(value) if isinstance(value, Decimal) else value if isinstance(value, str | int | float) else None


def _secrets(value: Any) -> list[str]:
    """Return the names under which a mapping holds what may be a key: a header, or a field of a request."""
    if not isinstance(value, Mapping):
        return []
    nested = [name for part in value.values() for name in _secrets(part)]
    return nested + [name for name, part in value.items() if isinstance(part, str) and is_secret(name, part)]
