"""The hint for a router that is passed where a framework takes an embedder."""

from typing import TYPE_CHECKING, NoReturn

LANGCHAIN = frozenset({"embed_documents", "embed_query", "aembed_documents", "aembed_query"})
LLAMA_INDEX = frozenset(
    {"get_text_embedding", "get_text_embedding_batch", "get_query_embedding", "get_agg_embedding_from_queries"}
    | {"aget_text_embedding", "aget_text_embedding_batch", "aget_query_embedding"}
)


class NoEmbedder:
    """A router: an embedder for a framework is an adapter around it.

    ``hasattr`` goes on to say that the methods of embedders are not there. The call is for LangGraph's stores and
    LangChain's FAISS store, which take what is no ``Embeddings`` for a function.
    """

    if not TYPE_CHECKING:  # so that type checkers go on to refuse unknown names, and the call

        def __getattr__(self, name: str) -> NoReturn:
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name in LANGCHAIN:
                message += f". {_hint('embedrouter.langchain', 'RouterEmbeddings', 'LangChain')}"
            if name in LLAMA_INDEX:
                message += f". {_hint('embedrouter.llama_index', 'RouterEmbedding', 'LlamaIndex')}"
            raise AttributeError(message, name=name, obj=self)

        def __call__(self, *_: object, **__: object) -> NoReturn:
            hint = _hint("embedrouter.langchain", "RouterEmbeddings", "LangChain or LangGraph")
            raise TypeError(f"{type(self).__name__!r} object is not callable. {hint}")


def _hint(module: str, adapter: str, framework: str) -> str:
    return f"Pass {adapter}(router) to {framework}: from {module} import {adapter}."
