"""Adapters for LlamaIndex: a router as ``BaseEmbedding``, and a retriever over an index for each tier.

    from embedrouter.llama_index import RouterEmbedding

    index = VectorStoreIndex.from_documents(documents, embed_model=RouterEmbedding(router))

The tier of a query is taken from the nearest of: ``with embedrouter.tier(…)``; the adapter's ``query_tier``; the
router's.
"""

from ..providers.versions import check_versions, needed

check_versions(__name__, "llama-index")

with needed(__name__, "llama-index"):
    import llama_index.core

from ._embedding import RouterEmbedding
from ._retriever import TieredRetriever

__all__ = ["RouterEmbedding", "TieredRetriever"]
