"""Report the events of one request."""

from decimal import Decimal
from typing import Literal

from ..errors import BackendError
from ..events import (
    CircuitClosed,
    CircuitOpened,
    ModelChanged,
    RequestAnswered,
    RequestFailed,
    RequestSent,
    SpendingUnconfirmed,
)
from ..limits import CircuitState, ModelHealth
from ..types import Candidate, Spending
from ._call import Call

NOTHING = Decimal(0)


def sent(call: Call, candidate: Candidate, spending: Spending) -> None:
    call.events.emit(
        RequestSent,
        **call.about(candidate),
        texts=spending.texts,
        tokens=spending.tokens,
        cost=spending.amount,
        attempt=spending.attempt,
    )


def answered(
    call: Call, candidate: Candidate, spending: Spending, tokens: int, amount: Decimal | None, seconds: float
) -> None:
    call.events.emit(
        RequestAnswered,
        **call.about(candidate),
        texts=spending.texts,
        tokens=tokens,
        cost=amount,
        seconds=seconds,
        attempt=spending.attempt,
    )


def failed(
    call: Call,
    candidate: Candidate,
    spending: Spending,
    error: BaseException,
    seconds: float,
    amount: Decimal | None = NOTHING,
) -> None:
    call.events.emit(
        RequestFailed,
        **call.about(candidate),
        texts=spending.texts,
        error=type(error).__name__,
        status=error.status if isinstance(error, BackendError) else None,
        cost=amount,
        seconds=seconds,
        attempt=spending.attempt,
    )


def unconfirmed(call: Call, candidate: Candidate, spending: Spending, error: BaseException) -> None:
    call.events.emit(
        SpendingUnconfirmed,
        **call.about(candidate),
        texts=spending.texts,
        tokens=spending.tokens,
        cost=spending.amount,
        error=type(error).__name__,
    )


def circuit(
    call: Call, candidate: Candidate, state: CircuitState, health: ModelHealth, error: BackendError | None = None
) -> None:
    if state == "closed":
        call.events.emit(CircuitClosed, **call.about(candidate))
    else:
        call.events.emit(
            CircuitOpened,
            **call.about(candidate),
            failures=health.failures,
            error=type(error).__name__,
            seconds=health.retry_in,
        )


def changed(
    call: Call, candidate: Candidate, what: Literal["name", "number of dimensions"], was: object, now: object
) -> None:
    call.events.emit(ModelChanged, **call.about(candidate), what=what, was=str(was), now=str(now))
