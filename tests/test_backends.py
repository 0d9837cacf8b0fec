"""Every provider's backend against a strict emulator on a real socket, in both forms."""

from __future__ import annotations

import asyncio
import base64
import functools
import gc
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    ConfigError,
    InputRejectedError,
    NoModelAvailableError,
    UnavailableError,
)
from embedrouter.models import load_catalogue, resolve
from embedrouter.providers import Backend, create, describe, encoding
from embedrouter.providers._clients import Clients, ssl_context
from embedrouter.testing import NO_WAITING
from tests.either import embed
from tests.emulator import Emulator, Fault, count_tokens, vector

ONCE = RetryPolicy(attempts=1)
KEY = "sk-test-7f3a9"


@dataclass(frozen=True)
class Provider:
    """One provider as a user declares it."""

    model: str
    asymmetric: bool
    url: str
    says_tokens: bool = True
    """Whether answers tell what was billed."""

    def declare(self, emulator: Emulator, **settings: Any) -> Model:
        azure = {"api_version": "2024-10-21"} if self.model.startswith("azure") else {}
        return Model(self.model, **{"base_url": getattr(emulator, self.url), "api_key": KEY, **azure, **settings})

    def router(self, emulator: Emulator, **settings: Any) -> Router:
        return Router([self.declare(emulator, **settings)], cache=None, retry=ONCE)

    def backend(self, emulator: Emulator, **settings: Any) -> Backend:
        model = self.declare(emulator, **settings)
        known = describe(model, load_catalogue(), None)
        candidate = resolve(model, known.card, dimensions=None, index=0, rank=0, local=False, identity=known.identity)
        return create(model, known, candidate)

    def expected(self, text: str, input_type: str, dimensions: int | None = None) -> np.ndarray:
        return vector(self.model.partition(":")[2], dimensions, input_type, text)


PROVIDERS = {
    "openai": Provider("openai:text-embedding-3-small", False, "openai_url"),
    "azure": Provider("azure_openai:text-embedding-3-large", False, "azure_url"),
    "cohere": Provider("cohere:embed-v4.0", True, "cohere_url"),
    "voyage": Provider("voyage:voyage-4-lite", True, "voyage_url"),
    "bedrock": Provider("bedrock:cohere.embed-v4:0", True, "bedrock_url"),
    "google": Provider("google_genai:gemini-embedding-001", True, "google_url", says_tokens=False),
    "vertex": Provider("google_vertexai:text-embedding-005", True, "vertex_url"),
}


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    return PROVIDERS[request.param]


@pytest.fixture(autouse=True)
def _no_request_breaks_a_rule(emulator: Emulator, request: pytest.FixtureRequest) -> Iterator[None]:
    """The emulator is as strict as the vendors; only tests that say so may be refused."""
    yield
    if "refused" not in request.keywords:
        assert emulator.refused == ()


def failure(router: Router, asynchronous: bool, texts: list[str]) -> BackendError:
    """Return the error that one request fails with."""
    with pytest.raises((NoModelAvailableError, BackendError)) as caught:
        embed(router, asynchronous, texts, input_type="document")
    error = caught.value
    if isinstance(error, NoModelAvailableError):
        return error.attempts[-1].error
    assert isinstance(error, BackendError)
    return error


# Answers


@pytest.mark.parametrize("input_type", ["document", "query"])
def test_vectors_are_the_providers_in_order(
    provider: Provider, emulator: Emulator, asynchronous: bool, input_type: str
) -> None:
    """Bit for bit, for documents and for queries."""
    texts = ["first text", "second text", "third"]
    router = provider.router(emulator)
    result = embed(router, asynchronous, texts, input_type=input_type)
    router.close()

    assert result.vectors.dtype == np.float32
    for row, text in zip(result.vectors, texts, strict=True):
        assert np.array_equal(row, provider.expected(text, input_type))


def test_the_bill_is_the_providers(provider: Provider, emulator: Emulator, asynchronous: bool) -> None:
    """Tokens as billed, not as estimated, where they are told."""
    texts = ["a text of some words", "another one"]
    router = provider.router(emulator)
    estimate = router.estimate(texts, input_type="document")
    result = embed(router, asynchronous, texts, input_type="document")
    router.close()

    billed = sum(emulator.billed.values())
    assert result.usage.tokens == (billed if provider.says_tokens else estimate.tokens)
    assert billed == sum(count_tokens(emulator.received[0].provider, text) for text in texts)


