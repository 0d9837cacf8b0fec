"""Name the server on which routers keep what they share: cache, accounts, limits, claims, records."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ._server import Server

PREFIX = "embedrouter"


class RedisState:
    """State on one Redis or Valkey server, or cluster. No connection is made before the first use.

    Args:
        address: as redis-py takes it, ``"redis://host:6379/0"``, ``"rediss://user:password@host:6380/0"`` or
            ``"unix://…"``; or a client of redis-py for all else (``RedisCluster``, ``Sentinel(…).master_for(…)``).
        prefix: the beginning of all keys. Routers with the same server and prefix share their state.
        ttl: seconds after which a cached vector that was not written again is removed; ``None`` keeps all.

    Raises:
        ConfigError: an argument is wrong.
    """

    def __init__(self, address: str | Any, *, prefix: str = PREFIX, ttl: float | None = None) -> None:
        if ttl is not None and not ttl > 0:
            raise ConfigError(f"ttl must be positive seconds, not {ttl}; leave it out to keep all.")
        self.server = Server(address, prefix)
        self.ttl = ttl

    def close(self) -> None:
        """Close connections; the next call opens them again."""
        self.server.close()
