"""LlamaIndex's own machinery around the adapter: dumps, callbacks, rate limiters, bars, copies, empty texts."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.embeddings import MockEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.rate_limiter import BaseRateLimiter, TokenBucketRateLimiter
from llama_index.core.schema import ImageNode, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from workflows.context.serializers import JsonSerializer, PickleSerializer

from embedrouter import Budget, Model, RetryPolicy, Router, TieredRouter, config
from embedrouter.errors import ConfigError, InputRejectedError, InvalidInputError, RateLimitedError, SpaceMismatchError
from embedrouter.llama_index import RouterEmbedding
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType

SMALL = "openai:text-embedding-3-small"
TEXTS = [f"text {number}" for number in range(10)]


def routed(*outcomes: Any, batch: int = 3, **settings: Any) -> tuple[RouterEmbedding, FakeBackend]:
    """Return an embedder whose provider takes ``batch`` texts in one request."""
    fake = FakeBackend(outcomes=outcomes)
    adapter = {name: settings.pop(name) for name in set(settings) & set(RouterEmbedding.model_fields)}
    given = {"cache": None, "ledger": ":memory:", "retry": NO_WAITING, **settings}
    router = Router([fake.model(batch_size=batch, max_concurrency=1)], **given)
    return RouterEmbedding(router, **adapter), fake


def batch(embedder: Any, texts: Any, asynchronous: bool, **settings: Any) -> Any:
    if asynchronous:
        return asyncio.run(embedder.aget_text_embedding_batch(texts, **settings))
    return embedder.get_text_embedding_batch(texts, **settings)


def query(embedder: Any, text: str, asynchronous: bool) -> Any:
    return asyncio.run(embedder.aget_query_embedding(text)) if asynchronous else embedder.get_query_embedding(text)


# Dumps

FULL: dict[str, Any] = {
    "models": [
        Model(
            SMALL,
            tier="high",
            base_url="http://localhost:1/v1",
            api_key_env="GATEWAY_KEY",
            price="0.02",
            headers={"X-Team": "search"},
            extra_body={"user": "me"},
            served_as=["small"],
            timeout=3,
        ),
        Model("azure_openai:text-embedding-3-small", base_url="https://a.b", api_version="2024-10-21", tier="low"),
    ],
    "dimensions": 256,
    "budget": Budget(per_day="5.00", when_exceeded="degrade"),
    "retry": RetryPolicy(attempts=2),
    "query_tier": "low",
    "tiers": ("low", "high"),
    "on_too_long": "truncate",
    "cache_dtype": "float16",
    "cache_memory": 0,
    "micro_batch_window": 0,
}


def dict_way(embedder: RouterEmbedding) -> RouterEmbedding:
    return RouterEmbedding.from_dict(embedder.to_dict())


def json_way(embedder: RouterEmbedding) -> RouterEmbedding:
    return RouterEmbedding.from_json(embedder.to_json())


def model_way(embedder: RouterEmbedding) -> RouterEmbedding:
    return RouterEmbedding.model_validate(embedder.model_dump())


def model_json_way(embedder: RouterEmbedding) -> RouterEmbedding:
    return RouterEmbedding.model_validate_json(embedder.model_dump_json())


def workflow_way(embedder: RouterEmbedding) -> RouterEmbedding:
    loaded: RouterEmbedding = JsonSerializer().deserialize(JsonSerializer().serialize({"a": [embedder]}))["a"][0]
    return loaded


def workflow_pickle_way(embedder: RouterEmbedding) -> RouterEmbedding:
    loaded: RouterEmbedding = PickleSerializer().deserialize(PickleSerializer().serialize(embedder))
    return loaded


WAYS = [dict_way, json_way, model_way, model_json_way, workflow_way, workflow_pickle_way]


@pytest.mark.parametrize("way", WAYS)
def test_a_dump_builds_the_embedder_again(
    way: Callable[[RouterEmbedding], RouterEmbedding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every setting, and so with the same vectors and the same keys of all caches."""
    monkeypatch.chdir(tmp_path)
    original = RouterEmbedding(Router(**FULL, cache="c", ledger=Path("l.db")), query_tier="high", embed_batch_size=7)
    monkeypatch.chdir("/")
    loaded = way(original)

    assert loaded.to_dict() == original.to_dict()
    assert loaded.fingerprint == original.fingerprint
    assert (loaded.query_tier, loaded.embed_batch_size, loaded.router.tiers) == ("high", 7, ("low", "high"))
    assert str(loaded.router.ledger.file) == str(tmp_path / "l.db")


