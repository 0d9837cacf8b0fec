"""What the frameworks' own classes find in a store that was written from another: what is found in one they filled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Router
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.stores._reading import database, readable
from embedrouter.stores._transfer import NotSwitchable, StoredText
from embedrouter.types import Vectors
from tests.filled_stores import PAGES, fill_llama_index, llama_pgvector, newer_pgvector, pgvector
from tests.test_transfer_pairs import server
from tests.transfers import FREE, NAME, contents, created, move, router
from tests.vector_stores import PostgreSQL, opened

__all__ = ["server"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant"),
]


def embedder(kind: str, dimensions: int) -> Any:
    space = Router([FREE], dimensions=dimensions, cache=None, ledger=":memory:")
    return (RouterEmbeddings if kind.startswith("langchain/") else RouterEmbedding)(space)


def embedded(rows: Sequence[StoredText]) -> Vectors:
    with router() as ours:
        return ours.embed([row.text for row in rows], input_type="document").vectors


ASKED = "When is lunch?"


def filled(kind: str, folder: Path, dimensions: int) -> list[str]:
    """Fill a store as people do, and return what it finds."""
    with opened(kind, folder, embedder(kind, dimensions)) as store:
        store.add(PAGES)
        return store.search(ASKED)


def found(kind: str, folder: Path, dimensions: int) -> list[str]:
    with opened(kind, folder, embedder(kind, dimensions)) as store:
        return store.search(ASKED)


FILES = {
    "langchain": ("chroma", "qdrant", "faiss", "lancedb"),
    "llama_index": ("chroma", "qdrant", "simple", "lancedb"),
}
PLACE = {"simple": "llama-index:{}", "faiss": "faiss:{}"}


@pytest.mark.parametrize("kind", [f"{framework}/{name}" for framework, names in FILES.items() for name in names])
def test_a_framework_finds_in_every_new_store_what_it_finds_in_one_that_it_filled_itself(
    kind: str, tmp_path: Path
) -> None:
    """A LangChain store becomes LangChain stores of all kinds, a LlamaIndex store those of LlamaIndex."""
    framework, _, name = kind.partition("/")
    expected = filled(kind, tmp_path / "fresh", 64)
    before = filled(kind, tmp_path / "old", 256)
    for target in FILES[framework]:
        folder = tmp_path / target
        with (
            readable(tmp_path / "old", None if name in PLACE else NAME) as source,
            database(PLACE.get(target, f"{target}:{{}}").format(folder)) as place,
        ):
            move(source, created(place, source), embedded)
        assert found(f"{framework}/{target}", folder, 64) == expected, target
    assert found(kind, tmp_path / "old", 256) == before


@pytest.mark.parametrize("kind", [f"{framework}/{name}" for framework, names in FILES.items() for name in names])
def test_a_framework_opens_the_new_collection_under_the_old_name_and_after_undoing_the_old_one(
    kind: str, tmp_path: Path
) -> None:
    name = kind.partition("/")[2]
    expected = filled(kind, tmp_path / "fresh", 64)
    before = filled(kind, tmp_path / NAME, 256)
    with readable(tmp_path / NAME, None if name in PLACE else NAME) as source:
        place = source.database
        move(source, place.create("handbook-64", router(), source), embedded)
        if name == "qdrant":
            with pytest.raises(NotSwitchable):
                place.switch(NAME, "handbook-64", "handbook-256")
            return
        place.switch(NAME, "handbook-64", "handbook-256")
    assert found(kind, tmp_path / NAME, 64) == expected
    with database(tmp_path / NAME) as place:
        place.switch(NAME, "handbook-256", "handbook-64")
    assert found(kind, tmp_path / NAME, 256) == before


def test_langchain_finds_all_metadata_and_adds_further_texts(tmp_path: Path) -> None:
    """Also what only the old store could hold: in the new one it stands as JSON beside the rest."""
    kind = "langchain/qdrant"
    entries = [{"page": number, "tags": {"kind": ["a", None]}} for number in range(len(PAGES))]
    with opened(kind, tmp_path / "old", embedder(kind, 256)) as store:
        store.inner.add_texts(PAGES, metadatas=entries)
    for target in ("chroma", "lancedb", "faiss", "qdrant"):
        place_name = PLACE.get(target, f"{target}:{{}}").format(tmp_path / target)
        with readable(tmp_path / "old") as source, database(place_name) as place:
            move(source, created(place, source), embedded)
        with opened(f"langchain/{target}", tmp_path / target, embedder(kind, 64)) as store:
            (document,) = store.inner.similarity_search(ASKED, k=1)
            assert document.page_content == PAGES[2]
            assert document.metadata["page"] == 2
            store.inner.add_texts(["Tea is served at four."], metadatas=[{"page": 9}])
        with readable(tmp_path / target) as again:
            rows = contents(again)
        assert sorted((entry["page"], entry.get("tags")) for _, _, entry in rows.values()) == [
            *((number, entries[number]["tags"]) for number in range(len(PAGES))),
            (9, None),
        ]


# PostgreSQL


def test_collections_of_pgvector_share_tables_and_keep_their_ids(server: PostgreSQL) -> None:
    """LangChain's ``PGVector`` has one key for the ids of all collections: new rows take them over at the switch."""
    address = server.new_database()
    ids = [f"page-{number}" for number in range(len(PAGES))]
    with pgvector(address, embedder("langchain/", 256)) as store:
        store.add_texts(PAGES, metadatas=[{"n": {"a": [None, number]}} for number in range(len(PAGES))], ids=ids)
        with readable(store) as source:
            assert source.name == NAME
    with readable(address, NAME) as source:
        old = contents(source)
        place = source.database
        target = place.create("handbook_64", router(), source)
        move(source, target, embedded)
        move(source, target, embedded)
        assert contents(target) == contents(source) == old
        assert sorted(old) == ids

        place.switch(NAME, "handbook_64", "handbook_256")

        assert contents(place.open(NAME)) == contents(place.open("handbook_256")) == old
    with pgvector(address, embedder("langchain/", 64)) as store:
        assert store.similarity_search(ASKED, k=1)[0].metadata == {"n": {"a": [None, 2]}}
        store.add_texts(["Lunch is at one."], ids=["page-2"])  # replaces the new row, not the old one
        assert store.get_by_ids(["page-2"])[0].page_content == "Lunch is at one."
    with readable(address, "handbook_256") as source:
        assert contents(source) == old
        source.database.switch(NAME, "handbook_256", "handbook_64")
    with pgvector(address, embedder("langchain/", 256)) as store:
        assert store.similarity_search(ASKED, k=1)[0].page_content == PAGES[2]
        assert store.get_by_ids(["page-2"])[0].page_content == PAGES[2]
    with readable(address, "handbook_64") as source:
        assert sorted(contents(source)) == ids
        source.database.open("handbook_64").drop()
        assert source.database.names() == [NAME]


