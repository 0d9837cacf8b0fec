"""Embedding calls as runs of LangChain's callbacks and as events of LlamaIndex: counts, names, money, never texts."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
import requests
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from langchain_core.vectorstores import InMemoryVectorStore
from langsmith import Client, traceable, tracing_context
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from requests.adapters import BaseAdapter

from embedrouter import Router
from embedrouter.errors import NoModelAvailableError, UnavailableError
from embedrouter.langchain import RouterEmbeddings, with_tier
from embedrouter.llama_index import RouterEmbedding
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache


class Tracer(BaseTracer):
    """Keeps the outermost runs."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)


def embedder(backend: FakeBackend | None = None) -> RouterEmbeddings:
    models = [(backend or FakeBackend()).model(price="1")]
    return RouterEmbeddings(Router(models, cache=MemoryCache(), ledger=":memory:", retry=NO_WAITING))


def ask(asynchronous: bool, runnable: Runnable[Any, Any], question: str, *handlers: Any) -> Any:
    config: Any = {"callbacks": list(handlers)}
    return asyncio.run(runnable.ainvoke(question, config)) if asynchronous else runnable.invoke(question, config)


def runs(run: Run, *above: str) -> list[tuple[str, Run]]:
    """Return each embedding with the names of the runs around it."""
    own = [(" ".join(above), run)] if run.run_type == "embedding" else []
    return own + [found for child in run.child_runs for found in runs(child, *above, run.name)]


def test_a_run_is_the_child_of_its_retriever_or_chain(asynchronous: bool) -> None:
    """With what it cost; the second time from the cache."""
    embeddings = embedder()
    retriever = InMemoryVectorStore(embeddings).as_retriever()
    chain: Runnable[Any, Any] = RunnablePassthrough() | retriever
    tracer = Tracer()
    for _ in range(2):
        ask(asynchronous, chain, "a private question", tracer)
    ask(asynchronous, RunnableLambda(embeddings.embed_query, embeddings.aembed_query, name="step"), "b", tracer)
    ask(asynchronous, with_tier(retriever), "c", tracer)
    found = [item for root in tracer.roots for item in runs(root)]
    (where, first), (_, second), (step, _), (alone, _) = found

    assert where == "RunnableSequence VectorStoreRetriever"
    assert (step, alone) == ("step", "VectorStoreRetriever")
    assert first.inputs == {"texts": 1, "input_type": "query", "tier": "high"}
    told, again = first.outputs or {}, second.outputs or {}
    assert (told["model"], told["cached"], told["cost"], told["usage_metadata"]["input_tokens"]) == (
        "fake:model",
        0,
        pytest.approx(3e-6),
        3,
    )
    assert (again["cached"], again["cost"], again["saved"]) == (1, 0, pytest.approx(3e-6))
    assert (first.extra or {})["metadata"]["ls_model_name"] == "model"
    assert "private" not in f"{first.inputs}{first.outputs}{first.extra}"
    ask(asynchronous, with_tier(retriever.with_config(callbacks=[tracer])), "d")
    embeddings.embed_query("outside of chains")
    assert len([item for root in tracer.roots for item in runs(root)]) == 5


def test_a_handler_that_has_no_retrievers(asynchronous: bool) -> None:
    """The run belongs to the chain around the retriever, and is not lost with a parent that the handler has never got.

    Opik's tracer is of this kind without saying so, and logs an error for each child of a retriever.
    """

    class Blind(Tracer):
        ignore_retriever = property(lambda _: True)

    tracer = Blind()
    chain: Runnable[Any, Any] = RunnablePassthrough() | InMemoryVectorStore(embedder()).as_retriever()
    ask(asynchronous, chain, "a", tracer)

    assert [where for root in tracer.roots for where, _ in runs(root)] == ["RunnableSequence"]


def test_an_error_ends_the_run(asynchronous: bool) -> None:
    """By the name of its class."""
    down = UnavailableError("the secret words of a provider", status=503)
    embeddings, tracer = embedder(FakeBackend(outcomes=[down] * 9)), Tracer()
    with pytest.raises(NoModelAvailableError):
        ask(asynchronous, InMemoryVectorStore(embeddings).as_retriever() | RunnablePassthrough(), "a", tracer)
    [(_, run)] = runs(tracer.roots[0])

    assert "NoModelAvailableError" in (run.error or "")
    assert "secret" not in (run.error or "")


