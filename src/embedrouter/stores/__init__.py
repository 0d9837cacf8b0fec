"""Vector stores whose own metadata say which space their vectors are in.

    from embedrouter.stores import guard, metadata

    store = guard(QdrantVectorStore(client, "handbook", embeddings), router)
    guard("./faiss", router)                  # before FAISS.load_local, and before the first save_local

The space is two entries in the store's own metadata, or in a small file of its folder. They travel with the store, so
every machine that opens the store through ``guard`` is held to them. ``docs/stores.md`` lists the stores and the places
of the entries.

``guard`` checks the entries when a store is opened, and writes them into an empty store that has none. Of a store that
holds vectors and no entries, ``guard(…, adopt=True)`` compares a few vectors with those of the router first.
``metadata`` returns the entries for those stores that take them when they are created, which is atomic. Of two
processes that mark an empty store in the same instant the later entries stay, and the other space is refused at the
next opening.

Stores are recognised by their methods, so this module imports neither a store nor a framework.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .._process import in_thread
from ..errors import ConfigError
from ..retrieval.index_guard import record_index
from ..retrieval.store_guard import Adopt, Marked, embedder_of, hold, metadata, require_same_router
from ..router import Router
from ._chroma import ChromaCollection
from ._chroma import find as find_chroma
from ._dumped import DumpedStore
from ._filling import MAKERS as MAKERS
from ._filling import filling as filling
from ._folder import Folder
from ._lance import LanceTable
from ._milvus import MilvusCollection
from ._opening import FILES as FILES
from ._opening import is_store as is_store
from ._opening import opened
from ._postgres import LangChainCollection, PostgresTable
from ._qdrant import QdrantCollection
from ._reading import database as database
from ._reading import readable as readable
from ._recognition import recognised
from ._rows import spread as spread
from ._transfer import Database as Database
from ._transfer import NotSwitchable as NotSwitchable
from ._transfer import Readable as Readable
from ._transfer import StoredText as StoredText
from ._transfer import Writable as Writable

__all__ = ["aguard", "guard", "metadata"]

KINDS = (
    Folder,
    ChromaCollection,
    QdrantCollection,
    LanceTable,
    MilvusCollection,
    LangChainCollection,
    PostgresTable,
    DumpedStore,
)
"""The kinds of stores; ``docs/stores.md`` has a row for each."""

Store = TypeVar("Store")


def guard(store: Store, router: Router, *, adopt: Adopt = False) -> Store:
    """Return ``store`` if it is in the router's space; mark an empty store with that space.

    Nothing is embedded, unless a store is adopted. Where the store's embedder has a name for its index (``index=``),
    the space is recorded under that name as well. In asynchronous code: ``await aguard(store, router)``.

    Args:
        store: a vector store of LangChain or LlamaIndex, or what has one: an index, a storage context; a LanceDB table,
            a Chroma collection; or the path of a folder. Just opened, or about to be.
        router: the router that embeds for the store.
        adopt: mark a store that holds vectors and no mark, after three of its texts were embedded and the vectors
            compared. ``"unchecked"`` compares nothing, for a store that does not give its texts. Vectors of another
            length, and another mark, are refused all the same.

    Raises:
        SpaceMismatchError: the store is in another space.
        ConfigError: the store holds vectors and no mark, could not be compared, or cannot keep a mark.
    """
    hold_store(store, None, router, adopt)
    return store


async def aguard(store: Store, router: Router, *, adopt: Adopt = False) -> Store:
    """Do what ``guard`` does without blocking the event loop."""
    return await in_thread(guard, store, router, adopt=adopt)


def hold_store(store: Any, marked: Marked | None, router: Router, adopt: Adopt) -> None:
    """Hold a store to the router's space, in its own metadata and under the name of its index."""
    inner = getattr(store, "vector_store", store)
    require_same_router(inner, router)
    hold(marked or recognised(inner), router, adopt=adopt)
    record_index(store, embedder_of(inner))
