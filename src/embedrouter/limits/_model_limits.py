"""Admit requests to one model: concurrency, rate limiter, circuit breaker, and waits that the provider requests.

Each model of a router has one ``ModelLimits``, which counts the requests of all threads and event loops of the process
together. ``admit`` returns at once; callers wait outside of this module.
"""

from collections import deque
from collections.abc import Callable, Hashable
from copy import copy
from dataclasses import dataclass

from .._process import Future, Lock
from ..errors import BackendError, InputRejectedError, RateLimitedError
from ..types import RateLimits
from ._circuit_breaker import CircuitBreaker, CircuitState
from ._rate_limiter import LONGEST_WAIT, Admission, RateLimiter

SLOT_POLL = 1.0
"""Seconds after which a waiting caller calls ``admit`` again. The caller may then take a slot that is assigned to
another caller and not used, because the other caller may belong to an event loop that is blocked."""
PROBE_POLL = 0.1
"""Seconds until the next check, while one request finds out whether the provider still limits the rate."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The wait of a request that is not admitted yet."""

    seconds: float
    """Seconds after which to call ``admit`` again."""
    circuit_open: bool = False
    """Whether the circuit breaker is the reason."""
    unreached: BackendError | None = None
    """The last error of a server behind that circuit which has never answered."""
    slot: Future[None] | None = None
    """The place in the queue, where ``max_concurrency`` requests are in flight. Done when a slot is assigned to the
    caller, which then calls ``admit`` again; a caller that no longer waits passes the place to ``give_up``."""
    refused: bool = False
    """Whether an HTTP 429 is the reason."""


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """The health of a model, as seen by this process."""

    model: str
    state: CircuitState
    """State of the circuit breaker: ``"closed"`` admits requests, ``"open"`` admits none, ``"half-open"`` admits one,
    which closes or opens the circuit."""
    failures: int
    """Failures in a row."""
    retry_in: float
    """Seconds until the next request, because of an open circuit or of a wait that the provider requests."""
    error: BackendError | None
    """The last error, without traceback and cause."""
    runtime: str = ""
    """What computes a local model in this process, with its version, and why not what was to be tried first, such as
    ``"openvino (openvino 2026.4.1)"``. Empty for other models, and until a model of sentence-transformers is loaded."""


