"""Haystack, DSPy and txtai with a router, whose imports take seconds; and what another process opens of Chroma and
LanceDB."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromadb
import lancedb
import numpy as np
import pytest
from chromadb.config import Settings
from lancedb.pydantic import LanceModel, Vector

import embedrouter
from embedrouter import Router
from embedrouter.errors import ConfigError, InvalidInputError, SpaceMismatchError
from embedrouter.testing import FakeBackend, FakeCall
from tests.doc_environment import ROOT, surroundings
from tests.test_readme import ELSEWHERE, wrong_with
from tests.test_readme import embedrouter as command_line

pytestmark = pytest.mark.slow

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when Haystack is imported
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
"""Tests reach no network: DSPy and txtai import LiteLLM, which would load its prices."""
LOCAL = "wordllama:l2_supercat_256"
CORPUS = ["the cat sat on the sofa", "stocks fell", "the ship left the harbour"]


@pytest.fixture
def fakes() -> Iterator[tuple[FakeBackend, FakeBackend, Router]]:
    """Two models of one space, the cheap one at a lower tier, and the router of both."""
    low, high = FakeBackend(), FakeBackend()
    models = [high.model("fake:high", price="1"), low.model("fake:low", tier="low", price=0)]
    with Router(models, cache=None, ledger=":memory:") as router:
        yield low, high, router


def in_another_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Other processes


def test_another_process_opens_what_chroma_and_lancedb_keep(tmp_path: Path) -> None:
    """Without a function and without a schema: both build ours from what they keep."""
    from embedrouter.integrations.chroma import RouterEmbeddingFunction
    from embedrouter.integrations.lancedb import RouterEmbeddings

    client = chromadb.PersistentClient(str(tmp_path / "chroma"), Settings(anonymized_telemetry=False))
    function: Any = RouterEmbeddingFunction(LOCAL, dimensions=128)
    client.create_collection("handbook", embedding_function=function).add(ids=["1", "2", "3"], documents=CORPUS)
    column: Any = RouterEmbeddings.create(router=LOCAL, dimensions=128)

    class Page(LanceModel):
        text: str = column.SourceField()
        vector: Vector(column.ndims()) = column.VectorField()  # type: ignore[valid-type]

    lancedb.connect(tmp_path / "lance").create_table("pages", schema=Page).add([{"text": text} for text in CORPUS])
    code = f"""
import chromadb, lancedb, asyncio
import embedrouter.integrations.chroma, embedrouter.integrations.lancedb
collection = chromadb.PersistentClient({str(tmp_path / "chroma")!r}).get_collection("handbook")
print(collection.query(query_texts=["kittens"], n_results=1)["documents"])
first, again = (collection.configuration["embedding_function"].router for _ in range(2))
print(first is again, first.space)
pages = lancedb.connect({str(tmp_path / "lance")!r}).open_table("pages")
print(pages.search("shares").limit(1).to_list()[0]["text"])
async def search():
    pages = await (await lancedb.connect_async({str(tmp_path / "lance")!r})).open_table("pages")
    return (await (await pages.search("boats")).limit(1).to_list())[0]["text"]
