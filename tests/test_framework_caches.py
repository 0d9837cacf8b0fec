"""The caches of frameworks in front of an adapter: their keys hold everything that decides a vector, and no more."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash

from embedrouter import Model, RetryPolicy, Router, tier
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.testing import FakeBackend, MemoryCache

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from langchain_classic.embeddings import CacheBackedEmbeddings
    from langchain_classic.storage import LocalFileStore

TEXT = "one two three four"
"""Over the limit of two tokens."""


def router(models: list[Model] | None = None, model: dict[str, Any] | None = None, **settings: Any) -> Router:
    """Return the first router with other settings; those of its dearer model in ``model``."""
    low = FakeBackend(space="low").model("fake:low", tier="low", price="1", space="s", max_input_tokens=2)
    own = {"tier": "high", "price": "2", "space": "s", "max_input_tokens": 2, **(model or {})}
    high = FakeBackend(space="high").model("fake:high", **own)
    given = {"cache": MemoryCache(), "ledger": ":memory:", "on_too_long": "truncate", **settings}
    return Router(models or [low, high], **given)


class Settings:
    """An embedder whose vectors depend on a setting."""

    def __init__(self, instruction: str = "") -> None:
        self.instruction = instruction

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, float(len(self.instruction)), *[0.5] * 6] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def wrapped(instruction: str) -> Router:
    return router([Model.wrap(Settings(instruction), space="s", dimensions=8)])


CHANGES: dict[str, tuple[Callable[[], Router], Callable[[], Router]]] = {
    "on_too_long": (router, lambda: router(on_too_long="mean")),
    "cache_dtype": (router, lambda: router(cache_dtype="float16")),
    "document_tier": (router, lambda: router(document_tier="low")),
    "price": (lambda: router(document_tier="low"), lambda: router(document_tier="low", model={"price": "0.5"})),
    "limit": (router, lambda: router(model={"max_input_tokens": 3})),
    "prompts": (
        lambda: router([FakeBackend().model(prompts={"document": "a: "})]),
        lambda: router([FakeBackend(space="b").model(prompts={"document": "b: "}, space="fake")]),
    ),
    "dimensions": (
        lambda: router([FakeBackend().model()]),
        lambda: router([FakeBackend(dimensions=4).model()]),
    ),
    "space": (lambda: router([FakeBackend().model()]), lambda: router([FakeBackend(space="other").model()])),
    "a wrapped embedder's setting": (lambda: wrapped(""), lambda: wrapped("as a passage")),
}


def ingested(embedder: RouterEmbedding, cache: IngestionCache, asynchronous: bool) -> list[float]:
    """Return the vector that a pipeline with a cache gives to the text."""
    pipeline = IngestionPipeline(transformations=[embedder], cache=cache)
    documents = [Document(text=TEXT, id_="one")]
    (node,) = asyncio.run(pipeline.arun(documents=documents)) if asynchronous else pipeline.run(documents=documents)
    return list(node.get_embedding())


def from_store(embeddings: RouterEmbeddings, folder: Path, asynchronous: bool, query: bool) -> list[float]:
    """Return the vector that LangChain's cache gives to the text."""
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings,
        LocalFileStore(folder),
        namespace=embeddings.model,
        query_embedding_cache=LocalFileStore(folder / "queries"),
        key_encoder="sha256",
    )
    if query:
        return asyncio.run(cached.aembed_query(TEXT)) if asynchronous else cached.embed_query(TEXT)
    return (asyncio.run(cached.aembed_documents([TEXT])) if asynchronous else cached.embed_documents([TEXT]))[0]


def vector(one: Router, query: bool = False) -> list[float]:
    found: list[float] = one.embed([TEXT], input_type="query" if query else "document").vectors[0].tolist()
    return found


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_decides_a_vector_is_another_key(change: str, tmp_path: Path, asynchronous: bool) -> None:
    """The old vector would lie beside new ones. Without a change the framework's cache answers."""
    before, after = CHANGES[change]
    cache = IngestionCache()
    one, two = before(), after()
    assert ingested(RouterEmbedding(router=one), cache, asynchronous) == vector(one)
    assert ingested(RouterEmbedding(router=two), cache, asynchronous) == vector(two) != vector(one)
    assert from_store(RouterEmbeddings(one), tmp_path, asynchronous, query=False) == vector(one)
    assert from_store(RouterEmbeddings(two), tmp_path, asynchronous, query=False) == vector(two)

    again = before()
    ingested(RouterEmbedding(router=again), cache, asynchronous)
    from_store(RouterEmbeddings(again), tmp_path, asynchronous, query=False)
    assert again.usage.requests == 0


def test_the_adapters_own_tier_and_the_tier_of_the_context_are_in_the_key(tmp_path: Path, asynchronous: bool) -> None:
    """``to_dict()`` is made inside of the context."""
    cache, one = IngestionCache(), router(cache=None)
    low = router(cache=None, document_tier="low", query_tier="low")
    ingested(RouterEmbedding(router=one), cache, asynchronous)
    from_store(RouterEmbeddings(one), tmp_path, asynchronous, query=True)

    assert ingested(RouterEmbedding(router=one, document_tier="low"), cache, asynchronous) == vector(low)
    assert from_store(RouterEmbeddings(one).with_tier("low"), tmp_path, asynchronous, query=True) == vector(low, True)
    with tier("high", documents="medium"):
        assert ingested(RouterEmbedding(router=low), cache, asynchronous) == vector(one)
    assert len(cache.cache.get_all(cache.collection)) == 3


VOLATILE: dict[str, dict[str, Any]] = {
    "another key": {"model": {"api_key": "sk-other"}},
    "another address": {"model": {"base_url": "http://localhost:1/v1"}},
    "another timeout": {"model": {"timeout": 3.0, "max_concurrency": 2, "batch_size": 5}},
    "another cache": {"cache": None},
    "another window": {"micro_batch_window": 0.5, "cache_memory": 0},
    "another policy": {"retry": RetryPolicy(attempts=1)},
    "an equal price": {"model": {"price": Decimal("2.50")}},
}


@pytest.mark.parametrize("change", VOLATILE)
def test_what_decides_no_vector_is_in_no_key(change: str) -> None:
    """A new key, a moved server or a folder would empty the framework's cache."""
    one, two = router(), router(**VOLATILE[change])

    keys = [get_transformation_hash([], RouterEmbedding(router=item)) for item in (one, two)]
    assert keys[0] == keys[1]
    assert RouterEmbeddings(one).model == RouterEmbeddings(two).model
    assert "sk-other" not in RouterEmbedding(router=two).to_json()
    for shown in (str(RouterEmbedding(router=two).to_dict()), repr(RouterEmbeddings(two))):
        assert "sk-other" not in shown
        assert "localhost" not in shown
