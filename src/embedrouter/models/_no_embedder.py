"""The hints for methods and calls that embedders of other libraries have, and a router has not."""

from typing import TYPE_CHECKING, NoReturn

HERE = "Write router.embed(texts, input_type='document'), or input_type='query'."
LANGCHAIN = "Pass RouterEmbeddings(router) to LangChain: from embedrouter.langchain import RouterEmbeddings."
LLAMA_INDEX = "Pass RouterEmbedding(router) to LlamaIndex: from embedrouter.llama_index import RouterEmbedding."
CALLED = "Pass RouterEmbeddings(router) to LangChain or LangGraph: from embedrouter.langchain import RouterEmbeddings."
HINTS = {
    **dict.fromkeys(("encode", "embeddings", "create", "embedding", "aembedding", "embed_many", "embed_text"), HERE),
    **dict.fromkeys(("embed_documents", "embed_query", "aembed_documents", "aembed_query"), LANGCHAIN),
    **dict.fromkeys(("get_text_embedding", "get_text_embedding_batch", "get_query_embedding"), LLAMA_INDEX),
    **dict.fromkeys(("aget_text_embedding", "aget_text_embedding_batch", "aget_query_embedding"), LLAMA_INDEX),
    "get_agg_embedding_from_queries": LLAMA_INDEX,
}


class NoEmbedder:
    """A router: an embedder for a framework is an adapter around it.

    ``hasattr`` goes on to say that the methods of embedders are not there. The call is for LangGraph's stores and
    LangChain's FAISS store, which take what is no ``Embeddings`` for a function.
    """

    if not TYPE_CHECKING:  # so that type checkers go on to refuse unknown names, and the call

        def __getattr__(self, name: str) -> NoReturn:
            hint = f". {HINTS[name]}" if name in HINTS else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

        def __call__(self, *_: object, **__: object) -> NoReturn:
            raise TypeError(f"{type(self).__name__!r} object is not callable. {CALLED}")
