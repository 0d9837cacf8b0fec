"""Open the stores that a router's ``cache=`` and ``state=`` name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..cache import Cache, CacheLike, Default, as_list, open_cache
from ._cache import RedisCache
from ._server import SCHEMES
from ._state import RedisState


def _of_address(address: str) -> Cache:
    return RedisState(address).cache()


SERVERS: Mapping[str, Callable[[str], Cache]] = {scheme.partition(":")[0]: _of_address for scheme in SCHEMES}


def open_caches(cache: CacheLike | Default, state: RedisState | None = None) -> list[Cache]:
    """Return the stores of a router, the fastest first. No file and no connection is opened or made.

    The server of ``state`` is the only store where no cache is named, and otherwise comes after those that are named,
    unless a Redis server is among these; with ``cache=None`` there is no store.

    Raises:
        ConfigError: the cache is nothing of that kind, or a package is missing.
    """
    if state is not None and isinstance(cache, Default):
        return [state.cache()]
    stores = [open_cache(item, SERVERS) for item in as_list(cache)]
    if state is not None and stores and not any(isinstance(store, RedisCache) for store in stores):
        stores.append(state.cache())
    return stores
