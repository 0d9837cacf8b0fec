"""The emulator is as strict as the makers: against their real SDKs it answers, refuses and fails as they do.

All other tests rely on it. It is shown here that vectors depend on their text alone, that what a maker refuses is
refused, that only what was computed is billed, and that each fault arrives as the SDK would report it in production.
"""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cohere
import cohere.errors
import httpx
import numpy as np
import openai
import pytest
import voyageai
from cohere.core.api_error import ApiError

from tests.emulator import MODELS, Emulator, Fault, Received, Vector, count_tokens, vector

TEXTS = ["the tram stops at the harbour", "a recipe for lentil soup", "日本語のテキスト"]
SMALL, V5, V4 = "text-embedding-3-small", "embed-v5.0-fast", "voyage-4"
VOYAGE: Any = voyageai  # its names are exported without being declared so
VOYAGE_ERROR: Any = VOYAGE.error


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Emulator:
    """One emulator serves the whole module: a reset forgets everything."""
    running.reset()
    return running


@pytest.fixture(scope="module")
def oai(running: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url=running.openai_url, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def azure(running: Emulator) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        api_key="azure-key", azure_endpoint=running.azure_url, api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="module")
def co(running: Emulator) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key="co-key", base_url=running.cohere_url, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def vo(running: Emulator) -> Any:
    return VOYAGE.Client(api_key="vo-key", base_url=running.voyage_url, timeout=10)


@pytest.fixture(scope="module")
def calls(
    oai: openai.OpenAI, azure: openai.AzureOpenAI, co: cohere.ClientV2, vo: Any
) -> dict[str, Callable[[], object]]:
    """One call for each maker that asks for the vectors of two texts."""
    return {
        "openai": lambda: oai.embeddings.create(model=SMALL, input=TEXTS[:2]),
        "azure": lambda: azure.embeddings.create(model=SMALL, input=TEXTS[:2]),
        "cohere": lambda: co.embed(model=V5, input_type="search_query", texts=TEXTS[:2]),
        "voyage": lambda: vo.embed(TEXTS[:2], model=V4),
    }


def same(answered: Any, model: str, dimensions: int | None, role: str | None, texts: list[str]) -> bool:
    """Say whether the vectors agree to the last bit with those that `vector` computes."""
    wanted = np.stack([vector(model, dimensions, role, text) for text in texts])
    return np.array_equal(np.asarray(answered, np.float32), wanted)


# Vectors


def test_vectors_look_like_the_makers() -> None:
    """Unit length, close in a family and never equal, noise between families, apart by role where there are roles."""

    def cosine(one: Vector, other: Vector) -> float:
        return float(one @ other)

    def of(model: str, role: str | None = "query", text: str = TEXTS[0]) -> Vector:
        return vector(model, 1024, role, text)

    for name, row in MODELS.items():
        for dimensions in (None, *(row.dimensions[-3:] if row.scaled else ())):
            assert np.linalg.norm(vector(name, dimensions, "query", "x")) == pytest.approx(1, abs=1e-6)
    for one, other in (("voyage-4", "voyage-4-large"), ("voyage-4", "voyage-4-lite"), ("embed-v5.0-pro", V5)):
        assert 0.93 < cosine(of(one), of(other)) < 0.97
    for other in ("voyage-3.5", "embed-v5.0-pro"):
        assert abs(cosine(of(V4), of(other))) < 0.15
    for model, query, document in ((V4, "query", "document"), (V5, "search_query", "search_document")):
        assert 0.9 < cosine(of(model, query), of(model, document)) < 0.98
    assert np.array_equal(of(SMALL, "query"), of(SMALL, None))


def test_texts_that_share_words_are_near() -> None:
    """A retrieval test may ask which document is nearest and expect the sensible one."""
    query = vector(V4, None, "query", "where do trams stop near the harbour?")
    scores = [float(query @ vector(V4, None, "document", text)) for text in TEXTS]

    assert scores[0] > max(scores[1:]) + 0.2


def test_a_shorter_vector_is_the_start_of_the_longer_one() -> None:
    """Matryoshka: cutting and rescaling at the client gives what the server gives."""
    for model in (SMALL, V5, V4):
        cut = vector(model, MODELS[model].native, None, "tram")[:256]

        np.testing.assert_allclose(cut / np.linalg.norm(cut), vector(model, 256, None, "tram"), atol=1e-6)


# Answers


