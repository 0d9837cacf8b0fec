"""Configurations, routers and cache folders that the options of a command name.

A model that an option names becomes the same ``Config`` that a file would give.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ..cache import DEFAULT, as_list, is_address
from ..config import Config, load
from ..errors import ConfigError
from ..router import Router
from ..tiered import TieredRouter, default_tier
from ..types import InputType, OverlongPolicy
from ._exclusive import exclusive

AnyRouter: TypeAlias = Router | TieredRouter

COMMAND_LINE = Path("the command line")
"""In place of the file of a configuration."""
WORDLLAMA = "wordllama:l2_supercat_256"


def read_config(file: str) -> Config:
    """Read the configuration that ``--config`` names; ``auto`` searches for the file."""
    return load(None if file == "auto" else file)


def find_config(model: str | None, file: str | None) -> Config:
    """Return the configuration that the options name, or the one that a search finds, or that of wordllama.

    Raises:
        BadParameter: both options were given.
        ConfigError: the file cannot be read, whether named or found.
    """
    exclusive(model=model, config=file)
    if not model:
        try:
            return read_config(file or "auto")
        except ConfigError as error:
            if file or error.__cause__:  # a file is named, or exists and is broken
                raise
    return Config(COMMAND_LINE, settings_for(model or WORDLLAMA), named=True)


def settings_for(model: str) -> dict[str, Any]:
    """Return what a configuration file would say of a router for one model."""
    return {"models": [{"model": model}], "on_too_long": "mean"}


def find_router(
    model: str | None, config: str | None, cache: str | Path | None, on_too_long: OverlongPolicy | None = None
) -> AnyRouter:
    """Build the router of ``find_config``, with what further options say in place of the configuration."""
    override = {"cache": cache, "on_too_long": on_too_long}
    return _build(find_config(model, config), {name: value for name, value in override.items() if value is not None})


def build_router(file: str | None, otherwise: Mapping[str, Any], cache: str | None, no_cache: bool) -> AnyRouter:
    """Build the router of a named configuration, or of the content that a configuration would have.

    Raises:
        BadParameter: both cache options were given.
    """
    exclusive(cache=cache, no_cache=no_cache)
    config = read_config(file) if file else Config(COMMAND_LINE, otherwise, named=True)
    return _build(config, {"cache": cache} if cache or no_cache else {})


def _build(config: Config, override: Mapping[str, Any]) -> AnyRouter:
    built = {tier: Router(**{**settings, **override}) for tier, settings in config.routers().items()}
    return TieredRouter(built, **config.tiered()[1]) if config.is_tiered else built[""]


# Cache folders


def cache_folder(cache: str | None, file: str | None) -> Path:
    """Return the cache folder that ``--cache`` and ``--config`` name, without opening the folder.

    Of several stores of a router this is the first that is a folder.

    Raises:
        BadParameter: both options were given.
        ConfigError: the configuration has no cache, or several, or one that is no folder.
    """
    places = _cache_places(cache, file)
    folders = {Path(place).expanduser().absolute() for place in places if not is_address(place)}
    if len(folders) == 1:
        return folders.pop()
    if places and not folders:
        raise ConfigError(
            "This command reads and changes a cache folder, and this cache is none. On a Redis server "
            "redis-cli --scan --pattern 'embedrouter:vector:*' shows the rows, and ?ttl=SECONDS in its address removes "
            "those that were not written for so long. Name a folder: --cache DIR."
        )
    raise ConfigError(f"The configuration has {len(folders) or 'no'} caches. Name the folder: --cache DIR.")


def cache_place(cache: str | None, file: str | None) -> str | Path:
    """Return the one cache that ``--cache`` and ``--config`` name, a folder or an address: of several the first folder.

    Raises:
        BadParameter: both options were given.
        ConfigError: the configuration has no cache, or several.
    """
    places = _cache_places(cache, file)
    if len(places) == 1 and is_address(places[0]):
        return str(places[0])
    return cache_folder(cache, file)


def _cache_places(cache: str | None, file: str | None) -> list[Any]:
    """Return the first folder, or else the first address, of each cache that the options name."""
    exclusive(cache=cache, config=file)
    if cache is not None:
        return [cache]
    caches = []
    for settings in find_config(None, file).routers().values():
        own = settings.get("cache", settings.get("state", DEFAULT))
        caches.append(sorted(as_list(own), key=is_address)[:1])
    return [place for places in caches for place in places]


def cache_location(router: AnyRouter) -> str | None:
    """Return the folders and addresses of a router's cache, or ``None``."""
    return ", ".join(dict.fromkeys(single.cache.place for single in separate_routers(router))) or None


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
    estimates = router.estimate_tiers(["a"], input_type=input_type)
    return list({estimate.model: name for name, estimate in estimates.items()}.values())
