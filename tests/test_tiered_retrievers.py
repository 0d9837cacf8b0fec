"""The tiered retrievers: what both promise, then what each framework adds.

Two fake backends play two spaces of equal dimensions, so that a vector in the wrong store would go unnoticed by width.
"""

from __future__ import annotations

import asyncio
import importlib
import pickle
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import CompactAndRefine
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilters, SimpleVectorStore
from llama_index.core.vector_stores.types import VectorStoreQueryResult

from embedrouter import Model, Router, TieredRouter, tier
from embedrouter import langchain as lc
from embedrouter import llama_index as li
from embedrouter.errors import (
    ConfigError,
    InvalidInputError,
    NoModelAvailableError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.retrieval import Cascade
from embedrouter.testing import NO_WAITING, FakeBackend

TEXTS = [f"text {number}" for number in range(12)]


# One face for both frameworks


@dataclass(frozen=True)
class Found:
    """What came back, of either framework."""

    texts: list[str]
    ids: list[str]
    metadata: list[dict[str, Any]]


class LangChain:
    """InMemoryVectorStore."""

    retriever: Any = lc.TieredRetriever

    def store(self, router: Router, **adapter: Any) -> Any:
        return InMemoryVectorStore(lc.RouterEmbeddings(router, **adapter))

    def foreign_store(self) -> Any:
        return InMemoryVectorStore(DeterministicFakeEmbedding(size=8))

    def swap(self, store: Any, router: Router) -> None:
        store.embedding = lc.RouterEmbeddings(router)

    def build(self, stores: Any, k: int = 4, **settings: Any) -> Any:
        return lc.TieredRetriever(stores, k=k, **settings)

    def add(self, retriever: Any, texts: Sequence[str], **settings: Any) -> None:
        retriever.add_documents(
            [Document(text, id=text, metadata={"n": i}) for i, text in enumerate(texts)], **settings
        )

    async def aadd(self, retriever: Any, texts: Sequence[str], **settings: Any) -> None:
        documents = [Document(text, id=text, metadata={"n": i}) for i, text in enumerate(texts)]
        await retriever.aadd_documents(documents, **settings)

    def ask(self, retriever: Any, question: str) -> Found:
        return self._found(retriever.invoke(question))

    async def aask(self, retriever: Any, question: str) -> Found:
        return self._found(await retriever.ainvoke(question))

    def _found(self, documents: list[Document]) -> Found:
        assert all(document.id for document in documents)
        return Found(
            [document.page_content for document in documents],
            [str(document.id) for document in documents],
            [document.metadata for document in documents],
        )

    def delete(self, retriever: Any, ids: list[str]) -> None:
        retriever.delete(ids)

    async def adelete(self, retriever: Any, ids: list[str]) -> None:
        await retriever.adelete(ids)

    def ids_in(self, store: Any) -> set[str]:
        return set(store.store)

    def metadata_in(self, store: Any) -> list[dict[str, Any]]:
        return [row["metadata"] for row in store.store.values()]


class LlamaIndex:
    """VectorStoreIndex with its SimpleVectorStore."""

    retriever: Any = li.TieredRetriever

    def store(self, router: Router, **adapter: Any) -> Any:
        return VectorStoreIndex(nodes=[], embed_model=li.RouterEmbedding(router=router, **adapter))

    def foreign_store(self) -> Any:
        return VectorStoreIndex(nodes=[], embed_model=MockEmbedding(embed_dim=8))

    def swap(self, store: Any, router: Router) -> None:
        store._embed_model = li.RouterEmbedding(router=router)

    def build(self, stores: Any, k: int = 4, **settings: Any) -> Any:
        return li.TieredRetriever(stores, similarity_top_k=k, **settings)

    def add(self, retriever: Any, texts: Sequence[str], **settings: Any) -> None:
        retriever.insert_nodes(self._nodes(texts), **settings)

    async def aadd(self, retriever: Any, texts: Sequence[str], **settings: Any) -> None:
        await retriever.ainsert_nodes(self._nodes(texts), **settings)

    def _nodes(self, texts: Sequence[str]) -> list[TextNode]:
        keys = ["n"]
        return [
            TextNode(text=text, id_=text, metadata={"n": i}, excluded_embed_metadata_keys=keys)
            for i, text in enumerate(texts)
        ]

    def ask(self, retriever: Any, question: str) -> Found:
        return self._found(retriever.retrieve(question))

    async def aask(self, retriever: Any, question: str) -> Found:
        return self._found(await retriever.aretrieve(question))

    def _found(self, found: list[NodeWithScore]) -> Found:
        return Found([item.text for item in found], [item.node_id for item in found], [item.metadata for item in found])

    def delete(self, retriever: Any, ids: list[str]) -> None:
        retriever.delete_nodes(ids, delete_from_docstore=True)

    async def adelete(self, retriever: Any, ids: list[str]) -> None:
        await retriever.adelete_nodes(ids, delete_from_docstore=True)

    def ids_in(self, store: Any) -> set[str]:
        return set(store.vector_store.data.embedding_dict)

    def metadata_in(self, store: Any) -> list[dict[str, Any]]:
        return [node.metadata for node in store.docstore.docs.values()]


@dataclass
class World:
    """Two spaces of equal dimensions behind one framework."""

    framework: LangChain | LlamaIndex
    low: FakeBackend = field(default_factory=lambda: FakeBackend(space="cheap"))
    high: FakeBackend = field(default_factory=lambda: FakeBackend(space="good"))

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        """Put routers before the backends."""
        self.routers = {
            "low": Router([self.low.model("fake:low", price="0")], cache=None, retry=NO_WAITING),
            "high": Router([self.high.model("fake:high", price="0")], cache=None, retry=NO_WAITING),
        }
        self.both = TieredRouter(self.routers)

    def retriever(self, *, filled: bool = True, **settings: Any) -> Any:
        stores = {name: self.framework.store(router) for name, router in self.routers.items()}
        made = self.framework.build(stores, **{"router": self.both, **settings})
        if filled:
            self.framework.add(made, TEXTS)
            self.forget()
        return made

    def stores(self, retriever: Any) -> dict[str, Any]:
        stores: dict[str, Any] = retriever.stores if isinstance(self.framework, LangChain) else retriever.indices
        return stores

    def forget(self) -> None:
        self.low.calls.clear()
        self.high.calls.clear()

    def asked(self) -> list[str]:
        """Return the spaces in which queries were embedded since the last look."""
        calls = [*[("low", call) for call in self.low.calls], *[("high", call) for call in self.high.calls]]
        asked = [name for name, call in calls if call.input_type == "query"]
        self.forget()
        return asked


@pytest.fixture(params=[LangChain, LlamaIndex], ids=lambda kind: kind.__name__)
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param())


