"""LlamaIndex: a router as ``BaseEmbedding``, and a retriever over an index for each tier.

from embedrouter.llama_index import RouterEmbedding

index = VectorStoreIndex.from_documents(documents, embed_model=RouterEmbedding(router=router))
"""

from .embedding import RouterEmbedding
from .retriever import TieredRetriever

__all__ = ["RouterEmbedding", "TieredRetriever"]