def test_a_dump_is_what_a_configuration_file_holds(tmp_path: Path) -> None:
    """One format, with one reader."""
    written = """
        dimensions = 256
        cache = false
        ledger = ":memory:"
        [budget]
        per_day = "5.00"
        [[models]]
        model = "openai:text-embedding-3-small"
        api_key_env = "KEY"
    """
    (tmp_path / "e.toml").write_text(written)
    dumped = RouterEmbedding(tmp_path / "e.toml").to_dict()["router"]

    assert dumped == tomllib.loads(written) | {"budget": {"per_day": "5.00"}}
    assert config.given(dumped).router()["dimensions"] == 256


def lookup(texts: list[str]) -> list[list[float]]:
    return [[1.0, 2.0] for _ in texts]


INCOMPLETE: dict[str, tuple[Callable[[], Router], str]] = {
    "key": (lambda: Router([Model(SMALL, api_key="the-secret")]), r"the key of openai:.*api_key_env='OPENAI_API_KEY'"),
    "header": (lambda: Router([Model(SMALL, headers={"Authorization": "the-secret"})]), "Authorization of openai:"),
    "field": (lambda: Router([Model(SMALL, extra_body={"token": "the-secret"})]), "token of openai:"),
    "function": (lambda: Router([Model.wrap(lookup, space="s", dimensions=2)]), r"function of .*Model\.wrap"),
    "client": (lambda: Router([Model(SMALL, client=openai.OpenAI(api_key="the-secret"))]), "the client OpenAI"),
    "cache": (lambda: Router([SMALL], cache=MemoryCache()), r"MemoryCache: Router\(…, cache=…\)"),
    "on_event": (lambda: Router([SMALL], on_event=print), r"on_event.*Router\(…, on_event=…\)"),
}


@pytest.mark.parametrize("lacks", INCOMPLETE)
def test_what_no_dump_holds_is_named_when_it_is_loaded(lacks: str) -> None:
    """``IngestionCache`` and MLflow dump every embedder, so it is loading that refuses; a router may be given."""
    build, says = INCOMPLETE[lacks]
    original = RouterEmbedding(build())
    dumped = original.to_json()

    assert "the-secret" not in dumped + str(original.to_dict()) + original.model_dump_json()
    for load in (RouterEmbedding.from_json, JsonSerializer().deserialize):
        text = dumped if load == RouterEmbedding.from_json else JsonSerializer().serialize(original)
        with pytest.raises(ConfigError, match=f"(?s){says}.*from_dict\\(data, router=router\\)"):
            load(text)
    assert RouterEmbedding.from_json(dumped, router=original.router).fingerprint == original.fingerprint
    with pytest.raises(SpaceMismatchError, match="embedder that was dumped is in the space"):
        RouterEmbedding.from_json(dumped, router="wordllama:l2_supercat_256")


def test_a_pipeline_is_saved_and_loaded_with_its_cache(tmp_path: Path) -> None:
    """The cache of another process knows a loaded embedder by its dump."""
    one = RouterEmbedding("wordllama:l2_supercat_256", cache=None, ledger=":memory:")
    nodes = [TextNode(text=text, id_=text) for text in TEXTS]
    pipeline = IngestionPipeline(transformations=[one])
    pipeline.run(nodes=nodes)
    pipeline.persist(str(tmp_path))
    loaded = RouterEmbedding.from_json(one.to_json())
    again = IngestionPipeline(transformations=[loaded])
    again.load(str(tmp_path))
    filled = again.run(nodes=[TextNode(text=text, id_=text) for text in TEXTS])

    assert [node.get_embedding() for node in filled] == [node.embedding for node in nodes]
    assert loaded.router.usage.tokens == 0


