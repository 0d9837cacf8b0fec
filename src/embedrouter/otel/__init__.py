"""OpenTelemetry: spans and metrics of calls and requests, by the conventions for generative AI.

    from embedrouter.otel import EmbedRouterInstrumentor

    EmbedRouterInstrumentor().instrument()

``pip install 'embedrouter[otel]'``. Under ``opentelemetry-instrument`` nothing needs to be written: the entry point
``opentelemetry_instrumentor`` is found. ``docs/operation.md`` lists spans, attributes and metrics; none has a text, a
vector, a key or a provider's message.
"""

from ..providers.versions import needed

with needed(__name__, "otel"):
    import opentelemetry.metrics
    import opentelemetry.trace

from ._instrumentor import EmbedRouterInstrumentor

__all__ = ["EmbedRouterInstrumentor"]
