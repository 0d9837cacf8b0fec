"""One Redis or Valkey server: its client, the beginning of all keys, and scripts that change several keys at once.

A client of redis-py is thread-safe and survives forks. Its calls block, so none is made on an event loop: they run in
threads, as those of SQLite do.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from .._process import Lock, PerProcess, importing
from ..cache import without_password
from ..errors import ConfigError

CONNECT_TIMEOUT = 2.0
"""Seconds, unless the address says another (``?socket_connect_timeout=5``)."""
TIMEOUT = 5.0
"""Seconds for the answer to one command, unless the address says another (``?socket_timeout=10``)."""
MOST_CONNECTIONS = 1000
"""Of one process, unless the address says another (``?max_connections=50``): one for each thread that waits."""
SCHEMES = ("redis://", "rediss://", "unix://")


class _Made:
    """What one process makes of an address."""

    def __init__(self, client: Any = None) -> None:
        self.lock = Lock()
        self.client = client
        self.scripts: dict[str, Any] = {}


class Server:
    """The server of an address, or of a user's own client.

    Args:
        address: an address, or a client of redis-py.
        prefix: the beginning of all keys.
        timeout: seconds for the answer to one command of an address that says no other.
        cluster: whether the address is of a node of a cluster.

    Raises:
        ConfigError: the address has another scheme, redis-py is not installed, the client is one that cannot be used,
            or the prefix is empty.
    """

    def __init__(self, address: str | Any, prefix: str, *, timeout: float = TIMEOUT, cluster: bool = False) -> None:
        if isinstance(address, str):
            if not address.startswith(SCHEMES):
                raise ConfigError("A Redis server has an address such as 'redis://localhost:6379/0'.")
            _require_installed()
        else:
            _require_usable(address)
        if not prefix:
            raise ConfigError("prefix must not be empty: all keys begin with it.")
        self._given = address, prefix, timeout, cluster
        self._address, self.prefix = address, prefix
        own = None if isinstance(address, str) else address
        self._made = PerProcess(lambda: _Made(own))

    @property
    def place(self) -> str:
        """The address without user, password and options, for messages."""
        if not isinstance(self._address, str):
            return type(self._address).__name__
        return without_password(self._address)

    def key(self, *parts: str | bytes) -> bytes:
        """Return a key under the prefix: its parts, joined by colons."""
        return b":".join(part.encode() if isinstance(part, str) else part for part in (self.prefix, *parts))

    @property
    def client(self) -> Any:
        """The client, made at the first use; answers are bytes.

        Raises:
            ConfigError: redis-py cannot read the address.
        """
        made = self._made.get()
        if made.client is None:
            with made.lock:
                if made.client is None:
                    made.client = _connect(*self._given)
        return made.client

    def run(self, script: str, keys: Sequence[bytes], arguments: Sequence[bytes | str | int | float]) -> Any:
        """Run a Lua script, atomically. All keys have the same hash tag, or a cluster refuses them."""
        scripts = self._made.get().scripts
        registered = scripts.get(script)
        if registered is None:
            registered = scripts[script] = self.client.register_script(script)
        return registered(keys=keys, args=arguments)

    def close(self) -> None:
        """Close the connections of an address, the next call opens others; a client of the user's own stays open.

        Those that other threads use stay open: routers may share a server, and one of them is closed.
        """
        made = self._made.get()
        if made.client is not None and isinstance(self._address, str):
            for client in _clients_of_nodes(made.client):
                client.connection_pool.disconnect(inuse_connections=False)

    def __getstate__(self) -> tuple[Any, ...]:
        return self._given

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        address, prefix, timeout, cluster = state
        self.__init__(address, prefix, timeout=timeout, cluster=cluster)  # type: ignore[misc]


def _clients_of_nodes(client: Any) -> list[Any]:
    """Return the clients that have connections: of a cluster, those of its nodes."""
    if not hasattr(client, "get_nodes"):
        return [client]
    return [node.redis_connection for node in client.get_nodes() if node.redis_connection is not None]


def _require_installed() -> None:
    if find_spec("redis") is None:
        raise ConfigError("A Redis server needs redis, which is not installed. Run: pip install 'embedrouter[redis]'")


def _require_usable(client: Any) -> None:
    such = "Give an address, or a client of redis-py, such as redis.Redis(host=…)"
    if not callable(getattr(client, "execute_command", None)):
        raise ConfigError(f"{such}, not {type(client).__name__}.")
    if any(kind.__module__.startswith("redis.asyncio") for kind in type(client).__mro__):
        raise ConfigError(f"{such}, not of redis.asyncio: the calls of both forms run in threads.")
    if getattr(client.get_encoder(), "decode_responses", False):
        raise ConfigError(f"{such}, without decode_responses=True: values are bytes.")


def _connect(address: str, _: str, timeout: float, cluster: bool) -> Any:
    with importing:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": timeout,
        "max_connections": MOST_CONNECTIONS,
        # once more where a connection is gone, as after a restart of the server; what takes too long is not repeated
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }
    problem = ""
    try:
        if cluster:
            return redis.RedisCluster.from_url(address, **options)
        client = redis.Redis.from_url(address, **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # refuses unknown options of the address; connects nothing
    except ValueError:
        problem = "its port, its database or an option has no value that redis-py takes"
    except TypeError:
        problem = "it has an option that redis-py does not know"
    else:
        if not getattr(client.get_encoder(), "decode_responses", False):
            return client
        problem = "decode_responses is not possible, because values are bytes"
    raise ConfigError(f"The address of the Redis server cannot be used: {problem}.")  # it may have a password
