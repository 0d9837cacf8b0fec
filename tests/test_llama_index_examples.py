"""Where LlamaIndex touches embeddings, one example each, beside the framework's own embedder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, PropertyGraphIndex, Settings, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.evaluation import SemanticSimilarityEvaluator
from llama_index.core.graph_stores import SimplePropertyGraphStore
from llama_index.core.graph_stores.types import KG_NODES_KEY, KG_RELATIONS_KEY, EntityNode, Relation
from llama_index.core.indices.property_graph import VectorContextRetriever
from llama_index.core.ingestion import DocstoreStrategy, IngestionCache, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SemanticSplitterNodeParser, TokenTextSplitter
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import BaseNode, TextNode, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore

from embedrouter import Router, TieredRouter
from embedrouter.errors import AuthenticationError, ConfigError, InvalidInputError, SpaceMismatchError
from embedrouter.llama_index import RouterEmbedding, TieredRetriever
from embedrouter.testing import FakeBackend, MemoryCache

LINES = ["Cats sleep all day.", "Stock markets fell sharply.", "Bread is baked at night.", "Ships cross the ocean."]
DOCUMENTS = [Document(text=text, id_=str(number)) for number, text in enumerate(LINES)]


def real(cache: Any = None) -> RouterEmbedding:
    return RouterEmbedding("wordllama:l2_supercat_256", cache=cache, ledger=":memory:")


EMBEDDERS: list[Any] = [pytest.param(real, id="ours"), pytest.param(lambda: MockEmbedding(8), id="framework's")]


@pytest.mark.parametrize(
    ("build", "workers"),
    [(real, None), (lambda: MockEmbedding(8), None), pytest.param(real, 2, marks=pytest.mark.slow)],
)
def test_a_pipeline_with_docstore_cache_and_workers(build: Any, workers: int | None, tmp_path: Path) -> None:
    """A second run does nothing, a changed document alone is embedded again, and all of it is saved and loaded."""
    embedder: BaseEmbedding = build()

    def pipeline() -> IngestionPipeline:
        return IngestionPipeline(
            transformations=[embedder],
            docstore=SimpleDocumentStore(),
            vector_store=SimpleVectorStore(stores_text=True),
            cache=IngestionCache(),
            docstore_strategy=DocstoreStrategy.UPSERTS,
        )

    first = pipeline()
    assert len(first.run(documents=DOCUMENTS, num_workers=workers)) == 4
    assert first.run(documents=DOCUMENTS) == []
    first.persist(str(tmp_path))
    again = pipeline()
    again.load(str(tmp_path))
    changed = again.run(documents=[*DOCUMENTS[:3], Document(text="Ships sink.", id_="3")])
    assert [node.get_content() for node in changed] == ["Ships sink."]
    assert all(node.embedding for node in changed)


def sentences(text: str) -> list[str]:
    return [f"{sentence.strip()}. " for sentence in text.split(".") if sentence.strip()]


@pytest.mark.parametrize("build", EMBEDDERS)
def test_a_semantic_splitter_splits_where_the_subject_changes(build: Any, asynchronous: bool) -> None:
    """Groups of sentences are embedded as documents."""
    settings: dict[str, Any] = {"buffer_size": 0, "breakpoint_percentile_threshold": 50, "sentence_splitter": sentences}
    splitter = SemanticSplitterNodeParser(embed_model=build(), **settings)
    text = Document(text="Cats purr. Cats sleep. Stock prices fell. Stock markets crashed. ")
    read = splitter.aget_nodes_from_documents([text]) if asynchronous else None
    nodes = asyncio.run(read) if read is not None else splitter.get_nodes_from_documents([text])

    assert "".join(node.get_content() for node in nodes) == text.text
    if build is real:
        assert len(nodes) >= 2


class FirstWords(TransformComponent):
    """Extract the first word of a text as an entity, and the text after it as a relation to another."""

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        for node in nodes:
            first, _, rest = node.get_content().partition(" ")
            found = [EntityNode(name=first), EntityNode(name=rest)]
            node.metadata[KG_NODES_KEY] = found
            node.metadata[KG_RELATIONS_KEY] = [Relation(label="DO", source_id=found[0].id, target_id=found[1].id)]
        return nodes


@pytest.mark.parametrize("build", EMBEDDERS)
def test_a_property_graph_is_searched_by_vectors(build: Any, asynchronous: bool) -> None:
    """Entities are embedded when the graph is built, a query when it is searched."""
    nodes: list[BaseNode] = [TextNode(text=text, id_=str(number)) for number, text in enumerate(LINES)]
    graph = PropertyGraphIndex(
        nodes,
        llm=MockLLM(),
        embed_model=(embedder := build()),
        property_graph_store=SimplePropertyGraphStore(),
        vector_store=SimpleVectorStore(),
        kg_extractors=[FirstWords()],
        use_async=asynchronous,
    )
    settings = {"vector_store": graph.vector_store, "embed_model": embedder, "include_text": False}
    retriever = VectorContextRetriever(graph.property_graph_store, similarity_top_k=1, path_depth=1, **settings)
    found = asyncio.run(retriever.aretrieve("a cat")) if asynchronous else retriever.retrieve("a cat")

    assert len(found) == 1
    if build is real:
        assert found[0].text == "Cats -> DO -> sleep all day."


async def test_an_evaluator_compares_answers_and_names_an_empty_one() -> None:
    """An answer without text has no vector: the framework's own embedder gives one that means nothing."""
    evaluator = SemanticSimilarityEvaluator(embed_model=real())
    near = await evaluator.aevaluate(response="cats sleep", reference="a cat is sleeping")
    far = await evaluator.aevaluate(response="stocks fell", reference="a cat is sleeping")

    assert (near.score or 0) > (far.score or 0)
    with pytest.raises(InvalidInputError, match=r"text is empty.*evaluator"):
        await evaluator.aevaluate(response="", reference="a cat")


