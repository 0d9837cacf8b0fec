"""Chroma: a collection that says itself which space it is in.

    from embedrouter.chroma import guard, metadata

    store = guard(Chroma("handbook", embeddings, collection_metadata=metadata(router)), router)

The space is two entries in the collection's own metadata. They travel with it, so every machine that opens it through
``guard`` is held to them. (Chroma compares names of embedding functions; LangChain's ``Chroma`` switches that off, and
a name says nothing about dimensions or prompts.)

``metadata`` puts the mark into a collection as it is created. That is atomic: of several processes one creates it, and
the others read what that one wrote. ``guard`` checks the mark, and writes it into an empty collection that has none.
Chroma cannot write metadata on a condition, so two that find no mark in the same instant both pass; the later mark
stays, and the other space is refused at the next opening. With ``metadata`` at the creation it never comes to that.

Between two openings nothing has to be asked: the mark is there before the first vector, and a store holds its
collection by id, so one that was deleted and made anew under the same name is an error of Chroma's. A handle shows the
metadata as of its opening; to check again, open another: ``guard(client.get_collection(name), router)``.

Collections are told by their methods, so this file imports neither Chroma nor a framework.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from .errors import (
    ConfigError,
    EmbedRouterError,
    InvalidInputError,
    SpaceMismatchError,
)
from .router import Router, wiring_of
from .tiered import single
from .types import Estimate, Space, dollars

__all__ = ["guard", "metadata"]

SPACE = "embedrouter:space"
DIMENSIONS = "embedrouter:dimensions"
DISTANCE = "hnsw:space"
"""The entry of the metadata that Chroma refuses to write again. It is copied to the configuration at the creation."""

PAGE = 500
"""Texts read at once, to say what embedding them again would cost."""
READ = 10_000
"""Texts read in all; the price of the others is taken to be alike. A refusal should not take minutes."""

Store = TypeVar("Store")


class Collection(Protocol):
    """What is used of a ``chromadb.Collection``."""

    @property
    def name(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any] | None: ...
    @property
    def configuration_json(self) -> Mapping[str, Any]: ...
    def count(self) -> int: ...
    def get(self, *, limit: int, offset: int = 0, include: Sequence[str]) -> Mapping[str, Any]: ...
    def modify(self, *, metadata: dict[str, Any]) -> None: ...


def metadata(router: Router) -> dict[str, str | int]:
    """Return the mark of the router's space, for whatever creates a collection.

    ``Chroma(…, collection_metadata=metadata(router))``, ``client.get_or_create_collection(…,
    metadata=metadata(router))``; add entries of your own with ``metadata(router) | {"hnsw:space": "cosine"}``. A
    collection that exists already ignores it, so ``guard`` what was opened.
    """
    space = single(router).space
    return {SPACE: space.name, DIMENSIONS: space.dimensions}


def guard(store: Store, router: Router, *, adopt: bool = False) -> Store:
    """Return ``store`` if its collection is in the router's space; an empty collection is in it from now on.

    Nothing is embedded. A refusal says what embedding the texts again would cost, which takes a few seconds where there
    are thousands. In asynchronous code: ``await asyncio.to_thread(guard, store, router)``.

    Args:
        store: LangChain's ``Chroma``, LlamaIndex's ``ChromaVectorStore``, or a ``chromadb.Collection``, just opened.
        router: the one that embeds for it.
        adopt: that you know that the vectors of a collection without a mark were made in the router's space; it is
            marked then. Vectors of another length are refused all the same, and so is another mark.

    Raises:
        SpaceMismatchError: the collection is in another space.
        ConfigError: it holds vectors and no mark, or is no collection of Chroma's.
    """
    ours = single(router).space
    embedding = getattr(getattr(store, "embeddings", None), "space", ours)
    if isinstance(embedding, Space) and embedding != ours:
        raise SpaceMismatchError(
            f"The store embeds in the space {embedding}, the router that is to guard it in {ours}. Pass the router "
            "behind the store's own embedder."
        )
    collection = _collection(store)
    theirs = _mark(collection)
    if theirs is None:
        _claim(collection, router, adopt=adopt)
    elif theirs != ours:
        raise SpaceMismatchError(
            f"The collection {collection.name!r} is in the space {theirs}; this router gives {ours}, and a distance "
            f"between the two means nothing. Use a router of the space {theirs.name}, or {_again(collection, router)}"
        )
    return store


def _collection(store: Any) -> Collection:
    """Return the collection behind a store; LangChain's has no public name, so a collection can be passed as well."""
    found: Any
    for found in (store, getattr(store, "client", None), getattr(store, "_collection", None)):
        if all(hasattr(found, name) for name in ("metadata", "configuration_json", "modify")):
            if inspect.iscoroutinefunction(found.modify):
                raise ConfigError("guard takes a collection of a synchronous client. Open it with one to guard it.")
            collection: Collection = found
            return collection
    raise ConfigError(
        "guard takes LangChain's Chroma, LlamaIndex's ChromaVectorStore or a chromadb.Collection, not "
        f"{type(store).__name__}. Whatever the store, its collection can be guarded: "
        "guard(client.get_collection(name), router)."
    )


