"""LangChain: a router as ``Embeddings``.

from embedrouter.langchain import RouterEmbeddings

store = InMemoryVectorStore(RouterEmbeddings(router))
"""

from .embeddings import RouterEmbeddings

__all__ = ["RouterEmbeddings"]
