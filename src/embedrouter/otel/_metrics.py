"""Metrics: the conventions' two for each request, and our own of calls, texts and money."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from decimal import Decimal

from opentelemetry.metrics import Meter
from opentelemetry.util.types import AttributeValue

from ..events import (
    BatchCollected,
    CallBegan,
    CallEnded,
    CircuitClosed,
    CircuitOpened,
    Degraded,
    Event,
    RequestAnswered,
    RequestFailed,
    RequestSent,
)
from . import _conventions as names

SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [4**power for power in range(14)]
"""The conventions' buckets."""
CALL_SECONDS = [0.0001, 0.0005, 0.002, 0.005, *SECONDS]
"""A call that is answered from memory takes less than a millisecond."""

_sent: ContextVar[RequestSent | None] = ContextVar("embedrouter_measured_request", default=None)

Attributes = dict[str, AttributeValue]


class Metrics:
    """Records the metrics."""

    def __init__(self, meter: Meter) -> None:
        histogram, counter = meter.create_histogram, meter.create_counter
        self._duration = histogram(
            "gen_ai.client.operation.duration", "s", "Requests.", explicit_bucket_boundaries_advisory=SECONDS
        )
        self._tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Billed.", explicit_bucket_boundaries_advisory=TOKENS
        )
        self._calls = histogram(
            "embedrouter.call.duration", "s", "Calls.", explicit_bucket_boundaries_advisory=CALL_SECONDS
        )
        self._texts = counter("embedrouter.texts", "{text}", "Texts that were answered.")
        self._cost = counter("embedrouter.cost", "USD", "Billed.")
        self._saved = counter("embedrouter.saved", "USD", "Avoided by the cache and the removal of duplicates.")
        self._degraded = counter("embedrouter.degraded", "{text}", "Queries that a lower tier has answered.")
        self._events = counter("embedrouter.events", "{event}", "Retries, waits, refusals, failures.")
        self._circuits = meter.create_gauge("embedrouter.circuit.open", "{circuit}", "1 while a model is not asked.")

    def around(self, began: CallBegan | RequestSent) -> AbstractContextManager[object]:
        """Remember where a request goes, for its metrics."""
        return _remembered(began) if isinstance(began, RequestSent) else nullcontext()

    def receive(self, event: Event) -> None:
        """Record an event."""
        match event:
            case CallEnded():
                self._call_ended(event)
            case RequestAnswered() | RequestFailed():
                self._request_ended(event)
            case BatchCollected():
                self._spend(event, event.cost)
                self._tokens.record(event.tokens, names.of_model(event.model) | {names.TOKEN_TYPE: "input"})
            case RequestSent():
                pass
            case _:
                if isinstance(event, CircuitOpened | CircuitClosed):
                    self._circuits.set(isinstance(event, CircuitOpened), _about(event, "model", "tier"))
                if isinstance(event, Degraded):
                    self._degraded.add(event.texts, _about(event, "model", "tier", "tag"))
                named = _about(event, "model", "tag") | {"embedrouter.event": names.snake(event)}
                self._events.add(1, named)

    def _call_ended(self, event: CallEnded) -> None:
        hits = "all" if event.cached == event.texts else "some" if event.cached else "none"
        error: Attributes = {names.ERROR: event.error} if event.error else {"embedrouter.cached": hits}
        asked = _about(event, "input_type", "tag") | {"embedrouter.tier.requested": event.tier}
        self._calls.record(event.seconds, asked | error)
        who = _about(event, "input_type", "tag")
        for share in event.by_model:
            about: Attributes = {"embedrouter.model": share.model, "embedrouter.tier": share.tier}
            about |= who
            for cached, texts in ((True, share.cached), (False, share.texts - share.cached)):
                if texts:
                    self._texts.add(texts, about | {"embedrouter.cached": cached})
            if share.saved:
                self._saved.add(float(share.saved), about)

    def _request_ended(self, event: RequestAnswered | RequestFailed) -> None:
        about: Attributes = names.of_model(event.model)
        if (sent := _sent.get()) is not None:
            about |= names.of_server(sent)
        if isinstance(event, RequestAnswered):
            about |= {names.RESPONSE_MODEL: event.served} if event.served else {}
            self._tokens.record(event.tokens, about | {names.TOKEN_TYPE: "input"})
        else:
            about |= {names.ERROR: event.error}
        self._duration.record(event.seconds, about)
        self._spend(event, event.cost)

    def _spend(self, event: Event, cost: Decimal | None) -> None:
        if cost:
            self._cost.add(float(cost), _about(event, "model", "tier", "input_type", "tag"))


@contextmanager
def _remembered(sent: RequestSent) -> Iterator[None]:
    token = _sent.set(sent)
    try:
        yield
    finally:
        with suppress(ValueError):  # the event loop is gone, and its coroutine is closed in another context
            _sent.reset(token)


def _about(event: Event, *fields: str) -> Attributes:
    return {f"embedrouter.{name}": value for name in fields if (value := getattr(event, name))}
