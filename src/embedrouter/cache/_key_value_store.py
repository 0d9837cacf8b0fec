"""Keep rows in a LlamaIndex key-value store, whose values are JSON objects: the bytes of a row as base64."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

from ._failing import failing
from ._store import KeyValueStore

COLLECTION = "embedrouter"
"""As a table of its own, because other programs may use the store."""
FIELD = "vector"
BATCH = 500
"""Rows that are stored at once, where the store can do so."""
ADVICE = "Look into the settings of that store; until it works texts are paid for that it would have."


class KeyValueStoreCache:
    """A store of rows in a LlamaIndex ``BaseKVStore``. It can be pickled where that store can.

    Such a store reads one value at a time.

    Raises:
        StoreError: from every method but ``close``: that store failed.
    """

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        self._batch = BATCH

    @property
    def place(self) -> str:
        """The class of the store, for messages."""
        return type(self._store).__name__

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

    def close(self) -> None:
        """Do nothing: whoever made the store closes it."""


def _decoded(text: str) -> bytes:
    """Return the bytes of a row; of a damaged one bytes that are no row."""
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return b""
