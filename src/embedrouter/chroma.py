"""Chroma: collections whose metadata say which space their vectors are in.

    from embedrouter.chroma import guard, metadata

    store = guard(Chroma("handbook", embeddings, collection_metadata=metadata(router)), router)

The space is two entries in the collection's own metadata. The entries travel with the collection, so every machine that
opens it through ``guard`` is held to them. (Chroma compares names of embedding functions. LangChain's ``Chroma``
switches that check off, and a name says nothing about dimensions or prompts.)

``metadata`` puts the entries into a collection as it is created. That is atomic: of several processes one creates the
collection, and the others read the entries of that one. ``guard`` checks the entries, and writes them into an empty
collection that has none. Chroma cannot write metadata on a condition, so of two processes that find no entries in the
same instant both pass; the later entries stay, and the other space is refused at the next opening. With ``metadata`` at
the creation this cannot happen.

Between two openings nothing has to be checked. The entries are there before the first vector, and a store holds its
collection by id: once the collection is deleted and made anew under the same name, Chroma raises an error. A handle
shows the metadata as of its opening; to check again, open another: ``guard(client.get_collection(name), router)``.

``metadata`` is passed where a collection is made: ``Chroma(…, collection_metadata=metadata(router))``,
``client.get_or_create_collection(…, metadata=metadata(router))``; add entries of your own with ``metadata(router) |
{"hnsw:space": "cosine"}``. A collection that exists already ignores the entries, so ``guard`` what was opened.

Collections are recognised by their methods, so this module imports neither Chroma nor a framework.
"""

from __future__ import annotations

from typing import TypeVar

from ._process import in_thread
from .errors import ConfigError
from .retrieval.store_guard import Adopt, metadata
from .router import Router
from .stores import find_chroma, hold_store

__all__ = ["aguard", "guard", "metadata"]

Store = TypeVar("Store")


def guard(store: Store, router: Router, *, adopt: Adopt = False) -> Store:
    """Return ``store`` if its collection is in the router's space; mark an empty collection with that space.

    Nothing is embedded, unless a collection is adopted. A refusal gives the price of embedding the texts again; with
    thousands of texts the estimate takes a few seconds. In asynchronous code: ``await aguard(store, router)``.

    Args:
        store: LangChain's ``Chroma``, LlamaIndex's ``ChromaVectorStore``, or a ``chromadb.Collection``, just opened.
        router: the router that embeds for the store.
        adopt: mark a collection that holds vectors and no mark, after three of its texts were embedded and the vectors
            compared; see ``embedrouter.stores.guard``.

    Raises:
        SpaceMismatchError: the collection is in another space.
        ConfigError: the collection holds vectors and no mark, or the store is not Chroma's.
    """
    collection = find_chroma(store)
    if collection is None:
        raise ConfigError(
            "guard takes LangChain's Chroma, LlamaIndex's ChromaVectorStore or a chromadb.Collection, not "
            f"{type(store).__name__}. The collection of any other store can be guarded itself: "
            "guard(client.get_collection(name), router)."
        )
    hold_store(store, collection, router, adopt)
    return store


async def aguard(store: Store, router: Router, *, adopt: Adopt = False) -> Store:
    """Do what ``guard`` does without blocking the event loop."""
    return await in_thread(guard, store, router, adopt=adopt)