def test_dimensions_are_asked_for_and_delivered(provider: Provider, emulator: Emulator, asynchronous: bool) -> None:
    """Under each provider's own name for them; not sent when they are the model's own."""
    router = provider.router(emulator, dimensions=256)
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.received[0].dimensions == 256
    assert np.array_equal(result.vectors[0], provider.expected("a", "document", 256))


def test_the_models_own_dimensions_are_not_sent(provider: Provider, emulator: Emulator, asynchronous: bool) -> None:
    """Older models refuse the parameter."""
    router = provider.router(emulator)
    embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.received[0].fields.get("dimensions") is None
    assert emulator.received[0].fields.get("output_dimension") is None


def test_the_input_type_is_told_in_the_providers_words(emulator: Emulator, asynchronous: bool) -> None:
    """Cohere says search_query, Voyage query, Google RETRIEVAL_QUERY, OpenAI knows no difference."""
    seen = []
    for provider in PROVIDERS.values():
        router = provider.router(emulator)
        for input_type in ("document", "query"):
            embed(router, asynchronous, ["a"], input_type=input_type)
            seen.append(emulator.received[-1].input_type)
        router.close()

    cohere, google = ["search_document", "search_query"], ["RETRIEVAL_DOCUMENT", "RETRIEVAL_QUERY"]
    assert seen == [None] * 4 + [*cohere, "document", "query", *cohere, *google, *google]


def test_providers_are_told_not_to_cut_texts(emulator: Emulator, asynchronous: bool) -> None:
    """They cut silently by default."""
    for name, field, off in (
        ("cohere", "truncate", "NONE"),
        ("voyage", "truncation", False),
        ("bedrock", "truncate", "NONE"),
    ):
        router = PROVIDERS[name].router(emulator)
        embed(router, asynchronous, ["a"], input_type="document")
        router.close()
        assert emulator.received[-1].fields[field] == off


@pytest.mark.parametrize("name", ["openai", "azure", "voyage"])
def test_answers_in_another_order_are_put_right(name: str, emulator: Emulator, asynchronous: bool) -> None:
    """By their index; neither SDK does it."""
    emulator.script(Fault.shuffled())
    router = PROVIDERS[name].router(emulator)
    result = embed(router, asynchronous, ["a", "b", "c"], input_type="document")
    router.close()

    for row, text in zip(result.vectors, "abc", strict=True):
        assert np.array_equal(row, PROVIDERS[name].expected(text, "document"))


@pytest.mark.parametrize("name", ["openai", "azure"])
def test_lists_of_numbers_are_understood_although_base64_was_asked_for(
    name: str, emulator: Emulator, asynchronous: bool
) -> None:
    """Many compatible servers answer so."""
    emulator.script(Fault.floats())
    router = PROVIDERS[name].router(emulator)
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.received[0].fields["encoding_format"] == "base64"
    assert np.array_equal(result.vectors[0], PROVIDERS[name].expected("a", "document"))


@pytest.mark.parametrize("encoding_format", ["float", "omit"])
def test_the_encoding_can_be_chosen(emulator: Emulator, asynchronous: bool, encoding_format: str) -> None:
    """Some compatible servers refuse base64, some the field."""
    router = PROVIDERS["openai"].router(emulator, encoding_format=encoding_format)
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.received[0].fields.get("encoding_format") == (None if encoding_format == "omit" else "float")
    assert np.allclose(result.vectors[0], PROVIDERS["openai"].expected("a", "document"))


@pytest.mark.parametrize(("encoding_format", "asked"), [(None, "base64"), ("float", "float"), ("base64", "base64")])
def test_coheres_encoding_can_be_chosen(
    emulator: Emulator, asynchronous: bool, encoding_format: str | None, asked: str
) -> None:
    """Base64 unless lists are asked for, of which the SDK checks every number."""
    router = PROVIDERS["cohere"].router(emulator, encoding_format=encoding_format)
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.received[0].fields["embedding_types"] == [asked]
    assert np.array_equal(result.vectors[0], PROVIDERS["cohere"].expected("a", "document"))


