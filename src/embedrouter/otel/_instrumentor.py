"""Switch spans and metrics on and off."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, ClassVar

from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.trace import TracerProvider, get_tracer

from ..events import unwatch, watch
from ._metrics import Metrics
from ._spans import Spans

NAME = "embedrouter"


class EmbedRouterInstrumentor:
    """Trace and measure all routers of the process.

    It has the methods by which ``opentelemetry-instrument`` and other tools call an instrumentor. Like those of
    OpenTelemetry there is one in a process: each ``EmbedRouterInstrumentor()`` is the same.
    """

    _watchers: ClassVar[tuple[Spans, Metrics] | None] = None

    def instrument(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None, **_: Any
    ) -> None:
        """Trace and measure the calls that begin from now on; a second time does nothing.

        Args:
            tracer_provider: receives the spans; by default the process's.
            meter_provider: receives the metrics; by default the process's.
        """
        if self._watchers is not None:
            return
        own = version(NAME)
        spans = Spans(get_tracer(NAME, own, tracer_provider))
        metrics = Metrics(get_meter(NAME, own, meter_provider))
        type(self)._watchers = spans, metrics
        watch(metrics)  # first, so that it is left last
        watch(spans)

    def uninstrument(self, **_: Any) -> None:
        """Trace and measure no further call."""
        for watcher in self._watchers or ():
            unwatch(watcher)
        type(self)._watchers = None

    @property
    def is_instrumented_by_opentelemetry(self) -> bool:
        """Whether calls are traced and measured."""
        return self._watchers is not None

    def instrumentation_dependencies(self) -> list[str]:
        """Return the packages that are instrumented, besides this one: none."""
        return []
