"""`embedrouter check` and `guard` on real stores: filled as people fill them, closed, and opened by what names them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Router
from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.retrieval.store_guard import DIMENSIONS, SPACE
from embedrouter.stores import KINDS as STORES
from embedrouter.stores import aguard, guard, metadata, readable
from tests import filled_stores as filled
from tests.command_line import Ended, run
from tests.emulator import Emulator
from tests.filled_stores import FOLDERS, PAGES
from tests.vector_stores import NAME

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the stores and of LangChain's community package
    pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning"),
]

ADA, SMALL = "openai:text-embedding-ada-002", "openai:text-embedding-3-small"
FAST = ("llama_index/simple",)
"""The store that needs no database; Chroma is looked at below."""
KINDS = [pytest.param(kind, marks=() if kind in FAST else pytest.mark.slow) for kind in FOLDERS]


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as one:
        yield one


@pytest.fixture(autouse=True)
def _key(running: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what a user of OpenAI has set."""
    monkeypatch.setenv("OPENAI_BASE_URL", running.openai_url)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-the-tests")


_routers: list[Router] = []


@pytest.fixture(autouse=True)
def _close_routers() -> Iterator[None]:
    yield
    while _routers:
        _routers.pop().close()


def router(model: str = ADA) -> Router:
    _routers.append(Router([model], cache=None, ledger=":memory:"))
    return _routers[-1]


def embedder(kind: str, one: Router | None = None) -> Any:
    one = one or router()
    return RouterEmbeddings(one) if kind.startswith("langchain/") else RouterEmbedding(router=one)


def fill(kind: str, folder: Path, one: Router | None = None) -> str:
    return FOLDERS[kind](folder, embedder(kind, one), PAGES)


