"""The tier that was asked for is the tier of the query, however the framework is called: a matrix, by pairs.

    a form of a call (a retriever alone, a step of a chain, a LangGraph node, …)
    × a way to ask (none, the adapter, the configuration, with_tier(retriever), with tier(…))
    × a tier (low, high, and one that does not exist)
    × a method (invoke, abatch, astream, …)

Three backends of one space have a tier each, so the requests they got show the tier of each query. Every two values of
different dimensions meet in a row. In each row the query has the tier that was asked for, or the call raises. Where
LangChain drops the configuration and nothing else asks, the query has the default tier; ``passes`` of a form names the
methods in which LangChain does not drop it, so that a change in LangChain is noticed. Precedence, streams and
LlamaIndex follow.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, aclosing, closing, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import dataclass, field
from decimal import Decimal
from operator import itemgetter
from typing import Any, NotRequired, TypedDict
from uuid import UUID

import pytest
from langchain_classic.retrievers import EnsembleRetriever
from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import create_retriever_tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.graph import END, START, StateGraph
from llama_index.core import VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers.no_text import NoText
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode

from embedrouter import Router, tier
from embedrouter.errors import ConfigError
from embedrouter.langchain import RouterEmbeddings, with_tier
from embedrouter.llama_index import RouterEmbedding
from embedrouter.models import requested
from tests.pairwise import pairs, pairwise
from tests.tier_backends import TierBackends

DEFAULT = "medium"
"""The tier of queries that ask for none. Documents have the highest."""
UNKNOWN = "best"
ASKED = ("low", "high", UNKNOWN)
QUERIES = ("one", "two")

Step = Runnable[Any, Any]


class World(TierBackends):
    """A router over three backends, one for each tier."""

    def router(self, query_tier: str = DEFAULT) -> Router:
        return Router(self.models(), cache=None, query_tier=query_tier)

    def forget(self) -> None:
        for backend in self.backends.values():
            backend.calls.clear()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def store(world: World) -> InMemoryVectorStore:
    return InMemoryVectorStore.from_texts(["a", "b"], RouterEmbeddings(world.router()))


def at(name: str, *texts: str) -> set[tuple[str, str]]:
    return {(name, text) for text in texts}


def asking(name: str) -> RunnableConfig:
    return {"configurable": {"embedding_tier": name}}


# Methods

Config = RunnableConfig | None


async def _ainvoke(step: Step, inputs: list[Any], config: Config) -> None:
    for value in inputs:
        await step.ainvoke(value, config)


async def _astream(step: Step, inputs: list[Any], config: Config) -> None:
    for value in inputs:
        async for _ in step.astream(value, config):
            pass


async def _astream_events(step: Step, inputs: list[Any], config: Config) -> None:
    for value in inputs:
        async for _ in step.astream_events(value, config, version="v2"):
            pass


async def _abatch_as_completed(step: Step, inputs: list[Any], config: Any) -> None:
    async for _, outcome in step.abatch_as_completed(inputs, config, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


Method = Callable[[Step, list[Any], Any], Awaitable[Any] | list[Any]]

METHODS: dict[str, Method] = {
    "invoke": lambda step, inputs, config: [step.invoke(value, config) for value in inputs],
    "batch": lambda step, inputs, config: step.batch(inputs, config),
    "batch_as_completed": lambda step, inputs, config: list(step.batch_as_completed(inputs, config)),
    "stream": lambda step, inputs, config: [chunk for value in inputs for chunk in step.stream(value, config)],
    "ainvoke": _ainvoke,
    "abatch": lambda step, inputs, config: step.abatch(inputs, config),
    "abatch_as_completed": _abatch_as_completed,
    "astream": _astream,
    "astream_events": _astream_events,
}
BATCHES = ("batch", "batch_as_completed", "abatch", "abatch_as_completed")
ASYNCHRONOUS = frozenset(name for name in METHODS if name.startswith("a"))

ALL = frozenset(METHODS)
ALL_BUT_BATCH = ALL - {"batch", "abatch"}
NONE = frozenset[str]()


def call(method: str, step: Step, inputs: list[Any], config: Any = None) -> None:
    """Call in the way of ``method``, the asynchronous ones in an event loop of their own."""

    async def awaited() -> None:
        outcome = METHODS[method](step, inputs, config)
        assert isinstance(outcome, Awaitable)
        await outcome

    if method in ASYNCHRONOUS:
        asyncio.run(awaited())
    else:
        METHODS[method](step, inputs, config)


@contextmanager
def refusing(outcomes: dict[str, Any], name: str) -> Iterator[None]:
    """Note that an unknown tier was refused, with the known ones."""
    try:
        yield
    except ValueError as error:
        if not re.search(r"Unknown tier 'best'.*low, medium, high", str(error)):
            raise
        outcomes[name] = "refused"


# Ways to ask


@dataclass(frozen=True)
class Way:
    """A way to ask for a tier; each part is given its name."""

    adapter: Callable[[Router, str], RouterEmbeddings] = lambda router, _: RouterEmbeddings(router)
    wrap: Callable[[Step, str], Step] = lambda step, _: step
    config: Callable[[str], RunnableConfig] = lambda _: {}
    block: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext()
    reaches: Callable[[Form, str], bool] = lambda form, method: True
    """Whether the tier is known to reach a query of this form and method."""


WAYS = {
    "none": Way(reaches=lambda form, method: False),
    "query_tier=": Way(adapter=lambda router, name: RouterEmbeddings(router, query_tier=name)),
    "RouterEmbeddings.with_tier": Way(adapter=lambda router, name: RouterEmbeddings(router).with_tier(name)),
    "the configuration alone": Way(config=asking, reaches=lambda form, method: method in form.passes),
    "the configuration of with_tier(retriever)": Way(config=asking, wrap=lambda step, _: with_tier(step)),
    "with_tier(retriever, …)": Way(wrap=with_tier),
    "with tier(…)": Way(block=tier, reaches=lambda form, method: form.copies_context),
}


# Forms of calls


@dataclass(frozen=True)
class Setting:
    """What a form is built from."""

    store: InMemoryVectorStore
    wrap: Callable[[Step], Step]
    config: RunnableConfig

    @property
    def retriever(self) -> BaseRetriever:
        return self.store.as_retriever()

    @property
    def wrapped(self) -> Step:
        return self.wrap(self.retriever)


@dataclass(frozen=True)
class Form:
    """A form of a call."""

    build: Callable[[Setting], Step]
    passes: frozenset[str] = NONE
    """The methods in which LangChain itself passes the configuration to the query."""
    methods: frozenset[str] = ALL
    input: Callable[[str], Any] = str
    binds: bool = False
    """Whether the configuration is bound when it is built; then the call has none."""
    copies_context: bool = True


class Custom(BaseRetriever):
    """A retriever of a user's own, in the form that LangChain's guide shows."""

    store: InMemoryVectorStore

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.store.similarity_search(query)


class State(TypedDict):
    query: str
    documents: NotRequired[list[Document]]


def graph(node: Any) -> Step:
    """Return a LangGraph of one node."""
    builder = StateGraph(State)
    builder.add_node("retrieve", node)
    builder.add_edge(START, "retrieve")
    builder.add_edge("retrieve", END)
    return builder.compile()


def node_without_config(setting: Setting) -> Step:
    retriever = setting.wrapped
    return graph(lambda state: {"documents": retriever.invoke(state.get("query", ""))})


def node_with_config(setting: Setting) -> Step:
    retriever = setting.wrapped

    def retrieve(state: State, config: RunnableConfig) -> dict[str, Any]:
        return {"documents": retriever.invoke(state["query"], config)}

    return graph(retrieve)


def asynchronous_node_without_config(setting: Setting) -> Step:
    retriever = setting.wrapped

    async def retrieve(state: State) -> dict[str, Any]:
        return {"documents": await retriever.ainvoke(state["query"])}

    return graph(retrieve)


def asynchronous_node_with_config(setting: Setting) -> Step:
    retriever = setting.wrapped

    async def retrieve(state: State, config: RunnableConfig) -> dict[str, Any]:
        return {"documents": await retriever.ainvoke(state["query"], config)}

    return graph(retrieve)


def node_of_steps(setting: Setting) -> Step:
    return graph(itemgetter("query") | setting.wrapped | RunnableLambda(lambda found: {"documents": found}))


def in_a_plain_thread(setting: Setting) -> Step:
    retriever = setting.wrapped

    def retrieve(query: str, config: RunnableConfig) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(retriever.invoke, query, config).result()

    return RunnableLambda(retrieve)


def searching(store: InMemoryVectorStore) -> Step:
    return RunnableLambda(
        lambda query: store.similarity_search(query),
        afunc=lambda query: store.asimilarity_search(query),
    )


def calling(retriever: Step) -> Step:
    return RunnableLambda(lambda query: retriever.invoke(query), afunc=lambda query: retriever.ainvoke(query))


def calling_with_config(retriever: Step) -> Step:
    async def call(query: str, config: RunnableConfig) -> Any:
        return await retriever.ainvoke(query, config)

    return RunnableLambda(lambda query, config: retriever.invoke(query, config), afunc=call)


def changeable(setting: Setting) -> Step:
    return setting.store.as_retriever().configurable_fields(search_kwargs=ConfigurableField(id="search"))


THROUGH = RunnableLambda[Any, Any](lambda value: value)
IN_STATE: dict[str, Any] = {"input": lambda query: {"query": query}}

FORMS = {
    "the retriever itself": Form(lambda s: s.wrapped),
    "a custom retriever": Form(lambda s: s.wrap(Custom(store=s.store))),
    "retriever.with_config(…)": Form(lambda s: s.wrapped.with_config(s.config), binds=True),
    "retriever.with_config(…) as a step": Form(lambda s: THROUGH | s.wrapped.with_config(s.config), binds=True),
    "a retriever with its configuration inside": Form(lambda s: s.wrap(s.retriever.with_config(s.config)), binds=True),
    "retriever.with_retry()": Form(
        lambda s: s.wrap(s.retriever.with_retry(stop_after_attempt=1)), frozenset({"invoke", "ainvoke"})
    ),
    "retriever.with_fallbacks(…)": Form(
        lambda s: s.wrapped.with_fallbacks([THROUGH], exceptions_to_handle=(OSError,)), ALL_BUT_BATCH
    ),
    "a changeable retriever": Form(lambda s: s.wrap(changeable(s))),
    "a changeable retriever with its configuration": Form(
        lambda s: s.wrap(changeable(s).with_config(s.config)), binds=True
    ),
    "retriever | function": Form(lambda s: s.wrapped | THROUGH, ALL_BUT_BATCH),
    "function | retriever": Form(lambda s: THROUGH | s.wrapped, ALL_BUT_BATCH),
    "custom retriever | function": Form(lambda s: s.wrap(Custom(store=s.store)) | THROUGH, ALL_BUT_BATCH),
    "{…: retriever} | function": Form(lambda s: {"found": s.wrapped, "query": RunnablePassthrough()} | THROUGH, ALL),
    "({…: retriever} | function).with_config(…)": Form(
        lambda s: (RunnableParallel(found=s.wrapped) | THROUGH).with_config(s.config), ALL, binds=True
    ),
    "assign(…=… | retriever)": Form(
        lambda s: RunnablePassthrough.assign(found=itemgetter("query") | s.wrapped), ALL, **IN_STATE
    ),
    "a branch": Form(lambda s: RunnableBranch((lambda _: True, s.wrapped), THROUGH)),
    "EnsembleRetriever": Form(lambda s: EnsembleRetriever(retrievers=[s.wrapped, s.wrapped], weights=[0.5, 0.5])),
    "a function that searches the store": Form(lambda s: s.wrap(searching(s.store)), ALL),
    "a function that calls the retriever": Form(lambda s: calling(s.wrapped), ALL),
    "a function that calls the retriever with its configuration": Form(lambda s: calling_with_config(s.wrapped), ALL),
    "a tool": Form(lambda s: create_retriever_tool(s.wrapped, "search", "Searches."), ALL),  # type: ignore[arg-type]
    "a LangGraph node": Form(node_without_config, ALL, **IN_STATE),
    "a LangGraph node with config": Form(node_with_config, ALL, **IN_STATE),
    # LangGraph joins a node's steps with its own and enters the configuration for the first only, unless it streams
    "a LangGraph node of steps": Form(node_of_steps, frozenset({"astream_events"}), **IN_STATE),
    "an asynchronous LangGraph node": Form(asynchronous_node_without_config, ALL, ASYNCHRONOUS, **IN_STATE),
    "an asynchronous LangGraph node with config": Form(asynchronous_node_with_config, ALL, ASYNCHRONOUS, **IN_STATE),
    "a thread without the context": Form(in_a_plain_thread, copies_context=False),
}


# The matrix of LangChain

CELLS = pairwise(FORMS, WAYS, ASKED, METHODS, allowed=lambda form, way, name, method: method in FORMS[form].methods)


@pytest.mark.parametrize(("form", "way", "name", "method"), CELLS)
def test_the_tier_asked_for_is_the_tier_of_the_query(world: World, form: str, way: str, name: str, method: str) -> None:
    """Never silently another; one that does not exist is refused before any call."""
    shape, asks = FORMS[form], WAYS[way]
    config = asks.config(name)
    outcomes: dict[str, Any] = {}

    with refusing(outcomes, name), asks.block(name):
        store = InMemoryVectorStore.from_texts(["a"], asks.adapter(world.router(), name))
        step = shape.build(Setting(store, lambda step: asks.wrap(step, name), config))
        inputs = [shape.input(query) for query in queries(method)]
        call(method, step, inputs, None if shape.binds else config)
        outcomes[name] = world.embedded()

    wanted = name if asks.reaches(shape, method) else DEFAULT
    assert outcomes == {name: expected(wanted, queries(method))}
    assert world.embedded("document") <= at("high", "a")


def test_the_cells_of_the_matrix_cover_every_pair() -> None:
    """Of all rows that there could be, each form, way, tier and method meets each of the others."""
    rows = [
        (form, way, name, method)
        for form, way, name in itertools.product(FORMS, WAYS, ASKED)
        for method in FORMS[form].methods
    ]

    assert set(CELLS) <= set(rows)
    assert {pair for row in CELLS for pair in pairs(row)} == {pair for row in rows for pair in pairs(row)}
    assert len(CELLS) < len(rows) / 15


def queries(method: str) -> Sequence[str]:
    """Return one query, or several for a batch."""
    return QUERIES if method in BATCHES else QUERIES[:1]


def expected(name: str, queries: Sequence[str]) -> Any:
    return "refused" if name == UNKNOWN else at(name, *queries)


@pytest.mark.parametrize("way", WAYS)
def test_documents_that_a_chain_adds_keep_their_tier(world: World, way: str) -> None:
    """In every method: they stay in the index for good."""
    asks = WAYS[way]
    store = InMemoryVectorStore(asks.adapter(world.router(), "low"))
    adding = RunnableLambda[str, list[str]](
        lambda text: store.add_texts([text]), afunc=lambda text: store.aadd_texts([text])
    )
    outcomes = {}
    for method in METHODS:
        world.forget()
        with asks.block("low"):
            call(method, asks.wrap(adding, "low") | THROUGH, list(QUERIES), asks.config("low"))
        outcomes[method] = world.embedded("document")

    assert outcomes == dict.fromkeys(METHODS, at("high", *QUERIES))


def test_documents_are_asked_for_by_name(world: World, store: InMemoryVectorStore) -> None:
    """tier(documents=…) outside and a tier for queries inside do not hide each other."""
    with tier(documents="low"):
        adding = RunnableLambda[str, list[str]](lambda text: store.add_texts([text]))
        with_tier(adding, "medium").invoke("c")
        with_tier(searching(store)).invoke("one", asking("low"))

    assert ("low", "c") in world.embedded("document")
    assert world.embedded() == at("low", "one")


def test_the_configuration_of_a_retriever_is_dropped_and_with_tier_picks_it_up(
    world: World, store: InMemoryVectorStore
) -> None:
    """H38: a tier in RunnableConfig is invisible in retriever.invoke(q, config) and in every batch of a sequence."""
    retriever = store.as_retriever()
    retriever.invoke("direct", asking("low"))
    (retriever | THROUGH).batch(["batch"], asking("low"))
    with_tier(retriever).invoke("direct", asking("low"))
    (with_tier(retriever) | THROUGH).batch(["batch"], asking("low"))

    assert world.embedded() == at(DEFAULT, "direct", "batch") | at("low", "direct", "batch")


@pytest.mark.parametrize("method", METHODS)
def test_the_configuration_reaches_a_step_that_calls_a_router_itself(world: World, method: str) -> None:
    """And so does an index of LlamaIndex; neither knows of LangChain."""
    router = world.router()
    index = build(RouterEmbedding(router=router))
    direct: Step = with_tier(RunnableLambda(lambda query: router.embed([f"{query} router"], input_type="query")))
    other: Step = with_tier(RunnableLambda(lambda query: index.as_retriever().retrieve(f"{query} index")))
    for step in (direct, other, calling(direct), calling(other)):
        world.forget()
        call(method, step, ["to the"], asking("low"))

        assert {name for name, _ in world.embedded()} == {"low"}


STEPS: dict[str, Callable[[Step], Step]] = {
    "alone": lambda step: step,
    "in a sequence": lambda step: THROUGH | step | THROUGH,
    "in a dictionary": lambda step: RunnableParallel(found=step),
}


@pytest.mark.parametrize("method", BATCHES)
@pytest.mark.parametrize("around", STEPS)
def test_each_item_of_a_batch_has_its_own_tier(
    world: World, store: InMemoryVectorStore, around: str, method: str
) -> None:
    """A list of configurations, run at the same time."""
    step = STEPS[around](with_tier(store.as_retriever()))
    call(method, step, ["one", "two", "three", "four"], [asking("low"), asking("high"), {}, asking("low")])

    assert world.embedded() == at("low", "one", "four") | at("high", "two") | at(DEFAULT, "three")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_calls_at_the_same_time_do_not_mix_their_tiers(
    world: World, store: InMemoryVectorStore, asynchronous: bool
) -> None:
    """In threads and in tasks."""
    retrievers = {name: with_tier(store.as_retriever(), name) for name in ("low", "medium", "high")}
    wanted = [(name, f"{name} {number}") for number in range(10) for name in retrievers]

    async def gather() -> None:
        await asyncio.gather(*(retrievers[name].ainvoke(query) for name, query in wanted))

    if asynchronous:
        asyncio.run(gather())
    else:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda pair: retrievers[pair[0]].invoke(pair[1]), wanted))

    assert world.embedded() == set(wanted)


@pytest.mark.parametrize("method", METHODS)
def test_the_tier_of_a_retriever_does_not_reach_the_steps_around_it(
    world: World, store: InMemoryVectorStore, method: str
) -> None:
    """Also in a stream, where a step pulls from the one before."""

    def searched(label: str) -> Step:
        def search(query: Any) -> str:
            store.similarity_search(label)
            return "query"

        return RunnableLambda(search)

    def pieces(queries: Iterator[Any]) -> Iterator[str]:
        for _ in queries:
            yield from ("que", searched("while streaming").invoke("")[3:])

    async def apieces(queries: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for _ in queries:
            yield "que"
            yield searched("while streaming").invoke("")[3:]

    streaming = RunnableGenerator[Any, str](pieces, apieces)
    chain = searched("before") | streaming | with_tier(store.as_retriever(), "low") | searched("after")
    call(method, chain, [""])

    assert world.embedded() == at(DEFAULT, "before", "while streaming", "after") | at("low", "query")


# Precedence


class Direct(BaseRetriever):
    """A retriever that calls the router itself when it has a tier of its own."""

    embeddings: RouterEmbeddings
    own: str | None = None

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        if self.own is None:
            self.embeddings.embed_query(query)
        else:
            self.embeddings.router.embed([query], input_type="query", tier=self.own)
        return []

    async def _aget_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        if self.own is None:
            await self.embeddings.aembed_query(query)
        else:
            await self.embeddings.router.aembed([query], input_type="query", tier=self.own)
        return []


NEAREST_FIRST = (
    "router.embed(tier=)",
    "with_tier(retriever, …)",
    "with tier(…)",
    "configurable",
    "RouterEmbeddings.with_tier",
    "the router's query_tier",
)


LOWER_AND_HIGHER = [("low", "high"), ("high", "low")]


@pytest.mark.parametrize(
    ("ways", "method", "tiers"),
    pairwise(list(itertools.combinations(NEAREST_FIRST, 2)), ["invoke", "abatch"], LOWER_AND_HIGHER),
)
def test_of_two_tiers_the_nearer_to_the_call_counts(
    world: World, ways: tuple[str, str], method: str, tiers: tuple[str, str]
) -> None:
    """Every pair of the six ways to ask, whichever of the tiers is higher."""
    near, _ = tiers
    asked = dict(zip(ways, tiers, strict=True))
    embeddings = RouterEmbeddings(world.router(asked.get("the router's query_tier", DEFAULT)))
    if "RouterEmbeddings.with_tier" in asked:
        embeddings = embeddings.with_tier(asked["RouterEmbeddings.with_tier"])
    retriever = Direct(embeddings=embeddings, own=asked.get("router.embed(tier=)"))
    step = with_tier(retriever, asked.get("with_tier(retriever, …)"))
    config = asking(asked["configurable"]) if "configurable" in asked else None
    with tier(asked["with tier(…)"]) if "with tier(…)" in asked else nullcontext():
        call(method, step, list(QUERIES), config)

    assert world.embedded() == at(near, *QUERIES)


def within(name: str, inner: Step) -> Step:
    """Return a step that asks for a tier itself, around another one."""

    def call(query: str) -> Any:
        with tier(name):
            return inner.invoke(query)

    return RunnableLambda(call)


NESTED: dict[str, tuple[Callable[[Step], Step], str]] = {
    "a fixed tier inside a fixed one": (lambda step: with_tier(with_tier(step, "low"), "high"), "low"),
    "a fixed tier inside a block": (lambda step: within("high", with_tier(step, "low")), "low"),
    "a block inside a fixed tier": (lambda step: with_tier(within("low", step), "high"), "low"),
    "a reader inside a fixed tier": (lambda step: with_tier(with_tier(step), "low"), "low"),
    "a fixed tier inside a reader": (lambda step: with_tier(with_tier(step, "low")), "low"),
    "a reader inside a reader": (lambda step: with_tier(with_tier(step)), "high"),
    "another configuration inside a reader, which is asked at one tier": (
        lambda step: with_tier(RunnableLambda(lambda query: with_tier(step).invoke(query, asking("low")))),
        "high",
    ),
    "a call's configuration over a bound one": (
        lambda step: with_tier(step.with_config(configurable={"embedding_tier": "low"})),
        "high",
    ),
}


@pytest.mark.parametrize("nesting", NESTED)
def test_of_nested_tiers_the_inner_one_counts(world: World, store: InMemoryVectorStore, nesting: str) -> None:
    """As with blocks in blocks; the configuration of the call says high throughout."""
    build, expected = NESTED[nesting]
    build(store.as_retriever()).invoke("one", asking("high"))

    assert world.embedded() == at(expected, "one")


# Streams


@dataclass
class Chunks(Runnable[str, str]):
    """Streams the tier that surrounds each of its steps."""

    open: list[object] = field(default_factory=list)
    """The streams, so that it is not the garbage collector that ends them."""
    ended: list[str] = field(default_factory=list)

    def invoke(self, input: str, config: RunnableConfig | None = None, **_: Any) -> str:
        return str(requested("query"))

    def stream(self, input: str, config: RunnableConfig | None = None, **_: Any) -> Iterator[str]:
        def chunks() -> Iterator[str]:
            try:
                for _ in range(3):
                    yield str(requested("query"))
            finally:
                self.ended.append("stream")

        self.open.append(made := chunks())
        return made

    def astream(self, input: str, config: RunnableConfig | None = None, **_: Any) -> AsyncIterator[str]:
        async def chunks() -> AsyncIterator[str]:
            try:
                for _ in range(3):
                    await asyncio.sleep(0)
                    yield str(requested("query"))
            finally:
                self.ended.append("astream")

        self.open.append(made := chunks())
        return made


class Eager(Chunks):
    """Has its chunks ready before the first is asked for, and nothing to close."""

    def stream(self, input: str, config: RunnableConfig | None = None, **_: Any) -> Iterator[str]:
        return iter([str(requested("query"))] * 3)

    def astream(self, input: str, config: RunnableConfig | None = None, **_: Any) -> AsyncIterator[str]:
        asked_for = str(requested("query"))

        class Ready:
            left = 3

            def __aiter__(self) -> AsyncIterator[str]:
                return self

            async def __anext__(self) -> str:
                self.left -= 1
                if self.left < 0:
                    raise StopAsyncIteration
                return asked_for

        return Ready()


READERS: dict[str, Step] = {
    "fixed": with_tier(Chunks(), "low"),
    "from the configuration": with_tier(Chunks()).with_config(asking("low")),
    "fixed, with chunks that are ready": with_tier(Eager(), "low"),
}


@pytest.mark.parametrize("asks", READERS)
def test_a_stream_keeps_its_tier_to_itself(asks: str) -> None:
    """Between two chunks the consumer runs in the same context, with its own tier."""
    asked_for = []
    with tier("medium") if "fixed" in asks else nullcontext():
        outside = requested("query")
        for chunk in READERS[asks].stream("q"):
            asked_for.append(chunk)
            assert requested("query") == outside

    assert asked_for == ["low"] * 3
    assert requested("query") is None


@pytest.mark.parametrize("asks", READERS)
async def test_an_asynchronous_stream_keeps_its_tier_to_itself(asks: str) -> None:
    """Between two chunks the consumer runs in the same context, with its own tier."""
    asked_for = []
    with tier("medium") if "fixed" in asks else nullcontext():
        outside = requested("query")
        async for chunk in READERS[asks].astream("q"):
            asked_for.append(chunk)
            assert requested("query") == outside

    assert asked_for == ["low"] * 3
    assert requested("query") is None


async def test_each_step_of_a_stream_may_run_in_another_context() -> None:
    """Web servers pull chunks from changing threads and tasks; a variable is reset where it was set."""
    chunks = READERS["fixed"].stream("q")
    achunks = READERS["fixed"].astream("q")

    async def pulled() -> str:
        return str(await anext(achunks))

    assert [copy_context().run(next, chunks, None) for _ in range(4)] == ["low", "low", "low", None]
    assert [await asyncio.create_task(pulled()) for _ in range(3)] == ["low", "low", "low"]
    with pytest.raises(StopAsyncIteration):
        await anext(achunks)


async def test_two_streams_that_take_turns_do_not_mix() -> None:
    """One consumer, one context."""
    low, high = with_tier(Chunks(), "low"), with_tier(Chunks(), "high")

    assert list(zip(low.stream("q"), high.stream("q"), strict=True)) == [("low", "high")] * 3
    ahigh = high.astream("q")
    assert [(chunk, await anext(ahigh)) async for chunk in low.astream("q")] == [("low", "high")] * 3


async def test_a_stream_that_is_left_early_ends_inside() -> None:
    """What the wrapped one holds open is closed then, not at some later time."""
    inside = Chunks()
    with closing(with_tier(inside, "low").stream("q")) as chunks:  # type: ignore[type-var]
        next(chunks)
    assert inside.ended == ["stream"]

    async with aclosing(with_tier(inside, "low").astream("q")) as achunks:  # type: ignore[type-var]
        await anext(achunks)
    assert inside.ended == ["stream", "astream"]


def test_a_chain_streams_through() -> None:
    """Chunk by chunk, not gathered."""
    assert list((THROUGH | with_tier(Chunks(), "low") | RunnablePassthrough()).stream("q")) == ["low"] * 3


# A good citizen


class Trace(BaseCallbackHandler):
    """Writes down each run with its parent, tags and metadata."""

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}
        self.runs: list[tuple[Any, ...]] = []

    def _start(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **more: Any) -> None:
        self.names[run_id] = more["name"]
        parent = self.names[parent_run_id] if parent_run_id else None
        self.runs.append((more["name"], parent, sorted(more["tags"]), more["metadata"]))

    on_chain_start = on_retriever_start = _start


TRACED: dict[str, Callable[[Step], Step]] = {
    **STEPS,
    "in a LangGraph": lambda step: (
        RunnableLambda(lambda query: {"query": query})
        | graph(itemgetter("query") | step | RunnableLambda(lambda found: {"documents": found}))
    ),
    "with a name": lambda step: THROUGH | step.with_config(run_name="look up", tags=["mine"], metadata={"my": 1}),
}


@pytest.mark.parametrize(
    ("around", "method", "fixed"),
    pairwise(TRACED, ["invoke", "batch", "stream", "ainvoke", "abatch", "astream"], [None, DEFAULT]),
)
def test_traces_look_as_they_did_without_the_wrapper(
    store: InMemoryVectorStore, around: str, method: str, fixed: str | None
) -> None:
    """The same runs under the same parents, with names, tags and metadata; the embedding is one more."""
    traces = []
    for step in (store.as_retriever(), with_tier(store.as_retriever(), fixed)):
        trace = Trace()
        config = {"callbacks": [trace], "tags": ["chain"], "configurable": {"embedding_tier": DEFAULT}}
        call(method, TRACED[around](step), ["query"], config)
        others = [run for run in trace.runs if run[0] != "RouterEmbeddings"]
        traces.append([(name, parent, tags, _stable(metadata)) for name, parent, tags, metadata in others])

    assert any(name in ("VectorStoreRetriever", "look up") for name, *_ in traces[0])
    assert traces[1] == traces[0]


def _stable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Leave out what LangGraph draws anew for each run."""
    return {key: value for key, value in metadata.items() if "checkpoint_ns" not in key}


