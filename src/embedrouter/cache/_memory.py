"""Keep the vectors of recent queries in memory, in front of the cache.

The same query is often asked again, a document is embedded once: so queries alone are kept, each with its best known
vector, until more recent queries need the room. One ``QueryMemory`` belongs to one router, so all its vectors are of
one space.
"""

import threading
from dataclasses import dataclass, field

from .._process import PerProcess
from ..types import Found

ENTRY_BYTES = 500
"""Bytes of an entry besides its text and its numbers, about."""
CHARACTER_BYTES = 4
"""Largest size of a character. ``sys.getsizeof`` would count too little: Python keeps the UTF-8 form of a text beside
the text from the moment when an SDK first asks for that form."""


@dataclass(slots=True)
class _Contents:
    """Entries of one process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    entries: dict[str, Found] = field(default_factory=dict)
    """Ordered from the least to the most recently used."""
    size: int = 0


class QueryMemory:
    """Least-recently-used memory from a query's text to its best known vector. A forked child starts empty.

    Args:
        size: the most bytes that the entries may take, about; 0 keeps nothing.
    """

    def __init__(self, size: int) -> None:
        self._limit = size
        self._contents = PerProcess(_Contents)

    @property
    def size(self) -> int:
        """Return the bytes that the entries take, about."""
        return self._contents.get().size

    def __len__(self) -> int:
        return len(self._contents.get().entries)

    def recall(self, text: str, rank: int) -> Found | None:
        """Return the vector of a text if its model has this rank or a better one. The array is not to be changed."""
        contents = self._contents.get()
        with contents.lock:
            found = contents.entries.get(text)
            if found is None or found.origin.candidate.rank < rank:
                return None
            contents.entries[text] = contents.entries.pop(text)
        return found

    def keep(self, text: str, found: Found) -> None:
        """Keep a copy of a text's vector, unless a vector of the same or a better model is kept already."""
        if _size(text, found) > self._limit or self.recall(text, found.origin.candidate.rank):
            return
        copy = found.again()._replace(vector=found.vector.copy())
        contents = self._contents.get()
        with contents.lock:
            before = contents.entries.pop(text, None)
            if before is not None:
                contents.size -= _size(text, before)
                copy = max(before, copy, key=lambda item: item.origin.candidate.rank)  # kept since recall
            contents.entries[text] = copy
            contents.size += _size(text, copy)
            while contents.size > self._limit:
                oldest = next(iter(contents.entries))
                contents.size -= _size(oldest, contents.entries.pop(oldest))

    def clear(self) -> None:
        """Forget all entries."""
        contents = self._contents.get()
        with contents.lock:
            contents.entries.clear()
            contents.size = 0


def _size(text: str, found: Found) -> int:
    return CHARACTER_BYTES * len(text) + found.vector.nbytes + ENTRY_BYTES
