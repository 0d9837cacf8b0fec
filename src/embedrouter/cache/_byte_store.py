"""Keep rows in a LangChain store of bytes: Redis, Upstash, Cassandra, local files, memory and others."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from ._failing import failing
from ._store import ByteStore

PREFIX = "embedrouter/"
"""Before all keys, because other programs may use the store."""
ADVICE = "Look into the settings of that store; until it works texts are paid for that it would have."


class ByteStoreCache:
    """A store of rows in a LangChain ``BaseStore[str, bytes]``. It can be pickled where that store can.

    Raises:
        StoreError: from every method but ``close``: that store failed.
    """

    def __init__(self, store: ByteStore) -> None:
        self._store = store

    @property
    def place(self) -> str:
        """The class of the store, for messages."""
        return type(self._store).__name__

    @property
    def persistent(self) -> bool:
        """Whether the store outlives the process."""
        stores = sys.modules.get("langchain_core.stores")
        return stores is None or not isinstance(self._store, stores.InMemoryBaseStore)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values that exist, by key."""
        with failing(ADVICE):
            values = self._store.mget([_name(key) for key in keys]) if keys else []
            return {key: value for key, value in zip(keys, values, strict=True) if isinstance(value, bytes)}

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values, replacing older ones."""
        with failing(ADVICE):
            self._store.mset([(_name(key), value) for key, value in values.items()])

    def close(self) -> None:
        """Do nothing: whoever made the store closes it."""


def _name(key: bytes) -> str:
    return PREFIX + key.hex()
