"""The vectors of queries asked lately, in memory before the cache.

Queries come again, documents are read once: only queries are kept here, each with the best vector known of it, until
others that were asked later need the room. It belongs to one router, so all vectors are of one space.
"""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass, field

from ..types import Found

__all__ = ["QueryMemory"]

OVERHEAD = 500
"""Bytes that an entry takes besides its text and its numbers, about."""
CHARACTER = 4
"""Bytes that a character takes at most. What a text takes now is not asked: it grows when it is sent as UTF-8."""


@dataclass(slots=True)
class _Kept:
    """What is kept in one process. A forked child begins anew: nobody would release a lock held at the fork."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    found: dict[str, Found] = field(default_factory=dict)
    """The one asked longest ago first."""
    taken: int = 0


class QueryMemory:
    """Keeps what was found for texts.

    Args:
        size: bytes that it may take, about; 0 keeps nothing.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept = _Kept()
        _memories.add(self)

    def recall(self, text: str, rank: int) -> Found | None:
        """Return what is known of a text, if it is of this quality or better. Its array is not to be written to."""
        kept = self._kept
        with kept.lock:
            found = kept.found.get(text)
            if found is None or found.origin.candidate.rank < rank:
                return None
            kept.found[text] = kept.found.pop(text)
        return found

    def keep(self, text: str, found: Found) -> None:
        """Keep a copy of what was found for a text, unless something as good is known already."""
        taken = _taken(text, found)
        if taken > self._size or self.recall(text, found.origin.candidate.rank):
            return
        copy = found.again()._replace(vector=found.vector.copy())
        kept = self._kept
        with kept.lock:
            before = kept.found.get(text)
            if before is not None:
                if before.origin.candidate.rank >= found.origin.candidate.rank:  # since a moment ago
                    return
                kept.taken -= _taken(text, kept.found.pop(text))
            kept.found[text] = copy
            kept.taken += taken
            while kept.taken > self._size:
                oldest = next(iter(kept.found))
                kept.taken -= _taken(oldest, kept.found.pop(oldest))

    def clear(self) -> None:
        """Forget everything."""
        self._kept = _Kept()


def _taken(text: str, found: Found) -> int:
    return CHARACTER * len(text) + found.vector.nbytes + OVERHEAD


_memories: weakref.WeakSet[QueryMemory] = weakref.WeakSet()


def _after_in_child() -> None:
    for memory in list(_memories):
        memory.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
