"""Find the tables behind an open store in PostgreSQL."""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError
from ...retrieval.store_guard import Marked
from ._collection import LangChainCollection
from ._database import PostgresDatabase
from ._statements import by_address, by_session
from ._table import LLAMA_INDEX, Columns, PostgresTable


def find(store: Any) -> Marked | None:
    """Return the adapter of a store in PostgreSQL; ``None`` for any other store.

    Raises:
        ConfigError: the store has an asynchronous engine alone.
    """
    if hasattr(store, "session_maker") and hasattr(store, "collection_name"):
        if not hasattr(store.session_maker(), "__enter__"):
            raise ConfigError("guard takes a store with a synchronous engine. Open the store with one to guard it.")
        return LangChainCollection(PostgresDatabase(by_session(store.session_maker)), store.collection_name)
    if hasattr(store, "connection_string") and hasattr(store, "table_name"):
        engine = store.client  # there is none before the first use
        run = by_address(store.connection_string) if engine is None else by_session(engine.connect)
        return PostgresTable(PostgresDatabase(run), store.schema_name, f"data_{store.table_name}", LLAMA_INDEX)
    # LangChain's PGVectorStore shows neither its table nor its engine: its attributes are tried
    for inner in (store, *getattr(store, "__dict__", {}).values()):
        if all(hasattr(inner, name) for name in ("table_name", "schema_name", "content_column", "embedding_column")):
            columns = Columns(inner.id_column, inner.content_column, inner.embedding_column, inner.metadata_json_column)
            database = PostgresDatabase(by_address(inner.engine.url))
            return PostgresTable(database, inner.schema_name, inner.table_name, columns)
    return None
