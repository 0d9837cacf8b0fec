"""Name the server on which routers keep what they share: cache, accounts, limits, claims, records."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..errors import ConfigError
from ..limits import Quotas
from ._books import RedisBooks
from ._cache import TIMEOUT as CACHE_TIMEOUT
from ._cache import RedisCache
from ._claims import RedisClaims
from ._limits import RedisLimits
from ._records import RedisRecords
from ._server import Server

PREFIX = "embedrouter"
OWN_OPTIONS: tuple[str, ...] = ("prefix", "ttl", "cluster")
"""Of an address, which redis-py does not know."""


class RedisState:
    """State on one Redis or Valkey server, or cluster. No connection is made before the first use.

    Args:
        address: as redis-py takes it, ``"redis://host:6379/0"``, ``"rediss://user:password@host:6380/0"`` or
            ``"unix://…"``; or a client of redis-py for all else (``RedisCluster``, ``Sentinel(…).master_for(…)``). An
            address may also say ``prefix``, ``ttl`` and ``cluster=true`` (of a node of a cluster), as in
            ``"redis://host:6379/0?prefix=team&ttl=2592000"``.
        prefix: the beginning of all keys. Routers with the same server and prefix share their state.
        ttl: seconds after which a cached vector that was not written again is removed; ``None`` keeps all.

    Raises:
        ConfigError: an argument is wrong, or redis-py is not installed.
    """

    def __init__(self, address: str | Any, *, prefix: str | None = None, ttl: float | None = None) -> None:
        self.address: str | None = address if isinstance(address, str) else None
        """As it was given, password and all."""
        own: dict[str, str] = {}
        if isinstance(address, str):
            address, own = _without_own(address)
        self.ttl = _seconds(own.get("ttl") if ttl is None else ttl)
        named = own.get("prefix", PREFIX) if prefix is None else prefix
        cluster = own.get("cluster", "").lower() in ("1", "true", "yes")
        self.server = Server(address, named, cluster=cluster)
        own_client = not isinstance(address, str)
        self._caching = self.server if own_client else Server(address, named, timeout=CACHE_TIMEOUT, cluster=cluster)

    def cache(self) -> RedisCache:
        """Return the store of vectors, for ``cache=`` of a router. Its commands wait for a shorter time than others."""
        return RedisCache(self._caching, self.ttl)

    def books(self) -> RedisBooks:
        """Return the place of accounts, for ``Ledger(books=…)``."""
        return RedisBooks(self.server)

    @property
    def place(self) -> str:
        """The server, for messages; without user and password."""
        return self.server.place

    def limits(self, account: str, quotas: Quotas, concurrency: int | None) -> RedisLimits:
        """Return the limits of a model that the routers with this state share.

        Args:
            account: of the model; its routers share the limits.
            quotas: the declared limits of requests, texts and tokens, each with its period in seconds.
            concurrency: requests in flight at once, of all routers; ``None`` for no shared limit.
        """
        return RedisLimits(self.server, blake2b(account.encode(), digest_size=8).hexdigest(), quotas, concurrency)

    def claims(self) -> RedisClaims:
        """Return the claims of texts, with which one of several processes pays for a text."""
        return RedisClaims(self.server)

    def records(self, kind: str) -> RedisRecords:
        """Return the records of one kind, such as the spaces of indexes."""
        return RedisRecords(self._caching, kind)

    def close(self) -> None:
        """Close connections; the next call opens them again."""
        self.server.close()
        self._caching.close()


def _without_own(address: str) -> tuple[str, dict[str, str]]:
    """Return an address without the options that redis-py does not know, and these."""
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {name: options.pop(name) for name in OWN_OPTIONS if name in options}
    return urlunsplit(parts._replace(query=urlencode(options))) if own else address, own


def _seconds(ttl: float | str | None) -> float | None:
    try:
        seconds = None if ttl is None else float(ttl)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"ttl must be positive seconds, not {ttl!r}; leave it out to keep all.")
    return seconds
