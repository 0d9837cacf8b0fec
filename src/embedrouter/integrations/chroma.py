"""Chroma ``EmbeddingFunction`` in front of a router.

    from embedrouter.integrations.chroma import RouterEmbeddingFunction

    function = RouterEmbeddingFunction("openai:text-embedding-3-small", budget="5.00/day")
    collection = client.get_or_create_collection("handbook", embedding_function=function)

Chroma keeps the name and the configuration of a collection's function, and compares names. The name has the space, so
Chroma itself refuses a function of another space. A process that has imported this module opens the collection without
a function: Chroma builds the function from the configuration, with the keys of the environment. For a space that is not
in the catalogue, and for models that only a program has, the function is passed again.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..providers.versions import require_extra

require_extra(__name__, "chroma", "chromadb")

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings
from chromadb.api.types import Space as Distance
from chromadb.utils.embedding_functions import known_embedding_functions, register_embedding_function

from ..errors import SpaceMismatchError
from ..models import load_catalogue
from ..retrieval.given_router import GivenRouter, as_router
from ..retrieval.index_guard import GuardedRouter
from ..retrieval.stored_router import rebuild, stored
from ..router import Router

__all__ = ["RouterEmbeddingFunction"]

NAME = "embedrouter"
REMEDY = "Pass the function: client.get_collection(name, embedding_function=RouterEmbeddingFunction(…))."


@register_embedding_function
class RouterEmbeddingFunction(EmbeddingFunction[Documents]):
    """Embed through a router, wherever Chroma takes an ``EmbeddingFunction``.

    Texts that are added are documents, ``query_texts`` are queries.

    Args:
        router: the one router in front of the collection; a ``TieredRouter`` is refused, because a collection holds one
            space. Or the name of a model, a list of models, or the path of a TOML file, of which a router is built.
        query_tier: the tier of queries that ask for none, over the router's.
        document_tier: the same for documents.
        settings: arguments of ``Router``, such as ``budget`` and ``dimensions``, where the router is built here.

    Raises:
        ConfigError: ``router`` is none of these, or a setting is wrong; the message has the line to write.
    """

    def __init__(
        self,
        router: GivenRouter,
        *,
        query_tier: str | None = None,
        document_tier: str | None = None,
        **settings: Any,
    ) -> None:
        self._guarded = GuardedRouter(as_router(router, settings), None)
        self._guarded.require_tiers(query_tier, document_tier)
        self.query_tier = query_tier
        self.document_tier = document_tier
        known_embedding_functions[self.name()] = type(self)

    @property
    def router(self) -> Router:
        """The one router in front of the collection."""
        return self._guarded.router

    def __call__(self, input: Documents) -> Embeddings:
        """Return one vector per document; see ``Router.embed`` for the errors."""
        return list(self._guarded.result(input, "document", self.document_tier).vectors)

    def embed_query(self, input: Documents) -> Embeddings:
        """Return one vector per query; see ``Router.embed`` for the errors."""
        return list(self._guarded.result(input, "query", self.query_tier).vectors)

    if TYPE_CHECKING:

        @staticmethod
        def name() -> str: ...

    else:

        def name(self=None) -> str:  # Chroma asks the class, and a function
            """Return the name that Chroma keeps and compares: of a function with its space."""
            return NAME if self is None else _name(self.router.space.name, self.router.space.dimensions)

    def default_space(self) -> Distance:
        """Return the distance of new collections: the angle, which the lengths of the vectors do not change."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """Return what Chroma keeps: the router's settings without keys, the tiers and the space."""
        return stored(self.router) | {"query_tier": self.query_tier, "document_tier": self.document_tier}

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "RouterEmbeddingFunction":
        """Build the function of which Chroma kept ``get_config()``.

        Raises:
            ConfigError: only the program that made the collection can build the function.
            SpaceMismatchError: the configuration gives another space now.
        """
        tiers = {name: config.get(name) for name in ("query_tier", "document_tier")}
        kept = {name: value for name, value in config.items() if name not in tiers}
        title = "The configuration of the collection's embedding function"
        return RouterEmbeddingFunction(rebuild(kept, title=title, remedy=REMEDY), **tiers)

    def validate_config_update(self, old_config: Mapping[str, Any], new_config: Mapping[str, Any]) -> None:
        """Refuse a configuration of another space for a collection that is there.

        Raises:
            SpaceMismatchError: the spaces are different.
        """
        old, new = (_name(config.get("space"), config.get("dimensions")) for config in (old_config, new_config))
        if old != new:
            raise SpaceMismatchError(
                f"The collection is in the space {old}, and the new function gives {new}. Create another collection."
            )

    def is_legacy(self) -> bool:
        """Return that Chroma may keep the configuration, without building a second router to see it."""
        return False


def _name(space: object, dimensions: object) -> str:
    return f"{NAME}:{space}:{dimensions}"


def _names() -> Iterator[str]:
    """Yield the names of all spaces of the catalogue. Chroma finds a function by its whole name."""
    for space, dimensions, allowed in {(row.space, row.dimensions, row.allowed) for row in load_catalogue().values()}:
        others = range(1, dimensions) if allowed == "any" else allowed
        yield from (_name(space, number) for number in (dimensions, *others))


known_embedding_functions.update(dict.fromkeys(_names(), RouterEmbeddingFunction))