@pytest.mark.usefixtures("emulator")
def test_answers_of_openai(oai: openai.OpenAI, azure: openai.AzureOpenAI) -> None:
    """A text has one vector in every format, batch and API, and usage is counted as it is billed."""
    raw: Any = oai.embeddings.create(model=SMALL, input="a", encoding_format="base64").data[0].embedding
    floats = oai.embeddings.create(model=SMALL, input="a", encoding_format="float").data[0].embedding
    alone = [oai.embeddings.create(model=SMALL, input=[text]).data[0].embedding for text in TEXTS]
    assert np.array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), vector(SMALL, None, None, "a"))
    assert same([floats], SMALL, None, None, ["a"])
    assert same(alone, SMALL, None, None, TEXTS)
    for client in (oai, azure):
        answer = client.embeddings.create(model=SMALL, input=TEXTS, dimensions=1000)
        assert same([row.embedding for row in answer.data], SMALL, 1000, None, TEXTS)
        assert answer.usage.total_tokens == sum(count_tokens("openai", text) for text in TEXTS)
    assert len(oai.embeddings.create(model=SMALL, input=["a"] * 2048, dimensions=8).data) == 2048


@pytest.mark.usefixtures("emulator")
def test_answers_of_cohere(co: cohere.ClientV2) -> None:
    """Several types in one call, all of the same vectors; the bill is in the body; English models echo lower case."""
    answer = co.embed(model=V5, input_type="search_document", texts=TEXTS, embedding_types=["float", "base64"])
    decoded = [np.frombuffer(base64.b64decode(row), "<f4") for row in answer.embeddings.base64 or []]
    english = co.embed(model="embed-english-v3.0", input_type="search_query", texts=["The Tram"])

    assert same(answer.embeddings.float_, V5, None, "search_document", TEXTS)
    assert same(decoded, V5, None, "search_document", TEXTS)
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.input_tokens == sum(count_tokens("cohere", text) for text in TEXTS)
    assert english.texts == ["the tram"]


@pytest.mark.usefixtures("emulator")
def test_answers_of_voyage(vo: Any) -> None:
    """The SDK asks for base64 by itself and decodes it; null fields, which it always sends, count as absent."""
    answer = vo.embed(TEXTS, model=V4, input_type="document")

    assert same(answer.embeddings, V4, None, "document", TEXTS)
    assert answer.total_tokens == sum(count_tokens("voyage", text) for text in TEXTS)
    assert same(vo.embed(["a"], model=V4, output_dimension=256).embeddings, V4, 256, None, ["a"])


def test_azure_s_deployment_decides(emulator: Emulator) -> None:
    """The name in `model=` is a deployment; the answer names the model behind it, and `/v1` takes OpenAI's client."""
    with (
        Emulator(deployments={"prod-embed": SMALL}) as deployed,
        openai.AzureOpenAI(
            api_key="k", azure_endpoint=deployed.azure_url, api_version="2024-10-21", max_retries=0
        ) as client,
    ):
        answer = client.embeddings.create(model="prod-embed", input=TEXTS)
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model=SMALL, input=TEXTS)
        received = deployed.received[0]
    with openai.OpenAI(api_key="k", base_url=f"{emulator.azure_url}/openai/v1", max_retries=0) as client:
        assert client.embeddings.create(model=SMALL, input="a").model == SMALL

    assert (answer.model, received.deployment, received.model) == (SMALL, "prod-embed", SMALL)
    assert unknown.value.code == "DeploymentNotFound"


