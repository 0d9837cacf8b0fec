"""Circuit breaker: pause the requests to a model that keeps failing.

The circuit is closed while the model answers. After ``FAILURES`` failed requests in a row the circuit opens: no request
is made for ``cooldown`` seconds. Then the circuit is half-open and admits one request: success closes the circuit,
failure opens the circuit again, for twice the time.

Times are seconds of a monotonic clock, passed as arguments. The breaker has no lock: ``ModelLimits`` holds one.
"""

from copy import copy
from typing import Literal, TypeAlias

from ..errors import BackendError, BadResponseError, RequestTimeoutError, UnavailableError

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]

FAILURES = 8
"""Failed requests in a row that open the circuit."""
COUNTED = (UnavailableError, RequestTimeoutError, BadResponseError)
"""Errors that count as failures of the model."""
LONGEST_OPEN = 300.0
"""Maximum seconds that a circuit stays open."""
PROBE_POLL = 1.0
"""Seconds until the next check, while the request of a half-open circuit is in flight."""


class CircuitBreaker:
    """Count failures in a row.

    Args:
        cooldown: seconds that the circuit stays open the first time; 0 disables the circuit breaker.
        lease: seconds after which a half-open circuit admits another request, if the first has no recorded outcome.
    """

    def __init__(self, *, cooldown: float, lease: float) -> None:
        self._cooldown, self._lease = cooldown, lease
        self.failures = 0
        """Failures in a row."""
        self.error: BackendError | None = None
        """The last counted failure or rate-limit error, without traceback and cause."""
        self.openings = 0
        """How often the circuit was opened since it was closed."""
        self._open_until = self._probe_until = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until a request may be made."""
        if self.failures < FAILURES or not self._cooldown:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return min(PROBE_POLL, max(0.0, self._probe_until - now))

    def state(self, now: float) -> CircuitState:
        """Return the state of the circuit."""
        if self.failures < FAILURES:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def admit(self, now: float) -> None:
        """Record an admitted request; a half-open circuit admits one request at a time."""
        if self.failures >= FAILURES:
            self._probe_until = now + self._lease

    def release(self, admitted_at: float) -> None:
        """Release an admitted request that was not sent."""
        if admitted_at >= self._open_until:
            self._probe_until = 0.0

    def succeeded(self) -> None:
        """Close the circuit."""
        self.failures = self.openings = 0
        self._open_until = self._probe_until = 0.0
        self.error = None

    def failed(self, error: BackendError, admitted_at: float, now: float) -> None:
        """Record a failure; only errors in ``COUNTED`` open the circuit."""
        after_opening = admitted_at >= self._open_until
        if error.retryable and isinstance(error, COUNTED):
            self.failures += 1
            self.error = copy(error)
            if self._cooldown and self.failures >= FAILURES and after_opening:
                self._open_until = now + min(self._cooldown * 2.0 ** min(self.openings, 30), LONGEST_OPEN)
                self.openings += 1
        if after_opening:
            self._probe_until = 0.0
