"""The tier of a query in LangGraph: from ``context=`` and ``configurable``, in nodes, tools, tasks and stores.

    a place in a graph where a query is embedded × a form of the context × a method

Three backends of one space have a tier each, so the requests that they got show the tier of each query.
"""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from operator import add, itemgetter
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import create_retriever_tool, tool
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_store
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, ToolRuntime, create_react_agent
from langgraph.runtime import Runtime, get_runtime
from langgraph.store.base import BaseStore, GetOp, Op, Result, SearchOp
from langgraph.store.memory import InMemoryStore
from langgraph.store.sqlite import SqliteStore
from langgraph.store.sqlite.aio import AsyncSqliteStore
from langgraph.types import Send
from pydantic import BaseModel

from embedrouter import Router, TieredRouter, tag, tier
from embedrouter.errors import ConfigError
from embedrouter.langchain import RouterEmbeddings, TieredRetriever, with_tier
from embedrouter.testing import FakeBackend
from tests.pairwise import pairwise
from tests.tier_backends import TierBackends

DEFAULT = "medium"
"""The tier of queries that ask for none. Documents have the highest."""

Step = Runnable[Any, Any]


class World(TierBackends):
    """A router over three backends, one for each tier, and a vector store."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router(self.models(), cache=None, ledger=":memory:", query_tier=DEFAULT)
        self.embeddings = RouterEmbeddings(self.router)
        self.store = InMemoryVectorStore.from_texts(["a", "b"], self.embeddings)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.router.close()


# Contexts


@dataclass
class Settings:
    embedding_tier: str | None = None
    user: str = "u"


class Checked(BaseModel):
    embedding_tier: str | None = None


class Table(TypedDict, total=False):
    embedding_tier: str
    user: str


CONTEXTS: dict[str, tuple[Any, Callable[[str], Any]]] = {
    "a dictionary": (None, lambda name: {"embedding_tier": name}),
    "a TypedDict": (Table, lambda name: Table(embedding_tier=name, user="u")),
    "a dataclass": (Settings, Settings),
    "a dictionary for a dataclass": (Settings, lambda name: {"embedding_tier": name}),
    "a pydantic model": (Checked, lambda name: Checked(embedding_tier=name)),
    "any object": (None, lambda name: SimpleNamespace(embedding_tier=name)),
}
ASKING_NOTHING: dict[str, tuple[Any, Any]] = {
    "no context": (None, None),
    "a text": (None, "high"),
    "a dictionary without the field": (None, {"user": "u"}),
    "a dataclass whose field is None": (Settings, Settings()),
    "an object without the field": (None, object()),
}


# Places


class State(TypedDict):
    query: str
    found: Annotated[list[Any], add]


def graph(node: Any, schema: Any, state: Any = State, **compiled: Any) -> Step:
    """Return a graph of one node."""
    builder = StateGraph(state, context_schema=schema)
    builder.add_node("node", node)
    builder.add_edge(START, "node")
    builder.add_edge("node", END)
    return builder.compile(**compiled)


def both(sync: Callable[..., Any], of_loop: Callable[..., Awaitable[Any]]) -> Step:
    """Return a node of both forms."""
    return RunnableLambda(sync, afunc=of_loop)


def calling(retriever: Step) -> Step:
    def call(state: State) -> dict[str, Any]:
        return {"found": retriever.invoke(state["query"])}

    async def acall(state: State) -> dict[str, Any]:
        return {"found": await retriever.ainvoke(state["query"])}

    return both(call, acall)


def a_node(world: World, schema: Any) -> Step:
    return graph(calling(world.store.as_retriever()), schema)


def a_node_of_a_wrapped_retriever(world: World, schema: Any) -> Step:
    return graph(calling(with_tier(world.store.as_retriever())), schema)


def a_node_of_steps(world: World, schema: Any) -> Step:
    steps = itemgetter("query") | with_tier(world.store.as_retriever()) | RunnableLambda(lambda found: {"found": found})
    return graph(steps, schema)


def a_node_with_its_runtime(world: World, schema: Any) -> Step:
    def search(state: State, runtime: Runtime[Any]) -> dict[str, Any]:
        assert runtime.context is get_runtime().context
        return {"found": world.store.similarity_search(state["query"])}

    return graph(search, schema)


def a_thread_of_a_node(world: World, schema: Any) -> Step:
    retriever = with_tier(world.store.as_retriever())

    def search(state: State, config: RunnableConfig) -> dict[str, Any]:
        with ThreadPoolExecutor(1) as pool:
            return {"found": pool.submit(retriever.invoke, state["query"], config).result()}

    return graph(search, schema)


def a_node_with_a_configuration_of_its_own(world: World, schema: Any) -> Step:
    retriever = with_tier(world.store.as_retriever())
    return graph(calling(retriever.with_config(configurable={"another": 1}, tags=["own"])), schema)


def a_node_that_embeds(world: World, schema: Any) -> Step:
    async def aembed(state: State) -> dict[str, Any]:
        return {"found": await world.embeddings.aembed_query(state["query"])}

    return graph(both(lambda state: {"found": world.embeddings.embed_query(state["query"])}, aembed), schema)


def called(name: str) -> Any:
    def call(state: State) -> dict[str, Any]:
        return {"messages": [AIMessage("", tool_calls=[{"name": name, "args": {"query": state["query"]}, "id": "1"}])]}

    return call


class Talk(MessagesState):
    query: str


def with_tools(tool: Any, schema: Any, **compiled: Any) -> Step:
    builder = StateGraph(Talk, context_schema=schema)
    builder.add_node("ask", called(tool.name))
    builder.add_node("tools", ToolNode([tool]))
    builder.add_edge(START, "ask")
    builder.add_edge("ask", "tools")
    return builder.compile(**compiled)


def a_tool(world: World, schema: Any) -> Step:
    return with_tools(create_retriever_tool(world.store.as_retriever(), "search", "Searches."), schema)


def a_tool_of_a_wrapped_retriever(world: World, schema: Any) -> Step:
    return with_tools(create_retriever_tool(with_tier(world.store.as_retriever()), "search", "Searches."), schema)


def a_tool_with_its_runtime(world: World, schema: Any) -> Step:
    @tool
    def search(query: str, runtime: ToolRuntime[Any, Any]) -> str:
        """Search."""
        return str(with_tier(world.store.as_retriever()).invoke(query, runtime.config))

    return with_tools(search, schema)


class Calling(GenericFakeChatModel):
    """A chat model that calls its tool with the question, and then answers."""

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self


def an_agent(world: World, schema: Any) -> Step:
    search = create_retriever_tool(world.store.as_retriever(), "search", "Searches.")

    def run(state: State) -> Any:
        replies = iter([called("search")(state)["messages"][0], AIMessage("done")])
        with pytest.warns(match="create_react_agent has been moved"):
            return create_react_agent(Calling(messages=replies), [search], context_schema=schema)

    async def arun(state: State) -> dict[str, Any]:
        return {"found": (await run(state).ainvoke({"messages": [("user", "?")]}))["messages"]}

    return graph(
        both(lambda state: {"found": run(state).invoke({"messages": [("user", "?")]})["messages"]}, arun), schema
    )


def a_subgraph(world: World, schema: Any) -> Step:
    return graph(a_node(world, schema), schema)


def a_subgraph_that_a_node_calls(world: World, schema: Any) -> Step:
    inner = a_node(world, None)

    async def acall(state: State) -> Any:
        return await inner.ainvoke({"query": state["query"]})

    return graph(both(lambda state: inner.invoke({"query": state["query"]}), acall), schema)


def parts(world: World, schema: Any, ways: int) -> Any:
    builder: Any = StateGraph(State, context_schema=schema)
    for number in range(ways):
        builder.add_node(f"part {number}", calling(world.store.as_retriever()))
        builder.add_edge(f"part {number}", END)
    return builder


def nodes_at_the_same_time(world: World, schema: Any) -> Step:
    builder = parts(world, schema, 3)
    for number in range(3):
        builder.add_edge(START, f"part {number}")
    return builder.compile()


def sent_parts(world: World, schema: Any) -> Step:
    builder = parts(world, schema, 1)
    builder.add_conditional_edges(START, lambda state: [Send("part 0", {"query": state["query"]})] * 2)
    return builder.compile()


def a_task(world: World, schema: Any) -> Step:
    retriever = world.store.as_retriever()

    @task
    def search(query: str) -> list[Document]:
        return retriever.invoke(query)

    @entrypoint(context_schema=schema)
    def run(state: State) -> list[Document]:
        return search(state["query"]).result() + search(state["query"]).result()

    return run


def an_asynchronous_task(world: World, schema: Any) -> Step:
    retriever = with_tier(world.store.as_retriever())

    @task
    async def search(query: str) -> list[Document]:
        return await retriever.ainvoke(query)

    @entrypoint(context_schema=schema, checkpointer=InMemorySaver())
    async def run(state: State) -> list[Document]:
        return await search(state["query"])

    return run.with_config(configurable={"thread_id": "1"})


def a_store_of_the_graph(world: World, schema: Any) -> Step:
    store = with_tier(InMemoryStore(index={"dims": 8, "embed": world.embeddings}))
    assert isinstance(store, BaseStore)

    def search(state: State) -> dict[str, Any]:
        return {"found": get_store().search((), query=state["query"])}

    async def asearch(state: State) -> dict[str, Any]:
        return {"found": await get_store().asearch((), query=state["query"])}

    store.put(("a",), "1", {"text": "a"})
    return graph(both(search, asearch), schema, store=store)


def a_store_in_a_tool(world: World, schema: Any) -> Step:
    @tool
    def search(query: str, runtime: ToolRuntime[Any, Any]) -> str:
        """Search."""
        assert runtime.store is not None
        return str(runtime.store.search((), query=query))

    store = with_tier(InMemoryStore(index={"dims": 8, "embed": world.embeddings}))
    return with_tools(search, schema, store=store)


PLACES: dict[str, Callable[[World, Any], Step]] = {
    place.__name__.replace("_", " "): place
    for place in (
        a_node, a_node_of_a_wrapped_retriever, a_node_of_steps, a_node_with_its_runtime, a_thread_of_a_node,
        a_node_with_a_configuration_of_its_own, a_node_that_embeds, a_tool, a_tool_of_a_wrapped_retriever,
        a_tool_with_its_runtime, an_agent, a_subgraph, a_subgraph_that_a_node_calls, nodes_at_the_same_time, sent_parts,
        a_task, an_asynchronous_task, a_store_of_the_graph, a_store_in_a_tool,
    )
}  # fmt: skip


async def _astream(step: Step, state: Any, config: Any, context: Any) -> None:
    async for _ in step.astream(state, config, context=context):
        pass


Method = Callable[[Step, Any, Any, Any], Any]
METHODS: dict[str, Method] = {
    "invoke": lambda step, state, config, context: step.invoke(state, config, context=context),
    "stream": lambda step, state, config, context: list(step.stream(state, config, context=context)),
    "abatch": lambda step, state, config, context: step.abatch([state, state], config, context=context),
    "astream": _astream,
}
ASYNCHRONOUS = ("abatch", "astream")


def call(method: str, step: Step, context: Any, config: RunnableConfig | None = None) -> None:
    async def awaited() -> None:
        await METHODS[method](step, {"query": "one"}, config, context)

    if method in ASYNCHRONOUS:
        asyncio.run(awaited())
    else:
        METHODS[method](step, {"query": "one"}, config, context)


def fits(place: str, method: str) -> bool:
    return place != "an asynchronous task" or method in ASYNCHRONOUS


def usual(place: str, context: str) -> bool:
    """Return whether a context is tried in a place: all in a few, two everywhere."""
    return context in ("a dictionary", "a dataclass") or place in ("a node", "a thread of a node", "a tool")


@pytest.mark.parametrize(
    ("place", "context", "method"),
    pairwise(
        PLACES, CONTEXTS, METHODS, allowed=lambda place, context, method: fits(place, method) and usual(place, context)
    ),
)
def test_the_context_of_a_graph_asks_for_the_tier(world: World, place: str, context: str, method: str) -> None:
    """Wherever in the graph the query is embedded, and whatever the context is made of."""
    schema, asking = CONTEXTS[context]
    call(method, PLACES[place](world, schema), asking("low"))

    assert world.embedded() == {("low", "one")}


@pytest.mark.parametrize("place", PLACES)
def test_configurable_counts_before_the_context(world: World, place: str) -> None:
    """``configurable`` may belong to one step or one call; the context is that of a whole run."""
    method = "invoke" if fits(place, "invoke") else "abatch"
    config: RunnableConfig = {"configurable": {"embedding_tier": "high"}}
    call(method, PLACES[place](world, None), {"embedding_tier": "low"}, config)

    assert world.embedded() == {("high", "one")}


@pytest.mark.parametrize("place", ["a node", "a node of a wrapped retriever", "a store of the graph"])
@pytest.mark.parametrize("context", ASKING_NOTHING)
def test_a_context_that_asks_for_nothing_is_no_error(world: World, context: str, place: str) -> None:
    schema, value = ASKING_NOTHING[context]
    call("invoke", PLACES[place](world, schema), value)

    assert world.embedded() == {(DEFAULT, "one")}


@pytest.mark.parametrize("place", ["a node", "a node of a wrapped retriever", "a store of the graph"])
@pytest.mark.parametrize("value", ["best", 3, ""])
def test_a_wrong_tier_in_a_context_is_the_routers_error(world: World, place: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"Unknown tier .*low, medium, high"):
        call("invoke", PLACES[place](world, None), {"embedding_tier": value})

    assert world.embedded() == set()


def test_the_nearest_of_the_block_the_context_and_the_adapter_counts(world: World) -> None:
    store = InMemoryVectorStore.from_texts(["a"], world.embeddings.with_tier("high"))
    app = graph(calling(store.as_retriever()), None)
    app.invoke({"query": "adapter"})
    app.invoke({"query": "context"}, context={"embedding_tier": "low"})
    with tier("medium"):
        app.invoke({"query": "block"}, context={"embedding_tier": "low"})

    assert world.embedded() == {("high", "adapter"), ("low", "context"), ("medium", "block")}


def test_the_context_of_the_inner_graph_is_nearer(world: World) -> None:
    inner = a_node(world, None)
    outer = graph(lambda state: inner.invoke({"query": "one"}, context={"embedding_tier": "low"}), None)
    outer.invoke({"query": "one"}, context={"embedding_tier": "high"})

    assert world.embedded() == {("low", "one")}


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_tiered_retriever_reads_the_context(wrapped: bool, asynchronous: bool) -> None:
    """Also in a step with a configuration of its own, which replaces the graph's."""
    routers = {name: Router([FakeBackend(space=name).model(f"fake:{name}")], cache=None) for name in ("low", "high")}
    retriever = TieredRetriever.from_router(TieredRouter(routers))
    await retriever.aadd_texts(["a"])
    step = with_tier(retriever) if wrapped else retriever
    by_context: dict[str, Any] = {"context": {"embedding_tier": "low"}}
    by_config: dict[str, Any] = {"config": {"configurable": {"embedding_tier": "low"}}}
    for inner in (step, step.with_config(configurable={"another": 1})):
        app = graph(calling(inner), None)
        for asked in (by_context, by_config):
            made = await app.ainvoke({"query": "q"}, **asked) if asynchronous else app.invoke({"query": "q"}, **asked)
            assert [found.metadata["embedding_tier"] for found in made["found"]] == ["low"]