def test_it_describes_itself_as_what_it_wraps(store: InMemoryVectorStore) -> None:
    """Names, types, schemas and the drawing."""
    retriever = store.as_retriever()
    step = with_tier(retriever)

    assert step.get_name() == "VectorStoreRetriever"
    assert (step.InputType, step.OutputType) == (retriever.InputType, retriever.OutputType)
    assert step.get_input_jsonschema() == retriever.get_input_jsonschema()
    assert step.get_output_jsonschema() == retriever.get_output_jsonschema()
    assert (THROUGH | step).get_graph().draw_mermaid() == (THROUGH | retriever).get_graph().draw_mermaid()
    assert repr(with_tier(retriever, "low")) == f"with_tier({retriever!r}, 'low')"


def test_it_tells_that_a_tier_can_be_configured(store: InMemoryVectorStore) -> None:
    """So that a chain's config schema shows it; not where the tier is fixed."""
    retriever = store.as_retriever()
    both = RunnableParallel(one=with_tier(retriever), two=THROUGH | with_tier(with_tier(retriever)))

    assert [spec.id for spec in both.config_specs] == ["embedding_tier"]
    assert with_tier(retriever, "low").config_specs == []


@pytest.mark.parametrize("name", [None, "low"])
def test_it_travels_to_another_process(store: InMemoryVectorStore, name: str | None) -> None:
    """With its tier."""
    copy = pickle.loads(pickle.dumps(with_tier(store.as_retriever(), name)))
    copy.invoke("one", asking("low"))

    assert copy.bound.vectorstore.embeddings.router.usage.cost == Decimal("0.000001"), "one word at a dollar a million"


