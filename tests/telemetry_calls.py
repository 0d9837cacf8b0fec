"""Make calls of every kind with spans and metrics switched on, in a process of its own.

    python -m tests.telemetry_calls PORT [OTLP-ADDRESS]

Metrics are served on a port for Prometheus; spans go to an OTLP server, if one is named.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader  # pyright: ignore[reportMissingImports]
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from prometheus_client import start_http_server  # pyright: ignore[reportMissingImports]

from embedrouter import Budget, Model, RetryPolicy, Router, tag
from embedrouter.errors import EmbedRouterError, UnavailableError
from embedrouter.otel import EmbedRouterInstrumentor
from embedrouter.testing import FakeBackend, MemoryCache
from tests.emulator import Emulator

ROUNDS = 8


def instrument(port: int, otlp: str | None) -> None:
    tracers = TracerProvider(resource=Resource.create({"service.name": "embedrouter-tests"}))
    if otlp is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # pyright: ignore[reportMissingImports]

        tracers.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(otlp)))
    trace.set_tracer_provider(tracers)
    meters = MeterProvider([PrometheusMetricReader()])
    EmbedRouterInstrumentor().instrument(tracer_provider=tracers, meter_provider=meters)
    start_http_server(port, "127.0.0.1")


def call(emulator: Emulator) -> None:
    down = UnavailableError("down", status=503, retryable=True)
    small = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", dimensions=8)
    once = RetryPolicy(attempts=1)
    embedded = Router([small], cache=MemoryCache(), ledger=":memory:")
    ill = FakeBackend(outcomes=[down] * 1000).model("fake:ill", price="1")
    tiers = [ill, FakeBackend().model("fake:well", tier="low")]
    degraded = Router(tiers, cache=None, ledger=":memory:", retry=once, when_unavailable="degrade")
    refused = Router([FakeBackend().model(price="1")], cache=None, ledger=":memory:", budget=Budget(total="0.0000001"))
    for number in range(ROUNDS):
        with tag("handbook"), trace.get_tracer("tests").start_as_current_span("question"):
            embedded.embed([f"text {number}", f"text {number + 1}"], input_type="document")
        for router in (degraded, refused):
            with suppress(EmbedRouterError):
                router.embed([f"text {number}"], input_type="query")
        time.sleep(1)


if __name__ == "__main__":
    instrument(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
    with Emulator() as server:
        print("ready", flush=True)
        call(server)
        print("done", flush=True)
        sys.stdin.read()
