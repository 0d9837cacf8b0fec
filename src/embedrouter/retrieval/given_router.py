"""A router in the form in which a user has it: a router, the name of a model, models in a list, a TOML file."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeAlias

from .. import config
from ..errors import ConfigError
from ..models import Model, RouterSettings, framework_methods
from ..router import Router
from ..tiered import TieredRouter, require_single_space

GivenRouter: TypeAlias = (
    "Router | TieredRouter | Model | str | Path | Mapping[str, Any] | list[str | Model] | tuple[str | Model, ...]"
)
ROUTER_SETTINGS = frozenset(item.name for item in fields(RouterSettings)) - {"models", "query_tier", "document_tier"}
"""The arguments of ``Router`` that an adapter passes on; the tiers are the adapter's own."""


def as_router(given: Any, settings: Mapping[str, Any]) -> Router:
    """Return the router, or build it.

    Args:
        given: a router; the name of a model, ``Model`` or a list of these; the path of a TOML file, or its content.
        settings: arguments of ``Router``, for a router that is built here.

    Raises:
        ConfigError: it is none of these, or a router that has its settings already; the message has the line to write.
    """
    if unknown := sorted(set(settings) - ROUTER_SETTINGS):
        known = ", ".join(sorted(ROUTER_SETTINGS))
        raise ConfigError(f"{unknown[0]}= is no setting of a router. Settings are {known}.")
    if isinstance(given, Router | TieredRouter):
        if settings:
            raise ConfigError(
                f"{min(settings)}= belongs to the router, which is there already: Router(…, {min(settings)}=…)."
            )
        return require_single_space(given)
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith(".toml")):
        return Router(**{**config.load(given).router(), **settings})
    if isinstance(given, Mapping) and "models" in given:
        content = config.Config(Path("The configuration of the router"), given, named=True)
        return Router(**{**content.router(), **settings})
    if isinstance(given, str | Model):
        return Router([given], **settings)
    if isinstance(given, list | tuple) and given and all(isinstance(item, str | Model) for item in given):
        return Router(list(given), **settings)
    hint = ""
    if framework_methods(given) is not None:
        hint = " An embedder that you have becomes a model: Model.wrap(embedder, like='openai:text-embedding-3-small')."
    elif callable(given):
        hint = " A function becomes a model: Model.wrap(function, space='…', dimensions=…)."
    raise ConfigError(
        f"A router is needed, not {type(given).__name__}: a Router, the name of a model such as "
        f"'openai:text-embedding-3-small', a list of models, or the path of a TOML file.{hint}"
    )
