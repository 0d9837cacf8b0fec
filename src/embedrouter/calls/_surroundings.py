"""What a framework asks of the calls that it makes through an adapter, beside the arguments of ``Router.embed``.

Kept in a context variable: an adapter's methods for single batches are the framework's, and have no argument for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from ._call import Embedded, Limiter, ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What holds for the calls of a block."""

    first: int = 0
    """The position of a call's first text among the texts of the framework's caller, for messages."""
    limiter: Limiter | None = None
    """Is asked before each request that goes out."""
    report: Callable[[Embedded], None] = ignore
    """Receives what each request has brought; see ``Call.report``."""


_current: ContextVar[Surroundings] = ContextVar("embedrouter_surroundings", default=Surroundings())  # noqa: B039 - frozen


def surroundings() -> Surroundings:
    """Return what holds for a call that begins here."""
    return _current.get()


@contextmanager
def surrounded(**changes: Any) -> Iterator[None]:
    """Change fields of the ``Surroundings`` for the calls of a block."""
    token = _current.set(replace(_current.get(), **changes))
    try:
        yield
    finally:
        _current.reset(token)