def content(folder: Path) -> dict[str, str]:
    """Return a hash of each file of a store; of Chroma the names, because opening it tidies its files."""
    own = (".lock", "LOCK", "-wal", "-shm", "LOG")
    tidied = (".bin", ".sqlite3")
    return {
        str(file.relative_to(folder)): "" if file.suffix in tidied else hashlib.md5(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith(own)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_is_told_from_another_model_s_and_marked(kind: str, tmp_path: Path) -> None:
    """Both models have 1,536 numbers. Looking changes no file; the mark is kept, and read by the guard of a program."""
    store = fill(kind, tmp_path / "store")
    before = content(tmp_path / "store")

    wrong = run("check", store, "--model", SMALL)
    assert wrong.returncode == 1, wrong
    assert f"0 of 3 stored vectors match {SMALL}" in wrong.stdout
    assert (
        f"another model than text-embedding-3-small. Find the model: embedrouter check {store} --which" in wrong.stdout
    )
    right = run("check", store, "--model", ADA)
    assert right.returncode == 0, right
    assert f"3 of 3 stored vectors match {ADA}, $0.0000" in right.stdout
    assert "guard(store, router, adopt=True)" in right.stdout
    assert content(tmp_path / "store") == before

    assert run("check", store, "--model", SMALL, "--mark").returncode == 1
    marked = json.loads(run("check", store, "--model", ADA, "--mark", "--sample", "2", "--json").stdout)
    assert (marked["matches"], marked["compared"], marked["marked"]) == (True, 2, True)
    assert "It is marked: text-embedding-ada-002 (1536 dimensions)" in run("check", store, "--model", ADA).stdout
    assert json.loads(run("check", store, "--model", SMALL, "--json").stdout)["matching"] == 0


def test_the_model_of_a_store_is_found(tmp_path: Path, running: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among those whose key is here, cheapest first; the others are named with their variable."""
    store = fill("llama_index/simple", tmp_path / "store")
    found = run("check", store, "--model", SMALL, "--which")
    assert found.returncode == 1
    assert "These are text-embedding-ada-002's: all match openai:text-embedding-ada-002." in found.stdout
    assert f"embedrouter check {store} --model {ADA} --mark" in found.stdout

    alone = json.loads(run("check", store, "--which", "--json").stdout)
    assert (alone["matches"], alone["found"]) == (True, ADA)
    assert alone["tried"] == [SMALL, ADA]
    assert [path.parent.name for path in tmp_path.rglob("ledger.db")] == ["embedrouter"], (
        "what is tried is booked there"
    )
    assert not list((tmp_path / "user-data").rglob("ledger.db"))
    monkeypatch.delenv("OPENAI_API_KEY")
    requests = running.calls
    nothing = run("check", store, "--which")
    assert nothing.returncode == 1
    assert running.calls == requests
    assert "No model that was tried gives these vectors of 1,536 numbers." in nothing.stdout
    assert f"Left out (set OPENAI_API_KEY): {SMALL}, {ADA}" in nothing.stdout


def test_a_dump_is_compared_and_has_no_place_for_a_mark(tmp_path: Path) -> None:
    """LangChain's InMemoryVectorStore."""
    store = filled.langchain_in_memory(tmp_path, embedder("langchain/in-memory"), PAGES)
    right = run("check", store, "--model", ADA, "--mark")
    assert (right.returncode, "index= of the adapter" in right.stdout) == (0, True), right
    searched = run("check", store, "--model", SMALL, "--which")
    assert searched.returncode == 1
    assert f"Compare them: embedrouter check {store} --model {ADA}" in searched.stdout
    assert "--mark" not in searched.stdout
    (tmp_path / "other.json").write_text("[1]")
    assert "is not what InMemoryVectorStore.dump writes" in run("check", tmp_path / "other.json", "--which").stderr


def test_a_check_needs_a_model(tmp_path: Path) -> None:
    """Without a configuration there is none; the error names the options."""
    store = fill("llama_index/simple", tmp_path / "store")
    ended = run("check", store, cwd=tmp_path)
    assert ended.returncode == 2
    assert "--model" in ended.stderr
    assert "--which" in ended.stderr
    (tmp_path / "embedrouter.toml").write_text(
        f'cache = "kept"\n[[models]]\nmodel = "{ADA}"\napi_key_env = "OPENAI_API_KEY"\n'
    )
    assert run("check", store, cwd=tmp_path).returncode == 0
    assert run("check", store, "--config", tmp_path / "embedrouter.toml", cwd=tmp_path).returncode == 0


def test_the_page_has_a_row_of_each_kind_of_store() -> None:
    """In the words of the code."""
    page = (Path(__file__).parents[1] / "docs" / "stores.md").read_text("utf-8")
    table = page.partition("| where the mark is |")[2].partition("\n\n")[0]
    rows = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table.splitlines()[2:]]
    assert [(kind, keeps) for kind, _, keeps in rows] == [(kind.kind, kind.keeps) for kind in STORES]


# What cannot be opened


def test_a_typing_error_makes_no_store(tmp_path: Path) -> None:
    """Most stores create an empty one where there is none."""
    ended = run("check", tmp_path / "chorma", "--model", ADA)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "chorma'. Nothing was created; check the path." in ended.stderr
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.db").write_text("no database")
    for name in ("empty", "notes.db"):
        ended = run("check", tmp_path / name, "--model", ADA)
        assert ended.returncode == 2
        assert "is no store that is known here" in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if "user-" not in path.name) == ["empty", "notes.db"]
    assert not list((tmp_path / "empty").iterdir())


def test_collections_are_listed_where_there_are_several(tmp_path: Path) -> None:
    """With the option to write."""
    fill("langchain/chroma", tmp_path)
    from tests.vector_stores import chroma_client

    with chroma_client(tmp_path) as client:
        client.create_collection("drafts")
    ended = run("check", tmp_path, "--model", ADA)
    assert ended.returncode == 2
    assert "There are 2 collections: 'drafts', 'handbook'. Name one: --collection drafts" in ended.stderr
    assert run("check", tmp_path, "--model", ADA, "--collection", NAME).returncode == 0
    ended = run("check", tmp_path, "--model", ADA, "--collection", "handbok")
    assert (ended.returncode, "There is no collection 'handbok'" in ended.stderr) == (2, True)
    ended = run("check", tmp_path, "--model", ADA, "--collection", "drafts")
    assert (ended.returncode, "could not be compared: it is empty" in ended.stderr) == (2, True)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        pytest.param("http://127.0.0.1:1", "could not be opened", marks=pytest.mark.slow),  # loads pymilvus
        ("postgresql://user:secret@127.0.0.1:1/x", "could not be opened"),
        ("ftp://127.0.0.1/x", "Addresses begin with http"),
    ],
)
def test_servers_that_do_not_answer_are_told_in_seconds(address: str, message: str) -> None:
    """Without what is secret in the address."""
    ended = run("check", address, "--model", ADA)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert message in ended.stderr
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("end", ["[1.0, 2.0]", ""])
def test_a_storage_context_that_ends_too_early_is_told(end: str, tmp_path: Path) -> None:
    """Its disk was full, or the program was killed while it saved."""
    (tmp_path / "docstore.json").write_text("{}")
    (tmp_path / "default__vector_store.json").write_text('{"embedding_dict": {' + (f'"a": {end}' if end else ""))
    with readable(tmp_path) as store, pytest.raises(ConfigError, match="is not what LlamaIndex writes"):
        store.count()


