"""Tracing tools of others, switched on beside ours: the spans that LangChain's own embedder gives, and ours.

``nox -s telemetry`` installs the tools; a test is skipped where its tool is absent.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnablePassthrough
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


def test_one_trace_for_a_question_to_an_index(traced: Traced, emulator: Emulator, asynchronous: bool) -> None:
    """LlamaIndex under OpenInference: query engine, retriever, embedding, request and HTTP."""
    engines = pytest.importorskip("openinference.instrumentation.llama_index").LlamaIndexInstrumentor()
    http = pytest.importorskip("opentelemetry.instrumentation.httpx").HTTPXClientInstrumentor()
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.llms import MockLLM

    from embedrouter.llama_index import RouterEmbedding

    model = Model("voyage:voyage-3.5", base_url=emulator.voyage_url, api_key="k")
    router = Router([model], cache=None, ledger=":memory:")
    document = Document(text="The ferry leaves at noon.")
    engine = VectorStoreIndex.from_documents([document], embed_model=RouterEmbedding(router)).as_query_engine(MockLLM())
    traced.exporter.clear()
    engines.instrument(tracer_provider=traced.provider)
    http.instrument(tracer_provider=traced.provider)
    try:
        asyncio.run(engine.aquery("When?")) if asynchronous else engine.query("When?")
    finally:
        http.uninstrument()
        engines.uninstrument()
        router.close()
    (request,) = traced.spans("httpx")
    names = traced.path(request)
    (embedding, *_) = [span for span in traced.spans("llama_index") if "query_embedding" in span.name]
    told = dict(embedding.attributes or {})

    assert len({trace_of(span) for span in traced.spans()}) == 1
    assert [name.partition(".")[0] for name in names[:1] + names[-6:]] == [
        "RetrieverQueryEngine",
        "VectorIndexRetriever",
        "RouterEmbedding",
        "RouterEmbedding",
        "embeddings voyage-3",
        "embeddings voyage-3",
        "POST",
    ]
    assert told["embedding.model_name"] == "voyage-3.5"
    assert "embedding.embeddings.0.embedding.vector" in told, "as with any embedder of LlamaIndex"


def test_traceloops_instrumentation_of_langchain(traced: Traced, router: Router) -> None:
    """The embedding is inside its retriever, and the call inside the embedding.

    Both forms in one test, because the instrumentation keeps the first provider that it is given.
    """
    chains = pytest.importorskip("opentelemetry.instrumentation.langchain").LangchainInstrumentor()
    store = InMemoryVectorStore(RouterEmbeddings(router))
    store.add_texts(["The ferry leaves at noon."])
    traced.exporter.clear()
    chains.instrument(tracer_provider=traced.provider)
    try:
        chain: Runnable[Any, Any] = RunnablePassthrough() | store.as_retriever()
        chain.invoke("When?")
        asyncio.run(chain.ainvoke("When?"))
    finally:
        chains.uninstrument()
    requests = traced.spans("embedrouter")[1::2]

    assert [[name.rpartition(" ")[2] for name in traced.path(request)][-4:] for request in requests] == [
        ["VectorStoreRetriever", "RouterEmbeddings", *["text-embedding-3-small"] * 2]
    ] * 2


def test_a_web_server(traced: Traced, emulator: Emulator) -> None:
    """A request to FastAPI, what it embeds, and the request over HTTP; also while an answer is streamed."""
    web = pytest.importorskip("opentelemetry.instrumentation.fastapi").FastAPIInstrumentor()
    http = pytest.importorskip("opentelemetry.instrumentation.httpx").HTTPXClientInstrumentor()
    fastapi, answers = pytest.importorskip("fastapi"), pytest.importorskip("fastapi.responses")
    testclient = pytest.importorskip("fastapi.testclient")
    model = Model("voyage:voyage-3.5", base_url=emulator.voyage_url, api_key="k")
    router = Router([model], cache=None, ledger=":memory:")
    app = fastapi.FastAPI()

    async def question() -> int:
        return len(await router.aembed(["a"], input_type="query"))

    def documents() -> Any:
        chunks = router.embed_iter(["a", "b"], input_type="document", chunk_size=1)
        return answers.StreamingResponse(str(len(chunk)) for chunk in chunks)

    app.add_api_route("/question", question)
    app.add_api_route("/documents", documents)
    web.instrument_app(app, tracer_provider=traced.provider)
    http.instrument(tracer_provider=traced.provider)
    try:
        with testclient.TestClient(app) as client:
            http.uninstrument_client(client)
            told = client.get("/question").text, client.get("/documents").text
    finally:
        http.uninstrument()
        web.uninstrument_app(app)
        router.close()

    assert told == ("1", "11")
    assert [traced.path(span) for span in traced.spans("httpx")] == [
        ["GET /question", *["embeddings voyage-3.5"] * 2, "POST"],
        *[["GET /documents", *["embeddings voyage-3.5"] * 2, "POST"]] * 2,
    ]


def test_a_program_without_a_line_about_tracing(emulator: Emulator, tmp_path: Path) -> None:
    """``opentelemetry-instrument`` finds the entry point: calls are traced in both forms, and measured."""
    pytest.importorskip("opentelemetry.distro")
    if not entry_points(group="opentelemetry_instrumentor", name="embedrouter"):
        pytest.skip("this environment has the package without its entry points")
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import asyncio
from embedrouter import Model, Router

model = Model("openai:text-embedding-3-small", base_url={emulator.openai_url!r}, api_key="k", dimensions=8)
router = Router([model], cache=None, ledger=":memory:")
router.embed(["a private text"], input_type="query")
asyncio.run(router.aembed(["a private text"], input_type="query"))
router.close()
""",
        "utf-8",
    )
    others = {found.name for found in entry_points(group="opentelemetry_instrumentor")} - {"embedrouter"}
    switches = {f"OTEL_{kind}_EXPORTER": "console" for kind in ("TRACES", "METRICS")} | {
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others),
    }
    command = [str(Path(sys.executable).parent / "opentelemetry-instrument"), sys.executable, str(program)]
    said = subprocess.run(command, env={**os.environ, **switches}, capture_output=True, text=True, check=True).stdout

    assert said.count('"name": "embeddings text-embedding-3-small"') == 4
    assert '"name": "embedrouter.cost"' in said
    assert "private" not in said
