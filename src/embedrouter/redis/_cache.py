"""Keep rows on a Redis or Valkey server: one string under a key for each vector.

Commands are sent for a few megabytes at a time, so that neither a command nor an answer is unbounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .._display import data_size
from ..cache import StoreError, failing
from ._server import Server

TIMEOUT = 2.0
"""Seconds for the answer to one command: a query waits, and a vector that is not there in time is paid for again."""
ROWS = "vector"
"""In the keys of all rows."""
MOST_KEYS = 500
"""In one command that reads: 3 MB of vectors of 1,536 dimensions."""
MOST_BYTES = 1_000_000
"""Of the values in one command that writes: a server without room for the command removes no older rows for it."""
ADVICE = "Look whether the server runs and can be reached; until then texts are paid for that it would have."


class RedisCache:
    """A store of rows on a server, for all workers that use it with the same prefix.

    Made by ``RedisState.cache``, or by an address as ``cache=``.

    Args:
        server: where the rows are.
        ttl: seconds after which a row is removed that was not written again; ``None`` keeps all.

    Raises:
        StoreError: from every method but ``close``: the server did not do it, or not in time.
    """

    def __init__(self, server: Server, ttl: float | None = None) -> None:
        self._server, self._ttl = server, ttl

    def __repr__(self) -> str:
        return f"RedisCache({self.place!r})"

    @property
    def place(self) -> str:
        """The address of the server, without password, for messages."""
        return self._server.place

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values that exist, by key."""
        found: dict[bytes, bytes] = {}
        with failing(ADVICE):
            client = self._server.client
            # in a cluster keys are on several nodes, and MGET is for one
            mget = getattr(client, "mget_nonatomic", client.mget)
            for start in range(0, len(keys), MOST_KEYS):
                part = keys[start : start + MOST_KEYS]
                values = mget([self._name(key) for key in part])
                found.update((key, value) for key, value in zip(part, values, strict=True) if value is not None)
        return found

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values, replacing older ones, each for ``ttl`` seconds from now on."""
        with failing(ADVICE):
            client = self._server.client
            for part in _parts(values):
                rows = {self._name(key): value for key, value in part.items()}
                if self._ttl is None:
                    getattr(client, "mset_nonatomic", client.mset)(rows)
                else:
                    self._put_for_a_time(client, rows, round(self._ttl * 1000))

    def _put_for_a_time(self, client: Any, rows: Mapping[bytes, bytes], milliseconds: int) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for name, value in rows.items():
                pipeline.set(name, value, px=milliseconds)
            pipeline.execute()

    def require_room(self, size: int) -> None:
        """Find out by writing whether rows can be kept, and whether the memory of the server takes so many bytes.

        A server that removes older rows where memory ends (``maxmemory-policy``) takes any number.

        Raises:
            StoreError: they cannot be kept.
        """
        with failing(ADVICE):
            client = self._server.client
            client.set(self._server.key("room"), b"", px=1)
            memory: Mapping[str, Any] = {}
            with suppress(Exception):  # a user without the right to ask, a cluster, a server of another kind
                memory = client.info("memory")
            limit, used = int(memory.get("maxmemory", 0)), int(memory.get("used_memory", 0))
        if limit and memory.get("maxmemory_policy") == "noeviction" and used + size > limit:
            free = data_size(max(0, limit - used))
            raise StoreError(
                f"about {data_size(size)} are needed, and {free} are free",
                MemoryError,
                "Give the server more memory (maxmemory), or let it remove old rows: maxmemory-policy allkeys-lru.",
            )

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        with failing(ADVICE):
            self._server.close()

    def _name(self, key: bytes) -> bytes:
        return self._server.key(ROWS, key.hex())


def _parts(values: Mapping[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    """Cut values into parts of at most ``MOST_BYTES``."""
    part: dict[bytes, bytes] = {}
    size = 0
    for key, value in values.items():
        if part and size + len(value) > MOST_BYTES:
            yield part
            part, size = {}, 0
        part[key] = value
        size += len(value)
    if part:
        yield part
