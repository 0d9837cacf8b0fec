"""Real stores on disk and in a real PostgreSQL, filled as people fill them, and how each is named on the command line.

Each filler makes a store of one kind with an embedder, closes it, and returns what ``embedrouter check`` is given. The
packages are imported in the fillers, so that collecting the tests loads no database.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.vector_stores import NAME, opened

Filler = Callable[[Path, Any, Sequence[str]], str]

PAGES = [
    "Employees may take twenty-five days of paid holiday each year.",
    "Report a lost laptop\nto the security desk within one hour.",
    "The canteen serves hot lunch from noon until two.",
    "Parental leave lasts sixteen weeks for both parents.",
    "The fire alarm is tested every Tuesday morning.",
    "Bicycles can be parked\nin the cellar of building four.",
    "Salaries are paid on the last working day of the month.",
]


def _by_framework(kind: str) -> Filler:
    def fill(folder: Path, embedder: Any, texts: Sequence[str]) -> str:
        with opened(kind, folder, embedder) as store:
            store.add(texts)
        return str(folder)

    return fill


def langchain_lancedb(folder: Path, embedder: Any, texts: Sequence[str]) -> str:
    import lancedb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from langchain_community.vectorstores import LanceDB
    LanceDB(lancedb.connect(str(folder)), embedder, table_name=NAME).add_texts(list(texts))
    return str(folder)


def llama_lancedb(folder: Path, embedder: Any, texts: Sequence[str]) -> str:
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    fill_llama_index(LanceDBVectorStore(uri=str(folder), table_name=NAME), embedder, texts)
    return str(folder)


def langchain_milvus(folder: Path, embedder: Any, texts: Sequence[str]) -> str:
    with milvus(folder, embedder) as store:
        store.add_texts(list(texts))
    return str(folder / "milvus.db")


@contextmanager
def milvus(folder: Path, embedder: Any) -> Iterator[Any]:
    """Open LangChain's Milvus store in a file of Milvus Lite."""
    from langchain_milvus import Milvus

    folder.mkdir(parents=True, exist_ok=True)
    store = Milvus(
        embedder, collection_name=NAME, connection_args={"uri": str(folder / "milvus.db")}, auto_id=True,
        index_params={"index_type": "FLAT", "metric_type": "COSINE"},
    )  # fmt: skip
    try:
        yield store
    finally:
        store.client.close()


def fill_llama_index(vectors: Any, embedder: Any, texts: Sequence[str]) -> None:
    """Put nodes with metadata, which LlamaIndex embeds with each text, into a vector store."""
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.schema import TextNode

    nodes = [TextNode(text=text, metadata={"file": f"page-{number}.md"}) for number, text in enumerate(texts)]
    context = StorageContext.from_defaults(vector_store=vectors)
    VectorStoreIndex(nodes, storage_context=context, embed_model=embedder)


def langchain_in_memory(folder: Path, embedder: Any, texts: Sequence[str]) -> str:
    return str(Path(_by_framework("langchain/in-memory")(folder, embedder, texts)) / "store.json")


FOLDERS: dict[str, Filler] = {
    "langchain/chroma": _by_framework("langchain/chroma"),
    "llama_index/chroma": _by_framework("llama_index/chroma"),
    "langchain/qdrant": _by_framework("langchain/qdrant"),
    "llama_index/qdrant": _by_framework("llama_index/qdrant"),
    "langchain/faiss": _by_framework("langchain/faiss"),
    "llama_index/simple": _by_framework("llama_index/simple"),
    "llama_index/faiss": _by_framework("llama_index/faiss"),
    "langchain/lancedb": langchain_lancedb,
    "llama_index/lancedb": llama_lancedb,
    "langchain/milvus": langchain_milvus,
}
"""Stores in files, by kind."""


# PostgreSQL


@contextmanager
def pgvector(uri: str, embedder: Any) -> Iterator[Any]:
    """Open LangChain's ``PGVector``."""
    from langchain_postgres import PGVector
    from sqlalchemy import NullPool, create_engine

    engine = create_engine(uri.replace("postgresql://", "postgresql+psycopg://"), poolclass=NullPool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class is on its way out, in favour of PGVectorStore
        yield PGVector(embedder, collection_name=NAME, connection=engine)
    engine.dispose()


@contextmanager
def llama_pgvector(uri: str, embedder: Any) -> Iterator[Any]:
    """Open LlamaIndex's ``PGVectorStore``."""
    from llama_index.vector_stores.postgres import PGVectorStore

    plain = uri.replace("postgresql://", "postgresql+psycopg://")
    store = PGVectorStore(
        connection_string=plain, async_connection_string=plain, table_name=NAME, schema_name="public",
        embed_dim=embedder.router.space.dimensions,
    )  # fmt: skip
    try:
        yield store
    finally:
        asyncio.run(store.close())


@contextmanager
def newer_pgvector(uri: str, embedder: Any, table: str = "pages") -> Iterator[Any]:
    """Open LangChain's ``PGVectorStore``, whose table is made where there is none."""
    from langchain_postgres import PGEngine, PGVectorStore

    engine = PGEngine.from_connection_string(uri.replace("postgresql://", "postgresql+psycopg://"))
    engine.init_vectorstore_table(table, embedder.router.space.dimensions, overwrite_existing=True)
    try:
        yield PGVectorStore.create_sync(engine, embedder, table)
    finally:
        asyncio.run(engine.close())