@pytest.mark.parametrize("embeddings", [[[1.0, 2.0]], "AACAPw==", 3, [], None], ids=repr)
def test_coheres_vectors_without_a_type_are_a_bad_response(
    emulator: Emulator, asynchronous: bool, embeddings: object
) -> None:
    """As its v1 interface gave them; the SDK dies of them with a bare TypeError."""
    emulator.script(Fault.status(200, body={"id": "1", "embeddings": embeddings, "texts": ["a"]}))
    error = failure(router := PROVIDERS["cohere"].router(emulator), asynchronous, ["a"])
    router.close()

    assert isinstance(error, BadResponseError)
    assert "not an embeddings response" in str(error)


@pytest.mark.parametrize("written", ["base64", "float"])
def test_cohere_may_answer_base64_or_lists(emulator: Emulator, asynchronous: bool, written: str) -> None:
    """The format of the answer decides, not the one that was asked for."""
    numbers = PROVIDERS["cohere"].expected("a", "document")
    rows = [base64.b64encode(numbers.tobytes()).decode() if written == "base64" else numbers.tolist()]
    emulator.script(Fault.status(200, body={"id": "1", "embeddings": {written: rows}, "texts": ["a"]}))
    router = PROVIDERS["cohere"].router(emulator)
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert np.array_equal(result.vectors[0], numbers)


def test_without_usage_in_the_answer_our_count_stands(
    provider: Provider, emulator: Emulator, asynchronous: bool
) -> None:
    """An answer is not thrown away because the bill is missing."""
    emulator.script(Fault.no_usage())
    router = provider.router(emulator)
    result = embed(router, asynchronous, ["one two three"], input_type="document")
    router.close()

    assert result.usage.tokens >= 3


# Faults: what follows from each is in test_failures


def test_a_transient_fault_costs_one_more_request(provider: Provider, emulator: Emulator, asynchronous: bool) -> None:
    """The retry loop is ours alone: the SDKs' are off."""
    emulator.script(Fault.unavailable(503), Fault.reset(), None)
    router = Router([provider.declare(emulator)], cache=None, retry=NO_WAITING)
    result = embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.calls == 3
    assert np.array_equal(result.vectors[0], provider.expected("a", "document"))


def test_one_attempt_is_one_request(provider: Provider, emulator: Emulator, asynchronous: bool) -> None:
    """No SDK multiplies it."""
    emulator.script(*[Fault.rate_limited(0.01)] * 10)
    failure(router := provider.router(emulator), asynchronous, ["a"])
    router.close()

    assert emulator.calls == 1


@pytest.mark.refused
def test_an_unknown_model_is_unavailable_and_the_message_says_what_to_check(
    provider: Provider, emulator: Emulator, asynchronous: bool
) -> None:
    """Voyage says so with a 400."""
    served, _, name = provider.model.partition(":")
    name = f"{served}:{name}-no-such-model" if served == "bedrock" else f"{served}:no-such-model"
    declared = Provider(name, provider.asymmetric, provider.url).declare(emulator, space="s", dimensions=8)
    error = failure(router := Router([declared], cache=None, retry=ONCE), asynchronous, ["a"])
    router.close()

    assert isinstance(error, UnavailableError)
    assert not error.retryable
    assert "Check the model's name" in str(error)


@pytest.mark.refused
@pytest.mark.parametrize(("name", "words"), [("cohere", 130_000), ("voyage", 33_000), ("vertex", 2_100)])
def test_an_over_long_text_is_refused_by_the_provider_and_named(
    name: str, words: int, emulator: Emulator, asynchronous: bool
) -> None:
    """Where we can only estimate, the provider decides; never a silent cut."""
    router = PROVIDERS[name].router(emulator)
    with pytest.raises(InputRejectedError) as caught:
        embed(router, asynchronous, ["short", "word " * words], input_type="document")
    router.close()

    assert caught.value.too_long
    assert caught.value.indices == (1,)


@pytest.mark.slow
@pytest.mark.refused
@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_the_policy_for_long_texts_works_where_the_provider_decides(
    emulator: Emulator, asynchronous: bool, policy: str
) -> None:
    """The parts are sent as ordinary texts."""
    router = Router([PROVIDERS["voyage"].declare(emulator)], cache=None, retry=ONCE, on_too_long=policy)  # type: ignore[arg-type]
    result = embed(router, asynchronous, ["short", "word " * 40_000], input_type="document")
    router.close()

    assert result.shortened == (False, True)
    assert np.isclose(np.linalg.norm(result.vectors[1]), 1, atol=1e-5)


