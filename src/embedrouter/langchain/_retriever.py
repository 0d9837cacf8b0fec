"""LangChain retrievers over a vector store for each tier, where the tiers are different spaces."""

import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from pydantic import ConfigDict, Field

from .._process import in_thread
from ..calls import run
from ..errors import ConfigError
from ..retrieval import DEPTH, Cascade
from ..retrieval.tiered_stores import TieredStores, overrides
from ..tiered import TieredRouter
from ._embeddings import RouterEmbeddings
from ._runs import called_with
from ._with_tier import TIER_SPEC, configured_tier

Call: TypeAlias = Callable[..., Awaitable[Any]]
"""``_call`` or ``_acall``: one form of calling a method of a store."""

WITH_SCORES = "similarity_search_with_score"
ASYNCHRONOUS = {"add_documents": ("aadd_documents", "aadd_texts")}
"""The asynchronous forms of a method, of which a store needs one, where there are several."""


class LangChainStores(TieredStores[VectorStore]):
    """The vector stores of a retriever."""

    noun = "store"
    adapter = RouterEmbeddings
    example = "RouterEmbeddings({router})"

    @staticmethod
    def embedder(store: VectorStore) -> object:
        return store.embeddings


class TieredRetriever(BaseRetriever):
    """Retrieve from the vector store of the tier that a query asks for.

        both = TieredRouter({"low": local_router, "high": openai_router})
        retriever = TieredRetriever.from_router(both)
        retriever.add_documents(documents)              # into both stores, under the same ids
        retriever.invoke(question)                      # searches the store of the router's tier
        retriever.invoke(question, {"configurable": {"embedding_tier": "low"}})

    Each query goes to one store and is embedded by that store's own router, so no vector meets the vectors of another
    space. With ``cascade=Cascade(share=0.3)`` the cheap store is searched first, and for the queries that need it the
    good store as well; see ``embedrouter.cascade``.

    The tier of a query is the nearest of: ``invoke(…, tier=…)``; ``with embedrouter.tier(…)``;
    ``configurable["embedding_tier"]``; ``embedding_tier`` in the ``context=`` of a LangGraph; the retriever's
    ``query_tier``; the ``TieredRouter``'s. Any of the first five switches the cascade off for that query. In a chain
    that drops the configuration, such as ``RetrievalQA``, wrap the chain: ``with_tier(chain)``.

    Each document comes back as a copy whose metadata say which store answered: ``embedding_tier``, ``embedding_space``,
    and, where a cascade chose, ``embedding_escalated``. Nothing is changed in the stores.

    Args:
        stores: a store for each tier, each with a ``RouterEmbeddings`` of that tier's router.
        router: the routers by tier; made of the stores' routers when left out.
        query_tier: the tier of queries that ask for none, over the router's.
        cascade: chooses the tier of queries that ask for none; instead of ``query_tier``.
        k: how many documents to return.
        search_kwargs: further arguments of the stores' search methods, such as ``filter``.
        settings: fields of ``BaseRetriever``, such as ``tags``.

    Raises:
        ConfigError: a tier has no store, a store's embedder is no ``RouterEmbeddings``, or two settings contradict.
        SpaceMismatchError: a store's embedder is in another space than its tier's router.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

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
        own: dict[str, Any] = {"stores": dict(stores), "router": LangChainStores.router_of(stores, router)}
        own |= {"query_tier": query_tier, "cascade": cascade, "k": k, "search_kwargs": dict(search_kwargs or {})}
        super().__init__(**{**own, **settings})
        self._tiered.check()  # not a validator: pydantic would bury our errors in its own
        if cascade is not None:
            first, _ = self._tiered.cascade_tiers(cascade)
            if not overrides(self.stores[first], VectorStore, WITH_SCORES):
                raise self._tiered.no_scores(first, self.stores[first], f"has no {WITH_SCORES}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field, if a retriever that is built with it is accepted."""
        if name in type(self).model_fields:
            value = getattr(self.model_copy(update={name: value}), name)
        super().__setattr__(name, value)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with fields that are checked as at the beginning."""
        other = super().model_copy(deep=deep)
        if not update:
            return other
        return type(self)(**{**{name: getattr(other, name) for name in type(self).model_fields}, **update})

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False, **_: Any) -> Self:
        """Do what ``model_copy`` does; pydantic has both."""
        return self.model_copy(update=update, deep=deep)

    @property
    def _tiered(self) -> LangChainStores:
        return LangChainStores(self.stores, self.router, self.query_tier, self.cascade)

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
            make: returns a new store that embeds with the given embedder. For stores that need a name of their own,
                pass ``stores=`` to the class instead.
            settings: the retriever's other fields.
        """
        stores = {name: make(RouterEmbeddings(router.router(name))) for name in router.own_tiers}
        return cls(stores, router=router, **settings)

    def with_tier(self, tier: str) -> Self:
        """Return a retriever over the same stores that asks ``tier``, without a cascade.

        Raises:
            ValueError: the tier is unknown.
        """
        self._tiered.name(tier)
        return self.model_copy(update={"query_tier": tier, "cascade": None})

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The entry that ``configurable`` may have."""
        return [TIER_SPEC]

    # Retrieval. LangChain does not pass the configuration to ``_get_relevant_documents``, so ``invoke`` reads it

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Return the documents nearest to a query.

        Args:
            input: the query.
            config: may have ``configurable["embedding_tier"]``.
            kwargs: ``tier``, ``k``, and further arguments of the stores' search methods, over ``search_kwargs``.
        """
        return super().invoke(input, config, **{"configured": configured_tier(self, config), **kwargs})

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Do what ``invoke`` does without blocking the event loop."""
        return await super().ainvoke(input, config, **{"configured": configured_tier(self, config), **kwargs})

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        with called_with({"callbacks": run_manager.get_child()}):
            return run(self._retrieve(_call, query, **kwargs))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        with called_with({"callbacks": run_manager.get_child()}):
            return await self._retrieve(_acall, query, **kwargs)

    async def _retrieve(
        self, call: Call, query: str, /, *, tier: str | None = None, configured: str | None = None, **kwargs: Any
    ) -> list[Document]:
        settings = {"k": self.k, **self.search_kwargs, **kwargs}

        async def find(_: str, store: VectorStore, scored: bool) -> tuple[list[Document], list[float]]:
            method, k = (WITH_SCORES, max(settings["k"], DEPTH)) if scored else ("similarity_search", settings["k"])
            hits = await call(store, method, query, **{**settings, "k": k})
            return ([document for document, _ in hits], [score for _, score in hits]) if scored else (hits, [])

        documents, label = await self._tiered.retrieve(find, call=tier, configured=configured)
        return [
            document.model_copy(update={"metadata": {**document.metadata, **label}})
            for document in documents[: settings["k"]]
        ]

    # Documents

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
            documents: what to add; a document without an id gets a new one.
            ids: one for each document, over its own.
            tiers: the stores to fill; all when left out. Documents that are in one store only are found at its tier
                only.
            kwargs: further arguments of the stores' ``add_documents``.
        """
        prepared = _prepared(documents, ids)
        for name in self._tiered.fill_order(tiers):
            with self._tiered.embedding(name) as store:
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
        for name in self._tiered.fill_order(tiers):
            with self._tiered.embedding(name) as store:
                await _acall(store, "add_documents", _copies(prepared), ids=list(prepared), **kwargs)
        return list(prepared)

    def add_texts(
        self, texts: Iterable[str], metadatas: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> list[str]:
        """Add texts to every store; ``settings`` are those of ``add_documents``."""
        return self.add_documents(_documents(texts, metadatas), **settings)

    async def aadd_texts(
        self, texts: Iterable[str], metadatas: Sequence[Mapping[str, Any]] | None = None, **settings: Any
    ) -> list[str]:
        """Do what ``add_texts`` does without blocking the event loop."""
        return await self.aadd_documents(_documents(texts, metadatas), **settings)

    def delete(self, ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Remove documents from every store, or from those of ``tiers``."""
        for name in self._tiered.fill_order(tiers):
            self._tiered.store(name).delete(list(ids), **kwargs)

    async def adelete(self, ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Do what ``delete`` does without blocking the event loop."""
        for name in self._tiered.fill_order(tiers):
            await _acall(self._tiered.store(name), "delete", list(ids), **kwargs)


async def _call(store: VectorStore, method: str, *arguments: Any, **settings: Any) -> Any:
    """Call the synchronous form of a method."""
    return getattr(store, method)(*arguments, **settings)


async def _acall(store: VectorStore, method: str, *arguments: Any, **settings: Any) -> Any:
    """Call the asynchronous form of a method, or where the store has none, the method in a thread."""
    if overrides(store, VectorStore, *ASYNCHRONOUS.get(method, (f"a{method}",))):
        return await getattr(store, f"a{method}")(*arguments, **settings)
    return await in_thread(getattr(store, method), *arguments, **settings)


def _prepared(documents: Sequence[Document], ids: Sequence[str] | None) -> dict[str, Document]:
    """Return the documents by id; those without one get it now, so that the id is the same in every store."""
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
