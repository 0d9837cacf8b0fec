"""LanceDB embedding function in front of a router, registered as ``"embedrouter"``.

    from embedrouter.integrations.lancedb import RouterEmbeddings

    function = RouterEmbeddings.create(router="openai:text-embedding-3-small", budget="5.00/day")

    class Page(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

LanceDB keeps the function in the table's schema. A process that has imported this module opens the table as it is: the
router is built from the schema, with the keys of the environment, and refused where it gives another space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from ..providers.versions import require_extra

require_extra(__name__, "lancedb", "lancedb")

from lancedb.embeddings import EmbeddingFunction, get_registry
from pydantic import PrivateAttr

from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.index_guard import GuardedRouter
from ..retrieval.stored_router import rebuild, stored
from ..router import Router
from ..types import InputType

__all__ = ["RouterEmbeddings"]


class RouterEmbeddings(EmbeddingFunction):
    """Embed through a router, wherever LanceDB takes an ``EmbeddingFunction``.

    The source column holds documents, searches are queries. Rows whose text is missing or empty get no vector:
    ``table.add(rows, on_bad_vectors="null")``. LanceDB's own retries are left out, because the router has its own: what
    cannot succeed fails at once.

    Args:
        router: the one router in front of the table; a ``TieredRouter`` is refused, because a column holds one space.
            Or the name of a model, a list of models, or the path of a TOML file, of which a router is built.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        settings: arguments of ``Router``, such as ``budget`` and ``dimensions``, where the router is built here.

    Raises:
        ConfigError: ``router`` is none of these, or a setting is wrong; the message has the line to write.
        SpaceMismatchError: the table was made in another space than its router gives now.
    """

    space: str = ""
    query_tier: str | None = None
    document_tier: str | None = None

    _guarded: GuardedRouter = PrivateAttr()

    def __init__(
        self,
        router: GivenRouter | None = None,
        *,
        query_tier: str | None = None,
        document_tier: str | None = None,
        stored: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if stored is not None:
            remedy = "Open the table with the configuration that filled it, or embed its texts into another table."
            router = rebuild(stored, title="The embedding function in the table's schema", remedy=remedy)
        guarded = GuardedRouter(as_router(router, settings), None)
        guarded.require_tiers(query_tier, document_tier)
        tiers: dict[str, Any] = {"query_tier": query_tier, "document_tier": document_tier}
        super().__init__(space=str(guarded.router.space), **tiers)  # type: ignore[call-arg]
        self._guarded = guarded

    @classmethod
    def create(cls, **kwargs: Any) -> Self:
        """Build the function; LanceDB's own way would copy the router."""
        return cls(**kwargs)

    @property
    def router(self) -> Router:
        """The one router in front of the table."""
        return self._guarded.router

    def ndims(self) -> int:
        """Return the length of the vectors."""
        return self.router.space.dimensions

    def compute_query_embeddings(self, query: str, *args: Any, **kwargs: Any) -> list[list[float] | None]:
        """Return the vector of a query, in a list; see ``Router.embed`` for the errors."""
        return self._vectors(query, "query", self.query_tier)

    def compute_source_embeddings(self, texts: Any, *args: Any, **kwargs: Any) -> list[list[float] | None]:
        """Return one vector per text, or ``None`` where there is no text; see ``Router.embed`` for the errors."""
        return self._vectors(texts, "document", self.document_tier)

    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[list[float] | None]:
        """Return the vector of a query; the router retries."""
        return self.compute_query_embeddings(*args, **kwargs)

    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[list[float] | None]:
        """Return one vector per text; the router retries."""
        return self.compute_source_embeddings(*args, **kwargs)

    def _vectors(self, texts: Any, input_type: InputType, tier: str | None) -> list[list[float] | None]:
        given = list(self.sanitize_input(texts))
        vectors = iter(self._guarded.result([text for text in given if text], input_type, tier).to_list())
        return [next(vectors) if text else None for text in given]

    def safe_model_dump(self) -> dict[str, Any]:
        """Return what LanceDB keeps: the router's settings without keys, the tiers and the space."""
        tiers = {"query_tier": self.query_tier, "document_tier": self.document_tier}
        return {"stored": stored(self.router)} | tiers


get_registry().register("embedrouter")(RouterEmbeddings)  # no decorator, whose missing types would hide the class
