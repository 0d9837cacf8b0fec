"""Report the events of one request."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from decimal import Decimal
from typing import Literal

from ..errors import BackendError
from ..events import (
    CircuitClosed,
    CircuitOpened,
    Events,
    ModelChanged,
    RequestAnswered,
    RequestFailed,
    RequestSent,
    SpendingUnconfirmed,
    watched,
)
from ..limits import CircuitState, ModelHealth
from ..models import Backend
from ..providers import address_of, format_of
from ..types import Candidate, Spending
from ._call import Call

NOTHING = Decimal(0)


class RequestEvents:
    """Report what becomes of requests."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def sent(
        self, call: Call, candidate: Candidate, spending: Spending, backend: Backend
    ) -> AbstractContextManager[None]:
        """Report a request; return what is entered until its answer is booked."""
        if not self._events.wanted(RequestSent):
            return nullcontext()
        event = RequestSent(
            **call.about(candidate),
            texts=spending.texts,
            tokens=spending.tokens,
            cost=spending.amount,
            attempt=spending.attempt,
            dimensions=candidate.dimensions,
            encoding=format_of(backend),
            address=str(address_of(backend) or ""),
            local=candidate.local,
        )
        return self._sent(event)

    @contextmanager
    def _sent(self, event: RequestSent) -> Iterator[None]:
        with watched(event):
            self._events.report(event)
            yield

    def answered(
        self,
        call: Call,
        candidate: Candidate,
        spending: Spending,
        tokens: int,
        amount: Decimal | None,
        seconds: float,
        served: str,
    ) -> None:
        self._events.emit(
            RequestAnswered,
            **call.about(candidate),
            texts=spending.texts,
            tokens=tokens,
            cost=amount,
            seconds=seconds,
            attempt=spending.attempt,
            served=served,
        )

    def failed(
        self,
        call: Call,
        candidate: Candidate,
        spending: Spending,
        error: BaseException,
        seconds: float,
        amount: Decimal | None = NOTHING,
    ) -> None:
        self._events.emit(
            RequestFailed,
            **call.about(candidate),
            texts=spending.texts,
            error=type(error).__name__,
            status=error.status if isinstance(error, BackendError) else None,
            cost=amount,
            seconds=seconds,
            attempt=spending.attempt,
        )

    def unconfirmed(self, call: Call, candidate: Candidate, spending: Spending, error: BaseException) -> None:
        if spending.amount != 0:
            self._events.emit(
                SpendingUnconfirmed,
                **call.about(candidate),
                texts=spending.texts,
                tokens=spending.tokens,
                cost=spending.amount,
                error=type(error).__name__,
            )

    def circuit(
        self,
        call: Call,
        candidate: Candidate,
        state: CircuitState,
        health: ModelHealth,
        error: BackendError | None = None,
    ) -> None:
        if state == "closed":
            self._events.emit(CircuitClosed, **call.about(candidate))
        else:
            self._events.emit(
                CircuitOpened,
                **call.about(candidate),
                failures=health.failures,
                error=type(error).__name__,
                seconds=health.retry_in,
            )

    def changed(
        self, call: Call, candidate: Candidate, what: Literal["name", "number of dimensions"], was: object, now: object
    ) -> None:
        self._events.emit(ModelChanged, **call.about(candidate), what=what, was=str(was), now=str(now))
