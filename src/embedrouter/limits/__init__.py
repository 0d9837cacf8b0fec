"""Limit the requests to a model: concurrency, rate limiter, circuit breaker, retry policy."""

from ._circuit_breaker import CircuitState
from ._model_limits import ModelHealth, ModelLimits, Wait
from ._rate_limiter import INSTANT, MINUTE, REQUESTS_PER_LIMIT, UNKNOWN_LIMIT, Admission, Quotas
from ._retry import RetryPolicy
from ._shared import Held, Outcome, SharedLimits, SharedModelLimits, Ticket
