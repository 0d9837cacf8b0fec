"""Errors and warnings.

    EmbedRouterError
    ├── ConfigError (ValueError)            a setting is wrong or missing; no request was made
    │   └── SpaceMismatchError              vectors of two spaces would be compared
    ├── InvalidInputError (ValueError)      the texts cannot be embedded; no request was made
    ├── BudgetExceededError                 the budget does not cover the next request
    ├── CacheError                          the cache keeps no vectors, and keeping them is the purpose
    ├── LedgerError                         the ledger failed, and a budget cannot hold without it
    ├── OutOfThreadsError (RuntimeError)    the system has no more threads
    ├── NoModelAvailableError               every model of the tier failed, or no model has the tier
    └── BackendError                        one provider request failed
        ├── AuthenticationError             the key is missing, wrong or not allowed
        ├── RateLimitedError                HTTP 429
        ├── UnavailableError                the provider cannot be reached, or does not serve the model
        │   └── CircuitOpenError            the circuit breaker is open: the request was not made
        ├── RequestTimeoutError (TimeoutError)
        ├── InputRejectedError (ValueError) the provider refuses these texts, or gives no usable vector for them
        └── BadResponseError                the answer does not hold the vectors that were requested

Attributes are the interface; a message ends with the next action. Only backends translate the exceptions of provider
SDKs. The original stays reachable as ``__cause__``, unless it repeats a text or a key, which no message may contain.
What others wrote is shown on one line, without characters that a terminal obeys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Self

from ._display import escaped
from .types import RateLimits

__all__ = [
    "Attempt",
    "AuthenticationError",
    "BackendError",
    "BadResponseError",
    "BudgetExceededError",
    "CacheError",
    "CacheWarning",
    "CircuitOpenError",
    "ConfigError",
    "DegradedWarning",
    "EmbedRouterError",
    "InputRejectedError",
    "InvalidInputError",
    "LedgerError",
    "NoModelAvailableError",
    "OutOfThreadsError",
    "RateLimitedError",
    "RequestTimeoutError",
    "RetirementWarning",
    "SpaceMismatchError",
    "StalePriceWarning",
    "UnavailableError",
]


class _Escaped(Exception):
    def __str__(self) -> str:
        return escaped(super().__str__())


class EmbedRouterError(_Escaped):
    """Base of all errors of this package."""

    def __copy__(self) -> Self:
        """Copy the error without its traceback and cause, which keep texts, vectors and a connection in memory.

        ``__init__`` is not called, because a subclass of a user may take other arguments than a message.
        """
        other = type(self).__new__(type(self))
        other.args = self.args
        other.__dict__.update(self.__dict__)
        return other


class DegradedWarning(_Escaped, UserWarning):
    """A query was answered by a lower tier than requested: every better model was down or over the budget."""


class CacheWarning(_Escaped, UserWarning):
    """The cache failed: the router goes on without it, and new vectors are not stored."""


class StalePriceWarning(_Escaped, UserWarning):
    """A price in use was checked on the maker's page more than a year ago."""


class RetirementWarning(_Escaped, UserWarning):
    """The maker of a model in use stops serving it within 90 days, or has stopped."""


class ConfigError(EmbedRouterError, ValueError):
    """A setting is wrong or missing."""


class SpaceMismatchError(ConfigError):
    """Vectors of two embedding spaces would be mixed or compared."""


