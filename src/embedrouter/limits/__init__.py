"""Whether a model may be asked now, and again: rate limiter, circuit breaker, retry policy."""

from ._gate import FINEST, MINUTE, Admission, Gate, ModelHealth, Wait
from ._retry import RetryPolicy

__all__ = [
    "FINEST",
    "MINUTE",
    "Admission",
    "Gate",
    "ModelHealth",
    "RetryPolicy",
    "Wait",
]
