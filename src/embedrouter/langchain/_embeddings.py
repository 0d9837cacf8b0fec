"""LangChain ``Embeddings`` in front of a router."""

import copy
import sys
from pathlib import Path
from typing import Any, Self

from langchain_core.embeddings import Embeddings

from .._display import explained
from ..models import first_given
from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.index_guard import GuardedRouter, ShownIsHeld
from ..router import Router
from ..types import Space

CONFIGURABLE = "embedding_tier"
"""The entry of ``config["configurable"]`` that asks for a tier."""


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
        **settings: Any,
    ) -> None:
        self._guarded = GuardedRouter(as_router(router, settings), index)
        self._guarded.require_tiers(query_tier, document_tier)
        self.index = index
        self.query_tier = query_tier
        self.document_tier = document_tier

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

    def with_tier(self, tier: str, *, documents: str | None = None) -> Self:
        """Return the same embedder with another tier for queries, and for documents if ``documents`` is given."""
        self._guarded.require_tiers(tier, documents)
        other = copy.copy(self)
        other.query_tier = tier
        other.document_tier = first_given(documents, self.document_tier)
        return other

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector per text; see ``Router.embed`` for the errors."""
        return self._guarded.embed(texts, "document", self.document_tier)

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query; see ``Router.embed`` for the errors."""
        return self._guarded.embed([text], "query", _configured(), self.query_tier)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do what ``embed_documents`` does without blocking the event loop."""
        return await self._guarded.aembed(texts, "document", self.document_tier)

    async def aembed_query(self, text: str) -> list[float]:
        """Do what ``embed_query`` does without blocking the event loop."""
        return (await self._guarded.aembed([text], "query", _configured(), self.query_tier))[0]

    def __repr__(self) -> str:
        settings = {name: getattr(self, name) for name in ("model", "query_tier", "document_tier", "index")}
        given = "".join(f", {name}={value!r}" for name, value in settings.items() if value is not None)
        return f"RouterEmbeddings({self.router!r}{given})"


def _configured() -> str | None:
    """Return the tier in the configuration of the chain that is running, if any."""
    running = sys.modules.get("langchain_core.runnables.config")  # where no chain was imported none is running
    config = running.var_child_runnable_config.get() if running else None
    return config.get("configurable", {}).get(CONFIGURABLE) if config else None
