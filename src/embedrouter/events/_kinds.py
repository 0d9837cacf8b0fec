"""The events of limits, spending, cache and models."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from ._event import CACHE, LIMITS, MODELS, SPENDING, Event

# Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitWaited(Event):
    """A request was held back by a limit, and may go out now."""

    level = logging.INFO
    logger = LIMITS
    message = "%(model)s: waited %(seconds).2f s for %(limit)s"

    limit: Literal["rate limit", "concurrency limit", "open circuit"]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitOpened(Event):
    """A model keeps failing: it gets no request for a while. Once for each opening."""

    level = logging.WARNING
    logger = LIMITS
    message = "%(model)s failed %(failures)d times in a row, last with %(error)s: no request for %(seconds).0f s"

    failures: int
    error: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitClosed(Event):
    """A model answers again."""

    level = logging.INFO
    logger = LIMITS
    message = "%(model)s answers again"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitLearned(Event):
    """A server's refusals have told a limit, which is kept for the process. Once for each limit."""

    level = logging.WARNING
    logger = LIMITS
    message = "%(model)s takes at most %(limit)d %(what)s; set Model(…, %(setting)s=%(limit)d)"

    limit: int
    what: Literal["texts in one request", "tokens in one text"]
    setting: Literal["batch_size", "max_input_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStateFailed(Event):
    """The server of ``state=`` does not answer, and calls go on without what workers share there.

    Once for limits, claims and records each, until it answers again.
    """

    level = logging.WARNING
    logger = LIMITS
    message = (
        "The shared %(what)s on %(place)s cannot be used (%(reason)s): %(consequence)s. The server is tried again "
        "every few seconds."
    )

    what: Literal["limits", "claims", "records"]
    place: str
    """The address, without a password."""
    reason: str
    consequence: str


# Spending


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRefused(Event):
    """The budget does not cover a call, a request or a batch, which was not made."""

    level = logging.WARNING
    logger = SPENDING
    message = "%(model)s was not called: %(reason)s"

    cost: Decimal | None
    """Estimate; ``None`` where the price is unknown."""
    reason: str
    """The cap and the amounts, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendingUnconfirmed(Event):
    """A request was sent and never answered: it may have been billed, and stays counted."""

    level = logging.WARNING
    logger = SPENDING
    message = (
        "%(model)s may have billed %(cost)s for a request without an answer, which stays counted. Compare with the "
        "provider's bill: embedrouter ledger show."
    )

    texts: int
    tokens: int
    """Estimate."""
    cost: Decimal | None
    """Estimate; ``None`` where the price is unknown."""
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BillImplausible(Event):
    """A server reported a number of tokens that cannot be true; estimates are booked. Once for each model."""

    level = logging.WARNING
    logger = SPENDING
    message = (
        "%(model)s reported %(reported)s billed tokens for %(texts)d texts of about %(tokens)d tokens. The estimate "
        "is booked in place of such bills, and marked: embedrouter ledger show. Check the server, or the gateway "
        "before it."
    )

    reported: str
    texts: int
    tokens: int
    """Estimate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFailed(Event):
    """The ledger's file failed: bookings wait in memory, and under a budget calls are refused.

    Once for each cause, until the file works again.
    """

    level = logging.WARNING
    logger = SPENDING
    message = "The ledger %(file)s failed (%(reason)s); %(consequence)s until it works again. %(advice)s"

    file: str
    reason: str
    consequence: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BookingsLost(Event):
    """The process ends, and the ledger's file still fails: bookings in memory are lost."""

    level = logging.ERROR
    logger = SPENDING
    message = (
        "The ledger %(file)s still failed when the process ended: %(bookings)d bookings are lost. Compare with the "
        "provider's bill. %(advice)s"
    )

    file: str
    bookings: int
    advice: str


# Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFailed(Event):
    """The cache could not be used, and the call goes on without it. Once for each cause, until it works again."""

    level = logging.WARNING
    logger = CACHE
    message = "The cache %(place)s could not be %(action)s (%(reason)s): %(consequence)s. %(advice)s"

    place: str
    """Its folder, or the class of the user's store."""
    action: Literal["read", "written", "closed"]
    reason: str
    consequence: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheRowsDamaged(Event):
    """Rows of the cache are damaged and count as absent. Once for each router, at the first ones."""

    level = logging.WARNING
    logger = CACHE
    message = (
        "The cache %(place)s has damaged rows, which count as absent and are counted in router.cache.damaged. Check it "
        "with: embedrouter cache verify."
    )

    place: str
    rows: int


# Models


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChanged(Event):
    """A model is served under another name than before, or gives other vectors.

    Vectors of another name or length are not kept. Another cosine is found by ``embedrouter doctor``.
    """

    level = logging.ERROR
    logger = MODELS
    message = (
        "%(model)s has changed: its %(what)s was %(was)s and is %(now)s. Its vectors may be of another space: embed "
        "the documents again, or go back to the former model. Look closer with: embedrouter doctor."
    )

    what: Literal["name", "number of dimensions", "cosine to the vectors of the first check"]
    was: str
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexUnrecorded(Event):
    """A vector store that is named with ``index=`` is searched, and has no record. Once for each adapter."""

    level = logging.WARNING
    logger = MODELS
    message = (
        "The index %(index)s is searched, and no space is recorded for it: its vectors may be of another model than "
        "%(model)s. Compare: embedrouter check STORE --model %(model)s; record: guard(store, router, adopt=True)."
    )

    index: str
