"""Tracing tools of others, switched on beside ours: the spans that LangChain's own embedder gives, and ours.

``nox -s telemetry`` installs the tools; a test is skipped where its tool is absent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from embedrouter import Model, Router
from embedrouter.langchain import RouterEmbeddings
from embedrouter.otel import EmbedRouterInstrumentor
from tests.emulator import Emulator

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Traced:
    def __init__(self) -> None:
        self.exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def spans(self, of: str = "") -> list[ReadableSpan]:
        """Return the spans of the instrumentations whose name has a part, in the order of their beginning."""
        found = self.exporter.get_finished_spans()
        named = [span for span in found if span.instrumentation_scope and of in span.instrumentation_scope.name]
        return sorted(named, key=lambda span: span.start_time or 0)

    def path(self, span: ReadableSpan) -> list[str]:
        """Return the names of a span and of those around it, the outermost first."""
        by_id = {found.context.span_id: found for found in self.spans() if found.context}
        names = [span.name]
        while span.parent is not None and span.parent.span_id in by_id:
            span = by_id[span.parent.span_id]
            names.insert(0, span.name)
        return names


def trace_of(span: ReadableSpan) -> int:
    return span.context.trace_id if span.context else 0


@pytest.fixture
def traced() -> Iterator[Traced]:
    found = Traced()
    EmbedRouterInstrumentor().instrument(tracer_provider=found.provider)
    yield found
    EmbedRouterInstrumentor().uninstrument()


@pytest.fixture
def router(emulator: Emulator) -> Iterator[Router]:
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", dimensions=8)
    with Router([model], cache=None, ledger=":memory:") as made:
        yield made


def test_the_span_of_langchains_embedder_and_ours(traced: Traced, emulator: Emulator, router: Router) -> None:
    """OpenTelemetry's instrumentation of the SDK: ours has what its span has, and cost, hits and tier."""
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.openai_v2").OpenAIInstrumentor()
    langchain_openai = pytest.importorskip("langchain_openai")
    instrumentation.instrument(tracer_provider=traced.provider)
    try:
        theirs = langchain_openai.OpenAIEmbeddings(
            model="text-embedding-3-small", base_url=emulator.openai_url, api_key="k", dimensions=8,
            check_embedding_ctx_length=False,
        )  # fmt: skip
        theirs.embed_documents(["a text", "another"])
        (before,) = traced.spans("openai")
        RouterEmbeddings(router).embed_documents(["a text", "another"])
        ours, *_ = traced.spans("embedrouter")
    finally:
        instrumentation.uninstrument()
    told, had = dict(ours.attributes or {}), dict(before.attributes or {})

    assert ours.name == before.name
    assert {name for name in had if name not in told} <= {"gen_ai.system", "gen_ai.openai.api.type", "openai.api.type"}
    for name in ("gen_ai.request.model", "gen_ai.usage.input_tokens", "gen_ai.operation.name"):
        assert told[name] == had[name]
    assert {"embedrouter.cost", "embedrouter.cached", "embedrouter.tier.given"} <= set(told)
    assert len(traced.spans("openai")) == 1, "it would fail at our requests, when they are paid"


@pytest.mark.parametrize("module", ["opentelemetry.instrumentation.openai", "openinference.instrumentation.openai"])
def test_other_instrumentations_of_the_sdk_are_inside(traced: Traced, router: Router, module: str) -> None:
    """Traceloop's and OpenInference's: their spans are children of our requests, in both forms."""
    instrumentation = pytest.importorskip(module).OpenAIInstrumentor()
    instrumentation.instrument(tracer_provider=traced.provider)
    try:
        router.embed(["a"], input_type="query")

        async def call() -> None:
            await router.aembed(["b"], input_type="query")
            await router.aclose()

        asyncio.run(call())
    finally:
        instrumentation.uninstrument()
    inner = traced.spans("openai")

    assert len(inner) == 2
    assert all(span.parent is not None for span in inner)
    assert {trace_of(span) for span in inner} == {trace_of(span) for span in traced.spans("embedrouter")}


class Caller(GenericFakeChatModel):
    """A chat model that calls the tool, and then answers."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def test_one_trace_for_a_question_through_an_agent(traced: Traced, emulator: Emulator) -> None:
    """Graph, tool, retriever, embedding, request and HTTP, in one trace: each is inside the one before."""
    graphs = pytest.importorskip("openinference.instrumentation.langchain").LangChainInstrumentor()
    http = pytest.importorskip("opentelemetry.instrumentation.httpx").HTTPXClientInstrumentor()
    from langgraph.prebuilt import create_react_agent

    model = Model("voyage:voyage-3.5", base_url=emulator.voyage_url, api_key="k")  # whose requests httpx makes
    router = Router([model], cache=None, ledger=":memory:")
    store = InMemoryVectorStore(RouterEmbeddings(router))
    store.add_texts(["The ferry leaves at noon."])
    retriever = store.as_retriever()

    @tool
    def search(query: str) -> str:
        """Search the handbook."""
        return retriever.invoke(query)[0].page_content

    call = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "when?"}, "id": "1"}])
    agent = create_react_agent(Caller(messages=iter([call, AIMessage("At noon.")])), [search])
    traced.exporter.clear()
    graphs.instrument(tracer_provider=traced.provider)
    http.instrument(tracer_provider=traced.provider)
    try:
        agent.invoke({"messages": [("user", "When does the ferry leave?")]})
    finally:
        http.uninstrument()
        graphs.uninstrument()
    (request,) = traced.spans("httpx")
    names = traced.path(request)
    runs = [span for span in traced.spans("langchain") if span.name == "RouterEmbeddings"]

    router.close()

    assert len({trace_of(span) for span in traced.spans()}) == 1
    assert names[-3:-1] == ["embeddings voyage-3.5"] * 2
    assert traced.path(runs[0])[-3:] == ["search", "VectorStoreRetriever", "RouterEmbeddings"]
    assert dict(runs[0].attributes or {})["openinference.span.kind"] == "EMBEDDING"