@pytest.mark.slow
def test_langgraph_is_not_imported() -> None:
    """By embedding, by chains and by with_tier()."""
    code = (
        "import sys; from langchain_core.vectorstores import InMemoryVectorStore; from embedrouter import Router; "
        "from embedrouter.testing import FakeBackend; from embedrouter.langchain import RouterEmbeddings, with_tier; "
        "store = InMemoryVectorStore(RouterEmbeddings(Router([FakeBackend().model()], cache=None))); "
        "with_tier(store.as_retriever()).invoke('q', {'configurable': {'embedding_tier': 'high'}}); "
        "assert not [name for name in sys.modules if name.startswith('langgraph')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Stores


class Elsewhere(BaseStore):
    """A store of another maker, which embeds in a task of its own, and queries as documents, as SQL stores do."""

    def __init__(self, embeddings: RouterEmbeddings) -> None:
        self.inner = InMemoryStore(index={"dims": 8, "embed": AsDocuments(embeddings), "fields": ["text"]})
        self.ops: asyncio.Queue[tuple[list[Op], asyncio.Future[list[Result]]]] = asyncio.Queue()

    async def work(self) -> None:
        while True:
            ops, future = await self.ops.get()
            future.set_result(await self.inner.abatch(ops))

    def batch(self, ops: Any) -> list[Result]:
        return self.inner.batch(ops)

    async def abatch(self, ops: Any) -> list[Result]:
        future = asyncio.get_running_loop().create_future()
        self.ops.put_nowait((list(ops), future))
        result: list[Result] = await future
        return result


class AsDocuments(Embeddings):
    """Embeds queries as documents."""

    def __init__(self, embeddings: RouterEmbeddings) -> None:
        self.embed_documents = embeddings.embed_documents  # type: ignore[method-assign]
        self.aembed_documents = embeddings.aembed_documents  # type: ignore[method-assign]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise NotImplementedError

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]


