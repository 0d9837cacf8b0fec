"""LlamaIndex ``BaseEmbedding`` in front of a router."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, field_validator

from ..errors import ConfigError
from ..models import first_given
from ..retrieval.index_guard import GuardedRouter
from ..router import Router


class RouterEmbedding(BaseEmbedding):
    """Embed through a router, wherever LlamaIndex takes ``BaseEmbedding``.

    The framework hands over up to 2,048 texts at once, and the router makes requests of the provider's size.

    Args:
        router: the one router in front of the vector store; a ``TieredRouter`` is refused, because an index holds one
            space.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        index: a name for the vector store. Its space is recorded with the first documents, and from then on a router of
            another space is refused.
        settings: fields of ``BaseEmbedding``, such as ``callback_manager``.

    Raises:
        SpaceMismatchError: the index is recorded in another space.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    embed_batch_size: int = Field(default=2048, gt=0, le=2048, description="Texts handed to the router at once.")
    space: str = Field(default="", description="The embedding space of every vector.")
    query_tier: str | None = Field(default=None, description="The tier of queries, over the router's.")
    document_tier: str | None = Field(default=None, description="The tier of documents, over the router's.")
    index: str | None = Field(default=None, description="The name of the vector store that is held to the space.")

    _guarded: GuardedRouter = PrivateAttr()

    def __init__(
        self,
        *,
        router: Router,
        query_tier: str | None = None,
        document_tier: str | None = None,
        index: str | None = None,
        **settings: Any,
    ) -> None:
        guarded = GuardedRouter(router, index)
        guarded.require_tiers(query_tier, document_tier)
        shown = {"model_name": ", ".join(guarded.router.models), "space": str(guarded.router.space)}
        own = {"query_tier": query_tier, "document_tier": document_tier, "index": index}
        super().__init__(**{**shown, **own, **settings})
        self._guarded = guarded

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
    def from_config(cls, path: str | Path | None = None, **settings: Any) -> Self:
        """Build the router from a TOML file; see ``Router.from_config``. ``settings`` are the other arguments."""
        return cls(router=Router.from_config(path), **settings)

    @property
    def router(self) -> Router:
        """The one router in front of the vector store."""
        return self._guarded.router

    def with_tier(self, tier: str, *, documents: str | None = None) -> Self:
        """Return the same embedder with another tier for queries, and for documents if ``documents`` is given."""
        self._guarded.require_tiers(tier, documents)
        return self.model_copy(update={"query_tier": tier, "document_tier": first_given(documents, self.document_tier)})

    # What BaseEmbedding calls: queries, one document, many documents, each in both forms

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._guarded.embed([query], "query", self.query_tier)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._guarded.aembed([query], "query", self.query_tier))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._guarded.embed(texts, "document", self.document_tier)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._guarded.aembed(texts, "document", self.document_tier)

    # Pickles are built anew from the router and the fields; a callback manager does not pickle

    def __reduce__(self) -> tuple[Any, ...]:
        names = set(type(self).model_fields) - {"space", "embeddings_cache", "callback_manager"}
        return partial(RouterEmbedding, router=self.router, **{name: getattr(self, name) for name in names}), ()
