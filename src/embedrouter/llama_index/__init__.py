"""LlamaIndex: a router as ``BaseEmbedding``.

from embedrouter.llama_index import RouterEmbedding

index = VectorStoreIndex.from_documents(documents, embed_model=RouterEmbedding(router=router))
"""

from .embedding import RouterEmbedding

__all__ = ["RouterEmbedding"]
