"""Routers that the options of a command name, and their tiers.

Without a model and a configuration, the demo and the calibration compare two tiers of wordllama: 64 and 256 dimensions.
These are two spaces, so each needs an index of its own. In a configuration with a family such as voyage-4 two tiers
search one index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..cache import DEFAULT, Default, default_folder
from ..config import load
from ..errors import NoModelAvailableError
from ..models import Model
from ..router import Router
from ..tiered import TieredRouter, default_tier
from ..types import InputType
from ._options import find_config

AnyRouter: TypeAlias = Router | TieredRouter
CacheChoice: TypeAlias = Path | str | Default | None
"""A folder, ``None`` for no cache, or ``DEFAULT`` for the configured cache."""

WORDLLAMA = "wordllama:l2_supercat_256"


def build_router(model: str | None, config: str | None, cache: CacheChoice = DEFAULT) -> tuple[AnyRouter, str | None]:
    """Build the router that a configuration or a model names, or two tiers of wordllama.

    Returns:
        The router, and the folder of its cache or ``None``.
    """
    override: dict[str, Any] = {} if isinstance(cache, Default) else {"cache": cache}
    if config:
        loaded = load(None if config == "auto" else config)
        routers = {tier: {**settings, **override} for tier, settings in loaded.routers().items()}
        location = _cache_location(routers.values())
        if not loaded.is_tiered:
            return Router(**routers[""]), location
        _, tiers = loaded.tiered()
        return TieredRouter({tier: Router(**settings) for tier, settings in routers.items()}, **tiers), location
    location = _cache_location([override])
    if model:
        return Router([model], on_too_long="mean", **override), location
    low = Router([Model(WORDLLAMA, dimensions=64, tier="low")], **override)
    high = Router([Model(WORDLLAMA, dimensions=256, tier="high")], **override)
    return TieredRouter({"low": low, "high": high}), location


def find_router(model: str | None, config: str | None, cache: Path | None) -> tuple[AnyRouter, str | None]:
    """Build the router that the options name: a model, a configuration, the configuration found, or wordllama."""
    folder: CacheChoice = DEFAULT if cache is None else cache.expanduser()
    found = None if model else find_config(config)
    return build_router(None, found, folder) if found else build_router(model or WORDLLAMA, None, folder)


def router_settings(model: str | None, config: str | None, cache: Path | None) -> dict[str, dict[str, Any]]:
    """Return the arguments of each router that the options name, by tier; ``cache`` is an absolute path or ``None``."""
    found = None if model else find_config(config)
    if found is None:
        routers: dict[str, dict[str, Any]] = {"": {"models": [model or WORDLLAMA]}}
    else:
        routers = dict(load(None if found == "auto" else found).routers())
    for settings in routers.values():
        folder = cache if cache is not None else settings.get("cache", default_folder())
        settings["cache"] = None if folder is None else Path(folder).expanduser().absolute()
    return routers


def _cache_location(routers: Iterable[Mapping[str, Any]]) -> str | None:
    folders = [settings.get("cache", default_folder()) for settings in routers]
    return ", ".join(dict.fromkeys(str(folder) for folder in folders if folder is not None)) or None


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


def compared_tiers(router: AnyRouter, question: str) -> list[ComparedTier]:
    """Return the lowest and the highest tier that differ, or the only tier."""
    answering: dict[str | int, ComparedTier] = {}
    for name in router.tiers:
        try:
            if isinstance(router, TieredRouter):
                single = router.router(name)
                answering[id(single)] = ComparedTier(name, single, own_index=True, documents=name)
            else:
                model = router.estimate([question], input_type="query", tier=name).model
                documents = default_tier(router, "document")
                answering[model] = ComparedTier(name, router, own_index=False, documents=documents)
        except NoModelAvailableError:
            break
    tiers = list(answering.values())
    main = replace(tiers[-1], own_index=False)
    return [tiers[0], main] if len(tiers) > 1 else [main]