def answers(found: Found) -> set[str]:
    return {metadata["embedding_tier"] for metadata in found.metadata}


# Which store is asked


def test_a_query_goes_to_the_store_of_its_tier_nearest_word_first(world: World) -> None:
    """with tier(…) over the retriever's query_tier over the TieredRouter's default; one store and one model, always."""
    world.both = TieredRouter(world.routers, query_tier="low")
    retriever = world.retriever()

    assert answers(world.framework.ask(retriever, "text 3")) == {"low"}
    assert world.asked() == ["low"]
    assert answers(world.framework.ask(retriever.with_tier("high"), "text 3")) == {"high"}
    assert world.asked() == ["high"]
    with tier("low"):
        assert answers(world.framework.ask(retriever.with_tier("high"), "text 3")) == {"low"}
    assert world.asked() == ["low"]


async def test_the_asynchronous_form_asks_the_same_store(world: World) -> None:
    retriever = world.retriever(query_tier="low")
    found = world.framework.ask(retriever, "text 3")

    assert await world.framework.aask(retriever, "text 3") == found
    with tier("high"):
        assert answers(await world.framework.aask(retriever, "text 3")) == {"high"}
    assert world.asked() == ["low", "low", "high"]


async def test_queries_at_different_tiers_at_once_stay_apart(world: World) -> None:
    """The tier is a context variable, and each task has its own."""
    retriever = world.retriever()

    async def ask(name: str) -> set[str]:
        with tier(name):
            return answers(await world.framework.aask(retriever, "text 3"))

    assert await asyncio.gather(*(ask(name) for name in ("low", "high") * 5)) == [{"low"}, {"high"}] * 5


def test_a_tier_between_is_served_by_the_next_higher_store(world: World) -> None:
    """A tier is the least quality that is accepted."""
    retriever = world.retriever()

    assert answers(world.framework.ask(retriever.with_tier("medium"), "text 3")) == {"high"}


def test_names_of_tiers_need_not_be_known_to_the_routers_inside(world: World) -> None:
    """The chosen router then uses its own default tier."""
    routers = {"cheap": world.routers["low"], "good": world.routers["high"]}
    retriever = world.framework.build({name: world.framework.store(router) for name, router in routers.items()})
    world.framework.add(retriever, TEXTS)

    with tier("cheap", documents="cheap"):
        world.framework.add(retriever, ["one more"])
        assert answers(world.framework.ask(retriever, "text 3")) == {"cheap"}


def test_the_stores_own_adapter_decides_within_its_router(world: World) -> None:
    """A family of models may stand behind one tier."""
    lite, large = FakeBackend(space="good"), FakeBackend(space="good")
    models = [lite.model("fake:lite", tier="low"), large.model("fake:large", tier="high")]
    routers = {"low": world.routers["low"], "high": Router(models, cache=None)}
    stores = {
        "low": world.framework.store(routers["low"]),
        "high": world.framework.store(routers["high"], query_tier="low", document_tier="high"),
    }
    retriever = world.framework.build(stores)
    world.framework.add(retriever, TEXTS)

    with tier("high"):
        world.framework.ask(retriever, "text 3")

    assert [call.input_type for call in lite.calls] == ["query"]
    assert {call.input_type for call in large.calls} == {"document"}


