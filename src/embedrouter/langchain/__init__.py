"""Adapters for LangChain and LangGraph: a router as ``Embeddings``, retrievers and stores that are asked at a tier.

    from embedrouter.langchain import RouterEmbeddings, with_tier

    store = InMemoryVectorStore(RouterEmbeddings(router))
    retriever = with_tier(store.as_retriever())

The tier of a query is taken from the nearest of: ``with embedrouter.tier(…)``; ``config={"configurable":
{"embedding_tier": …}}``; the field ``embedding_tier`` of LangGraph's ``context=``; the adapter's ``query_tier``; the
router's. ``with_tier`` reads the configuration also where LangChain does not pass it to the embedder.

LangChain is imported when one of the three names is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..providers.versions import check_versions, needed

check_versions(__name__, "langchain")

if TYPE_CHECKING:
    from ._embeddings import RouterEmbeddings
    from ._retriever import TieredRetriever
    from ._with_tier import with_tier

__all__ = ["RouterEmbeddings", "TieredRetriever", "with_tier"]

MODULES = {"RouterEmbeddings": "_embeddings", "TieredRetriever": "_retriever", "with_tier": "_with_tier"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, as LangChain's own packages do."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needed(__name__, "langchain"):
        return getattr(import_module(f".{MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
