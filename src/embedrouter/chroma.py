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

import inspect
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from ._process import in_thread
from .errors import ConfigError, EmbedRouterError, InvalidInputError
from .retrieval.store_guard import hold, metadata, require_same_router
from .router import Router, wiring_of
from .types import Estimate, dollars

if TYPE_CHECKING:
    from chromadb import Collection

__all__ = ["aguard", "guard", "metadata"]

DISTANCE = "hnsw:space"
"""The entry that Chroma refuses to write again. Chroma copies the entry to the configuration at the creation."""

READ = 10_000
"""Texts read to estimate the price of embedding all of them again; a refusal should not take minutes."""

Store = TypeVar("Store")


def guard(store: Store, router: Router, *, adopt: bool = False) -> Store:
    """Return ``store`` if its collection is in the router's space; mark an empty collection with that space.

    Nothing is embedded. A refusal gives the price of embedding the texts again; with thousands of texts the estimate
    takes a few seconds. In asynchronous code: ``await aguard(store, router)``.

    Args:
        store: LangChain's ``Chroma``, LlamaIndex's ``ChromaVectorStore``, or a ``chromadb.Collection``, just opened.
        router: the router that embeds for the store.
        adopt: say that the vectors of a collection without a mark were made in the router's space; the collection is
            marked then. Vectors of another length and another mark are refused all the same.

    Raises:
        SpaceMismatchError: the collection is in another space.
        ConfigError: the collection holds vectors and no mark, or the store is not Chroma's.
    """
    require_same_router(store, router)
    collection = find(store)
    if collection is None:
        raise ConfigError(
            "guard takes LangChain's Chroma, LlamaIndex's ChromaVectorStore or a chromadb.Collection, not "
            f"{type(store).__name__}. The collection of any other store can be guarded itself: "
            "guard(client.get_collection(name), router)."
        )
    hold(collection, router, adopt=adopt)
    return store


async def aguard(store: Store, router: Router, *, adopt: bool = False) -> Store:
    """Do what ``guard`` does without blocking the event loop."""
    return await in_thread(guard, store, router, adopt=adopt)


def find(store: Any) -> ChromaCollection | None:
    """Return the collection of a store. LangChain's has no public name for it, so all its attributes are tried."""
    found: Any
    for found in (store, getattr(store, "client", None), *getattr(store, "__dict__", {}).values()):
        if all(hasattr(found, name) for name in ("metadata", "configuration_json", "modify")):
            if inspect.iscoroutinefunction(found.modify):
                raise ConfigError(
                    "guard takes a collection of a synchronous client. Open the collection with one to guard it."
                )
            return ChromaCollection(found)
    return None


class ChromaCollection:
    """Reads and writes the entries of one collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self.title = f"The collection {collection.name!r}"

    def read(self) -> Mapping[str, Any]:
        return self._collection.metadata or {}

    def write(self, entries: Mapping[str, str | int]) -> None:
        """Add entries to those of the collection, which Chroma writes as a whole."""
        collection = self._collection
        others = dict(collection.metadata or {})
        distance = others.pop(DISTANCE, None)
        configuration = collection.configuration_json
        configured = (configuration.get("hnsw") or configuration.get("spann") or {}).get("space")
        if distance not in (None, configured):
            raise ConfigError(
                f"{self.title} has {DISTANCE!r} in its metadata and another distance in its configuration. Chroma "
                "would drop that entry when the space is marked, so nothing was changed. Create the collection anew, "
                f"with metadata=embedrouter.chroma.metadata(router) | {{{DISTANCE!r}: {distance!r}}}."
            )
        collection.modify(metadata={**others, **entries})

    def dimensions(self) -> int | None:
        first = self._collection.get(limit=1, include=["embeddings"])
        if not first["ids"]:
            return None
        assert first["embeddings"] is not None, "they are included"
        return len(first["embeddings"][0])

    def again(self, router: Router) -> str:
        """Return how to embed the texts again, and the price."""
        return (
            "embed the texts again: into a collection of another name, or into this one after "
            f"client.delete_collection({self._collection.name!r}). {_price(self._collection, router)}"
        )


# The price of embedding a collection again


def _price(collection: Collection, router: Router) -> str:
    """Return a sentence with the price of a collection's texts."""
    total = collection.count()
    if not total:
        return "It is empty, so that costs nothing."
    documents = collection.get(limit=READ, include=["documents"])["documents"] or []
    read, texts = len(documents), [text for text in documents if text]
    if not texts:
        return "Chroma has only its vectors; take the texts from the source that it was filled from."
    rest = max(0, total - read)
    try:
        estimate, long = _estimate(router, texts)
        tokens = estimate.tokens * (read + rest) // read
        cost = wiring_of(router).cost(estimate.model, tokens) if tokens else Decimal(0)
    except EmbedRouterError as error:
        return f"The price could not be estimated: {error}"
    more = _filled_by_llama_index(collection)
    bound = "about" if rest or more else "at most"
    amount = "unknown" if cost is None else f"{bound} {dollars(cost)}"
    message = f"Price for its {len(texts) + rest:,} texts with this router: {amount}"
    if rest:
        message += f", estimated from {len(texts):,} of them"
    if more:
        message += ", without the metadata that LlamaIndex embeds with each text"
    if long:
        message += f"; {long:,} are longer than the model takes and not counted"
    if len(texts) < read:
        message += f"; {read - len(texts):,} vectors have no text in Chroma, so take their texts from the source"
    return message + "."


def _estimate(router: Router, texts: list[str]) -> tuple[Estimate, int]:
    """Return the estimate of the texts that the router accepts, and the number of texts that it refuses."""
    try:
        return router.estimate(texts, input_type="document"), 0
    except InvalidInputError as error:
        accepted = [text for index, text in enumerate(texts) if index not in error.indices]
        return router.estimate(accepted, input_type="document"), len(texts) - len(accepted)


def _filled_by_llama_index(collection: Collection) -> bool:
    """Return whether LlamaIndex filled a collection: it embeds texts with their metadata and stores them without."""
    entries = collection.get(limit=1, include=["metadatas"])["metadatas"]
    return bool(entries and "_node_content" in (entries[0] or {}))
