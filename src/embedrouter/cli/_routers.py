"""Routers that the options of a command name, and their tiers.

Without a model and a configuration, the demo and the calibration compare two tiers of wordllama: 64 and 256 dimensions.
These are two spaces, so each needs an index of its own. In a configuration with a family such as voyage-4 two tiers
search one index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..cache import DEFAULT, Default, default_folder
from ..config import Config
from ..errors import NoModelAvailableError
from ..models import Model
from ..router import Router
from ..tiered import TieredRouter, default_tier
from ..types import InputType
from ._options import exclusive, find_config

AnyRouter: TypeAlias = Router | TieredRouter
CacheChoice: TypeAlias = Path | str | Default | None
"""A folder, ``None`` for no cache, or ``DEFAULT`` for the configured cache."""

WORDLLAMA = "wordllama:l2_supercat_256"


def choose_cache(cache: Path | None, no_cache: bool) -> CacheChoice:
    """Return the cache that ``--cache`` and ``--no-cache`` choose."""
    exclusive(cache=cache, no_cache=no_cache)
    return None if no_cache else cache or DEFAULT


def build_router(
    model: str | None, config: Config | None, cache: CacheChoice = DEFAULT
) -> tuple[AnyRouter, str | None]:
    """Build the router of a configuration or of a model, or two tiers of wordllama.

    Returns:
        The router, and the folder of its cache or ``None``.
    """
    if config:
        return assemble(config.routers(), cache, **(config.tiered()[1] if config.is_tiered else {}))
    if model:
        return assemble({"": single_model(model)}, cache)
    sizes = {"low": 64, "high": 256}
    return assemble({name: {"models": [Model(WORDLLAMA, dimensions=sizes[name], tier=name)]} for name in sizes}, cache)


def single_model(name: str) -> dict[str, Any]:
    """Return the arguments of a router for a model that an option names."""
    return {"models": [name], "on_too_long": "mean"}


def assemble(
    routers: Mapping[str, Mapping[str, Any]], cache: CacheChoice, **tiers: Any
) -> tuple[AnyRouter, str | None]:
    """Build the router of each tier from its arguments, or a single one from those of the empty string."""
    override: dict[str, Any] = {} if isinstance(cache, Default) else {"cache": cache}
    built = {tier: Router(**{**settings, **override}) for tier, settings in routers.items()}
    folders = [{**settings, **override}.get("cache", default_folder()) for settings in routers.values()]
    location = ", ".join(dict.fromkeys(str(folder) for folder in folders if folder is not None)) or None
    return built[""] if "" in built else TieredRouter(built, **tiers), location


def find_router(model: str | None, config: str | None, cache: Path | None) -> tuple[AnyRouter, str | None]:
    """Build the router that the options name: a model, a configuration, the configuration found, or wordllama."""
    exclusive(model=model, config=config)
    found = None if model else find_config(config)
    return build_router(None if found else model or WORDLLAMA, found, DEFAULT if cache is None else cache.expanduser())


def router_settings(model: str | None, config: str | None, cache: Path | None) -> dict[str, dict[str, Any]]:
    """Return the arguments of each router that the options name, by tier; ``cache`` is an absolute path or ``None``."""
    exclusive(model=model, config=config)
    found = None if model else find_config(config)
    routers: dict[str, dict[str, Any]] = found.routers() if found else {"": {"models": [model or WORDLLAMA]}}
    for settings in routers.values():
        folder = cache if cache is not None else settings.get("cache", default_folder())
        settings["cache"] = None if folder is None else Path(folder).expanduser().absolute()
    return routers


# Tiers


def separate_routers(router: AnyRouter) -> list[Router]:
    """Return the single routers, lowest tier first."""
    return [router.router(name) for name in router.own_tiers] if isinstance(router, TieredRouter) else [router]


def router_at_tier(router: AnyRouter, tier: str | None, input_type: InputType) -> tuple[Router, str]:
    """Return the single router that serves a tier (by default the usual one), and the tier to request from it."""
    name = tier or default_tier(router, input_type)
    if isinstance(router, TieredRouter):
        single = router.router(name)
        return single, default_tier(single, input_type)
    return router, name


def distinct_tiers(router: AnyRouter, input_type: InputType) -> list[str]:
    """Return the tiers that differ in the model called first, lowest first, each by its highest name."""
    if isinstance(router, TieredRouter):
        return router.own_tiers
    first_models: dict[str, str] = {}
    for name in router.tiers:
        try:
            first_models[router.estimate(["a"], input_type=input_type, tier=name).model] = name
        except NoModelAvailableError:
            break
    return list(first_models.values())


@dataclass(frozen=True, slots=True)
class ComparedTier:
    """One of the quality tiers to compare."""

    tier: str
    router: Router
    own_index: bool
    """Whether the tier needs an index besides the main index: another space."""
    documents: str
    """The tier of the documents in its index."""


def compared_tiers(router: AnyRouter) -> list[ComparedTier]:
    """Return the lowest and the highest tier that differ, or the only tier."""
    tiers = distinct_tiers(router, "query")
    lowest_and_highest = dict.fromkeys((tiers[0], tiers[-1]))
    if isinstance(router, TieredRouter):
        return [ComparedTier(name, router.router(name), name != tiers[-1], name) for name in lowest_and_highest]
    return [ComparedTier(name, router, False, default_tier(router, "document")) for name in lowest_and_highest]