without_extensions = not hasattr(sqlite3.Connection, "enable_load_extension")
sqlite = pytest.param(
    "sqlite", marks=pytest.mark.skipif(without_extensions, reason="this Python's SQLite loads no extensions")
)


@contextmanager
def opened(kind: str, embeddings: RouterEmbeddings) -> Iterator[BaseStore]:
    index: Any = {"dims": 8, "embed": embeddings, "fields": ["text"]}
    if kind == "memory":
        yield InMemoryStore(index=index)
    elif kind == "elsewhere":
        yield Elsewhere(embeddings)
    else:
        with SqliteStore.from_conn_string(":memory:", index=index) as store:
            store.setup()
            yield store


@asynccontextmanager
async def aopened(kind: str, embeddings: RouterEmbeddings) -> AsyncIterator[BaseStore]:
    index: Any = {"dims": 8, "embed": embeddings, "fields": ["text"]}
    if kind == "memory":
        yield InMemoryStore(index=index)
    elif kind == "elsewhere":
        store = Elsewhere(embeddings)
        working = asyncio.create_task(store.work())
        yield store
        working.cancel()
    else:
        async with AsyncSqliteStore.from_conn_string(":memory:", index=index) as made:
            await made.setup()
            yield made


@pytest.mark.parametrize("kind", ["memory", "elsewhere", sqlite])
def test_a_wrapped_store_embeds_at_the_tier_and_tag_of_its_caller(world: World, kind: str) -> None:
    """InMemoryStore searches in threads without the context, SqliteStore embeds queries as documents."""
    with opened(kind, world.embeddings) as plain:
        store = with_tier(plain)
        assert isinstance(store, BaseStore)
        with tier(documents="low"), tag("filling"):
            store.put(("a",), "1", {"text": "a text"}, index=["text"])
        with tier("low"), tag("searching"):
            [found] = store.search(("a",), query="one")
            several = store.batch([SearchOp(("a",), query="two"), SearchOp(("a",)), GetOp(("a",), "1")])
        store.search(("a",), query="three")
        with_tier(store, "high").search(("a",), query="four")

        assert found.value == {"text": "a text"}
        assert len(several) == 3
        assert store.get(("a",), "1") == several[2]
    assert world.embedded("document") == {("high", "a"), ("high", "b"), ("low", "a text")}
    assert world.embedded() == {("low", "one"), ("low", "two"), (DEFAULT, "three"), ("high", "four")}
    assert {name: account.requests for name, account in world.router.ledger.totals("tag").items() if name} == {
        "filling": 1,
        "searching": 2,
    }


