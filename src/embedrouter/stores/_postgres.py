"""PostgreSQL with pgvector: collections of LangChain's ``PGVector``, and tables of LlamaIndex and of ``PGVectorStore``.

LangChain's ``PGVector`` keeps all collections in two tables, and the mark is in a collection's row. LlamaIndex's
``PGVectorStore`` and LangChain's newer ``PGVectorStore`` have a table for each store, and the mark is in the comment of
the table, on a line of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import ConfigError
from ..retrieval.store_guard import Row
from ..router import Router
from ._rows import row, spread

Statement: TypeAlias = Callable[..., "list[Mapping[str, Any]]"]
"""Runs one statement with its parameters and returns the rows."""

MARK = "embedrouter: "
"""The beginning of the line in a table's comment."""
DRIVERS = ("psycopg", "psycopg2", "pg8000")


def by_session(session_maker: Callable[[], AbstractContextManager[Any]]) -> Statement:
    """Return what runs statements in sessions of a store, or in connections of an engine (``engine.begin``)."""
    from sqlalchemy import text

    def run(statement: str, **parameters: Any) -> list[Mapping[str, Any]]:
        with session_maker() as session:
            found = session.execute(text(statement), parameters)
            rows: list[Mapping[str, Any]] = [dict(one) for one in found.mappings()] if found.returns_rows else []
            if hasattr(session, "commit"):
                session.commit()
            return rows

    return run


