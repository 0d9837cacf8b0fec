"""The index guard: a named vector store is held to the space it was filled in."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Document as LlamaDocument
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from typer.testing import CliRunner

from embedrouter import Router, Space
from embedrouter.cache import DEFAULT
from embedrouter.cli import app
from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.retrieval.index_guard import IndexGuard, forget, recorded, users_folder
from embedrouter.testing import FakeBackend, MemoryCache

Adapter = Callable[..., Any]


def router(folder: Path, space: str, dimensions: int = 8) -> Router:
    return Router([FakeBackend(space=space, dimensions=dimensions).model()], cache=folder)


def langchain(folder: Path, space: str, **settings: Any) -> RouterEmbeddings:
    return RouterEmbeddings(router(folder, space), **settings)


def llama_index(folder: Path, space: str, **settings: Any) -> RouterEmbedding:
    return RouterEmbedding(router=router(folder, space), **settings)


def add(adapter: Any, texts: list[str], asynchronous: bool) -> None:
    if isinstance(adapter, RouterEmbeddings):
        asyncio.run(adapter.aembed_documents(texts)) if asynchronous else adapter.embed_documents(texts)
    else:
        embed = adapter.aget_text_embedding_batch if asynchronous else adapter.get_text_embedding_batch
        asyncio.run(embed(texts)) if asynchronous else embed(texts)


def ask(adapter: Any, text: str) -> None:
    if isinstance(adapter, RouterEmbeddings):
        adapter.embed_query(text)
    else:
        adapter.get_query_embedding(text)


@pytest.fixture(params=[langchain, llama_index], ids=["langchain", "llama_index"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    made: Adapter = request.param
    return made


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_first_documents_decide_the_space(adapter: Adapter, tmp_path: Path, asynchronous: bool) -> None:
    """A router of another space is refused when the adapter is built; the message says how to go on."""
    add(adapter(tmp_path, "one", index="handbook"), ["text"], asynchronous)

    adapter(tmp_path, "one", index="handbook")
    with pytest.raises(SpaceMismatchError, match=r"'handbook'.*embed the documents again.*forget-index handbook"):
        adapter(tmp_path, "two", index="handbook")
    adapter(tmp_path, "two", index="another")
    adapter(tmp_path, "two")


def test_an_adapter_built_before_is_refused_at_its_next_call(adapter: Adapter, tmp_path: Path) -> None:
    """Two were built while the index was empty; one of them filled it."""
    first, second = (adapter(tmp_path, space, index="handbook") for space in ("one", "two"))
    add(first, ["text"], asynchronous=False)

    with pytest.raises(SpaceMismatchError):
        ask(second, "query")
    with pytest.raises(SpaceMismatchError):
        add(second, ["text"], asynchronous=False)
    ask(first, "query")


def test_equal_dimensions_do_not_make_spaces_equal_nor_different_ones_pass(tmp_path: Path) -> None:
    """Name and dimensions both count."""
    add(RouterEmbeddings(router(tmp_path, "one"), index="handbook"), ["text"], asynchronous=False)

    with pytest.raises(SpaceMismatchError, match="6 dimensions"):
        RouterEmbeddings(router(tmp_path, "one", dimensions=6), index="handbook")


def test_neither_queries_nor_empty_lists_decide(adapter: Adapter, tmp_path: Path) -> None:
    """Only documents stay in an index."""
    one = adapter(tmp_path, "one", index="handbook")
    ask(one, "query")
    add(one, [], asynchronous=False)

    adapter(tmp_path, "two", index="handbook")


def test_a_failed_call_decides_nothing(tmp_path: Path) -> None:
    """Nothing was put into the index."""
    adapter = langchain(tmp_path, "one", index="handbook")
    with pytest.raises(ValueError, match="empty"):
        adapter.embed_documents(["text", ""])

    langchain(tmp_path, "two", index="handbook")


def test_copies_of_an_adapter_keep_the_index(adapter: Adapter, tmp_path: Path) -> None:
    """with_tier() and pickles."""
    one = adapter(tmp_path, "one", index="handbook")

    assert one.with_tier("high").index == "handbook"
    assert pickle.loads(pickle.dumps(one)).index == "handbook"


def test_both_frameworks_share_the_record(tmp_path: Path) -> None:
    """An index is an index."""
    add(langchain(tmp_path, "one", index="handbook"), ["text"], asynchronous=False)

    with pytest.raises(SpaceMismatchError):
        llama_index(tmp_path, "two", index="handbook")


CACHES: dict[str, Any] = {
    "no cache": None,
    "another folder": "elsewhere",
    "a relative folder, in another working folder": "vectors",
    "a cache of one's own": MemoryCache(),
    "the default": DEFAULT,
}


@pytest.mark.parametrize("cache", CACHES)
def test_a_record_holds_for_the_user_whatever_the_cache(
    adapter: Adapter, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """And whichever the working folder is."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    add(adapter(Path("vectors"), "one", index="handbook"), ["text"], asynchronous)
    monkeypatch.chdir(tmp_path / "there")
    stranger = Router([FakeBackend(space="two").model()], cache=CACHES[cache])
    made: Any = RouterEmbeddings if adapter is langchain else RouterEmbedding

    with pytest.raises(SpaceMismatchError, match="'handbook'"):
        made(router=stranger, index="handbook")
    assert recorded(users_folder()) == {"handbook": Space("one", 8)}
    assert users_folder() == tmp_path / "user-data/embedrouter/indexes"