@pytest.mark.parametrize("kind", ["memory", "elsewhere", sqlite])
async def test_a_wrapped_store_does_so_asynchronously(world: World, kind: str) -> None:
    """Calls at the same time do not mix; AsyncSqliteStore collects them in a task without the context."""
    async with aopened(kind, world.embeddings) as plain:
        store = with_tier(plain)
        await store.aput(("a",), "1", {"text": "a text"})

        async def search(name: str) -> None:
            with tier(name):
                assert len(await store.asearch(("a",), query=name)) == 1

        async with asyncio.TaskGroup() as group:
            for name in ("low", "medium", "high"):
                group.create_task(search(name))
        with tier("low"):
            await store.abatch([SearchOp(("a",), query="one"), SearchOp(("a",), query="two")])

    assert world.embedded() == {(name, name) for name in world.backends} | {("low", "one"), ("low", "two")}


@pytest.mark.skipif(without_extensions, reason="this Python's SQLite loads no extensions")
async def test_a_synchronous_search_of_an_asynchronous_store(world: World) -> None:
    """From another thread, which has the tier; in the store's own loop it is refused as ever."""
    async with aopened("sqlite", world.embeddings) as plain:
        store = with_tier(plain)
        with tier("low"):
            await asyncio.to_thread(store.search, ("a",), query="one")
        with pytest.raises(asyncio.InvalidStateError):
            store.search(("a",), query="two")

    assert world.embedded() == {("low", "one")}


