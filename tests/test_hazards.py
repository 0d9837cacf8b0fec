"""Mistakes that embedding caches, routers and adapters are known to make. None of them may exist here.

H38, a configuration's tier that retrievers drop, is in test_tier_matrix; more of H15 is in test_limits.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from embedrouter import Model, Router, TieredRouter, tier
from embedrouter.cache import key_function
from embedrouter.errors import (
    AuthenticationError,
    ConfigError,
    EmbedRouterError,
    NoModelAvailableError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.router import wiring_of
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer
from tests.either import embed
from tests.emulator import Emulator, Fault, vector

ONE_TOO_FEW = Answer(np.ones((1, 8), np.float32), 2)


def router(*models: Model, **settings: object) -> Router:
    return Router(list(models), **{"cache": MemoryCache(), "retry": NO_WAITING, **settings})  # type: ignore[arg-type]


# H1, H2, H14, H25, H31: caches that two models, or two dimensions, share


def test_two_models_on_one_cache_keep_their_vectors_apart(tmp_path: Path) -> None:
    """H1, H25: a cache without a namespace handed the first model's vectors to the second."""
    one, two = FakeBackend(dimensions=4, space="one"), FakeBackend(dimensions=6, space="two")
    first = Router([one.model("fake:a")], cache=tmp_path)
    second = Router([two.model("fake:b")], cache=tmp_path)
    first.embed(["x", "y"], input_type="document")

    assert second.embed(["x", "new"], input_type="document").cached == (False, False)
    assert second.embed(["x", "y"], input_type="document").vectors.shape == (2, 6)


def test_two_models_of_equal_dimensions_keep_their_vectors_apart(tmp_path: Path) -> None:
    """H1: where no shape would ever show the mistake."""
    one, two = FakeBackend(space="one"), FakeBackend(space="two")
    Router([one.model("fake:a")], cache=tmp_path).embed(["x"], input_type="document")
    result = Router([two.model("fake:a")], cache=tmp_path).embed(["x"], input_type="document")

    assert np.array_equal(result.vectors[0], two.vector("x", "document"))


def test_one_model_at_two_dimensions_keeps_its_vectors_apart(emulator: Emulator, tmp_path: Path) -> None:
    """H2, H31: the namespace was the model's name, and 1,536 numbers met 256."""

    def ask(dimensions: int) -> np.ndarray:
        model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")
        with Router([model], dimensions=dimensions, cache=tmp_path) as small:
            return small.embed(["x"], input_type="document").vectors

    assert [ask(256).shape, ask(1536).shape, ask(256).shape] == [(1, 256), (1, 1536), (1, 256)]
    assert emulator.calls == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_never_gets_the_vector_of_an_equal_document(emulator: Emulator, asynchronous: bool) -> None:
    """H3, H14, H26, H31: documents and queries shared a cache entry, so the query was never asked."""
    for name, url in (("cohere:embed-v4.0", emulator.cohere_url), ("voyage:voyage-3.5", emulator.voyage_url)):
        asymmetric = router(Model(name, base_url=url, api_key="k"))
        document = embed(asymmetric, asynchronous, ["t"], input_type="document").vectors[0]
        query = embed(asymmetric, asynchronous, ["t"], input_type="query").vectors[0]

        assert not np.array_equal(document, query)
        assert np.array_equal(query, vector(name.partition(":")[2], None, "query", "t"))
    assert emulator.calls == 4


def test_llama_indexes_own_cache_is_refused() -> None:
    """H14: its key is the bare text, without the model and without document or query."""
    fake = FakeBackend()
    with pytest.raises(ValueError, match="mixes queries with documents"):
        RouterEmbedding(router=router(fake.model()), embeddings_cache=SimpleKVStore())
    adapter = RouterEmbedding(router=router(fake.model()))
    with pytest.raises(ValueError, match="mixes queries with documents"):
        adapter.embeddings_cache = SimpleKVStore()