@pytest.mark.parametrize("unknown", ["hgih", ""])
def test_an_unknown_tier_is_refused_with_the_known_ones(unknown: str, world: World) -> None:
    retriever = world.retriever()

    with pytest.raises(ValueError, match="low, medium, high"):
        retriever.with_tier(unknown)


def test_a_store_that_is_down_is_an_error_and_never_another_store(world: World) -> None:
    """An outage does not change the tier; a caller who wants the other tier asks for it."""
    world.high = FakeBackend(space="good", outcomes=[None, UnavailableError("down", retryable=False)])
    world.connect()
    retriever = world.retriever()

    with pytest.raises(NoModelAvailableError, match="down"):
        world.framework.ask(retriever, "text 3")
    assert world.low.calls == []


# What comes back


def test_results_say_which_store_answered_and_the_stores_stay_as_they_were(world: World) -> None:
    retriever = world.retriever(k=3)
    found = world.framework.ask(retriever, "text 3")

    assert len(found.texts) == 3
    assert all(
        metadata == {"n": metadata["n"], "embedding_tier": "high", "embedding_space": "good (8 dimensions)"}
        for metadata in found.metadata
    )
    for store in world.stores(retriever).values():
        assert all(set(metadata) == {"n"} for metadata in world.framework.metadata_in(store))


def test_each_store_finds_what_it_would_find_alone(world: World) -> None:
    """The exact neighbours in each space."""
    retriever = world.retriever(k=5)
    for name, backend in (("low", world.low), ("high", world.high)):
        query = backend.vector("a question", "query")
        nearest = sorted(TEXTS, key=lambda text: -float(backend.vector(text, "document") @ query))

        assert world.framework.ask(retriever.with_tier(name), "a question").texts == nearest[:5]


# Documents


def test_documents_are_in_every_store_under_the_same_ids(world: World) -> None:
    retriever = world.retriever()

    assert [world.framework.ids_in(store) for store in world.stores(retriever).values()] == [set(TEXTS)] * 2


async def test_the_asynchronous_form_fills_and_empties_the_same_stores(world: World) -> None:
    retriever = world.retriever(filled=False)
    await world.framework.aadd(retriever, TEXTS)
    await world.framework.aadd(retriever, ["only here"], tiers=["low"])
    await world.framework.adelete(retriever, ["text 0"])

    left = set(TEXTS[1:])
    found = {name: world.framework.ids_in(store) for name, store in world.stores(retriever).items()}
    assert found == {"low": left | {"only here"}, "high": left}


def test_documents_can_go_to_some_tiers_only(world: World) -> None:
    retriever = world.retriever(filled=False)
    world.framework.add(retriever, ["a"], tiers=["low"])
    world.framework.add(retriever, ["b"], tiers=["medium"])
    world.framework.add(retriever, ["c"], tiers=[])

    found = {name: world.framework.ids_in(store) for name, store in world.stores(retriever).items()}
    assert found == {"low": {"a"}, "high": {"b"}}
    with pytest.raises(ConfigError, match=r"\['low'\]"):
        world.framework.add(retriever, ["d"], tiers="low")


def test_what_is_deleted_is_gone_everywhere(world: World) -> None:
    retriever = world.retriever()
    world.framework.delete(retriever, ["text 0", "text 1"])

    assert [world.framework.ids_in(store) for store in world.stores(retriever).values()] == [set(TEXTS[2:])] * 2


def test_where_the_dear_store_fails_the_cheap_one_is_still_empty(world: World) -> None:
    """So that trying again puts every document in once."""
    world.high = FakeBackend(space="good", outcomes=[UnavailableError("down", retryable=False)])
    world.connect()
    retriever = world.retriever(filled=False)

    with pytest.raises(NoModelAvailableError):
        world.framework.add(retriever, TEXTS)
    assert world.low.calls == []
    world.framework.add(retriever, TEXTS)

    assert [world.framework.ids_in(store) for store in world.stores(retriever).values()] == [set(TEXTS)] * 2


# What is refused


def test_a_store_in_the_wrong_space_is_refused_when_the_retriever_is_built(world: World) -> None:
    """Equal dimensions would hide it: this is the mistake that the whole package is about."""
    stores = {"low": world.framework.store(world.routers["high"]), "high": world.framework.store(world.routers["low"])}

    with pytest.raises(SpaceMismatchError, match=r"good \(8 dimensions\), its router in cheap.*tiered.router\('low'\)"):
        world.framework.build(stores, router=world.both)


def test_a_store_whose_embedder_is_exchanged_is_refused_when_it_is_used(world: World) -> None:
    retriever = world.retriever()
    world.framework.swap(world.stores(retriever)["high"], world.routers["low"])

    with pytest.raises(SpaceMismatchError):
        world.framework.ask(retriever, "text 3")
    with pytest.raises(SpaceMismatchError):
        world.framework.add(retriever, ["one more"])
    assert world.low.calls == world.high.calls == []


