"""Quality tiers: their names in order, and the tier that surrounding code requests.

    with embedrouter.tier("high"):
        chain.invoke(question)          # every query inside is embedded at "high" or better

The tier is kept in a context variable, so the tier also applies in chains, tasks and thread pools that copy the
context. ``tier("high")`` applies to queries only, because documents stay in the index for good; the tier of documents
is ``tier(documents="low")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from difflib import get_close_matches

from .._display import shown_name
from ..errors import ConfigError
from ..types import InputType

TIERS = ("low", "medium", "high")
"""The default names, lowest first."""

_requested: ContextVar[dict[InputType, str] | None] = ContextVar("embedrouter_tier", default=None)


class tier:
    """Request a tier for all embedding calls inside a ``with`` block; inner blocks override outer ones.

    Args:
        queries: the tier of queries.
        documents: the tier of documents; unchanged when left out.
    """

    def __init__(self, queries: str | None = None, *, documents: str | None = None) -> None:
        if queries is None and documents is None:
            raise ConfigError("tier() needs a tier: tier('high'), or tier(documents='high').")
        given: dict[InputType, str | None] = {"query": queries, "document": documents}
        self._given: dict[InputType, str] = {input_type: name for input_type, name in given.items() if name is not None}
        self._tokens: list[Token[dict[InputType, str] | None]] = []

    def __enter__(self) -> tier:
        self._tokens.append(_requested.set({**(_requested.get() or {}), **self._given}))
        return self

    def __exit__(self, *_: object) -> None:
        _requested.reset(self._tokens.pop())


def first_given(*tiers: str | None) -> str | None:
    """Return the first tier that is not ``None``; callers pass the most specific request first."""
    return next((tier for tier in tiers if tier is not None), None)


def requested(input_type: InputType) -> str | None:
    """Return the tier that the surrounding ``with tier(…)`` requests, or ``None``."""
    given = _requested.get()
    return given.get(input_type) if given else None


def rank(name: str, tiers: Sequence[str]) -> int:
    """Return the position of a tier, 0 for the lowest.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    try:
        return tiers.index(name)
    except ValueError:
        near = get_close_matches(name.lower(), tiers, 1) if isinstance(name, str) else []
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"Unknown tier {shown_name(name)}. This router knows, lowest first: {', '.join(tiers)}.{hint}"
        ) from None


OTHER_WORDS = ("query", "question", "document", "passage", "corpus", "text", "index")
"""What is in other libraries' names of input types: search_query, RETRIEVAL_DOCUMENT, passage."""


def choose_tier(tier: str | None, input_type: InputType, defaults: Mapping[InputType, str]) -> str:
    """Return the tier of a call: that of its argument, otherwise of the surrounding context, otherwise the default.

    Raises:
        ConfigError: the input type is unknown.
    """
    if input_type not in defaults:
        word = input_type.lower() if isinstance(input_type, str) else ""
        meant = "query" if "query" in word or "question" in word else "document"
        hint = f" Write input_type={meant!r}." if any(part in word for part in OTHER_WORDS) else ""
        raise ConfigError(f"input_type must be 'document' or 'query', not {shown_name(input_type)}.{hint}")
    return next(name for name in (tier, requested(input_type), defaults[input_type]) if name is not None)
