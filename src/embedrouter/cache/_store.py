"""Define the interface of a store, and open the store that ``cache=`` names."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, overload, runtime_checkable

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


CacheLike: TypeAlias = str | Path | Cache | None


def default_folder() -> Path:
    """Return the cache folder of the user, for callers that name no folder."""
    return Path(platformdirs.user_cache_dir("embedrouter", appauthor=False))


class Default:
    """Sentinel for "the user's cache folder", because ``None`` already means "no cache"."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = Default()


def _require_folder(folder: Path) -> None:
    """Refuse a path that no folder can have, because it is a file or in a file. Nothing is made.

    Raises:
        ConfigError: the message has the folder to write.
    """
    place = next((path for path in (folder, *folder.parents) if os.path.exists(path)), folder)  # noqa: PTH110 - pathlib raises
    if os.path.isfile(place):  # noqa: PTH113
        raise ConfigError(f"cache={str(folder)!r}: {place} is a file, not a folder. Write cache={str(place.parent)!r}.")


@overload
def open_cache(cache: str | Path | Cache | Default) -> Cache: ...
@overload
def open_cache(cache: CacheLike | Default) -> Cache | None: ...
def open_cache(cache: CacheLike | Default) -> Cache | None:
    """Return the store that a router's ``cache=`` names. No file is opened or made.

    Raises:
        ConfigError: ``cache`` is not a path, a ``Cache`` or ``None``.
    """
    if cache is None:
        return None
    if isinstance(cache, Default):
        cache = default_folder()
    if isinstance(cache, str) and "://" in cache:
        raise ConfigError(f"cache={cache.partition('://')[0]}://… is not supported. Give a folder, or a Cache object.")
    if isinstance(cache, str | Path):
        from ._disk import DiskCache

        _require_folder(Path(cache).expanduser())
        return DiskCache(cache)
    if isinstance(cache, Cache):
        return cache
    raise ConfigError(f"cache must be a folder, a Cache object or None, not {type(cache).__name__}.")