# Refusals


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"input": []}, "is invalid"),
        ({"input": ""}, "is invalid"),
        ({"input": ["a", ""]}, "is invalid"),
        ({"input": ["a", 3.5]}, "is invalid"),
        ({"input": ["a"] * 2049}, "is invalid"),
        ({"input": ["harbour " * 9000]}, "maximum context length is 8192 tokens"),
        ({"input": ["harbour " * 8000] * 40}, "max 300000 tokens per request"),
        ({"input": "a", "dimensions": 0}, "less than the minimum of 1"),
        ({"input": "a", "dimensions": 1537}, "less than or equal to 1536"),
        ({"input": "a", "dimensions": "many"}, "not of type 'integer'"),
        ({"input": "a", "model": "text-embedding-ada-002", "dimensions": 1536}, "does not support specifying"),
        ({"input": "a", "encoding_format": "hex"}, "is not one of"),
        ({"input": "a", "extra_body": {"input_type": "query"}}, "Unrecognized request argument supplied"),
    ],
)
def test_openai_refuses(emulator: Emulator, oai: openai.OpenAI, request_: dict[str, Any], message: str) -> None:
    """What the service refuses with 400 must not pass here, or a test would prove nothing."""
    with pytest.raises(openai.BadRequestError, match=message):
        oai.embeddings.create(**{"model": SMALL, **request_})

    assert not emulator.billed
    assert emulator.refused[0].status == 400


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"texts": []}, "at least one text"),
        ({"texts": ["a", ""]}, "empty strings"),
        ({"texts": ["a"] * 97}, "must be at most 96 - received 97"),
        ({"input_type": "document"}, "valid input_type must be provided"),
        ({"embedding_types": ["float64"]}, "embedding_types must be"),
        ({"output_dimension": 1000}, "output_dimension must be one of"),
        ({"model": "embed-multilingual-v3.0", "output_dimension": 512}, "is not supported by model"),
        ({"truncate": "MIDDLE"}, "truncate must be one of"),
    ],
)
def test_cohere_refuses(emulator: Emulator, co: cohere.ClientV2, request_: dict[str, Any], message: str) -> None:
    """As OpenAI does, in Cohere's words."""
    with pytest.raises(cohere.errors.BadRequestError, match=message):
        co.embed(**{"model": V5, "input_type": "search_query", "texts": ["a"], **request_})

    assert not emulator.billed


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"texts": []}, "empty strings or empty lists"),
        ({"texts": ["a", ""]}, "empty strings or empty lists"),
        ({"texts": ["a"] * 1001}, "batch size limit is 1000"),
        ({"model": "voyage-9"}, "Model voyage-9 is not supported"),
        ({"model": SMALL}, "is not supported"),
        ({"input_type": "search_query"}, "argument 'input_type'"),
        ({"output_dimension": 1000}, "argument 'output_dimension'"),
        ({"output_dtype": "int4"}, "argument 'output_dtype'"),
        ({"texts": ["harbour " * 32_001], "truncation": False}, "context window of 32000"),
        ({"texts": ["harbour " * 31_000] * 4, "model": "voyage-4-large"}, "tokens per submitted batch is 120000"),
        ({"texts": ["harbour " * 32_000] * 11}, "tokens per submitted batch is 320000"),
    ],
)
def test_voyage_refuses(emulator: Emulator, vo: Any, request_: dict[str, Any], message: str) -> None:
    """As the others do, in Voyage's words."""
    with pytest.raises(VOYAGE_ERROR.InvalidRequestError, match=message):
        vo.embed(**{"texts": ["a"], "model": V4, **request_})

    assert not emulator.billed


def test_what_the_sdks_cannot_send_is_refused_too(emulator: Emulator, co: cohere.ClientV2) -> None:
    """Floats and foreign names at Voyage, an unknown field at Cohere, Azure without a version or a key."""
    voyage = [
        httpx.post(
            f"{emulator.voyage_url}/embeddings",
            headers={"authorization": "Bearer k"},
            json={"input": "a", "model": V4, **change},
        ).status_code
        for change in ({}, {"encoding_format": "float"}, {"model": "voyage-4-nano"}, {"dimensions": 256})
    ]
    azure = f"{emulator.azure_url}/openai/deployments/{SMALL}/embeddings"
    unversioned = httpx.post(azure, json={"input": "a"}, headers={"api-key": "k"})
    anonymous = httpx.post(azure, json={"input": "a"}, params={"api-version": "v"})
    options: Any = {"additional_body_parameters": {"dimensions": 256}}

    assert voyage == [200, 400, 400, 400]
    assert (unversioned.status_code, anonymous.status_code) == (404, 401)
    with pytest.raises(cohere.errors.UnprocessableEntityError):
        co.embed(model=V5, input_type="search_query", texts=["a"], request_options=options)


