"""Vector stores that people use, of both frameworks, each on disk, behind one narrow interface; and a second process.

`opened` opens a store in a folder, or makes an empty one there, and on the way out puts everything on disk and closes
it: what comes next finds only what a program that starts tomorrow would find. `SecondProcess` is such a program: a
fresh interpreter that runs functions one after the other and is as strict as the tests themselves.

A store opened with `asynchronous=True` is the same store behind its framework's asynchronous methods, so that a test
reads alike for both. No store has a download or telemetry, and all but one run inside the process: the folder of
pgvector has a file with the address of a database, whose server is the tests' own (`PostgreSQL`).
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar

from embedrouter import Model, Router
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding

__all__ = [
    "ALL",
    "KINDS",
    "MEASURED",
    "NAME",
    "Place",
    "PostgreSQL",
    "SecondProcess",
    "Store",
    "chroma_client",
    "opened",
]

P = ParamSpec("P")
R = TypeVar("R")
Embedder = Any  # RouterEmbeddings or RouterEmbedding, as the store's framework wants it

NAME = "handbook"
"""Of the index, wherever a name is asked for."""
MEASURED = "dummy_text"
"""langchain-qdrant learns the length of vectors by embedding this as a document, whenever a store is opened."""
EVERYTHING = 100
"""More neighbours than any index here holds."""


# What a test does with a store


class Store(Protocol):
    """An open store with an embedder."""

    inner: Any
    """The framework's own object."""

    def add(self, texts: Sequence[str]) -> None: ...

    def search(self, question: str) -> list[str]:
        """Return every text in the store, nearest first."""
        ...

    def call(self, method: str, *arguments: Any, of: Any = None, **settings: Any) -> Any:
        """Call a method of the framework's object, or of another, in the form in which the store was opened."""
        ...


class _Awaiting:
    """Runs coroutines in one event loop, each in the context of the call, as a task inside a request would be."""

    def __init__(self, runner: asyncio.Runner | None) -> None:
        self.runner = runner

    def __bool__(self) -> bool:
        return self.runner is not None

    def __call__(self, coroutine: Coroutine[Any, Any, R]) -> R:
        assert self.runner is not None
        return self.runner.run(coroutine, context=copy_context())


class _Opened:
    def __init__(self, inner: Any, wait: _Awaiting) -> None:
        self.inner, self._wait = inner, wait

    def call(self, method: str, *arguments: Any, of: Any = None, **settings: Any) -> Any:
        of = self.inner if of is None else of
        if self._wait:
            return self._wait(getattr(of, f"a{method}")(*arguments, **settings))
        return getattr(of, method)(*arguments, **settings)


class _LangChain(_Opened):
    def add(self, texts: Sequence[str]) -> None:
        self.call("add_texts", list(texts))

    def search(self, question: str) -> list[str]:
        return [document.page_content for document in self.call("similarity_search", question, k=EVERYTHING)]


class _LlamaIndex(_Opened):
    def add(self, texts: Sequence[str]) -> None:
        from llama_index.core.schema import TextNode

        self.call("insert_nodes", [TextNode(text=text) for text in texts])

    def search(self, question: str) -> list[str]:
        retriever = self.inner.as_retriever(similarity_top_k=EVERYTHING)
        return [node.text for node in self.call("retrieve", question, of=retriever)]


@contextmanager
def opened(kind: str, folder: Path, embedder: Embedder, *, asynchronous: bool = False) -> Iterator[Store]:
    """Open the store in `folder`; afterwards write it, close it, and let go of what the router holds."""
    folder.mkdir(parents=True, exist_ok=True)
    framework, _, name = kind.partition("/")
    openers, dress = _FRAMEWORKS[framework]
    with ExitStack() as stack:
        wait = _Awaiting(stack.enter_context(asyncio.Runner()) if asynchronous else None)
        router = embedder.router
        stack.callback((lambda: wait(router.aclose())) if wait else router.close)
        yield dress(stack.enter_context(openers[name](folder, embedder, wait)), wait)


# How each store is opened. Their packages are imported there, so that collecting the tests loads no database

