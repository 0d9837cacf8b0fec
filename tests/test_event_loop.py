"""Nothing blocks the event loop: blockbuster raises where a file, a database or a socket is used on it.

Under ``langgraph dev`` the same tool refuses every call of a user that blocks. Here it surrounds every asynchronous
method of the adapters, with the settings that users get by default: a cache folder, a ledger file, and the guard of a
named index. The event loop's own default executor refuses everything too: a program whose tools fill it while they wait
for an embedding would wait for ever.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from blockbuster import BlockingError, blockbuster_ctx
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores import SimpleVectorStore

from embedrouter import Model, Router, TieredRouter, langchain, llama_index, tier
from embedrouter.chroma import aguard
from embedrouter.errors import SpaceMismatchError
from embedrouter.models import requested
from embedrouter.retrieval import Cascade
from embedrouter.retrieval.store_guard import DIMENSIONS, SPACE
from embedrouter.testing import FakeBackend
from tests.emulator import Emulator

T = TypeVar("T")

TEXTS = [f"page number {number}" for number in range(12)]


class Refusing(ThreadPoolExecutor):
    """An executor that nothing may use."""

    def submit(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the event loop's default executor was used")


@pytest.fixture(autouse=True)
async def unblocked() -> AsyncIterator[None]:
    asyncio.get_running_loop().set_default_executor(Refusing())
    with blockbuster_ctx():
        yield


async def test_a_file_that_is_read_on_the_loop_is_noticed(tmp_path: Path) -> None:
    """Otherwise the other tests would prove nothing."""
    with pytest.raises(BlockingError):
        (tmp_path / "file").write_text("text")
    with pytest.raises(AssertionError, match="default executor"):
        await asyncio.to_thread(int)


# Embedders

MODELS: dict[str, Callable[[Emulator], str | Model]] = {
    "fake": lambda _: FakeBackend().model(),
    "wordllama": lambda _: "wordllama:l2_supercat_256",
    "openai": lambda served: Model("openai:text-embedding-3-small", base_url=served.openai_url, api_key="any"),
    "cohere": lambda served: Model("cohere:embed-v4.0", base_url=served.cohere_url, api_key="any"),
    "voyage": lambda served: Model("voyage:voyage-4-lite", base_url=served.voyage_url, api_key="any"),
    "google": lambda served: Model("google_genai:gemini-embedding-001", base_url=served.google_url, api_key="any"),
}


@pytest.fixture(params=MODELS)
def router(request: pytest.FixtureRequest, emulator: Emulator) -> Router:
    """Routers with every default: a cache and a ledger in the user's folder, and the catalogue's prices."""
    return Router([MODELS[request.param](emulator)])


async def test_langchains_embedder(router: Router) -> None:
    """New, from the cache, from memory, and held to a space by name."""
    async with router:
        embedder = await in_thread(lambda: langchain.RouterEmbeddings(router, index="handbook"))
        for _ in range(2):
            assert len(await embedder.aembed_documents(TEXTS)) == len(TEXTS)
            assert len(await embedder.aembed_query("a question")) == router.space.dimensions
        assert len(await embedder.with_tier("low").aembed_query("another question")) == router.space.dimensions


async def test_llama_indexs_embedder(router: Router) -> None:
    """Its four asynchronous methods."""
    async with router:
        embedder = await in_thread(lambda: llama_index.RouterEmbedding(router=router, index="handbook"))
        for _ in range(2):
            assert len(await embedder.aget_text_embedding_batch(TEXTS)) == len(TEXTS)
            assert len(await embedder.aget_text_embedding("a text")) == router.space.dimensions
            assert len(await embedder.aget_query_embedding("a question")) == router.space.dimensions
            assert len(await embedder.aget_agg_embedding_from_queries(["one", "two"])) == router.space.dimensions


async def test_many_texts_chunk_by_chunk(router: Router) -> None:
    async with router:
        lengths = [len(part) async for part in router.aembed_iter(TEXTS, input_type="document", chunk_size=5)]

    assert lengths == [5, 5, 2]


async def test_many_calls_at_once(router: Router) -> None:
    """Some share a text with another, and some are sent together."""
    async with router:
        embedder = langchain.RouterEmbeddings(router)
        questions = [f"question {number % 20}" for number in range(40)]
        vectors = await asyncio.gather(*(embedder.aembed_query(question) for question in questions))

    assert len(vectors) == len(questions)
    assert vectors[:20] == vectors[20:]


async def in_thread(build: Callable[[], Any]) -> Any:
    """Build an object that reads files, as a program does before its loop runs."""
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(build()))
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    return outcome[0]


FIRST_CALLS = """
import asyncio, sys
from blockbuster import blockbuster_ctx
from embedrouter import Model, Router

