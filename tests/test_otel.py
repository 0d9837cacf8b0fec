"""Spans and metrics of OpenTelemetry: what is in them, and whose children they are, in both forms."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from embedrouter import Budget, Model, RetryPolicy, Router, TieredRouter, tag
from embedrouter.errors import DegradedWarning, EmbedRouterError, UnavailableError
from embedrouter.otel import EmbedRouterInstrumentor
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.emulator import Emulator
from tests.own_metadata import PROJECT
from tests.side_by_side import at_once

DOWN = UnavailableError("the secret text of a provider", status=503, retryable=True)
ONCE = RetryPolicy(attempts=1)


class Seen:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.tracer = trace.get_tracer("tests", tracer_provider=self.provider)

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    @property
    def calls(self) -> list[ReadableSpan]:
        return [span for span in self.spans if "embedrouter.tier.requested" in facts(span)]

    @property
    def requests(self) -> list[ReadableSpan]:
        return [span for span in self.spans if "embedrouter.attempt" in facts(span)]

    def metric(self, name: str, **wanted: Any) -> float:
        """Return the sum of a counter, or of what a histogram has recorded; of the points with some attributes."""
        data = self.reader.get_metrics_data()
        found = 0.0
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points if metric.name == name else ():
                        given: Any = dict(point.attributes or {})
                        if all(given.get(key.replace("__", ".")) == value for key, value in wanted.items()):
                            found += getattr(point, "sum", 0) or getattr(point, "value", 0)
        return found


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def named(span: ReadableSpan) -> list[str]:
    return [event.name.removeprefix("embedrouter.") for event in span.events]


def is_inside(inner: ReadableSpan, outer: ReadableSpan) -> bool:
    return outer.context is not None and parent(inner) == outer.context.span_id


def parent(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    EmbedRouterInstrumentor().instrument(tracer_provider=found.provider, meter_provider=found.meters)
    yield found
    EmbedRouterInstrumentor().uninstrument()
    found.meters.shutdown()


def router(*models: Any, **settings: Any) -> Router:
    return Router(list(models), **{"cache": None, "ledger": ":memory:", "retry": ONCE, **settings})


def test_a_request_and_a_cached_call(seen: Seen, emulator: Emulator, asynchronous: bool) -> None:
    """As the conventions have it; the second call costs nothing, and saves."""
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="sk-secret", dimensions=8)
    made = router(model, cache=MemoryCache())
    with seen.tracer.start_as_current_span("question"), tag("handbook"):
        embed(made, asynchronous, ["a private text", "another"], input_type="document")
        embed(made, asynchronous, ["a private text", "a third"], input_type="document")
        embed(made, asynchronous, ["a private text"], input_type="document")
    made.close()
    first, second, third = seen.calls
    sent = seen.requests[0]
    told = facts(first)

    assert [span.name for span in seen.spans].count("embeddings text-embedding-3-small") == 5
    assert (first.kind, sent.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT)
    assert is_inside(sent, first)
    assert is_inside(first, seen.spans[0])
    shared = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "text-embedding-3-small",
        "gen_ai.response.model": "text-embedding-3-small",
        "gen_ai.embeddings.dimension.count": 8,
        "gen_ai.request.encoding_formats": ("base64",),
        "server.address": "127.0.0.1",
        "server.port": int(emulator.openai_url.rpartition(":")[2].partition("/")[0]),
    }
    assert told.items() >= shared.items()
    assert facts(sent).items() >= shared.items()
    assert told["gen_ai.usage.input_tokens"] == facts(sent)["embedrouter.tokens"] == 4
    assert "gen_ai.usage.input_tokens" not in facts(sent), "or tools would count tokens twice"
    assert told["embedrouter.cost"] == facts(sent)["embedrouter.cost"] == pytest.approx(4 * 0.02e-6)
    assert (told["embedrouter.tier.requested"], told["embedrouter.tier.given"]) == ("high", "high")
    assert (told["embedrouter.texts"], told["embedrouter.tag"]) == (2, "handbook")
    assert [facts(span)["embedrouter.cached"] for span in (first, second, third)] == [0, 1, 1]
    assert facts(third)["gen_ai.usage.input_tokens"] == 0 == facts(third)["embedrouter.cost"]
    assert facts(third)["embedrouter.saved"] > 0
    assert facts(third)["gen_ai.response.model"] == "text-embedding-3-small"
    assert seen.metric("gen_ai.client.token.usage", gen_ai__token__type="input") == 6
    assert seen.metric("embedrouter.cost", embedrouter__tag="handbook") == pytest.approx(6 * 0.02e-6)
    assert seen.metric("embedrouter.texts", embedrouter__cached=True) == 2
    assert seen.metric("embedrouter.saved") > 0
    shown = "".join(span.to_json() for span in seen.spans)
    assert "private" not in shown
    assert "secret" not in shown


def test_failures_and_what_was_done_about_them(seen: Seen, asynchronous: bool) -> None:
    """Retry, failover, degraded answers, refusals of the budget, errors: on the call's span, and in its status."""
    retried = router(FakeBackend(outcomes=[DOWN]).model(price="1"), retry=NO_WAITING)
    failed_over = router(FakeBackend(outcomes=[DOWN]).model("a:b", price="1"), FakeBackend().model("c:d", price="2"))
    tiers = FakeBackend(outcomes=[DOWN]).model("a:b"), FakeBackend().model("c:d", tier="low")
    degraded = router(*tiers, when_unavailable="degrade")
    refused = router(FakeBackend().model(price="1"), budget=Budget(total="0.0000001"))
    lost = router(FakeBackend(outcomes=[DOWN] * 9).model())
    for made in (retried, failed_over):
        embed(made, asynchronous, ["a"], input_type="query")
    with pytest.warns(DegradedWarning):
        embed(degraded, asynchronous, ["a"], input_type="query")
    for made in (refused, lost):
        with suppress(EmbedRouterError):
            embed(made, asynchronous, ["a"], input_type="query")
    again, over, low, budget, error = seen.calls

    assert named(again) == ["request_failed", "request_retried"]
    assert named(over) == ["request_failed", "failed_over"]
    assert facts(over)["embedrouter.models"] == ("c:d",)
    assert "degraded" in named(low)
    assert (facts(low)["embedrouter.degraded"], facts(low)["embedrouter.tier.given"]) == (1, "low")
    assert named(budget) == ["budget_refused"]
    assert [facts(span).get("error.type") for span in (again, low, budget, error)] == [
        None,
        None,
        "BudgetExceededError",
        "NoModelAvailableError",
    ]
    assert [span.status.status_code for span in (again, error)] == [StatusCode.UNSET, StatusCode.ERROR]
    assert facts(seen.requests[0])["error.type"] == "UnavailableError"
    assert facts(seen.requests[0])["http.response.status_code"] == 503
    assert seen.metric("embedrouter.events", embedrouter__event="budget_refused") == 1
    assert seen.metric("embedrouter.degraded") == 1
    assert "secret" not in "".join(span.to_json() for span in seen.spans)