def test_what_is_not_a_runnable_is_refused(store: InMemoryVectorStore) -> None:
    """When it is wrapped, with a way out."""
    with pytest.raises(ConfigError, match=r"not InMemoryVectorStore.*store\.as_retriever\(\)"):
        with_tier(store)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"not RouterEmbeddings.*method with_tier"):
        with_tier(store.embeddings)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"not function.*RunnableLambda"):
        with_tier(lambda query: store.similarity_search(query))  # type: ignore[call-overload]


# LlamaIndex

LLAMA_WAYS: dict[str, tuple[Callable[[Router, str], RouterEmbedding], Callable[[str], Any], bool]] = {
    "none": (lambda router, _: RouterEmbedding(router=router), lambda _: nullcontext(), False),
    "query_tier=": (
        lambda router, name: RouterEmbedding(router=router, query_tier=name),
        lambda _: nullcontext(),
        True,
    ),
    "RouterEmbedding.with_tier": (
        lambda router, name: RouterEmbedding(router=router).with_tier(name),
        lambda _: nullcontext(),
        True,
    ),
    "with tier(…)": (lambda router, _: RouterEmbedding(router=router), tier, True),
}


def engine(index: VectorStoreIndex) -> RetrieverQueryEngine:
    return RetrieverQueryEngine(index.as_retriever(), response_synthesizer=NoText(llm=MockLLM()))