def test_unknown_models_and_wrong_keys(oai: openai.OpenAI, co: cohere.ClientV2) -> None:
    """404 and 401, each with the code that the service gives, and a key that is not repeated in full."""
    with pytest.raises(openai.NotFoundError) as unknown:
        oai.embeddings.create(model="text-embedding-4", input="a")
    with pytest.raises(cohere.errors.NotFoundError):
        co.embed(model="embed-english-v2.0", input_type="search_query", texts=["a"])
    with Emulator(keys={"right"}) as strict:
        with (
            openai.OpenAI(api_key="wrong-key-0123456789", base_url=strict.openai_url, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as wrong,
        ):
            client.embeddings.create(model=SMALL, input="a")
        with (
            cohere.ClientV2(api_key="wrong", base_url=strict.cohere_url, max_retries=0) as other,
            pytest.raises(cohere.errors.UnauthorizedError),
        ):
            other.embed(model=V5, input_type="search_query", texts=["a"])
        with pytest.raises(VOYAGE_ERROR.AuthenticationError):
            VOYAGE.Client(api_key="wrong", base_url=strict.voyage_url).embed(["a"], model=V4)

    assert unknown.value.code == "model_not_found"
    assert wrong.value.code == "invalid_api_key"
    assert "wrong-key-0123456789" not in str(wrong.value)


def test_over_long_texts_are_cut_silently(emulator: Emulator, co: cohere.ClientV2, vo: Any) -> None:
    """The default of Cohere and Voyage loses text without a word, and only the kept part is billed."""
    long = " ".join(f"word{i}" for i in range(600))
    call: dict[str, Any] = {"model": "embed-english-v3.0", "input_type": "search_document", "texts": [long]}
    first, last = co.embed(**call), co.embed(**call, truncate="START")
    with pytest.raises(cohere.errors.BadRequestError, match="size limit exceeded by 88 tokens"):
        co.embed(**call, truncate="NONE")
    vo.embed(["harbour " * 32_100], model=V4)

    head, tail = " ".join(long.split()[:512]), " ".join(long.split()[-512:])
    assert same(first.embeddings.float_, "embed-english-v3.0", None, "search_document", [head])
    assert same(last.embeddings.float_, "embed-english-v3.0", None, "search_document", [tail])
    assert emulator.billed == {("cohere", "embed-english-v3.0"): 2 * 512, ("voyage", V4): 32_000}


# Faults


@pytest.mark.parametrize(
    ("provider", "fault", "error"),
    [
        ("openai", Fault.rate_limited(retry_after=0.05), openai.RateLimitError),
        ("openai", Fault.status(401), openai.AuthenticationError),
        ("openai", Fault.status(403), openai.PermissionDeniedError),
        ("openai", Fault.status(404), openai.NotFoundError),
        ("openai", Fault.status(500), openai.InternalServerError),
        ("openai", Fault.unavailable(), openai.InternalServerError),
        ("openai", Fault.reset(), openai.APIConnectionError),
        ("openai", Fault.lost(), openai.APIConnectionError),
        ("openai", Fault.half_body(), openai.APIConnectionError),
        ("azure", Fault.rate_limited(), openai.RateLimitError),
        ("azure", Fault.status(408), openai.APIStatusError),
        ("azure", Fault.status(503), openai.InternalServerError),
        ("cohere", Fault.rate_limited(), cohere.errors.TooManyRequestsError),
        ("cohere", Fault.status(401), cohere.errors.UnauthorizedError),
        ("cohere", Fault.status(500), cohere.errors.InternalServerError),
        ("cohere", Fault.status(529), ApiError),
        ("cohere", Fault.html(), ApiError),
        ("cohere", Fault.reset(), httpx.ReadError),
        ("cohere", Fault.lost(), httpx.ReadError),
        ("cohere", Fault.half_body(), httpx.RemoteProtocolError),
        ("voyage", Fault.rate_limited(), VOYAGE_ERROR.RateLimitError),
        ("voyage", Fault.status(401), VOYAGE_ERROR.AuthenticationError),
        ("voyage", Fault.status(500), VOYAGE_ERROR.ServerError),
        ("voyage", Fault.status(503), VOYAGE_ERROR.ServiceUnavailableError),
        ("voyage", Fault.status(429, body={"message": "a proxy"}), VOYAGE_ERROR.APIError),
        ("voyage", Fault.status(529), AttributeError),
        ("voyage", Fault.html(), VOYAGE_ERROR.APIError),
        ("voyage", Fault.reset(), VOYAGE_ERROR.APIConnectionError),
        ("voyage", Fault.lost(), VOYAGE_ERROR.APIConnectionError),
        ("voyage", Fault.half_body(), VOYAGE_ERROR.APIConnectionError),
        ("voyage", Fault.no_usage(), AttributeError),
    ],
)
def test_faults_arrive_as_the_sdk_reports_them(
    emulator: Emulator, calls: dict[str, Callable[[], object]], provider: str, fault: Fault, error: type[Exception]
) -> None:
    """A fault is worth something only if the SDK reports what it would report in production."""
    emulator.script(fault, None)
    with pytest.raises(error):
        calls[provider]()
    calls[provider]()

    assert emulator.unplayed == ()
    assert not emulator.refused


def test_the_three_429s_of_openai(emulator: Emulator, oai: openai.OpenAI) -> None:
    """Waiting helps with one of them only; the code and the type tell them apart."""
    emulator.script(Fault.rate_limited(retry_after="0.05"), Fault.insufficient_quota(), Fault.request_too_large())
    caught = []
    for _ in range(3):
        with pytest.raises(openai.RateLimitError) as info:
            oai.embeddings.create(model=SMALL, input="a")
        caught.append(info.value)

    assert [(error.code, error.type) for error in caught] == [
        ("rate_limit_exceeded", "requests"),
        ("insufficient_quota", "insufficient_quota"),
        ("rate_limit_exceeded", "tokens"),
    ]
    assert [error.response.headers.get("retry-after") for error in caught] == ["0.05", None, None]


@pytest.mark.parametrize("provider", ["openai", "azure", "cohere", "voyage"])
def test_only_what_was_computed_is_billed(
    emulator: Emulator, calls: dict[str, Callable[[], object]], provider: str
) -> None:
    """A lost answer costs money; a reset before the work, an error and a login page do not."""
    for fault in (Fault.reset(), Fault.status(500), Fault.html(), Fault.lost(), Fault.half_body()):
        emulator.script(fault)
        with pytest.raises(Exception):  # noqa: B017, PT011 - each SDK has its own
            calls[provider]()
    once = sum(count_tokens(provider, text) for text in TEXTS[:2])

    assert sum(emulator.billed.values()) == 2 * once
    assert emulator.calls == 5


def test_spoilt_answers_pass_through_the_sdks(emulator: Emulator, oai: openai.OpenAI, vo: Any) -> None:
    """No SDK counts, orders or checks for us, so a router that did not would show here what users get."""

    def rows(fault: Fault, texts: list[str] = TEXTS, **options: Any) -> Any:
        emulator.script(fault)
        return oai.embeddings.create(model=SMALL, input=texts, **options)

    shuffled = rows(Fault.shuffled()).data
    ordered = sorted(shuffled, key=lambda row: row.index)

    assert len(rows(Fault.wrong_count(-1)).data) == 2
    assert [row.index for row in shuffled] == [2, 1, 0]
    assert same([row.embedding for row in ordered], SMALL, None, None, TEXTS)
    assert isinstance(rows(Fault.floats(), encoding_format="base64").data[0].embedding, list)
    assert np.isnan(rows(Fault.nan()).data[-1].embedding[0])
    assert not np.any(rows(Fault.zeros(), ["a"]).data[0].embedding)
    assert getattr(rows(Fault.no_usage()), "usage", None) is None
    emulator.script(Fault.wrong_dimensions(8), Fault.reported_tokens(0))
    assert len(vo.embed(["a"], model=V4).embeddings[0]) == 8
    assert vo.embed(["a"], model=V4).total_tokens == 0
    assert emulator.billed["voyage", V4] == 2


def test_an_error_in_a_rule_is_not_swallowed() -> None:
    """A broken test must not look like a broken provider."""

    def broken(received: Received) -> Fault | None:
        raise LookupError(received.model)

    def run() -> None:
        with Emulator() as emulator:
            emulator.fault_for = broken
            httpx.post(f"{emulator.openai_url}/embeddings", json={"model": SMALL})

    with pytest.raises(LookupError, match=SMALL):
        run()


# What the emulator tells


def test_requests_are_written_down_without_secrets(emulator: Emulator, vo: Any) -> None:
    """A failing test prints what was received, keys must not be in it; a reset forgets it."""
    vo.embed(TEXTS, model=V4, input_type="query", output_dimension=512)
    received = emulator.received[0]
    emulator.script(None, Fault.status(500))
    emulator.latency = 1
    emulator.reset()

    assert (received.provider, received.model, received.texts) == ("voyage", V4, tuple(TEXTS))
    assert (received.input_type, received.dimensions) == ("query", 512)
    assert received.fields["truncation"] is True
    assert received.headers["content-type"] == "application/json"
    assert "vo-key" not in repr(received)
    assert (emulator.calls, emulator.billed, emulator.unplayed, emulator.latency) == (0, {}, (), 0.0)


def test_concurrency_is_measured(emulator: Emulator, oai: openai.OpenAI) -> None:
    """The peak is exact: an answered request has left before its client can send the next one."""
    emulator.latency = 0.05
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: oai.embeddings.create(model=SMALL, input=f"text {i}"), range(16)))

    assert emulator.peak_in_flight == 4
    assert max(received.in_flight for received in emulator.received) == 4
    assert emulator.calls == 16


def test_a_client_that_gives_up_has_paid_and_nothing_is_left_behind() -> None:
    """The work is done before the answer is late; threads end and the port closes while the answer is still late."""
    before = set(threading.enumerate())
    with Emulator() as emulator, openai.OpenAI(api_key="k", base_url=emulator.openai_url, max_retries=0) as client:
        emulator.script(Fault.slow(30))
        with pytest.raises(openai.APITimeoutError):
            client.embeddings.create(model=SMALL, input="one two", timeout=0.1)
        host, port = emulator.openai_url.split("/")[2].split(":")

    assert emulator.billed == {("openai", SMALL): 2}
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)