class Malice:
    """Runs code when it is read from a pickle."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.slow
def test_a_pickle_that_would_run_code_is_not_run(tmp_path: Path) -> None:
    """LangChain keeps the texts beside a FAISS index in a pickle."""
    store = Path(fill("langchain/faiss", tmp_path / "store"))
    witness = tmp_path / "witness"
    docstore, ids = pickle.loads((store / "index.pkl").read_bytes())
    for evil in ((Malice(f"touch {witness}"), ids), (docstore, {**ids, 99: Malice(f"touch {witness}")})):
        (store / "index.pkl").write_bytes(pickle.dumps(evil))
        ended = run("check", store, "--model", ADA)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "its pickle asks for posix.system" in ended.stderr
        with pytest.raises(ConfigError, match="could not be compared: its pickle asks for"):
            guard(store, router(), adopt=True)
    assert not witness.exists()
    for damaged in (b"", b"garbage", pickle.dumps([1, 2, 3]), pickle.dumps((1, 2))):
        (store / "index.pkl").write_bytes(damaged)
        ended = run("check", store, "--model", ADA)
        assert (ended.returncode, "is not what LangChain" in ended.stderr) == (2, True)


@pytest.mark.slow
def test_metadata_of_documents_is_plain_data(tmp_path: Path) -> None:
    """Dates, ids and paths are common there."""
    import datetime
    import decimal
    import uuid

    from tests.vector_stores import opened

    plain = {"day": datetime.date(2026, 1, 1), "price": decimal.Decimal("1.5"), "id": uuid.uuid4(),
             "path": Path("/a"), "tags": {"a"}}  # fmt: skip
    with opened("langchain/faiss", tmp_path, embedder("langchain/faiss")) as store:
        store.inner.add_texts(PAGES, metadatas=[plain] * len(PAGES))
    assert run("check", tmp_path, "--model", ADA).returncode == 0


# The guard in a program


@pytest.mark.parametrize("asynchronous", [False, True])
def test_adopting_compares_first(tmp_path: Path, asynchronous: bool) -> None:
    """A store of another model is not marked, and the message says what it holds."""

    def check(one: Router, **settings: Any) -> None:
        store = str(tmp_path)
        found = asyncio.run(aguard(store, one, **settings)) if asynchronous else guard(store, one, **settings)
        assert found is store

    fill("llama_index/simple", tmp_path)
    with pytest.raises(ConfigError, match=rf"embedrouter check {tmp_path} --model {SMALL}; or .*adopt=True"):
        check(router(SMALL))
    with pytest.raises(SpaceMismatchError, match=r"is not marked: 0 of 3 .* another model.*--which"):
        check(router(SMALL), adopt=True)
    check(router(ADA), adopt=True)
    check(router(ADA))


def test_a_store_of_the_model_and_slightly_other_texts_is_marked_when_that_is_wanted(tmp_path: Path) -> None:
    """LlamaIndex's own embedder for OpenAI replaces line breaks by blanks before it embeds."""
    from tests.vector_stores import chroma_client

    changed = router().embed([text.replace("\n", " ") for text in PAGES], input_type="document")
    with chroma_client(tmp_path) as client:
        collection = client.create_collection(NAME)
        collection.add(ids=list(map(str, range(len(PAGES)))), documents=PAGES, embeddings=changed.vectors)
    told = run("check", tmp_path, "--model", ADA)
    assert told.returncode == 1
    assert "line breaks were replaced by blanks" in told.stdout
    assert "It is not marked, and nothing was changed" in told.stdout
    with chroma_client(tmp_path) as client:
        guard(client.get_collection(NAME), router(), adopt=True)
    assert "It is marked" in run("check", tmp_path, "--model", ADA).stdout