def fusion(index: VectorStoreIndex, *, use_async: bool) -> QueryFusionRetriever:
    return QueryFusionRetriever([index.as_retriever()], llm=MockLLM(), num_queries=1, use_async=use_async)


LLAMA_CALLS: dict[str, Callable[[VectorStoreIndex], Any]] = {
    "retriever.retrieve": lambda index: [index.as_retriever().retrieve(query) for query in QUERIES],
    "retriever.aretrieve": lambda index: asyncio.gather(*(index.as_retriever().aretrieve(query) for query in QUERIES)),
    "query_engine.query": lambda index: [engine(index).query(query) for query in QUERIES],
    "query_engine.aquery": lambda index: asyncio.gather(*(engine(index).aquery(query) for query in QUERIES)),
    "QueryFusionRetriever.retrieve": lambda index: [
        fusion(index, use_async=False).retrieve(query) for query in QUERIES
    ],
    "QueryFusionRetriever(use_async=True).retrieve": lambda index: [
        fusion(index, use_async=True).retrieve(query) for query in QUERIES
    ],
    "QueryFusionRetriever.aretrieve": lambda index: asyncio.gather(
        *(fusion(index, use_async=True).aretrieve(query) for query in QUERIES)
    ),
}


def build(adapter: RouterEmbedding, *, use_async: bool = False) -> VectorStoreIndex:
    return VectorStoreIndex([TextNode(text="a"), TextNode(text="b")], embed_model=adapter, use_async=use_async)