async def call(name, url):
    with blockbuster_ctx():
        async with routers[name] as router:
            await router.aembed(["a text"], input_type="document")

names = dict(pair.split("=") for pair in sys.argv[1:])
routers = {name: Router([Model(name, base_url=url, api_key="any")]) for name, url in names.items()}
for name, url in names.items():
    asyncio.run(call(name, url))
"""


@pytest.mark.slow
def test_the_first_call_of_a_process_is_no_exception(emulator: Emulator) -> None:
    """It imports the provider's SDK and builds its client: both read files."""
    served = {
        "openai:text-embedding-3-small": emulator.openai_url,
        "cohere:embed-v4.0": emulator.cohere_url,
        "voyage:voyage-4-lite": emulator.voyage_url,
    }
    command = [sys.executable, "-c", FIRST_CALLS, *(f"{name}={url}" for name, url in served.items())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stderr
    assert emulator.calls == len(served)


# Guards


async def test_a_recorded_index_is_read_in_a_thread() -> None:
    """And its space is still what counts: the refusal is the synchronous form's."""
    async with (
        Router([FakeBackend(space="one").model()], cache=None) as one,
        Router([FakeBackend(space="two").model()], cache=None) as two,
    ):
        first, second = await in_thread(
            lambda: [langchain.RouterEmbeddings(router, index="handbook") for router in (one, two)]
        )
        await first.aembed_documents(TEXTS)

        await first.aembed_query("a question")
        with pytest.raises(SpaceMismatchError):
            await second.aembed_query("a question")


class Marked:
    """A collection of Chroma's, as far as the guard looks, that must not be used on an event loop."""

    name = "handbook"
    configuration_json: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self.marks: dict[str, Any] = {}

    @property
    def metadata(self) -> dict[str, Any]:
        return self.marks

    def count(self) -> int:
        return off_the_loop(0)

    def get(self, **_: Any) -> dict[str, Any]:
        return off_the_loop({"ids": [], "embeddings": [], "documents": [], "metadatas": []})

    def modify(self, *, metadata: dict[str, Any]) -> None:
        self.marks = off_the_loop(metadata)


async def test_a_chroma_collection_is_guarded_in_a_thread() -> None:
    """Its methods read a database, or wait for a server."""
    collection = Marked()
    one, two = (Router([FakeBackend(space=space).model()], cache=None, ledger=":memory:") for space in ("one", "two"))

    assert await aguard(collection, one) is collection
    assert collection.marks == {SPACE: "one", DIMENSIONS: 8}
    with pytest.raises(SpaceMismatchError):
        await aguard(collection, two)


def off_the_loop(answer: T) -> T:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    return answer


# Retrievers


@pytest.fixture
def both(tmp_path: Path) -> TieredRouter:
    """Two spaces, each with a cache and a ledger of its own."""
    models = {"low": FakeBackend(space="cheap"), "high": FakeBackend(space="good")}
    return TieredRouter({name: Router([fake.model()], cache=tmp_path / name) for name, fake in models.items()})


async def test_a_retriever_that_is_asked_at_a_tier(router: Router) -> None:
    """In every asynchronous form."""
    async with router:
        store = InMemoryVectorStore(langchain.RouterEmbeddings(router))
        await store.aadd_texts(TEXTS)
        retriever = langchain.with_tier(store.as_retriever(search_kwargs={"k": 1}))
        config: Any = {"configurable": {"embedding_tier": "low"}}

        assert len(await retriever.ainvoke("one", config)) == 1
        assert len(await retriever.abatch(["two", "three"], config)) == 2
        assert len([part async for part in retriever.astream("four", config)]) == 1
        assert [outcome async for outcome in retriever.abatch_as_completed(["five"], config)]


class Synchronous(VectorStore):
    """A store without asynchronous methods, like most of LangChain's, that must not be used on an event loop."""

    def __init__(self, embedding: Any) -> None:
        self.inner = InMemoryVectorStore(embedding)
        self.asked: list[str | None] = []

    @property
    def embeddings(self) -> Any:
        return self.inner.embeddings

    def add_texts(self, texts: Any, metadatas: Any = None, **settings: Any) -> list[str]:
        return off_the_loop(self.inner.add_texts(texts, metadatas, **settings))

    def delete(self, ids: Any = None, **_: Any) -> None:
        off_the_loop(self.inner.delete(ids))

    def similarity_search(self, query: str, k: int = 4, **_: Any) -> list[Document]:
        self.asked.append(requested("query"))
        return off_the_loop(self.inner.similarity_search(query, k))

    def similarity_search_with_score(self, query: str, k: int = 4, **_: Any) -> list[tuple[Document, float]]:
        self.asked.append(requested("query"))
        return off_the_loop(self.inner.similarity_search_with_score(query, k))

    @classmethod
    def from_texts(cls, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [InMemoryVectorStore, Synchronous])
async def test_langchains_tiered_retriever(both: TieredRouter, kind: Any) -> None:
    """A store without asynchronous methods is used in a thread, at the tier that counts there."""
    async with both:
        retriever = langchain.TieredRetriever.from_router(both, kind, cascade=Cascade(1.0), k=2)
        ids = await retriever.aadd_texts(TEXTS)
        await retriever.aadd_documents([Document("one more", id="more")])
        await retriever.adelete(ids[:2])

        assert [one.metadata["embedding_tier"] for one in await retriever.ainvoke("a question")] == ["high"] * 2
        with tier("low"):
            assert [one.metadata["embedding_tier"] for one in await retriever.ainvoke("a question")] == ["low"] * 2
        assert len(await retriever.abatch(["one", "two"])) == 2
        assert [part async for part in retriever.astream("a question")]
        for store in retriever.stores.values():
            if isinstance(store, Synchronous):
                assert set(store.asked) == {"high"}, "the only tier of each store's router"


class SynchronousVectors(SimpleVectorStore):
    """A store without asynchronous methods, like most of LlamaIndex's, that must not be used on an event loop."""

    def add(self, *arguments: Any, **settings: Any) -> Any:
        return off_the_loop(super().add(*arguments, **settings))

    def query(self, *arguments: Any, **settings: Any) -> Any:
        return off_the_loop(super().query(*arguments, **settings))

    def delete_nodes(self, *arguments: Any, **settings: Any) -> Any:
        return off_the_loop(super().delete_nodes(*arguments, **settings))


class AsynchronousVectors(SimpleVectorStore):
    """A store with asynchronous methods of its own."""

    async def async_add(self, *arguments: Any, **settings: Any) -> Any:
        await asyncio.sleep(0)
        return super().add(*arguments, **settings)

    async def aquery(self, *arguments: Any, **settings: Any) -> Any:
        await asyncio.sleep(0)
        return super().query(*arguments, **settings)

    async def adelete_nodes(self, *arguments: Any, **settings: Any) -> Any:
        await asyncio.sleep(0)
        return super().delete_nodes(*arguments, **settings)

    def add(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("sync")

    query = delete_nodes = add


@pytest.mark.parametrize("kind", [SynchronousVectors, AsynchronousVectors])
async def test_llama_indexs_tiered_retriever(both: TieredRouter, kind: Any) -> None:
    """A store without asynchronous methods is used in a thread; LlamaIndex would use it on the event loop."""

    def make(embedder: llama_index.RouterEmbedding) -> VectorStoreIndex:
        context = StorageContext.from_defaults(vector_store=kind())
        return VectorStoreIndex(nodes=[], embed_model=embedder, storage_context=context)

    async with both:
        retriever = await in_thread(
            lambda: llama_index.TieredRetriever.from_router(both, make, cascade=Cascade(1.0), similarity_top_k=2)
        )
        nodes = [TextNode(text=text, id_=text) for text in TEXTS]
        await retriever.ainsert_nodes(nodes)
        await retriever.adelete_nodes(TEXTS[:2])

        assert [one.metadata["embedding_tier"] for one in await retriever.aretrieve("a question")] == ["high"] * 2
        with tier("low"):
            assert [one.metadata["embedding_tier"] for one in await retriever.aretrieve("a question")] == ["low"] * 2
