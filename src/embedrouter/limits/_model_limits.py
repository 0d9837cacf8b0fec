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
"""Seconds after which a caller that waits for a slot asks again. It then may take a slot that was given to another
caller and not used: that caller may belong to an event loop that is blocked."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A request that may not go out yet."""

    seconds: float
    """After which to ask again."""
    circuit_open: bool = False
    """Whether the reason is that the model keeps failing."""
    slot: Future[None] | None = None
    """The place in the queue, where ``max_concurrency`` requests are in flight. Done when the next slot belongs to the
    caller, which then asks again; a caller that waits no longer hands it to ``give_up``."""


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
        self._given: set[Future[None]] = set()
        """Slots of callers that have waited, and have not asked again yet."""
        self._rate = RateLimiter(requests=requests, tokens=tokens)
        self._circuit = CircuitBreaker(cooldown=cooldown, lease=lease)
        self._held_until = 0.0
        """Until when the provider asked to wait."""

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
                self._give_up(slot)  # it would stand idle meanwhile
                return Wait(seconds, circuit_open=open_for > 0)
            if not self._has_slot(slot):
                if slot is None or slot.done():
                    self._given.discard(slot)
                    slot = Future()
                    self._waiting.append(slot)
                return Wait(SLOT_POLL, slot=slot)
            if slot is not None and not slot.cancel():
                self._given.discard(slot)
            self._circuit.admit(now)
            admission = self._rate.admit(tokens, now)
            self._in_flight.add(admission)
            return admission

    def give_up(self, slot: Future[None]) -> None:
        """Take a caller out of the queue. If a slot was given to it already, the next caller gets the slot."""
        with self._lock:
            self._give_up(slot)

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
            elif isinstance(error, RateLimitedError):
                self._circuit.error = copy(error)
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
            return ModelHealth(model, self._circuit.state(now), self._circuit.failures, wait, self._circuit.error)

    def _free(self, admission: Admission) -> None:
        """Note that a request has ended."""
        self._in_flight.discard(admission)
        self._give_slots()

    def _give_slots(self) -> None:
        """Give free slots to the callers that have waited longest."""
        while self._waiting and len(self._in_flight) + len(self._given) < self._concurrency:
            slot = self._waiting.popleft()
            if slot.set_running_or_notify_cancel():
                self._given.add(slot)
                slot.set_result(None)

    def _give_up(self, slot: Future[None] | None) -> None:
        if slot is not None and not slot.cancel() and slot in self._given:
            self._given.remove(slot)
            self._give_slots()

    def _has_slot(self, slot: Future[None] | None) -> bool:
        """Return whether a request may go out; slots that were given to other callers are left to them at first."""
        free = self._concurrency - len(self._in_flight)
        has_waited = slot is not None and (slot in self._given or not slot.done())
        return free > (0 if has_waited else len(self._given))