# H4, H9, H10: answers with too few or too many vectors


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("by", [-1, 1, 2])
def test_another_number_of_vectors_than_texts_is_an_error(emulator: Emulator, asynchronous: bool, by: int) -> None:
    """H4, H9, H10: one too few became None in the result; chunks too many were misaligned."""
    emulator.script(*[Fault.wrong_count(by)] * 5)
    model = Model("voyage:voyage-3.5", base_url=emulator.voyage_url, api_key="k")
    with pytest.raises(NoModelAvailableError, match="came for 2 texts"):
        embed(router(model), asynchronous, ["a", "b"], input_type="document")


def test_adapters_never_return_none_for_a_vector() -> None:
    """H4: typed as list[list[float]], and still None."""
    fake = FakeBackend(outcomes=[ONE_TOO_FEW] * 5)
    with pytest.raises(NoModelAvailableError):
        RouterEmbeddings(router(fake.model())).embed_documents(["a", "b"])


# H5: names that the cache cannot take


@pytest.mark.parametrize("name", ["openai:a b/c", "openai:../../etc", "openai:ünïcödé", "openai:" + "x" * 300])
def test_any_model_name_can_be_cached(tmp_path: Path, name: str) -> None:
    """H5: a colon or a blank in the namespace was refused, which taught users to drop it."""
    fake = FakeBackend()
    cached = Router([fake.model(name)], cache=tmp_path)
    cached.embed(["t"], input_type="document")

    assert cached.embed(["t"], input_type="document").cached == (True,)


# H11, H21: failures that pass by themselves, and are fatal


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("name", ["voyage:voyage-3.5", "cohere:embed-v4.0"])
def test_the_first_429_is_not_the_end(emulator: Emulator, name: str, asynchronous: bool) -> None:
    """H11, H21: Voyage's adapters asked once and gave up, a Cohere adapter tried only 5xx again."""
    url = {"voyage": emulator.voyage_url, "cohere": emulator.cohere_url}[name.partition(":")[0]]
    one = router(Model(name, base_url=url, api_key="k"))

    async def call(adapter: RouterEmbeddings | RouterEmbedding) -> list[list[float]]:
        try:
            if isinstance(adapter, RouterEmbedding):
                return await adapter.aget_text_embedding_batch([f"{adapter.class_name()} text"])
            return await adapter.aembed_documents(["a text"])
        finally:
            await one.aclose()

    for adapter in (RouterEmbeddings(one), RouterEmbedding(router=one)):
        emulator.script(Fault.rate_limited(retry_after=0.01), Fault.rate_limited(), None)
        if asynchronous:
            vectors = asyncio.run(call(adapter))
        elif isinstance(adapter, RouterEmbedding):
            vectors = adapter.get_text_embedding_batch([f"{adapter.class_name()} text"])
        else:
            vectors = adapter.embed_documents(["a text"])
        assert len(vectors) == 1
    assert emulator.calls == 6


# H13: asynchronous requests one after the other


@pytest.mark.parametrize("asynchronous", [False, True])
def test_requests_of_one_call_go_out_side_by_side(emulator: Emulator, asynchronous: bool) -> None:
    """H13: the asynchronous half awaited each request before it sent the next."""
    emulator.latency = 0.1
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", batch_size=2)
    one = router(model)
    adapter = RouterEmbeddings(one)
    many = [f"text {number}" for number in range(8)]

    async def call() -> list[list[float]]:
        try:
            return await adapter.aembed_documents(many)
        finally:
            await one.aclose()

    vectors = asyncio.run(call()) if asynchronous else adapter.embed_documents(many)
    one.close()

    assert len(vectors) == 8
    assert emulator.calls == 4
    assert emulator.peak_in_flight > 1


