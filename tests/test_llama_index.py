"""The LlamaIndex adapter: a contract over all of BaseEmbedding's methods, and the framework's own pipelines."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import TextNode

from embedrouter import Router, tier
from embedrouter.llama_index import RouterEmbedding
from embedrouter.testing import FakeBackend
from embedrouter.types import InputType

Vector = list[float]


@pytest.fixture
def low() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def high() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def adapter(low: FakeBackend, high: FakeBackend) -> RouterEmbedding:
    models = [low.model("fake:low", tier="low", price="1"), high.model("fake:high", tier="high", price="2")]
    return RouterEmbedding(router=Router(models, cache=None))


METHODS: dict[str, tuple[InputType, Callable[[RouterEmbedding], list[Vector] | Awaitable[list[Vector]]]]] = {
    "query": ("query", lambda model: [model.get_query_embedding("a")]),
    "async query": ("query", lambda model: _one(model.aget_query_embedding("a"))),
    "text": ("document", lambda model: [model.get_text_embedding("a")]),
    "async text": ("document", lambda model: _one(model.aget_text_embedding("a"))),
    "batch": ("document", lambda model: model.get_text_embedding_batch(["a", "b", "a"])),
    "async batch": ("document", lambda model: model.aget_text_embedding_batch(["a", "b", "a"])),
}


async def _one(vector: Awaitable[Vector]) -> list[Vector]:
    return [await vector]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_lists_of_python_floats_of_the_right_input_type(
    method: str, adapter: RouterEmbedding, high: FakeBackend
) -> None:
    """In order, natively in both forms: one request to the backend."""
    input_type, call = METHODS[method]
    outcome = call(adapter)
    vectors = outcome if isinstance(outcome, list) else asyncio.run(_awaited(outcome))

    assert len(high.calls) == 1
    assert high.calls[0].input_type == input_type
    for vector, text in zip(vectors, ["a", "b", "a"], strict=False):
        assert type(vector) is list
        assert {type(number) for number in vector} == {float}
        assert np.allclose(vector, high.vector(text, input_type))


async def _awaited(outcome: Awaitable[list[Vector]]) -> list[Vector]:
    return await outcome


def test_an_empty_batch_makes_no_call(adapter: RouterEmbedding, high: FakeBackend) -> None:
    """As the framework promises."""
    assert adapter.get_text_embedding_batch([]) == []
    assert high.calls == []


def test_five_thousand_texts_are_handed_over_in_three_batches(adapter: RouterEmbedding) -> None:
    """The framework's default of ten at a time would defeat packing."""
    assert adapter.embed_batch_size == 2048


def test_tier_and_space_are_fields(adapter: RouterEmbedding) -> None:
    """The framework's ingestion cache tells embedders apart by their fields."""
    shown = adapter.to_dict()

    assert shown["space"] == "fake (8 dimensions)"
    assert shown["model_name"] == "fake:low, fake:high"
    node = TextNode(text="t", id_="1")
    assert get_transformation_hash([node], adapter) != get_transformation_hash([node], adapter.with_tier("low"))
    json.loads(adapter.to_json())


def test_a_query_asks_for_its_tier_nearest_first(adapter: RouterEmbedding, low: FakeBackend, high: FakeBackend) -> None:
    """with tier(…) over the adapter's query_tier over the router's."""
    cheap = adapter.with_tier("low")
    cheap.get_query_embedding("one")
    assert (len(low.calls), len(high.calls)) == (1, 0)

    with tier("high"):
        cheap.get_query_embedding("two")
    assert (len(low.calls), len(high.calls)) == (1, 1)
    assert cheap.get_text_embedding("three")
    assert (len(low.calls), len(high.calls)) == (1, 2)


def test_an_unknown_field_is_refused(adapter: RouterEmbedding) -> None:
    """The framework's base class ignores misspelt settings in silence."""
    with pytest.raises(ValueError, match="embed_batchsize"):
        RouterEmbedding(router=adapter.router, embed_batchsize=7)
    with pytest.raises(ValueError, match="low, medium, high"):
        RouterEmbedding(router=adapter.router, query_tier="best")