Opener = Callable[[Path, Embedder, _Awaiting], AbstractContextManager[Any]]


def chroma_client(folder: Path) -> Any:
    """Return a persistent client; telemetry is off, and `with` closes it."""
    from chromadb import PersistentClient
    from chromadb.config import Settings

    return PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


@contextmanager
def _langchain_in_memory(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from langchain_core.vectorstores import InMemoryVectorStore

    file = folder / "store.json"
    store = InMemoryVectorStore.load(str(file), embedder) if file.exists() else InMemoryVectorStore(embedder)
    try:
        yield store
    finally:
        store.dump(str(file))


@contextmanager
def _langchain_chroma(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from langchain_chroma import Chroma

    with chroma_client(folder) as client:
        yield Chroma(NAME, embedder, client=client)


@contextmanager
def _langchain_faiss(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    import faiss

    with warnings.catch_warnings():
        # The package says at import that it will be given up; LangChain's FAISS store is nowhere else yet
        warnings.filterwarnings("ignore", "`langchain-community` is being sunset", DeprecationWarning)
        from langchain_community.docstore.in_memory import InMemoryDocstore
        from langchain_community.vectorstores import FAISS

    if (folder / "index.faiss").exists():
        # The texts beside the index are a pickle, which may run code when it is read. This one was written a moment
        # ago by the test itself, into a folder of its own: the one case in which the flag is right
        store = FAISS.load_local(str(folder), embedder, allow_dangerous_deserialization=True)
    else:
        store = FAISS(embedder, faiss.IndexFlatL2(embedder.router.space.dimensions), InMemoryDocstore(), {})
    try:
        yield store
    finally:
        store.save_local(str(folder))


@contextmanager
def _langchain_qdrant(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    # LangChain's asynchronous methods write from a thread of the loop's, which SQLite would refuse
    client = QdrantClient(path=str(folder), force_disable_check_same_thread=bool(wait))
    try:
        if not client.collection_exists(NAME):
            length = embedder.router.space.dimensions
            client.create_collection(NAME, vectors_config=VectorParams(size=length, distance=Distance.COSINE))
        yield QdrantVectorStore(client, NAME, embedder)
    finally:
        client.close()


@contextmanager
def _langchain_lancedb(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    import lancedb

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`langchain-community` is being sunset", DeprecationWarning)
        from langchain_community.vectorstores import LanceDB

    # Its default mode, "overwrite", has every call of add_texts remove what the calls before added
    yield LanceDB(lancedb.connect(str(folder)), embedder, table_name=NAME, mode="append")


@contextmanager
def _langchain_milvus(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from langchain_milvus import Milvus
    from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]

    file = str(folder / "milvus.db")
    index = {"index_type": "FLAT", "metric_type": "COSINE"}
    # Without auto_id it wants an id for each text
    store = Milvus(embedder, NAME, connection_args={"uri": file}, index_params=index, auto_id=True)
    try:
        yield store
    finally:
        store.client.close()
        if wait:
            wait(store.aclient.close())
        server_manager_instance.release_server(file)  # it would keep the file until the process ends


def _address(folder: Path, driver: str) -> Any:
    """Return the address of the database that stands in the folder's file ``postgresql``, for SQLAlchemy."""
    from sqlalchemy import make_url

    return make_url((folder / "postgresql").read_text()).set(drivername=f"postgresql+{driver}")


@contextmanager
def _langchain_pgvector(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from langchain_postgres import PGVector
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    engine: Any = (create_async_engine if wait else create_engine)(_address(folder, "psycopg"))
    try:
        yield PGVector(embedder, connection=engine, collection_name=NAME, async_mode=bool(wait))
    finally:
        wait(engine.dispose()) if wait else engine.dispose()


def _llama_index_in_files(folder: Path, embedder: Embedder, vectors: Any) -> Any:
    """Return an index whose texts LlamaIndex keeps in files of its own, beside those of the vectors."""
    from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage

    if not (folder / "docstore.json").exists():
        context = StorageContext.from_defaults(vector_store=vectors)
        return VectorStoreIndex([], storage_context=context, embed_model=embedder)
    context = StorageContext.from_defaults(vector_store=vectors, persist_dir=str(folder))
    return load_index_from_storage(context, embed_model=embedder)


@contextmanager
def _llama_index_simple(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from llama_index.core.vector_stores import SimpleVectorStore

    known = (folder / "docstore.json").exists()
    vectors = SimpleVectorStore.from_persist_dir(str(folder)) if known else SimpleVectorStore()
    index = _llama_index_in_files(folder, embedder, vectors)
    try:
        yield index
    finally:
        index.storage_context.persist(str(folder))


@contextmanager
def _llama_index_faiss(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    import faiss
    from llama_index.vector_stores.faiss import FaissVectorStore

    if (folder / "docstore.json").exists():
        vectors = FaissVectorStore.from_persist_dir(str(folder))
    else:
        vectors = FaissVectorStore(faiss.IndexFlatL2(embedder.router.space.dimensions))
    index = _llama_index_in_files(folder, embedder, vectors)
    try:
        yield index
    finally:
        index.storage_context.persist(str(folder))


@contextmanager
def _llama_index_chroma(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from llama_index.core import VectorStoreIndex
    from llama_index.vector_stores.chroma import ChromaVectorStore

    with chroma_client(folder) as client:
        collection = client.get_or_create_collection(NAME)
        yield VectorStoreIndex.from_vector_store(ChromaVectorStore(collection), embed_model=embedder)


@contextmanager
def _llama_index_qdrant(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from llama_index.core import VectorStoreIndex
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import AsyncQdrantClient, QdrantClient

    # Local mode locks its folder, so a store has a client of one kind or the other
    client: Any = AsyncQdrantClient(path=str(folder)) if wait else QdrantClient(path=str(folder))
    try:
        vectors = QdrantVectorStore(NAME, **{"aclient" if wait else "client": client})
        with warnings.catch_warnings():
            # LlamaIndex asks for an index over its document ids with every new collection; local mode has none
            warnings.filterwarnings("ignore", "Payload indexes have no effect in the local Qdrant", UserWarning)
            yield VectorStoreIndex.from_vector_store(vectors, embed_model=embedder)
    finally:
        wait(client.close()) if wait else client.close()


@contextmanager
def _llama_index_lancedb(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from llama_index.core import VectorStoreIndex
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"table_names\(\) is deprecated", DeprecationWarning)  # LlamaIndex calls it
        vectors = LanceDBVectorStore(uri=str(folder), table_name=NAME)
    yield VectorStoreIndex.from_vector_store(vectors, embed_model=embedder)


@contextmanager
def _llama_index_pgvector(folder: Path, embedder: Embedder, wait: _Awaiting) -> Iterator[Any]:
    from llama_index.core import VectorStoreIndex
    from llama_index.vector_stores.postgres import PGVectorStore

    vectors = PGVectorStore.from_params(
        connection_string=_address(folder, "psycopg2"),
        async_connection_string=_address(folder, "asyncpg"),
        table_name=NAME,
        embed_dim=embedder.router.space.dimensions,
    )
    try:
        yield VectorStoreIndex.from_vector_store(vectors, embed_model=embedder)
    finally:
        (wait or asyncio.run)(vectors.close())


LANGCHAIN: dict[str, Opener] = {
    "in-memory": _langchain_in_memory,
    "chroma": _langchain_chroma,
    "faiss": _langchain_faiss,
    "qdrant": _langchain_qdrant,
    "lancedb": _langchain_lancedb,
    "milvus": _langchain_milvus,
    "pgvector": _langchain_pgvector,
}
LLAMA_INDEX: dict[str, Opener] = {
    "simple": _llama_index_simple,
    "chroma": _llama_index_chroma,
    "faiss": _llama_index_faiss,
    "qdrant": _llama_index_qdrant,
    "lancedb": _llama_index_lancedb,
    "pgvector": _llama_index_pgvector,
}
_FRAMEWORKS: dict[str, tuple[dict[str, Opener], Callable[[Any, _Awaiting], Store]]] = {
    "langchain": (LANGCHAIN, _LangChain),
    "llama_index": (LLAMA_INDEX, _LlamaIndex),
}
ALL = [*(f"langchain/{name}" for name in LANGCHAIN), *(f"llama_index/{name}" for name in LLAMA_INDEX)]
KINDS = [kind for kind in ALL if kind.partition("/")[2] not in ("lancedb", "milvus", "pgvector")]
"""Those that are quick to import, and need no server."""


# Where a store lies, and who embeds for it


class PostgreSQL:
    """A server of PostgreSQL 16 with pgvector, from a package, in a folder of its own. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._databases = 0

    def __enter__(self) -> PostgreSQL:
        import pgserver

        package: Any = pgserver  # which declares no export
        self._server = package.get_server(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()

    def new_database(self) -> str:
        """Create an empty database, and return its address."""
        self._databases += 1
        self._server.psql(f"CREATE DATABASE tests_{self._databases}")
        return str(self._server.get_uri(f"tests_{self._databases}"))


@dataclass(frozen=True)
class Place:
    """All that two processes have to agree on: the kind of store, the folder, and the provider."""

    kind: str
    folder: Path
    url: str
    """The emulator's, for Voyage."""

    def router(self, space: str = "voyage-4") -> Router:
        """Return a new router; those of one folder share the cache."""
        models, dimensions, asked = _ROUTERS[space]
        served = [Model(f"voyage:{name}", tier=tier, base_url=self.url, api_key="any") for name, tier in models]
        return Router(
            served or ["wordllama:l2_supercat_256"],
            dimensions=dimensions,
            query_tier=asked,
            cache=self.folder / "cache",
        )

    def embedder(self, space: str = "voyage-4", *, index: str | None = NAME) -> Embedder:
        """Return a new adapter of the store's framework."""
        return self.adapter(self.router(space), index=index)

    def adapter(self, router: Router, *, index: str | None = None) -> Embedder:
        """Return the adapter of the store's framework for a router."""
        return (RouterEmbeddings if self.kind.startswith("langchain/") else RouterEmbedding)(router, index=index)

    def opened(self, embedder: Embedder, *, asynchronous: bool = False) -> AbstractContextManager[Store]:
        return opened(self.kind, self.folder / self.kind, embedder, asynchronous=asynchronous)


_FAMILY = [("voyage-4-large", "high"), ("voyage-4", "medium"), ("voyage-4-lite", "low")]
_ROUTERS: dict[str, tuple[list[tuple[str, str]], int | None, str | None]] = {
    "voyage-4": (_FAMILY, 1024, "medium"),
    "voyage-4 (256)": (_FAMILY, 256, "medium"),
    "voyage-3.5": ([("voyage-3.5", "high")], 1024, None),
    "wordllama": ([], None, None),
}
"""By space: the models with their tiers, the dimensions, and the tier of queries that ask for none."""


# The second process


class SecondProcess:
    """A fresh interpreter. What a function returns or raises comes back.

    Warnings are errors there too, and no function may leave a thread behind, or a resource that closes itself in
    a finaliser.
    """

    def __enter__(self) -> SecondProcess:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_be_strict)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        places = {name: os.environ[name] for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME")}
        return self._pool.submit(_strictly, partial(function, *args, **kwargs), places).result(timeout=120)


_complaints: list[str] = []


def _be_strict() -> None:
    warnings.simplefilter("error")
    sys.unraisablehook = lambda complaint: _complaints.append(f"{complaint.exc_value!r} from {complaint.object!r}")


def _strictly(function: Callable[[], R], places: Mapping[str, str]) -> R:
    os.environ.update(places)  # of the test's own user
    result = function()
    gc.collect()
    # The threads of the package's pool stay for a while, those of LanceDB and gRPC as long as the process
    lasting = (threading.main_thread().name, "embedrouter", "LanceDBBackgroundEventLoop", "(_poll_wrapper)")
    left = [thread for thread in threading.enumerate() if not thread.name.endswith(lasting)]
    assert not left, f"{left} still run after {function}"
    assert not _complaints, _complaints
    return result