@pytest.mark.parametrize(("form", "way", "name", "running"), pairwise(LLAMA_CALLS, LLAMA_WAYS, ASKED, [False, True]))
def test_llama_index_embeds_the_query_at_the_tier_asked_for(
    world: World, form: str, way: str, name: str, running: bool
) -> None:
    """Also inside a running loop, as in a notebook, and never silently another. Documents keep their tier."""
    adapter, block, reaches = LLAMA_WAYS[way]
    outcomes: dict[str, Any] = {}

    async def awaited() -> None:
        outcome = LLAMA_CALLS[form](index)
        if isinstance(outcome, Awaitable):
            await outcome

    with refusing(outcomes, name):
        index = build(adapter(world.router(), name))
        with block(name):
            if running or form.split(".")[-1].startswith("a"):
                asyncio.run(awaited())
            else:
                LLAMA_CALLS[form](index)
        outcomes[name] = world.embedded()

    assert outcomes == {name: expected(name if reaches else DEFAULT, QUERIES)}
    assert world.embedded("document") <= at("high", "a", "b")


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("way", LLAMA_WAYS)
def test_an_index_is_built_at_the_documents_tier(world: World, way: str, use_async: bool) -> None:
    """Whichever tier queries ask for around it."""
    adapter, block, _ = LLAMA_WAYS[way]
    with block("low"):
        build(adapter(world.router(), "low"), use_async=use_async).insert_nodes([TextNode(text="c")])

    assert world.embedded("document") == at("high", "a", "b", "c")
    assert world.embedded() == set()


LLAMA_NEAREST_FIRST = ("router.embed(tier=)", "with tier(…)", "RouterEmbedding.with_tier", "the router's query_tier")


@pytest.mark.parametrize(("near", "far"), [("low", "high"), ("high", "low")])
@pytest.mark.parametrize(("nearer", "farther"), list(itertools.combinations(LLAMA_NEAREST_FIRST, 2)))
def test_in_llama_index_too_the_nearer_tier_counts(
    world: World, nearer: str, farther: str, near: str, far: str
) -> None:
    """Every pair, whichever of the tiers is higher."""
    asked = {nearer: near, farther: far}
    adapter = RouterEmbedding(router=world.router(asked.get("the router's query_tier", DEFAULT)))
    if "RouterEmbedding.with_tier" in asked:
        adapter = adapter.with_tier(asked["RouterEmbedding.with_tier"])
    with tier(asked["with tier(…)"]) if "with tier(…)" in asked else nullcontext():
        if "router.embed(tier=)" in asked:
            adapter.router.embed(["one"], input_type="query", tier=asked["router.embed(tier=)"])
        else:
            build(adapter).as_retriever().retrieve("one")

    assert world.embedded() == at(near, "one")
