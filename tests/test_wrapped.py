"""Presets, and embedders that users already have."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from llama_index.core.base.embeddings.base import BaseEmbedding

from embedrouter import Model, Router, Space, TieredRouter
from embedrouter.errors import (
    AuthenticationError,
    ConfigError,
    NoModelAvailableError,
    RateLimitedError,
    RequestTimeoutError,
    SpaceMismatchError,
    UnavailableError,
)
from embedrouter.events import Event
from embedrouter.router import wiring_of
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.tiered import default_tier
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.emulator import Emulator, Fault, vector


class OpenAILike(Embeddings):
    """As langchain-openai's: one class for documents and queries, its own client behind it."""

    def __init__(self, url: str) -> None:
        self.client = openai.OpenAI(api_key="k", base_url=url, max_retries=0)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        answer = self.client.embeddings.create(model="text-embedding-3-small", input=texts)
        return [row.embedding for row in answer.data]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class Marking(BaseEmbedding):
    """A LlamaIndex embedder that tells documents from queries and one form from the other."""

    def _get_query_embedding(self, query: str) -> list[float]:
        return [float(len(query)), 1.0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return [float(len(text)), 2.0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [float(len(query)), 3.0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return [float(len(text)), 4.0]


def plain(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(text), 1.0] for text in texts])


def typed(texts: Sequence[str], *, input_type: str) -> list[list[float]]:
    return [[float(len(text)), 1.0 if input_type == "query" else 2.0] for text in texts]


def wrapped(embedder: Any, **settings: Any) -> Router:
    model = Model.wrap(embedder, **{"space": "house", "dimensions": 2, **settings})
    return Router([model], cache=MemoryCache(), retry=NO_WAITING)


# Wrapping


def test_a_langchain_embedder_gets_cache_dedupe_and_usage(emulator: Emulator, asynchronous: bool) -> None:
    """Which it has not of its own."""
    embedder = OpenAILike(emulator.openai_url)
    router = wrapped(embedder, space="text-embedding-3-small", dimensions=None, price="0.02")
    first = embed(router, asynchronous, ["a", "b", "a"], input_type="document")
    again = embed(router, asynchronous, ["b", "a"], input_type="document")
    embedder.client.close()

    assert emulator.calls == 1
    assert emulator.received[0].texts == ("a", "b")
    assert np.allclose(first.vectors[1], vector("text-embedding-3-small", None, "document", "b"))
    assert again.cached == (True, True)
    assert first.usage.cost > Decimal(0)
    assert first.models == ("wrapped:OpenAILike",) * 3


def test_a_llama_index_embedder_is_asked_in_its_own_methods(asynchronous: bool) -> None:
    """Queries as queries, asynchronously where the caller is."""
    router = wrapped(Marking())
    marks = [
        embed(router, asynchronous, ["text"], input_type=input_type).vectors[0][1]
        for input_type in ("query", "document")
    ]

    assert marks == ([3.0, 4.0] if asynchronous else [1.0, 2.0])


def test_a_function_will_do(asynchronous: bool) -> None:
    """With or without a parameter for the input type."""
    assert embed(wrapped(plain), asynchronous, ["abc"], input_type="query").vectors.tolist() == [[3, 1]]
    assert embed(wrapped(typed), asynchronous, ["abc"], input_type="query").vectors.tolist() == [[3, 1]]
    assert embed(wrapped(typed), asynchronous, ["abc"], input_type="document").vectors.tolist() == [[3, 2]]


def test_the_space_must_be_declared() -> None:
    """Only the user can know what its vectors are comparable with."""
    with pytest.raises(ConfigError, match=r"like='openai:…'.*space='…'"):
        Model.wrap(plain)
    with pytest.raises(ConfigError, match=r"dimensions=…"):
        Model.wrap(plain, space="house")
    assert Model.wrap(plain, space="voyage-4").dimensions == 1024


def test_facts_come_from_the_model_that_an_embedder_calls() -> None:
    """Space, dimensions, limits, price, and whether one vector serves documents and queries."""
    calls: list[list[str]] = []

    def embedder(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        return [[1.0] * 1536 for _ in texts]

    model = Model.wrap(embedder, like="openai:text-embedding-3-small", name="gateway:small")
    router = Router([model], ledger=":memory:")
    document = router.embed(["a"], input_type="document")
    query = router.embed(["a"], input_type="query")
    assert document.space == Router(["openai:text-embedding-3-small"]).space
    assert document.usage.cost > 0
    assert query.cached == (True,)
    assert calls == [["a"]]


def test_a_wrapped_model_may_take_fewer_texts_than_it_gets() -> None:
    """The limits of the row are those of the requests behind the embedder."""
    calls: list[int] = []

    def embedder(texts: list[str]) -> list[list[float]]:
        calls.append(len(texts))
        return [[1.0] * 1536 for _ in texts]

    router = Router([Model.wrap(embedder, like="cohere:embed-v4.0")], cache=None, ledger=":memory:")
    router.embed([f"text {number}" for number in range(200)], input_type="document")
    assert calls == [96, 96, 8]


def test_an_unknown_model_that_an_embedder_calls_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'openai:text-embedding-3-small'\?"):
        Router([Model.wrap(plain, like="openai:text-embedding-3-smal")])


def test_a_wrapped_embedder_joins_a_router_of_its_space_only(emulator: Emulator) -> None:
    """And can then back up a model of the catalogue."""
    own = Model.wrap(DeterministicFakeEmbedding(size=1536), space="text-embedding-3-small", tier="low")

    assert Router(["openai:text-embedding-3-small", own], cache=None).space == Space("text-embedding-3-small", 1536)
    with pytest.raises(SpaceMismatchError):
        Router(["openai:text-embedding-ada-002", own], cache=None)


@pytest.mark.parametrize("wrong", [object(), "openai", 7, None])
def test_what_is_no_embedder_is_refused(wrong: object) -> None:
    """When it is wrapped."""
    with pytest.raises(ConfigError, match="plain function"):
        Model.wrap(wrong, space="house", dimensions=2)


def test_a_coroutine_function_is_refused() -> None:
    """The synchronous form could not call it."""

    async def later(texts: list[str]) -> list[list[float]]:
        return [[0.0, 1.0] for _ in texts]

    with pytest.raises(ConfigError, match="plain function"):
        Model.wrap(later, space="house", dimensions=2)


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[1.0], [1.0, 2.0, 3.0]], None, "text", [[float("nan"), 1.0]] * 2])
def test_what_comes_back_is_checked_like_any_answer(rows: object, asynchronous: bool) -> None:
    """One vector too few, ragged, nothing, NaN."""
    with pytest.raises(NoModelAvailableError, match="BadResponseError"):
        embed(wrapped(lambda texts: rows), asynchronous, ["a", "b"], input_type="document")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.rate_limited(), RateLimitedError),
        (Fault.unavailable(), UnavailableError),
        (Fault.status(401), AuthenticationError),
    ],
)
def test_failures_of_a_provider_behind_it_are_understood(
    emulator: Emulator, asynchronous: bool, fault: Fault, kind: type[Exception]
) -> None:
    """So that the router can try again or say what is wrong."""
    emulator.script(*[fault] * 5)
    embedder = OpenAILike(emulator.openai_url)
    router = wrapped(embedder, space="text-embedding-3-small", dimensions=1536)
    with pytest.raises((NoModelAvailableError, AuthenticationError)) as caught:
        embed(router, asynchronous, ["a"], input_type="document")
    embedder.client.close()

    error = caught.value.attempts[-1].error if isinstance(caught.value, NoModelAvailableError) else caught.value
    assert isinstance(error, kind)


