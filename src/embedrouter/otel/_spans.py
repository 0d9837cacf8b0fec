"""A span for each call, and one inside it for each request that goes out.

The call's span is what the conventions call the operation: with all retries and models, and with what it was billed. A
request's span has no usage of the conventions', so that tools which add these up count each token once. A span is
current while its call or request runs, in the caller's context, so that spans of HTTP clients are inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from decimal import Decimal

from opentelemetry import context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from ..events import (
    CallBegan,
    CallEnded,
    Event,
    RequestAnswered,
    RequestFailed,
    RequestSent,
)
from . import _conventions as names

SUPPRESSED = "suppress_instrumentation"
"""The entry of a context in which instrumentations make no spans."""

_call: ContextVar[Span | None] = ContextVar("embedrouter_call_span", default=None)
_request: ContextVar[Span | None] = ContextVar("embedrouter_request_span", default=None)


class Spans:
    """Makes the spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def around(self, began: CallBegan | RequestSent) -> AbstractContextManager[object]:
        """Open the span of a call, or of a request."""
        if context.get_value(SUPPRESSED):
            return nullcontext()
        return self._around_call(began) if isinstance(began, CallBegan) else self._around_request(began)

    @contextmanager
    def _around_call(self, began: CallBegan) -> Iterator[None]:
        about = names.of_model(began.model)
        span = self._tracer.start_span(
            f"{names.EMBEDDINGS} {names.short(began.model)}",
            kind=SpanKind.INTERNAL,
            attributes=about
            | names.of_call(began)
            | {names.DIMENSIONS: began.dimensions, "embedrouter.texts": began.texts},
        )
        with _current(span, _call):
            yield

    @contextmanager
    def _around_request(self, sent: RequestSent) -> Iterator[None]:
        about = names.of_model(sent.model) | names.of_server(sent)
        formats = {names.ENCODING: [sent.encoding]} if sent.encoding else {}
        if (call := _recording(_call)) is not None:
            call.set_attributes(names.of_server(sent) | formats)
        span = self._tracer.start_span(
            f"{names.EMBEDDINGS} {names.short(sent.model)}",
            kind=SpanKind.INTERNAL if sent.local else SpanKind.CLIENT,
            attributes=about
            | formats
            | {
                names.DIMENSIONS: sent.dimensions,
                "embedrouter.tier": sent.tier,
                "embedrouter.texts": sent.texts,
                "embedrouter.attempt": sent.attempt,
            },
        )
        with _current(span, _request):
            yield

    def receive(self, event: Event) -> None:
        """Write an event into the span in which it happens."""
        request, call = _recording(_request), _recording(_call)
        match event:
            case CallEnded() if call is not None:
                _end_call(call, event)
            case RequestAnswered() if request is not None:
                served: dict[str, AttributeValue] = {names.RESPONSE_MODEL: event.served} if event.served else {}
                request.set_attributes(served | {"embedrouter.tokens": event.tokens} | _cost(event.cost))
                if call is not None:
                    call.set_attributes(served)
            case RequestFailed() if request is not None:
                status: dict[str, AttributeValue] = (
                    {} if event.status is None else {"http.response.status_code": event.status}
                )
                request.set_attributes({names.ERROR: event.error} | status | _cost(event.cost))
                request.set_status(Status(StatusCode.ERROR))
                if call is not None:
                    call.add_event("embedrouter.request_failed", names.of_event(event))
            case CallEnded() | RequestAnswered() | RequestSent():
                pass
            case _ if call is not None:
                call.add_event(f"embedrouter.{names.snake(event)}", names.of_event(event))


def _recording(variable: ContextVar[Span | None]) -> Span | None:
    """Return a span that is sampled and has not ended: what was paid for is stored after its call was cancelled."""
    span = variable.get()
    return span if span is not None and span.is_recording() else None


def _end_call(span: Span, event: CallEnded) -> None:
    answered = [names.short(share.model) for share in event.by_model]
    span.set_attributes(
        {
            names.INPUT_TOKENS: event.tokens,
            "embedrouter.cached": event.cached,
            "embedrouter.degraded": event.degraded,
            "embedrouter.requests": event.requests,
            "embedrouter.saved": float(event.saved),
        }
        | (_cost(event.cost) if event.cost or not event.unpriced_tokens else {})
    )
    if answered:
        span.set_attributes(
            {
                "embedrouter.models": [share.model for share in event.by_model],
                "embedrouter.tier.given": ",".join(dict.fromkeys(share.tier for share in event.by_model)),
            }
        )
    if len(answered) == 1 and not event.requests:  # otherwise the server has said it
        span.set_attribute(names.RESPONSE_MODEL, answered[0])
    if event.error:
        span.set_attribute(names.ERROR, event.error)
        span.set_status(Status(StatusCode.ERROR))


def _cost(cost: Decimal | None) -> dict[str, AttributeValue]:
    return {} if cost is None else {"embedrouter.cost": float(cost)}


@contextmanager
def _current(span: Span, variable: ContextVar[Span | None]) -> Iterator[None]:
    """Make a span current, and end it. An error is named, and its message, which may repeat a text, is not."""
    token, own = context.attach(set_span_in_context(span)), variable.set(span)
    here = True
    try:
        yield
    except GeneratorExit:  # the event loop is gone, and the coroutine is closed in another context
        here = False
        raise
    except BaseException as error:
        span.set_attribute(names.ERROR, type(error).__name__)
        span.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        span.end()
        if here:
            variable.reset(own)
            context.detach(token)