def _mark(collection: Collection) -> Space | None:
    entries = collection.metadata or {}
    name, dimensions = entries.get(SPACE), entries.get(DIMENSIONS)
    if name is None and dimensions is None:
        return None
    if not isinstance(name, str) or not isinstance(dimensions, int):
        raise ConfigError(
            f"The metadata of the collection {collection.name!r} name its space only in part. Set {SPACE!r} and "
            f"{DIMENSIONS!r} with collection.modify(metadata=…) to what filled it."
        )
    return Space(name, dimensions)


def _claim(collection: Collection, router: Router, *, adopt: bool) -> None:
    """Mark a collection that has no mark, if its vectors do not speak against it."""
    first = collection.get(limit=1, include=["embeddings"])
    if first["ids"]:
        length, ours = len(first["embeddings"][0]), router.space
        if length != ours.dimensions:
            raise SpaceMismatchError(
                f"The collection {collection.name!r} holds vectors of {length} numbers; this router gives {ours}. Use "
                f"a router of the space that it was filled in, or {_again(collection, router)}"
            )
        if not adopt:
            raise ConfigError(
                f"The collection {collection.name!r} holds vectors and does not say in which space; their length, "
                f"{length}, proves nothing. If they were made in the space of this router, {ours}, open the collection "
                f"once with guard(…, adopt=True), which marks it. Otherwise {_again(collection, router)}"
            )
    entries = dict(collection.metadata or {})
    distance = entries.pop(DISTANCE, None)
    if distance is not None and distance != _distance(collection):
        raise ConfigError(
            f"The collection {collection.name!r} has {DISTANCE!r} in its metadata and another distance in its "
            "configuration. Chroma would drop that entry when the space is marked, so nothing was changed. Create the "
            f"collection anew, with metadata=embedrouter.chroma.metadata(router) | {{{DISTANCE!r}: {distance!r}}}."
        )
    collection.modify(metadata=entries | metadata(router))


def _distance(collection: Collection) -> Any:
    """Return the distance that the collection is searched by, as its configuration has it."""
    configuration = collection.configuration_json
    return (configuration.get("hnsw") or configuration.get("spann") or {}).get("space")


# What it takes to embed a collection again


def _again(collection: Collection, router: Router) -> str:
    """Return how, and for how much; the end of a sentence, and more."""
    name = collection.name
    return (
        "embed the texts again: into a collection of another name, or into this one after "
        f"client.delete_collection({name!r}). {_price(collection, router)}"
    )


def _price(collection: Collection, router: Router) -> str:
    """Return what the router asks for the texts that the collection has, read page by page."""
    total = collection.count()
    if not total:
        return "It is empty, so that costs nothing."
    read = texts = long = 0
    tokens: Counter[str] = Counter()
    try:
        for page in _pages(collection):
            sent = [text for text in page if text]
            read, texts = read + len(page), texts + len(sent)
            estimate, refused = _estimate(router, sent)
            tokens[estimate.model] += estimate.tokens
            long += refused
        rest = max(0, total - read)
        costs = [wiring_of(router).cost(model, number * (read + rest) // read) for model, number in (+tokens).items()]
    except EmbedRouterError as error:
        return f"Its price could not be reckoned: {error}"
    if not texts:
        return "Chroma has only its vectors; the texts have to come from where it was filled from."
    known = [cost for cost in costs if cost is not None]
    more = _of_llama_index(collection)
    bound = "about" if rest or more else "at most"
    amount = f"{bound} {dollars(sum(known, Decimal(0)))}" if len(known) == len(costs) else "unknown"
    said = f"Price for its {texts + rest:,} texts with this router: {amount}"
    if rest:
        said += f", reckoned from {texts:,} of them"
    if more:
        said += ", without the metadata that LlamaIndex embeds with each text"
    if long:
        said += f"; {long:,} are longer than the model takes and not counted"
    if texts < read:
        said += f"; {read - texts:,} vectors have no text in Chroma, so theirs have to come from elsewhere"
    return said + "."


def _estimate(router: Router, texts: list[str]) -> tuple[Estimate, int]:
    """Return what the texts would take, without those that the router refuses, and how many it refuses."""
    try:
        return router.estimate(texts, input_type="document"), 0
    except InvalidInputError as error:
        accepted = [text for index, text in enumerate(texts) if index not in error.indices]
        return router.estimate(accepted, input_type="document"), len(texts) - len(accepted)


def _pages(collection: Collection) -> Iterator[list[str | None]]:
    for offset in range(0, READ, PAGE):
        page = collection.get(limit=PAGE, offset=offset, include=["documents"])["documents"]
        if not page:
            return
        yield page


def _of_llama_index(collection: Collection) -> bool:
    """Return whether LlamaIndex filled it, which embeds a text with its metadata and stores it without."""
    entries = collection.get(limit=1, include=["metadatas"])["metadatas"]
    return bool(entries and "_node_content" in (entries[0] or {}))