def test_tables_of_both_frameworks_are_made_like_the_old_one_and_renamed(server: PostgreSQL) -> None:
    address = server.new_database()
    with newer_pgvector(address, embedder("langchain/", 256)) as store:
        store.add_texts(PAGES, metadatas=[{"n": number} for number in range(len(PAGES))])
    with llama_pgvector(address, embedder("llama_index/", 256)) as vectors:
        fill_llama_index(vectors, embedder("llama_index/", 256), PAGES)
    for name in ("pages", NAME):
        with readable(address, name) as source:
            assert source.name == name
            place = source.database
            target = place.create(f"{name}_64", router(), source)
            move(source, target, embedded)
            assert contents(target) == contents(source)
            place.switch(name, f"{name}_64", f"{name}_256")
    with langchain_table(address, "pages", 64) as store:
        (document,) = store.similarity_search(ASKED, k=1)
        assert (document.page_content, document.metadata) == (PAGES[2], {"n": 2})
    assert llama_index_finds(address, 64) == (PAGES[2], {"file": "page-2.md"})
    for name in ("pages", NAME):
        with readable(address, name) as source:
            source.database.switch(name, f"{name}_256", f"{name}_64")
    with database(address) as place:
        assert place.names() == sorted(["pages", "pages_64", NAME, f"{NAME}_64"])
    assert llama_index_finds(address, 256) == (PAGES[2], {"file": "page-2.md"})


def test_a_store_of_either_framework_becomes_a_table_that_it_opens(server: PostgreSQL, tmp_path: Path) -> None:
    for kind in ("langchain/chroma", "llama_index/chroma"):
        filled(kind, tmp_path / kind, 256)
        address = server.new_database()
        with readable(tmp_path / kind) as source, database(address) as place:
            move(source, target := created(place, source), embedded)
            assert contents(target) == contents(source)
        if kind.startswith("langchain"):
            with langchain_table(address, NAME, 64) as store:
                assert store.similarity_search(ASKED, k=1)[0].page_content == PAGES[2]
                store.add_texts(["One more."])
        else:
            assert llama_index_finds(address, 64) == (PAGES[2], {})


@contextmanager
def langchain_table(address: str, table: str, dimensions: int) -> Iterator[Any]:
    from langchain_postgres import PGEngine, PGVectorStore

    engine = PGEngine.from_connection_string(address.replace("postgresql://", "postgresql+psycopg://"))
    try:
        yield PGVectorStore.create_sync(engine, embedder("langchain/", dimensions), table)
    finally:
        asyncio.run(engine.close())


def llama_index_finds(address: str, dimensions: int) -> tuple[str, Any]:
    from llama_index.core import VectorStoreIndex

    ours = embedder("llama_index/", dimensions)
    with llama_pgvector(address, ours) as vectors:
        index = VectorStoreIndex.from_vector_store(vectors, embed_model=ours)
        (node,) = index.as_retriever(similarity_top_k=1).retrieve(ASKED)
    return node.text, node.metadata
