"""The LangChain adapter; LangChain's own tests of it are in ``test_langchain_standard``."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.load import dumpd
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel, ConfigDict

from embedrouter import Model, Router, Space, TieredRouter, tier
from embedrouter.errors import ConfigError, InvalidInputError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.testing import FakeBackend


@pytest.fixture
def low() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def high() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def router(low: FakeBackend, high: FakeBackend) -> Router:
    models = [low.model("fake:low", tier="low", price="1"), high.model("fake:high", tier="high", price="2")]
    return Router(models, cache=None)


async def test_all_four_methods_give_lists_of_python_floats(router: Router, high: FakeBackend) -> None:
    """Vector stores serialise what they get."""
    adapter = RouterEmbeddings(router)
    results = [
        adapter.embed_documents(["a"])[0],
        (await adapter.aembed_documents(["a"]))[0],
        adapter.embed_query("a"),
        await adapter.aembed_query("a"),
    ]

    for result, input_type in zip(results, ("document", "document", "query", "query"), strict=True):
        assert type(result) is list
        assert {type(number) for number in result} == {float}
        assert np.allclose(result, high.vector("a", input_type))  # type: ignore[arg-type]


def test_documents_and_queries_are_told_apart(router: Router, high: FakeBackend) -> None:
    """Asymmetric models embed them differently."""
    adapter = RouterEmbeddings(router)
    adapter.embed_documents(["a", "b"])
    adapter.embed_query("c")

    assert [(call.texts, call.input_type) for call in high.calls] == [(("a", "b"), "document"), (("c",), "query")]


def test_a_query_asks_for_its_tier_nearest_first(router: Router, low: FakeBackend, high: FakeBackend) -> None:
    """with tier(…) over the adapter's query_tier over the router's."""
    adapter = RouterEmbeddings(router, query_tier="low")
    adapter.embed_query("one")
    assert (len(low.calls), len(high.calls)) == (1, 0)

    with tier("high"):
        adapter.embed_query("two")
    assert (len(low.calls), len(high.calls)) == (1, 1)

    adapter.with_tier("high").embed_query("three")
    assert (len(low.calls), len(high.calls)) == (1, 2)


def test_documents_keep_their_tier_next_to_queries_of_another(
    router: Router, low: FakeBackend, high: FakeBackend
) -> None:
    """They stay in the index for good."""
    adapter = RouterEmbeddings(router).with_tier("low")
    with tier("low"):
        adapter.embed_documents(["one"])
    assert (len(low.calls), len(high.calls)) == (0, 1)

    with tier(documents="low"):
        adapter.embed_documents(["two"])
    adapter.with_tier("high", documents="low").embed_documents(["three"])
    assert (len(low.calls), len(high.calls)) == (2, 1)


async def test_a_chains_configuration_reaches_the_query(router: Router, low: FakeBackend) -> None:
    """configurable["embedding_tier"], in the places where LangChain passes it down."""
    retriever = InMemoryVectorStore.from_texts(["a", "b"], RouterEmbeddings(router)).as_retriever()
    chain = {"context": retriever, "question": RunnablePassthrough()} | RunnableLambda(lambda found: found)
    config: Any = {"configurable": {"embedding_tier": "low"}}
    chain.invoke("one", config)
    await chain.ainvoke("two", config)
    chain.batch(["three"], config)

    assert [call.texts for call in low.calls] == [("one",), ("two",), ("three",)]


def test_an_unknown_tier_is_refused_with_the_known_ones(router: Router) -> None:
    """When the adapter is built, and when a query asks."""
    with pytest.raises(ValueError, match="low, medium, high"):
        RouterEmbeddings(router, query_tier="best")
    with pytest.raises(ValueError, match="low, medium, high"):
        RouterEmbeddings(router).with_tier("best")
    with tier("best"), pytest.raises(ValueError, match="low, medium, high"):
        RouterEmbeddings(router).embed_query("q")


def test_a_vector_store_finds_what_was_put_into_it() -> None:
    """With a real model, documents one way and queries another."""
    store = InMemoryVectorStore(RouterEmbeddings(Router(["wordllama:l2_supercat_256"], cache=None)))
    store.add_texts(["cats sleep all day", "stock markets fell", "bread is baked at night"])

    assert store.similarity_search("a sleeping cat", k=1)[0].page_content == "cats sleep all day"


def test_an_adapter_travels_to_another_process(router: Router) -> None:
    """With its tiers, without connections."""
    copy = pickle.loads(pickle.dumps(RouterEmbeddings(router, query_tier="low")))

    assert copy.query_tier == "low"
    assert copy.embed_query("a") == RouterEmbeddings(router, query_tier="low").embed_query("a")


def test_serialisation_shows_no_key() -> None:
    """LangChain's dumpd() shows the repr of what it cannot serialise."""
    adapter = RouterEmbeddings(Router([Model("openai:text-embedding-3-small", api_key="sk-secret")], cache=None))

    assert "secret" not in str(dumpd(adapter))
    assert "text-embedding-3-small" in repr(adapter)
    assert adapter.space == Space("text-embedding-3-small", 1536)


