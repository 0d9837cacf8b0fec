"""LlamaIndex: a router as ``BaseEmbedding``.

    from embedrouter.llama_index import RouterEmbedding

    index = VectorStoreIndex.from_documents(documents, embed_model=RouterEmbedding(router=router))

The framework hands over up to 2,048 texts at once and the router makes requests of the provider's size. The tier of a
query is, nearest first: what ``with embedrouter.tier(…)`` says; the adapter's ``query_tier``; the router's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_validator

from ..errors import ConfigError
from ..models import first_given, rank, requested
from ..retrieval import IndexGuard, guard, guarded
from ..router import Router
from ..tiered import single
from ..types import InputType

__all__ = ["RouterEmbedding"]


class RouterEmbedding(BaseEmbedding):
    """Embeds through a router, wherever LlamaIndex takes ``BaseEmbedding``.

    Args:
        router: the one router behind it; a ``TieredRouter`` is refused, because an index holds one space.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        index: a name for the vector store behind it. Its space is recorded with the first documents, and a router of
            another space is refused from then on.
        settings: fields of ``BaseEmbedding``, such as ``callback_manager``.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts handed to the router at once.")
    space: str = Field(default="", description="The embedding space of every vector.")
    query_tier: str | None = Field(default=None, description="The tier of queries, over the router's.")
    document_tier: str | None = Field(default=None, description="The tier of documents, over the router's.")

    index: str | None = Field(default=None, description="The name of the vector store that is held to the space.")

    _router: Router = PrivateAttr()
    _guard: IndexGuard | None = PrivateAttr(default=None)

    def __init__(
        self,
        *,
        router: Router,
        query_tier: str | None = None,
        document_tier: str | None = None,
        index: str | None = None,
        **settings: Any,
    ) -> None:
        one = single(router)
        for tier in (query_tier, document_tier):
            if tier is not None:
                rank(tier, one.tiers)
        own = {"query_tier": query_tier, "document_tier": document_tier, "index": index}
        super().__init__(**{"model_name": ", ".join(one.models), "space": str(one.space), **own, **settings})
        self._router = one
        self._guard = guard(one, index) if index is not None else None

    @field_validator("embeddings_cache")
    @classmethod
    def _no_second_cache(cls, cache: object) -> None:
        if cache is not None:
            raise ConfigError(
                "embeddings_cache mixes queries with documents, because its key is the bare text. The router has a "
                "cache of its own: Router(…, cache=…)."
            )

    @classmethod
    def class_name(cls) -> str:
        return "RouterEmbedding"

    @classmethod
    def from_config(cls, path: str | Path | None = None, **settings: Any) -> RouterEmbedding:
        """Build the router from a TOML file; see ``Router.from_config``. ``settings`` are the other arguments."""
        return cls(router=Router.from_config(path), **settings)

    @property
    def router(self) -> Router:
        """The router behind it."""
        return self._router

    def with_tier(self, tier: str, *, documents: str | None = None) -> RouterEmbedding:
        """Return the same embedder with another tier for queries, and for documents if ``documents`` is given."""
        return RouterEmbedding(
            router=self._router,
            **{**self._settings(), "query_tier": tier, "document_tier": first_given(documents, self.document_tier)},
        )

    # What BaseEmbedding calls: queries, one document, many documents, each in both forms

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._aembed([query], "query"))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aembed([text], "document"))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._aembed(texts, "document")

    def _embed(self, texts: Sequence[str], input_type: InputType) -> list[list[float]]:
        with guarded(self._guard, texts, input_type):
            result = self._router.embed(texts, input_type=input_type, tier=self._tier(input_type))
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors

    async def _aembed(self, texts: Sequence[str], input_type: InputType) -> list[list[float]]:
        with guarded(self._guard, texts, input_type):
            result = await self._router.aembed(texts, input_type=input_type, tier=self._tier(input_type))
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors

    def _tier(self, input_type: InputType) -> str | None:
        return first_given(requested(input_type), self.query_tier if input_type == "query" else self.document_tier)

    # Copies and pickles are built anew, so that the router travels and nothing is dropped on the way

    def _settings(self) -> dict[str, Any]:
        fields = set(type(self).model_fields) - {"space", "embeddings_cache", "callback_manager"}
        return {name: getattr(self, name) for name in fields}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._router, self._settings())


def _rebuild(router: Router, settings: dict[str, Any]) -> RouterEmbedding:
    return RouterEmbedding(router=router, **settings)
