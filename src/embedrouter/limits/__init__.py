"""Limit the requests to a model: concurrency, rate limiter, circuit breaker, retry policy."""

from ._circuit_breaker import CircuitState
from ._model_limits import ModelHealth, ModelLimits, Wait
from ._rate_limiter import INSTANT, MINUTE, REQUESTS_PER_LIMIT, Admission
from ._retry import RetryPolicy