def test_a_cancelled_call_and_a_late_one(seen: Seen) -> None:
    """The call ends at once; its request goes on, and ends as its child."""

    begun = asyncio.Event()

    class Slow(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            begun.set()
            await asyncio.sleep(0.1)
            return await super().aembed(texts, input_type, timeout=timeout)

    async def both() -> None:
        made = router(Slow().model())
        for timeout in (None, 0.01):
            task = asyncio.create_task(made.aembed(["a"], input_type="query", timeout=timeout))
            await (begun.wait() if timeout is None else asyncio.sleep(0.03))
            task.cancel()
            with suppress(asyncio.CancelledError, EmbedRouterError):
                await task
        await made.aclose()

    asyncio.run(both())
    cancelled = seen.calls[0]

    assert facts(cancelled)["error.type"] == "CancelledError"
    assert is_inside(seen.requests[0], cancelled)
    assert (seen.requests[0].end_time or 0) > (cancelled.end_time or 0)
    assert len(seen.calls) == 2


def test_calls_that_are_sent_as_one_request(seen: Seen, asynchronous: bool) -> None:
    """Each call has its span and its share of the bill; the request is a child of the first, and the others say so."""
    hold = threading.Event()

    class Slow(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            hold.wait(0.1)
            return super().embed(texts, input_type, timeout=timeout)

        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            await asyncio.sleep(0.1)
            return FakeBackend.embed(self, texts, input_type, timeout=timeout)

    made = router(Slow().model(price="1"), cache=MemoryCache())
    if asynchronous:

        async def all_at_once() -> None:
            await asyncio.gather(*(made.aembed([f"text {n}"], input_type="query") for n in range(6)))
            await made.aclose()

        asyncio.run(all_at_once())
    else:
        at_once([partial(made.embed, [f"text {n}"], input_type="query") for n in range(6)])
    made.close()

    assert len(seen.calls) == 6
    assert len(seen.requests) < 6
    assert sum(facts(span)["gen_ai.usage.input_tokens"] for span in seen.calls) == made.usage.tokens
    assert sum(facts(span)["embedrouter.cost"] for span in seen.calls) == pytest.approx(float(made.usage.cost))
    assert sum("request_shared" in named(span) for span in seen.calls) == 6 - len(seen.requests)
    for sent in seen.requests:
        (parent,) = [span for span in seen.calls if is_inside(sent, span)]
        assert "request_shared" not in named(parent)


def test_iteration_tiers_and_threads(seen: Seen) -> None:
    """A span for each chunk, which is not current between chunks; each thread's calls belong to its own span."""
    made = router(FakeBackend().model())
    results = made.embed_iter(["a", "b", "c"], input_type="document", chunk_size=1)
    with seen.tracer.start_as_current_span("outer") as outer:
        for _ in results:
            assert trace.get_current_span() is outer
    both = TieredRouter({"low": router(FakeBackend().model("fake:low")), "high": made})
    both.embed(["a"], input_type="query", tier="low")

    def ask(name: str) -> None:
        with seen.tracer.start_as_current_span(name):
            made.embed([name], input_type="query")

    at_once([partial(ask, f"thread {number}") for number in range(4)])
    threads = {span.context.span_id: span.name for span in seen.spans if span.context and "thread" in span.name}
    inside = [name for span in seen.spans if (name := threads.get(parent(span) or 0))]

    assert (
        len([span for span in seen.spans if span.parent and span.parent.span_id == outer.get_span_context().span_id])
        == 3
    )
    assert sorted(inside) == sorted(threads.values())
    assert "embeddings low" in [span.name for span in seen.spans]


def test_nothing_is_made_where_it_is_switched_off(seen: Seen) -> None:
    """By ``uninstrument``, and for a block by the entry that other instrumentations honour."""
    made = router(FakeBackend().model())
    token = context.attach(context.set_value("suppress_instrumentation", True))
    made.embed(["a"], input_type="query")
    context.detach(token)
    EmbedRouterInstrumentor().uninstrument()
    made.embed(["b"], input_type="query")

    assert seen.spans == []
    assert not EmbedRouterInstrumentor().is_instrumented_by_opentelemetry
    named = PROJECT["entry-points"]["opentelemetry_instrumentor"]["embedrouter"]
    assert EntryPoint("embedrouter", named, "opentelemetry_instrumentor").load() is EmbedRouterInstrumentor


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_traced(seen: Seen) -> None:
    """Its call is a child of the span in which it was forked."""
    made = router(FakeBackend().model())
    made.embed(["a"], input_type="query")
    read, write = os.pipe()
    with seen.tracer.start_as_current_span("before the fork") as before:
        child = os.fork()
        if not child:
            seen.exporter.clear()
            made.embed(["b"], input_type="query")
            parents = [parent(span) for span in seen.calls]
            os.write(write, json.dumps(parents).encode())
            os._exit(0)
    os.waitpid(child, 0)

    assert json.loads(os.read(read, 1000)) == [before.get_span_context().span_id]
