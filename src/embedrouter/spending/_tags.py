"""Names for what money is spent on.

    with embedrouter.tag("ingest-2026-11"):
        store.add_documents(documents)

The ledger books each request under the tag of the surrounding block, and sums up by tag.
"""

from __future__ import annotations

from contextvars import ContextVar, Token

from ..errors import ConfigError

_current: ContextVar[str] = ContextVar("embedrouter_tag", default="")


class tag:
    """Book all spending inside a ``with`` block under a name; of nested blocks the innermost name counts."""

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigError("tag() needs a name: with embedrouter.tag('ingest-2026-11').")
        self._name = storable(name)
        self._tokens: list[Token[str]] = []

    def __enter__(self) -> tag:
        self._tokens.append(_current.set(self._name))
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._tokens.pop())


def storable(name: str) -> str:
    """Return a name as a database can keep it: what is no character, as in a file's name that is not UTF-8, escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def current_tag() -> str:
    """Return the tag of the innermost block; ``""`` outside of all blocks."""
    return _current.get()
