"""The circuit breaker: whether a model that keeps failing is asked.

It is closed while the model answers. After ``FAILURES`` failed requests in a row it opens, and the model is not asked
for ``cooldown`` seconds. Then it is half-open: one request goes out, an answer closes the circuit, a failure opens it
for twice the time.

Times are seconds of a monotonic clock and are passed in. The breaker has no lock; ``ModelLimits`` holds one.
"""

from __future__ import annotations

from copy import copy
from typing import Literal, TypeAlias

from ..errors import (
    BackendError,
    BadResponseError,
    RequestTimeoutError,
    UnavailableError,
)

__all__ = ["CircuitBreaker", "CircuitState"]

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]

FAILURES = 8
"""Failed requests in a row that open the circuit."""
COUNTED = (UnavailableError, RequestTimeoutError, BadResponseError)
"""Failures that may be the model's fault."""
LONGEST_OPEN = 300.0
"""Seconds that a circuit stays open at most."""
PROBE_POLL = 1.0
"""Seconds after which to ask again while the one request of a half-open circuit is out."""


class CircuitBreaker:
    """Counts failures in a row.

    Args:
        cooldown: seconds that the circuit stays open the first time; 0 never opens it.
        lease: seconds after which the request of a half-open circuit is given up, if its outcome never comes.
    """

    def __init__(self, *, cooldown: float, lease: float) -> None:
        self._cooldown, self._lease = cooldown, lease
        self.failures = 0
        """In a row."""
        self.error: BackendError | None = None
        """The last failure that was counted or concerned the rate, without traceback and cause."""
        self._openings = 0
        self._open_until = self._probe_until = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the model may be asked."""
        if self.failures < FAILURES or not self._cooldown:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        return min(PROBE_POLL, max(0.0, self._probe_until - now))

    def state(self, now: float) -> CircuitState:
        if self.failures < FAILURES:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def admit(self, now: float) -> None:
        """Note that a request goes out: in a half-open circuit it is the only one."""
        if self.failures >= FAILURES:
            self._probe_until = now + self._lease

    def withdraw(self, admitted_at: float) -> None:
        """Note that an admitted request was not sent after all."""
        if admitted_at >= self._open_until:
            self._probe_until = 0.0

    def succeeded(self) -> None:
        """Close the circuit."""
        self.failures = self._openings = 0
        self._open_until = self._probe_until = 0.0
        self.error = None

    def failed(self, error: BackendError, admitted_at: float, now: float) -> None:
        """Note a failure; one that cannot be the model's fault is not counted."""
        after_opening = admitted_at >= self._open_until
        if error.retryable and isinstance(error, COUNTED):
            self.failures += 1
            self.error = copy(error)
            if self.failures >= FAILURES and after_opening:
                self._open_until = now + min(self._cooldown * 2.0**self._openings, LONGEST_OPEN)
                self._openings += 1
        if after_opening:
            self._probe_until = 0.0
