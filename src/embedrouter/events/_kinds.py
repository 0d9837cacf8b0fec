"""The kinds of events. A docstring says when an event happens; units are seconds, tokens and US dollars.

``message`` is the line of the log, with the names of fields. Values are numbers, names that the user or a server gave,
names of error classes, and what SQLite or a store says of a file; never a text, a vector or a key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from decimal import Decimal
from itertools import count
from typing import Any, ClassVar, Literal

from .._display import escaped, get_logger
from ..types import InputType, dollars

CALLS, LIMITS, SPENDING, CACHE, MODELS = (
    get_logger(f"embedrouter.{name}") for name in ("calls", "limits", "spending", "cache", "models")
)


_numbers = count(1)
_call: ContextVar[int | None] = ContextVar("embedrouter_call", default=None)


@contextmanager
def numbered_call() -> Iterator[None]:
    """Give the events of a block the number of a new call."""
    token = _call.set(next(_numbers))
    try:
        yield
    finally:
        with suppress(ValueError):  # the event loop is gone, and its coroutine is closed in another context
            _call.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that has happened.

    Two events are equal if the same has happened; ``time`` and ``call`` do not count.
    """

    level: ClassVar[int] = logging.DEBUG
    logger: ClassVar[logging.Logger] = CALLS
    message: ClassVar[str] = ""

    time: float = field(default_factory=time.time, compare=False)
    """Seconds since 1970."""
    call: int | None = field(default_factory=_call.get, compare=False)
    """Number of the call in its process; of calls that are sent as one request, the number of the first. ``None``
    outside of calls, and where ``CallEnded`` is neither received nor logged."""
    model: str = ""
    """``provider:name``; empty where no single model is concerned."""
    tier: str = ""
    """Tier of the model."""
    input_type: InputType | None = None
    tag: str = ""

    def facts(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def __str__(self) -> str:
        """Return the line of the log."""
        return self.message % {name: shown(value) for name, value in self.facts().items()}


def shown(value: object) -> object:
    """Return a value for a line of the log: dollars as such, characters that a terminal obeys escaped."""
    if value is None:
        return "unknown"
    if isinstance(value, Decimal):
        return dollars(value)
    return escaped(value) if isinstance(value, str) else value


# Calls


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(Event):
    """A call of ``embed`` or ``aembed``, or a chunk of ``embed_iter``, has ended. ``tier`` is the requested one."""

    message = (
        "call %(call)s, %(input_type)s: %(texts)d texts, %(cached)d cached, %(tokens)d tokens, cost %(cost)s, "
        "%(seconds).3f s %(error)s"
    )

    texts: int
    cached: int = 0
    """Texts whose vectors were in the cache."""
    degraded: int = 0
    """Texts that were answered by a lower tier."""
    requests: int = 0
    tokens: int = 0
    """Billed."""
    cost: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)
    """What the cache and the removal of duplicates avoided."""
    seconds: float
    error: str = ""
    """Class of the error that was raised; figures but ``texts`` and ``seconds`` are then 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSent(Event):
    """An attempt begins: a request goes out to a model. ``RequestAnswered`` or ``RequestFailed`` follows."""

    message = "%(model)s: request of %(texts)d texts, about %(tokens)d tokens, attempt %(attempt)d"

    texts: int
    tokens: int
    """Estimate."""
    cost: Decimal | None
    """Estimate; ``None`` where the price is unknown."""
    attempt: int
    """1 for the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswered(Event):
    """A request was answered; its vectors are in the cache and its cost is booked."""

    message = "%(model)s answered %(texts)d texts, %(tokens)d tokens, cost %(cost)s, in %(seconds).3f s"

    texts: int
    tokens: int
    """As booked."""
    cost: Decimal | None
    """As booked; ``None`` where the price is unknown."""
    seconds: float
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed(Event):
    """A request failed, or its answer is not used."""

    message = "%(model)s failed: %(error)s, HTTP status %(status)s, attempt %(attempt)d"

    texts: int
    error: str
    """Class of the error."""
    status: int | None = None
    """Of HTTP; ``None`` without an answer."""
    cost: Decimal | None = Decimal(0)
    """What was billed for an answer that is not used."""
    seconds: float
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRetried(Event):
    """A failed request is sent again after a wait."""

    level = logging.INFO
    message = "%(model)s: again in %(seconds).2f s after %(error)s, HTTP status %(status)s, attempt %(attempt)d"

    error: str
    status: int | None
    attempt: int
    """The one that failed."""
    seconds: float
    """The wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOver(Event):
    """Texts go to the next model, because another one failed."""

    level = logging.INFO
    message = "%(model)s is called in place of %(instead_of)s, after %(error)s"

    instead_of: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Degraded(Event):
    """A lower tier answered queries, because no better model was available or affordable."""

    level = logging.WARNING
    message = "%(texts)d queries were answered by %(model)s, below the requested tier, after %(error)s"

    texts: int
    error: str


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
