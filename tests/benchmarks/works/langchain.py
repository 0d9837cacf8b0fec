"""LangChain: `CacheBackedEmbeddings` over its two stores, and `OpenAIEmbeddings` with its defaults."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.embeddings import Embeddings
from langchain_core.stores import InMemoryByteStore
from langchain_openai import OpenAIEmbeddings

from ..worker import Work
from .corpus import NAME, ROUNDS, Known, documents, fresh, queries


class _Embedder(Embeddings):
    def __init__(self, known: Known) -> None:
        self.known = known

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.known.vectors(len(texts)).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self.known.vectors(1)[0].tolist()


@contextmanager
def _cached(known: Known, store: str) -> Iterator[CacheBackedEmbeddings]:
    with tempfile.TemporaryDirectory() as folder:
        yield CacheBackedEmbeddings.from_bytes_store(
            _Embedder(known),
            LocalFileStore(folder) if store == "files" else InMemoryByteStore(),
            namespace="small",
            query_embedding_cache=True,
        )


def warm_documents(number: int, store: str) -> Work:
    known, texts = Known(), documents(number)
    with _cached(known, store) as cached:
        cached.embed_documents(texts)
        known.filling = False
        while True:
            yield partial(cached.embed_documents, texts)


def warm_queries(number: int, store: str) -> Work:
    known, asked = Known(), queries(number)
    with _cached(known, store) as cached:
        for query in asked:
            cached.embed_query(query)
        known.filling = False
        while True:
            yield lambda: sum(len(cached.embed_query(query)) > 0 for query in asked * ROUNDS)


def _openai(api: str) -> OpenAIEmbeddings:
    return OpenAIEmbeddings(model=NAME, base_url=api, api_key="sk-benchmark")


def cold_documents(number: int, api: str) -> Work:
    embedder = _openai(api)
    embedder.embed_query("the first request opens the connection")
    for texts in fresh(number):
        yield partial(embedder.embed_documents, texts)


def tasks(number: int, api: str) -> Work:
    """So many coroutines at once, each with a query of its own."""
    embedder = _openai(api)

    async def ask(asked: list[str]) -> list[list[float]]:
        coroutines: list[Coroutine[Any, Any, list[float]]] = [embedder.aembed_query(query) for query in asked]
        return await asyncio.gather(*coroutines)

    with asyncio.Runner() as runner:
        for round_ in itertools.count():
            asked = queries(number, round_ * number)
            yield partial(lambda asked: runner.run(ask(asked)), asked)


def threads(number: int, api: str) -> Work:
    """So many threads at once, each with a query of its own."""
    embedder = _openai(api)
    with ThreadPoolExecutor(number) as pool:
        for round_ in itertools.count():
            asked = queries(number, round_ * number)
            yield partial(lambda asked: list(pool.map(embedder.embed_query, asked)), asked)