def by_address(address: Any) -> Statement:
    """Return what runs statements at an address, with a driver that is installed.

    Raises:
        ConfigError: SQLAlchemy or a driver is missing.
    """
    try:
        from sqlalchemy import NullPool, create_engine, make_url
    except ImportError as error:
        raise ConfigError(
            "PostgreSQL is read with SQLAlchemy. Run: pip install sqlalchemy 'psycopg[binary]'"
        ) from error
    url = make_url(address)
    for driver in DRIVERS:
        try:
            engine = create_engine(url.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
        except ImportError:
            continue
        return by_session(engine.connect)
    raise ConfigError("PostgreSQL needs a driver. Run: pip install 'psycopg[binary]'")


class LangChainCollection:
    """A collection of LangChain's ``PGVector``."""

    kind, keeps = "PostgreSQL, LangChain's `PGVector`", "the collection's row (`cmetadata`)"
    place = "STORE"

    def __init__(self, run: Statement, name: str) -> None:
        self._run, self._name = run, name
        self.title = f"The collection {name!r}"
        self._row()

    def read(self) -> Mapping[str, Any]:
        return dict(self._row()["cmetadata"] or {})

    def write(self, entries: Mapping[str, str | int]) -> None:
        self._run(
            "UPDATE langchain_pg_collection SET cmetadata = CAST(:entries AS json) WHERE name = :name",
            entries=json.dumps({**self.read(), **entries}),
            name=self._name,
        )

    def dimensions(self) -> int | None:
        found = self._run(
            "SELECT vector_dims(embedding) AS size FROM langchain_pg_embedding WHERE collection_id = :id LIMIT 1",
            id=self._row()["uuid"],
        )
        return int(found[0]["size"]) if found else None

    def again(self, router: Router) -> str:
        return "embed the texts again, into a collection of another name, or after store.delete_collection()."

    def sample(self, count: int) -> list[Row]:
        collection = self._row()["uuid"]
        where = "FROM langchain_pg_embedding WHERE collection_id = :id"
        total = int(self._run(f"SELECT count(*) AS total {where}", id=collection)[0]["total"])
        rows: list[Row] = []
        for position in spread(total, count):
            for found in self._run(f"SELECT * {where} OFFSET :position LIMIT 1", id=collection, position=position):
                identifier = found.get("id", found.get("uuid"))
                rows.append(row(identifier, found["document"], as_vector(found["embedding"]), found["cmetadata"]))
        return rows

    def _row(self) -> Mapping[str, Any]:
        found = self._run("SELECT uuid, cmetadata FROM langchain_pg_collection WHERE name = :name", name=self._name)
        if not found:
            raise ConfigError(f"There is no collection {self._name!r} in langchain_pg_collection.")
        return found[0]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table of vectors."""

    identifier: str
    text: str
    vector: str
    metadata: str | None


LLAMA_INDEX = Columns("node_id", "text", "embedding", "metadata_")


class PostgresTable:
    """A table that is one store."""

    kind, keeps = "PostgreSQL, `PGVectorStore` of LangChain and of LlamaIndex", "the comment of the table"
    place = "STORE"

    def __init__(self, run: Statement, schema: str, table: str, columns: Columns = LLAMA_INDEX) -> None:
        self._run, self._columns = run, columns
        self.title = f"The table {table!r}"
        self._table = f"{quoted(schema)}.{quoted(table)}"
        if self._run("SELECT to_regclass(:table) AS found", table=self._table)[0]["found"] is None:
            raise ConfigError(
                f"There is no table {table!r} in the schema {schema!r} yet: the store makes it with the first texts. "
                "Add them, then mark it: guard(store, router, adopt=True)."
            )

    def read(self) -> Mapping[str, Any]:
        for line in self._comment().splitlines():
            if line.startswith(MARK):
                try:
                    return dict(json.loads(line.removeprefix(MARK)))
                except (ValueError, TypeError):
                    raise ConfigError(f"{self.title} has a mark in its comment that cannot be read.") from None
        return {}

    def write(self, entries: Mapping[str, str | int]) -> None:
        others = [line for line in self._comment().splitlines() if not line.startswith(MARK)]
        comment = "\n".join([*others, MARK + json.dumps({**self.read(), **entries})])
        statement = self._run(
            "SELECT format('COMMENT ON TABLE %s IS %L', CAST(:table AS regclass), CAST(:comment AS text)) AS made",
            table=self._table,
            comment=comment,
        )[0]["made"]
        self._run(str(statement).replace(":", r"\:"))

    def dimensions(self) -> int | None:
        column = quoted(self._columns.vector)
        found = self._run(f"SELECT vector_dims({column}) AS size FROM {self._table} WHERE {column} IS NOT NULL LIMIT 1")
        return int(found[0]["size"]) if found else None

    def again(self, router: Router) -> str:
        return f"embed the texts again, into a table of another name, or after DROP TABLE {self._table}."

    def sample(self, count: int) -> list[Row]:
        names = self._columns
        total = int(self._run(f"SELECT count(*) AS total FROM {self._table}")[0]["total"])
        rows: list[Row] = []
        for position in spread(total, count):
            for found in self._run(f"SELECT * FROM {self._table} OFFSET :position LIMIT 1", position=position):
                metadata = found.get(names.metadata) if names.metadata else None
                rows.append(row(found[names.identifier], found.get(names.text), as_vector(found[names.vector]),
                                metadata if isinstance(metadata, dict) else None))  # fmt: skip
        return rows

    def _comment(self) -> str:
        found = self._run("SELECT obj_description(CAST(:table AS regclass)) AS comment", table=self._table)
        return str(found[0]["comment"] or "")


def as_vector(value: Any) -> Any:
    """Return the numbers of a vector, which a driver without pgvector's types gives as a text."""
    return json.loads(value) if isinstance(value, str) else value.to_list() if hasattr(value, "to_list") else value


def quoted(name: str) -> str:
    """Return a name as SQL writes one."""
    return '"' + name.replace('"', '""') + '"'


def columns_of(run: Statement, schema: str, table: str) -> Columns | None:
    """Return the columns of a table of vectors; ``None`` where there is no column of texts."""
    found = run(
        "SELECT column_name AS name, udt_name AS kind FROM information_schema.columns "
        "WHERE table_schema = :schema AND table_name = :table ORDER BY ordinal_position",
        schema=schema,
        table=table,
    )
    kinds = {one["name"]: one["kind"] for one in found}
    vectors = [name for name, kind in kinds.items() if kind in ("vector", "halfvec")]
    texts = [name for name, kind in kinds.items() if kind in ("text", "varchar", "bpchar")]
    usual: Sequence[str] = [name for name in ("text", "content", "document", "page_content", "chunk") if name in texts]
    if len(vectors) != 1 or not texts:
        return None
    metadata = next((name for name, kind in kinds.items() if kind in ("json", "jsonb")), None)
    identifier = next((name for name in ("node_id", "langchain_id", "id") if name in kinds), next(iter(kinds)))
    return Columns(identifier, (*usual, *texts)[0], vectors[0], metadata)
