"""What keeps rows: the interface of a store, and the store that ``cache=`` names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import platformdirs

from ..errors import ConfigError

__all__ = ["DEFAULT", "Cache", "CacheLike", "Default", "default_folder", "open_cache"]


@runtime_checkable
class Cache(Protocol):
    """Bytes under keys. Methods are called from several threads at once; each is atomic.

    To travel with a router to another process an implementation must pickle; the copy opens the same store.
    """

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the values that exist, by key."""
        ...

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values, over older ones; when this returns they survive the end of the process."""
        ...

    def close(self) -> None:
        """Release what is held; the next call opens it again."""
        ...


CacheLike: TypeAlias = str | Path | Cache | None


def default_folder() -> Path:
    """Return the folder that is used when the user names none."""
    return Path(platformdirs.user_cache_dir("embedrouter", appauthor=False))


class Default:
    """Stands for "the user's cache folder" where ``None`` already means "no cache"."""

    def __repr__(self) -> str:
        return "DEFAULT"


DEFAULT = Default()


def open_cache(cache: CacheLike | Default) -> Cache | None:
    """Return the store that a router's ``cache=`` names. Touches no file.

    Raises:
        ConfigError: it is none of a path, a ``Cache`` and ``None``.
    """
    if cache is None:
        return None
    if isinstance(cache, Default):
        cache = default_folder()
    if isinstance(cache, str) and "://" in cache:
        raise ConfigError(f"cache={cache.partition('://')[0]}://… is not supported. Give a folder, or a Cache object.")
    if isinstance(cache, str | Path):
        from ._disk import DiskCache

        return DiskCache(cache)
    if isinstance(cache, Cache):
        return cache
    raise ConfigError(f"cache must be a folder, a Cache object or None, not {type(cache).__name__}.")