class InvalidInputError(EmbedRouterError, ValueError):
    """Some texts cannot be embedded; ``indices`` are their positions in the input."""

    def __init__(self, message: str, *, indices: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.indices = tuple(indices)


class BudgetExceededError(EmbedRouterError):
    """The next paid request would exceed the budget and was not made.

    Attributes:
        tag: whose cap it is, in a budget with caps for tags; ``""`` where the cap counts everything.
    """

    def __init__(self, message: str, *, tag: str = "") -> None:
        super().__init__(message)
        self.tag = tag


class CacheError(EmbedRouterError):
    """The cache cannot keep vectors whose purpose is to be kept there, as those of a batch; no more money is spent."""


class LedgerError(EmbedRouterError):
    """The ledger's file failed while a budget depends on it; no more money is spent."""


class OutOfThreadsError(EmbedRouterError, RuntimeError):
    """The system has no more threads, and the call cannot go on without one."""


class BackendError(EmbedRouterError):
    """One request to one model failed.

    Attributes:
        model: the model's name, such as ``"openai:text-embedding-3-small"``.
        retryable: whether the same request may succeed later.
        retry_after: seconds the provider asked to wait, or ``None``.
        status: the HTTP status, or ``None`` without an answer.
        perhaps_billed: whether the request was sent and no answer of the provider arrived.
        unreached: whether the server has not answered this process yet, so that its address may be wrong. Such a
            request is retried for a second, and an open circuit is not waited for.
    """

    retryable = False
    perhaps_billed = False
    unreached = False

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        retryable: bool | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        perhaps_billed: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.retry_after = retry_after
        self.status = status
        if retryable is not None:
            self.retryable = retryable
        if perhaps_billed is not None:
            self.perhaps_billed = perhaps_billed

    @property
    def busy(self) -> bool:
        """Whether the provider will answer later, and says so: a limit of the rate, or HTTP 503."""
        return self.retryable and (isinstance(self, RateLimitedError) or self.status == 503)


class AuthenticationError(BackendError):
    """The API key is missing, wrong, or not allowed to use the model."""


class RateLimitedError(BackendError):
    """The provider limits the rate of requests, or the account's quota is used up (then not retryable).

    Attributes:
        limits: the limits that the refusal names, or ``None``.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        retryable: bool | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        perhaps_billed: bool | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(
            message,
            model=model,
            retryable=retryable,
            retry_after=retry_after,
            status=status,
            perhaps_billed=perhaps_billed,
        )
        self.limits = limits


class UnavailableError(BackendError):
    """The provider failed, could not be reached, or does not serve the model (then not retryable)."""

    retryable = True


class CircuitOpenError(UnavailableError):
    """The circuit breaker of the model is open: the request was not made.

    The breaker opens after several failures in a row and lets one request through after a while (half-open): success
    closes the breaker, failure opens it again.
    """

    retryable = False


class RequestTimeoutError(BackendError, TimeoutError):
    """No answer arrived in time; the request may have been billed."""

    retryable = True
    perhaps_billed = True


class InputRejectedError(BackendError, ValueError):
    """The provider refuses the texts of a request, or gives no usable vector for them.

    Attributes:
        too_long: whether the reason is a text over the model's limit.
        indices: positions of the refused texts in the caller's input (in the request, while inside a backend), where
            they are known.
        limit: tokens that one text may have, where the refusal names the number.
        batch_size: texts that one request may have, where the refusal names the number.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        too_long: bool = False,
        indices: Sequence[int] = (),
        limit: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(message, model=model, status=status)
        self.too_long = too_long
        self.limit, self.batch_size = limit, batch_size
        self.indices = tuple(indices)


class BadResponseError(BackendError):
    """The answer does not hold one finite, non-zero vector of the right dimension for each text.

    Attributes:
        indices: positions in the request of the texts without such a vector, where the answer has one for each text.
    """

    retryable = True
    perhaps_billed = True

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        retryable: bool | None = None,
        retry_after: float | None = None,
        status: int | None = None,
        perhaps_billed: bool | None = None,
        indices: Sequence[int] = (),
    ) -> None:
        super().__init__(
            message,
            model=model,
            retryable=retryable,
            retry_after=retry_after,
            status=status,
            perhaps_billed=perhaps_billed,
        )
        self.indices = tuple(indices)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed request: the model, the error and the cost in US dollars (``None``: unknown)."""

    model: str
    error: BackendError
    cost: Decimal | None = Decimal(0)

    def __str__(self) -> str:
        return escaped(f"{self.model}: {type(self.error).__name__}: {self.error}")


class NoModelAvailableError(EmbedRouterError):
    """No model answered; ``attempts`` lists every failed request, in order; equal ones are one line of the message."""

    def __init__(self, message: str, *, attempts: Sequence[Attempt] = ()) -> None:
        super().__init__(message)
        self.attempts = tuple(attempts)

    def __str__(self) -> str:
        first, story = 1, super().__str__()
        for attempt, equal in groupby(map(str, self.attempts)):
            times = len(list(equal))
            last = first + times - 1
            number = f"{first}." if times == 1 else f"{first}-{last}."
            story += f"\n  {number} {attempt}" + (f" ({times} times)" if times > 1 else "")
            first = last + 1
        return story
