"""Chroma: a collection of a client."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, EmbedRouterError, InvalidInputError
from ..retrieval.store_guard import Item, Row
from ..router import Router, wiring_of
from ..types import Estimate, dollars
from ._rows import row, spread

if TYPE_CHECKING:
    from chromadb import Collection

DISTANCE = "hnsw:space"
"""The entry that Chroma refuses to write again. Chroma copies the entry to the configuration at the creation."""

PUT = 1_000
"""Rows in one request; Chroma takes some thousand."""
READ = 10_000
"""Texts read to estimate the price of embedding all of them again; a refusal should not take minutes."""


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
    """Reads and writes the entries of one collection, and reads its rows."""

    kind, keeps = "Chroma", "the collection's metadata"
    place = "STORE"

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

    def sample(self, count: int) -> list[Row]:
        rows: list[Row] = []
        for position in spread(self._collection.count(), count):
            found: Any = self._collection.get(
                limit=1, offset=position, include=["embeddings", "documents", "metadatas"]
            )
            if found["ids"]:
                rows.append(row(found["ids"][0], found["documents"][0], found["embeddings"][0], found["metadatas"][0]))
        return rows

    def put(self, items: Sequence[Item], vectors: Any) -> None:
        """Write rows as LangChain's store does; a row whose id is there is replaced."""
        for start in range(0, len(items), PUT):
            part = items[start : start + PUT]
            self._collection.upsert(
                ids=[item.id for item in part],
                embeddings=vectors[start : start + PUT],
                documents=[item.text for item in part],
                metadatas=[{"source": item.location} for item in part],
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