# Copies


class Labelled(RouterEmbedding):
    label: str = ""


def test_copies_are_of_the_same_class_with_its_fields() -> None:
    """A subclass has what its user put into it; a literal key stays in this process."""
    build: Any = Labelled  # a type checker gives subclasses of pydantic's models an __init__ of their fields
    original = build(Router([Model(SMALL, api_key="k")], cache=None), label="mine", query_tier="high", num_workers=2)
    for other in (
        copy.copy(original),
        copy.deepcopy(original),
        original.model_copy(),
        original.model_copy(deep=True),
        original.with_tier("high"),
        pickle.loads(pickle.dumps(original)),
        Labelled.from_dict(original.to_dict(), router=original.router),
        JsonSerializer().deserialize(JsonSerializer().serialize(build(SMALL, label="mine", num_workers=2))),
    ):
        assert (type(other), other.label, other.num_workers) == (Labelled, "mine", 2)
        assert other.fingerprint == original.fingerprint


@pytest.mark.parametrize("kind", [RouterEmbedding, MockEmbedding])
def test_callbacks_go_with_copies_as_with_the_frameworks_own(kind: type, asynchronous: bool) -> None:
    """``with_tier`` keeps the manager itself, a pickle and a deep copy have one like it, a dump has none."""
    manager = CallbackManager([TokenCountingHandler(tokenizer=str.split)])
    embedder: Any = routed(callback_manager=manager)[0] if kind is RouterEmbedding else MockEmbedding(8)
    embedder.callback_manager = manager
    handler: Any = manager.handlers[0]
    batch(embedder, ["one two", "three"], asynchronous)
    query(embedder, "four five", asynchronous)
    assert handler.total_embedding_token_count == 5
    assert [event.total_token_count for event in handler.embedding_token_counts] == [2, 1, 2]

    same = [copy.copy(embedder), embedder.model_copy()]
    same += [embedder.with_tier("high")] if kind is RouterEmbedding else []
    for other in same:
        assert other.callback_manager is manager
    for other in (copy.deepcopy(embedder), pickle.loads(pickle.dumps(embedder))):
        assert other.callback_manager.handlers[0] is not handler
        query(other, "six", asynchronous)
        assert other.callback_manager.handlers[0].total_embedding_token_count == 6
    assert "callback_manager" not in embedder.to_dict()


def test_the_settings_callback_manager_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``Settings.embed_model`` and every index do."""
    manager = CallbackManager([TokenCountingHandler(tokenizer=str.split)])
    monkeypatch.setattr(Settings, "_callback_manager", manager)
    monkeypatch.setattr(Settings, "_embed_model", None)
    Settings.embed_model = routed()[0]
    VectorStoreIndex([TextNode(text="one two")])

    assert Settings.embed_model.callback_manager is manager
    handler: Any = manager.handlers[0]
    assert handler.total_embedding_token_count == 2


# Rate limiters


class Counting(BaseRateLimiter):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def acquire(self, num_tokens: int = 0) -> None:
        self.asked.append("sync")

    async def async_acquire(self, num_tokens: int = 0) -> None:
        await asyncio.sleep(0)
        self.asked.append("async")


def test_a_rate_limiter_is_asked_once_for_each_request_that_goes_out(asynchronous: bool) -> None:
    """Not for the framework's batches, and not for what the cache answers; each retry goes out."""
    limiter = Counting()
    embedder, fake = routed(None, RateLimitedError("slow down"), cache=MemoryCache(), rate_limiter=limiter)
    assert embedder.rate_limiter is limiter
    batch(embedder, TEXTS, asynchronous)
    assert len(limiter.asked) == len(fake.calls) == 5
    for _ in range(20):
        query(embedder, "q", asynchronous)
        batch(embedder, TEXTS, asynchronous)

    assert len(fake.calls) == 6
    assert limiter.asked == ["async" if asynchronous else "sync"] * 6
    batch(RouterEmbedding(embedder.router), ["another"], asynchronous)
    assert len(limiter.asked) == 6