@pytest.mark.parametrize("kind", ["memory", "elsewhere", sqlite])
@pytest.mark.parametrize("form", ["invoke", "abatch"])
def test_a_store_in_nodes_and_tools_reads_what_the_run_asks_for(world: World, kind: str, form: str) -> None:
    """From ``configurable`` and from the context, in a node and in a tool."""

    @tool
    def search(query: str, runtime: ToolRuntime[Any, Any]) -> str:
        """Search."""
        assert runtime.store is not None
        return str(runtime.store.search(("a",), query=query))

    with opened(kind, world.embeddings) as plain:
        for app in (
            graph(lambda state: {"found": get_store().search((), query=state["query"])}, None, store=with_tier(plain)),
            with_tools(search, None, store=with_tier(plain)),
        ):
            call(form, app, {"embedding_tier": "low"})
            call(form, app, None, {"configurable": {"embedding_tier": "high"}})

            assert world.embedded() == {("low", "one"), ("high", "one")}


def test_a_wrapped_store_is_the_store_in_all_else(world: World) -> None:
    """Time to live, set-up and attributes; a store's own list of names."""
    with SqliteStore.from_conn_string(":memory:", ttl={"default_ttl": 5}) as plain:
        store = with_tier(plain)
        store.setup()
        store.put(("a", "b"), "1", {"text": "a"}, ttl=3)

        assert store.supports_ttl
        assert store.ttl_config == plain.ttl_config
        assert store.list_namespaces() == [("a", "b")]
        assert store.sweep_ttl() == 0
        assert "SqliteStore" in repr(store)
        store.delete(("a", "b"), "1")
        assert store.search(("a",), query="without an index") == []
        with pytest.raises(AttributeError, match="SqliteStore"):
            store.nothing  # type: ignore[attr-defined] # noqa: B018


def test_what_with_tier_does_not_wrap_is_told_what_to_write(world: World) -> None:
    with pytest.raises(ConfigError, match=r"with_tier\(store.as_retriever\(\)\)"):
        with_tier(world.store)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=r"not RouterEmbeddings: .* an embedder has a method with_tier"):
        with_tier(world.embeddings)  # type: ignore[call-overload]
