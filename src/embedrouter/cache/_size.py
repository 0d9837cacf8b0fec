"""The disk that further vectors take in a cache folder, as SQLite lays rows out in pages.

A page holds whole rows, and the space that no further row fits into is lost. The part of a row that no page has room
for is on pages of its own. ``tests/test_estimates.py`` compares the numbers with the files of real folders.
"""

from ..types import Candidate
from ._codec import row_size
from ._disk import PAGE_SIZE, DiskCache
from ._vectors import VectorCache

AROUND = 46
"""Bytes of a row beside its value: the key, the time, the mark of the model, lengths."""
INDEXED = 43
"""Bytes of a row in the index of the keys, whose pages are two thirds full."""
MOST_ON_PAGE = PAGE_SIZE - 35
"""Bytes of a row that one page can hold."""
LEAST_ON_PAGE = (PAGE_SIZE - 12) * 32 // 255 - 23
"""Bytes of a longer row that stay with the others."""


def disk_size(cache: VectorCache, rows: int, candidate: Candidate) -> int:
    """Return the bytes that further rows of a model take; in a store of another kind, those of the values alone."""
    if cache.store is None or not rows:
        return 0
    value = row_size(candidate.space.dimensions, cache.dtype if candidate.number == "float32" else candidate.number)
    if not any(isinstance(store, DiskCache) for store in cache.stores):
        return rows * value
    size, own_pages = value + AROUND, 0
    if size > MOST_ON_PAGE:
        left = (size - LEAST_ON_PAGE) % (PAGE_SIZE - 4)
        stays = LEAST_ON_PAGE + left if LEAST_ON_PAGE + left <= MOST_ON_PAGE else LEAST_ON_PAGE
        own_pages, size = -(-(size - stays) // (PAGE_SIZE - 4)), stays
    pages = -(-rows // ((PAGE_SIZE - 8) // size)) + rows * own_pages
    return pages * PAGE_SIZE + rows * INDEXED
