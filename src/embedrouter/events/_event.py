"""What all events have, and the number of the call in which they happen.

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
from typing import Any, ClassVar

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

    def said(self) -> dict[str, Any]:
        """Return what ``message`` names, as it is shown."""
        return {name: shown(value) for name, value in self.facts().items()}

    def __str__(self) -> str:
        """Return the line of the log."""
        return self.message % self.said()


def shown(value: object) -> object:
    """Return a value for a line of the log: dollars as such, characters that a terminal obeys escaped."""
    if value is None:
        return "unknown"
    if isinstance(value, Decimal):
        return dollars(value)
    return escaped(value) if isinstance(value, str) else value