class LangSmith(BaseAdapter):
    """Takes what a client of LangSmith's posts."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, dict[str, Any]] = {}
        session = requests.Session()
        session.mount("http://langsmith", self)
        self.client = Client("http://langsmith", api_key="k", session=session, auto_batch_tracing=False)

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        run = json.loads(request.body or "{}")
        named = run.get("id") or (request.url or "").rpartition("/")[2]
        self.runs.setdefault(named, {}).update({key: value for key, value in run.items() if value is not None})
        response = requests.Response()
        response.status_code = 202
        return response

    def close(self) -> None:
        """Needs nothing."""

    def paths(self) -> list[str]:
        """Return the names of the runs of embeddings, with those of the runs around each."""
        found = sorted(self.runs.values(), key=lambda run: run["dotted_order"])
        return [
            " ".join(self.runs[part[-36:]]["name"] for part in run["dotted_order"].split("."))
            for run in found
            if run["run_type"] == "embedding"
        ]


def test_what_langsmith_is_sent(asynchronous: bool) -> None:
    """Switched on for the process, from chains, wrapped retrievers and decorated functions; with usage, and no text.

    https://docs.langchain.com/langsmith/cost-tracking: ``total_cost`` of runs that are not of LLMs is read from
    ``usage_metadata``, in the outputs or in the metadata.
    """
    embeddings, posted = embedder(), LangSmith()
    retriever = InMemoryVectorStore(embeddings).as_retriever()
    chain: Runnable[Any, Any] = RunnablePassthrough() | retriever

    @traceable(name="function")
    def function(what: Runnable[Any, Any] | RouterEmbeddings) -> None:
        what.invoke("private 1") if isinstance(what, Runnable) else what.embed_query("private 2")

    @traceable(name="function")
    async def afunction(what: Runnable[Any, Any] | RouterEmbeddings) -> None:
        await (what.ainvoke("private 1") if isinstance(what, Runnable) else what.aembed_query("private 2"))

    async def stream() -> None:
        async for _ in with_tier(retriever).astream("private 3"):
            pass

    with tracing_context(enabled=True, client=posted.client):
        for runnable in (chain, with_tier(retriever), with_tier(retriever.with_config(tags=["a"]))):
            ask(asynchronous, runnable, "private 4")
        asyncio.run(stream()) if asynchronous else list(with_tier(retriever).stream("private 3"))
        wrapped: Runnable[Any, Any] = RunnablePassthrough() | with_tier(retriever)
        asyncio.run(wrapped.abatch(["private 5"])) if asynchronous else wrapped.batch(["private 5"])
        for what in (chain, retriever, with_tier(retriever), embeddings):
            asyncio.run(afunction(what)) if asynchronous else function(what)

    assert posted.paths() == [
        "RunnableSequence VectorStoreRetriever RouterEmbeddings",
        *["VectorStoreRetriever RouterEmbeddings"] * 3,
        "RunnableSequence VectorStoreRetriever RouterEmbeddings",
        "function RunnableSequence VectorStoreRetriever RouterEmbeddings",
        *["function VectorStoreRetriever RouterEmbeddings"] * 2,
        "function RouterEmbeddings",
    ]
    for run in posted.runs.values():
        if run["run_type"] == "embedding":
            usage = run["outputs"]["usage_metadata"]
            assert usage == run["extra"]["metadata"]["usage_metadata"]
            assert {"input_tokens", "total_tokens", "total_cost"} <= usage.keys()
            assert "private" not in json.dumps(run)


async def test_asynchronous_handlers_are_awaited() -> None:
    """In the event loop, which is not blocked."""
    seen: list[str] = []

    class Handler(AsyncCallbackHandler):
        async def on_chain_start(self, *_: Any, name: str = "", **__: Any) -> None:
            await asyncio.sleep(0)
            seen.append(name)

    embeddings = embedder()
    chain: Runnable[Any, Any] = RunnablePassthrough() | InMemoryVectorStore(embeddings).as_retriever()
    await chain.ainvoke("a", {"callbacks": [Handler()]})

    assert seen[-1] == "RouterEmbeddings"


def test_llama_index_is_told_who_answered(asynchronous: bool) -> None:
    """The start names the model that is called first, the end the one that answered, with money and hits."""
    seen: list[Any] = []

    class Handler(BaseEventHandler):
        def handle(self, event: Any, **_: Any) -> None:
            seen.append(event)

    counting = TokenCountingHandler(tokenizer=str.split)
    models = [FakeBackend().model(price="1"), FakeBackend().model("fake:dear", price="2")]
    router = Router(models, cache=MemoryCache(), ledger=":memory:")
    embedding = RouterEmbedding(router, callback_manager=CallbackManager([counting])).with_tier("high")
    dispatcher = get_dispatcher()
    handlers = dispatcher.event_handlers
    dispatcher.event_handlers = [*handlers, Handler()]
    try:
        for _ in range(2):
            if asynchronous:
                asyncio.run(embedding.aget_text_embedding_batch(["one two", "three"]))
            else:
                embedding.get_text_embedding_batch(["one two", "three"])
    finally:
        dispatcher.event_handlers = handlers
    start, end, _, cached = [event for event in seen if "Embedding" in event.class_name()]

    assert start.model_dict["model_name"] == "model"
    assert end.summary == {
        "model": "fake:model",
        "tier": "high",
        "space": "fake (8 dimensions)",
        "texts": 2,
        "cached": 0,
        "degraded": 0,
        "requests": 1,
        "tokens": end.summary["tokens"],
        "cost": pytest.approx(end.summary["tokens"] * 1e-6),
        "saved": 0,
    }
    assert (cached.summary["cached"], cached.summary["cost"]) == (2, 0)
    assert counting.total_embedding_token_count == 6


def test_a_call_that_costs_is_one_line_of_the_log(asynchronous: bool, caplog: pytest.LogCaptureFixture) -> None:
    """At INFO; a call that costs nothing is none."""
    caplog.set_level(logging.INFO, "embedrouter")
    router = embedder().router
    for texts in (["a", "b"], ["a", "b"], ["a", "c d"]):
        if asynchronous:
            asyncio.run(router.aembed(texts, input_type="document"))
        else:
            router.embed(texts, input_type="document")
    lines = [record.getMessage().rpartition(",")[0] for record in caplog.records]

    assert lines == [
        "fake:model: 2 texts, 2 tokens, $0.000002",
        "fake:model: 2 texts, 2 tokens, $0.000002, 1 from the cache (saved $0.000001)",
    ]
