"""One Redis or Valkey server: its client, the beginning of all keys, and scripts that change several keys at once.

A client of redis-py is thread-safe and survives forks. Its calls block, so none is made on an event loop: they run in
threads, as those of SQLite do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._process import Lock
from ..errors import ConfigError

CONNECT_TIMEOUT = 2.0
"""Seconds, unless the address says another (``?socket_connect_timeout=5``)."""
TIMEOUT = 5.0
"""Seconds for the answer to one command, unless the address says another (``?socket_timeout=10``)."""
SCHEMES = ("redis://", "rediss://", "unix://")


class Server:
    """The server of an address, or of a user's own client.

    Args:
        address: an address, or a client of redis-py.
        prefix: the beginning of all keys.

    Raises:
        ConfigError: the address has another scheme, or the prefix is empty.
    """

    def __init__(self, address: str | Any, prefix: str) -> None:
        if isinstance(address, str) and not address.startswith(SCHEMES):
            raise ConfigError(f"A Redis server has an address such as 'redis://localhost:6379/0', not {address!r}.")
        if not prefix:
            raise ConfigError("prefix must not be empty: all keys begin with it.")
        self._address, self.prefix = address, prefix
        self._lock = Lock()
        self._client: Any = None if isinstance(address, str) else address
        self._scripts: dict[str, Any] = {}

    def key(self, *parts: str | bytes) -> bytes:
        """Return a key under the prefix: its parts, joined by colons."""
        return b":".join(part.encode() if isinstance(part, str) else part for part in (self.prefix, *parts))

    @property
    def client(self) -> Any:
        """The client, made at the first use; answers are bytes.

        Raises:
            ConfigError: redis-py is not installed, or cannot read the address.
        """
        with self._lock:
            if self._client is None:
                self._client = _connect(str(self._address))
            return self._client

    def run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | str | int | float]) -> Any:
        """Run a Lua script, atomically. All keys have the same hash tag, or a cluster refuses them."""
        registered = self._scripts.get(script)
        if registered is None:
            registered = self._scripts[script] = self.client.register_script(script)
        return registered(keys=keys, args=arguments)

    def close(self) -> None:
        """Close the connections of an address; a client of the user's own stays open."""
        with self._lock:
            if self._client is not None and isinstance(self._address, str):
                self._client.close()
                self._client, self._scripts = None, {}

    def __getstate__(self) -> dict[str, Any]:
        return {"address": self._address, "prefix": self.prefix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["address"], state["prefix"])  # type: ignore[misc]


def _connect(address: str) -> Any:
    try:
        import redis
    except ImportError as error:
        raise ConfigError(
            "A Redis server needs redis, which is not installed. Run: pip install 'embedrouter[redis]'"
        ) from error
    try:
        return redis.Redis.from_url(address, socket_connect_timeout=CONNECT_TIMEOUT, socket_timeout=TIMEOUT)
    except ValueError as error:
        raise ConfigError(f"The address of the Redis server cannot be read: {error}.") from error