# H15: limiters that count calls that were never made, and none that were


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("limit", [{"requests_per_minute": 2}, {"tokens_per_minute": 10}])
def test_a_limit_counts_requests_and_nothing_else(
    emulator: Emulator, asynchronous: bool, limit: dict[str, int]
) -> None:
    """H15: in front of a cache a limiter was acquired for hits in one half, and never in the other."""
    one = router(Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", **limit))  # type: ignore[arg-type]
    for text in ("one two three", "one two three", "one two three", "four five six"):
        embed(one, asynchronous, [text], input_type="document", timeout=30)

    assert emulator.calls == 2
    with pytest.raises(EmbedRouterError, match="its rate limit"):
        embed(one, asynchronous, ["seven eight nine ten eleven"], input_type="document", timeout=5)
    assert emulator.calls == 2


# H16, H17: requests that are started all at once, or one for each text


async def test_the_frameworks_batches_do_not_all_go_out_at_once(emulator: Emulator) -> None:
    """H16: 500 requests in flight for 5,000 texts."""
    emulator.latency = 0.02
    model = Model(
        "openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k", max_concurrency=6, dimensions=32
    )
    one = router(model)
    adapter = RouterEmbedding(router=one, embed_batch_size=50)
    await adapter.aget_text_embedding_batch([f"text {number}" for number in range(2_000)])
    await one.aclose()

    assert emulator.calls == 40
    assert emulator.peak_in_flight <= 6


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hundred_texts_are_one_request_in_both_forms(emulator: Emulator, asynchronous: bool) -> None:
    """H17: the asynchronous half made a request for each text."""
    one = router(Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k"))
    adapter = RouterEmbedding(router=one)
    many = [f"text {number}" for number in range(100)]

    async def batch() -> list[list[float]]:
        try:
            return await adapter.aget_text_embedding_batch(many)
        finally:
            await one.aclose()

    vectors = asyncio.run(batch()) if asynchronous else adapter.get_text_embedding_batch(many)

    assert len(vectors) == 100
    assert emulator.calls == 1


# H22: secrets in what adapters show


def test_no_key_is_in_anything_an_adapter_shows() -> None:
    """H22: to_dict() of an embedder held the API key, and telemetry carries that dictionary."""
    one = router(Model("openai:text-embedding-3-small", api_key="sk-very-secret"))
    llama_index, langchain = RouterEmbedding(router=one), RouterEmbeddings(one)
    shown = [
        repr(one),
        repr(llama_index),
        str(llama_index),
        repr(langchain),
        json.dumps(llama_index.to_dict()),
        llama_index.to_json(),
        json.dumps(llama_index.to_payload()),
    ]

    assert not any("secret" in text for text in shown)


# H23, H24, H30: fallbacks that leave the space


@pytest.mark.parametrize("dimensions", [8, 6])
def test_a_fallback_of_another_space_cannot_be_configured(dimensions: int) -> None:
    """H23, H24: an outage, or a shuffle, returned vectors of another model, of other or, worse, of equal length."""
    primary, backup = FakeBackend(space="one"), FakeBackend(space="two", dimensions=dimensions)
    with pytest.raises(SpaceMismatchError):
        router(primary.model("fake:a"), backup.model("fake:b"))


def test_an_index_filled_through_an_outage_holds_one_space() -> None:
    """H30: the store held vectors of two models and ranked them together."""
    primary = FakeBackend(outcomes=[None, UnavailableError("down"), UnavailableError("down")])
    backup = FakeBackend()
    one = router(primary.model("fake:a", price="1"), backup.model("fake:b", price="2"))
    store = InMemoryVectorStore(RouterEmbeddings(one))
    store.add_texts(["first"])
    store.add_texts(["second"])
    stored = {document["text"]: document["vector"] for document in store.store.values()}

    for text in ("first", "second"):
        assert np.allclose(stored[text], primary.vector(text, "document"))


def test_when_the_only_model_of_a_space_is_down_the_call_fails() -> None:
    """H23: silently answering from elsewhere is the worst outcome."""
    fake = FakeBackend(outcomes=[UnavailableError("down")] * 5)
    with pytest.raises(NoModelAvailableError, match="UnavailableError: down"):
        router(fake.model()).embed(["t"], input_type="query")


# H27: a hit that needs more packages than a miss


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hit_needs_no_package_that_a_miss_did_not_need(
    emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """H27: the second equal call imported a web server. Here it imports not even the provider's SDK."""
    script = (
        "import asyncio, sys\n"
        "from embedrouter import Model, Router\n"
        f"model = Model('openai:text-embedding-3-small', base_url={emulator.openai_url!r}, api_key='k')\n"
        f"router = Router([model], cache={str(tmp_path / 'cache')!r})\n"
        f"result = asyncio.run(router.aembed(['t'], input_type='document')) if {asynchronous} else "
        "router.embed(['t'], input_type='document')\n"
        "print(*result.cached, *{name.partition('.')[0] for name in sys.modules})\n"
    )
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(2)]
    miss, hit = (run.stdout.split() for run in runs)

    assert [miss[0], hit[0]] == ["False", "True"], [run.stderr for run in runs]
    assert set(hit[1:]) <= set(miss[1:])
    assert set(hit[1:]) & {"openai", "httpx2", "fastapi", "orjson", "soundfile"} == set()


# H33: failed batches that pass


@pytest.mark.parametrize("asynchronous", [False, True])
def test_documents_never_pass_without_a_vector(asynchronous: bool) -> None:
    """H33: a failed batch was logged, and its documents went on to the store without a vector."""
    fake = FakeBackend(outcomes=[None, *[UnavailableError("down")] * 10])
    one = router(fake.model(batch_size=1, max_concurrency=1))
    adapter = RouterEmbedding(router=one)
    nodes = [TextNode(text="first"), TextNode(text="second")]
    fill: Callable[[], Any] = (lambda: asyncio.run(adapter.acall(nodes))) if asynchronous else (lambda: adapter(nodes))
    with pytest.raises(NoModelAvailableError):
        fill()
    with pytest.raises(NoModelAvailableError):
        InMemoryVectorStore(RouterEmbeddings(one)).add_texts(["first", "second"])
    fill()

    assert all(node.embedding for node in nodes)
    assert [call.texts for call in fake.calls].count(("first",)) == 1


# H28, H36: queries embedded as documents


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_is_told_to_the_provider_as_a_query(emulator: Emulator, asynchronous: bool) -> None:
    """H28: without an input type Cohere's queries went out as search_document. Here the input type is required."""
    one = router(Model("cohere:embed-v4.0", base_url=emulator.cohere_url, api_key="k"))
    embed(one, asynchronous, ["t"], input_type="query")
    RouterEmbeddings(one).embed_query("u")
    RouterEmbedding(router=one).get_query_embedding("v")

    assert [received.input_type for received in emulator.received] == ["search_query"] * 3


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("name", ["cohere:embed-v4.0", "voyage:voyage-3.5"])
def test_queries_and_documents_are_told_apart_by_every_provider_that_can(
    emulator: Emulator, name: str, asynchronous: bool
) -> None:
    """H36: both went out alike, to Cohere both as documents."""
    url = {"voyage": emulator.voyage_url, "cohere": emulator.cohere_url}[name.partition(":")[0]]
    one = router(Model(name, base_url=url, api_key="k"), cache=None)
    query, document = (embed(one, asynchronous, ["t"], input_type=kind).vectors[0] for kind in ("query", "document"))

    said = [str(received.input_type).removeprefix("search_") for received in emulator.received]
    assert said == ["query", "document"]
    assert not np.array_equal(query, document)


# H37: keys that lack what tells vectors apart


def test_everything_that_changes_a_vector_is_in_the_key(tmp_path: Path) -> None:
    """H37: the key was the text; models, revisions and types that shared a path shared vectors."""
    nano: dict[str, Any] = {"trust_remote_code": True, "base_url": None}
    name = "sentence-transformers:voyageai/voyage-4-nano"
    variants = [
        Router([Model(name, revision="abc", **nano)], cache=tmp_path, dimensions=1024),
        Router([Model(name, revision="def", **nano)], cache=tmp_path, dimensions=1024),
        Router([Model(name, revision="abc", prompts={"query": "q: "}, **nano)], cache=tmp_path, dimensions=1024),
        Router([Model(name, revision="abc", **nano)], cache=tmp_path, dimensions=512),
        Router([Model("voyage:voyage-4")], cache=tmp_path, dimensions=1024),
    ]
    keys = {
        key_function(wiring_of(one).candidates[0], input_type)("the text")
        for one in variants
        for input_type in ("document", "query")
    }

    assert len(keys) == 2 * len(variants)


# H39, H40: models that are swapped behind an index


@pytest.mark.parametrize(
    ("models", "dimensions"),
    [
        (["openai:text-embedding-3-small", "cohere:embed-v4.0"], 1536),
        (["openai:text-embedding-3-small", "openai:text-embedding-3-large"], 1536),
        (["voyage:voyage-4", "voyage:voyage-3.5"], 1024),
        (["cohere:embed-v4.0", "cohere:embed-v5.0-pro"], 1024),
    ],
)
def test_real_models_of_equal_dimensions_and_other_spaces_are_refused(models: list[str], dimensions: int) -> None:
    """H39: a gateway's fallback treats embedding models like chat models, and dimensions that agree hide it."""
    with pytest.raises(SpaceMismatchError, match="means nothing, even at equal dimensions"):
        Router(models, dimensions=dimensions, cache=None)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_surrounding_block_changes_the_tier_and_never_the_space(asynchronous: bool) -> None:
    """H40: a block around a call could put any model in the place of another."""
    low, high, foreign = FakeBackend(), FakeBackend(), FakeBackend(space="foreign")
    one = router(low.model("fake:low", tier="low"), high.model("fake:high", tier="high"))
    spaces = set()
    for name in ("low", "medium", "high"):
        with tier(name):
            spaces.add(embed(one, asynchronous, [f"a {name} query"], input_type="query").space)

    assert spaces == {one.space}
    with tier(foreign.model("fake:foreign").name), pytest.raises(ConfigError, match="fake:foreign"):
        embed(one, asynchronous, ["a query"], input_type="query")
    assert foreign.calls == []


# The smart embedder that many write first: the cache, then cheap or dear by quality, under one key


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_cheap_vector_never_comes_back_for_the_dear_model(emulator: Emulator, asynchronous: bool) -> None:
    """Low, then high, then low again for one text."""
    dear = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")
    store = MemoryCache()
    both = TieredRouter(
        {"low": router(Model("wordllama:l2_supercat_256"), cache=store), "high": router(dear, cache=store)}
    )
    shapes = [
        embed(both, asynchronous, ["Cheap path"], input_type="document", tier=tier).vectors.shape
        for tier in ("low", "high", "low", "high")
    ]

    assert shapes == [(1, 256), (1, 1536)] * 2
    assert emulator.calls == 1


# H32: text that is rewritten, and fallbacks under the wrong key


def test_texts_reach_the_provider_unchanged(emulator: Emulator) -> None:
    """H32: lower-cased and stripped before embedding; "US" and "us" shared an entry."""
    one = router(Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k"))
    texts = ["US Polish Path", "us polish path", " us\npolish\tpath ", "U\u0308", "\u00dc"]
    one.embed(texts, input_type="document")
    one.close()

    assert list(emulator.received[0].texts) == texts


def test_a_fallbacks_vector_is_kept_under_the_models_own_key() -> None:
    """H32: the remote vector was filed under the local model."""
    local = FakeBackend(outcomes=[UnavailableError("x", retryable=False)])
    remote = FakeBackend()
    store = MemoryCache()
    both = [local.model("fake:local", price="0"), remote.model("fake:remote", price="1")]
    router(*both, cache=store).embed(["t"], input_type="query")

    alone = router(local.model("fake:local"), cache=store).embed(["t"], input_type="query")
    assert alone.cached == (False,)


def test_a_missing_key_is_an_error_and_not_another_vector() -> None:
    """The neighbour of H23: no key, no call, and a message that names the variable."""
    one = router(Model("openai:text-embedding-3-small"))
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        one.embed(["t"], input_type="query")


def test_a_tiered_router_cannot_feed_one_store() -> None:
    """Two spaces in one store is every hazard above at once."""
    both = TieredRouter(
        {"low": router(FakeBackend(space="one").model()), "high": router(FakeBackend(space="two").model())}
    )
    for adapter in (RouterEmbeddings, lambda router: RouterEmbedding(router=router)):
        with pytest.raises(ConfigError, match=r"tiered\.router\('high'\).*family"):
            adapter(both)
