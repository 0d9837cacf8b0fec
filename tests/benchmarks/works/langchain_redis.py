"""LangChain: `CacheBackedEmbeddings` over its Redis store, with defaults."""

from __future__ import annotations

import warnings
from functools import partial

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.embeddings import Embeddings

from ..worker import Work
from .corpus import ROUNDS, Known, documents, queries


class _Embedder(Embeddings):
    def __init__(self, known: Known) -> None:
        self.known = known

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.known.vectors(len(texts)).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.known.vectors(1)[0].tolist()


def _cached(known: Known, redis: str) -> CacheBackedEmbeddings:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of langchain-community, which has an end
        from langchain_community.storage import RedisStore
    return CacheBackedEmbeddings.from_bytes_store(
        _Embedder(known),
        RedisStore(redis_url=redis, namespace="langchain"),
        namespace="small",
        query_embedding_cache=True,
        key_encoder="blake2b",
    )


def warm_documents(number: int, redis: str) -> Work:
    known, texts = Known(), documents(number)
    cached = _cached(known, redis)
    cached.embed_documents(texts)
    known.filling = False
    while True:
        yield partial(cached.embed_documents, texts)


def warm_queries(number: int, redis: str) -> Work:
    known, asked = Known(), queries(number)
    cached = _cached(known, redis)
    for query in asked:
        cached.embed_query(query)
    known.filling = False
    while True:
        yield lambda: sum(len(cached.embed_query(query)) > 0 for query in asked * ROUNDS)
