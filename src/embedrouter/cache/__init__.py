"""Vectors already paid for.

A ``Cache`` stores bytes under keys; ``VectorCache`` encodes vectors as rows for it and checks every row that is read.
Any object with the three methods of ``Cache`` can be passed to a router. ``CacheDatabase`` is for the maintenance of a
cache folder.
"""

from ._codec import row_size
from ._foreign import ForeignRows
from ._keys import key_function, mark
from ._maintenance import CHUNK_ROWS, CacheDatabase, StoredRow, chunked, is_sound
from ._memory import QueryMemory
from ._records import read_record, write_again, write_once
from ._served import ServedNames, same_name
from ._size import disk_size
from ._store import DEFAULT, Cache, CacheLike, Default, default_folder, open_cache
from ._vectors import VectorCache

__all__ = ["Cache"]