@pytest.mark.parametrize(
    ("raised", "kind"), [(TimeoutError(), RequestTimeoutError), (ConnectionResetError(), UnavailableError)]
)
def test_failures_of_the_network_are_understood(raised: Exception, kind: type[Exception], asynchronous: bool) -> None:
    """Retryable, as with any provider."""

    def failing(texts: list[str]) -> object:
        raise raised

    with pytest.raises(NoModelAvailableError) as caught:
        embed(wrapped(failing), asynchronous, ["a"], input_type="document")

    assert isinstance(caught.value.attempts[-1].error, kind)
    assert len(caught.value.attempts) == 5


def test_its_own_bugs_pass_unchanged(asynchronous: bool) -> None:
    """A KeyError in the user's function is not an outage."""
    with pytest.raises(KeyError):
        embed(wrapped(lambda texts: dict[str, Any]()["x"]), asynchronous, ["a"], input_type="document")


# What is wrapped is told apart


class Scaled(Embeddings):
    """Vectors that depend on the settings."""

    def __init__(self, scale: float, model: str = "a", **settings: Any) -> None:
        self.scale, self.model, self.calls = scale, model, 0
        for name, value in settings.items():
            setattr(self, name, value)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls += 1
        return [[self.scale, float(len(text))] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def scaled(scale: float) -> Any:
    def embed_texts(texts: Sequence[str]) -> list[list[float]]:
        return [[scale, float(len(text))] for text in texts]

    return embed_texts


def by_model(texts: Sequence[str], model: str = "a") -> list[list[float]]:
    return [[1.0 + ord(model), float(len(text))] for text in texts]


def of_model(model: str) -> Any:
    return lambda texts: by_model(texts, model)


PAIRS: dict[str, tuple[Any, Any]] = {
    "objects of one class": (Scaled(1), Scaled(2)),
    "functions of one name": (scaled(1), scaled(2)),
    "lambdas": (lambda texts: plain(texts), lambda texts: 2 * plain(texts)),
    "methods of two objects": (Scaled(1).embed_documents, Scaled(2).embed_documents),
    "partial functions": (partial(by_model, model="a"), partial(by_model, model="b")),
    "LangChain's own": (DeterministicFakeEmbedding(size=2), DeterministicFakeEmbedding(size=2)),
    "LlamaIndex's": (Marking(), Marking()),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_two_embedders_of_one_name_are_refused(kind: str, asynchronous: bool) -> None:
    """They would share cached vectors, and the low tier's would be served for the high one; names tell them apart."""
    declared = [
        Model.wrap(embedder, space="house", dimensions=2, tier=tier)
        for embedder, tier in zip(PAIRS[kind], ("low", "high"), strict=True)
    ]
    with pytest.raises(ConfigError, match=r"Two embedders are named 'wrapped:.*name='wrapped:small'"):
        Router(declared, cache=MemoryCache())

    models = [replace(model, name=f"own:{model.tier}") for model in declared]
    router = Router(models, cache=MemoryCache(), retry=NO_WAITING)
    for tier in ("low", "high"):
        alone = Router([model for model in models if model.tier == tier], cache=None, retry=NO_WAITING)
        found = embed(router, asynchronous, ["text"], input_type="document", tier=tier)
        assert found.models == (f"own:{tier}",)
        expected = embed(alone, asynchronous, ["text"], input_type="document", tier=tier)
        assert found.vectors.tolist() == expected.vectors.tolist()


@pytest.mark.parametrize("kind", ["lambdas", "LangChain's own", "LlamaIndex's"])
def test_two_embedders_of_one_name_are_refused_in_a_tiered_router(kind: str) -> None:
    """Its routers may share a cache; embedders whose settings differ have different keys."""
    routers = [wrapped(embedder) for embedder in PAIRS[kind]]
    with pytest.raises(ConfigError, match=r"Two embedders are named 'wrapped:"):
        TieredRouter({"low": routers[0], "high": routers[1]})

    TieredRouter({"low": wrapped(Scaled(1)), "high": wrapped(Scaled(2))})
    TieredRouter({"low": routers[0], "high": wrapped(PAIRS[kind][0])})


def test_one_embedder_may_be_wrapped_twice() -> None:
    """At two prices or tiers, say; an object's method is another object each time it is read."""
    item = Scaled(1)
    for one, other in ((item, item), (item.embed_documents, item.embed_documents), (plain, plain)):
        models = [
            Model.wrap(one, space="house", dimensions=2, tier="low"),
            Model.wrap(other, space="house", dimensions=2, tier="high"),
        ]
        assert len(Router(models, cache=None).models) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Scaled(1), Scaled(2)),
        (scaled(1), scaled(2)),
        (DeterministicFakeEmbedding(size=2), DeterministicFakeEmbedding(size=3)),
        (Scaled(1, "a"), Scaled(1, "b")),
        (Scaled(1, query_instruction="ask: "), Scaled(2)),
        (Scaled(1, output_dimension=2), Scaled(2, output_dimension=3)),
        (Scaled(1, "a").embed_documents, Scaled(2, "b").embed_documents),
        (partial(by_model, model="a"), partial(by_model, model="b")),
        (partial(scaled(1), "a"), partial(scaled(2), "b")),
        (of_model("a"), of_model("b")),
    ],
)
def test_another_model_behind_the_same_class_has_other_keys(one: Any, other: Any, tmp_path: Path) -> None:
    """Also where each has a router, or a process, of its own."""
    assert key_of(one) == key_of(one)
    assert key_of(one) != key_of(other)