@pytest.mark.parametrize("build", EMBEDDERS)
def test_a_fusion_of_retrievers_asks_each_of_them(build: Any, asynchronous: bool) -> None:
    """Two indices with one embedder: the query is embedded as a query for each."""
    embedder = build()
    parts = [[TextNode(text=text) for text in part] for part in (LINES[:2], LINES[2:])]
    indices = [VectorStoreIndex(part, embed_model=embedder) for part in parts]
    settings: dict[str, Any] = {"llm": MockLLM(), "num_queries": 1, "use_async": False, "similarity_top_k": 4}
    fused = QueryFusionRetriever([index.as_retriever(similarity_top_k=2) for index in indices], **settings)
    found = asyncio.run(fused.aretrieve("a sleeping cat")) if asynchronous else fused.retrieve("a sleeping cat")

    assert len(found) == 4
    if build is real:
        assert LINES[0] in [hit.text for hit in found[:2]]


# Documents in the indices of a TieredRetriever


def both(low: str = "low", high: str = "high") -> tuple[TieredRouter, dict[str, FakeBackend]]:
    fakes = {"low": FakeBackend(space=low), "high": FakeBackend(space=high)}
    routers = {
        name: Router([fake.model(f"fake:{name}")], cache=MemoryCache(), ledger=":memory:")
        for name, fake in fakes.items()
    }
    return TieredRouter(routers), fakes


def texts(retriever: TieredRetriever) -> dict[str, list[str]]:
    """Return what each tier finds of everything."""
    wide = retriever.with_search(similarity_top_k=20)
    return {tier: sorted(hit.text for hit in wide.with_tier(tier).retrieve("q")) for tier in ("low", "high")}


def ids(retriever: TieredRetriever) -> list[set[str]]:
    return [set(index.docstore.docs) for index in retriever.indices.values()]


def do(retriever: TieredRetriever, name: str, asynchronous: bool, *arguments: Any, **settings: Any) -> Any:
    method = getattr(retriever, f"a{name}" if asynchronous else name)
    return asyncio.run(method(*arguments, **settings)) if asynchronous else method(*arguments, **settings)


SPLITTER = [TokenTextSplitter(chunk_size=10, chunk_overlap=0)]
LONG = " ".join(["One two three four five."] * 5)


def test_documents_are_inserted_refreshed_and_deleted_in_every_index(asynchronous: bool) -> None:
    """They are split once, so that the parts have the same ids everywhere; what has not changed costs nothing."""
    router, fakes = both()
    retriever = TieredRetriever.from_router(router, transformations=SPLITTER)
    do(retriever, "insert", asynchronous, Document(text=LONG, id_="long"))
    assert ids(retriever)[0] == ids(retriever)[1]
    assert len(ids(retriever)[0]) >= 3
    assert (
        do(retriever, "refresh_ref_docs", asynchronous, [Document(text=LONG, id_="long"), *DOCUMENTS])
        == [False] + [True] * 4
    )
    assert "Cats sleep all day." in texts(retriever)["low"]
    sent = sum(len(fake.calls) for fake in fakes.values())
    changed = Document(text="Cats run.", id_="0")
    assert do(retriever, "refresh_ref_docs", asynchronous, [changed, *DOCUMENTS[1:]]) == [True, False, False, False]
    assert [len(fake.calls[-1].texts) for fake in fakes.values()] == [1, 1]
    assert sum(len(fake.calls) for fake in fakes.values()) == sent + 2
    for found in texts(retriever).values():
        assert "Cats run." in found
        assert "Cats sleep all day." not in found

    do(retriever, "delete_ref_doc", asynchronous, "long")
    do(retriever, "delete_ref_doc", asynchronous, "never there")
    assert texts(retriever)["low"] == texts(retriever)["high"] == sorted(["Cats run.", *LINES[1:]])
    assert do(retriever, "refresh_ref_docs", asynchronous, [Document(text=LONG, id_="long")]) == [True]
    do(retriever, "update_ref_doc", asynchronous, Document(text="Short.", id_="long"), tiers=["low"])
    assert "Short." in texts(retriever)["low"]
    assert "Short." not in texts(retriever)["high"]


