"""LangChain: a router as ``Embeddings``.

    from embedrouter.langchain import RouterEmbeddings

    store = InMemoryVectorStore(RouterEmbeddings(router))

The tier of a query is, nearest first: what ``with embedrouter.tier(…)`` says; ``config={"configurable":
{"embedding_tier": …}}`` of the chain, where LangChain passes it down; the adapter's ``query_tier``; the router's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings

from ..models import first_given, rank, requested
from ..retrieval import guard, guarded
from ..router import Router
from ..tiered import single
from ..types import InputType, Space

__all__ = ["RouterEmbeddings"]

CONFIGURABLE = "embedding_tier"


class RouterEmbeddings(Embeddings):
    """Embeds through a router, wherever LangChain takes ``Embeddings``.

    Args:
        router: the one router behind it; a ``TieredRouter`` is refused, because a vector store holds one space.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        index: a name for the vector store behind it. Its space is recorded with the first documents, and a router of
            another space is refused from then on. Open a ``QdrantVectorStore`` that is only asked with
            ``validate_embeddings=False``: otherwise it embeds a document, which may decide the space.

    Raises:
        SpaceMismatchError: the index is recorded in another space.
    """

    def __init__(
        self,
        router: Router,
        *,
        query_tier: str | None = None,
        document_tier: str | None = None,
        index: str | None = None,
    ) -> None:
        self.router = single(router)
        self.index = index
        self._guard = guard(self.router, index) if index is not None else None
        self.query_tier = query_tier
        self.document_tier = document_tier
        for tier in (query_tier, document_tier):
            if tier is not None:
                rank(tier, self.router.tiers)

    @classmethod
    def from_config(cls, path: str | Path | None = None, **settings: Any) -> RouterEmbeddings:
        """Build the router from a TOML file; see ``Router.from_config``. ``settings`` are the other arguments."""
        return cls(Router.from_config(path), **settings)

    @property
    def space(self) -> Space:
        """The space of every vector."""
        return self.router.space

    def with_tier(self, tier: str, *, documents: str | None = None) -> RouterEmbeddings:
        """Return the same embedder with another tier for queries, and for documents if ``documents`` is given."""
        documents = first_given(documents, self.document_tier)
        return RouterEmbeddings(self.router, query_tier=tier, document_tier=documents, index=self.index)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per text; see ``Router.embed`` for the errors."""
        return self._embed(texts, "document")

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query; see ``Router.embed`` for the errors."""
        return self._embed([text], "query")[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do what ``embed_documents`` does without blocking the event loop."""
        return await self._aembed(texts, "document")

    async def aembed_query(self, text: str) -> list[float]:
        """Do what ``embed_query`` does without blocking the event loop."""
        return (await self._aembed([text], "query"))[0]

    def _embed(self, texts: list[str], input_type: InputType) -> list[list[float]]:
        with guarded(self._guard, texts, input_type):
            result = self.router.embed(texts, input_type=input_type, tier=self._tier(input_type))
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors

    async def _aembed(self, texts: list[str], input_type: InputType) -> list[list[float]]:
        with guarded(self._guard, texts, input_type):
            result = await self.router.aembed(texts, input_type=input_type, tier=self._tier(input_type))
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors

    def _tier(self, input_type: InputType) -> str | None:
        if input_type == "document":
            return first_given(requested("document"), self.document_tier)
        return first_given(requested("query"), _configured(), self.query_tier)

    def __repr__(self) -> str:
        settings = {"query_tier": self.query_tier, "document_tier": self.document_tier, "index": self.index}
        given = "".join(f", {name}={value!r}" for name, value in settings.items() if value is not None)
        return f"RouterEmbeddings({self.router!r}{given})"


def _configured() -> str | None:
    """Return the tier in the configuration of the chain that is running, if any."""
    running = sys.modules.get("langchain_core.runnables.config")  # where no chain was imported none is running
    config = running.var_child_runnable_config.get() if running else None
    return config.get("configurable", {}).get(CONFIGURABLE) if config else None
