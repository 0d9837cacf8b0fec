"""The collections and tables of vectors in a database of PostgreSQL with pgvector."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ..._display import shown_name
from ...errors import ConfigError
from ...retrieval.store_guard import hold, metadata
from ...router import Router
from .._failures import explained, shown_address
from .._metadata import unkeepable
from .._renaming import is_renamed
from .._rows import filled_by_llama_index, others
from .._transfer import Readable, StoredText
from ._collection import ROWS, LangChainCollection, rename
from ._statements import Statement, Statements, by_address, quoted
from ._table import LLAMA_INDEX, MARK, Columns, PostgresTable, columns_of, comment_on

LONGEST = 50
"""Characters of a name; PostgreSQL takes 63, and LlamaIndex puts words before and after."""
LANGCHAIN = Columns("langchain_id", "content", "embedding", "langchain_metadata")


class PostgresDatabase:
    """One database; a collection of ``PGVector`` stands in its tables, any other store is a table."""

    kind = "PostgreSQL"
    named: str | None = None

    def __init__(self, run: Statements, place: str = "STORE") -> None:
        self.run, self.place = run, place
        self.title = "The database"

    @classmethod
    def at_address(cls, address: str) -> PostgresDatabase:
        """Return the collections at an address; nothing is connected yet."""
        return cls(by_address(address, keep=True), shlex.quote(shown_address(address)))

    def close(self) -> None:
        self.run.close()

    def names(self) -> list[str]:
        return [*self._collections(), *self._tables()]

    def _collections(self) -> list[str]:
        if ROWS not in self._with_vectors():
            return []
        return [one["name"] for one in self.run("SELECT name FROM langchain_pg_collection ORDER BY name")]

    def _with_vectors(self) -> Mapping[str, str]:
        """Return the schemas of the tables with a column of vectors, by their names."""
        with explained("PostgreSQL"):
            found = self.run(
                "SELECT n.nspname AS schema, c.relname AS table FROM pg_attribute a JOIN pg_class c ON c.oid = "
                "a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid "
                "WHERE t.typname IN ('vector', 'halfvec') AND c.relkind IN ('r', 'p') AND NOT a.attisdropped "
                "ORDER BY c.relname"
            )
        return {one["table"]: one["schema"] for one in found}

    def _tables(self) -> Mapping[str, tuple[str, str]]:
        """Return schema and table by the name that programs use: LlamaIndex calls ``pages`` ``data_pages``."""
        there = {name: schema for name, schema in self._with_vectors().items() if name != ROWS}
        taken = {*there, *self._collections()}
        named: dict[str, tuple[str, str]] = {}
        for table, schema in there.items():
            short = table.removeprefix("data_")
            used = short if short not in taken and columns_of(self.run, schema, table) == LLAMA_INDEX else table
            named[used] = schema, table
        return named

    def fitting_name(self, wanted: str) -> str:
        name = re.sub(r"[^a-z0-9_]+", "_", wanted.lower()).strip("_") or "pages"
        if len(name) <= LONGEST:
            return name
        return f"{name[: LONGEST - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    def refusal(self, row: StoredText) -> str | None:
        if "\0" in row.content or "\0" in row.id:
            return "its text or id holds the character NUL, which PostgreSQL does not take"
        return unkeepable(row)

    def knows(self, name: str) -> bool:
        """Return whether there is a table of that name, or the one in which LlamaIndex keeps it."""
        return any(table in (name, f"data_{name}") for _, table in self._tables().values())

    def open(self, name: str) -> LangChainCollection | PostgresTable:
        if name in self._collections():
            return LangChainCollection(self, name)
        tables = self._tables()
        found = tables.get(name) or next((one for one in tables.values() if one[1] in (name, f"data_{name}")), None)
        if found is None:
            raise ConfigError(f"{self.title} has no collection and no table {shown_name(name)}.")
        schema, table = found
        columns = columns_of(self.run, schema, table)
        if columns is None:
            raise ConfigError(
                f"The table {quoted(table)} has no column of texts, or several columns of vectors. Read its texts "
                "and vectors, and compare them with router.check_vectors(texts, vectors)."
            )
        return PostgresTable(self, schema, table, columns)

    def create(self, name: str, router: Router, like: Readable | None = None) -> LangChainCollection | PostgresTable:
        if name not in self.names():
            with self.run.together() as run:
                if isinstance(like, LangChainCollection):
                    _make_collection(run, name, router, others(like.read()))
                elif isinstance(like, PostgresTable):
                    _make_like(run, name, router, like)
                else:
                    _make_table(run, name, router, filled_by_llama_index(like))
        made = self.open(name)
        hold(made, router, adopt=False)
        return made

    def leads_to(self, alias: str) -> str | None:
        return None

    def switch(self, alias: str, to: str, aside: str) -> None:
        """Rename both in one transaction."""
        names = self.names()
        if is_renamed(names, alias, to, aside):
            return
        new, old = self.open(to), self.open(alias) if alias in names else None
        if old is not None and type(new) is not type(old):
            raise ConfigError(
                f"{old.title} is kept in another way than {new.title}, so a program that opens the one cannot open the "
                f"other by its name. Nothing was changed. Change the program to open {to!r}."
            )
        with self.run.together() as run:
            if isinstance(new, LangChainCollection):
                rename(run, alias, to, aside)
                return
            for table, name in ((old, aside), (new, alias)):
                if isinstance(table, PostgresTable):
                    called = _table_name(name, table.columns)
                    run(f"ALTER TABLE {quoted(table.schema)}.{quoted(table.table)} RENAME TO {quoted(called)}")


def _table_name(name: str, columns: Columns) -> str:
    return f"data_{name}" if columns == LLAMA_INDEX and not name.startswith("data_") else name


def _make_collection(run: Statement, name: str, router: Router, entries: Mapping[str, Any]) -> None:
    run("CREATE EXTENSION IF NOT EXISTS vector")
    run("CREATE TABLE IF NOT EXISTS langchain_pg_collection (uuid UUID PRIMARY KEY, name VARCHAR NOT NULL UNIQUE, "
        "cmetadata JSON)")  # fmt: skip
    run(
        f"CREATE TABLE IF NOT EXISTS {ROWS} (id VARCHAR PRIMARY KEY, collection_id UUID REFERENCES "
        "langchain_pg_collection (uuid) ON DELETE CASCADE, embedding vector, document VARCHAR, cmetadata JSONB)"
    )
    run(f"CREATE INDEX IF NOT EXISTS ix_cmetadata_gin ON {ROWS} USING gin (cmetadata jsonb_path_ops)")
    found = run(f"SELECT atttypmod AS size FROM pg_attribute WHERE attrelid = CAST('{ROWS}' AS regclass) "
                "AND attname = 'embedding'")  # fmt: skip
    if (size := int(found[0]["size"])) not in (-1, router.space.dimensions):
        raise ConfigError(
            f"The table {ROWS} takes vectors of {size} numbers alone (embedding_length= of PGVector), and this router "
            f"gives {router.space.dimensions}. Nothing was made. Let it take others: ALTER TABLE {ROWS} ALTER COLUMN "
            "embedding TYPE vector; or write into another database."
        )
    run(
        "INSERT INTO langchain_pg_collection (uuid, name, cmetadata) VALUES (gen_random_uuid(), :name, "
        "CAST(:entries AS json))",
        name=name,
        entries=json.dumps({**entries, **metadata(router)}),
    )


def _make_table(run: Statement, name: str, router: Router, nodes: bool) -> None:
    """Make a table as LlamaIndex's class does, or as LangChain's, but with texts for ids."""
    run("CREATE EXTENSION IF NOT EXISTS vector")
    size = router.space.dimensions
    columns = LLAMA_INDEX if nodes else LANGCHAIN
    table = quoted(_table_name(name, columns))
    if nodes:
        run(f"CREATE TABLE {table} (id BIGSERIAL PRIMARY KEY, text VARCHAR NOT NULL, metadata_ JSON, node_id VARCHAR, "
            f"embedding vector({size}))")  # fmt: skip
        run(f"CREATE INDEX ON {table} ((metadata_->>'ref_doc_id'))")
        run(f"CREATE INDEX ON {table} (node_id)")
    else:
        run(f"CREATE TABLE {table} (langchain_id TEXT PRIMARY KEY, content TEXT NOT NULL, "
            f"embedding vector({size}) NOT NULL, langchain_metadata JSON)")  # fmt: skip
    comment_on(run, table, MARK + json.dumps(metadata(router)))


def _make_like(run: Statement, name: str, router: Router, like: PostgresTable) -> None:
    """Make a table with the columns and indexes of another, but for the length of the vectors."""
    run("CREATE EXTENSION IF NOT EXISTS vector")
    known = run("SELECT to_regnamespace(:name) AS found", name=quoted(like.schema))[0]["found"] is not None
    table = f"{quoted(like.schema if known else 'public')}.{quoted(_table_name(name, like.columns))}"
    parts = [_column(one, like, router.space.dimensions) for one in like.definition()]
    run(f"CREATE TABLE {table} ({', '.join(parts)}, PRIMARY KEY ({quoted(like.key)}))")
    for made in like.indexes():
        where = made.index(" USING ")
        unique = "UNIQUE " if made.startswith("CREATE UNIQUE") else ""
        run(f"CREATE {unique}INDEX ON {table}{made[where:]}".replace(":", r"\:").replace(r"\:\:", "::"))
    comment_on(run, table, MARK + json.dumps({**others(like.read()), **metadata(router)}))


def _column(one: Mapping[str, Any], like: PostgresTable, size: int) -> str:
    kind = str(one["type"])
    if one["name"] == like.columns.vector:
        kind = f"{kind.partition('(')[0]}({size})"
    parts = [quoted(one["name"]), kind]
    given = str(one["given"] or "")
    if one["generated"]:
        parts.append(f"GENERATED ALWAYS AS ({given}) STORED")
    elif one["identity"] or given.startswith("nextval("):
        parts.append("GENERATED BY DEFAULT AS IDENTITY")
    elif given:
        parts.append(f"DEFAULT {given}")
    return " ".join([*parts, *(["NOT NULL"] if one["required"] else [])])