def test_a_failed_refresh_changes_nothing_and_is_repeated(asynchronous: bool) -> None:
    """Vectors are made before the old parts are removed, and the dear tier comes first."""
    router, fakes = both()
    retriever = TieredRetriever.from_router(router, transformations=SPLITTER)
    do(retriever, "refresh_ref_docs", asynchronous, DOCUMENTS)
    changed = [Document(text="Cats run.", id_="0"), *DOCUMENTS[1:], Document(text="", id_="empty")]
    fakes["high"].outcomes.append(AuthenticationError("no"))
    with pytest.raises(AuthenticationError):
        do(retriever, "refresh_ref_docs", asynchronous, changed)
    assert texts(retriever)["low"] == texts(retriever)["high"] == sorted(LINES)

    assert do(retriever, "refresh_ref_docs", asynchronous, changed) == [True, False, False, False, True]
    assert do(retriever, "refresh_ref_docs", asynchronous, changed) == [False] * 5
    assert texts(retriever)["low"] == texts(retriever)["high"] == sorted(["Cats run.", *LINES[1:]])


def test_a_node_without_text_is_named_before_any_index_is_filled(asynchronous: bool) -> None:
    """By its id, as in a pipeline."""
    router, fakes = both()
    retriever = TieredRetriever.from_router(router)
    with pytest.raises(InvalidInputError, match="TextNode 'blank'"):
        do(retriever, "insert_nodes", asynchronous, [TextNode(text="a"), TextNode(text="", id_="blank")])

    assert [fake.calls for fake in fakes.values()] == [[], []]


def test_the_indices_are_saved_and_loaded(tmp_path: Path, asynchronous: bool) -> None:
    """A folder for each tier, marked with its space; another router is refused, and a changed document is known."""
    retriever = TieredRetriever.from_router(both()[0], transformations=SPLITTER)
    retriever.refresh_ref_docs(DOCUMENTS)
    do(retriever, "persist", asynchronous, tmp_path / "saved")
    do(retriever, "persist", asynchronous, tmp_path / "saved")
    load = TieredRetriever.afrom_persist_dir if asynchronous else TieredRetriever.from_persist_dir

    def loaded(router: TieredRouter, place: Path = tmp_path / "saved") -> TieredRetriever:
        given: Any = load(place, router, transformations=SPLITTER, similarity_top_k=3)
        found: TieredRetriever = asyncio.run(given) if asynchronous else given
        return found

    router, fakes = both()
    again = loaded(router)
    assert again.similarity_top_k == 3
    assert texts(again) == texts(retriever)
    assert again.refresh_ref_docs(DOCUMENTS) == [False] * 4
    assert again.refresh_ref_docs([Document(text="New.", id_="0")]) == [True]
    assert {call.input_type for call in fakes["low"].calls[:1]} == {"query"}
    with pytest.raises(SpaceMismatchError, match="other"):
        loaded(both(low="other")[0])
    with pytest.raises(SpaceMismatchError, match="other"):
        TieredRetriever.from_router(both(high="other")[0]).persist(tmp_path / "saved")
    with pytest.raises(ConfigError, match=r"persist\(…\) first"):
        loaded(router, tmp_path / "nowhere")
    assert texts(loaded(both()[0])) == texts(retriever)


def test_vectors_that_are_kept_elsewhere_are_given_again(tmp_path: Path) -> None:
    """As with ``StorageContext.from_defaults(vector_store=…, persist_dir=…)``."""
    router, _ = both()
    stores = {name: SimpleVectorStore(stores_text=False) for name in router.own_tiers}

    def make(name: str) -> VectorStoreIndex:
        context = StorageContext.from_defaults(vector_store=stores[name])
        embedder = RouterEmbedding(router.router(name))
        return VectorStoreIndex([], storage_context=context, embed_model=embedder)

    retriever = TieredRetriever({name: make(name) for name in stores}, router=router)
    retriever.insert_nodes([TextNode(text=text) for text in LINES])
    retriever.persist(tmp_path)
    loaded = TieredRetriever.from_persist_dir(tmp_path, router, vector_stores=stores)

    assert texts(loaded) == texts(retriever) != {"low": [], "high": []}


def test_without_transformations_the_settings_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for ``VectorStoreIndex``."""
    monkeypatch.setattr(Settings, "_transformations", SPLITTER)
    retriever = TieredRetriever.from_router(both()[0]).with_tier("low")
    retriever.insert(Document(text=LONG))

    assert len(ids(retriever)[0]) >= 3
