"""``embedrouter embed --to STORE``: the frameworks' own stores find what was written, and no space is mixed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Router
from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from tests.emulator import Emulator
from tests.filled_stores import PAGES
from tests.test_cli_money import answer, call, offline, place
from tests.test_transfer_frameworks import langchain_table, server
from tests.vector_stores import PostgreSQL

__all__ = ["offline", "place", "server"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

FREE = "wordllama:l2_supercat_256"
ASKED = "When is lunch?"
LUNCH = PAGES[2]


@pytest.fixture
def pages(offline: Path) -> Path:
    path = offline / "pages.jsonl"
    path.write_text("".join(json.dumps({"page": i, "text": text}) + "\n" for i, text in enumerate(PAGES)))
    return path


def vectors(texts: list[str]) -> np.ndarray[Any, Any]:
    with Router([FREE], cache=None, ledger=":memory:") as router:
        return router.embed(texts, input_type="document").vectors


def filled_twice(pages: Path, to: str) -> None:
    """Fill a store, then again with one page changed: each id stays one row."""
    answer("embed", pages, "--id", "page", "--to", to)
    changed = pages.with_name("changed.jsonl")
    changed.write_text(pages.read_text().replace("Bicycles", "Scooters"))
    answer("embed", changed, "--id", "page", "--to", to.partition(":")[2], "--collection", "documents")


def test_chroma(pages: Path) -> None:
    from langchain_chroma import Chroma

    filled_twice(pages, "chroma:db")
    with Router([FREE], cache=None, ledger=":memory:") as router:
        store = Chroma("documents", RouterEmbeddings(router), persist_directory="db")
        (found,) = store.as_retriever(search_kwargs={"k": 1}).invoke(ASKED)
        assert (found.page_content, found.metadata["source"]) == (LUNCH, f"{pages.with_name('changed.jsonl')}, line 3")
        rows: Any = store.get(include=["embeddings", "documents", "metadatas"])
    assert sorted(rows["ids"]) == [str(number) for number in range(len(PAGES))]
    assert sum("Scooters" in text for text in rows["documents"]) == 1
    assert np.asarray(rows["embeddings"], np.float32).tobytes() == vectors(rows["documents"]).tobytes()


def test_lancedb(pages: Path) -> None:
    import lancedb
    from langchain_community.vectorstores import LanceDB

    filled_twice(pages, "lancedb:db")
    with Router([FREE], cache=None, ledger=":memory:") as router:
        connection: Any = lancedb.connect("db")
        store = LanceDB(connection, RouterEmbeddings(router), table_name="documents")
        found = store.as_retriever(search_kwargs={"k": 1}).invoke(ASKED)
    assert [document.page_content for document in found] == [LUNCH]
    rows = connection.open_table("documents").to_arrow().to_pylist()
    assert sorted(row["id"] for row in rows) == [str(number) for number in range(len(PAGES))]
    stored = np.array([row["vector"] for row in rows], np.float32)
    assert stored.tobytes() == vectors([row["text"] for row in rows]).tobytes()


def test_qdrant(pages: Path) -> None:
    """It scales vectors to length 1, as its distance demands, which changes the last bits."""
    from langchain_qdrant import QdrantVectorStore

    filled_twice(pages, "qdrant:db")
    with Router([FREE], cache=None, ledger=":memory:") as router, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        store = QdrantVectorStore.from_existing_collection("documents", RouterEmbeddings(router), path="db")
        (found,) = store.as_retriever(search_kwargs={"k": 1}).invoke(ASKED)
        points, _ = store.client.scroll("documents", limit=100, with_vectors=True)
        store.client.close()
    assert (found.page_content, found.metadata["_id"]) == (LUNCH, 2)
    assert len(points) == len(PAGES)
    texts = [(point.payload or {})["page_content"] for point in points]
    assert np.allclose(np.array([point.vector for point in points]), _scaled(vectors(texts)), atol=1e-6)


def test_faiss(pages: Path) -> None:
    from langchain_community.vectorstores import FAISS

    answer("embed", pages, "--id", "page", "--to", "faiss:db")
    changed = pages.with_name("changed.jsonl")
    changed.write_text(pages.read_text().replace("Bicycles", "Scooters"))
    answer("embed", changed, "--id", "page", "--to", "db")
    with Router([FREE], cache=None, ledger=":memory:") as router:
        store = FAISS.load_local("db", RouterEmbeddings(router), allow_dangerous_deserialization=True)
        (found,) = store.similarity_search(ASKED, k=1)
        assert (found.id, found.page_content) == ("2", LUNCH)
        assert store.index.ntotal == len(PAGES)
        assert "Scooters" in store.get_by_ids(["5"])[0].page_content


def test_a_storage_context(pages: Path) -> None:
    from llama_index.core import StorageContext, load_index_from_storage

    answer("embed", pages, "--id", "page", "--to", "llama-index:db")
    with Router([FREE], cache=None, ledger=":memory:") as router:
        index: Any = load_index_from_storage(
            StorageContext.from_defaults(persist_dir="db"), embed_model=RouterEmbedding(router)
        )
        (found,) = index.as_retriever(similarity_top_k=1).retrieve(ASKED)
    assert (found.node_id, found.text) == ("2", LUNCH)


def test_postgresql(pages: Path, server: PostgreSQL) -> None:
    address = server.new_database()
    for _ in range(2):
        answer("embed", pages, "--id", "page", "--to", address, "--collection", "documents")
    with langchain_table(address, "documents", 256) as store:
        (found,) = store.similarity_search(ASKED, k=1)
        assert (found.id, found.page_content, found.metadata) == ("2", LUNCH, {"source": f"{pages}, line 3"})
        assert len(store.get_by_ids([str(number) for number in range(len(PAGES))])) == len(PAGES)


def _scaled(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(array / np.linalg.norm(array, axis=1, keepdims=True))


@pytest.mark.parametrize("kind", ["chroma", "faiss", "lancedb", "llama-index", "qdrant"])
def test_a_store_of_another_space_is_refused_before_anything_is_paid(
    kind: str, place: Path, emulator: Emulator
) -> None:
    """Under both of its names; and a run that is not agreed to makes no store."""
    declined = call("embed", "corpus.jsonl", "--to", f"{kind}:none")
    assert isinstance(declined.exception, ConfigError)
    assert not Path("none").exists()
    (place / "one.txt").write_text("one text")
    answer("embed", "one.txt", "--to", f"{kind}:db", "--model", FREE)
    for to in (f"{kind}:db", "db"):
        done = call("embed", "corpus.jsonl", "--to", to, "--yes")
        assert isinstance(done.exception, SpaceMismatchError), done.output
    assert not emulator.received


def test_an_id_that_comes_twice_is_told(pages: Path) -> None:
    """The store keeps one text of an id."""
    pages.write_text(pages.read_text() + json.dumps({"page": 2, "text": "Another page."}) + "\n")

    done = call("embed", pages, "--id", "page", "--to", "chroma:db")

    assert done.exit_code == 0
    assert "1 text had the id of an earlier one (2): the store has the last of each." in " ".join(done.stderr.split())


def test_what_is_no_store_and_what_is_not_filled_is_told(pages: Path) -> None:
    from langchain_core.vectorstores import InMemoryVectorStore

    with Router([FREE], cache=None, ledger=":memory:") as router:
        InMemoryVectorStore(RouterEmbeddings(router)).dump("memory.json")
    for to, told in (("missing", "chroma:missing"), ("memory.json", "FILE.parquet"), ("out.csv", ".jsonl.gz")):
        done = call("embed", pages, "--to", to)
        assert isinstance(done.exception, ConfigError)
        assert told in str(done.exception)
