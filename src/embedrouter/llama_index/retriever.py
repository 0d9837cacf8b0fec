"""LlamaIndex: one retriever over an index for each tier, where the tiers are different spaces.

    both = TieredRouter({"low": local_router, "high": openai_router})
    retriever = TieredRetriever.from_router(both)
    retriever.insert_nodes(nodes)                   # into both indices, under the same ids
    retriever.retrieve(question)                    # asks the index of the router's tier
    retriever.with_tier("low").retrieve(question)

Each query goes to one index and is embedded by that index's own router, so no vector ever meets those of another space.
With ``cascade=Cascade(share=0.3)`` the cheap index is asked first, and the good one for the queries that need it; see
``embedrouter.cascade``.

The tier of a query is, nearest first: what ``with embedrouter.tier(…)`` says; the retriever's ``query_tier``; the
``TieredRouter``'s. The first two switch the cascade off.

Nodes and queries may come with an embedding that some other model made. It is ignored: each index embeds for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle

from ..errors import ConfigError, InvalidInputError, SpaceMismatchError
from ..models import first_given, requested, tier
from ..retrieval import DEPTH, Cascade
from ..tiered import TieredRouter, default_tier
from .embedding import RouterEmbedding

__all__ = ["TieredRetriever"]

TIER, SPACE, ESCALATED = "embedding_tier", "embedding_space", "embedding_escalated"


def _in_memory(embedder: RouterEmbedding) -> VectorStoreIndex:
    return VectorStoreIndex(nodes=[], embed_model=embedder)


class TieredRetriever(BaseRetriever):
    """Retrieves from the index of the tier that a query asks for.

    Each node comes back as a copy whose metadata says which index answered: ``embedding_tier``, ``embedding_space``,
    and, where a cascade chose, ``embedding_escalated``. These keys are kept from prompts and embeddings, and in the
    indices nothing is changed.

    Args:
        indices: an index for each tier, each with a ``RouterEmbedding`` of that tier's router as ``embed_model``.
        router: says which tiers there are; made of the indices' routers when left out.
        query_tier: the tier of queries that ask for none, over the router's.
        cascade: chooses the tier of queries that ask for none; instead of ``query_tier``.
        similarity_top_k: how many nodes to return.
        callback_manager: see ``BaseRetriever``.
        search: what else ``VectorStoreIndex.as_retriever`` takes, such as ``filters``.

    Raises:
        ConfigError: a tier has no index, an index's embedder is no ``RouterEmbedding``, or two settings contradict.
        SpaceMismatchError: an index's embedder is in another space than its tier's router.
    """

    def __init__(
        self,
        indices: Mapping[str, VectorStoreIndex],
        *,
        router: TieredRouter | None = None,
        query_tier: str | None = None,
        cascade: Cascade | None = None,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        callback_manager: CallbackManager | None = None,
        **search: Any,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        if not indices:
            raise ConfigError("TieredRetriever needs an index for each tier: {'low': …, 'high': …}.")
        if similarity_top_k < 1:
            raise ConfigError(f"similarity_top_k must be at least 1, not {similarity_top_k!r}.")
        if "embed_model" in search:
            raise ConfigError("Each index embeds with a model of its own. Leave embed_model= out.")
        if router is None:
            router = TieredRouter({name: _embedder(name, index).router for name, index in indices.items()})
        self.indices = dict(indices)
        self.router = router
        self.query_tier = query_tier
        self.cascade = cascade
        self.similarity_top_k = similarity_top_k
        self.search = search
        self._check()

    @classmethod
    def from_router(
        cls,
        router: TieredRouter,
        make: Callable[[RouterEmbedding], VectorStoreIndex] = _in_memory,
        **settings: Any,
    ) -> TieredRetriever:
        """Build an index for each router.

        Args:
            router: the routers, by tier.
            make: returns a new index with what it is given as ``embed_model``; by default one in memory. For vector
                stores that need a name of their own, pass ``indices`` to the class instead.
            settings: the retriever's other arguments.
        """
        indices = {name: make(RouterEmbedding(router=router.router(name))) for name in router.own_tiers}
        return cls(indices, router=router, **settings)

    # Checks

    def _check(self) -> None:
        for name in self.router.own_tiers:
            self._index(name)
        if unused := set(self.indices) - {self._name(asked) for asked in self.router.own_tiers}:
            raise ConfigError(
                f"The index of the tier {min(unused)!r} would never be asked: {self.router!r} has no router of its own "
                "for it. Leave the index out, or give the tier a router."
            )
        if self.query_tier is not None:
            self._index(self.query_tier)
        if self.cascade is not None:
            if self.query_tier is not None:
                raise ConfigError("query_tier= asks one tier and cascade= chooses for each query. Give one of the two.")
            cheap, good = self._pair(self.cascade)
            if self._name(cheap) == self._name(good):
                raise ConfigError(f"A cascade needs two indices, but {cheap!r} and {good!r} share one.")

    def _name(self, asked: str) -> str:
        """Return the tier of the index that serves ``asked``."""
        router = self.router.router(asked)
        for name, other in self.router.served.items():
            if other is router and name in self.indices:
                return name
        raise ConfigError(
            f"There is no index for the tier {asked!r}, only for {', '.join(self.indices)}. Give each router of the "
            "TieredRouter an index of its own."
        )

    def _index(self, asked: str) -> VectorStoreIndex:
        """Return the index that serves ``asked``, if it still embeds in the space of that tier's router."""
        name = self._name(asked)
        index, router = self.indices[name], self.router.router(asked)
        space = _embedder(name, index).router.space
        if space != router.space:
            raise SpaceMismatchError(
                f"The index of the tier {name!r} embeds in the space {space}, its router in {router.space}: a distance "
                "between the two means nothing. Build the index with "
                f"embed_model=RouterEmbedding(router=tiered.router({name!r}))."
            )
        return index

    # Which tier, and how many nodes

    def with_tier(self, tier: str) -> TieredRetriever:
        """Return a retriever over the same indices that asks ``tier``, without a cascade.

        Raises:
            ValueError: the tier is unknown.
        """
        return self._copy(query_tier=tier, cascade=None)

    def with_search(self, *, similarity_top_k: int | None = None, **search: Any) -> TieredRetriever:
        """Return a retriever over the same indices with other settings of the search, for one call or for many."""
        return self._copy(similarity_top_k=similarity_top_k or self.similarity_top_k, **{**self.search, **search})

    def _copy(self, **other: Any) -> TieredRetriever:
        own = ("router", "query_tier", "cascade", "similarity_top_k", "callback_manager")
        settings = {name: getattr(self, name) for name in own}
        return type(self)(self.indices, **{**settings, **self.search, **other})

    def _asked(self) -> str | None:
        return first_given(requested("query"), self.query_tier)

    def _pair(self, cascade: Cascade) -> tuple[str, str]:
        tiers = self.router.own_tiers
        return cascade.cheap or tiers[0], cascade.good or tiers[-1]

    # Retrieval

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = self._asked()
        if asked is not None or self.cascade is None:
            asked = default_tier(self.router, "query") if asked is None else asked
            return self._labelled(self._search(asked, query_bundle), asked)
        cheap, good = self._pair(self.cascade)
        found = self._search(cheap, query_bundle, at_least=DEPTH)
        if self.cascade.escalates(self._scores(found, cheap)):
            return self._labelled(self._search(good, query_bundle), good, escalated=True)
        return self._labelled(found[: self.similarity_top_k], cheap, escalated=False)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = self._asked()
        if asked is not None or self.cascade is None:
            asked = default_tier(self.router, "query") if asked is None else asked
            return self._labelled(await self._asearch(asked, query_bundle), asked)
        cheap, good = self._pair(self.cascade)
        found = await self._asearch(cheap, query_bundle, at_least=DEPTH)
        if self.cascade.escalates(self._scores(found, cheap)):
            return self._labelled(await self._asearch(good, query_bundle), good, escalated=True)
        return self._labelled(found[: self.similarity_top_k], cheap, escalated=False)

    def _search(self, asked: str, query: QueryBundle, *, at_least: int = 1) -> list[NodeWithScore]:
        with self._embedding(asked) as index:
            return self._retriever(index, at_least).retrieve(_unembedded(query))

    async def _asearch(self, asked: str, query: QueryBundle, *, at_least: int = 1) -> list[NodeWithScore]:
        with self._embedding(asked) as index:
            return await self._retriever(index, at_least).aretrieve(_unembedded(query))

    def _retriever(self, index: VectorStoreIndex, at_least: int) -> BaseRetriever:
        return index.as_retriever(**{**self.search, "similarity_top_k": max(self.similarity_top_k, at_least)})

    @contextmanager
    def _embedding(self, asked: str) -> Iterator[VectorStoreIndex]:
        """Give the index of a tier; its router uses its own default tiers, whatever was asked outside."""
        index = self._index(asked)
        embedder = _embedder(asked, index)
        queries = first_given(embedder.query_tier, default_tier(embedder.router, "query"))
        documents = first_given(embedder.document_tier, default_tier(embedder.router, "document"))
        with tier(queries, documents=documents):
            yield index

    def _scores(self, found: Sequence[NodeWithScore], asked: str) -> list[float]:
        scores = [item.score for item in found if item.score is not None]
        if len(scores) != len(found):
            raise ConfigError(
                f"A cascade compares scores, and the vector store of the tier {asked!r}, a "
                f"{type(self._index(asked).vector_store).__name__}, gives none. Use another one for this tier, or no "
                "cascade."
            )
        return scores

    def _labelled(
        self, found: Sequence[NodeWithScore], asked: str, *, escalated: bool | None = None
    ) -> list[NodeWithScore]:
        label: dict[str, Any] = {TIER: self._name(asked), SPACE: str(self.router.router(asked).space)}
        if escalated is not None:
            label[ESCALATED] = escalated
        return [NodeWithScore(node=_with(label, item.node), score=item.score) for item in found]

    # Nodes. The highest tier comes first: what costs most and fails most fails before the others hold anything

    def insert_nodes(self, nodes: Sequence[BaseNode], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Insert nodes into every index under their own ids.

        Long documents are split first, once, so that the parts are the same everywhere:
        ``SentenceSplitter().get_nodes_from_documents(documents)``. Should an index fail, insert the same nodes again;
        vectors already paid for are in the cache.

        Args:
            nodes: what to insert.
            tiers: the indices to fill; all when left out. What is in one index only is found at its tier only.
            kwargs: whatever the vector stores' ``add`` take.
        """
        for name in self._filled(tiers):
            with self._embedding(name) as index:
                index.insert_nodes(_copies(nodes), **kwargs)

    async def ainsert_nodes(
        self, nodes: Sequence[BaseNode], *, tiers: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        """Do what ``insert_nodes`` does without blocking the event loop."""
        for name in self._filled(tiers):
            with self._embedding(name) as index:
                await index.ainsert_nodes(_copies(nodes), **kwargs)

    def delete_nodes(self, node_ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any) -> None:
        """Remove nodes from every index, or from those of ``tiers``."""
        for name in self._filled(tiers):
            self._index(name).delete_nodes(list(node_ids), **kwargs)

    async def adelete_nodes(
        self, node_ids: Sequence[str], *, tiers: Sequence[str] | None = None, **kwargs: Any
    ) -> None:
        """Do what ``delete_nodes`` does without blocking the event loop."""
        for name in self._filled(tiers):
            await self._index(name).adelete_nodes(list(node_ids), **kwargs)

    def _filled(self, tiers: Sequence[str] | None) -> list[str]:
        """Return the tiers of the indices to change, highest first."""
        if isinstance(tiers, str):
            raise ConfigError(f"tiers must be a list of tiers, such as [{tiers!r}].")
        names = {self._name(asked) for asked in (self.router.own_tiers if tiers is None else tiers)}
        return sorted(names, key=self.router.tiers.index, reverse=True)


def _embedder(name: str, index: VectorStoreIndex) -> RouterEmbedding:
    """Return the adapter that embeds for an index.

    Raises:
        ConfigError: something else does, whose space nobody knows.
    """
    embedder = index._embed_model
    if not isinstance(embedder, RouterEmbedding):
        raise ConfigError(
            f"The index of the tier {name!r} embeds with {type(embedder).__name__}, whose space is not known. "
            "Build it with embed_model=RouterEmbedding(router=…)."
        )
    return embedder


def _unembedded(query: QueryBundle) -> QueryBundle:
    """Return a query of its own for one index: the framework writes the embedding into it."""
    if not any(query.embedding_strs):
        raise InvalidInputError("The query has no text. A TieredRetriever embeds queries itself, so give it one.")
    return replace(query, embedding=None)


def _with(label: Mapping[str, Any], node: BaseNode) -> BaseNode:
    """Return a copy that carries ``label`` where neither prompts nor embeddings read it."""
    hidden = [name for name in label if name not in node.metadata]
    return node.model_copy(
        update={
            "metadata": {**node.metadata, **label},
            "excluded_embed_metadata_keys": [*node.excluded_embed_metadata_keys, *hidden],
            "excluded_llm_metadata_keys": [*node.excluded_llm_metadata_keys, *hidden],
        }
    )


def _copies(nodes: Sequence[BaseNode]) -> list[BaseNode]:
    """Return the nodes without an embedding, which would go into every index, whatever its space."""
    return [node.model_copy(update={"embedding": None, "metadata": dict(node.metadata)}) for node in nodes]
