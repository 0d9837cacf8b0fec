"""Quality tiers: their names in order, and the tier that surrounding code asks for.

    with embedrouter.tier("high"):
        chain.invoke(question)          # every query inside is embedded at "high" or better

The tier travels in a context variable, so it reaches through chains, tasks and thread pools that copy the context. It
speaks of queries only, because documents stay in the index for good; ``tier(documents="low")`` is for those who mean
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar, Token
from types import TracebackType

from ..errors import ConfigError
from ..types import InputType

__all__ = ["TIERS", "nearest", "rank", "requested", "tier"]

TIERS = ("low", "medium", "high")
"""The default names, lowest first."""

_requested: ContextVar[dict[InputType, str] | None] = ContextVar("embedrouter_tier", default=None)


class tier:
    """Ask for a tier in all embedding calls inside a ``with`` block; inner blocks override outer ones.

    Args:
        queries: the tier for queries.
        documents: the tier for documents; left alone unless given.
    """

    def __init__(self, queries: str | None = None, *, documents: str | None = None) -> None:
        if queries is None and documents is None:
            raise ConfigError("tier() needs a tier: tier('high'), or tier(documents='high').")
        asked: dict[InputType, str | None] = {"query": queries, "document": documents}
        self._asked = {input_type: name for input_type, name in asked.items() if name is not None}
        self._tokens: list[Token[dict[InputType, str] | None]] = []

    def __enter__(self) -> tier:
        self._tokens.append(_requested.set({**(_requested.get() or {}), **self._asked}))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _requested.reset(self._tokens.pop())


def nearest(*asked: str | None) -> str | None:
    """Return the first tier that was asked for at all; the words are given nearest first."""
    for name in asked:
        if name is not None:
            return name
    return None


def requested(input_type: InputType) -> str | None:
    """Return the tier that the surrounding ``with tier(…)`` asks for, or ``None``."""
    asked = _requested.get()
    return asked.get(input_type) if asked else None


def rank(name: str, tiers: Sequence[str]) -> int:
    """Return the place of a tier, 0 for the lowest.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    try:
        return tiers.index(name)
    except ValueError:
        raise ConfigError(f"Unknown tier {name!r}. This router knows, lowest first: {', '.join(tiers)}.") from None