async def test_small_calls_that_are_sent_as_one_request_ask_once() -> None:
    """Calls with another limiter, or with none, are not among them."""
    one, two = Counting(), Counting()
    embedder, fake = routed(batch=100, rate_limiter=one, micro_batch_window=0.05)
    other = embedder.model_copy(update={"rate_limiter": two})
    asked = [(item, f"{n} {name}") for n in range(5) for name, item in {"one": embedder, "two": other}.items()]
    await asyncio.gather(*(item.aget_query_embedding(text) for item, text in asked))

    assert sum(len(call.texts) for call in fake.calls) == 10
    assert (len(one.asked), len(two.asked)) == (2, 2)
    assert len(fake.calls) == 4


def test_local_models_ask_no_limiter() -> None:
    """Nothing goes out."""
    limiter = Counting()
    RouterEmbedding("wordllama:l2_supercat_256", cache=None, rate_limiter=limiter).get_query_embedding("a")

    assert limiter.asked == []


def test_a_limiter_that_waits_takes_nothing_of_the_time_of_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may let a request wait for a minute, which is all that a request may take with its retries."""
    now = [0.0]

    class Slow(Counting):
        def acquire(self, num_tokens: int = 0) -> None:
            now[0] += 50

    policy = RetryPolicy(timeout=60, initial_wait=0, max_wait=0)
    settings: dict[str, Any] = {"retry": policy, "clock": lambda: now[0], "rate_limiter": Slow()}
    embedder, fake = routed(RateLimitedError("no"), RateLimitedError("no"), **settings)
    embedder.get_query_embedding("a")

    assert len(fake.calls) == 3


def test_with_a_limiter_it_is_copied_and_pickled(caplog: pytest.LogCaptureFixture) -> None:
    """LlamaIndex's own have a lock: copies in this process share it, a pickle has none and says so."""
    limiter = TokenBucketRateLimiter(requests_per_minute=600)
    original = routed(rate_limiter=limiter)[0]
    for other in (copy.copy(original), copy.deepcopy(original), original.with_tier("high")):
        assert other.rate_limiter is limiter
    with caplog.at_level(logging.WARNING, "embedrouter.llama_index"):
        sent = pickle.loads(pickle.dumps(original))

    assert sent.rate_limiter is None
    assert "requests_per_minute" in caplog.text
    assert original.rate_limiter is limiter
    assert sent.get_query_embedding("a") == original.get_query_embedding("a")


# Bars


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note where the bar of a call stands after each of its moves."""
    import tqdm.auto

    stands: list[int] = []

    class Noting(tqdm.std.tqdm):  # type: ignore[misc]
        def update(self, n: int = 1) -> None:
            super().update(n)
            stands.append(self.n)

    monkeypatch.setattr(tqdm.auto, "tqdm", Noting)
    return stands


def test_the_bar_moves_with_each_answer(bar: list[int], asynchronous: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """LlamaIndex's own stands at 0 until 2,048 texts have a vector. The requests are the same without a bar."""
    embedder, fake = routed(cache=MemoryCache())
    batch(embedder, [*TEXTS, TEXTS[0]], asynchronous, show_progress=True)
    assert [move for move in dict.fromkeys(bar) if move] == [4, 7, 10, 11]
    assert len(fake.calls) == 4
    assert "Generating embeddings: 100%" in capsys.readouterr().err

    bar.clear()
    batch(embedder, [*TEXTS, "new"], asynchronous, show_progress=True)
    assert [*dict.fromkeys(bar)] == [10, 11]
    assert "1 new, 10 from the cache" in capsys.readouterr().err


