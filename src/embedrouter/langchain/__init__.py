"""LangChain: a router as ``Embeddings``, and retrievers that are asked at a tier.

    from embedrouter.langchain import RouterEmbeddings, with_tier

    store = InMemoryVectorStore(RouterEmbeddings(router))
    retriever = with_tier(store.as_retriever())

See ``embeddings`` for where a query's tier comes from, and ``binding`` for what ``with_tier`` adds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .binding import with_tier
    from .embeddings import RouterEmbeddings
    from .retriever import TieredRetriever

__all__ = ["RouterEmbeddings", "TieredRetriever", "with_tier"]

HOMES = {"RouterEmbeddings": "embeddings", "TieredRetriever": "retriever", "with_tier": "binding"}


def __getattr__(name: str) -> Any:
    """Import what needs LangChain when it is first used, as LangChain's own packages do."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{HOMES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
