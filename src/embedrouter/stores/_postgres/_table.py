"""A table that is one store: LangChain's and LlamaIndex's ``PGVectorStore``; the mark is in the table's comment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...retrieval.store_guard import Row
from ...router import Router
from ...types import Vectors
from .._metadata import fitted, restored
from .._rows import parts, row, spread, stored_text
from .._transfer import Distance, StoredText
from ._statements import SQLDatabase, Statement, as_text, as_vector, holds, quoted

MARK = "embedrouter: "
"""The beginning of the line in a table's comment."""
PUT = 500
"""Rows in one transaction."""
OPERATORS: Mapping[Distance, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
VECTORS = ("vector", "halfvec")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table of vectors."""

    identifier: str
    text: str
    vector: str
    metadata: str | None


LLAMA_INDEX = Columns("node_id", "text", "embedding", "metadata_")


class PostgresTable:
    """One table."""

    kind, keeps = "PostgreSQL, `PGVectorStore` of LangChain and of LlamaIndex", "the comment of the table"
    place = "STORE"

    def __init__(self, database: SQLDatabase, schema: str, table: str, columns: Columns) -> None:
        self.database, self._run = database, database.run
        self.schema, self.table, self.columns = schema, table, columns
        self.name = table.removeprefix("data_") if columns == LLAMA_INDEX else table
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
        with self._run.together() as run:
            comment_on(run, self._table, comment)

    def dimensions(self) -> int | None:
        column = quoted(self.columns.vector)
        found = self._run(f"SELECT vector_dims({column}) AS size FROM {self._table} WHERE {column} IS NOT NULL LIMIT 1")
        return int(found[0]["size"]) if found else None

    def again(self, router: Router) -> str:
        return f"embed the texts again, into a table of another name, or after DROP TABLE {self._table}."

    def sample(self, count: int) -> list[Row]:
        names = self.columns
        rows: list[Row] = []
        for position in spread(self.count(), count):
            for found in self._run(f"SELECT * FROM {self._table} OFFSET :position LIMIT 1", position=position):
                metadata = found.get(names.metadata) if names.metadata else None
                rows.append(row(found[names.identifier], found.get(names.text), as_vector(found[names.vector]),
                                metadata if isinstance(metadata, dict) else None))  # fmt: skip
        return rows

    def _comment(self) -> str:
        found = self._run("SELECT obj_description(CAST(:table AS regclass)) AS comment", table=self._table)
        return str(found[0]["comment"] or "")

    # What a migration needs

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The types of the columns that a row is written into; generated columns are not among them."""
        found = self._run(
            "SELECT attname AS name, format_type(atttypid, atttypmod) AS type FROM pg_attribute "
            "WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' "
            "ORDER BY attnum",
            table=self._table,
        )
        return {one["name"]: one["type"] for one in found}

    @cached_property
    def key(self) -> str:
        """The column in whose order rows are read: the primary key, which LlamaIndex has beside the id."""
        found = self._run(
            "SELECT a.attname AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = "
            "ANY(i.indkey) WHERE i.indrelid = CAST(:table AS regclass) AND i.indisprimary",
            table=self._table,
        )
        return str(found[0]["name"]) if len(found) == 1 else self.columns.identifier

    @property
    def further(self) -> Sequence[str]:
        """The columns that are none of the four usual ones, nor only the key."""
        usual = {self.columns.identifier, self.columns.text, self.columns.vector, self.columns.metadata, self.key}
        return [name for name, kind in self.types.items() if name not in usual and kind != "tsvector"]

    def definition(self) -> Sequence[Mapping[str, Any]]:
        """Return what makes the columns: names, types, and whether they are required, generated or have defaults."""
        return self._run(
            "SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required, "
            "a.attgenerated AS generated, pg_get_expr(d.adbin, d.adrelid) AS given, a.attidentity AS identity "
            "FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum "
            "WHERE a.attrelid = CAST(:table AS regclass) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            table=self._table,
        )

    def indexes(self) -> Sequence[str]:
        """Return the statements that make the indexes, but that of the primary key."""
        found = self._run(
            "SELECT pg_get_indexdef(indexrelid) AS made FROM pg_index WHERE indrelid = CAST(:table AS regclass) "
            "AND NOT indisprimary",
            table=self._table,
        )
        return [str(one["made"]) for one in found]

    def distance(self) -> Distance | None:
        for made in self.indexes():
            for name in ("cosine", "l2", "ip"):
                if any(f"{kind}_{name}_ops" in made for kind in VECTORS):
                    return name
        return None

    def count(self) -> int:
        return int(self._run(f"SELECT count(*) AS total FROM {self._table}")[0]["total"])

    def ids(self) -> Iterator[str]:
        for page in self._walk([self.columns.identifier], 10_000):
            yield from (str(one[self.columns.identifier]) for one in page)

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        for page in self._walk(self._read, size):
            yield [self._stored(one) for one in page]

    @property
    def _read(self) -> Sequence[str]:
        names = self.columns
        return [one for one in (names.identifier, names.text, names.metadata, *self.further) if one is not None]

    def _walk(self, columns: Sequence[str], size: int) -> Iterator[list[Mapping[str, Any]]]:
        key = quoted(self.key)
        start = f"SELECT {', '.join(map(quoted, columns))}, {key} AS embedrouter_key FROM {self._table}"
        end = f"ORDER BY {key} LIMIT :size"
        page = self._run(f"{start} {end}", size=size)
        while page:
            yield page
            after = f"WHERE {key} > CAST(:after AS {self.types[self.key]})"
            page = self._run(f"{start} {after} {end}", after=str(page[-1]["embedrouter_key"]), size=size)

    def _stored(self, found: Mapping[str, Any]) -> StoredText:
        names = self.columns
        metadata = found.get(names.metadata or "")
        columns = {name: found[name] for name in self.further}
        entries = restored(metadata) if isinstance(metadata, dict) else {}
        return stored_text(found[names.identifier], found[names.text], entries, columns)

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        names = [*self._read, self.columns.vector]
        found: dict[str, tuple[StoredText, Vectors]] = {}
        statement = f"SELECT {', '.join(map(quoted, names))} FROM {self._table} WHERE {self._among}"
        for part in parts(ids, PUT):
            for one in self._run(statement, ids=list(part)):
                text = self._stored(one)
                found[text.id] = text, np.asarray(as_vector(one[self.columns.vector]), np.float32)
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    @property
    def _among(self) -> str:
        return f"CAST({quoted(self.columns.identifier)} AS text) = ANY(:ids)"

    def search(self, vector: Vectors, count: int) -> list[str]:
        column = self.columns.vector
        kind = self.types[column].partition("(")[0]
        found = self._run(
            f"SELECT {quoted(self.columns.identifier)} AS name FROM {self._table} "
            f"ORDER BY {quoted(column)} {OPERATORS[self.distance() or 'cosine']} CAST(:vector AS {kind}) LIMIT :count",
            vector=as_text(vector),
            count=count,
        )
        return [str(one["name"]) for one in found]

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        """Write rows in place of those with the same ids; in LlamaIndex's tables ids are no key."""
        names, types = self.columns, self.types
        searched = [name for name, kind in types.items() if kind == "tsvector"]
        own = [names.identifier, names.text, names.vector, *([names.metadata] if names.metadata else [])]
        written = [*own, *self.further]
        values = [f"CAST(:v{place} AS {types[name]})" for place, name in enumerate(written)]
        values += ["to_tsvector('pg_catalog.english', :v1)" for _ in searched]
        insert = (
            f"INSERT INTO {self._table} ({', '.join(map(quoted, [*written, *searched]))}) VALUES ({', '.join(values)})"
        )
        for part in parts(list(zip(rows, np.asarray(vectors, np.float32), strict=True)), PUT):
            sets = [
                {f"v{place}": value for place, value in enumerate(self._values(one, vector))} for one, vector in part
            ]
            with self._run.together() as run:
                run(f"DELETE FROM {self._table} WHERE {self._among}", ids=[one.id for one, _ in part])
                run(insert, each=sets)

    def _values(self, one: StoredText, vector: Vectors) -> Iterator[Any]:
        further = self.further
        beside = {name: value for name, value in one.columns.items() if name not in further}
        held = fitted({**beside, **one.metadata}, holds)
        yield from (one.id, one.content, as_text(vector))
        if self.columns.metadata:
            yield json.dumps(held)
        elif held:
            raise ConfigError(f"{self.title} has no column of JSON for the metadata of {one.id!r}.")
        for name in further:
            value = one.columns.get(name)
            yield json.dumps(value) if self.types[name] in ("json", "jsonb") and value is not None else value

    def remove(self, ids: Sequence[str]) -> None:
        for part in parts(ids, PUT):
            self._run(f"DELETE FROM {self._table} WHERE {self._among}", ids=list(part))

    def finish(self) -> None:
        """Do nothing: each transaction is kept."""

    def drop(self) -> None:
        self._run(f"DROP TABLE {self._table}")


def comment_on(run: Statement, table: str, comment: str) -> None:
    """Write the comment of a table, which takes no parameters."""
    made = run(
        "SELECT format('COMMENT ON TABLE %s IS %L', CAST(:table AS regclass), CAST(:comment AS text)) AS made",
        table=table,
        comment=comment,
    )
    run(str(made[0]["made"]).replace(":", r"\:"))


def columns_of(run: Statement, schema: str, table: str) -> Columns | None:
    """Return the columns of a table of vectors; ``None`` where there is no column of texts."""
    found = run(
        "SELECT column_name AS name, udt_name AS kind FROM information_schema.columns "
        "WHERE table_schema = :schema AND table_name = :table ORDER BY ordinal_position",
        schema=schema,
        table=table,
    )
    kinds = {one["name"]: one["kind"] for one in found}
    vectors = [name for name, kind in kinds.items() if kind in VECTORS]
    texts = [name for name, kind in kinds.items() if kind in ("text", "varchar", "bpchar")]
    usual: Sequence[str] = [name for name in ("text", "content", "document", "page_content", "chunk") if name in texts]
    if len(vectors) != 1 or not texts:
        return None
    metadata = next((name for name, kind in kinds.items() if kind in ("json", "jsonb")), None)
    identifier = next((name for name in ("node_id", "langchain_id", "id") if name in kinds), next(iter(kinds)))
    return Columns(identifier, (*usual, *texts)[0], vectors[0], metadata)
