"""LangChain: a router as ``Embeddings``, and retrievers that are asked at a tier.

    from embedrouter.langchain import RouterEmbeddings, with_tier

    store = InMemoryVectorStore(RouterEmbeddings(router))
    retriever = with_tier(store.as_retriever())

See ``embeddings`` for where a query's tier comes from, and ``with_tier`` for what that adds.
"""

from .embeddings import RouterEmbeddings
from .retriever import TieredRetriever
from .with_tier import with_tier

__all__ = ["RouterEmbeddings", "TieredRetriever", "with_tier"]