def test_an_adapter_is_built_from_a_file(tmp_path: Path) -> None:
    """One line in an existing chain."""
    (tmp_path / "embedrouter.toml").write_text('cache = false\n[[models]]\nmodel = "wordllama:l2_supercat_256"\n')

    assert len(RouterEmbeddings.from_config(tmp_path / "embedrouter.toml").embed_query("a")) == 256


def test_empty_lists_and_bad_texts_have_defined_answers(router: Router) -> None:
    """An empty list is no call; one string is refused, not read letter by letter."""
    adapter = RouterEmbeddings(router)

    assert adapter.embed_documents([]) == []
    with pytest.raises(ValueError, match="list of strings"):
        adapter.embed_documents("text")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty: 1"):
        adapter.embed_documents(["a", ""])


@pytest.mark.parametrize("method", ["embed_documents", "aembed_documents"])
async def test_an_iterator_is_read_and_what_holds_no_texts_is_refused_as_by_the_router(
    router: Router, method: str
) -> None:
    """As in ``embeddings.embed_documents(page.text for page in pages)``."""

    async def embed(texts: Any) -> Any:
        outcome = getattr(RouterEmbeddings(router), method)(texts)
        return outcome if isinstance(outcome, list) else await outcome

    assert await embed(text for text in ("a", "b")) == await embed(["a", "b"])
    with pytest.raises(InvalidInputError, match="list of strings, not NoneType"):
        await embed(None)


@pytest.mark.parametrize("method", ["embed_documents", "aembed_documents"])
async def test_the_chunk_size_of_openai_embeddings_is_accepted(router: Router, high: FakeBackend, method: str) -> None:
    """By name and by position; requests are packed as ever."""
    adapter = RouterEmbeddings(router)
    for texts, given in ((["a", "b", "c"], {"chunk_size": 1}), (["d"], {})):
        outcome = getattr(adapter, method)(texts, *(() if given else (1,)), **given)
        assert len(outcome if isinstance(outcome, list) else await outcome) == len(texts)

    assert [call.texts for call in high.calls] == [("a", "b", "c"), ("d",)]


def test_names_that_other_embedders_have(router: Router) -> None:
    """``OpenAIEmbeddings`` has both; here both follow from the router."""
    adapter = RouterEmbeddings(router)

    assert adapter.dimensions == 8
    assert adapter.model.startswith("embedrouter-")
    with pytest.raises(ConfigError, match="follows from the router"):
        adapter.model = "another"  # type: ignore[misc]


