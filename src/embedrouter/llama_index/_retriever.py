"""Retrieve from an index for each tier, where the tiers are different spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle, TransformComponent

from .._display import shown
from ..calls import run
from ..errors import ConfigError, InvalidInputError
from ..retrieval import DEPTH, Cascade
from ..retrieval.tiered_stores import TieredStores
from ..tiered import TieredRouter
from ._embedding import RouterEmbedding
from ._indices import LlamaIndexStores, TieredIndices, act


def _in_memory(embedder: RouterEmbedding) -> VectorStoreIndex:
    return VectorStoreIndex(nodes=[], embed_model=embedder)


SETTINGS = ("indices", "router", "query_tier", "cascade", "similarity_top_k", "transformations")
"""The retriever's arguments besides those of the search."""


class TieredRetriever(TieredIndices, BaseRetriever):
    """Retrieve from the index of the tier that a query asks for.

        both = TieredRouter({"low": local_router, "high": openai_router})
        retriever = TieredRetriever.from_router(both)
        retriever.insert_nodes(nodes)                   # into both indices, under the same ids
        retriever.refresh_ref_docs(documents)           # or documents, split once: what is new, and what has changed
        retriever.retrieve(question)                    # searches the index of the router's tier
        retriever.with_tier("low").retrieve(question)

    Each query goes to one index and is embedded by that index's own router, so no vector meets the vectors of another
    space. With ``cascade=Cascade(share=0.3)`` the cheap index is searched first, and for the queries that need it the
    good index as well; see ``embedrouter.cascade``.

    The tier of a query is the nearest of: ``with embedrouter.tier(…)``; the retriever's ``query_tier``; the
    ``TieredRouter``'s. The first two switch the cascade off.

    Nodes and queries may come with an embedding that another model made. Such an embedding is ignored: each index
    embeds for itself.

    Each node comes back as a copy whose metadata say which index answered: ``embedding_tier``, ``embedding_space``,
    and, where a cascade chose, ``embedding_escalated``. These keys are kept from prompts and embeddings. Nothing is
    changed in the indices.

    Args:
        indices: an index for each tier, each with a ``RouterEmbedding`` of that tier's router as ``embed_model``.
        router: the routers by tier; made of the indices' routers when left out.
        query_tier: the tier of queries that ask for none, over the router's.
        cascade: chooses the tier of queries that ask for none; instead of ``query_tier``.
        similarity_top_k: how many nodes to return.
        transformations: what splits documents, once for all indices; ``Settings.transformations`` when left out.
        callback_manager: see ``BaseRetriever``.
        search: further arguments of ``VectorStoreIndex.as_retriever``, such as ``filters``.

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
        transformations: Sequence[TransformComponent] | None = None,
        callback_manager: CallbackManager | None = None,
        **search: Any,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        if similarity_top_k < 1:
            raise ConfigError(f"similarity_top_k must be at least 1, not {shown(similarity_top_k)}.")
        if "embed_model" in search:
            raise ConfigError("Each index embeds with a model of its own. Leave embed_model= out.")
        self.indices = dict(indices)
        self.router = LlamaIndexStores.router_of(self.indices, router)
        self.query_tier = query_tier
        self.cascade = cascade
        self.similarity_top_k = similarity_top_k
        self.transformations = transformations
        self.search = search
        self._tiered.check()
        self._checked = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, if a retriever that is built with it is accepted."""
        if getattr(self, "_checked", False) and name in (*SETTINGS, "search"):
            self._copy(**(value if name == "search" else {name: value}))
        super().__setattr__(name, value)

    @property
    def _tiered(self) -> LlamaIndexStores:
        return LlamaIndexStores(self.indices, self.router, self.query_tier, self.cascade)

    @classmethod
    def from_router(
        cls, router: TieredRouter, make: Callable[[RouterEmbedding], VectorStoreIndex] = _in_memory, **settings: Any
    ) -> TieredRetriever:
        """Build an index for each router.

        Args:
            router: the routers, by tier.
            make: returns a new index with the given embedder as ``embed_model``; by default an index in memory. For
                vector stores that need a name of their own, pass ``indices`` to the class instead.
            settings: the retriever's other arguments.
        """
        indices = {name: make(RouterEmbedding(router=router.router(name))) for name in router.own_tiers}
        return cls(indices, router=router, **settings)

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
        settings = {name: getattr(self, name) for name in (*SETTINGS, "callback_manager")}
        return type(self)(**{**settings, **self.search, **other})

    # Retrieval

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return run(self._find(query_bundle, blocking=True))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._find(query_bundle, blocking=False)

    async def _find(self, query: QueryBundle, *, blocking: bool) -> list[NodeWithScore]:

        async def find(name: str, index: VectorStoreIndex, scored: bool) -> tuple[list[NodeWithScore], list[float]]:
            top_k = max(self.similarity_top_k, DEPTH) if scored else self.similarity_top_k
            retriever = index.as_retriever(**{**self.search, "similarity_top_k": top_k})
            asked = _unembedded(query)
            if blocking:
                hits = retriever.retrieve(asked)
            else:
                hits = await act(index, "aquery", retriever.retrieve, retriever.aretrieve, asked, blocking=False)
            scores = [hit.score for hit in hits if hit.score is not None]
            if scored and len(scores) != len(hits):
                raise TieredStores.no_scores(name, index.vector_store, "gives none")
            return hits, scores

        hits, label = await self._tiered.retrieve(find)
        return [NodeWithScore(node=_with(label, hit.node), score=hit.score) for hit in hits[: self.similarity_top_k]]


def _unembedded(query: QueryBundle) -> QueryBundle:
    """Return a query of its own for one index: the framework writes the embedding into it."""
    if not any(query.embedding_strs):
        raise InvalidInputError("The query has no text. A TieredRetriever embeds queries itself, so give it one.")
    return replace(query, embedding=None)


def _with(label: Mapping[str, Any], node: BaseNode) -> BaseNode:
    """Return a copy that carries ``label`` where neither prompts nor embeddings read it."""
    hidden = [name for name in label if name not in node.metadata]
    keys = ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
    update = {key: [*getattr(node, key), *hidden] for key in keys}
    return node.model_copy(update={**update, "metadata": {**node.metadata, **label}})
