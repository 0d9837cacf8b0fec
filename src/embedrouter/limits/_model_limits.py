"""Whether a model may be asked now: concurrency, rate limiter, circuit breaker and the waits its provider asks for.

One ``ModelLimits`` stands in front of each model of a router and counts the requests of all threads and event loops of
the process together. ``admit`` answers at once; a caller that has to wait waits elsewhere.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from dataclasses import dataclass

from .._process import Future, Lock
from ..errors import BackendError, InputRejectedError, RateLimitedError
from ..types import RateLimits
from ._circuit_breaker import CircuitBreaker, CircuitState
from ._rate_limiter import LONGEST_WAIT, Admission, RateLimiter

__all__ = ["ModelHealth", "ModelLimits", "Wait"]

SLOT_POLL = 1.0
"""Seconds after which a caller that waits for a slot asks again without having been told."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A request that may not go out yet."""

    seconds: float
    """After which to ask again."""
    circuit_open: bool = False
    """Whether the reason is that the model keeps failing."""
    slot: Future[None] | None = None
    """Done when a request has ended, where ``max_concurrency`` are in flight. Whoever gives up cancels it."""


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """How a model has been doing, seen from this process."""

    model: str
    state: CircuitState
    """Of the circuit breaker: ``"open"`` means that the model is not asked, ``"half-open"`` that the next request
    decides."""
    failures: int
    """In a row."""
    retry_in: float
    """Seconds until it is asked again; more than 0 also where the provider asked to wait."""
    error: BackendError | None
    """What it failed with last, without traceback and cause."""


class ModelLimits:
    """Admits requests to one model.

    Args:
        concurrency: requests in flight at once, of all threads and event loops.
        requests: a minute, as the user declares; otherwise as the provider reports.
        tokens: the same.
        cooldown: seconds that a model which keeps failing is not asked; doubled with each probe that fails.
        lease: seconds after which a probe whose outcome never came is forgotten.
    """

    def __init__(
        self, *, concurrency: int, requests: int | None, tokens: int | None, cooldown: float, lease: float
    ) -> None:
        self._lock = Lock()
        self._concurrency = concurrency
        self._in_flight: set[Admission] = set()
        self._waiting: deque[Future[None]] = deque()
        self._rate = RateLimiter(requests=requests, tokens=tokens)
        self._circuit = CircuitBreaker(cooldown=cooldown, lease=lease)
        self._held_until = 0.0
        """Until when the provider asked to wait."""
        self._rate_error: RateLimitedError | None = None

    def admit(
        self, tokens: int, now: float, *, least: int | None = None, slot: Future[None] | None = None
    ) -> Admission | Wait:
        """Admit a request of so many tokens, which then goes out at once, or return what it has to wait for.

        Args:
            least: the tokens of its first text, where a part of it may go before the rest. The admission says how many
                tokens may.
            slot: what the request has waited for so far, to keep its place in the queue.
        """
        with self._lock:
            open_for = self._circuit.wait(now)
            tokens, rate = self._rate.fit(tokens, tokens if least is None else least, now)
            seconds = max(open_for, self._held_until - now, rate)
            if seconds > 0:
                return Wait(seconds, circuit_open=open_for > 0)
            if len(self._in_flight) >= self._concurrency:
                if slot is None or slot.done():
                    slot = Future()
                    self._waiting.append(slot)
                return Wait(SLOT_POLL, slot=slot)
            self._circuit.admit(now)
            admission = self._rate.admit(tokens, now)
            self._in_flight.add(admission)
            return admission

    def withdraw(self, admission: Admission) -> None:
        """Forget a request that was admitted and not sent; one whose outcome was noted is left alone."""
        with self._lock:
            if admission in self._in_flight:
                self._circuit.withdraw(admission.at)
                self._rate.withdraw(admission)
                self._free(admission)

    def answered(self, admission: Admission, tokens: int | None, limits: RateLimits | None, now: float) -> None:
        """Note an answer: what was billed, and what the provider reports of its limits."""
        with self._lock:
            self._circuit.succeeded()
            self._rate_error = None
            self._rate.arrived(admission, tokens, now)
            self._rate.first_answer()
            if limits is not None:
                self._rate.report(limits, now)
            self._free(admission)

    def failed(self, admission: Admission, error: BackendError, now: float, *, counts: bool = True) -> None:
        """Note a failure; ``counts`` is whether it may be the model's fault."""
        with self._lock:
            admitted_at = admission.at
            self._rate.arrived(admission, None, now)
            if isinstance(error, InputRejectedError):  # the model answered
                self._circuit.succeeded()
                self._rate_error = None
            elif isinstance(error, RateLimitedError):
                self._rate_error = copy(error)
                self._circuit.withdraw(admitted_at)
                if error.retryable and error.retry_after:
                    self._held_until = max(self._held_until, now + min(error.retry_after, LONGEST_WAIT))
            elif counts:
                self._circuit.failed(error, admitted_at, now)
            else:
                self._circuit.withdraw(admitted_at)
            if not isinstance(error, RateLimitedError):
                self._rate.first_answer()
            self._free(admission)

    def health(self, model: str, now: float) -> ModelHealth:
        """Return how the model has been doing."""
        with self._lock:
            wait = max(0.0, self._circuit.wait(now), self._held_until - now)
            error = self._rate_error or self._circuit.error
            return ModelHealth(model, self._circuit.state(now), self._circuit.failures, wait, error)

    def _free(self, admission: Admission) -> None:
        """Give the slot of a request that has ended to the caller that has waited longest."""
        self._in_flight.discard(admission)
        while self._waiting and len(self._in_flight) < self._concurrency:
            slot = self._waiting.popleft()
            if slot.set_running_or_notify_cancel():
                slot.set_result(None)
                return