def test_a_pydantic_model_may_have_a_field_of_it(router: Router) -> None:
    """As of ``OpenAIEmbeddings``; what an embedder is built of becomes one, so that a JSON file can name the model."""

    class Settings(BaseModel):
        embeddings: RouterEmbeddings

    class Loose(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        embeddings: Embeddings

    adapter = RouterEmbeddings(router)
    assert Settings(embeddings=adapter).embeddings is adapter
    assert Loose(embeddings=adapter).embeddings is adapter
    named = Settings.model_validate_json('{"embeddings": "wordllama:l2_supercat_256"}').embeddings
    assert named.router.models == ("wordllama:l2_supercat_256",)
    assert "openai:text-embedding-3-small" in Settings.model_json_schema()["properties"]["embeddings"]["description"]
    assert repr(adapter)[:20] in Settings(embeddings=adapter).model_dump_json()
    with pytest.raises(ValueError, match="A router is needed, not int"):
        Settings(embeddings=3)  # type: ignore[arg-type]


class Own(RouterEmbeddings):
    """A user's subclass with an attribute of its own."""

    def __init__(self, *given: Any, note: str = "", **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.note = note


def test_a_subclass_keeps_its_type(router: Router) -> None:
    """Copied, pickled, at another tier, and as it shows itself."""
    own = Own(router, note="mine", query_tier="low")
    for copied in (copy.copy(own), copy.deepcopy(own), pickle.loads(pickle.dumps(own)), own.with_tier("high")):
        assert type(copied) is Own
        assert copied.note == "mine"
        assert repr(copied).startswith("Own(Router(")


async def test_positions_are_told_as_those_of_a_batch(router: Router, asynchronous: bool) -> None:
    """A store or ``index()`` hands over a corpus in batches, of which the adapter has one at a time."""
    store = InMemoryVectorStore(RouterEmbeddings(router))
    manager = InMemoryRecordManager("n")
    documents = [Document(text) for text in ("a", "b", "c", "")]
    settings: dict[str, Any] = {"batch_size": 2, "key_encoder": "sha256"}

    async def fill() -> None:
        if asynchronous:
            await aindex(documents, manager, store, **settings)
        else:
            index(documents, manager, store, **settings)

    with pytest.raises(InvalidInputError, match=r"empty: 1.* count in this call of embed_documents") as raised:
        await fill()

    assert raised.value.indices == (1,)
    with pytest.raises(InvalidInputError) as query:
        await store.asimilarity_search("")
    assert "embed_documents" not in str(query.value)


def in_a_store(embed: Any) -> InMemoryStore:
    return InMemoryStore(index={"dims": 8, "embed": embed})


IN_PLACE: dict[str, Callable[[Router], Any]] = {
    "InMemoryVectorStore": lambda router: InMemoryVectorStore.from_texts(["a"], router),  # type: ignore[arg-type]
    "CacheBackedEmbeddings": lambda router: CacheBackedEmbeddings.from_bytes_store(
        router,  # type: ignore[arg-type]
        InMemoryByteStore(),
        namespace="n",
        key_encoder="sha256",
    ).embed_documents(["a"]),
    "LangGraph's store": lambda router: in_a_store(router).put(("a",), "1", {"t": "a"}),
    "TieredRouter": lambda router: TieredRouter({"low": router}).embed_query("q"),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("place", IN_PLACE)
def test_a_router_in_place_of_an_embedder_is_told_the_adapter(router: Router, place: str) -> None:
    with pytest.raises((AttributeError, TypeError), match=r"Pass RouterEmbeddings\(router\) to LangChain"):
        IN_PLACE[place](router)


def test_a_router_still_has_no_methods_of_embedders(router: Router) -> None:
    """For programs that look which methods there are; an unknown name is told as ever, also by a copy."""
    assert not hasattr(router, "embed_documents")
    assert not hasattr(router, "get_text_embedding")
    with pytest.raises(AttributeError, match=r"RouterEmbedding\(router\) to LlamaIndex"):
        router.get_text_embedding  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(AttributeError, match=r"^'Router' object has no attribute 'embde'$"):
        pickle.loads(pickle.dumps(router)).embde  # noqa: B018
    with pytest.raises(ConfigError, match=r"Model\.wrap takes"):
        Model.wrap(router, space="s", dimensions=8)