def test_a_store_that_embeds_with_something_else_is_refused(world: World) -> None:
    """Its space is not known."""
    with pytest.raises(ConfigError, match="whose space is not known"):
        world.framework.build(
            {"low": world.framework.store(world.routers["low"]), "high": world.framework.foreign_store()}
        )


@pytest.mark.parametrize(
    ("tiers", "settings", "says"),
    [
        ({}, {}, "for each tier"),
        ({"low": "low"}, {}, "There is no .* for the tier 'high'"),
        ({"low": "low", "high": "high", "medium": "high"}, {}, "'high' would never be asked"),
        ({"low": "low", "high": "high", "best": "high"}, {}, "'best' would never be asked"),
        ({"low": "low", "high": "high"}, {"query_tier": "best"}, "Unknown tier 'best'"),
        ({"low": "low", "high": "high"}, {"query_tier": "low", "cascade": Cascade(0.3)}, "one of the two"),
        ({"low": "low", "high": "high"}, {"cascade": Cascade(0.3, cheap="medium")}, "'medium' and 'high' share one"),
        ({"low": "low", "high": "high"}, {"cascade": Cascade(0.3, good="best")}, "Unknown tier 'best'"),
        ({"low": "low", "high": "high"}, {"k": 0}, "k"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tiers: dict[str, str], settings: dict[str, Any], says: str, world: World
) -> None:
    """When the retriever is built, with what to do."""
    stores = {name: world.framework.store(world.routers[held]) for name, held in tiers.items()}

    with pytest.raises(ValueError, match=says):
        world.framework.build(stores, **{"router": world.both, **settings})


def test_a_store_for_each_router_is_built_from_the_routers(world: World) -> None:
    retriever = world.framework.retriever.from_router(world.both, cascade=Cascade(0.3))

    assert set(world.stores(retriever)) == {"low", "high"}
    world.framework.add(retriever, TEXTS)
    assert answers(world.framework.ask(retriever.with_tier("low"), "text 3")) == {"low"}


def test_without_a_router_the_stores_say_which_tiers_there_are(world: World) -> None:
    stores = {name: world.framework.store(router) for name, router in world.routers.items()}
    retriever = world.framework.build(stores)

    assert retriever.router.router("low") is world.routers["low"]
    assert retriever.router.router("medium") is world.routers["high"]


# The cascade


def test_a_query_in_doubt_is_asked_again_in_the_good_store(world: World) -> None:
    retriever = world.retriever(k=2, cascade=Cascade(1.0))
    found = world.framework.ask(retriever, "text 3")

    assert world.asked() == ["low", "high"]
    assert [metadata["embedding_escalated"] for metadata in found.metadata] == [True, True]
    assert answers(found) == {"high"}
    assert found.texts == world.framework.ask(retriever.with_tier("high"), "text 3").texts


def test_a_query_without_doubt_is_answered_by_the_cheap_store(world: World) -> None:
    """With as many documents as were asked for, although more were looked at."""
    retriever = world.retriever(k=2, cascade=Cascade(0.0))
    found = world.framework.ask(retriever, "text 3")

    assert world.asked() == ["low"]
    assert [metadata["embedding_escalated"] for metadata in found.metadata] == [False, False]
    assert answers(found) == {"low"}
    assert found.texts == world.framework.ask(retriever.with_tier("low"), "text 3").texts


class Recording(Cascade):
    """Remembers the scores that it was given."""

    recorded: list[list[float]]

    def escalates(self, scores: Sequence[float]) -> bool:
        self.__dict__.setdefault("recorded", []).append([float(score) for score in scores])
        return super().escalates(scores)


@pytest.mark.parametrize("k", [1, 11])
def test_the_gap_is_that_of_the_first_ten_hits_however_many_are_wanted(k: int, world: World) -> None:
    cascade = Recording(0.0)
    retriever = world.retriever(k=k, cascade=cascade)
    assert len(world.framework.ask(retriever, "a question").texts) == k

    query = world.low.vector("a question", "query")
    cosines = sorted((float(world.low.vector(text, "document") @ query) for text in TEXTS), reverse=True)
    assert cascade.recorded == [pytest.approx(cosines[: max(k, 10)], abs=1e-6)]


def test_an_explicit_tier_is_asked_directly_and_not_counted(world: World) -> None:
    cascade = Cascade(1.0)
    retriever = world.retriever(cascade=cascade)
    for name in ("low", "high"):
        with tier(name):
            found = world.framework.ask(retriever, "text 3")
        assert answers(found) == {name}
        assert all("embedding_escalated" not in metadata for metadata in found.metadata)

    world.framework.ask(retriever.with_tier("low"), "text 3")

    assert cascade.seen == 0


async def test_both_forms_decide_alike_and_share_one_account(world: World) -> None:
    questions = [f"question {number}" for number in range(60)]
    sync, asynchronous = world.retriever(cascade=Cascade(0.3)), world.retriever(cascade=Cascade(0.3))

    found = [world.framework.ask(sync, question) for question in questions]

    assert [await world.framework.aask(asynchronous, question) for question in questions] == found
    assert sync.cascade.seen == asynchronous.cascade.seen == 60
    assert sync.cascade.escalated == asynchronous.cascade.escalated == sum("high" in answers(one) for one in found)
    assert 0 < sync.cascade.escalated < 60


def test_a_cascade_is_between_the_tiers_it_names(world: World) -> None:
    """By default the lowest and the highest."""
    middle = FakeBackend(space="middle")
    routers = {**world.routers, "medium": Router([middle.model("fake:middle", price="0")], cache=None)}
    stores = {name: world.framework.store(router) for name, router in routers.items()}
    retriever = world.framework.build(stores, cascade=Cascade(1.0, good="medium"))
    world.framework.add(retriever, TEXTS)

    assert answers(world.framework.ask(retriever, "text 3")) == {"medium"}


@pytest.mark.parametrize("texts", [[], ["a"]])
def test_with_nothing_to_rank_there_is_no_second_search(texts: list[str], world: World) -> None:
    retriever = world.retriever(filled=False, cascade=Cascade(1.0))
    world.framework.add(retriever, texts)
    world.forget()

    assert world.framework.ask(retriever, "a question").texts == texts
    assert world.asked() == ["low"]


def test_an_escalation_that_fails_is_an_error(world: World) -> None:
    """The caller is told that the good tier is down, rather than given less than was promised."""
    world.high = FakeBackend(space="good", outcomes=[None, UnavailableError("down", retryable=False)])
    world.connect()
    retriever = world.retriever(cascade=Cascade(1.0))

    with pytest.raises(NoModelAvailableError, match="down"):
        world.framework.ask(retriever, "text 3")


def test_a_retriever_travels_to_another_process(world: World) -> None:
    """With its documents, its settings and the cascade's account."""
    retriever = world.retriever(k=2, cascade=Cascade(0.4))
    for number in range(20):
        world.framework.ask(retriever, f"question {number}")

    copy = pickle.loads(pickle.dumps(retriever))

    assert repr(copy.cascade) == repr(retriever.cascade)
    for number in range(20, 40):
        assert world.framework.ask(copy, f"question {number}") == world.framework.ask(retriever, f"question {number}")


# LangChain


@pytest.fixture
def langchain() -> World:
    return World(LangChain())


LOW: Any = {"configurable": {"embedding_tier": "low"}}
CALLS: dict[str, Callable[[Any], Any]] = {
    "invoke": lambda retriever: retriever.invoke("a", LOW),
    "batch": lambda retriever: [found for part in retriever.batch(["a", "b"], LOW) for found in part],
    "stream": lambda retriever: [found for part in retriever.stream("a", LOW) for found in part],
    "ainvoke": lambda retriever: asyncio.run(retriever.ainvoke("a", LOW)),
    "abatch": lambda retriever: [found for part in asyncio.run(retriever.abatch(["a", "b"], LOW)) for found in part],
    "astream": lambda retriever: asyncio.run(_streamed(retriever)),
    "with_config": lambda retriever: retriever.with_config(LOW).invoke("a"),
    "chain": lambda retriever: (RunnablePassthrough() | retriever).invoke("a", LOW),
    "chain batch": lambda retriever: (RunnablePassthrough() | retriever).batch(["a"], LOW)[0],
    "inside a function": lambda retriever: RunnableLambda(lambda question: retriever.invoke(question)).invoke("a", LOW),
    "per call": lambda retriever: retriever.invoke("a", tier="low"),
    "bound": lambda retriever: retriever.bind(tier="low").invoke("a"),
    "wrapped": lambda retriever: lc.with_tier(retriever, "low").invoke("a"),
}


async def _streamed(retriever: Any) -> list[Document]:
    return [found async for part in retriever.astream("a", LOW) for found in part]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cascade", [False, True])
def test_a_configuration_reaches_the_retriever_however_it_is_called(call: str, cascade: bool, langchain: World) -> None:
    """LangChain hands it to ``invoke`` and no further. It switches a cascade off."""
    retriever = langchain.retriever(cascade=Cascade(1.0)) if cascade else langchain.retriever(query_tier="high")
    found = CALLS[call](retriever)

    assert {document.metadata["embedding_tier"] for document in found} == {"low"}
    assert set(langchain.asked()) == {"low"}


def test_each_item_of_a_batch_has_its_own_configuration(langchain: World) -> None:
    high = {"configurable": {"embedding_tier": "high"}}
    found = langchain.retriever(k=1).batch(["a", "b", "c"], [LOW, high, {}])

    assert [part[0].metadata["embedding_tier"] for part in found] == ["low", "high", "high"]


def test_the_nearest_word_counts_in_langchain_too(langchain: World) -> None:
    """The call's own tier, then the surrounding block, then the configuration, then the retriever's."""
    retriever = langchain.retriever(query_tier="low")
    high = {"configurable": {"embedding_tier": "high"}}

    def answered(*arguments: Any, **settings: Any) -> str:
        return str(retriever.invoke("a", *arguments, **settings)[0].metadata["embedding_tier"])

    assert answered() == "low"
    assert answered(high) == "high"
    with tier("low"):
        assert answered(high) == "low"
        assert answered(high, tier="high") == "high"


def test_how_many_and_which_documents_is_said_per_retriever_and_per_call(langchain: World) -> None:
    """Anything that the stores' search methods take; the nearer word counts."""
    retriever = langchain.retriever(k=2, search_kwargs={"filter": lambda document: document.metadata["n"] < 5})

    assert len(retriever.invoke("a")) == 2
    assert len(retriever.invoke("a", k=3)) == 3
    assert {document.metadata["n"] for document in retriever.invoke("a", k=12)} == set(range(5))
    even = retriever.invoke("a", k=12, filter=lambda document: document.metadata["n"] % 2 == 0)
    assert {document.metadata["n"] for document in even} == {0, 2, 4, 6, 8, 10}
    assert len(retriever.model_copy(update={"search_kwargs": {"k": 7}}).invoke("a")) == 7


def test_settings_of_a_call_reach_both_searches_of_a_cascade(langchain: World) -> None:
    retriever = langchain.retriever(cascade=Cascade(1.0))
    found = retriever.invoke("a", k=3, filter=lambda document: document.metadata["n"] < 2)

    assert [document.metadata["embedding_escalated"] for document in found] == [True, True]


def test_documents_without_an_id_get_the_same_new_one_everywhere(langchain: World) -> None:
    """And the user's own objects are left alone."""
    retriever = langchain.retriever(filled=False)
    given = [Document("a"), Document("b", id="mine")]
    ids = retriever.add_documents(given)
    more = retriever.add_texts(["c", "d"], [{"x": 1}, {"x": 2}])
    named = retriever.add_texts(["e"], ids=["e"])

    assert ids[1] == "mine"
    assert uuid.UUID(ids[0])
    assert [document.id for document in given] == [None, "mine"]
    assert named == ["e"]
    for store in retriever.stores.values():
        assert list(store.store) == [*ids, *more, "e"]
        assert store.store[more[1]]["metadata"] == {"x": 2}


async def test_texts_are_added_asynchronously(langchain: World) -> None:
    retriever = langchain.retriever(filled=False)
    ids = await retriever.aadd_texts(["a", "b"], ids=["1", "2"])

    assert ids == ["1", "2"]
    assert [list(store.store) for store in retriever.stores.values()] == [ids, ids]


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (lambda retriever: retriever.add_texts(["a", "b"], ids=["1"]), "1 for 2"),
        (lambda retriever: retriever.add_texts(["a", "b"], ids=["1", "1"]), "two documents have the same"),
        (lambda retriever: retriever.add_texts(["a", "b"], [{}]), "1 for 2"),
    ],
)
def test_ids_and_metadata_that_do_not_fit_are_refused_before_anything_is_embedded(
    add: Callable[[Any], Any], says: str, langchain: World
) -> None:
    with pytest.raises(ConfigError, match=says):
        add(langchain.retriever())
    assert langchain.low.calls == langchain.high.calls == []


