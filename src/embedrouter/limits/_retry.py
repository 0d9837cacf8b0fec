"""Retry policy: the number of attempts, and the waits between attempts."""

from dataclasses import dataclass, fields

from .._display import explained, shown
from .._values import as_number
from ..errors import BackendError, ConfigError

CALL, WAIT = "RetryPolicy(attempts=3)", "RetryPolicy(initial_wait=0.5, max_wait=20)"


@explained(CALL, retries=CALL, max_retries=CALL, num_retries=CALL, total=CALL, backoff=WAIT, backoff_factor=WAIT)
@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits of the retries of one provider request.

    The wait before attempt n+1 is the provider's ``Retry-After``, otherwise a random time up to ``initial_wait * 2**n``
    seconds, at most ``max_wait`` (full jitter: callers that fail together do not retry together).
    """

    attempts: int = 5
    """Attempts in all; 1 disables retries. A model that is busy (HTTP 429, 503) is not given up after so many attempts
    but after ``timeout``, unless another model may answer; then it is called at the intervals of the last attempts, or
    longer ones that it asks for."""
    timeout: float = 60.0
    """Seconds for one provider request with all attempts and waits, without the time in the queue behind other calls. A
    longer ``Retry-After`` ends the attempts.
    """
    initial_wait: float = 0.5
    max_wait: float = 20.0
    cooldown: float = 10.0
    """Seconds that the circuit breaker stays open before one request probes the model; 0 disables the circuit breaker.
    """

    def __post_init__(self) -> None:
        for item in fields(RetryPolicy):  # a subclass may have others
            kind = int if item.name == "attempts" else float
            number = as_number(getattr(self, item.name), f"RetryPolicy.{item.name}", kind, needed=True)
            object.__setattr__(self, item.name, number)
        if self.attempts < 1:
            raise ConfigError(f"RetryPolicy.attempts must be at least 1, not {shown(self.attempts)}.")
        for name in ("timeout", "initial_wait", "max_wait", "cooldown"):
            if getattr(self, name) < 0:
                raise ConfigError(f"RetryPolicy.{name} must not be negative, not {shown(getattr(self, name))}.")

    @property
    def is_patient(self) -> bool:
        """Whether a busy model is waited for: not without retries, nor without waits between them."""
        return self.attempts > 1 and self.initial_wait > 0

    def wait(self, attempt: int, error: BackendError, chance: float) -> float | None:
        """Return the seconds to wait after failed ``attempt`` (from 1), or ``None`` to give up.

        Args:
            chance: a random number from 0 to 1.
        """
        if not error.retryable or attempt >= self.attempts:
            return None
        if error.retry_after:
            return error.retry_after + chance * min(self.initial_wait, error.retry_after)
        return self.backoff(attempt, chance)

    def backoff(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait after failed ``attempt`` where the provider asks for none."""
        return chance * min(self.max_wait, self.initial_wait * 2.0**attempt)
