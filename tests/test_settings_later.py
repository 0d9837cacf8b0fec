"""Settings that are changed after building: what is shown is what holds, or the change is refused."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Router, Space, TieredRouter
from embedrouter.errors import ConfigError, SpaceMismatchError
from embedrouter.langchain import RouterEmbeddings
from embedrouter.langchain import TieredRetriever as LangChainRetriever
from embedrouter.llama_index import RouterEmbedding
from embedrouter.llama_index import TieredRetriever as LlamaIndexRetriever
from embedrouter.retrieval import Cascade
from embedrouter.testing import FakeBackend, MemoryCache

Adapter = Any
Build = Callable[..., Adapter]


def router(space: str = "one", folder: Path | None = None) -> Router:
    models = [FakeBackend(space=space).model(f"fake:{space}-{tier}", tier=tier) for tier in ("low", "high")]
    return Router(models, cache=folder or MemoryCache(), ledger=":memory:")


def langchain(of: str, folder: Path, **settings: Any) -> RouterEmbeddings:
    return RouterEmbeddings(router(of, folder), **settings)


def llama_index(of: str, folder: Path, **settings: Any) -> RouterEmbedding:
    return RouterEmbedding(router=router(of, folder), **settings)


@pytest.fixture(params=[langchain, llama_index], ids=["langchain", "llama_index"])
def build(request: pytest.FixtureRequest) -> Build:
    made: Build = request.param
    return made


def embed(adapter: Adapter, asynchronous: bool, query: bool = False) -> None:
    names = ("embed_query", "embed_documents"), ("get_query_embedding", "get_text_embedding_batch")
    ask, add = names[isinstance(adapter, RouterEmbedding)]
    given: Any = "q" if query else ["text"]
    method = getattr(adapter, ("a" if asynchronous else "") + (ask if query else add))
    asyncio.run(method(given)) if asynchronous else method(given)


def assigned(adapter: Adapter, name: str) -> Adapter:
    adapter.index = name
    return adapter


def copied(adapter: Adapter, name: str) -> Adapter:
    if isinstance(adapter, RouterEmbedding):
        return adapter.model_copy(update={"index": name})
    return assigned(copy.copy(adapter), name)


def copied_as_before_pydantic_2(adapter: Adapter, name: str) -> Adapter:
    if isinstance(adapter, RouterEmbedding):
        return adapter.copy(update={"index": name})
    return assigned(adapter.with_tier("low"), name)


def copied_deeply(adapter: Adapter, name: str) -> Adapter:
    if isinstance(adapter, RouterEmbedding):
        return adapter.model_copy(update={"index": name}, deep=True)
    return assigned(copy.deepcopy(adapter), name)


def unpickled(adapter: Adapter, name: str) -> Adapter:
    return assigned(pickle.loads(pickle.dumps(adapter)), name)


@pytest.mark.parametrize("later", [assigned, copied, copied_as_before_pydantic_2, copied_deeply, unpickled])
def test_an_index_that_is_named_later_is_guarded(
    build: Build, later: Callable[[Adapter, str], Adapter], tmp_path: Path, asynchronous: bool
) -> None:
    """It records its space, and it is refused where another space is recorded; what it was copied from is as before."""
    original = build("one", tmp_path)
    named = later(original, "handbook")
    assert named.index == "handbook"
    embed(named, asynchronous)
    other, stranger = build("two", tmp_path), build("two", tmp_path)

    with pytest.raises(SpaceMismatchError, match="'handbook'"):
        later(other, "handbook")
    early = later(stranger, "leaflet")
    embed(assigned(named, "leaflet"), asynchronous)
    for query in (True, False):
        with pytest.raises(SpaceMismatchError, match="'leaflet'"):
            embed(early, asynchronous, query)
    if later is not assigned:
        assert (original.index, other.index) == (None, None)
    early.index = None
    embed(early, asynchronous)


@pytest.mark.parametrize("name", ["router", "space", "model_name", "fingerprint", "model"])
def test_what_follows_from_the_router_cannot_be_changed(build: Build, name: str, tmp_path: Path) -> None:
    """Neither later nor at the beginning."""
    adapter = build("one", tmp_path)
    value = router("two") if name == "router" else "something else"
    with pytest.raises(ConfigError, match="follows from the router"):
        setattr(adapter, name, value)
    if isinstance(adapter, RouterEmbedding) and name != "router":
        with pytest.raises(ConfigError, match="follows from the router"):
            adapter.model_copy(update={name: value})
        with pytest.raises(ConfigError, match="follows from the router"):
            build("one", tmp_path, **{name: value})
    assert str(adapter.space) == "one (8 dimensions)"


@pytest.mark.parametrize("name", ["query_tier", "document_tier"])
def test_a_tier_that_is_set_later_is_used_or_refused(
    build: Build, name: str, tmp_path: Path, asynchronous: bool
) -> None:
    """As one that is given at the beginning."""
    adapter = build("one", tmp_path)
    with pytest.raises(ValueError, match="Unknown tier 'best'"):
        setattr(adapter, name, "best")
    assert getattr(adapter, name) is None
    setattr(adapter, name, "low")
    embed(adapter, asynchronous, query=name == "query_tier")

    assert set(adapter.router.ledger.totals("model")) == {"fake:one-low"}


@pytest.mark.parametrize("name", ["space", "models", "tiers", "cache", "ledger"])
def test_a_router_is_what_it_was_built_as(name: str) -> None:
    """Its space decides what an index is held to."""
    one = router()
    with pytest.raises(ConfigError, match=f"{name} of a Router cannot be changed"):
        setattr(one, name, Space("two", 8))
    with pytest.raises(ConfigError, match="tiers of a TieredRouter"):
        TieredRouter({"low": one}).tiers = ("a",)


@pytest.fixture(params=["langchain", "llama_index"])
def retriever(request: pytest.FixtureRequest) -> Any:
    both = TieredRouter({"low": router("one"), "high": router("two")})
    kind: Any = LangChainRetriever if request.param == "langchain" else LlamaIndexRetriever
    return kind.from_router(both, cascade=Cascade(share=0.5))


def wrong_settings(retriever: Any) -> dict[str, Any]:
    stores, k = ("stores", "k") if isinstance(retriever, LangChainRetriever) else ("indices", "similarity_top_k")
    found = getattr(retriever, stores)
    return {
        "query_tier": "low",  # beside a cascade
        "router": TieredRouter({"low": router("three"), "high": router("two")}),
        stores: {"low": found["high"], "high": found["low"]},
        k: 0,
        "cascade": Cascade(share=0.5, cheap="best"),
    }


@pytest.mark.parametrize("place", range(5))
def test_a_tiered_retriever_refuses_later_what_it_refuses_at_the_beginning(retriever: Any, place: int) -> None:
    """And stays as it was."""
    name, value = list(wrong_settings(retriever).items())[place]
    before = getattr(retriever, name)
    with pytest.raises(ValueError):  # noqa: PT011 - ours, or pydantic's
        setattr(retriever, name, value)
    if isinstance(retriever, LangChainRetriever):
        with pytest.raises(ValueError):  # noqa: PT011
            retriever.model_copy(update={name: value})
        with pytest.raises(ValueError):  # noqa: PT011
            retriever.copy(update={name: value})

    assert getattr(retriever, name) is before
    retriever.cascade = None
    retriever.query_tier = "low"
    assert retriever.query_tier == "low"
