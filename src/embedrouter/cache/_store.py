"""Define the interfaces of stores, and open the stores that ``cache=`` names."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import platformdirs

from ..errors import ConfigError


@runtime_checkable
class Cache(Protocol):
    """Store of bytes under keys. Methods are called from several threads at once; each is atomic.

    A router can be pickled only if its store can be pickled; the copy has to open the same store.
    """

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the values that exist, by key."""
        ...

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values, replacing older ones. After the return they survive the end of the process."""
        ...

    def close(self) -> None:
        """Close files and connections; the next call opens them again."""
        ...


@runtime_checkable
class ByteStore(Protocol):
    """What is used of LangChain's ``BaseStore[str, bytes]``."""

    def mget(self, keys: Sequence[str], /) -> Sequence[bytes | None]:
        """Return the values of keys, in order."""
        ...

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]], /) -> None:
        """Store values under keys."""
        ...

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield all keys; Redis clients, which have the other methods as well, have no such method."""
        ...


@runtime_checkable
class KeyValueStore(Protocol):
    """What is used of LlamaIndex's ``BaseKVStore``."""

    def get(self, key: str, collection: str = ...) -> dict[str, Any] | None:
        """Return the value of a key."""
        ...

    def put(self, key: str, val: dict[str, Any], collection: str = ...) -> None:
        """Store a value under a key."""
        ...

    def put_all(self, kv_pairs: list[tuple[str, dict[str, Any]]], collection: str = ..., batch_size: int = ...) -> None:
        """Store values under keys."""
        ...


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


def is_address(cache: object) -> bool:
    """Return whether this is the address of a server or of a file system of fsspec, and not a folder."""
    return isinstance(cache, str) and "://" in cache


def without_password(place: str) -> str:
    """Return a folder as it is, and an address without user, password and options, for messages."""
    if not is_address(place):
        return place
    scheme, _, rest = place.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def has_secret(address: str) -> bool:
    """Return whether an address has a user, a password or a key, which is written nowhere."""
    rest, _, options = address.partition("://")[2].partition("?")
    names = [option.partition("=")[0].lower() for option in options.split("&")]
    return "@" in rest.partition("/")[0] or any(word in name for name in names for word in ("user", "pass", "key"))


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
        from ._fsspec import FileSystemCache

        return FileSystemCache(cache)
    if isinstance(cache, str | Path):
        from ._disk import DiskCache

        _require_folder(Path(cache).expanduser())
        return DiskCache(cache)
    if isinstance(cache, Cache):
        return cache
    if isinstance(cache, ByteStore):
        from ._framework_stores import ByteStoreCache

        return ByteStoreCache(cache)
    if isinstance(cache, KeyValueStore):
        from ._framework_stores import KeyValueStoreCache

        return KeyValueStoreCache(cache)
    client = "Of a Redis client, make RedisState(client).cache(). " if hasattr(cache, "execute_command") else ""
    raise ConfigError(f"cache must be {KINDS}, not {type(cache).__name__}. {client}".strip())
