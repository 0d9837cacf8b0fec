"""The guard in a Chroma collection: the space travels with it, and a router of another space is refused on opening.

With the real libraries: chromadb in memory, in a folder and behind its own server on loopback, LangChain's `Chroma` and
LlamaIndex's `ChromaVectorStore`.
"""

from __future__ import annotations

import multiprocessing
import re
import socket
import sqlite3
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import chromadb
import pytest
from chromadb.config import Settings
from chromadb.errors import NotFoundError
from langchain_chroma import Chroma
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.vector_stores.chroma import ChromaVectorStore

from embedrouter import Router, TieredRouter
from embedrouter.chroma import guard, metadata
from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.retrieval.store_guard import DIMENSIONS, SPACE
from embedrouter.testing import FakeBackend
from tests.vector_stores import SecondProcess, chroma_client

PAGE = 500
"""Texts of a collection that is not tiny."""

SECRET = "the salary of the chairman"
"""A text that no message may repeat."""


def router(space: str = "one", dimensions: int = 8, *, price: str | None = "5", **settings: Any) -> Router:
    """Return a router whose model counts words, at `price` dollars per million."""
    model = FakeBackend(space=space, dimensions=dimensions).model(price=price, **settings)
    return Router([model], cache=None, ledger=":memory:")


def settings() -> Settings:
    return Settings(anonymized_telemetry=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run Chroma's own server; return its port."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    command = [sys.executable, str(Path(sysconfig.get_path("scripts"), "chroma")), "run"]
    with subprocess.Popen(
        [*command, "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)
        yield port
        process.terminate()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with chroma_client(tmp_path / "chroma") as opened:
        yield opened


@pytest.fixture(params=["in memory", "in a folder", "behind a server"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """What opens a client of each kind; the second opening sees what the first has written."""
    opened: list[Any] = []

    def connect() -> Any:
        if request.param == "in memory":
            made = chromadb.EphemeralClient(settings())
        elif request.param == "in a folder":
            made = chroma_client(tmp_path / "chroma")
        else:
            made = chromadb.HttpClient("127.0.0.1", request.getfixturevalue("server"), settings=settings())
        opened.append(made)
        return made

    yield connect
    for client in opened:
        client.close()
        if request.param == "behind a server":
            for part in (client, client._admin_client):
                part._server._session.close()  # chromadb leaves its connections to the garbage collector


@pytest.fixture
def name() -> str:
    """Return a name of its own for each test: clients in memory share what they hold, and so do those of the server."""
    return f"handbook-{uuid.uuid4().hex}"


def collection(client: Any, name: str = "handbook", **entries: Any) -> Any:
    return client.get_or_create_collection(name, embedding_function=None, metadata=entries or None)


def fill(found: Any, router: Router, texts: list[str], **columns: Any) -> Any:
    vectors = router.embed(texts, input_type="document").vectors
    found.add(ids=[str(number) for number in range(len(texts))], embeddings=vectors, **{"documents": texts, **columns})
    return found


def refusal(found: Any, router: Router, **settings: Any) -> str:
    """Return why the guard refuses."""
    with pytest.raises(ConfigError) as refused:
        guard(found, router, **settings)
    return str(refused.value)


# The mark is in the collection


@pytest.mark.slow
def test_an_empty_collection_is_in_the_space_of_its_first_router(anywhere: Callable[[], Any], name: str) -> None:
    """The next client is another machine, as far as the guard can tell."""
    found = collection(anywhere(), name)
    assert guard(found, router("one")) is found

    again = collection(anywhere(), name)
    assert again.metadata == {SPACE: "one", DIMENSIONS: 8}
    assert guard(again, router("one")) is again
    with pytest.raises(SpaceMismatchError, match=r"in the space one \(8 dimensions\); this router gives two \(8 "):
        guard(again, router("two"))


def test_a_collection_is_created_with_its_mark(anywhere: Callable[[], Any], name: str) -> None:
    """Which is atomic; one that exists already keeps what it has."""
    collection(anywhere(), name, **metadata(router("one")), owner="me")
    late = collection(anywhere(), name, **metadata(router("two")))

    assert late.metadata == {SPACE: "one", DIMENSIONS: 8, "owner": "me"}
    guard(late, router("one"))
    with pytest.raises(SpaceMismatchError):
        guard(late, router("two"))


def test_the_dimensions_are_part_of_the_space(client: Any) -> None:
    guard(collection(client), router("one", 8))

    with pytest.raises(SpaceMismatchError, match=r"one \(8 dimensions\); this router gives one \(6 dimensions\)"):
        guard(collection(client), router("one", 6))


def test_other_metadata_and_the_distance_stay(tmp_path: Path) -> None:
    """Chroma replaces all metadata at once, and refuses to be told the distance again: it goes on using it."""
    entries: dict[str, Any] = {"hnsw:space": "cosine", "hnsw:M": 7, "owner": "me", "public": True}
    with chroma_client(tmp_path) as client:
        guard(collection(client, **entries), router())
    with chroma_client(tmp_path) as client:
        found = collection(client)
        found.add(ids=["long", "short"], embeddings=[[9.0] * 8, [1.0] * 7 + [0.0]])
        nearest = found.query(query_embeddings=[[1.0] * 8], n_results=2)

        del entries["hnsw:space"]
        assert found.metadata == {**entries, SPACE: "one", DIMENSIONS: 8}
        assert found.configuration_json["hnsw"]["space"] == "cosine"
        assert found.configuration_json["hnsw"]["max_neighbors"] == 7
        assert nearest["ids"] == [["long", "short"]], "by angle, not by length"


def test_created_with_its_mark_a_collection_keeps_even_that_entry(client: Any) -> None:
    entries: dict[str, Any] = metadata(router()) | {"hnsw:space": "cosine"}
    guard(collection(client, **entries), router())

    assert collection(client).metadata == entries


def test_a_distance_that_only_the_metadata_know_is_not_lost(tmp_path: Path) -> None:
    """Databases of old versions: what cannot be written back is not taken away."""
    with chroma_client(tmp_path) as client:
        collection(client, **{"hnsw:space": "cosine"})
    with closing(sqlite3.connect(tmp_path / "chroma.sqlite3")) as database, database:
        database.execute("UPDATE collections SET config_json_str = NULL, schema_str = NULL")
    with chroma_client(tmp_path) as client:
        said = refusal(collection(client), router())

        assert "nothing was changed" in said
        assert collection(client).metadata == {"hnsw:space": "cosine"}


def test_half_a_mark_is_no_mark(client: Any) -> None:
    """The metadata were edited by hand."""
    assert SPACE in refusal(collection(client, "half", **{DIMENSIONS: 8}), router())
    assert DIMENSIONS in refusal(collection(client, "another", **{SPACE: "one"}), router())


# Collections that were filled without a guard


def test_vectors_without_a_mark_are_refused_unless_adopted(client: Any) -> None:
    """Equal lengths prove nothing; a user who knows says so once."""
    fill(collection(client), router("one"), [SECRET])
    said = refusal(collection(client), router("one"))
    assert "adopt=True" in said
    assert SECRET not in said
    assert collection(client).metadata is None

    guard(collection(client), router("one"), adopt=True)
    guard(collection(client), router("one"))
    with pytest.raises(SpaceMismatchError):
        guard(collection(client), router("two"), adopt=True)


def test_vectors_of_another_length_cannot_be_adopted(client: Any) -> None:
    fill(collection(client), router("one", 6), ["text"])

    with pytest.raises(SpaceMismatchError, match=r"vectors of 6 numbers; this router gives one \(8 dimensions\)"):
        guard(collection(client), router("one", 8), adopt=True)
    assert collection(client).metadata is None


def test_an_emptied_collection_without_a_mark_is_like_a_new_one(client: Any) -> None:
    fill(collection(client), router("one"), ["text"]).delete(ids=["0"])

    guard(collection(client), router("two"))


# What embedding again takes


def test_a_refusal_says_how_to_embed_again_and_for_how_much(anywhere: Callable[[], Any], name: str) -> None:
    """Each text has three words, which this model counts as tokens; five dollars per million."""
    found = guard(collection(anywhere(), name), router("one"))
    fill(found, router("one"), [f"page number {number}" for number in range(PAGE + 1)])
    said = refusal(collection(anywhere(), name), router("two"))

    assert "Use a router of the space one, or embed the texts again: into a collection of another name" in said
    assert f"client.delete_collection('{name}')" in said
    cost = Decimal(5) * 3 * (PAGE + 1) / 1_000_000
    assert said.endswith(f"Price for its {PAGE + 1} texts with this router: at most ${cost.normalize():f}.")


def test_a_free_allowance_is_counted_once(client: Any) -> None:
    """Of the 1,000 words 400 are free."""
    found = guard(collection(client), router("one"))
    fill(found, router("one"), [f"word{number}" for number in range(2 * PAGE)])

    cost = Decimal(5) * (2 * PAGE - 400) / 1_000_000
    assert refusal(found, router("two", free_tokens=400)).endswith(f"at most ${cost.normalize():f}.")


def test_what_is_in_the_cache_costs_nothing(client: Any, tmp_path: Path) -> None:
    """Nor is it of any importance that the price is unknown."""
    fill(guard(collection(client), router("one")), router("one"), ["text"])
    with Router([FakeBackend(space="two").model()], cache=tmp_path / "cache") as other:
        assert refusal(collection(client), other).endswith("with this router: unknown.")
        other.embed(["text"], input_type="document")
        assert refusal(collection(client), other).endswith("with this router: at most $0.00.")


def test_only_the_beginning_of_a_large_collection_is_read(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal should not take minutes."""
    monkeypatch.setattr("embedrouter.stores._chroma.READ", 20)
    fill(guard(collection(client), router("one")), router("one"), [f"word{number}" for number in range(1000)])

    assert refusal(collection(client), router("two")).endswith(
        "Price for its 1,000 texts with this router: about $0.005, estimated from 20 of them."
    )


def test_texts_that_are_not_there_are_told_of(client: Any) -> None:
    """Chroma may hold vectors alone; then the texts have to be kept elsewhere to be embedded again."""
    some = guard(collection(client, "some"), router("one"))
    fill(some, router("one"), ["a", "b", "c"], documents=["a", None, ""])
    none = guard(collection(client, "none"), router("one"))
    fill(none, router("one"), ["a"], documents=None)
    empty = guard(collection(client, "empty"), router("one"))

    said = refusal(some, router("two"))
    assert said.endswith(
        "its 1 texts with this router: at most $0.000005; 2 vectors have no text in Chroma, so take their texts from "
        "the source."
    )
    assert "only its vectors; take the texts from the source" in refusal(none, router("two"))
    assert "It is empty" in refusal(empty, router("two"))


def test_texts_that_the_other_model_does_not_take_are_left_out(client: Any) -> None:
    """A longer limit in the old space; the message tells how many, never which words."""
    fill(guard(collection(client), router("one")), router("one"), [SECRET, "two words", "one"])
    said = refusal(collection(client), router("two", max_input_tokens=2))

    assert said.endswith("at most $0.000015; 1 are longer than the model takes and not counted.")
    assert SECRET not in said


def test_a_price_that_cannot_be_estimated_hides_no_refusal(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(guard(collection(client), router("one")), router("one"), ["text"])
    other = router("two")

    def fail(*_: Any, **__: Any) -> None:
        raise ConfigError("The tokenizer is missing.")

    monkeypatch.setattr(other, "estimate", fail)
    with pytest.raises(SpaceMismatchError, match="could not be estimated: The tokenizer is missing"):
        guard(collection(client), other)


# Behind the frameworks


def langchain(client: Any, router: Router, name: str = "handbook", **settings: Any) -> Chroma:
    return Chroma(name, RouterEmbeddings(router), client=client, **settings)


def test_langchain_opens_and_guards_in_one_line(anywhere: Callable[[], Any], name: str) -> None:
    """Chroma's own check is switched off there: without the guard the second router's vectors go in."""
    one, two = router("one"), router("two")
    store = guard(langchain(anywhere(), one, name, collection_metadata=metadata(one)), one)
    store.add_texts([SECRET, "holidays"])

    found = guard(langchain(anywhere(), one, name), one)
    assert found.similarity_search("holidays", k=2)
    with pytest.raises(SpaceMismatchError) as refused:
        guard(langchain(anywhere(), two, name), two)
    assert "at most $0.00003" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_langchain_keeps_the_mark_when_it_empties_a_collection(client: Any) -> None:
    """`reset_collection` creates it anew with the metadata that the store was opened with."""
    one = router("one")
    store = guard(langchain(client, one, collection_metadata=metadata(one)), one)
    store.reset_collection()

    assert guard(store, one) is store
    with pytest.raises(SpaceMismatchError):
        guard(collection(client), router("two"))


def test_the_router_must_be_the_one_behind_the_embedder(client: Any) -> None:
    """Otherwise the guard would hold the collection to a space that is never put into it."""
    with pytest.raises(SpaceMismatchError, match=r"embeds in the space one .* to guard it in two"):
        guard(langchain(client, router("one")), router("two"))
    assert collection(client).metadata is None


def test_llama_index_opens_and_guards_in_one_line(anywhere: Callable[[], Any], name: str) -> None:
    """Its nodes are embedded with their metadata, which Chroma does not keep as text: the price is no upper bound."""
    one = router("one")
    store = guard(ChromaVectorStore(collection(anywhere(), name)), one)
    index = VectorStoreIndex.from_vector_store(store, embed_model=RouterEmbedding(router=one))
    index.insert_nodes([TextNode(text=SECRET, metadata={"chapter": "nine"})])

    guard(ChromaVectorStore(collection(anywhere(), name)), one)
    said = refusal(ChromaVectorStore(collection(anywhere(), name)), router("two"))
    assert said.endswith("about $0.000025, without the metadata that LlamaIndex embeds with each text.")
    assert SECRET not in said


def test_a_real_model(client: Any) -> None:
    """WordLlama, whose vectors are as long as those of a model of another space."""
    with Router(["wordllama:l2_supercat_256"], cache=None, ledger=":memory:") as local:
        guard(langchain(client, local), local).add_texts(["cats sleep all day", "stock markets fell"])
        found = guard(langchain(client, local), local).similarity_search("a sleeping cat", k=1)
        assert found[0].page_content == "cats sleep all day"
        assert refusal(collection(client), router("two", 256)).endswith("2 texts with this router: at most $0.000035.")
        fill(collection(client, "other"), router("two", 256), ["text"])
        guard(collection(client, "other"), router("two", 256), adopt=True)

        assert refusal(collection(client, "other"), local).endswith("at most $0.00.")


def test_what_is_no_collection_is_refused_with_a_way_out(client: Any) -> None:
    with pytest.raises(ConfigError, match=r"not dict\..*guard\(client\.get_collection\(name\), router\)"):
        guard({}, router())
    with pytest.raises(ConfigError, match="TieredRouter"):
        guard(collection(client), TieredRouter({"low": router()}))  # type: ignore[arg-type]


async def test_a_collection_of_an_asynchronous_client_is_refused(server: int) -> None:
    """Its methods would have to be awaited."""
    client: Any = await chromadb.AsyncHttpClient("127.0.0.1", server, settings=settings())
    async with client._server:  # closes the connection, which chromadb leaves to the garbage collector
        found = await client.get_or_create_collection(f"handbook-{uuid.uuid4().hex}", embedding_function=None)
        with pytest.raises(ConfigError, match="synchronous client"):
            guard(found, router())


# Several at once


def test_a_store_never_follows_a_name_to_another_collection(anywhere: Callable[[], Any], name: str) -> None:
    """Why no check at each use is needed: deleted and made anew in another space, it is gone for those who have it."""
    one, two, client = router("one"), router("two"), anywhere()
    store = guard(langchain(client, one, name), one)
    other = anywhere()
    other.delete_collection(name)
    guard(langchain(other, two, name), two)

    with pytest.raises(NotFoundError):
        store.add_texts(["text"])
    with pytest.raises(NotFoundError):
        store.similarity_search("text")


def test_a_fresh_handle_sees_what_others_did(client: Any) -> None:
    """How to check again later: metadata are those of the opening."""
    early = collection(client)
    guard(collection(client), router("one"))

    assert early.metadata is None
    with pytest.raises(SpaceMismatchError):
        guard(client.get_collection(early.name, embedding_function=None), router("two"))


def open_in_step(folder: Path, space: str, names: list[str], barrier: Any, answers: Any) -> None:
    """Open each collection at the same moment as the others; tell whether the guard lets this space in."""
    mine = router(space)
    with chroma_client(folder) as client:
        for name in names:
            barrier.wait(timeout=60)
            try:
                guard(langchain(client, mine, name, collection_metadata=metadata(mine)), mine)
                answers.put((name, space, True))
            except SpaceMismatchError:
                answers.put((name, space, False))


@pytest.mark.slow
def test_of_processes_that_create_a_collection_at_once_one_space_wins(tmp_path: Path) -> None:
    """Each with a mark of its own, twenty times over."""
    context = multiprocessing.get_context("spawn")
    names, spaces = [f"handbook-{number}" for number in range(20)], ["one", "two", "three"]
    with chroma_client(tmp_path):
        """The database exists: creating that at once is another matter."""
    barrier, answers = context.Barrier(len(spaces)), context.Queue()
    processes = [
        context.Process(target=open_in_step, args=(tmp_path, space, names, barrier, answers)) for space in spaces
    ]
    for process in processes:
        process.start()
    told = [answers.get(timeout=60) for _ in names for _ in spaces]
    for process in processes:
        process.join()
        process.close()
    answers.close()
    answers.join_thread()

    winners = {name: [space for about, space, won in told if about == name and won] for name in names}
    assert [len(won) for won in winners.values()] == [1] * len(names)
    with chroma_client(tmp_path) as client:
        assert [client.get_collection(name, embedding_function=None).metadata[SPACE] for name in names] == [
            won for (won,) in winners.values()
        ]


def test_of_two_that_mark_an_empty_collection_at_once_the_later_stays(client: Any) -> None:
    """The one case that is not refused at once, without `metadata` at the creation; it is at the next opening."""
    first, second = collection(client), collection(client)
    guard(first, router("one"))
    guard(second, router("two"))

    with pytest.raises(SpaceMismatchError):
        guard(collection(client), router("one"))
    guard(collection(client), router("two"))


def _refused_elsewhere(folder: Path) -> str:
    with chroma_client(folder) as client:
        return refusal(collection(client), router("two"))


@pytest.mark.slow
def test_another_process_is_refused_without_any_record_on_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's folders are empty there: all that is known is in the collection."""
    with chroma_client(tmp_path / "chroma") as client:
        guard(collection(client), router("one"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    with SecondProcess() as second:
        assert "in the space one" in second.run(_refused_elsewhere, tmp_path / "chroma")


def test_the_module_needs_no_chroma() -> None:
    """Collections are told by their methods: importing it imports neither Chroma nor a framework."""
    program = "import sys, embedrouter.chroma; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert not re.search(r"'(chromadb|langchain\w*|llama_index)'", loaded)
