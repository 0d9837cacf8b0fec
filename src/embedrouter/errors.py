"""Every error that embedrouter raises.

    EmbedRouterError
    ├── ConfigError (ValueError)            a setting is wrong or missing; nothing was called
    │   └── SpaceMismatchError              vectors would not be comparable
    ├── InvalidInputError (ValueError)      the texts are at fault; nothing was called
    ├── BudgetExceededError                 the money does not suffice
    ├── LedgerError                         the ledger failed, and without it no budget can hold
    ├── NoModelAvailableError               every candidate was tried or none fits
    └── BackendError                        one provider request failed
        ├── AuthenticationError             the key is missing, wrong or not allowed
        ├── RateLimitedError                429
        ├── UnavailableError                the provider or the way to it is down, or the model is gone
        │   └── LeftAloneError              it was not asked, because it keeps failing
        ├── RequestTimeoutError (TimeoutError)
        ├── InputRejectedError (ValueError) the provider refuses these texts
        └── BadResponseError                200, but not the vectors that were asked for

Attributes are the interface; a message ends with what to do next. Provider SDK exceptions are translated in the
backends only and stay reachable as ``__cause__``, unless they repeat a text or a key: neither is ever part of a
message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

__all__ = [
    "Attempt",
    "AuthenticationError",
    "BackendError",
    "BadResponseError",
    "BudgetExceededError",
    "CacheWarning",
    "ConfigError",
    "DegradedWarning",
    "EmbedRouterError",
    "InputRejectedError",
    "InvalidInputError",
    "LedgerError",
    "LeftAloneError",
    "NoModelAvailableError",
    "RateLimitedError",
    "RequestTimeoutError",
    "SpaceMismatchError",
    "StalePriceWarning",
    "UnavailableError",
]


class EmbedRouterError(Exception):
    """Base of all errors of this package."""

    def __copy__(self) -> Self:
        """Return it without its traceback and cause, which hold the call: its texts, its vectors, its connection.

        ``__init__`` is not called: users have errors of their own, made of something else than a message.
        """
        other = type(self).__new__(type(self))
        other.args = self.args
        other.__dict__.update(self.__dict__)
        return other


class DegradedWarning(UserWarning):
    """A query was answered by a lower tier than it asked for, because no other could answer or be paid."""


class CacheWarning(UserWarning):
    """The cache failed: texts are embedded as if it were not there, and what is paid for is not kept."""


class StalePriceWarning(UserWarning):
    """A price in use was read from the maker's page more than a year ago."""


class ConfigError(EmbedRouterError, ValueError):
    """A setting is wrong or missing."""


class SpaceMismatchError(ConfigError):
    """Vectors of two embedding spaces would have met."""


class InvalidInputError(EmbedRouterError, ValueError):
    """Some texts cannot be embedded; ``indices`` are their positions in the input."""

    def __init__(self, message: str, *, indices: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.indices = tuple(indices)


class BudgetExceededError(EmbedRouterError):
    """The next paid step would pass the budget; it was not taken."""


class LedgerError(EmbedRouterError):
    """The ledger's file failed while it was in use, and a budget depends on it; no more money is spent."""


class BackendError(EmbedRouterError):
    """One request to one model failed.

    Attributes:
        model: the model's name, such as ``"openai:text-embedding-3-small"``.
        retryable: whether the same request may succeed later.
        retry_after: seconds the provider asked to wait, or ``None``.
        status: the HTTP status, or ``None`` where there was no answer.
        perhaps_billed: whether the request went out and its answer never came.
    """

    retryable = False
    perhaps_billed = False

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


class AuthenticationError(BackendError):
    """The key is missing, wrong, or not allowed to use the model."""


class RateLimitedError(BackendError):
    """The provider asks to slow down, or the account's quota is used up (then not retryable)."""

    retryable = True


class UnavailableError(BackendError):
    """The provider failed, could not be reached, or does not serve the model (then not retryable)."""

    retryable = True


class LeftAloneError(UnavailableError):
    """The model was not asked, because it keeps failing; it is probed again after a while."""

    retryable = False


class RequestTimeoutError(BackendError, TimeoutError):
    """No answer came in time; the request may have been billed."""

    retryable = True
    perhaps_billed = True


class InputRejectedError(BackendError, ValueError):
    """The provider refuses the texts of a request.

    Attributes:
        too_long: whether the reason is a text over the model's limit.
        indices: positions in the caller's input (in the request, while inside a backend) of the texts at fault,
            as far as they are known.
    """

    def __init__(
        self,
        message: str,
        *,
        model: str = "",
        status: int | None = None,
        too_long: bool = False,
        indices: Sequence[int] = (),
    ) -> None:
        super().__init__(message, model=model, status=status)
        self.too_long = too_long
        self.indices = tuple(indices)


class BadResponseError(BackendError):
    """An answer came that does not hold one finite, non-zero vector of the right dimension for each text."""

    retryable = True
    perhaps_billed = True


@dataclass(frozen=True, slots=True)
class Attempt:
    """One failed request: which model, why, and what it cost (US dollars; ``None`` where unknown)."""

    model: str
    error: BackendError
    cost: Decimal | None = Decimal(0)

    def __str__(self) -> str:
        return f"{self.model}: {type(self.error).__name__}: {self.error}"


class NoModelAvailableError(EmbedRouterError):
    """No candidate could answer; ``attempts`` tells every request made, in order."""

    def __init__(self, message: str, *, attempts: Sequence[Attempt] = ()) -> None:
        self.attempts = tuple(attempts)
        story = "".join(f"\n  {number}. {attempt}" for number, attempt in enumerate(self.attempts, 1))
        super().__init__(message + story)
