"""Vectors already paid for.

A ``Cache`` stores bytes under keys and knows nothing of vectors; ``VectorCache`` puts vectors in and takes them out,
checking every row. Any object with the three methods of ``Cache`` can be passed to a router.
"""

from ._keys import keyer
from ._maintenance import PAGE, Folder, Row, pages, sound
from ._memory import Memory
from ._store import DEFAULT, Cache, CacheLike, Default, default_folder, open_cache
from ._vectors import VectorCache

__all__ = [
    "DEFAULT",
    "PAGE",
    "Cache",
    "CacheLike",
    "Default",
    "Folder",
    "Memory",
    "Row",
    "VectorCache",
    "default_folder",
    "keyer",
    "open_cache",
    "pages",
    "sound",
]