def test_what_does_not_decide_vectors_keeps_the_cache() -> None:
    """Counters, keys and waits differ from run to run."""
    one, other = (
        Scaled(1, timeout=3, api_key="x", batch_size=8),
        Scaled(1, timeout=4, api_key="y", batch_size=9, model_calls=3),
    )
    one.calls = 7

    assert key_of(one) == key_of(other)


TENANT: ContextVar[str] = ContextVar("tenant", default="nobody")


class OfTenant(Embeddings):
    """Reads whose key to use when it is called."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        time.sleep(0.002)
        self.seen += [(text, TENANT.get()) for text in texts]
        return [[1.0, 2.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


class BackendOfTenant(FakeBackend):
    """A user's own backend that does the same."""

    def __init__(self) -> None:
        super().__init__(dimensions=2)
        self.seen: list[tuple[str, str]] = []

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        time.sleep(0.002)
        self.seen += [(text, TENANT.get()) for text in texts]
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        await asyncio.sleep(0.002)
        self.seen += [(text, TENANT.get()) for text in texts]
        return FakeBackend.embed(self, texts, input_type, timeout=timeout)


@pytest.mark.parametrize("kind", ["an object", "a function", "behind a backend"])
def test_each_call_is_made_in_its_callers_context(kind: str, asynchronous: bool) -> None:
    """Small calls at the same time are sent together only where all context variables are the same."""
    embedder, backend = OfTenant(), BackendOfTenant()
    plain_model = Model.wrap(embedder, space="house", dimensions=2, max_concurrency=2)
    own = backend.model("own:model", space="house", max_concurrency=2)
    models = {
        "an object": [plain_model],
        "a function": [Model.wrap(lambda texts: embedder.embed_documents(texts), space="house", dimensions=2)],
        "behind a backend": [replace(own, price="0"), replace(plain_model, price="1")],
    }[kind]
    router = Router(models, cache=None, retry=NO_WAITING, micro_batch_window=0.02)

    def ask(number: int) -> None:
        TENANT.set(f"tenant {number}")
        router.embed([f"text of tenant {number}"], input_type="query")

    async def ask_async(number: int) -> None:
        TENANT.set(f"tenant {number}")
        await router.aembed([f"text of tenant {number}"], input_type="query")

    async def ask_all() -> None:
        async with router:
            await asyncio.gather(*map(ask_async, range(40)))

    if asynchronous:
        asyncio.run(ask_all())
    else:
        callers = [threading.Thread(target=copy_context().run, args=(ask, number)) for number in range(40)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()

    seen = dict([*embedder.seen, *(item for item in backend.seen if item[1] != "nobody")])
    assert len(seen) == 40
    assert all(text == f"text of {tenant}" for text, tenant in [*embedder.seen, *backend.seen])


@pytest.mark.parametrize(
    "code",
    [
        {"client": openai.AzureOpenAI(api_key="k", base_url="https://x", api_version="2024-10-21")},
        {"async_client": openai.AsyncAzureOpenAI(api_key="k", base_url="https://x", api_version="2024-10-21")},
        {"azure_ad_token_provider": TENANT.get},
    ],
)
def test_code_of_the_users_behind_a_provider_has_the_callers_context_too(code: dict[str, Any]) -> None:
    """A client with hooks, or a function that returns a token, may ask whose call it is."""
    name = "azure_openai:text-embedding-3-small"
    settings = {"base_url": "https://x.openai.azure.com/openai/v1", "deployment": "d"}
    own, plain_one = (
        wiring_of(Router([Model(name, **settings, **given)], cache=None)).candidates[0]  # type: ignore[arg-type]
        for given in (code, {"api_key": "k"})
    )

    assert own.reads_context
    assert not plain_one.reads_context


def test_calls_of_one_context_are_still_sent_together(asynchronous: bool) -> None:
    """Where no context variable differs, what is sent is the same."""
    embedder = OfTenant()
    model = Model.wrap(embedder, space="house", dimensions=2)
    told: list[Event] = []
    router = Router([model], cache=None, retry=NO_WAITING, micro_batch_window=0.05, on_event=told.append)

    async def ask_all() -> None:
        async with router:
            calls = [router.aembed([f"text {n}"], input_type="query", timeout=60 + n) for n in range(40)]
            await asyncio.gather(*calls)

    if asynchronous:
        asyncio.run(ask_all())
    else:
        with ThreadPoolExecutor(40) as pool:
            list(pool.map(lambda n: router.embed([f"text {n}"], input_type="query", timeout=60 + n), range(40)))

    assert router.usage.requests < 20


def key_of(embedder: Any) -> str:
    (model,) = wiring_of(wrapped(embedder)).candidates
    return model.fingerprint


# Presets


@pytest.mark.parametrize(
    ("name", "space", "models", "tiers"),
    [
        ("voyage-4", Space("voyage-4", 1024), ["voyage-4-large", "voyage-4", "voyage-4-lite"], ("low", "high")),
        ("cohere-v5", Space("embed-v5", 2048), ["embed-v5.0-pro", "embed-v5.0-fast"], ("low", "high")),
        ("openai-small", Space("text-embedding-3-small", 1536), ["text-embedding-3-small"], ("high", "high")),
        ("openai-large", Space("text-embedding-3-large", 3072), ["text-embedding-3-large"], ("high", "high")),
        (
            "local",
            Space("sentence-transformers/all-MiniLM-L6-v2", 384),
            ["sentence-transformers/all-MiniLM-L6-v2"],
            ("high", "high"),
        ),
        ("offline", Space("wordllama/l2_supercat_256", 256), ["l2_supercat_256"], ("high", "high")),
    ],
)
def test_presets_are_ready_to_use(name: str, space: Space, models: list[str], tiers: tuple[str, str]) -> None:
    """Families are filled with the best member and asked with the cheapest."""
    router = Router.preset(name, cache=None)

    assert router.space == space
    assert [model.partition(":")[2] for model in router.models] == models
    assert (default_tier(router, "query"), default_tier(router, "document")) == tiers


def test_settings_override_a_preset(tmp_path: Path) -> None:
    """As if the models had been written out."""
    router = Router.preset("voyage-4", dimensions=256, query_tier="medium", cache=tmp_path)

    assert router.space == Space("voyage-4", 256)
    assert default_tier(router, "query") == "medium"


def test_a_local_member_joins_only_with_a_pinned_revision_and_consent() -> None:
    """It runs Python code from the model hub."""
    router = Router.preset("voyage-4", revision="0123abcd", trust_remote_code=True, cache=None)

    assert "sentence-transformers:voyageai/voyage-4-nano" in router.models
    assert router.estimate(["q"], input_type="query").cost == 0
    assert router.estimate(["d"], input_type="document").model == "voyage:voyage-4-large"
    halves: list[dict[str, Any]] = [{"revision": "0123abcd"}, {"trust_remote_code": True}]
    for half in halves:
        with pytest.raises(ConfigError, match="voyage-4-nano"):
            Router.preset("voyage-4", **half)


@pytest.mark.parametrize("name", ["voyage-5", "", "openai"])
def test_an_unknown_preset_is_answered_with_the_known_ones(name: str) -> None:
    """A typing error must not become a default."""
    with pytest.raises(ConfigError, match="voyage-4, cohere-v5, openai-small, openai-large, local, offline"):
        Router.preset(name)


def test_a_local_member_is_for_the_voyage_family() -> None:
    """No other preset has one."""
    with pytest.raises(ConfigError, match="'voyage-4', not 'cohere-v5'"):
        Router.preset("cohere-v5", revision="x", trust_remote_code=True)


def test_with_a_local_member_queries_go_on_when_the_api_and_the_budget_are_gone() -> None:
    """The local stand-in answers at the low tier; a higher one only where degrading is allowed."""
    local, api = FakeBackend(), FakeBackend(outcomes=[UnavailableError("down")] * 50)
    models = [api.model("fake:api", price="1", tier="high"), local.model("fake:local", price="0", tier="low")]
    router = Router(models, query_tier="low", cache=None, retry=NO_WAITING, when_unavailable="degrade")

    assert router.embed(["q"], input_type="query").degraded == (False,)
    with pytest.warns(UserWarning, match="below the requested tier"):
        assert router.embed(["q"], input_type="query", tier="high").models == ("fake:local",)


# Functions and embedders that do not do what a wrapped one does


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda texts: None, "None came back"),
        (lambda texts: "vectors", "str came back"),
        (lambda texts: {"data": texts}, "dict came back"),
        (lambda texts: [1.0] * 4, "4 rows came for 2 texts"),
        (lambda texts: [[1.0] * 4], "1 rows came for 2 texts"),
        (lambda texts: np.ones(4), "4 rows came for 2 texts"),
        (lambda texts: asyncio.sleep(0, texts), "coroutine came back"),
    ],
)
def test_a_function_of_another_form_is_called_once_and_told_the_form(
    function: Any, says: str, asynchronous: bool
) -> None:
    """It is deterministic: another try would give the same."""
    router = Router([Model.wrap(function, space="mine", dimensions=4)], cache=None, ledger=":memory:")
    with pytest.raises(NoModelAvailableError, match=says) as caught:
        embed(router, asynchronous, ["a", "b"], input_type="document")

    assert len(caught.value.attempts) == 1
    assert "[function(text) for text in texts]" in str(caught.value)