print(asyncio.run(search()))
"""
    assert in_another_process(code).splitlines() == [
        "[['the cat sat on the sofa']]",
        "True wordllama/l2_supercat_256 (128 dimensions)",
        "stocks fell",
        "the ship left the harbour",
    ]


# Haystack


def test_haystack_pipelines_index_search_and_come_back_from_yaml() -> None:
    from haystack import Document, Pipeline
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.components.writers import DocumentWriter
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    from embedrouter.integrations.haystack import RouterDocumentEmbedder, RouterTextEmbedder

    store = InMemoryDocumentStore()
    router = Router([LOCAL], dimensions=64, budget="5.00/day", cache=None)
    indexing, search = Pipeline(), Pipeline()
    indexing.add_component("embedder", RouterDocumentEmbedder(router, progress_bar=False, index="handbook"))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    search.add_component("embedder", RouterTextEmbedder(router, index="handbook"))
    search.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    search.connect("embedder.embedding", "retriever.query_embedding")
    documents = [Document(content=text) for text in CORPUS]
    indexing.run({"embedder": {"documents": documents}})
    again = Pipeline.loads(search.dumps())
    retriever: Any = again.get_component("retriever")
    embedder: Any = again.get_component("embedder")
    retriever.document_store = store

    for pipeline in (search, again):
        found = pipeline.run({"embedder": {"text": "kittens"}}, include_outputs_from={"embedder"})
        assert found["retriever"]["documents"][0].id == documents[0].id
        assert found["embedder"]["meta"]["usage"]["total_tokens"] > 0
    assert again.dumps() == search.dumps()
    assert str(embedder.router.space) == "wordllama/l2_supercat_256 (64 dimensions)"
    with pytest.raises(SpaceMismatchError, match="handbook"):
        RouterTextEmbedder(LOCAL, index="handbook")


def test_haystack_embedders_ask_by_type_and_tier(
    fakes: tuple[FakeBackend, FakeBackend, Router], asynchronous: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tier of a run, of a block and of the component; metadata before the content; usage and cost in ``meta``."""
    from haystack import Document

    from embedrouter.integrations.haystack import RouterDocumentEmbedder, RouterTextEmbedder

    low, high, router = fakes

    def run(embedder: Any, **inputs: Any) -> Any:
        return asyncio.run(embedder.run_async(**inputs)) if asynchronous else embedder.run(**inputs)

    text = RouterTextEmbedder(router, tier="low")
    text.warm_up()
    assert len(run(text, text="q")["embedding"]) == 8
    run(text, text="r", tier="high")
    with embedrouter.tier("high"):
        run(text, text="s")
    given = [Document(content="a", meta={"title": "A", "none": None}), Document(content="b"), Document(content="c")]
    documents = RouterDocumentEmbedder(router, meta_fields_to_embed=["title", "none"], batch_size=2)
    found = run(documents, documents=given)

    queries = [FakeCall((name,), "query") for name in "qrs"]
    assert low.calls == queries[:1]
    assert high.calls == [*queries[1:], FakeCall(("A\na", "b"), "document"), FakeCall(("c",), "document")]
    assert [item.id for item in found["documents"]] == [item.id for item in given]
    assert all(len(item.embedding) == 8 for item in found["documents"])
    assert given[0].embedding is None
    assert found["meta"]["model"] == "fake:high"
    assert found["meta"]["cost"].startswith("$0.0000")
    assert "3/3" in capsys.readouterr().err
    assert run(documents, documents=[])["documents"] == []
    with pytest.raises(TypeError, match="RouterDocumentEmbedder"):
        run(text, text=given)
    with pytest.raises(TypeError, match="RouterTextEmbedder"):
        run(documents, documents="a")
    with pytest.raises(InvalidInputError, match=f"1 of 2 Documents have no text, such as .*{Document(id='x').id}"):
        run(documents, documents=[given[1], Document(id="x")])
    asyncio.run(text.close_async()) if asynchronous else text.close()


def test_a_haystack_file_is_written_by_hand_too() -> None:
    """With what a user knows from the constructor."""
    from haystack import Pipeline
    from haystack.core.errors import DeserializationError

    import embedrouter.integrations.haystack  # noqa: F401 - so that a file may name it

    yaml = f"""
components:
  embedder:
    type: embedrouter.integrations.haystack.RouterTextEmbedder
    init_parameters: {{router: "{LOCAL}", dimensions: 64, budget: 5.00/day}}
connections: []
"""
    embedder: Any = Pipeline.loads(yaml).get_component("embedder")
    assert embedder.router.space.dimensions == 64
    with pytest.raises(DeserializationError) as caught:
        Pipeline.loads(yaml.replace("budget", "budgit"))
    assert "budgit= is no setting" in f"{caught.value} {caught.value.__cause__}"


# DSPy


