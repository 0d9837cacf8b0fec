"""One cost-aware embedding router for RAG, and adapters for LangChain and LlamaIndex.

    from embedrouter import Router

    router = Router(["openai:text-embedding-3-small"])
    result = router.embed(["a text"], input_type="document")

``embedrouter.langchain.RouterEmbeddings`` and ``embedrouter.llama_index.RouterEmbedding`` put a router where those
frameworks expect an embedder. Importing this package imports no SDK, no framework and no torch.
"""

from typing import TYPE_CHECKING, Any

from .batches import BatchJob
from .cache import Cache
from .checks import VectorCheck
from .limits import ModelHealth, RetryPolicy
from .models import Backend, Model, tier
from .router import Router
from .spending import Account, BookedRequest, Budget, CapLeft, tag
from .tiered import TieredRouter
from .types import EmbeddingResult, Estimate, InputType, Space, Usage

if TYPE_CHECKING:
    from . import migrate as migrate
    from .comparison import Comparison, acompare, compare

__all__ = [
    "Account",
    "Backend",
    "BatchJob",
    "BookedRequest",
    "Budget",
    "Cache",
    "CapLeft",
    "Comparison",
    "EmbeddingResult",
    "Estimate",
    "InputType",
    "Model",
    "ModelHealth",
    "RetryPolicy",
    "Router",
    "Space",
    "TieredRouter",
    "Usage",
    "VectorCheck",
    "acompare",
    "compare",
    "tag",
    "tier",
]


def __getattr__(name: str) -> Any:
    """Return what is imported when it is used, and the version of the installed package, as its metadata have it."""
    if name in ("Comparison", "acompare", "compare"):
        from . import comparison

        return getattr(comparison, name)
    if name == "migrate":
        from importlib import import_module

        return import_module(".migrate", __name__)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version(__name__)
