"""The events of calls, of their requests, and of batches."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from .._display import counted, escaped
from ..types import dollars
from ._event import SPENDING, Event


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBegan(Event):
    """A call begins: for what watches it (``events.watch``), neither logged nor handed to ``on_event``.

    ``model`` is the one that would be called first, ``tier`` the requested one.
    """

    texts: int
    dimensions: int


class Share(NamedTuple):
    """What one model has answered of a call."""

    model: str
    tier: str
    texts: int
    cached: int
    """Texts whose vectors were in the cache."""
    saved: Decimal
    """What the cache and the removal of duplicates avoided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(Event):
    """A call of ``embed`` or ``aembed``, or a chunk of ``embed_iter``, has ended. ``tier`` is the requested one.

    ``model`` is the model that has answered, where one alone has.
    """

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
    unpriced_tokens: int = 0
    """Billed, of unknown price: counted in ``tokens``, not in ``cost``."""
    seconds: float
    error: str = ""
    """Class of the error that was raised; of the figures only what was billed before it is then known."""
    by_model: tuple[Share, ...] = ()
    """What each model has answered, the first model first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBilled(CallEnded):
    """A call that costs money has ended: a ``CallEnded`` of its own level."""

    level = logging.INFO
    message = "%(model)s: %(figures)s"

    def said(self) -> dict[str, Any]:
        money = [dollars(self.cost)] if self.cost or not self.unpriced_tokens else []
        money += [f"{counted(self.unpriced_tokens, 'token')} of unknown price"] if self.unpriced_tokens else []
        cached = [f"{self.cached:,} from the cache (saved {dollars(self.saved)})"] if self.cached else []
        time = f"{self.seconds:.1f} s" if self.seconds >= 1 else f"{self.seconds * 1000:.0f} ms"
        error = [escaped(self.error)] if self.error else []
        parts = [counted(self.texts, "text"), counted(self.tokens, "token"), *money, *cached, time, *error]
        named = self.model or ", ".join(share.model for share in self.by_model) or "several models"
        return {**CallEnded.said(self), "model": escaped(named), "figures": ", ".join(parts)}


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
    dimensions: int = 0
    """Of each vector that is asked for."""
    encoding: str = ""
    """The format of numbers that is asked for, such as ``"base64"``; empty where the request names none."""
    address: str = ""
    """Where the request goes, without user, password and query; empty where it is not known."""
    local: bool = False
    """Whether the model runs in this process."""


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
    served: str = ""
    """The name by which the server calls the model; empty where it says none."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShared(Event):
    """A call got vectors by another call's request: of equal texts (single flight), or sent as one (micro-batch)."""

    message = "%(texts)d texts came with another call's request, after %(seconds).3f s (%(by)s)"

    texts: int
    by: Literal["single flight", "micro-batch"]
    seconds: float
    """The wait."""


# Batches


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSubmitted(Event):
    """Texts were handed to a provider's batch endpoint, which answers within hours."""

    level = logging.INFO
    logger = SPENDING
    message = "%(model)s: batch of %(texts)d texts submitted, about %(tokens)d tokens, at most %(cost)s"

    texts: int
    tokens: int
    """Estimate."""
    cost: Decimal | None
    """Estimate at the batch price; ``None`` where the price is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCollected(Event):
    """The answers of a batch are in the cache, and its cost is booked. Once for each batch."""

    level = logging.INFO
    logger = SPENDING
    message = "%(model)s: batch of %(texts)d texts collected, %(tokens)d tokens, cost %(cost)s, %(failed)d not answered"

    texts: int
    failed: int
    """Texts without a vector."""
    tokens: int
    """As booked."""
    cost: Decimal | None
    """As booked; ``None`` where the price is unknown."""
