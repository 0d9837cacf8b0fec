"""Statements of SQL, on the connection of an open store or at an address."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeAlias

from ...errors import ConfigError
from .._metadata import is_json
from .._transfer import Database

Statement: TypeAlias = Callable[..., "list[Mapping[str, Any]]"]
"""Runs one statement with its parameters, or with several sets of them (``each=``), and returns the rows."""

DRIVERS = ("psycopg", "psycopg2", "pg8000")
LARGE = 1e15
"""From here on PostgreSQL's ``jsonb`` gives a number with a fraction back as an integer."""


class Statements:
    """Runs statements, each in a transaction of its own, or several in one."""

    def __init__(self, begin: Callable[[], AbstractContextManager[Any]], close: Callable[[], None]) -> None:
        self._begin, self.close = begin, close

    def __call__(self, statement: str, **parameters: Any) -> list[Mapping[str, Any]]:
        with self.together() as run:
            return run(statement, **parameters)

    @contextmanager
    def together(self) -> Iterator[Statement]:
        """Give what runs statements in one transaction, which counts when the block ends without an error."""
        from sqlalchemy import text

        with self._begin() as session:

            def run(statement: str, each: Any = None, **parameters: Any) -> list[Mapping[str, Any]]:
                found = session.execute(text(statement), parameters if each is None else each)
                return [dict(one) for one in found.mappings()] if found.returns_rows else []

            yield run
            if hasattr(session, "commit"):
                session.commit()


class SQLDatabase(Database, Protocol):
    """A database that takes statements."""

    run: Statements


def by_session(session_maker: Callable[[], AbstractContextManager[Any]]) -> Statements:
    """Return what runs statements in sessions of a store, or in connections of an engine."""
    return Statements(session_maker, lambda: None)


def by_address(address: Any, *, keep: bool = False) -> Statements:
    """Return what runs statements at an address, with a driver that is installed.

    Args:
        keep: whether the connection is kept until ``close``, for many statements.

    Raises:
        ConfigError: SQLAlchemy or a driver is missing.
    """
    try:
        from sqlalchemy import NullPool, QueuePool, create_engine, make_url
    except ImportError as error:
        raise ConfigError(
            "PostgreSQL is read with SQLAlchemy. Run: pip install sqlalchemy 'psycopg[binary]'"
        ) from error
    url = make_url(address)
    for driver in DRIVERS:
        try:
            engine = create_engine(
                url.set(drivername=f"postgresql+{driver}"), poolclass=QueuePool if keep else NullPool
            )
        except ImportError:
            continue
        return Statements(engine.connect, engine.dispose)
    raise ConfigError("PostgreSQL needs a driver. Run: pip install 'psycopg[binary]'")


def as_vector(value: Any) -> Any:
    """Return the numbers of a vector, which a driver without pgvector's types gives as a text."""
    return json.loads(value) if isinstance(value, str) else value.to_list() if hasattr(value, "to_list") else value


def as_text(vector: Any) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def quoted(name: str) -> str:
    """Return a name as SQL writes one."""
    return '"' + name.replace('"', '""') + '"'


def holds(name: str, value: Any) -> bool:
    """Return whether PostgreSQL's JSON gives an entry back as it was: it takes no NUL, and large numbers lose type."""
    return is_json(value) and "\0" not in name and not _is_changed(value)


def _is_changed(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in name or _is_changed(one) for name, one in value.items())
    if isinstance(value, list):
        return any(map(_is_changed, value))
    return (isinstance(value, str) and "\0" in value) or (isinstance(value, float) and abs(value) >= LARGE)