class OnlyAsynchronous(InMemoryVectorStore):
    """A store that must not be called from a thread."""

    def similarity_search(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("sync")

    similarity_search_with_score = add_documents = delete = similarity_search


async def test_asynchronous_calls_use_the_stores_own_asynchronous_methods(langchain: World) -> None:
    stores = {name: OnlyAsynchronous(lc.RouterEmbeddings(router)) for name, router in langchain.routers.items()}
    retriever = lc.TieredRetriever(stores, cascade=Cascade(1.0))
    await retriever.aadd_texts(TEXTS)

    assert len(await retriever.ainvoke("a")) == 4


class WithoutScores(InMemoryVectorStore):
    """A store that ranks and says no more."""

    similarity_search_with_score = VectorStore.similarity_search_with_score


def test_a_store_without_scores_cannot_begin_a_cascade(langchain: World) -> None:
    stores = {name: WithoutScores(lc.RouterEmbeddings(router)) for name, router in langchain.routers.items()}

    with pytest.raises(ConfigError, match="a WithoutScores, has no similarity_search_with_score"):
        lc.TieredRetriever(stores, cascade=Cascade(0.3))


def test_traces_see_what_was_found(langchain: World) -> None:
    """Callbacks get the documents with the answer's tier, once per query."""
    from langchain_core.callbacks import BaseCallbackHandler

    seen: list[Any] = []

    class Handler(BaseCallbackHandler):
        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            seen.append({document.metadata["embedding_tier"] for document in documents})

    langchain.retriever(cascade=Cascade(1.0)).invoke("a", {"callbacks": [Handler()]})

    assert seen == [{"high"}]


WORDS = [
    f"{thing} {what}" for thing in ("cats", "ships", "bread", "rain") for what in ("at home", "abroad", "for sale")
]


def _chroma(embedder: Any, path: Path) -> Any:
    kind = _optional("langchain_chroma").Chroma
    return kind(f"c{uuid.uuid4().hex}", embedder, persist_directory=str(path / uuid.uuid4().hex))


def _qdrant(embedder: Any, _: Path) -> Any:
    qdrant = _optional("langchain_qdrant")
    client = importlib.import_module("qdrant_client").QdrantClient(":memory:")
    models = importlib.import_module("qdrant_client.models")
    size = models.VectorParams(size=embedder.space.dimensions, distance=models.Distance.COSINE)
    client.create_collection("texts", vectors_config=size)
    return qdrant.QdrantVectorStore(client, "texts", embedding=embedder)


def _faiss(embedder: Any, _: Path) -> Any:
    faiss = _optional("faiss")
    kind = _optional("langchain_community.vectorstores").FAISS
    memory = _optional("langchain_community.docstore").InMemoryDocstore()
    return kind(embedder, faiss.IndexFlatL2(embedder.space.dimensions), memory, {})


def _optional(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed")


@pytest.fixture
def wordllama() -> Iterator[TieredRouter]:
    low = Router([Model("wordllama:l2_supercat_256", dimensions=64)], cache=None)
    with TieredRouter({"low": low, "high": Router(["wordllama:l2_supercat_256"], cache=None)}) as both:
        yield both


@pytest.mark.parametrize("make", [_faiss, _chroma, pytest.param(_qdrant, marks=pytest.mark.slow)])
def test_stores_that_give_distances_are_decided_like_those_that_give_similarities(
    make: Callable[[Any, Path], Any], wordllama: TieredRouter, tmp_path: Path
) -> None:
    """FAISS and Chroma give squared distances, smaller is better; Qdrant and LangChain's own give cosines."""
    reference = lc.TieredRetriever.from_router(wordllama, cascade=Cascade(0.4), k=3)
    retriever = lc.TieredRetriever.from_router(wordllama, lambda embedder: make(embedder, tmp_path), k=3)
    retriever = retriever.model_copy(update={"cascade": Cascade(0.4)})
    ids = [str(uuid.uuid4()) for _ in WORDS]
    for one in (reference, retriever):
        one.add_texts(WORDS, ids=ids)

    questions = [
        f"{word} and {other}" for word in ("cat", "boat", "loaf", "storm") for other in ("home", "trade", "sea")
    ]
    for question in questions:
        expected, found = reference.invoke(question), retriever.invoke(question)
        assert [document.metadata["embedding_tier"] for document in found] == [
            document.metadata["embedding_tier"] for document in expected
        ]
        assert [document.page_content for document in found] == [document.page_content for document in expected]

    assert reference.cascade is not None
    assert 0 < reference.cascade.escalated < len(questions)


# LlamaIndex


@pytest.fixture
def llama() -> World:
    return World(LlamaIndex())


def test_an_embedding_that_came_with_the_query_is_not_used(llama: World) -> None:
    """Other retrievers write theirs into the bundle, and it may be of any space."""
    retriever = llama.retriever()
    bundle = QueryBundle("text 3", embedding=[1.0] + [0.0] * 7)

    found = retriever.retrieve(bundle)

    assert [item.text for item in found] == [item.text for item in retriever.retrieve("text 3")]
    assert bundle.embedding == [1.0] + [0.0] * 7
    assert llama.asked() == ["high", "high"]


async def test_the_two_searches_of_a_cascade_share_no_embedding(llama: World) -> None:
    """The framework writes the first one's into the query."""
    retriever = llama.retriever(cascade=Cascade(1.0))
    expected = [item.text for item in retriever.with_tier("high").retrieve("text 3")]
    bundle = QueryBundle("text 3")

    assert [item.text for item in retriever.retrieve(bundle)] == expected
    assert [item.text for item in await retriever.aretrieve(bundle)] == expected
    assert bundle.embedding is None


def test_strings_to_embed_instead_of_the_question_are_kept(llama: World) -> None:
    """Query transformations such as HyDE set them."""
    llama.retriever().retrieve(QueryBundle("a question", custom_embedding_strs=["text 3", "text 4"]))

    assert [text for call in llama.high.calls for text in call.texts] == ["text 3", "text 4"]


def test_a_query_without_text_is_refused(llama: World) -> None:
    with pytest.raises(InvalidInputError, match="has no text"):
        llama.retriever().retrieve(QueryBundle("", embedding=[1.0] * 8))


def test_an_embedding_that_came_with_a_node_goes_into_no_index(llama: World) -> None:
    """It would be in every index, also in those of other spaces."""
    node = TextNode(text="a", embedding=[1.0] * 8)
    retriever = llama.retriever(filled=False)
    retriever.insert_nodes([node])

    assert node.embedding == [1.0] * 8
    for name, backend in (("low", llama.low), ("high", llama.high)):
        vector = retriever.indices[name].vector_store.data.embedding_dict[node.node_id]
        assert vector == pytest.approx(backend.vector("a", "document").tolist())


def test_what_is_said_of_the_answer_is_not_part_of_the_prompt(llama: World) -> None:
    """Metadata usually is."""
    found = llama.retriever(k=1).retrieve("text 3")[0]

    assert found.node.get_content(MetadataMode.LLM) == f"n: {found.metadata['n']}\n\n{found.text}"
    assert found.node.get_content(MetadataMode.EMBED) == found.text


def test_other_settings_of_the_search_are_given_to_the_retriever_or_for_one_call(llama: World) -> None:
    """All that ``as_retriever`` takes."""
    filters = MetadataFilters.from_dicts([{"key": "n", "value": 3}])
    retriever = llama.retriever(k=2, cascade=Cascade(0.0))

    assert len(retriever.retrieve("a")) == 2
    assert len(retriever.with_search(similarity_top_k=5).retrieve("a")) == 5
    assert [item.metadata["n"] for item in retriever.with_search(filters=filters).retrieve("a")] == [3]
    assert [item.metadata["n"] for item in llama.retriever(filters=filters).retrieve("a")] == [3]
    assert retriever.with_search(similarity_top_k=5).cascade is retriever.cascade
    with pytest.raises(ConfigError, match="embed_model"):
        retriever.with_search(embed_model=MockEmbedding(embed_dim=8))


def test_a_query_engine_asks_it(llama: World) -> None:
    llm = MockLLM()
    engine = RetrieverQueryEngine(llama.retriever(k=2), CompactAndRefine(llm=llm))
    with tier("low"):
        response = engine.query("text 3")

    assert {item.metadata["embedding_tier"] for item in response.source_nodes} == {"low"}


class Scoreless(SimpleVectorStore):
    """A store that ranks and says no more."""

    def query(self, *arguments: Any, **settings: Any) -> VectorStoreQueryResult:
        found = super().query(*arguments, **settings)
        return VectorStoreQueryResult(nodes=found.nodes, ids=found.ids)


def test_an_index_without_scores_cannot_begin_a_cascade(llama: World) -> None:
    """This is known when the first answer comes."""

    def make(embedder: li.RouterEmbedding) -> VectorStoreIndex:
        return VectorStoreIndex(
            nodes=[], embed_model=embedder, storage_context=StorageContext.from_defaults(vector_store=Scoreless())
        )

    retriever = li.TieredRetriever.from_router(llama.both, make, cascade=Cascade(0.3))
    llama.framework.add(retriever, TEXTS)

    assert len(retriever.with_tier("low").retrieve("a")) == 2
    with pytest.raises(ConfigError, match="a Scoreless, gives none"):
        retriever.retrieve("a")


def _llama_faiss(dimensions: int, _: Path) -> Any:
    kind = _optional("llama_index.vector_stores.faiss").FaissVectorStore
    return kind(faiss_index=_optional("faiss").IndexFlatL2(dimensions))


def _llama_chroma(_: int, path: Path) -> Any:
    kind = _optional("llama_index.vector_stores.chroma").ChromaVectorStore
    client = _optional("chromadb").PersistentClient(str(path / uuid.uuid4().hex))
    return kind(chroma_collection=client.create_collection("texts"))


def _llama_qdrant(_: int, __: Path) -> Any:
    kind = _optional("llama_index.vector_stores.qdrant").QdrantVectorStore
    return kind("texts", client=_optional("qdrant_client").QdrantClient(":memory:"))


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")  # Qdrant without a server
@pytest.mark.parametrize("make", [_llama_faiss, _llama_chroma, pytest.param(_llama_qdrant, marks=pytest.mark.slow)])
def test_real_vector_stores_serve_behind_the_indices(
    make: Callable[[int, Path], Any], wordllama: TieredRouter, tmp_path: Path
) -> None:
    """Both tiers answer and the cascade decides, with scores of any meaning."""

    def index(embedder: li.RouterEmbedding) -> VectorStoreIndex:
        store = make(embedder.router.space.dimensions, tmp_path)
        return VectorStoreIndex(
            nodes=[], embed_model=embedder, storage_context=StorageContext.from_defaults(vector_store=store)
        )

    cascade = Cascade(0.4)
    retriever = li.TieredRetriever.from_router(wordllama, index, cascade=cascade, similarity_top_k=1)
    retriever.insert_nodes([TextNode(text=text) for text in WORDS])

    with tier("low"):
        assert retriever.retrieve("cats for sale")[0].text == "cats for sale"
    tiers = set()
    for text in WORDS:
        found = retriever.retrieve(text)[0]
        assert found.text == text
        tiers.add((found.metadata["embedding_tier"], found.metadata["embedding_escalated"]))

    assert tiers == {("low", False), ("high", True)}
    assert cascade.seen == len(WORDS)
