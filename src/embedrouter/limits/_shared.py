"""The limits of one model that the workers of many processes and machines keep together.

``ModelLimits`` admits a request in its process. A request that it admits then asks the shared limits, which are kept by
a server, with a ``Ticket``: it may go, or waits and asks again with the same ticket. Waiting requests have places in a
fair queue: of workers that wait, each gets the same share of the limit, whatever the number and the size of its
requests. A ticket that is not asked with for a while, because its worker was killed, loses its place.

The promise is that of the rate limiter in each process: requests in flight count with their estimates, and the minute
of a request begins with its answer, so no minute of the provider exceeds the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, Protocol, TypeAlias

from ..errors import BackendError, InputRejectedError, RateLimitedError
from ..types import RateLimits
from ._circuit_breaker import CircuitState
from ._model_limits import ModelLimits
from ._rate_limiter import LONGEST_WAIT, Admission, Quotas

Reason: TypeAlias = Literal["rate limit", "concurrency limit", "HTTP 429"]


@dataclass(slots=True, eq=False)
class Ticket:
    """One request at the shared limits."""

    id: str
    worker: str
    """The process and its router: of these, each gets the same share."""
    texts: int
    tokens: int
    """Estimate."""
    lease: float
    """Seconds after which the request counts as answered, because its worker may be dead."""
    refusals: int = 0
    """HTTP 429 in a row of all workers, when the request was admitted."""
    place: str = ""
    """The place in the queue, kept here as well: a worker that comes late with its next question does not lose it."""


@dataclass(frozen=True, slots=True)
class Held:
    """The wait of a request that the shared limits do not admit yet."""

    seconds: float
    """Until the next question with the same ticket."""
    reason: Reason
    refusals: int = 0
    """HTTP 429 in a row of all workers."""


Outcome: TypeAlias = Literal["answered", "failed", "refused", "unsent"]
"""How a request ended: with an answer, also one that refuses its texts; without one; with HTTP 429; or it was not sent.
"""


class SharedLimits(Protocol):
    """The shared limits of one model. Methods block, and may be called again with the same arguments.

    Raises:
        Exception: the server that keeps them does not answer.
    """

    def admit(self, ticket: Ticket) -> Held | None:
        """Admit a request, which is then sent at once, or return the wait."""
        ...

    def end(
        self, ticket: Ticket, outcome: Outcome, tokens: int | None = None, hold: float = 0.0, reported: Quotas = ()
    ) -> None:
        """Record how a request ended, or give back a ticket that waits.

        Args:
            tokens: as billed; ``None`` for the estimate.
            hold: seconds for which no worker asks the model, after HTTP 429.
            reported: the limits that the provider has reported.
        """
        ...


class SharedModelLimits(ModelLimits):
    """The limits of a model in this process, which tell the shared ones how each request ended.

    Args:
        shared: the shared limits.
        start: runs a function in the background, and never raises.
        worker: an id that no other process has.
        settings: of ``ModelLimits``.
    """

    def __init__(self, shared: SharedLimits, start: Callable[..., None], worker: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.shared, self._start, self._worker = shared, start, worker
        self._numbers = count()

    def ticket(self, admission: Admission, lease: float) -> Ticket:
        """Return the ticket of a request that this process admits."""
        return Ticket(f"{self._worker}.{next(self._numbers)}", self._worker, admission.texts, admission.tokens, lease)

    def release(self, admission: Admission) -> None:
        super().release(admission)
        self._end(admission, "unsent")

    def answered(
        self, admission: Admission, tokens: int | None, limits: RateLimits | None, now: float
    ) -> CircuitState | None:
        state = super().answered(admission, tokens, limits, now)
        self._end(admission, "answered", tokens, reported=self._reported(limits))
        return state

    def failed(
        self, admission: Admission, error: BackendError, now: float, *, counts: bool = True
    ) -> CircuitState | None:
        ticket = admission.ticket
        state = super().failed(admission, error, now, counts=counts)
        if isinstance(error, InputRejectedError):
            self._end(admission, "answered")
        elif isinstance(error, RateLimitedError) and error.retryable:
            hold = min(error.retry_after or 0.0, LONGEST_WAIT)
            if self._backoff is not None and isinstance(ticket, Ticket):
                hold = max(hold, self._backoff(ticket.refusals + 1, error))
            self._end(admission, "refused", hold=hold, reported=self._reported(error.limits))
        else:
            self._end(admission, "failed")
        return state

    def unanswered(self, admission: Admission, now: float) -> None:
        super().unanswered(admission, now)
        self._end(admission, "failed")

    def _end(self, admission: Admission, outcome: Outcome, tokens: int | None = None, **told: Any) -> None:
        """Tell the shared limits, once for each request."""
        ticket, admission.ticket = admission.ticket, None
        if isinstance(ticket, Ticket):
            self._start(self.shared.end, ticket, outcome, tokens, **told)

    def _reported(self, limits: RateLimits | None) -> Quotas:
        with self._lock:
            return self._rate.reported if limits is not None else ()