def test_vectors_of_another_length_are_told_the_setting(asynchronous: bool) -> None:
    """After one try."""
    model = Model.wrap(lambda texts: [[1.0] * 5 for _ in texts], space="mine", dimensions=4)
    with pytest.raises(NoModelAvailableError, match=r"declare Model\(…, dimensions=5\)") as caught:
        embed(Router([model], cache=None, ledger=":memory:"), asynchronous, ["a"], input_type="document")

    assert len(caught.value.attempts) == 1


def test_a_generator_of_vectors_is_a_list_of_vectors() -> None:
    """What comes is read once."""
    model = Model.wrap(lambda texts: ([1.0] * 4 for _ in texts), space="mine", dimensions=4)
    result = Router([model], cache=None, ledger=":memory:").embed(["a", "b"], input_type="document")

    assert result.vectors.shape == (2, 4)


class OneLoop(Embeddings):
    """As those whose asynchronous client belongs to the event loop of its first call."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.forms: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.forms.append("sync")
        return [[1.0, 2.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.loop = self.loop or asyncio.get_running_loop()
        if self.loop.is_closed():
            try:
                self.loop.call_soon(print)
            except RuntimeError as error:
                raise openai.APIConnectionError(request=None) from error  # type: ignore[arg-type]
        self.forms.append("async")
        return [[1.0, 2.0] for _ in texts]


def test_an_embedder_of_another_event_loop_embeds_synchronously() -> None:
    """With several ``asyncio.run``, where its own client raises that the event loop is closed."""
    embedder = OneLoop()
    router = Router([Model.wrap(embedder, space="mine", dimensions=2)], cache=None, ledger=":memory:")
    for text in "abc":
        result = asyncio.run(router.aembed([text], input_type="document"))
        assert result.vectors.tolist() == [[1.0, 2.0]]

    assert embedder.forms == ["async", "sync", "sync"]
