"""Haystack embedders in front of a router: one for Documents, one for the text of a query.

    from embedrouter.integrations.haystack import RouterDocumentEmbedder, RouterTextEmbedder

    indexing.add_component("embedder", RouterDocumentEmbedder(router, index="handbook"))
    search.add_component("embedder", RouterTextEmbedder(router, index="handbook"))

A run asks for a tier with ``tier=``: ``search.run({"embedder": {"text": question, "tier": "high"}})``. In ``meta`` is
what a run used, as with Haystack's own embedders, and its cost.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from ..providers.versions import require_extra

require_extra(__name__, "haystack", "haystack")

from haystack import Document, component, default_from_dict, default_to_dict
from tqdm import tqdm

from ..errors import InvalidInputError
from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.index_guard import GuardedRouter
from ..retrieval.stored_router import described
from ..router import Router
from ..types import EmbeddingResult, Usage, dollars

__all__ = ["RouterDocumentEmbedder", "RouterTextEmbedder"]

with suppress(ImportError):  # since 3.0 a pipeline's file may name Haystack's own components and those allowed here
    from haystack.core.serialization import allow_deserialization_module

    allow_deserialization_module(__name__)


class _Embedder:
    """Hold the router, and what both components have."""

    def __init__(self, router: GivenRouter, tier: str | None, index: str | None, settings: dict[str, Any]) -> None:
        self._guarded = GuardedRouter(as_router(router, settings), index)
        self._guarded.require_tiers(tier)
        self.tier = tier
        self.index = index

    @property
    def router(self) -> Router:
        """The one router in front of the document store."""
        return self._guarded.router

    def _described(self, **own: Any) -> dict[str, Any]:
        return default_to_dict(self, router=described(self.router), tier=self.tier, index=self.index, **own)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build the component of which a pipeline's file has ``to_dict()``, or any of the constructor's arguments."""
        embedder: Self = default_from_dict(cls, data)
        return embedder

    def warm_up(self) -> None:
        """Do nothing: the router connects, and loads local models, at its first request."""

    def close(self) -> None:
        """Close the router, which a later run opens again."""
        self.router.close()

    async def close_async(self) -> None:
        """Do what ``close`` does without blocking the event loop."""
        await self.router.aclose()


@component
class RouterTextEmbedder(_Embedder):
    """Embed the text of a query through a router.

    Args:
        router: the one router in front of the document store; a ``TieredRouter`` is refused, because a store holds one
            space. Or the name of a model, a list of models, or the path of a TOML file, of which a router is built.
        tier: the tier of runs that ask for none, over the router's.
        index: a name for the document store. Its space is recorded with the first documents, and from then on a router
            of another space is refused.
        settings: arguments of ``Router``, such as ``budget`` and ``dimensions``, where the router is built here.

    Raises:
        ConfigError: ``router`` is none of these, or a setting is wrong; the message has the line to write.
        SpaceMismatchError: the index is recorded in another space.
    """

    def __init__(
        self, router: GivenRouter, *, tier: str | None = None, index: str | None = None, **settings: Any
    ) -> None:
        _Embedder.__init__(self, router, tier, index, settings)  # Haystack makes another class of this one

    def to_dict(self) -> dict[str, Any]:
        """Return what a pipeline's file keeps: the router's settings without keys, and the arguments."""
        return self._described()

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    def run(self, text: str, tier: str | None = None) -> dict[str, Any]:
        """Return ``embedding``, the vector of a query, and ``meta``; see ``Router.embed`` for the errors."""
        result = self._guarded.result([_text(text)], "query", tier, self.tier)
        return {"embedding": result.to_list()[0], "meta": _meta(result)}

    @component.output_types(embedding=list[float], meta=dict[str, Any])
    async def run_async(self, text: str, tier: str | None = None) -> dict[str, Any]:
        """Do what ``run`` does without blocking the event loop."""
        result = await self._guarded.aresult([_text(text)], "query", tier, self.tier)
        return {"embedding": result.to_list()[0], "meta": _meta(result)}