def test_it_survives_a_pickle_with_all_its_settings(adapter: RouterEmbedding) -> None:
    """The framework drops what does not pickle, with a warning only."""
    original = RouterEmbedding(router=adapter.router, query_tier="low", embed_batch_size=7, num_workers=3)
    copy = pickle.loads(pickle.dumps(original))

    assert (copy.query_tier, copy.embed_batch_size, copy.num_workers) == ("low", 7, 3)
    assert copy.get_query_embedding("a") == original.get_query_embedding("a")
    assert copy.with_tier("high").embed_batch_size == 7


NODES = ["cats sleep all day", "stock markets fell sharply", "bread is baked at night", "ships cross the ocean"]


def real() -> RouterEmbedding:
    return RouterEmbedding(router=Router(["wordllama:l2_supercat_256"], cache=None))


@pytest.mark.parametrize("use_async", [False, True])
def test_an_index_is_built_and_asked(use_async: bool) -> None:
    """VectorStoreIndex in both forms, with a real model."""
    index = VectorStoreIndex(
        [TextNode(text=text) for text in NODES], embed_model=real(), use_async=use_async, show_progress=False
    )

    assert index.as_retriever(similarity_top_k=1).retrieve("a sleeping cat")[0].text == NODES[0]


async def test_an_index_is_asked_asynchronously_and_built_inside_a_running_loop() -> None:
    """As in a notebook or a web server."""
    index = VectorStoreIndex([TextNode(text=text) for text in NODES], embed_model=real(), use_async=True)
    found = await index.as_retriever(similarity_top_k=1).aretrieve("the stock market")

    assert found[0].text == NODES[1]


def test_the_surrounding_tier_reaches_a_retriever(
    adapter: RouterEmbedding, low: FakeBackend, high: FakeBackend
) -> None:
    """Through the framework's own threads and tasks."""
    index = VectorStoreIndex([TextNode(text="a"), TextNode(text="b")], embed_model=adapter)
    with tier("low"):
        index.as_retriever().retrieve("q")
        asyncio.run(index.as_retriever().aretrieve("r"))

    assert [call.texts for call in low.calls] == [("q",), ("r",)]
    assert {call.input_type for call in high.calls} == {"document"}


@pytest.mark.parametrize("workers", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_an_ingestion_pipeline_fills_nodes_also_in_worker_processes(workers: int | None) -> None:
    """Workers get the embedder as a pickle."""
    nodes = [TextNode(text=text, id_=str(number)) for number, text in enumerate(NODES)]
    filled = IngestionPipeline(transformations=[real()], disable_cache=True).run(nodes=nodes, num_workers=workers)
    expected = real().get_text_embedding_batch(NODES)

    by_text = {node.get_content(): node.embedding for node in filled}
    for text, vector in zip(NODES, expected, strict=True):
        found = by_text[text]
        assert found is not None
        assert np.allclose(found, vector, atol=1e-6)


async def test_an_ingestion_pipeline_runs_asynchronously(adapter: RouterEmbedding, high: FakeBackend) -> None:
    """arun() uses the asynchronous batch."""
    nodes = [TextNode(text=text) for text in NODES]
    filled = await IngestionPipeline(transformations=[adapter], disable_cache=True).arun(nodes=nodes)

    assert [call.texts for call in high.calls] == [tuple(NODES)]
    assert all(node.embedding for node in filled)


def test_it_is_built_from_a_file(tmp_path: Path) -> None:
    """One line in an existing index."""
    (tmp_path / "embedrouter.toml").write_text('cache = false\n[[models]]\nmodel = "wordllama:l2_supercat_256"\n')

    assert len(RouterEmbedding.from_config(tmp_path / "embedrouter.toml").get_query_embedding("a")) == 256
