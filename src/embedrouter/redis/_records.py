"""Small JSON records on a Redis server, one hash for each kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .._display import masked
from ..errors import EmbedRouterError
from ._server import Server


class RedisRecords:
    """The records of one kind.

    Args:
        server: the Redis server.
        kind: such as "indexes".
    """

    def __init__(self, server: Server, kind: str) -> None:
        self._server, self._key = server, server.key("records", kind)

    @property
    def place(self) -> str:
        return self._server.place

    @property
    def shared(self) -> bool:
        return True

    def read(self, name: str) -> Any:
        with _failing():
            record = self._server.client.hget(self._key, name)
        return None if record is None else json.loads(record)

    def write_once(self, name: str, record: Mapping[str, object]) -> None:
        with _failing():
            self._server.client.hsetnx(self._key, name, json.dumps(record))

    def write_again(self, name: str, record: Mapping[str, object]) -> None:
        with _failing():
            self._server.client.hset(self._key, name, json.dumps(record))

    def remove(self, name: str) -> None:
        with _failing():
            self._server.client.hdel(self._key, name)

    def names(self) -> list[str]:
        with _failing():
            return sorted(name.decode() for name in self._server.client.hkeys(self._key))


@contextmanager
def _failing() -> Iterator[None]:
    """Turn errors of the client into ``OSError``, as those of a folder are."""
    try:
        yield
    except (EmbedRouterError, OSError):
        raise
    except Exception as error:
        raise OSError(masked(f"{type(error).__name__}: {error}")) from error
