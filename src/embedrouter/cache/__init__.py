"""Vectors already paid for.

A ``Cache`` stores bytes under keys; ``VectorCache`` encodes vectors as rows for it and checks every row that is read.
Any object with the three methods of ``Cache`` can be passed to a router, and so can stores of LangChain and of
LlamaIndex and addresses of fsspec, for which there is a class each. ``CacheDatabase`` is for the maintenance of a
cache folder.
"""

from ._addresses import has_secret, is_address, without_password
from ._claims import Claims, ClaimState
from ._codec import row_size
from ._failing import StoreError, failing
from ._foreign import ForeignRows
from ._keys import KEY_BYTES, key_function, mark
from ._maintenance import CHUNK_ROWS, CacheDatabase, StoredRow, chunked, is_sound
from ._memory import QueryMemory
from ._opening import DEFAULT, CacheLike, Default, OneCache, as_list, default_folder, open_cache
from ._records import FolderRecords, Records, as_records, read_record, write_again, write_once
from ._served import ServedNames, same_name
from ._size import disk_size
from ._store import Cache
from ._vectors import VectorCache

__all__ = ["Cache"]
