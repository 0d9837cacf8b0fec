"""Open the stores that ``cache=`` names."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import platformdirs

from ..errors import ConfigError
from ._addresses import is_address
from ._disk import DiskCache
from ._framework_stores import ByteStoreCache, KeyValueStoreCache
from ._fsspec import FileSystemCache
from ._store import ByteStore, Cache, KeyValueStore

OneCache: TypeAlias = str | Path | Cache | ByteStore | KeyValueStore
CacheLike: TypeAlias = OneCache | Sequence[OneCache] | None


def default_folder() -> Path:
    """Return the cache folder of the user, for callers that name no folder."""
    return Path(platformdirs.user_cache_dir("embedrouter", appauthor=False))


class Default:
    """Sentinel for "the user's cache folder", because ``None`` already means "no cache"."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = Default()
KINDS = (
    "a folder, an address such as 's3://bucket/folder' or 'redis://host:6379/0', an object with the methods of "
    "embedrouter.cache.Cache, a BaseStore of LangChain, a BaseKVStore of LlamaIndex, a list of these, or None"
)


def _require_folder(folder: Path) -> None:
    """Refuse a path that no folder can have, because it is a file or in a file. Nothing is made.

    Raises:
        ConfigError: the message has the folder to write.
    """
    place = next((path for path in (folder, *folder.parents) if os.path.exists(path)), folder)  # noqa: PTH110 - pathlib raises
    if os.path.isfile(place):  # noqa: PTH113
        raise ConfigError(f"cache={str(folder)!r}: {place} is a file, not a folder. Write cache={str(place.parent)!r}.")


def as_list(cache: CacheLike | Default) -> list[OneCache]:
    """Return what ``cache=`` names, one by one, the fastest first.

    Raises:
        ConfigError: a list is empty.
    """
    if cache is None:
        return []
    if isinstance(cache, Default):
        return [default_folder()]
    if isinstance(cache, list | tuple):
        if not cache:
            raise ConfigError("cache=[] names no cache. Write cache=None for none.")
        return list(cache)
    return [cache]  # type: ignore[list-item]


def open_cache(cache: OneCache, servers: Mapping[str, Callable[[str], Cache]] | None = None) -> Cache:
    """Return the store that one entry of ``cache=`` names. No file and no connection is opened or made.

    Args:
        servers: what opens the addresses of a scheme, where that is no file system of fsspec.

    Raises:
        ConfigError: ``cache`` is nothing of that kind, or a package is missing.
    """
    if isinstance(cache, str) and is_address(cache):
        scheme = cache.partition("://")[0].lower()
        if servers and scheme in servers:
            return servers[scheme](cache)
        return FileSystemCache(cache)
    if isinstance(cache, str | Path):
        _require_folder(Path(cache).expanduser())
        return DiskCache(cache)
    if isinstance(cache, Cache):
        return cache
    if isinstance(cache, ByteStore):
        return ByteStoreCache(cache)
    if isinstance(cache, KeyValueStore):
        return KeyValueStoreCache(cache)
    client = "Of a Redis client, make RedisState(client).cache(). " if hasattr(cache, "execute_command") else ""
    raise ConfigError(f"cache must be {KINDS}, not {type(cache).__name__}. {client}".strip())
