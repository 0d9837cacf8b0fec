"""Adapters for LlamaIndex: a router as ``BaseEmbedding``, and a retriever over an index for each tier.

    from embedrouter.llama_index import RouterEmbedding

    index = VectorStoreIndex.from_documents(documents, embed_model=RouterEmbedding(router))

The tier of a query is taken from the nearest of: ``with embedrouter.tier(…)``; the adapter's ``query_tier``; the
router's.
"""

from ..providers.versions import check_versions

check_versions(__name__, "llama-index")

try:
    import llama_index.core
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "llama_index":
        raise
    reason = f"{__name__} needs LlamaIndex, which is not installed. Run: pip install 'embedrouter[llama-index]'"
    raise ModuleNotFoundError(reason, name=error.name) from None

from ._embedding import RouterEmbedding
from ._retriever import TieredRetriever

__all__ = ["RouterEmbedding", "TieredRetriever"]