@component
class RouterDocumentEmbedder(_Embedder):
    """Embed Documents through a router, which makes requests of the provider's size.

    Args:
        router: see ``RouterTextEmbedder``, also for ``tier`` and ``index``.
        tier: the tier of documents.
        index: a name for the index.
        batch_size: Documents handed to the router at once.
        progress_bar: whether to show how many Documents are embedded.
        meta_fields_to_embed: fields of ``meta`` that are put before the content.
        embedding_separator: between these and the content.
        settings: arguments of ``Router``, where the router is built here.
    """

    def __init__(
        self,
        router: GivenRouter,
        *,
        tier: str | None = None,
        index: str | None = None,
        batch_size: int = 2048,
        progress_bar: bool = True,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        **settings: Any,
    ) -> None:
        _Embedder.__init__(self, router, tier, index, settings)  # Haystack makes another class of this one
        self.batch_size = batch_size
        self.progress_bar = progress_bar
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def to_dict(self) -> dict[str, Any]:
        """Return what a pipeline's file keeps: the router's settings without keys, and the arguments."""
        own = ("batch_size", "progress_bar", "meta_fields_to_embed", "embedding_separator")
        return self._described(**{name: getattr(self, name) for name in own})

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    def run(self, documents: list[Document], tier: str | None = None) -> dict[str, Any]:
        """Return ``documents``, copies with their vectors, and ``meta``; see ``Router.embed`` for the errors."""
        results = []
        with self._bar(documents) as bar:
            for result in self._guarded.each(self._texts(documents), "document", self.batch_size, tier, self.tier):
                results.append(result)
                bar.update(len(result))
        return {"documents": _with_vectors(documents, results), "meta": _meta(*results)}

    @component.output_types(documents=list[Document], meta=dict[str, Any])
    async def run_async(self, documents: list[Document], tier: str | None = None) -> dict[str, Any]:
        """Do what ``run`` does without blocking the event loop."""
        results = []
        texts = self._texts(documents)
        with self._bar(documents) as bar:
            async for result in self._guarded.aeach(texts, "document", self.batch_size, tier, self.tier):
                results.append(result)
                bar.update(len(result))
        return {"documents": _with_vectors(documents, results), "meta": _meta(*results)}

    def _bar(self, documents: Sequence[Document]) -> Any:
        return tqdm(total=len(documents), disable=not self.progress_bar, desc="Calculating embeddings")

    def _texts(self, documents: list[Document]) -> list[str]:
        if not isinstance(documents, list) or not all(isinstance(item, Document) for item in documents):
            raise TypeError("RouterDocumentEmbedder takes a list of Documents. For a text use RouterTextEmbedder.")
        texts = []
        for document in documents:
            fields = [document.meta.get(name) for name in self.meta_fields_to_embed]
            parts = [str(value) for value in fields if value is not None]
            texts.append(self.embedding_separator.join([*parts, document.content or ""]))
        if empty := [number for number, text in enumerate(texts) if not text]:
            raise InvalidInputError(
                f"{len(empty)} of {len(documents)} Documents have no text, such as the one with the id "
                f"{documents[empty[0]].id}; nothing was sent. Leave them out: [d for d in documents if d.content].",
                indices=empty,
            )
        return texts


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError("RouterTextEmbedder takes a text. For Documents use RouterDocumentEmbedder.")
    return text


def _with_vectors(documents: Sequence[Document], results: Sequence[EmbeddingResult]) -> list[Document]:
    vectors = [vector for result in results for vector in result.to_list()]
    return [replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)]


def _meta(*results: EmbeddingResult) -> dict[str, Any]:
    """Return what Haystack's own embedders return, with the cost and what the cache saved."""
    usage = sum((result.usage for result in results), Usage())
    return {
        "model": ", ".join(dict.fromkeys(model for result in results for model in result.models)),
        "usage": {"prompt_tokens": usage.tokens, "total_tokens": usage.tokens},
        "cost": dollars(usage.cost),
        "saved": dollars(usage.saved),
        "cached": sum(sum(result.cached) for result in results),
    }