def test_dspy_retrieves_with_queries_of_the_tier_of_a_block(
    fakes: tuple[FakeBackend, FakeBackend, Router], tmp_path: Path
) -> None:
    """Saved, loaded, and guarded by the name of the index."""
    from embedrouter.integrations.dspy import RouterEmbedder, RouterRetriever

    low, high, router = fakes
    embedder = RouterEmbedder(router, query_tier="low", index="handbook")
    search = RouterRetriever(CORPUS, embedder, k=1)
    search("q")
    with embedrouter.tier("high"):
        search("r")
    search.save(str(tmp_path / "saved"))
    RouterRetriever.from_saved(str(tmp_path / "saved"), embedder)("s")

    assert high.calls == [FakeCall(tuple(CORPUS), "document"), FakeCall(("r",), "query")]
    assert low.calls == [FakeCall(("q",), "query"), FakeCall(("s",), "query")]
    with pytest.raises(SpaceMismatchError, match="handbook"):
        RouterEmbedder(LOCAL, index="handbook")
    assert RouterRetriever(CORPUS, RouterEmbedder(LOCAL), k=1)("kittens").passages == [CORPUS[0]]


def test_a_dspy_embedder_is_one_of_dspys(fakes: tuple[FakeBackend, FakeBackend, Router]) -> None:
    """In both forms, of one text and of several, and for KNN; nothing is shared through DSPy's cache of functions."""
    import dspy

    from embedrouter.integrations.dspy import RouterEmbedder

    _, high, router = fakes
    embedder = RouterEmbedder(router)
    assert isinstance(embedder, dspy.Embedder)
    assert (embedder("a").shape, embedder(["a", "b"], batch_size=1).shape) == ((8,), (2, 8))
    assert asyncio.run(embedder.acall("a")).shape == (8,)
    assert asyncio.run(embedder.of("query").acall(["a"])).dtype == np.float32
    assert embedder(["q"], input_type="query").shape == (1, 8)
    assert [call.input_type for call in high.calls] == ["document", "document", "document", "query", "query"]
    assert RouterEmbedder(Router([LOCAL]))("a").shape == (256,)
    examples = [dspy.Example(question=text).with_inputs("question") for text in CORPUS]
    (nearest,) = dspy.KNN(k=1, trainset=examples, vectorizer=RouterEmbedder(LOCAL))(question="kittens")
    assert nearest.question == CORPUS[0]


# The page, and txtai


@pytest.fixture
def embeddings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Import txtai without LiteLLM, whose import takes longer than all else here."""
    monkeypatch.setitem(sys.modules, "litellm", None)
    from txtai import Embeddings

    return Embeddings


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_txtai_indexes_searches_and_loads(
    embeddings: Callable[..., Any], fakes: tuple[FakeBackend, FakeBackend, Router], tmp_path: Path
) -> None:
    from embedrouter.integrations.txtai import METHOD

    low, high, router = fakes
    index = embeddings(method=METHOD, path=router, vectors={"query_tier": "low"}, backend="numpy")
    index.index(CORPUS)
    index.search("q", 1)
    with embedrouter.tier("high"):
        index.search("r", 1)
    assert high.calls == [FakeCall(tuple(CORPUS), "document"), FakeCall(("r",), "query")]
    assert low.calls == [FakeCall(("q",), "query")]

    folder = tmp_path
    for number, path in enumerate((LOCAL, Router([LOCAL]), [LOCAL])):
        folder = tmp_path / str(number)
        index = embeddings(method=METHOD, path=path, content=True, backend="numpy")
        index.index(CORPUS)
        index.save(str(folder))
        again = embeddings()
        again.load(str(folder))
        again.upsert([("3", "bonds rose", None)])
        assert [again.search(text, 1)[0]["text"] for text in ("kittens", "boats")] == [CORPUS[0], CORPUS[2]]
    config = folder / "config.json"
    config.write_text(config.read_text().replace("(256 dimensions)", "(64 dimensions)"))
    again = embeddings()
    again.load(str(folder))
    with pytest.raises(SpaceMismatchError, match="64 dimensions"):
        again.search("kittens")
    with pytest.raises(ConfigError, match="path= is missing"):
        embeddings(method=METHOD).index(CORPUS)
    with pytest.raises(ConfigError, match="budgit= is no setting"):
        embeddings(method=METHOD, path=LOCAL, vectors={"budgit": 1}).index(CORPUS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.usefixtures("embeddings")
def test_every_block_of_the_page_works(tmp_path: Path) -> None:
    """As those of the README do."""
    with surroundings(tmp_path) as emulator:
        page = (ROOT / "docs" / ELSEWHERE).read_text("utf-8")
        assert wrong_with(page, command_line=command_line, ci="") is None
    assert not emulator.refused
