"""LangChain ``Embeddings`` in front of a router."""

import asyncio
import copy
from collections.abc import Sized
from pathlib import Path
from typing import Any, Self

from langchain_core.embeddings import Embeddings
from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from .._display import explained
from ..calls import ShowProgress, texts_in
from ..models import first_given
from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.index_guard import GuardedRouter, ShownIsHeld
from ..router import Router
from ..types import Space
from ._asked import Question, running_tier
from ._runs import Run

COUNTED_IN = "this call of embed_documents, and a vector store makes one call for each batch of its texts"


CALL = "RouterEmbeddings('openai:text-embedding-3-small')"


@explained(CALL, model=CALL, model_name=CALL)
class RouterEmbeddings(ShownIsHeld, Embeddings):
    """Embed through a router, wherever LangChain takes ``Embeddings``.

    An attribute that is set later is checked as at the beginning; one that follows from the router cannot be set.

        RouterEmbeddings("openai:text-embedding-3-small", budget="5.00/day")

    Args:
        router: the one router in front of the vector store; a ``TieredRouter`` is refused, because a vector store holds
            one space. Or the name of a model, a list of models, or the path of a TOML file, of which a router is built.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        index: a name for the vector store. Its space is recorded with the first documents, and from then on a router of
            another space is refused. Open a ``QdrantVectorStore`` that is only searched with
            ``validate_embeddings=False``: otherwise it embeds a document, which may decide the space.
        show_progress: whether a bar shows how far the documents are, what came from the cache and what it costs;
            ``"auto"`` shows one where the work lasts longer than two seconds and there is a terminal or a notebook.
        settings: arguments of ``Router``, such as ``budget`` and ``dimensions``, where the router is built here.

    Raises:
        ConfigError: ``router`` is none of these, or a setting is wrong; the message has the line to write.
        SpaceMismatchError: the index is recorded in another space.
    """

    def __init__(
        self,
        router: GivenRouter,
        *,
        query_tier: str | None = None,
        document_tier: str | None = None,
        index: str | None = None,
        show_progress: ShowProgress = False,
        **settings: Any,
    ) -> None:
        self._guarded = GuardedRouter(as_router(router, settings), index, COUNTED_IN)
        self._guarded.require_tiers(query_tier, document_tier)
        self.index = index
        self.query_tier = query_tier
        self.document_tier = document_tier
        self.show_progress: ShowProgress = show_progress

    @classmethod
    def from_config(cls, path: str | Path | None = None, **settings: Any) -> Self:
        """Build the router from a TOML file; see ``Router.from_config``. ``settings`` are the other arguments."""
        return cls(Router.from_config(path), **settings)

    @property
    def router(self) -> Router:
        """The one router in front of the vector store."""
        return self._guarded.router

    @property
    def space(self) -> Space:
        """The space of every vector."""
        return self.router.space

    @property
    def model(self) -> str:
        """Name of everything that decides a vector, for caches: ``CacheBackedEmbeddings``'s ``namespace=``.

        Letters, digits and hyphens. It changes with the models, their prompts, dimensions and tiers, with
        ``on_too_long`` and ``cache_dtype``, and not with keys, addresses and folders.
        """
        return f"embedrouter-{self._guarded.fingerprint(self.query_tier, self.document_tier)}"

    @property
    def dimensions(self) -> int:
        """The length of every vector."""
        return self.space.dimensions

    def with_tier(self, tier: str, *, documents: str | None = None) -> Self:
        """Return the same embedder with another tier for queries, and for documents if ``documents`` is given."""
        self._guarded.require_tiers(tier, documents)
        other = copy.copy(self)
        other.query_tier = tier
        other.document_tier = first_given(documents, self.document_tier)
        return other

    def embed_documents(self, texts: list[str], chunk_size: int | None = None) -> list[list[float]]:
        """Return one vector per text; see ``Router.embed`` for the errors.

        Args:
            texts: the documents.
            chunk_size: accepted as ``OpenAIEmbeddings`` does, and without effect: the router packs requests by the
                limits of each model.
        """
        if _are_questions(texts):  # LangGraph's SQL stores embed what is searched for as documents
            return [self.embed_query(text) for text in texts]
        texts = _counted(texts)
        with Run(self.router, len(texts), "document", self.document_tier) as run:
            run.result = self._guarded.result(texts, "document", self.document_tier, show_progress=self.show_progress)
        return run.result.to_list()

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query; see ``Router.embed`` for the errors."""
        if isinstance(text, Question):
            return text.asked_in.copy().run(self.embed_query, str(text))
        with Run(self.router, 1, "query", asked := running_tier(), self.query_tier) as run:
            run.result = self._guarded.result([text], "query", asked, self.query_tier)
        return run.result.to_list()[0]

    async def aembed_documents(self, texts: list[str], chunk_size: int | None = None) -> list[list[float]]:
        """Do what ``embed_documents`` does without blocking the event loop."""
        if _are_questions(texts):
            return [await self.aembed_query(text) for text in texts]
        texts = _counted(texts)
        async with Run(self.router, len(texts), "document", self.document_tier) as run:
            run.result = await self._guarded.aresult(
                texts, "document", self.document_tier, show_progress=self.show_progress
            )
        return run.result.to_list()

    async def aembed_query(self, text: str) -> list[float]:
        """Do what ``embed_query`` does without blocking the event loop."""
        if isinstance(text, Question):
            return await asyncio.create_task(self.aembed_query(str(text)), context=text.asked_in.copy())
        async with Run(self.router, 1, "query", asked := running_tier(), self.query_tier) as run:
            run.result = await self._guarded.aresult([text], "query", asked, self.query_tier)
        return run.result.to_list()[0]

    # A field of a pydantic model takes an embedder, and what an embedder is built of

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> CoreSchema:
        shown = core_schema.plain_serializer_function_ser_schema(repr, when_used="json")
        return core_schema.no_info_plain_validator_function(cls._of, serialization=shown)

    @classmethod
    def _of(cls, given: Any) -> Self:
        return given if isinstance(given, cls) else cls(given)

    @classmethod
    def __get_pydantic_json_schema__(cls, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = "The name of a model, such as openai:text-embedding-3-small, or a list of names."
        return {**handler(core_schema.any_schema()), "title": cls.__name__, "description": described}

    def __repr__(self) -> str:
        settings = {name: getattr(self, name) for name in ("model", "query_tier", "document_tier", "index")}
        given = "".join(f", {name}={value!r}" for name, value in settings.items() if value is not None)
        return f"{type(self).__name__}({self.router!r}{given})"


def _are_questions(texts: object) -> bool:
    return isinstance(texts, list) and bool(texts) and all(isinstance(text, Question) for text in texts)


def _counted(texts: Any) -> Any:
    """Return texts that have a length: an iterator is read into a list, and what holds no texts is refused."""
    return texts if isinstance(texts, Sized) else list(texts_in(texts))
