"""DSPy embedder in front of a router, and DSPy's retriever around it.

    from embedrouter.integrations.dspy import RouterEmbedder, RouterRetriever

    search = RouterRetriever(corpus, RouterEmbedder("openai:text-embedding-3-small", index="handbook"), k=3)
    search(question).passages

``dspy.Embedder(function)`` keeps results by the function's source, so two routers would share them. ``RouterEmbedder``
leaves that cache out: the router has its own. DSPy does not tell a query from a document; ``RouterRetriever`` does.
"""

import copy
from typing import Any, Self

import numpy as np

from ..providers.versions import require_extra

require_extra(__name__, "dspy", "dspy")

import dspy
from dspy.retrievers import Embeddings

from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.index_guard import GuardedRouter
from ..router import Router
from ..types import InputType, Vectors

__all__ = ["RouterEmbedder", "RouterRetriever"]


class RouterEmbedder(dspy.Embedder):
    """Embed through a router, wherever DSPy takes an embedder.

    Args:
        router: the one router in front of the corpus; a ``TieredRouter`` is refused, because a corpus is in one space.
            Or the name of a model, a list of models, or the path of a TOML file, of which a router is built.
        input_type: of the texts: ``"document"``, or ``"query"``.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        index: a name for the corpus. Its space is recorded with the first documents, and from then on a router of
            another space is refused.
        settings: arguments of ``Router``, such as ``budget`` and ``dimensions``, where the router is built here.

    Raises:
        ConfigError: ``router`` is none of these, or a setting is wrong; the message has the line to write.
        SpaceMismatchError: the index is recorded in another space.
    """

    def __init__(
        self,
        router: GivenRouter,
        *,
        input_type: InputType = "document",
        query_tier: str | None = None,
        document_tier: str | None = None,
        index: str | None = None,
        **settings: Any,
    ) -> None:
        self._guarded = GuardedRouter(as_router(router, settings), index)
        self._guarded.require_tiers(query_tier, document_tier)
        super().__init__(self._vectors, caching=False)
        self.input_type: InputType = input_type
        self.tiers: dict[InputType, str | None] = {"query": query_tier, "document": document_tier}

    @property
    def router(self) -> Router:
        """The one router in front of the corpus."""
        return self._guarded.router

    def of(self, input_type: InputType) -> Self:
        """Return the same embedder for texts of another type."""
        other = copy.copy(self)
        other.input_type = input_type
        return other

    def __call__(self, inputs: str | list[str], *_: Any, input_type: InputType | None = None, **__: Any) -> Vectors:
        """Return the vector of a text, or one row per text, as float32; see ``Router.embed`` for the errors."""
        vectors = self._vectors([inputs] if isinstance(inputs, str) else inputs, input_type)
        return vectors[0] if isinstance(inputs, str) else vectors

    async def acall(self, inputs: str | list[str], *_: Any, input_type: InputType | None = None, **__: Any) -> Vectors:
        """Do what a call does without blocking the event loop."""
        kind = input_type or self.input_type
        texts = [inputs] if isinstance(inputs, str) else inputs
        vectors = np.array((await self._guarded.aresult(texts, kind, self.tiers[kind])).vectors, np.float32)
        return vectors[0] if isinstance(inputs, str) else vectors

    def _vectors(self, texts: list[str], input_type: InputType | None = None) -> Vectors:
        kind = input_type or self.input_type
        return np.array(self._guarded.result(texts, kind, self.tiers[kind]).vectors, np.float32)


class RouterRetriever(Embeddings):
    """Retrieve as ``dspy.retrievers.Embeddings`` does, with questions embedded as queries.

    A question is embedded where it is asked, so that ``with embedrouter.tier(…)`` counts, and not in a thread of DSPy's
    that waits for more questions; the router joins small calls by itself.

    Args:
        corpus: the passages, embedded as documents.
        embedder: embeds both.
        settings: further arguments of ``dspy.retrievers.Embeddings``, such as ``k``.
    """

    search_fn: Any

    def __init__(self, corpus: list[str], embedder: RouterEmbedder, **settings: Any) -> None:
        super().__init__(corpus, embedder.of("document"), **settings)
        self._ask_as(embedder)

    def load(self, path: str, embedder: RouterEmbedder) -> Self:
        """Load what ``save`` wrote; see ``dspy.retrievers.Embeddings.load``."""
        super().load(path, embedder)
        self._ask_as(embedder)
        return self

    def _ask_as(self, embedder: RouterEmbedder) -> None:
        self.embedder = embedder.of("query")
        search = self.search_fn.batch_fn
        self.search_fn = lambda question: search([question])[0]
