"""LangChain: one retriever over a vector store for each tier, where the tiers are different spaces.

    both = TieredRouter({"low": local_router, "high": openai_router})
    retriever = TieredRetriever.from_router(both)
    retriever.add_documents(documents)              # into both stores, under the same ids
    retriever.invoke(question)                      # asks the store of the router's tier
    retriever.invoke(question, {"configurable": {"embedding_tier": "low"}})

Each query goes to one store and is embedded by that store's own router, so no vector ever meets those of another space.
With ``cascade=Cascade(share=0.3)`` the cheap store is asked first, and the good one for the queries that need it; see
``embedrouter.cascade``.

The tier of a query is, nearest first: ``invoke(…, tier=…)``; what ``with embedrouter.tier(…)`` says;
``configurable["embedding_tier"]``; the retriever's ``query_tier``; the ``TieredRouter``'s. Any of the first four
switches the cascade off for that query.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from pydantic import Field

from ..errors import ConfigError, SpaceMismatchError
from ..models import first_given, requested, tier
from ..retrieval import DEPTH, Cascade
from ..tiered import TieredRouter, default_tier
from .embeddings import CONFIGURABLE, RouterEmbeddings

__all__ = ["TieredRetriever"]

TIER, SPACE, ESCALATED = "embedding_tier", "embedding_space", "embedding_escalated"


class TieredRetriever(BaseRetriever):
    """Retrieves from the vector store of the tier that a query asks for.

    Each document comes back as a copy whose metadata says which store answered: ``embedding_tier``,
    ``embedding_space``, and, where a cascade chose, ``embedding_escalated``. In the stores nothing is changed.

    Args:
        stores: a store for each tier, each with a ``RouterEmbeddings`` of that tier's router.
        router: says which tiers there are; made of the stores' routers when left out.
        query_tier: the tier of queries that ask for none, over the router's.
        cascade: chooses the tier of queries that ask for none; instead of ``query_tier``.
        k: how many documents to return.
        search_kwargs: what else the stores' search methods take, such as ``filter``.
        settings: fields of ``BaseRetriever``, such as ``tags``.

    Raises:
        ConfigError: a tier has no store, a store's embedder is no ``RouterEmbeddings``, or two settings contradict.
        SpaceMismatchError: a store's embedder is in another space than its tier's router.
    """

    stores: dict[str, VectorStore]
    router: TieredRouter
    query_tier: str | None = None
    cascade: Cascade | None = None
    k: int = Field(default=4, gt=0)
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def __init__(
        self,
        stores: Mapping[str, VectorStore],
        *,
        router: TieredRouter | None = None,
        query_tier: str | None = None,
        cascade: Cascade | None = None,
        k: int = 4,
        search_kwargs: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if not stores:
            raise ConfigError("TieredRetriever needs a store for each tier: {'low': …, 'high': …}.")
        if router is None:
            router = TieredRouter({name: _embedder(name, store).router for name, store in stores.items()})
        search = dict(search_kwargs or {})
        own = {"query_tier": query_tier, "cascade": cascade, "k": k, "search_kwargs": search}
        super().__init__(**{"stores": dict(stores), "router": router, **own, **settings})
        self._check()  # not a validator: pydantic would bury our errors in its own

    @classmethod
    def from_router(
        cls,
        router: TieredRouter,
        make: Callable[[RouterEmbeddings], VectorStore] = InMemoryVectorStore,
        **settings: Any,
    ) -> Self:
        """Build a store for each router.

        Args:
            router: the routers, by tier.
            make: returns a new store that embeds with what it is given. For stores that need a name of their own, pass
                ``stores=`` to the class instead.
            settings: the retriever's other fields.
        """
        stores = {name: make(RouterEmbeddings(router.router(name))) for name in router.own_tiers}
        return cls(stores, router=router, **settings)

    # Checks

    def _check(self) -> None:
        for name in self.router.own_tiers:
            self._store(name)
        if unused := set(self.stores) - {self._name(asked) for asked in self.router.own_tiers}:
            raise ConfigError(
                f"The store of the tier {min(unused)!r} would never be asked: {self.router!r} has no router of its own "
                "for it. Leave the store out, or give the tier a router."
            )
        if self.query_tier is not None:
            self._store(self.query_tier)
        if self.cascade is not None:
            self._check_cascade(self.cascade)

    def _check_cascade(self, cascade: Cascade) -> None:
        if self.query_tier is not None:
            raise ConfigError("query_tier= asks one tier and cascade= chooses for each query. Give one of the two.")
        cheap, good = self._pair(cascade)
        if self._name(cheap) == self._name(good):
            raise ConfigError(f"A cascade needs two stores, but {cheap!r} and {good!r} share one.")
        store = self._store(cheap)
        if type(store).similarity_search_with_score is VectorStore.similarity_search_with_score:
            raise ConfigError(
                f"A cascade compares scores, and the store of the tier {cheap!r}, a {type(store).__name__}, has no "
                "similarity_search_with_score. Use another store for this tier, or no cascade."
            )

    def _name(self, asked: str) -> str:
        """Return the tier of the store that serves ``asked``."""
        router = self.router.router(asked)
        for name, other in self.router.served.items():
            if other is router and name in self.stores:
                return name
        raise ConfigError(
            f"There is no store for the tier {asked!r}, only for {', '.join(self.stores)}. Give each router of the "
            "TieredRouter a store of its own."
        )

    def _store(self, asked: str) -> VectorStore:
        """Return the store that serves ``asked``, if it still embeds in the space of that tier's router."""
        name = self._name(asked)
        store, router = self.stores[name], self.router.router(asked)
        space = _embedder(name, store).space
        if space != router.space:
            raise SpaceMismatchError(
                f"The store of the tier {name!r} embeds in the space {space}, its router in {router.space}: a distance "
                f"between the two means nothing. Build the store with RouterEmbeddings(tiered.router({name!r}))."
            )
        return store

    # Which tier

    def with_tier(self, tier: str) -> Self:
        """Return a retriever over the same stores that asks ``tier``, without a cascade.

        Raises:
            ValueError: the tier is unknown.
        """
        self._store(tier)
        return self.model_copy(update={"query_tier": tier, "cascade": None})

    def _asked(self, tier: str | None, configured: str | None) -> str | None:
        return first_given(tier, requested("query"), configured, self.query_tier)

    def _pair(self, cascade: Cascade) -> tuple[str, str]:
        tiers = self.router.own_tiers
        return cascade.cheap or tiers[0], cascade.good or tiers[-1]

    # Retrieval. What LangChain does not hand down is read where it is handed in

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Return the documents nearest to a query.

        Args:
            input: the query.
            config: may hold ``configurable["embedding_tier"]``.
            kwargs: ``tier``, ``k``, and whatever the stores' search methods take, over ``search_kwargs``.
        """
        return super().invoke(input, config, **{"configured": _configured(config), **kwargs})

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Do what ``invoke`` does without blocking the event loop."""
        return await super().ainvoke(input, config, **{"configured": _configured(config), **kwargs})

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        tier: str | None = None,
        configured: str | None = None,
        **search: Any,
    ) -> list[Document]:
        search = {"k": self.k, **self.search_kwargs, **search}
        asked = self._asked(tier, configured)
        if asked is not None or self.cascade is None:
            return self._search(default_tier(self.router, "query") if asked is None else asked, query, search)
        cheap, good = self._pair(self.cascade)
        with self._embedding(cheap) as store:
            hits = store.similarity_search_with_score(query, **_deep(search))
        if self.cascade.escalates([score for _, score in hits]):
            return self._search(good, query, search, escalated=True)
        return self._labelled([document for document, _ in hits[: search["k"]]], cheap, escalated=False)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        tier: str | None = None,
        configured: str | None = None,
        **search: Any,
    ) -> list[Document]:
        search = {"k": self.k, **self.search_kwargs, **search}
        asked = self._asked(tier, configured)
        if asked is not None or self.cascade is None:
            return await self._asearch(default_tier(self.router, "query") if asked is None else asked, query, search)
        cheap, good = self._pair(self.cascade)
        with self._embedding(cheap) as store:
            hits = await store.asimilarity_search_with_score(query, **_deep(search))
        if self.cascade.escalates([score for _, score in hits]):
            return await self._asearch(good, query, search, escalated=True)
        return self._labelled([document for document, _ in hits[: search["k"]]], cheap, escalated=False)

    def _search(
        self, asked: str, query: str, search: dict[str, Any], *, escalated: bool | None = None
    ) -> list[Document]:
        with self._embedding(asked) as store:
            found = store.similarity_search(query, **search)
        return self._labelled(found, asked, escalated)

    async def _asearch(
        self, asked: str, query: str, search: dict[str, Any], *, escalated: bool | None = None
    ) -> list[Document]:
        with self._embedding(asked) as store:
            found = await store.asimilarity_search(query, **search)
        return self._labelled(found, asked, escalated)

    @contextmanager
    def _embedding(self, asked: str) -> Iterator[VectorStore]:
        """Give the store of a tier; its router uses its own default tiers, whatever was asked outside."""
        store = self._store(asked)
        embedder = _embedder(asked, store)
        queries = first_given(embedder.query_tier, default_tier(embedder.router, "query"))
        documents = first_given(embedder.document_tier, default_tier(embedder.router, "document"))
        with tier(queries, documents=documents):
            yield store

    def _labelled(self, found: Iterable[Document], asked: str, escalated: bool | None) -> list[Document]:
        name = self._name(asked)
        label: dict[str, Any] = {TIER: name, SPACE: str(self.router.router(asked).space)}
        if escalated is not None:
            label[ESCALATED] = escalated
        return [document.model_copy(update={"metadata": {**document.metadata, **label}}) for document in found]

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What ``configurable`` may hold."""
        name, about = "Embedding tier", "The tier at which the query is embedded and whose store is asked."
        return [ConfigurableFieldSpec(CONFIGURABLE, str | None, name, about, default=None)]

    # Documents. The highest tier comes first: what costs most and fails most fails before the others hold anything

    def add_documents(
        self,
        documents: Sequence[Document],
        *,
        ids: Sequence[str] | None = None,
        tiers: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add documents to every store under the same ids, and return the ids.

        Should a store fail, give the same ``ids`` when trying again; vectors already paid for are in the cache.

        Args:
            documents: what to add; one without an id gets a new one.
            ids: one for each document, over its own.
            tiers: the stores to fill; all when left out. What is in one store only is found at its tier only.
            kwargs: whatever the stores' ``add_documents`` take.
        """
        prepared = _prepared(documents, ids)
        for name in self._filled(tiers):
            with self._embedding(name) as store:
                store.add_documents(_copies(prepared), ids=list(prepared), **kwargs)
        return list(prepared)

    async def aadd_documents(
        self,
        documents: Sequence[Document],
        *,
        ids: Sequence[str] | None = None,
        tiers: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do what ``add_documents`` does without blocking the event loop."""
        prepared = _prepared(documents, ids)
        for name in self._filled(tiers):
            with self._embedding(name) as store:
                await store.aadd_documents(_copies(prepared), ids=list(prepared), **kwargs)
        return list(prepared)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str] | None = None,
        tiers: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts to every store; see ``add_documents``."""
        return self.add_documents(_documents(texts, metadatas), ids=ids, tiers=tiers, **kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[Mapping[str, Any]] | None = None,
        *,
        ids: Sequence[str] | None = None,
        tiers: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Do what ``add_texts`` does without blocking the event loop."""
        return await self.aadd_documents(_documents(texts, metadatas), ids=ids, tiers=tiers, **kwargs)

    def delete(self, ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Remove documents from every store, or from those of ``tiers``."""
        for name in self._filled(tiers):
            self._store(name).delete(list(ids), **kwargs)

    async def adelete(self, ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Do what ``delete`` does without blocking the event loop."""
        for name in self._filled(tiers):
            await self._store(name).adelete(list(ids), **kwargs)

    def _filled(self, tiers: Sequence[str] | None) -> list[str]:
        """Return the tiers of the stores to change, highest first."""
        if isinstance(tiers, str):
            raise ConfigError(f"tiers must be a list of tiers, such as [{tiers!r}].")
        names = {self._name(asked) for asked in (self.router.own_tiers if tiers is None else tiers)}
        return sorted(names, key=self.router.tiers.index, reverse=True)


def _embedder(name: str, store: VectorStore) -> RouterEmbeddings:
    """Return the adapter that embeds for a store.

    Raises:
        ConfigError: something else does, whose space nobody knows.
    """
    embedder: Embeddings | None = store.embeddings
    if not isinstance(embedder, RouterEmbeddings):
        raise ConfigError(
            f"The store of the tier {name!r} embeds with {type(embedder).__name__}, whose space is not known. "
            "Build it with RouterEmbeddings(router)."
        )
    return embedder


def _configured(config: RunnableConfig | None) -> str | None:
    return ensure_config(config).get("configurable", {}).get(CONFIGURABLE)


def _deep(search: dict[str, Any]) -> dict[str, Any]:
    """Ask for as many hits as the decision needs."""
    return {**search, "k": max(search["k"], DEPTH)}


def _prepared(documents: Sequence[Document], ids: Sequence[str] | None) -> dict[str, Document]:
    """Return the documents by their ids; those without one get it now, so that it is the same in every store."""
    documents = list(documents)
    given: Sequence[str | None] = [document.id for document in documents] if ids is None else list(ids)
    if len(given) != len(documents):
        raise ConfigError(f"ids must be one for each document: there are {len(given)} for {len(documents)}.")
    prepared = {name or str(uuid.uuid4()): document for name, document in zip(given, documents, strict=True)}
    if len(prepared) != len(documents):
        raise ConfigError("ids must be different: two documents have the same.")
    return prepared


def _copies(prepared: Mapping[str, Document]) -> list[Document]:
    return [
        document.model_copy(update={"id": name, "metadata": dict(document.metadata)})
        for name, document in prepared.items()
    ]


def _documents(texts: Iterable[str], metadatas: Sequence[Mapping[str, Any]] | None) -> list[Document]:
    texts = list(texts)
    if metadatas is not None and len(metadatas) != len(texts):
        raise ConfigError(f"metadatas must be one for each text: there are {len(metadatas)} for {len(texts)}.")
    given: Sequence[Mapping[str, Any]] = [{}] * len(texts) if metadatas is None else metadatas
    return [Document(text, metadata=dict(metadata)) for text, metadata in zip(texts, given, strict=True)]