def test_an_indexs_bar_is_the_frameworks(bar: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """``VectorStoreIndex(…, show_progress=True)``."""
    VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=routed()[0], show_progress=True)

    assert bar[-1] == 10
    assert len(set(bar)) > 3
    capsys.readouterr()


# Empty texts, positions

NODES = [TextNode(text="a", id_="one"), ImageNode(image="x", id_="picture"), TextNode(text="b", id_="two")]


def ran(embedder: RouterEmbedding, asynchronous: bool, **settings: Any) -> Any:
    pipeline = IngestionPipeline(transformations=[embedder], disable_cache=True, **settings)
    nodes = [node.model_copy() for node in NODES]
    return asyncio.run(pipeline.arun(nodes=nodes)) if asynchronous else pipeline.run(nodes=nodes)


def test_a_node_without_text_is_named(asynchronous: bool) -> None:
    """By its id, before anything is sent; where only texts are known, by the position in what was handed over."""
    embedder, fake = routed(embed_batch_size=2)
    with pytest.raises(InvalidInputError, match=r"ImageNode 'picture' \(position 1\).*on_empty='skip'") as caught:
        ran(embedder, asynchronous)
    assert caught.value.indices == (1,)
    texts = [*TEXTS, "", "b"]
    with pytest.raises(InvalidInputError, match="12 texts that were handed over; an index hands over") as caught:
        batch(embedder, texts, asynchronous)
    assert list(caught.value.indices) == [10]
    with pytest.raises(InvalidInputError, match="The text is empty"):
        query(embedder, "", asynchronous)
    assert fake.calls == []


def test_a_pipeline_may_skip_nodes_without_text(asynchronous: bool) -> None:
    """They keep no embedding, which a pipeline does not store; an index built of nodes leaves them out by itself."""
    embedder, fake = routed(on_empty="skip")
    store = SimpleVectorStore(stores_text=True)
    filled = ran(embedder, asynchronous, vector_store=store)

    assert [node.embedding is None for node in filled] == [False, True, False]
    assert set(store.data.embedding_dict) == {"one", "two"}
    assert [call.texts for call in fake.calls] == [("a", "b")]
    with pytest.raises(InvalidInputError):
        batch(embedder, ["a", ""], asynchronous)


def test_a_refused_text_is_named_by_its_position_among_all(asynchronous: bool) -> None:
    """Not among those of the framework's batch."""

    class Refusing(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            if TEXTS[7] in texts:
                raise InputRejectedError("no such text")
            return super().embed(texts, input_type, timeout=timeout)

    router = Router([Refusing().model()], cache=None, ledger=":memory:", retry=NO_WAITING)
    with pytest.raises(InputRejectedError, match=r"no such text \(texts at 7\)"):
        batch(RouterEmbedding(router, embed_batch_size=3), TEXTS, asynchronous)


# Near misses


def test_a_router_in_place_of_an_embedder_gets_the_line_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex has an ``AssertionError`` without a text for it. Elsewhere a router may be compared with anything."""
    router = routed()[0].router
    for given in (router, TieredRouter({"high": router})):
        with pytest.raises(ConfigError, match=r"embed_model=RouterEmbedding\(router\)"):
            VectorStoreIndex([], embed_model=given)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"embed_model=RouterEmbedding\(router\)"):
            Settings.embed_model = given  # type: ignore[assignment]
        assert given != "default"
        assert given == given
        assert len({given, given}) == 1


def test_events_say_the_space_and_the_tiers() -> None:
    """What observability shows of an embedder; never a key."""
    embedder = RouterEmbedding(Router([Model(SMALL, api_key="the-secret")], cache=None), query_tier="high")
    shown = embedder.to_payload()

    assert shown["space"] == embedder.space
    assert shown["query_tier"] == "high"
    assert "the-secret" not in json.dumps(shown)