def test_records_of_earlier_versions_are_found(adapter: Adapter, tmp_path: Path, asynchronous: bool) -> None:
    """Beside the cache. The next documents bring them to the place that every process looks at."""
    IndexGuard(tmp_path / "cache/indexes", "handbook", Space("one", 8)).record()
    with pytest.raises(SpaceMismatchError, match=f"forget-index handbook --cache {tmp_path / 'cache'}"):
        adapter(tmp_path / "cache", "two", index="handbook")
    add(adapter(tmp_path / "cache", "one", index="handbook"), ["text"], asynchronous)

    with pytest.raises(SpaceMismatchError, match="forget-index handbook;"):
        adapter(tmp_path / "another", "two", index="handbook")
    done = CliRunner().invoke(app, ["cache", "forget-index", "handbook", "--cache", str(tmp_path / "cache")])
    assert done.exit_code == 0
    adapter(tmp_path / "cache", "two", index="handbook")


@pytest.mark.parametrize("cached", [True, False])
def test_a_data_folder_that_cannot_be_written(cached: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a record is kept beside the cache; without a cache the error says so, and nothing is guarded in silence."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    cache = tmp_path / "cache" if cached else None
    embeddings = RouterEmbeddings(
        Router([FakeBackend(space="one").model()], cache=cache, ledger=":memory:"), index="handbook"
    )
    if not cached:
        with pytest.raises(ConfigError, match="cannot be recorded"):
            embeddings.embed_documents(["text"])
        return
    embeddings.embed_documents(["text"])
    with pytest.raises(SpaceMismatchError):
        langchain(tmp_path / "cache", "two", index="handbook")


@pytest.mark.parametrize("name", ["a/b", "../x", "ünï çödé", "a.json", "c:\\d", "x" * 60])
def test_an_index_may_have_any_name(tmp_path: Path, name: str) -> None:
    """It never becomes a path."""
    guard = IndexGuard(tmp_path / "indexes", name, Space("s", 1))
    guard.record()

    assert recorded(tmp_path / "indexes") == {name: Space("s", 1)}
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "indexes"]


def test_an_index_needs_a_name(tmp_path: Path) -> None:
    """An empty one would hold every index to one space."""
    with pytest.raises(ConfigError, match="name of the vector store"):
        langchain(tmp_path, "one", index="")


