"""Read and write vectors in stores of bytes, checking every row that is read.

Stores are read in order, the fastest first: each for what those before it do not have, and what it has is written into
these. New vectors are written to all. A store that fails fails no call: rows that cannot be read count as absent, rows
that cannot be written are not kept. A programming error in a user's own store is raised, so that its author sees it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import CacheError
from ..events import CacheRowsDamaged, Events
from ..types import Entry, Vectors
from ._codec import decode, encode, is_vector, rounded
from ._store import Cache
from ._tier import PROGRAMMING_ERRORS, Tier, advice


class VectorCache:
    """Reads and writes entries. Without a store every read is empty and nothing is kept.

    Args:
        store: keeps the rows; or several stores, the fastest first.
        names: the models' names by the mark in their keys, to be recorded beside stores that have a folder.
        clock: seconds, monotonic.

    Attributes:
        stores: keep the rows.
        dtype: the number type of the floats in rows that are written. Rows of every type are read.
        damaged: rows found damaged so far; each counted as absent.
        must_keep: whether a call whose new vectors no store can keep ends with ``CacheError`` after that request.
    """

    def __init__(
        self,
        store: Cache | Sequence[Cache] | None,
        dtype: str = "float32",
        names: Mapping[bytes, str] | None = None,
        events: Events | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        stores = store if isinstance(store, Sequence) else [] if store is None else [store]
        self.stores: tuple[Cache, ...] = tuple(stores)
        self.dtype = dtype
        self._events = events or Events()
        self._tiers = [Tier(item, self._events, names or {}, clock) for item in self.stores]
        self.damaged = 0
        self.must_keep = False

    @property
    def store(self) -> Cache | None:
        """The first store."""
        return self.stores[0] if self.stores else None

    @property
    def folder(self) -> Path | None:
        """The first folder among the stores."""
        return next((tier.folder for tier in self._tiers if tier.folder is not None), None)

    @property
    def place(self) -> str:
        """The folders and addresses of the stores, for messages."""
        return ", ".join(self.places)

    @property
    def places(self) -> dict[str, Cache]:
        """The stores by folder or address."""
        return {tier.place: tier.store for tier in self._tiers}

    @property
    def failures(self) -> int:
        """How often a store could not be read, written or closed so far."""
        return sum(tier.failures for tier in self._tiers)

    def read(self, keys: Sequence[bytes], dimensions: int, number: str = "float32") -> dict[bytes, Entry]:
        """Return the sound entries that exist, by key; a row of another length or number type is damaged."""
        entries: dict[bytes, Entry] = {}
        lacking: list[Tier] = []
        missing, damaged = keys, self.damaged
        alone = len(self._tiers) == 1
        consequence = f"its texts are {'' if alone else 'looked for in the other caches, or '}embedded, and paid for"
        for tier in self._tiers:
            rows = tier.read(missing, consequence + (", as if it were empty" if alone else ""))
            if rows is None:
                continue
            sound: dict[bytes, bytes] = {}
            for key, row in rows.items():
                own = row if type(row) is bytes else bytes(memoryview(row))  # a user's store may use its buffer again
                entry = decode(own, dimensions)
                if entry is None or entry.vector.dtype != number or not is_vector(entry.vector):
                    self.damaged += 1
                else:
                    entries[key], sound[key] = entry, own
            for other in lacking if sound else ():
                other.write(sound, "vectors of the other caches are not copied into it")
            lacking.append(tier)
            missing = [key for key in keys if key not in entries]
            if not missing:
                break
        if self.damaged > damaged == 0:
            self._events.emit(CacheRowsDamaged, place=self.place, rows=self.damaged)
        return entries

    def rounded(self, vectors: Vectors) -> Vectors:
        """Round vectors to what a later read returns, so that a miss and the hit after it agree."""
        if self.dtype == "float32" or vectors.dtype != np.float32:  # arrays that are no vectors are refused later
            return vectors
        return rounded(vectors, self.dtype)

    def write(self, entries: Mapping[bytes, Entry]) -> bool:
        """Write entries to all stores and return whether one keeps them that outlives the process, if there is one."""
        if not self._tiers or not entries:
            return bool(self._tiers)
        rows = {key: encode(entry, self.dtype) for key, entry in entries.items()}
        alone = len(self._tiers) == 1
        where = "but not kept" if alone else "and kept in the other caches alone"
        keeping = [
            tier
            for tier in self._tiers
            if tier.write(
                rows,
                f"vectors that are paid for are returned, {where}",
                always=self.must_keep,
                warn=not (alone and self.must_keep),  # then it is an error
            )
        ]
        return any(tier.persistent for tier in keeping) or (bool(keeping) and not self._persistent)

    def require_keeping(self, size: int = 0) -> None:
        """Refuse stores of which none can keep new vectors, before these are paid for.

        A store of a user's own is asked only if it has the method ``require_room`` of ``DiskCache``.

        Args:
            size: bytes that the vectors take (``disk_size``).

        Raises:
            CacheError: there is no store, or none can be written, or their disks are too small for them.
        """
        if not self._persistent:
            what = "no cache" if not self._tiers else "no cache that outlives the process"
            raise CacheError(f"There is {what} to keep vectors in, so nothing was called. Set cache=… to a folder.")
        problem: CacheError | None = None
        for tier in self._persistent:
            require_room = getattr(tier.store, "require_room", None)
            try:
                if require_room is not None:
                    require_room(size)
                return
            except PROGRAMMING_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 - a user's store may raise errors of its own
                problem = problem or _refusal(tier.place, error, "nothing was called")
                problem.__cause__ = error
        if problem is not None:
            raise problem

    def refusal(self) -> CacheError:
        """Return the error for stores of which none keeps new vectors."""
        failed = [(tier.last, tier.place) for tier in self._tiers if tier.last is not None]
        last, place = max(failed, key=lambda item: item[0][0], default=(None, self.place))
        return _refusal(place, last[1] if last else None, "nothing more is called")

    def close(self) -> None:
        """Close the stores; a later call opens them again."""
        for tier in self._tiers:
            tier.close()

    @property
    def _persistent(self) -> list[Tier]:
        return [tier for tier in self._tiers if tier.persistent]


def _refusal(place: str, error: Exception | None, consequence: str) -> CacheError:
    reason = f" ({error})" if error is not None else ""
    what_to_do = f" {advice(error, place)}" if error is not None else ""
    return CacheError(f"The cache {place} cannot keep new vectors{reason}: {consequence}.{what_to_do}")
