"""LlamaIndex: `embeddings_cache` in memory, and `OpenAIEmbedding` with its defaults."""

from __future__ import annotations

from functools import partial
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.openai import OpenAIEmbedding

from ..worker import Work
from .corpus import NAME, ROUNDS, Known, documents, fresh, queries


class _Embedder(BaseEmbedding):
    known: Any

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self.known.vectors(len(texts)).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def _cached(known: Known) -> _Embedder:
    """Batches are as large as in `OpenAIEmbedding`."""
    return _Embedder(known=known, embed_batch_size=100, embeddings_cache=SimpleKVStore())


def warm_documents(number: int) -> Work:
    known = Known()
    cached = _cached(known)
    cached.get_text_embedding_batch(documents(number))
    known.filling = False
    while True:
        yield partial(cached.get_text_embedding_batch, documents(number))


def warm_queries(number: int) -> Work:
    known = Known()
    cached = _cached(known)
    asked = queries(number)
    for query in asked:
        cached.get_query_embedding(query)
    known.filling = False
    while True:
        yield lambda: sum(len(cached.get_query_embedding(query)) > 0 for query in asked * ROUNDS)


def cold_documents(number: int, api: str) -> Work:
    embedder = OpenAIEmbedding(model=NAME, api_base=api, api_key="sk-benchmark")
    embedder.get_query_embedding("the first request opens the connection")
    for texts in fresh(number):
        yield partial(embedder.get_text_embedding_batch, texts)