def test_a_store_without_texts_says_what_to_do(tmp_path: Path) -> None:
    """The vectors can be compared in the program, and then marked."""
    from tests.vector_stores import chroma_client

    with chroma_client(tmp_path) as client:
        collection = client.create_collection("bare")
        collection.add(ids=["a"], embeddings=router().embed(["a"], input_type="document").vectors)
        with pytest.raises(ConfigError, match=r"holds no texts.*check_vectors\(texts, vectors\).*adopt='unchecked'"):
            guard(collection, router(), adopt=True)
        guard(collection, router(), adopt="unchecked")
        assert collection.metadata[SPACE] == "text-embedding-ada-002"
    assert "holds no texts beside its vectors" in run("check", tmp_path, "--model", ADA).stderr


def test_the_texts_that_llama_index_embeds_are_those_with_metadata(tmp_path: Path) -> None:
    """As its own function puts them together, whatever templates a node has."""
    from llama_index.core.schema import MetadataMode, TextNode
    from llama_index.core.vector_stores.utils import node_to_metadata_dict

    from embedrouter.stores._rows import row

    nodes = [
        TextNode(text="text", metadata={"a": 1, "b": "two"}),
        TextNode(text="text", metadata={"a": 1, "b": 2}, excluded_embed_metadata_keys=["a"]),
        TextNode(
            text="text",
            metadata={"a": 1},
            text_template="<{content}> {metadata_str}",
            metadata_template="{key}={value}",
        ),
        TextNode(text="  {content} ", metadata={"{key}": "{value}"}),
        TextNode(text="text"),
    ]
    for node in nodes:
        entries = node_to_metadata_dict(node, remove_text=True)
        found = row("id", node.text, [1.0], entries)
        assert (found.text, found.bare) == (node.get_content(MetadataMode.EMBED), node.text)