def test_a_damaged_record_is_an_error_and_not_a_licence(tmp_path: Path) -> None:
    """The space of the index is not known."""
    add(langchain(tmp_path, "one", index="handbook"), ["text"], asynchronous=False)
    (users_folder() / "handbook.json").write_text("{")

    with pytest.raises(ConfigError, match="cannot be read"):
        langchain(tmp_path, "two", index="handbook")


RACER = """
import sys
from pathlib import Path
from embedrouter import Space
from embedrouter.errors import SpaceMismatchError
from embedrouter.retrieval.index_guard import IndexGuard

guard = IndexGuard(Path(sys.argv[1]), "handbook", Space(sys.argv[2], 1))
print("ready", flush=True)
sys.stdin.readline()
try:
    guard.record()
    print("recorded")
except SpaceMismatchError:
    print("refused")
"""


@pytest.mark.slow
def test_of_processes_that_come_first_together_one_space_wins(tmp_path: Path) -> None:
    """The others are refused. Each waits until all have seen that there is no record."""
    with ExitStack() as stack:
        racers = {
            f"space {number}": stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACER, str(tmp_path), f"space {number}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(3)
        }
        assert [racer.stdout.readline() for racer in racers.values() if racer.stdout] == ["ready\n"] * 3
        for racer in racers.values():
            assert racer.stdin
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = {space: racer.communicate(timeout=60)[0].strip() for space, racer in racers.items()}

    (winner,) = [space for space, outcome in said.items() if outcome == "recorded"]
    assert sorted(said.values()) == ["recorded", "refused", "refused"]
    assert json.loads((tmp_path / "handbook.json").read_text())["name"] == winner


def test_an_index_that_was_embedded_again_is_forgotten_on_the_command_line(tmp_path: Path) -> None:
    """Then the next documents decide anew."""
    add(langchain(tmp_path, "one", index="handbook"), ["text"], asynchronous=False)
    done = CliRunner().invoke(app, ["cache", "forget-index", "handbook", "--cache", str(tmp_path)])

    assert done.exit_code == 0
    assert "one (8 dimensions)" in done.output
    add(langchain(tmp_path, "two", index="handbook"), ["text"], asynchronous=False)
    with pytest.raises(ConfigError, match=r"No index 'other'.*'handbook'"):
        forget("other", users_folder())


# What frameworks do not notice


@pytest.mark.filterwarnings("ignore:Using SHA-1:UserWarning")  # the newest LangChain asks for another hash
def test_langchains_indexing_api_cannot_mix_models(tmp_path: Path) -> None:
    """H7: unchanged documents are skipped, so that after a change of the model old and new vectors lay together."""
    manager = InMemoryRecordManager("handbook")
    manager.create_schema()
    store = InMemoryVectorStore(langchain(tmp_path, "one", index="handbook"))
    index([Document("a")], manager, store)

    with pytest.raises(SpaceMismatchError):
        store.embedding = langchain(tmp_path, "two", index="handbook")


def test_llama_indexes_docstore_cannot_mix_models(tmp_path: Path) -> None:
    """H20: a pipeline with a docstore skips known documents, even if another model embeds the new ones."""

    def run(space: str, *texts: str) -> None:
        pipeline = IngestionPipeline(
            transformations=[llama_index(tmp_path, space, index="handbook")],
            docstore=docstore,
            vector_store=store,
            disable_cache=True,
        )
        pipeline.run(documents=[LlamaDocument(text=text, id_=text) for text in texts])

    docstore, store = SimpleDocumentStore(), SimpleVectorStore()
    run("one", "a")
    with pytest.raises(SpaceMismatchError):
        run("two", "a", "b")

    assert len(store.data.embedding_dict) == 1


def test_a_query_embedder_of_equal_dimensions_is_not_enough(tmp_path: Path) -> None:
    """H34: a separate query embedder was checked by its dimensions only."""
    documents = langchain(tmp_path, "one", index="handbook")
    documents.embed_documents(["text"])

    with pytest.raises(SpaceMismatchError):
        langchain(tmp_path, "two", index="handbook").embed_query("q")