class ModelLimits:
    """Admit requests to one model.

    Args:
        concurrency: maximum number of requests in flight, of all threads and event loops together.
        requests: declared limit of requests per minute; ``None`` to follow the limit that the provider reports.
        texts: declared limit of texts per minute.
        tokens: declared limit of tokens per minute; ``None`` likewise.
        cooldown: seconds that an open circuit admits no request; doubled after each failed probe.
        lease: seconds after which a probe without a recorded outcome is forgotten.
        backoff: returns the seconds without requests after so many HTTP 429 in a row, of which it is given the last.
            Then one request goes out, and the others wait for its outcome. Without it only the waits that the provider
            requests are kept.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        requests: int | None,
        texts: int | None = None,
        tokens: int | None,
        cooldown: float,
        lease: float,
        backoff: Callable[[int, RateLimitedError], float] | None = None,
    ) -> None:
        self._lock = Lock()
        self._lease, self._backoff = lease, backoff
        self._concurrency = concurrency
        self._in_flight: set[Admission] = set()
        self._waiting: deque[Future[None]] = deque()
        self._given: set[Future[None]] = set()
        """Slots that are assigned to waiting callers and not used yet."""
        self._rate = RateLimiter(requests=requests, texts=texts, tokens=tokens)
        self._circuit = CircuitBreaker(cooldown=cooldown, lease=lease)
        self._held_until = 0.0
        """End of the wait that the provider requests, or of a wait after HTTP 429."""
        self._refused = 0
        """HTTP 429 in a row, of one request at a time."""
        self._refused_at = 0.0
        self._probe: Admission | None = None
        """The request that finds out whether the provider still limits the rate."""
        self.refusal: RateLimitedError | None = None
        """The last HTTP 429 of a probe, which counts for all that have waited for it; without traceback and cause."""

    def admit(
        self,
        tokens: int,
        now: float,
        *,
        texts: int = 1,
        least: int | None = None,
        slot: Future[None] | None = None,
        loop: Hashable = None,
        blocked_loop: Hashable = None,
    ) -> Admission | Wait:
        """Admit a request of ``tokens``, which is then sent at once, or return the wait.

        Args:
            texts: the number of the request's texts.
            least: tokens of the first text, where a part of the request may be sent before the rest; the admission has
                the texts and tokens of the part.
            slot: the slot of the request's earlier ``Wait``, which keeps its place in the queue.
            loop: the event loop whose task makes the request.
            blocked_loop: the event loop that the caller blocks. Requests of its tasks cannot end meanwhile, so they do
                not count: the caller would wait for ever.
        """
        with self._lock:
            open_for = self._circuit.wait(now)
            texts, tokens, rate = self._rate.fit(texts, tokens, tokens if least is None else least, now)
            probe = PROBE_POLL if self._is_probed(now, blocked_loop) else 0.0
            refused = max(self._held_until - now, probe) if self._refused else 0.0
            seconds = max(open_for, self._held_until - now, rate, probe)
            if seconds > 0:
                self._give_up(slot)  # the slot would be idle during the wait
                last = self._circuit.error if open_for > 0 else None
                unreached = last if last is not None and last.unreached else None
                return Wait(seconds, open_for > 0, unreached=unreached, refused=refused >= seconds)
            if not self._has_slot(slot, blocked_loop):
                if slot is None or slot.done():
                    self._given.discard(slot)
                    slot = Future()
                    self._waiting.append(slot)
                return Wait(SLOT_POLL, slot=slot)
            if slot is not None and not slot.cancel():
                self._given.discard(slot)
            self._circuit.admit(now)
            admission = self._rate.admit(texts, tokens, now)
            admission.loop = loop
            self._in_flight.add(admission)
            if self._refused:
                self._probe = admission
            return admission

    def give_up(self, slot: Future[None]) -> None:
        """Remove a caller from the queue. A slot that is assigned to the caller goes to the next caller."""
        with self._lock:
            self._give_up(slot)

    def release(self, admission: Admission) -> None:
        """Release a request that was admitted and not sent; do nothing after a recorded outcome."""
        with self._lock:
            if admission in self._in_flight:
                self._circuit.release(admission.at)
                self._rate.release(admission)
                self._free(admission)

    def answered(
        self, admission: Admission, tokens: int | None, limits: RateLimits | None, now: float
    ) -> CircuitState | None:
        """Record an answer: the billed tokens, and the limits that the provider reports.

        Returns the new state of the circuit, if the answer has closed it.
        """
        with self._lock:
            closed = self._circuit.openings > 0
            self._circuit.succeeded()
            self._accepted(admission)
            self._rate.arrived(admission, tokens, now)
            self._rate.first_answer()
            if limits is not None:
                self._rate.report(limits, now)
            self._free(admission)
            return "closed" if closed else None

    def failed(
        self, admission: Admission, error: BackendError, now: float, *, counts: bool = True
    ) -> CircuitState | None:
        """Record a failure; ``counts`` is whether the circuit breaker counts the failure.

        Returns the new state of the circuit, if the failure has opened it, or a refusal of the texts has closed it.
        """
        with self._lock:
            openings = self._circuit.openings
            admitted_at = admission.at
            self._rate.arrived(admission, None, now)
            if isinstance(error, InputRejectedError):  # the model answered
                self._circuit.succeeded()
                self._accepted(admission)
            elif isinstance(error, RateLimitedError):
                self._circuit.error = copy(error)
                self._circuit.release(admitted_at)
                if error.limits is not None:
                    self._rate.report(error.limits, now)
                if error.retryable and error.retry_after:
                    self._held_until = max(self._held_until, now + min(error.retry_after, LONGEST_WAIT))
                if error.retryable:
                    self._limited(admission, error, now)
            elif counts:
                self._circuit.failed(error, admitted_at, now)
            else:
                self._circuit.release(admitted_at)
            if not isinstance(error, RateLimitedError):
                self._rate.first_answer()
            self._free(admission)
            if self._circuit.openings == openings:
                return None
            return "open" if self._circuit.openings else "closed"

    def unanswered(self, admission: Admission, now: float) -> None:
        """Record a request that was sent and given up: the provider may count the request."""
        with self._lock:
            self._circuit.release(admission.at)
            self._rate.arrived(admission, None, now)
            self._free(admission)

    def health(self, model: str, now: float) -> ModelHealth:
        """Return the health of the model."""
        with self._lock:
            wait = max(0.0, self._circuit.wait(now), self._held_until - now)
            return ModelHealth(model, self._circuit.state(now), self._circuit.failures, wait, self._circuit.error)

    def _limited(self, admission: Admission, error: RateLimitedError, now: float) -> None:
        """Wait after an HTTP 429, longer after each; those of requests that were in flight with the first are one."""
        if self._backoff is None or (self._refused and admission is not self._probe):
            return
        if self._refused:
            self.refusal = copy(error)
        self._refused += 1
        self._refused_at = now
        self._held_until = max(self._held_until, now + self._backoff(self._refused, error))

    def _accepted(self, admission: Admission) -> None:
        """End the waits after HTTP 429, unless the request was in flight before."""
        if admission.at >= self._refused_at:
            self._refused, self._probe = 0, None

    def _is_probed(self, now: float, blocked_loop: Hashable) -> bool:
        """Return whether a request in flight finds out for all. In a loop that the caller blocks it would not end."""
        probe = self._probe
        return (
            self._refused > 0
            and probe is not None
            and probe in self._in_flight
            and now < probe.at + self._lease
            and (blocked_loop is None or probe.loop is not blocked_loop)
        )

    def _free(self, admission: Admission) -> None:
        """End a request, and assign its slot to a waiting caller."""
        self._in_flight.discard(admission)
        admission.loop = None  # an admission outlives the request by a minute, and must not hold its loop
        self._give_slots()

    def _give_slots(self) -> None:
        """Assign free slots to the callers that have waited longest."""
        while self._waiting and len(self._in_flight) + len(self._given) < self._concurrency:
            slot = self._waiting.popleft()
            if slot.set_running_or_notify_cancel():
                self._given.add(slot)
                slot.set_result(None)

    def _give_up(self, slot: Future[None] | None) -> None:
        if slot is not None and not slot.cancel() and slot in self._given:
            self._given.remove(slot)
            self._give_slots()

    def _has_slot(self, slot: Future[None] | None, blocked_loop: Hashable) -> bool:
        """Return whether a slot is free. Only a caller that has waited may take slots of other callers."""
        counted = self._in_flight
        if blocked_loop is not None:
            counted = {admission for admission in counted if admission.loop is not blocked_loop}
        free = self._concurrency - len(counted)
        has_waited = slot is not None and (slot in self._given or not slot.done())
        return free > (0 if has_waited else len(self._given))
