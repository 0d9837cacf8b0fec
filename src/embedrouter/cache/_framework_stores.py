"""Keep rows in stores of frameworks: LangChain's stores of bytes, and LlamaIndex's key-value stores."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from ._failing import failing
from ._store import ByteStore, KeyValueStore

S = TypeVar("S")

PREFIX = "embedrouter/"
"""Before all keys of a LangChain store, because other programs may use the store."""
COLLECTION = "embedrouter"
"""As a table of its own in a LlamaIndex store, because other programs may use the store."""
FIELD = "vector"
"""Of a value in a LlamaIndex store, which is a JSON object: the bytes of a row as base64."""
BATCH = 500
"""Rows that are stored at once, where a LlamaIndex store can do so."""
ADVICE = "Look into the settings of that store; until it works texts are paid for that it would have."


class _FrameworkStore(Generic[S]):
    """A store of rows in a framework's store. It can be pickled where that store can.

    Raises:
        StoreError: from every method but ``close``: that store failed.
    """

    def __init__(self, store: S) -> None:
        self._store = store

    @property
    def place(self) -> str:
        """The class of the store, for messages."""
        return type(self._store).__name__

    def close(self) -> None:
        """Do nothing: the program that made the store closes it."""


class ByteStoreCache(_FrameworkStore[ByteStore]):
    """Rows in a LangChain ``BaseStore[str, bytes]``: Redis, Upstash, Cassandra, local files, memory and others."""

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


class KeyValueStoreCache(_FrameworkStore[KeyValueStore]):
    """Rows in a LlamaIndex ``BaseKVStore``, which reads one value at a time."""

    def __init__(self, store: KeyValueStore) -> None:
        super().__init__(store)
        self._batch = BATCH

    @property
    def persistent(self) -> bool:
        """Whether the store outlives the process; one that is saved by its owner, with ``persist``, does not."""
        types = sys.modules.get("llama_index.core.storage.kvstore.types")
        return types is None or not isinstance(self._store, types.BaseInMemoryKVStore | types.MutableMappingKVStore)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values that exist, by key."""
        found: dict[bytes, bytes] = {}
        for key in keys:
            with failing(ADVICE):
                value = self._store.get(key.hex(), collection=COLLECTION)
            row = value.get(FIELD) if isinstance(value, Mapping) else None
            if isinstance(row, str):
                found[key] = _decoded(row)
        return found

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values, replacing older ones."""
        rows = [(key.hex(), {FIELD: b64encode(value).decode("ascii")}) for key, value in values.items()]
        with failing(ADVICE):
            if self._batch > 1:
                try:
                    self._store.put_all(rows, collection=COLLECTION, batch_size=self._batch)
                except NotImplementedError:  # the default of the base class
                    self._batch = 1
                else:
                    return
            for name, row in rows:
                self._store.put(name, row, collection=COLLECTION)


def _name(key: bytes) -> str:
    return PREFIX + key.hex()


def _decoded(text: str) -> bytes:
    """Return the bytes of a row; of a damaged one bytes that are no row."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""
