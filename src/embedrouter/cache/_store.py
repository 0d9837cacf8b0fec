"""Define the interfaces of the stores that a router can keep vectors in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Cache(Protocol):
    """Store of bytes under keys. Methods are called from several threads at once; each is atomic.

    A router can be pickled only if its store can be pickled; the copy has to open the same store.
    """

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the values that exist, by key."""
        ...

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        """Store all values, replacing older ones. After the return they survive the end of the process."""
        ...

    def close(self) -> None:
        """Close files and connections; the next call opens them again."""
        ...


@runtime_checkable
class ByteStore(Protocol):
    """What is used of LangChain's ``BaseStore[str, bytes]``."""

    def mget(self, keys: Sequence[str], /) -> Sequence[bytes | None]:
        """Return the values of keys, in order."""
        ...

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]], /) -> None:
        """Store values under keys."""
        ...

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """Yield all keys; Redis clients, which have the other methods as well, have no such method."""
        ...


@runtime_checkable
class KeyValueStore(Protocol):
    """What is used of LlamaIndex's ``BaseKVStore``."""

    def get(self, key: str, collection: str = ...) -> dict[str, Any] | None:
        """Return the value of a key."""
        ...

    def put(self, key: str, val: dict[str, Any], collection: str = ...) -> None:
        """Store a value under a key."""
        ...

    def put_all(self, kv_pairs: list[tuple[str, dict[str, Any]]], collection: str = ..., batch_size: int = ...) -> None:
        """Store values under keys."""
        ...