@pytest.mark.skipif(encoding("cl100k_base") is None, reason="LlamaIndex ships the vocabulary")
def test_openai_knows_beforehand_that_a_text_is_too_long(emulator: Emulator, asynchronous: bool) -> None:
    """Its tokenizer is at hand, so nothing is sent."""
    router = PROVIDERS["openai"].router(emulator)
    with pytest.raises(ValueError, match="8191 tokens"):
        embed(router, asynchronous, ["word " * 9_000], input_type="document")

    assert emulator.calls == 0


def test_messages_never_quote_a_text(emulator: Emulator, asynchronous: bool) -> None:
    """Validation errors of compatible servers echo the whole input."""
    secret = "the patient's name is Jane Doe"
    emulator.script(Fault.status(422, body={"error": {"message": f"input should be shorter: {secret}"}}))
    error = failure(router := PROVIDERS["openai"].router(emulator), asynchronous, [secret])
    router.close()

    assert "Jane" not in str(error)
    assert "422" in str(error)


# Keys and addresses


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("azure", "AZURE_OPENAI_API_KEY"),
        ("cohere", "CO_API_KEY"),
        ("cohere", "COHERE_API_KEY"),
        ("voyage", "VOYAGE_API_KEY"),
        ("bedrock", "AWS_BEARER_TOKEN_BEDROCK"),
        ("google", "GOOGLE_API_KEY"),
        ("google", "GEMINI_API_KEY"),
        ("vertex", "GOOGLE_API_KEY"),
    ],
)
def test_the_key_comes_from_the_providers_own_variable(
    name: str, variable: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As users of the SDKs have it."""
    monkeypatch.setenv(variable, "right")
    with Emulator(keys={"right"}) as strict:
        router = PROVIDERS[name].router(strict, api_key=None)
        embed(router, asynchronous, ["a"], input_type="document")
        router.close()


def test_a_named_variable_is_the_only_one_read(
    provider: Provider, emulator: Emulator, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A configuration that names one must not fall back on another account's."""
    for variable in (
        "OPENAI_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "CO_API_KEY",
        "VOYAGE_API_KEY",
        "AWS_BEARER_TOKEN_BEDROCK",
        "GOOGLE_API_KEY",
    ):
        monkeypatch.setenv(variable, "another account")
    router = provider.router(emulator, api_key=None, api_key_env="TEAM_KEY")
    with pytest.raises(AuthenticationError, match="TEAM_KEY"):
        embed(router, asynchronous, ["a"], input_type="document")
    monkeypatch.setenv("TEAM_KEY", KEY)
    embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.calls == 1


def test_a_missing_key_is_named_at_the_first_call_that_needs_it(provider: Provider, emulator: Emulator) -> None:
    """Building the router and warm calls need none."""
    router = provider.router(emulator, api_key=None)

    with pytest.raises(AuthenticationError, match=r"[Ss]et (the environment variable [A-Z_]+_API_KEY|AWS_[A-Z_]+ and)"):
        router.embed(["a"], input_type="document")
    assert emulator.calls == 0


def test_an_sdks_own_address_variable_is_not_followed(
    emulator: Emulator, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPENAI_BASE_URL set for another program must not redirect a declared model."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    router = PROVIDERS["openai"].router(emulator)
    embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert emulator.calls == 1


@pytest.mark.parametrize("name", PROVIDERS)
def test_headers_are_sent(name: str, emulator: Emulator, asynchronous: bool) -> None:
    """Gateways ask for some."""
    router = PROVIDERS[name].router(emulator, headers={"X-Team": "search"})
    embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert {name.lower(): value for name, value in emulator.received[0].headers.items()}["x-team"] == "search"


# Azure


def test_azure_calls_the_deployment_by_its_name(asynchronous: bool) -> None:
    """The model's name decides space and price, the deployment's only the address."""
    with Emulator(deployments={"our-embedder": "text-embedding-3-large"}) as azure:
        router = PROVIDERS["azure"].router(azure, deployment="our-embedder")
        result = embed(router, asynchronous, ["a"], input_type="document")
        router.close()

        assert azure.received[0].deployment == "our-embedder"
    assert np.array_equal(result.vectors[0], PROVIDERS["azure"].expected("a", "document"))


def test_azure_takes_a_token_provider_instead_of_a_key(asynchronous: bool) -> None:
    """Microsoft Entra tokens are fetched when needed."""
    with Emulator(keys={"entra-token"}) as azure:
        router = PROVIDERS["azure"].router(azure, api_key=None, azure_ad_token_provider=lambda: "entra-token")
        embed(router, asynchronous, ["a"], input_type="document")
        router.close()


@pytest.mark.parametrize("missing", ["api_version", "base_url"])
def test_azure_needs_an_address_and_a_version(missing: str, emulator: Emulator) -> None:
    """When the router is built."""
    with pytest.raises(ConfigError, match=missing):
        PROVIDERS["azure"].router(emulator, **{missing: None})


# Servers that speak OpenAI's protocol


def compatible(emulator: Emulator, **settings: Any) -> Model:
    given = {"base_url": emulator.openai_url, "api_key": "none", "space": "house", "dimensions": 1536, **settings}
    return Model("openai:house-model", **given)


@pytest.fixture
def _house_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator knows OpenAI's names only, so the declared one is sent as one of those."""
    monkeypatch.setattr(Model, "id", property(lambda self: "text-embedding-3-small"))


@pytest.mark.usefixtures("_house_model")
def test_a_compatible_server_gets_requests_of_its_own_size(emulator: Emulator, asynchronous: bool) -> None:
    """text-embeddings-inference takes 32 texts."""
    router = Router([compatible(emulator, batch_size=32)], cache=None, retry=ONCE)
    embed(router, asynchronous, [f"text {number}" for number in range(70)], input_type="document")
    router.close()

    assert sorted(len(received.texts) for received in emulator.received) == [6, 32, 32]


@pytest.mark.usefixtures("_house_model")
def test_a_compatible_server_that_gives_other_dimensions_is_caught(emulator: Emulator, asynchronous: bool) -> None:
    """Ollama returns its own number, for every number asked for."""
    emulator.script(Fault.wrong_dimensions(1536))
    router = Router([compatible(emulator, dimensions=1024)], cache=None, retry=ONCE)
    error = failure(router, asynchronous, ["a"])
    router.close()

    assert isinstance(error, BadResponseError)
    assert "1536" in str(error)


@pytest.mark.usefixtures("_house_model")
def test_prompts_are_put_before_texts_for_a_compatible_server(emulator: Emulator, asynchronous: bool) -> None:
    """Its protocol has no place for them."""
    model = compatible(emulator, prompts={"query": "query: ", "document": "passage: "})
    router = Router([model], cache=None, retry=ONCE)
    embed(router, asynchronous, ["a"], input_type="query")
    embed(router, asynchronous, ["a"], input_type="document")
    router.close()

    assert [received.texts for received in emulator.received] == [("query: a",), ("passage: a",)]


# Limits of requests


@pytest.mark.parametrize(
    ("name", "most"),
    [("openai", 2048), ("cohere", 96), ("voyage", 1000), ("bedrock", 96), ("google", 100), ("vertex", 250)],
)
def test_requests_hold_as_many_texts_as_the_provider_takes(
    name: str, most: int, emulator: Emulator, asynchronous: bool
) -> None:
    """Neither more, which is refused, nor fewer, which is slow."""
    router = PROVIDERS[name].router(emulator, dimensions=256)
    embed(router, asynchronous, [f"t{number}" for number in range(most + 1)], input_type="document")
    router.close()

    assert sorted(len(received.texts) for received in emulator.received) == [1, most]


def test_requests_keep_the_providers_limit_of_tokens(emulator: Emulator, asynchronous: bool) -> None:
    """300,000 for OpenAI: 60 texts of 7,000 tokens are two requests."""
    router = PROVIDERS["openai"].router(emulator, dimensions=256)
    embed(router, asynchronous, [f"{number} " + "word " * 7_000 for number in range(60)], input_type="document")
    router.close()

    assert emulator.calls == 2


# Clients


def test_a_clients_connections_are_used_again(provider: Provider, emulator: Emulator) -> None:
    """Handshakes cost more than embeddings."""
    router = provider.router(emulator)
    for text in ("a", "b", "c"):
        router.embed([text], input_type="document")
    router.close()
    router.embed(["d"], input_type="document")
    router.close()

    assert emulator.calls == 4


@pytest.mark.slow
def test_closing_a_router_leaves_what_is_under_way_alone(
    provider: Provider, emulator: Emulator, asynchronous: bool
) -> None:
    """It is paid for. The next call, made meanwhile, has a client of its own."""
    emulator.fault_for = lambda _: Fault.slow(0.1)
    backend = provider.backend(emulator)
    answers = []

    async def call(text: str, wait: float) -> None:
        await asyncio.sleep(wait)
        if asynchronous:
            answers.append(await backend.aembed([text], "document", timeout=5))
        else:
            answers.append(await asyncio.to_thread(backend.embed, [text], "document", timeout=5))

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(call(str(number), number * 0.01))
            for _ in range(20):
                await asyncio.sleep(0.01)
                await backend.aclose()
        await backend.aclose()

    asyncio.run(together())

    assert len(answers) == 12
    gc.collect()  # tells of sockets that were not closed


def test_a_client_is_closed_by_the_last_call_that_uses_it() -> None:
    """Closed any earlier, an answer that is paid for would be lost."""
    closed: list[str] = []

    async def aclose() -> None:
        closed.append("async")

    clients = Clients(lambda: (object(), lambda: closed.append("sync")), lambda: (object(), aclose))

    async def asynchronously() -> None:
        async with clients.alease() as first, clients.alease() as second:
            await clients.aclose()
            await clients.aclose()
            assert first is second
            assert closed == ["sync"]
            async with clients.alease() as third:
                assert third is not first
        assert closed == ["sync", "async"]
        await clients.aclose()
        assert closed == ["sync", "async", "async"]

    with clients.lease() as first:
        with clients.lease() as second:
            clients.close()
            clients.close()
        assert first is second
        assert closed == []
    assert closed == ["sync"]
    asyncio.run(asynchronously())


def test_tasks_that_come_first_together_make_one_client() -> None:
    """The second waits until the first has made it in a thread."""
    made: list[object] = []

    async def aclose() -> None:
        """Hold nothing."""

    def make() -> tuple[object, Any]:
        time.sleep(0.05)
        made.append(object())
        return made[-1], aclose

    clients: Clients[object, object] = Clients(lambda: (object(), lambda: None), make)

    async def lease() -> object:
        async with clients.alease() as client:
            return client

    async def together() -> list[object]:
        return await asyncio.gather(*(lease() for _ in range(5)))

    assert set(asyncio.run(together())) == set(made)
    assert len(made) == 1


def test_one_router_serves_one_event_loop_after_another(provider: Provider, emulator: Emulator) -> None:
    """An SDK's client belongs to the loop that first used it."""
    router = provider.router(emulator)

    async def call(text: str) -> None:
        await router.aembed([text], input_type="document")
        await router.aclose()

    for text in ("a", "b", "c"):
        asyncio.run(call(text))

    assert emulator.calls == 3


def test_a_users_own_client_is_used_and_left_open(emulator: Emulator) -> None:
    """It may have proxies and certificates that we know nothing of."""
    import openai

    with openai.OpenAI(api_key=KEY, base_url=emulator.openai_url, max_retries=0) as client:
        router = Router([Model("openai:text-embedding-3-small", client=client)], cache=None)
        router.embed(["a"], input_type="document")
        router.close()

        assert not client.is_closed()
    assert emulator.calls == 1


def test_a_client_that_is_none_of_the_sdks_is_refused_before_anything_is_sent(emulator: Emulator) -> None:
    """And so is one of the other kind."""
    import cohere
    import openai

    common: dict[str, Any] = {"api_key": KEY, "base_url": emulator.openai_url}
    clients = {
        "openai:text-embedding-3-small": (openai.OpenAI(**common), openai.AsyncOpenAI(**common)),
        "cohere:embed-v4.0": (cohere.ClientV2(**common), cohere.AsyncClientV2(**common)),
    }
    for name, (client, async_client) in clients.items():
        Router([Model(name, client=client, async_client=async_client)], cache=None).close()
        for wrong in (object(), async_client):
            with pytest.raises(ConfigError, match=rf" client= takes a \S+, not {type(wrong).__name__}\."):
                Router([Model(name, client=wrong)], cache=None)
        with pytest.raises(ConfigError, match=rf" async_client= takes a \S+, not {type(client).__name__}\."):
            Router([Model(name, async_client=client)], cache=None)
    with pytest.raises(ConfigError, match=r"takes a cohere\.ClientV2, not OpenAI\."):
        Router([Model("cohere:embed-v4.0", client=clients["openai:text-embedding-3-small"][0])], cache=None)


def test_without_a_key_nothing_is_made(asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a client of the SDK's nor an HTTP client, which would read the file of authorities."""
    monkeypatch.delattr("openai.DefaultHttpxClient")
    monkeypatch.delattr("openai.DefaultAsyncHttpxClient")
    router = Router(["openai:text-embedding-3-small"], cache=None)

    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        embed(router, asynchronous, ["a"], input_type="query")


def test_the_file_of_authorities_is_read_once(
    emulator: Emulator, asynchronous: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Reading it takes longer than a request to a server nearby; ``SSL_CERT_FILE`` is followed as the SDKs do."""
    import certifi
    import httpx
    import openai

    below_openai = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])  # httpx before 3
    libraries = {httpx, below_openai}
    authorities = Path(certifi.where()).read_text("ascii").partition("-----END CERTIFICATE-----")
    mine = tmp_path / "authorities.pem"
    mine.write_text("".join(authorities[:2]))
    monkeypatch.setenv("SSL_CERT_FILE", str(mine))
    read = []
    load = ssl.SSLContext.load_verify_locations

    def loaded(*told: Any, **named: Any) -> None:
        read.append(told)
        load(*told, **named)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", loaded)
    for name in ("openai", "azure", "cohere", "google"):
        for _ in range(3):
            router = PROVIDERS[name].router(emulator)
            embed(router, asynchronous, ["a"], input_type="document")
            router.close()

    assert len(read) == len(libraries)
    assert all(len(ssl_context(library).get_ca_certs()) == 1 for library in libraries)
    assert len(read) == len(libraries)


# Tracing


@pytest.mark.parametrize("given", [False, True])
def test_tracing_of_openais_sdk_sees_requests(
    emulator: Emulator, asynchronous: bool, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most tools patch ``Embeddings.create``, some ``OpenAI.request``; both see our client's requests and a user's."""
    import openai
    from openai.resources.embeddings import AsyncEmbeddings, Embeddings

    seen: list[Any] = []

    def patch(owner: Any, name: str, note: Callable[..., object]) -> None:
        before = getattr(owner, name)

        @functools.wraps(before)
        def traced(*told: Any, **named: Any) -> Any:
            seen.append(note(*told, **named))
            return before(*told, **named)

        monkeypatch.setattr(owner, name, traced)

    patch(
        AsyncEmbeddings if asynchronous else Embeddings,
        "create",
        lambda self, **named: (named["model"], named["input"]),
    )
    patch(openai.AsyncOpenAI if asynchronous else openai.OpenAI, "request", lambda self, kind, *_, **__: kind.__name__)
    kind: Any = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    own = kind(api_key=KEY, base_url=emulator.openai_url)
    settings = {"async_client" if asynchronous else "client": own} if given else {}
    router = PROVIDERS["openai"].router(emulator, **settings)

    async def call() -> None:
        async with own, router:
            await router.aembed(["a", "b"], input_type="document")

    if asynchronous:
        asyncio.run(call())
    else:
        with own, router:
            router.embed(["a", "b"], input_type="document")

    assert seen == [("text-embedding-3-small", ["a", "b"]), "CreateEmbeddingResponse"]


def test_tracing_of_coheres_sdk_sees_requests(
    emulator: Emulator, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It patches the client's ``embed``."""
    import cohere

    kind: Any = cohere.AsyncClientV2 if asynchronous else cohere.ClientV2
    embed_ = kind.embed
    seen: list[Any] = []

    def traced(self: Any, **named: Any) -> Any:
        seen.append(named["texts"])
        return embed_(self, **named)

    monkeypatch.setattr(kind, "embed", traced)
    router = PROVIDERS["cohere"].router(emulator)
    embed(router, asynchronous, ["a", "b"], input_type="document")
    router.close()

    assert seen == [["a", "b"]]


def test_all_texts_are_sent_though_tracing_sees_the_first(emulator: Emulator, asynchronous: bool) -> None:
    """The SDK looks at every text that it is given as an argument."""
    texts = [f"text {number}" for number in range(100)]
    router = PROVIDERS["openai"].router(emulator)
    result = embed(router, asynchronous, texts, input_type="document")
    router.close()

    assert emulator.received[0].texts == tuple(texts)
    assert np.array_equal(result.vectors[99], PROVIDERS["openai"].expected("text 99", "document"))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, emulator: Emulator) -> None:
    """At the first call that needs it."""
    import sys

    packages = {"openai": "openai", "cohere": "cohere", "voyage": "httpx", "bedrock": "boto3", "google": "google.genai"}
    for name, package in packages.items():
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ConfigError, match=rf"pip install 'embedrouter\[{name}\]'"):
            PROVIDERS[name].router(emulator).embed(["a"], input_type="document")
