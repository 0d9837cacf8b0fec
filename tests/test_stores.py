"""The mark that travels with a store: its space is in the store itself, and ``guard`` holds every machine to it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedrouter import Router, TieredRouter
from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.retrieval.store_guard import DIMENSIONS, SPACE
from embedrouter.stores import aguard, guard, metadata
from embedrouter.testing import FakeBackend
from tests.vector_stores import NAME, opened

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")  # Qdrant without a server

FOLDERS = ["langchain/faiss", "llama_index/simple", "llama_index/faiss"]
KINDS = [*FOLDERS, "langchain/qdrant", "llama_index/qdrant", "langchain/chroma", "llama_index/chroma"]

FAST = {
    ("langchain/faiss", True),
    ("llama_index/simple", False),
    ("langchain/qdrant", False),
    ("llama_index/qdrant", True),
    ("langchain/chroma", False),
}
OPENED = [
    pytest.param(kind, form, marks=() if (kind, form) in FAST else pytest.mark.slow, id=f"{kind}-{'a' * form}sync")
    for kind in KINDS
    for form in (False, True)
]
"""Kinds of stores, in both forms."""


def router(space: str = "one", dimensions: int = 8) -> Router:
    return Router([FakeBackend(space=space, dimensions=dimensions).model()], cache=None, ledger=":memory:")


def embedder(kind: str, one: Router) -> Any:
    return RouterEmbeddings(one) if kind.startswith("langchain/") else RouterEmbedding(router=one)


@contextmanager
def guarded(kind: str, folder: Path, one: Router, asynchronous: bool, **settings: Any) -> Iterator[Any]:
    """Open a store under its guard: a folder is guarded before the store is read, any other when it is open."""

    def check(store: Any) -> None:
        found = asyncio.run(aguard(store, one, **settings)) if asynchronous else guard(store, one, **settings)
        assert found is store

    if kind in FOLDERS:
        check(folder)
    if kind == "llama_index/qdrant":
        create_qdrant(folder, {})
    with opened(kind, folder, embedder(kind, one)) as store:
        if kind not in FOLDERS:
            check(store.inner)
        yield store


def create_qdrant(folder: Path, entries: dict[str, Any], dimensions: int = 8) -> None:
    """Create the collection, as LlamaIndex would with its first documents."""
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    folder.mkdir(parents=True, exist_ok=True)
    client = QdrantClient(path=str(folder))
    if not client.collection_exists(NAME):
        vectors = VectorParams(size=dimensions, distance=Distance.COSINE)
        client.create_collection(NAME, vectors_config=vectors, metadata=entries)
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "asynchronous"), OPENED)
def test_an_empty_store_is_in_the_space_of_its_first_router(kind: str, tmp_path: Path, asynchronous: bool) -> None:
    """On every machine that has the store: what is moved is refused alike."""
    here, there = tmp_path / "here", tmp_path / "there"
    with guarded(kind, here, router(), asynchronous) as store:
        store.add(["text"])
    shutil.move(here, there)

    lengths = () if kind == "langchain/qdrant" else (6,)  # LangChain refuses it before the guard can
    for other in (router("two"), *(router("one", length) for length in lengths)):
        with (
            pytest.raises(SpaceMismatchError, match=r"is in the space one \(8 dimensions\); this router gives"),
            guarded(kind, there, other, asynchronous, adopt=True),
        ):
            pass
    with guarded(kind, there, router(), asynchronous) as store:
        store.add(["another"])
        assert set(store.search("text")) == {"text", "another"}


@pytest.mark.parametrize(("kind", "asynchronous"), OPENED)
def test_vectors_without_a_mark_are_refused_unless_adopted(kind: str, tmp_path: Path, asynchronous: bool) -> None:
    """Their length proves nothing, so a few of them are compared."""
    if kind == "llama_index/qdrant":
        create_qdrant(tmp_path, {})
    with opened(kind, tmp_path, embedder(kind, router("one"))) as store:
        store.add(["text"])
    with (
        pytest.raises(ConfigError, match=r"without an entry for their space.*adopt=True.*embed the texts again"),
        guarded(kind, tmp_path, router(), asynchronous),
    ):
        pass
    if kind not in (*FOLDERS, "langchain/qdrant"):
        with (
            pytest.raises(SpaceMismatchError, match="vectors of 8 numbers"),
            guarded(kind, tmp_path, router("one", 6), asynchronous, adopt=True),
        ):
            pass
    with (
        pytest.raises(SpaceMismatchError, match="is not marked: 0 of 1 stored vectors match"),
        guarded(kind, tmp_path, router("unknown"), asynchronous, adopt=True),
    ):
        pass
    with guarded(kind, tmp_path, router(), asynchronous, adopt=True):
        pass
    with pytest.raises(SpaceMismatchError), guarded(kind, tmp_path, router("unknown"), asynchronous):
        pass


def test_a_qdrant_collection_is_created_with_its_mark(tmp_path: Path, asynchronous: bool) -> None:
    """Other entries stay, then and later."""
    create_qdrant(tmp_path / "marked", {**metadata(router()), "owner": "me"})
    create_qdrant(tmp_path / "unmarked", {"owner": "me"})
    for name in ("marked", "unmarked"):
        with guarded("langchain/qdrant", tmp_path / name, router(), asynchronous) as store:
            entries = store.inner.client.get_collection(NAME).config.metadata
            assert entries == {SPACE: "one", DIMENSIONS: 8, "owner": "me"}


def test_a_qdrant_collection_that_is_not_there_is_to_be_created_with_its_mark(tmp_path: Path) -> None:
    """LlamaIndex creates it with the first documents, after the guard."""
    with (
        opened("llama_index/qdrant", tmp_path, embedder("llama_index", router())) as store,
        pytest.raises(ConfigError, match=r"create_collection\('handbook', vectors_config=…, metadata=metadata\(router"),
    ):
        guard(store.inner, router())


@pytest.mark.parametrize("old", ["has no field", "drops it"])
def test_a_server_that_keeps_no_mark_guards_nothing_in_silence(old: str) -> None:
    """Qdrant before 1.16."""

    class Client:
        def collection_exists(self, name: str) -> bool:
            return True

        def count(self, name: str, exact: bool) -> Any:
            return SimpleNamespace(count=0)

        def get_collection(self, name: str) -> Any:
            return SimpleNamespace(config=SimpleNamespace(**({} if old == "has no field" else {"metadata": None})))

        def update_collection(self, name: str, metadata: object) -> None:
            """Keep nothing."""

    store = SimpleNamespace(client=Client(), collection_name=NAME)
    with pytest.raises(ConfigError, match=r"did not keep the entries.*index="):
        guard(store, router())


def lance(folder: Path, name: str, entries: dict[str, Any] | None = None) -> Any:
    """Return a table of LanceDB, which is made where there is none."""
    lancedb, arrow = pytest.importorskip("lancedb"), pytest.importorskip("pyarrow")
    database = lancedb.connect(str(folder))
    if (folder / f"{name}.lance").exists():
        return database.open_table(name)
    fields = [arrow.field("vector", arrow.list_(arrow.float32(), 8)), arrow.field("text", arrow.string())]
    texts = {entry: str(value) for entry, value in (entries or {}).items()}
    return database.create_table(name, schema=arrow.schema(fields, metadata=texts or None))


@pytest.mark.parametrize("created", [True, False], ids=["created with its mark", "marked later"])
def test_a_table_of_lancedb_is_held_to_its_space(created: bool, tmp_path: Path, asynchronous: bool) -> None:
    """The mark is in the metadata of its schema, and stays as rows are added."""
    table = lance(tmp_path, "t", {**metadata(router()), "owner": "me"} if created else {"owner": "me"})
    asyncio.run(aguard(table, router())) if asynchronous else guard(table, router())
    table.add([{"vector": [1.0] * 8, "text": "text"}])

    again = lance(tmp_path, "t")
    guard(again, router())
    assert again.schema.metadata[b"owner"] == b"me"
    with pytest.raises(SpaceMismatchError, match="The table 't' is in the space one"):
        guard(again, router("two"))


class Table:
    """A table of LanceDB, as far as the guard uses it."""

    name = "t"

    def __init__(self, rows: int = 0, *, lance: bool = True) -> None:
        numbers = SimpleNamespace(type=SimpleNamespace(list_size=8))
        self.rows, self.lance = rows, lance
        self.written: dict[str, str] = {}
        self.schema: Any = type("Schema", (list,), {"metadata": None})([numbers, SimpleNamespace(type=None)])

    def count_rows(self) -> int:
        return self.rows

    def checkout_latest(self) -> None:
        self.schema.metadata = {name.encode(): value.encode() for name, value in self.written.items()}

    def to_lance(self) -> Any:
        if not self.lance:
            raise ImportError("none", name="lance")
        return SimpleNamespace(update_schema_metadata=self.written.update)


@pytest.mark.parametrize("kind", [Table])
def test_stores_that_need_a_package_or_a_server_are_held_to_their_space(kind: Any, asynchronous: bool) -> None:
    """By a stand-in for lancedb; the real one and PostgreSQL are in test_check_stores.py."""

    def check(store: Any, one: Router, **settings: Any) -> None:
        asyncio.run(aguard(store, one, **settings)) if asynchronous else guard(store, one, **settings)

    empty, filled = kind(), kind(rows=1)
    check(empty, router())
    check(empty, router())
    with pytest.raises(SpaceMismatchError, match=r"'t' is in the space one \(8 dimensions\); this router gives two"):
        check(empty, router("two"))
    with pytest.raises(SpaceMismatchError, match="vectors of 8 numbers"):
        check(filled, router("one", 6), adopt=True)
    with pytest.raises(ConfigError, match=r"without an entry for their space; their length, 8, proves nothing"):
        check(filled, router())
    check(filled, router(), adopt="unchecked")
    check(filled, router())


def test_what_a_store_lacks_is_said() -> None:
    """A package, or a synchronous form."""
    with pytest.raises(ConfigError, match="pip install pylance"):
        guard(Table(lance=False), router())
    with pytest.raises(ConfigError, match="synchronous engine"):
        guard(SimpleNamespace(session_maker=object, collection_name="t"), router())

    class Client:
        async def get_collection(self, name: str) -> None:
            """Wait."""

        async def update_collection(self, name: str) -> None:
            """Wait."""

    with pytest.raises(ConfigError, match="synchronous client"):
        guard(SimpleNamespace(client=Client(), collection_name="t"), router())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
        (f'{{"{SPACE}": "one"}}', "only in part"),
        (f'{{"{SPACE}": "one", "{DIMENSIONS}": "many"}}', "only in part"),
        (f'{{"{SPACE}": 1, "{DIMENSIONS}": 8}}', "only in part"),
    ],
)
def test_half_a_mark_is_no_licence(content: str, message: str, tmp_path: Path) -> None:
    """The space of the store is not known."""
    (tmp_path / "embedrouter.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        guard(tmp_path, router(), adopt=True)


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    """The user names it; a link in the place of the mark is another matter."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    guard(tmp_path / "link", router())
    with pytest.raises(SpaceMismatchError):
        guard(str(tmp_path / "real"), router("two"))

    (tmp_path / "other").mkdir()
    (tmp_path / "other/embedrouter.json").symlink_to(tmp_path / "theirs.json")
    with pytest.raises(ConfigError, match="link"):
        guard(tmp_path / "other", router(), adopt=True)
    assert not (tmp_path / "theirs.json").exists()


def test_a_folder_that_cannot_be_written_is_not_guarded_in_silence(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be (read|written)"):
        guard(tmp_path / "file", router())


@pytest.mark.parametrize("store", [{}, SimpleNamespace(client=None, collection_name="x"), 7], ids=["a", "b", "c"])
def test_what_cannot_hold_a_mark_is_refused(store: object) -> None:
    """The message names the guard that needs nothing of the store."""
    with pytest.raises(ConfigError, match=r"knows no place for a mark.*index="):
        guard(store, router())


def test_only_one_space_can_be_marked(tmp_path: Path) -> None:
    """And the embedder in the store is asked first."""
    with pytest.raises(ConfigError, match="TieredRouter"):
        guard(tmp_path / "new", TieredRouter({"low": router()}))  # type: ignore[arg-type]
    from langchain_core.vectorstores import InMemoryVectorStore

    with pytest.raises(SpaceMismatchError, match="embeds in the space two"):
        guard(InMemoryVectorStore(RouterEmbeddings(router("two"))), router())
    assert not (tmp_path / "new").exists()