def test_the_name_of_an_index_is_recorded_by_the_guard_that_sees_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that was filled before it had a name is told of once, and the guard compares and records it."""
    fill("langchain/chroma", tmp_path)
    from langchain_chroma import Chroma

    from tests.vector_stores import chroma_client

    with chroma_client(tmp_path) as client:
        store = Chroma(NAME, RouterEmbeddings(router(), index="old"), client=client)
        for _ in range(2):
            store.similarity_search("holidays")
        told = [record.getMessage() for record in caplog.records if "index old is searched" in record.getMessage()]
        assert len(told) == 1
        assert f"embedrouter check STORE --model {ADA}" in told[0]
        guard(store, router(), adopt=True)
        with pytest.raises(SpaceMismatchError, match="index 'old'"):
            RouterEmbeddings(router(SMALL), index="old")
        wrong = Chroma(NAME, RouterEmbeddings(router(SMALL), index="other"), client=client)
        with pytest.raises(SpaceMismatchError):
            guard(wrong, router(SMALL))
        RouterEmbeddings(router(ADA), index="other").embed_query("nothing is recorded yet")


# The mark in each kind of store that holds one


@pytest.mark.slow
def test_milvus_keeps_the_mark_in_its_properties(tmp_path: Path) -> None:
    """Created with it, or marked when it is empty."""
    with filled.milvus(tmp_path, embedder("langchain/milvus")) as store:
        with pytest.raises(ConfigError, match=r"collection_properties=metadata\(router\)"):
            guard(store, router())
        store.add_texts(PAGES)
        guard(store, router(), adopt=True)
        properties = store.client.describe_collection(NAME)["properties"]
        assert properties == {SPACE: "text-embedding-ada-002", DIMENSIONS: "1536"}
        store.client.create_collection(
            "made", dimension=1536, properties={name: str(value) for name, value in metadata(router()).items()}
        )
        guard(type("Store", (), {"client": store.client, "collection_name": "made"})(), router())


@pytest.mark.slow
def test_both_frameworks_stores_of_lancedb_are_marked(tmp_path: Path) -> None:
    """Once the table is there; before, the message says when."""
    import lancedb
    from langchain_community.vectorstores import LanceDB
    from llama_index.core import VectorStoreIndex
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    chain = LanceDB(lancedb.connect(str(tmp_path / "chain")), RouterEmbeddings(router()), table_name="t")
    vectors = LanceDBVectorStore(uri=str(tmp_path / "index"), table_name="t")
    named = RouterEmbedding(router=router(), index="of LlamaIndex")
    index = VectorStoreIndex.from_vector_store(vectors, embed_model=named)
    for store in (chain, index):
        with pytest.raises(ConfigError, match=r"the first texts.*adopt=True"):
            guard(store, router())
    chain.add_texts(PAGES)
    filled.fill_llama_index(vectors, RouterEmbedding(router=router()), PAGES)
    for store in (chain, index):
        guard(store, router(), adopt=True)
        guard(store, router())
    with pytest.raises(SpaceMismatchError, match="'t' is in the space"):
        guard(vectors, router(SMALL))
    with pytest.raises(SpaceMismatchError, match="The index 'of LlamaIndex'"):
        RouterEmbedding(router=router(SMALL), index="of LlamaIndex")


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect what stores leave open while the test's filters hold; a later test would be blamed for it."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A real PostgreSQL with pgvector, in a folder that the user it runs as may enter."""
    pgserver = pytest.importorskip("pgserver")
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data")
        try:
            server.psql("CREATE EXTENSION IF NOT EXISTS vector;")
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.mark.slow
@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # pools of langchain-postgres and LlamaIndex
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_stores_in_postgresql_are_told_apart_and_marked(database: str, tmp_path: Path) -> None:
    """A collection's row, and the comments of tables, which keep what else they say."""
    with filled.pgvector(database, embedder("langchain/pg")) as store:
        _hold(store, lambda: store.add_texts(PAGES))
    llama = RouterEmbedding(router=router())
    with filled.llama_pgvector(database, llama) as vectors:
        with pytest.raises(ConfigError, match="the store makes it with the first texts"):
            guard(vectors, router())
        filled.fill_llama_index(vectors, llama, PAGES)
        _comment(database, "data_handbook", "what ours: says\n100% of it")
        guard(vectors, router(), adopt=True)
        guard(vectors, router())
        with pytest.raises(SpaceMismatchError, match="The table 'data_handbook' is in the space"):
            guard(vectors, router(SMALL))
    assert _comment(database, "data_handbook").startswith("what ours: says\n100% of it\nembedrouter: {")
    with filled.newer_pgvector(database, embedder("langchain/pg")) as store:
        _hold(store, lambda: store.add_texts(PAGES))

    ended = run("check", database, "--model", ADA)
    assert (ended.returncode, "There are 3 collections: 'handbook', 'data_handbook', 'pages'" in ended.stderr) == (
        2,
        True,
    )
    for name in ("handbook", "data_handbook", "pages"):
        ended = run("check", database, "--model", ADA, "--collection", name)
        assert (ended.returncode, "3 of 3" in ended.stdout, "It is marked" in ended.stdout) == (0, True, True), ended
        assert run("check", database, "--model", SMALL, "--collection", name).returncode == 1


def _hold(store: Any, add: Any) -> None:
    """Mark an empty store and fill it; then only its own space is let in."""
    guard(store, router())
    add()
    guard(store, router())
    other = type(store.embeddings)(router(SMALL))
    with pytest.raises(SpaceMismatchError, match="embeds in the space"):
        guard(store, other.router)


def _comment(database: str, table: str, comment: str | None = None) -> str:
    import psycopg
    from psycopg import sql

    with psycopg.connect(database) as connection:
        if comment is not None:
            connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(sql.Identifier(table), sql.Literal(comment)))
        found = connection.execute("SELECT obj_description(%s::regclass)", (table,)).fetchone()
    return str(found[0]) if found else ""


# Running servers


@contextmanager
def started(program: str, *arguments: str) -> Iterator[str]:
    """Start a server on a free port, wait until it listens, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name(program)), *arguments, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.slow
@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Chroma's client leaves its connections open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_running_servers_are_asked(tmp_path: Path) -> None:
    """It says what it is."""
    store = fill("langchain/chroma", tmp_path / "chroma")
    with started("chroma", "run", "--path", store) as address:
        assert _codes(address) == (0, 1)
    store = fill("langchain/milvus", tmp_path / "milvus")
    copy = shutil.copytree(store, tmp_path / "copy.db")  # this process keeps the lock of its own
    with started("milvus-lite", "server", "--data-dir", str(copy)) as address:
        assert _codes(address) == (0, 1)


def _codes(address: str) -> tuple[int, int]:
    right: Ended = run("check", address, "--model", ADA)
    assert "3 of 3" in right.stdout, right
    return right.returncode, run("check", address, "--model", SMALL).returncode
