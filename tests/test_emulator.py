"""The emulator against the makers' real SDKs: what they send it accepts, what it answers they understand."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
import time
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
from tests.emulator.tokens import decode

TEXTS = ["the tram stops at the harbour", "a recipe for lentil soup", "日本語のテキスト"]
SMALL, V5, V4 = "text-embedding-3-small", "embed-v5.0-fast", "voyage-4"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture
def oai(emulator: Emulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url=emulator.openai_url, max_retries=0) as client:
        yield client


@pytest.fixture
def azure(emulator: Emulator) -> Iterator[openai.AzureOpenAI]:
    with openai.AzureOpenAI(
        api_key="azure-key", azure_endpoint=emulator.azure_url, api_version="2024-10-21", max_retries=0
    ) as client:
        yield client


@pytest.fixture
def co(emulator: Emulator) -> Iterator[cohere.ClientV2]:
    with cohere.ClientV2(api_key="co-key", base_url=emulator.cohere_url, max_retries=0) as client:
        yield client


@pytest.fixture
def vo(emulator: Emulator) -> voyageai.Client:
    return voyageai.Client(api_key="vo-key", base_url=emulator.voyage_url, timeout=10)


def expected(model: str, dimensions: int | None, role: str | None, texts: list[str]) -> list[Vector]:
    return [vector(model, dimensions, role, text) for text in texts]


def same(answered: list[list[float]], wanted: list[Vector]) -> bool:
    """Say whether the vectors agree to the last bit."""
    return np.array_equal(np.asarray(answered, np.float32), np.stack(wanted))


def cosine(one: Vector, other: Vector) -> float:
    return float(one @ other)


class TestVectors:
    def test_the_batch_does_not_matter(self, oai: openai.OpenAI) -> None:
        """A cache may mix vectors of different batches only if each depends on its text alone."""
        together = [row.embedding for row in oai.embeddings.create(model=SMALL, input=TEXTS).data]
        alone = [oai.embeddings.create(model=SMALL, input=[text]).data[0].embedding for text in TEXTS]

        assert together == alone

    @pytest.mark.parametrize("model", list(MODELS))
    def test_every_vector_has_unit_length(self, model: str) -> None:
        """All four makers normalise, so cosine and dot product agree."""
        row = MODELS[model]
        lengths = [np.linalg.norm(vector(model, n, "query", TEXTS[0])) for n in (None, *list(row.dimensions)[-3:])]

        assert lengths == pytest.approx([1.0] * len(lengths), abs=1e-6)
        assert vector(model, None, None, "x").shape == (row.default,)

    @pytest.mark.parametrize(
        ("one", "other"),
        [("voyage-4", "voyage-4-large"), ("voyage-4", "voyage-4-lite"), ("embed-v5.0-pro", "embed-v5.0-fast")],
    )
    def test_a_family_is_close_but_not_equal(self, one: str, other: str) -> None:
        """Mixing models of one space must work and must be noticed."""
        assert 0.93 < cosine(vector(one, 1024, "query", TEXTS[0]), vector(other, 1024, "query", TEXTS[0])) < 0.97

    @pytest.mark.parametrize("other", ["voyage-3.5", "embed-v5.0-pro"])
    def test_other_families_are_unrelated(self, other: str) -> None:
        """Mixing spaces is the mistake that a router must never make, so it has to look like noise."""
        assert abs(cosine(vector(V4, 1024, "query", TEXTS[0]), vector(other, 1024, "query", TEXTS[0]))) < 0.15

    def test_roles_differ_except_for_openai(self) -> None:
        """Asking as query what was stored as document must change the vector where the maker has roles."""
        for model, query, document in ((V4, "query", "document"), (V5, "search_query", "search_document")):
            assert 0.9 < cosine(vector(model, None, query, "tram"), vector(model, None, document, "tram")) < 0.98
        assert np.array_equal(vector(SMALL, None, "query", "tram"), vector(SMALL, None, None, "tram"))

    def test_shared_words_bring_texts_together(self) -> None:
        """A retrieval test may ask which document is nearest and expect the sensible one."""
        query = vector(V4, None, "query", "where do trams stop near the harbour?")
        scores = [cosine(query, vector(V4, None, "document", text)) for text in TEXTS]

        assert int(np.argmax(scores)) == 0
        assert scores[0] > max(scores[1:]) + 0.2

    def test_a_shorter_vector_is_the_start_of_the_longer_one(self) -> None:
        """Matryoshka: cutting and rescaling at the client gives what the server gives."""
        for model in (SMALL, V5, V4):
            cut = vector(model, MODELS[model].native, None, "tram")[:256]

            np.testing.assert_allclose(cut / np.linalg.norm(cut), vector(model, 256, None, "tram"), atol=1e-6)


class TestOpenAI:
    def test_default_call(self, oai: openai.OpenAI) -> None:
        """The SDK asks for base64 by itself and decodes it."""
        answer = oai.embeddings.create(model=SMALL, input=TEXTS)

        assert same([row.embedding for row in answer.data], expected(SMALL, None, None, TEXTS))
        assert [row.index for row in answer.data] == [0, 1, 2]
        assert answer.usage.total_tokens == sum(count_tokens("openai", text) for text in TEXTS)

    def test_explicit_formats(self, oai: openai.OpenAI) -> None:
        """Base64 asked for by hand stays base64; floats lose no bit on their way through JSON."""
        raw: Any = oai.embeddings.create(model=SMALL, input="a", encoding_format="base64").data[0].embedding
        floats = oai.embeddings.create(model=SMALL, input="a", encoding_format="float").data[0].embedding

        assert np.array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), vector(SMALL, None, None, "a"))
        assert same([floats], expected(SMALL, None, None, ["a"]))

    def test_dimensions(self, oai: openai.OpenAI) -> None:
        """Any length up to the native one."""
        row = oai.embeddings.create(model="text-embedding-3-large", input="a", dimensions=1000).data[0]

        assert same([row.embedding], expected("text-embedding-3-large", 1000, None, ["a"]))

    def test_headers(self, oai: openai.OpenAI) -> None:
        """Rate limits are read from headers of successes, not only of errors."""
        headers = oai.embeddings.with_raw_response.create(model=SMALL, input=["one two"]).headers

        assert headers["x-ratelimit-remaining-tokens"] == str(10_000_000 - 2)
        assert headers["x-request-id"].startswith("req_")

    def test_token_arrays(self, oai: openai.OpenAI) -> None:
        """Some frameworks send token ids; they must give the vector of the text."""
        if decode([15339, 1917]) != "hello world":
            pytest.skip("no copy of cl100k_base on this machine")
        row = oai.embeddings.create(model=SMALL, input=[[15339, 1917]]).data[0]

        assert same([row.embedding], expected(SMALL, None, None, ["hello world"]))

    def test_async(self, emulator: Emulator) -> None:
        """The async SDK takes another road to the same socket."""

        async def embed() -> list[list[float]]:
            async with openai.AsyncOpenAI(api_key="k", base_url=emulator.openai_url, max_retries=0) as client:
                return [row.embedding for row in (await client.embeddings.create(model=SMALL, input=TEXTS)).data]

        assert same(asyncio.run(embed()), expected(SMALL, None, None, TEXTS))

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
    def test_bad_requests(self, emulator: Emulator, oai: openai.OpenAI, request_: dict[str, Any], message: str) -> None:
        """What the service refuses with 400 must not pass here, or a test would prove nothing."""
        with pytest.raises(openai.BadRequestError, match=message):
            oai.embeddings.create(**{"model": SMALL, **request_})

        assert not emulator.billed
        assert emulator.refused[0].status == 400

    def test_the_whole_allowance_is_accepted(self, oai: openai.OpenAI) -> None:
        """The limit itself is inside the limit."""
        assert len(oai.embeddings.create(model=SMALL, input=["a"] * 2048, dimensions=8).data) == 2048

    def test_oversized_requests_have_their_own_code(self, oai: openai.OpenAI) -> None:
        """A client tells "too many tokens in total" from other 400s by the code."""
        with pytest.raises(openai.BadRequestError) as caught:
            oai.embeddings.create(model=SMALL, input=["harbour " * 8000] * 40)

        assert caught.value.code == "max_tokens_per_request"

    def test_unknown_model_and_wrong_key(self, oai: openai.OpenAI) -> None:
        """404 and 401, each with the code that the service gives."""
        with pytest.raises(openai.NotFoundError) as unknown:
            oai.embeddings.create(model="text-embedding-4", input="a")
        with (
            Emulator(keys={"right"}) as strict,
            openai.OpenAI(api_key="wrong-key-0123456789", base_url=strict.openai_url, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as wrong,
        ):
            client.embeddings.create(model=SMALL, input="a")

        assert unknown.value.code == "model_not_found"
        assert wrong.value.code == "invalid_api_key"
        assert "wrong-key-0123456789" not in str(wrong.value)


class TestAzure:
    def test_the_deployment_decides(self) -> None:
        """The name in `model=` is a deployment; the answer names the model behind it."""
        with (
            Emulator(deployments={"prod-embed": SMALL}) as emulator,
            openai.AzureOpenAI(
                api_key="k", azure_endpoint=emulator.azure_url, api_version="2024-10-21", max_retries=0
            ) as client,
        ):
            answer = client.embeddings.create(model="prod-embed", input=TEXTS)
            with pytest.raises(openai.NotFoundError) as unknown:
                client.embeddings.create(model=SMALL, input=TEXTS)

            assert answer.model == SMALL
            assert same([row.embedding for row in answer.data], expected(SMALL, None, None, TEXTS))
            assert unknown.value.code == "DeploymentNotFound"
            assert emulator.billed == {("azure", SMALL): answer.usage.total_tokens}
            assert (emulator.received[0].deployment, emulator.received[0].model) == ("prod-embed", SMALL)

    def test_key_token_and_version(self, emulator: Emulator, azure: openai.AzureOpenAI) -> None:
        """The key travels in `api-key`, an Entra token as bearer; without a version there is no such page."""
        azure.embeddings.create(model=SMALL, input="a")
        with openai.AzureOpenAI(
            azure_ad_token="token", azure_endpoint=emulator.azure_url, api_version="v", max_retries=0
        ) as entra:
            entra.embeddings.create(model=SMALL, input="a")
        url = f"{emulator.azure_url}/openai/deployments/{SMALL}/embeddings"
        unversioned = httpx.post(url, json={"input": "a"}, headers={"api-key": "k"})
        anonymous = httpx.post(url, json={"input": "a"}, params={"api-version": "v"})

        assert (unversioned.status_code, anonymous.status_code) == (404, 401)
        assert anonymous.json()["error"]["code"] == "401"

    def test_v1_route(self, emulator: Emulator) -> None:
        """Azure's newer route takes OpenAI's own client and the deployment in the body."""
        base = f"{emulator.azure_url}/openai/v1"
        with openai.OpenAI(api_key="k", base_url=base, max_retries=0) as client:
            assert client.embeddings.create(model=SMALL, input="a").model == SMALL

    def test_headers(self, azure: openai.AzureOpenAI) -> None:
        """Azure reports what remains and not the limits."""
        headers = azure.embeddings.with_raw_response.create(model=SMALL, input="a").headers

        assert "x-ratelimit-remaining-tokens" in headers
        assert "x-ratelimit-limit-tokens" not in headers


class TestCohere:
    def test_types(self, co: cohere.ClientV2) -> None:
        """Several types in one call, all of the same vectors."""
        types = ["float", "base64", "int8", "uint8", "binary", "ubinary"]
        answer = co.embed(model=V5, input_type="search_document", texts=TEXTS, embedding_types=types)  # type: ignore[arg-type]
        wanted = expected(V5, None, "search_document", TEXTS)
        decoded = [np.frombuffer(base64.b64decode(row), "<f4") for row in answer.embeddings.base64 or []]

        assert same(answer.embeddings.float_ or [], wanted)
        assert np.array_equal(np.stack(decoded), np.stack(wanted))
        assert len((answer.embeddings.int8 or [])[0]) == 2048
        assert len((answer.embeddings.ubinary or [])[0]) == 2048 // 8
        assert answer.texts == TEXTS

    def test_billing_and_headers(self, co: cohere.ClientV2) -> None:
        """The bill is in the body; the header repeats it."""
        raw = co.with_raw_response.embed(model="embed-v4.0", input_type="search_query", texts=TEXTS)
        tokens = sum(count_tokens("cohere", text) for text in TEXTS)

        assert raw.data.meta is not None
        assert raw.data.meta.billed_units is not None
        assert raw.data.meta.billed_units.input_tokens == tokens
        assert raw.headers["num_tokens"] == str(tokens)

    def test_embedding_types_may_be_left_out(self, co: cohere.ClientV2) -> None:
        """The service then answers floats."""
        answer = co.embed(model="embed-v4.0", input_type="search_query", texts=["a"], output_dimension=256)

        assert same(answer.embeddings.float_ or [], expected("embed-v4.0", 256, "search_query", ["a"]))

    def test_english_models_echo_lower_case(self, co: cohere.ClientV2) -> None:
        """So the echoed texts cannot be used to match vectors with inputs."""
        answer = co.embed(model="embed-english-v3.0", input_type="search_query", texts=["The Tram"])

        assert answer.texts == ["the tram"]

    def test_async(self, emulator: Emulator) -> None:
        """The async SDK takes another road to the same socket."""

        async def embed() -> list[list[float]]:
            async with cohere.AsyncClientV2(api_key="k", base_url=emulator.cohere_url, max_retries=0) as client:
                answer = await client.embed(
                    model=V5, input_type="search_query", texts=TEXTS, embedding_types=["float"], output_dimension=512
                )
            return answer.embeddings.float_ or []

        assert same(asyncio.run(embed()), expected(V5, 512, "search_query", TEXTS))

    def test_over_long_texts_are_cut_silently(self, emulator: Emulator, co: cohere.ClientV2) -> None:
        """The default loses text without a word, and only the kept part is billed; NONE refuses instead."""
        long = " ".join(f"word{i}" for i in range(600))
        call = {"model": "embed-english-v3.0", "input_type": "search_document", "texts": [long]}
        first = co.embed(**call).embeddings.float_
        last = co.embed(**call, truncate="START").embeddings.float_
        with pytest.raises(cohere.errors.BadRequestError, match="size limit exceeded by 88 tokens"):
            co.embed(**call, truncate="NONE")

        head, tail = " ".join(long.split()[:512]), " ".join(long.split()[-512:])
        assert same(first or [], expected("embed-english-v3.0", None, "search_document", [head]))
        assert same(last or [], expected("embed-english-v3.0", None, "search_document", [tail]))
        assert emulator.billed["cohere", "embed-english-v3.0"] == 2 * 512

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
    def test_bad_requests(
        self, emulator: Emulator, co: cohere.ClientV2, request_: dict[str, Any], message: str
    ) -> None:
        """What the service refuses with 400 must not pass here, or a test would prove nothing."""
        with pytest.raises(cohere.errors.BadRequestError, match=message):
            co.embed(**{"model": V5, "input_type": "search_query", "texts": ["a"], **request_})

        assert not emulator.billed

    def test_unknown_model_key_and_field(self, co: cohere.ClientV2) -> None:
        """404, 401 and 422, each its own exception."""
        with pytest.raises(cohere.errors.NotFoundError):
            co.embed(model="embed-english-v2.0", input_type="search_query", texts=["a"])
        options: Any = {"additional_body_parameters": {"dimensions": 256}}
        with pytest.raises(cohere.errors.UnprocessableEntityError):
            co.embed(model=V5, input_type="search_query", texts=["a"], request_options=options)
        with (
            Emulator(keys={"right"}) as strict,
            cohere.ClientV2(api_key="wrong", base_url=strict.cohere_url, max_retries=0) as client,
            pytest.raises(cohere.errors.UnauthorizedError),
        ):
            client.embed(model=V5, input_type="search_query", texts=["a"])


class TestVoyage:
    def test_default_call(self, vo: voyageai.Client) -> None:
        """The SDK asks for base64 by itself and decodes it."""
        answer = vo.embed(TEXTS, model=V4, input_type="document")

        assert same(answer.embeddings, expected(V4, None, "document", TEXTS))
        assert answer.total_tokens == sum(count_tokens("voyage", text) for text in TEXTS)

    def test_dimensions_and_no_role(self, vo: voyageai.Client) -> None:
        """Null fields, which the SDK always sends, count as absent."""
        assert same(vo.embed(["a"], model=V4, output_dimension=256).embeddings, expected(V4, 256, None, ["a"]))

    @pytest.mark.parametrize(("dtype", "length"), [("int8", 1024), ("uint8", 1024), ("binary", 128), ("ubinary", 128)])
    def test_quantised_types(self, vo: voyageai.Client, dtype: str, length: int) -> None:
        """The SDK reads integers out of the base64 by the type it asked for."""
        row = vo.embed(["a"], model=V4, output_dtype=dtype).embeddings[0]

        assert len(row) == length
        assert all(isinstance(value, int) for value in row)

    def test_async(self, emulator: Emulator) -> None:
        """The async SDK takes another road (aiohttp) to the same socket."""

        async def embed() -> list[list[float]]:
            client = voyageai.AsyncClient(api_key="k", base_url=emulator.voyage_url, timeout=10)
            return (await client.embed(TEXTS, model="voyage-4-lite", input_type="query")).embeddings  # type: ignore[return-value]

        assert same(asyncio.run(embed()), expected("voyage-4-lite", None, "query", TEXTS))

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
    def test_bad_requests(
        self, emulator: Emulator, vo: voyageai.Client, request_: dict[str, Any], message: str
    ) -> None:
        """What the service refuses with 400 must not pass here, or a test would prove nothing."""
        with pytest.raises(voyageai.error.InvalidRequestError, match=message):
            vo.embed(**{"texts": ["a"], "model": V4, **request_})

        assert not emulator.billed

    def test_float_encoding_and_nano_are_refused(self, emulator: Emulator) -> None:
        """Two things that clients of OpenAI-compatible servers get wrong, out of the SDK's reach."""
        url, headers = f"{emulator.voyage_url}/embeddings", {"authorization": "Bearer k"}
        body = {"input": "a", "model": V4}
        statuses = [
            httpx.post(url, headers=headers, json={**body, **change}).status_code
            for change in ({}, {"encoding_format": "float"}, {"model": "voyage-4-nano"}, {"dimensions": 256})
        ]

        assert statuses == [200, 400, 400, 400]

    def test_truncation_is_silent_by_default(self, emulator: Emulator, vo: voyageai.Client) -> None:
        """Only the kept part is billed."""
        vo.embed(["harbour " * 32_100], model=V4)

        assert emulator.billed["voyage", V4] == 32_000

    def test_wrong_key(self) -> None:
        """401."""
        with Emulator(keys={"right"}) as strict, pytest.raises(voyageai.error.AuthenticationError):
            voyageai.Client(api_key="wrong", base_url=strict.voyage_url).embed(["a"], model=V4)


class TestFaults:
    @pytest.fixture
    def calls(
        self, oai: openai.OpenAI, azure: openai.AzureOpenAI, co: cohere.ClientV2, vo: voyageai.Client
    ) -> dict[str, Callable[[], object]]:
        """One call for each maker that asks for the vectors of two texts."""
        return {
            "openai": lambda: oai.embeddings.create(model=SMALL, input=TEXTS[:2]),
            "azure": lambda: azure.embeddings.create(model=SMALL, input=TEXTS[:2]),
            "cohere": lambda: co.embed(model=V5, input_type="search_query", texts=TEXTS[:2]),
            "voyage": lambda: vo.embed(TEXTS[:2], model=V4),
        }

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
            ("voyage", Fault.rate_limited(), voyageai.error.RateLimitError),
            ("voyage", Fault.status(401), voyageai.error.AuthenticationError),
            ("voyage", Fault.status(500), voyageai.error.ServerError),
            ("voyage", Fault.status(503), voyageai.error.ServiceUnavailableError),
            ("voyage", Fault.status(429, body={"message": "a proxy"}), voyageai.error.APIError),
            ("voyage", Fault.status(529), AttributeError),
            ("voyage", Fault.html(), voyageai.error.APIError),
            ("voyage", Fault.reset(), voyageai.error.APIConnectionError),
            ("voyage", Fault.lost(), voyageai.error.APIConnectionError),
            ("voyage", Fault.half_body(), voyageai.error.APIConnectionError),
            ("voyage", Fault.no_usage(), AttributeError),
        ],
    )
    def test_arrive_as_the_sdk_reports_them(
        self,
        emulator: Emulator,
        calls: dict[str, Callable[[], object]],
        provider: str,
        fault: Fault,
        error: type[Exception],
    ) -> None:
        """A fault is worth something only if the SDK reports what it would report in production."""
        emulator.script(fault, None)
        with pytest.raises(error):
            calls[provider]()
        calls[provider]()

        assert emulator.unplayed == ()
        assert not emulator.refused

    def test_the_three_429s_of_openai(self, emulator: Emulator, oai: openai.OpenAI) -> None:
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

    def test_a_proxy_answers_without_json(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Then the error body is text, and code that expects a dict breaks."""
        emulator.script(Fault.unavailable())
        with pytest.raises(openai.InternalServerError) as caught:
            oai.embeddings.create(model=SMALL, input="a")

        assert not isinstance(caught.value.body, dict)

    @pytest.mark.parametrize("provider", ["openai", "azure", "cohere", "voyage"])
    def test_only_what_was_computed_is_billed(
        self, emulator: Emulator, calls: dict[str, Callable[[], object]], provider: str
    ) -> None:
        """A lost answer costs money; a reset before the work, an error and a login page do not."""
        for fault in (Fault.reset(), Fault.status(500), Fault.html(), Fault.lost(), Fault.half_body()):
            emulator.script(fault)
            with pytest.raises(Exception):  # noqa: B017, PT011 - each SDK has its own
                calls[provider]()
        once = sum(count_tokens(provider, text) for text in TEXTS[:2])

        assert sum(emulator.billed.values()) == 2 * once
        assert emulator.calls == 5

    def test_a_client_that_gives_up_has_paid(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """The work is done before the answer is late."""
        emulator.script(Fault.slow(5))
        with pytest.raises(openai.APITimeoutError):
            oai.with_options(timeout=0.1).embeddings.create(model=SMALL, input="one two")

        assert emulator.billed == {("openai", SMALL): 2}

    def test_wrong_count(self, emulator: Emulator, oai: openai.OpenAI, co: cohere.ClientV2) -> None:
        """No SDK counts for us."""
        emulator.script(Fault.wrong_count(-1), Fault.wrong_count(+1))
        short = oai.embeddings.create(model=SMALL, input=TEXTS)
        long = co.embed(model=V5, input_type="search_query", texts=TEXTS)

        assert (len(short.data), len(long.embeddings.float_ or [])) == (2, 4)

    def test_wrong_values(self, emulator: Emulator, oai: openai.OpenAI, vo: voyageai.Client) -> None:
        """NaN, zeros and another length pass through the SDKs unseen."""
        emulator.script(Fault.nan(), Fault.zeros(), Fault.wrong_dimensions(8), Fault.nan())
        nan = oai.embeddings.create(model=SMALL, input=TEXTS).data[-1].embedding
        zeros = vo.embed(["a"], model=V4).embeddings[0]
        short = vo.embed(["a"], model=V4).embeddings[0]
        text_nan = oai.embeddings.create(model=SMALL, input="a", encoding_format="float").data[0].embedding

        assert np.isnan(nan[0])
        assert np.isnan(text_nan[0])
        assert not np.any(zeros)
        assert len(short) == 8

    def test_shuffled_answers_keep_right_indexes(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """Who trusts the order hands each text the vector of another."""
        emulator.script(Fault.shuffled())
        answer = oai.embeddings.create(model=SMALL, input=TEXTS)
        ordered = sorted(answer.data, key=lambda row: row.index)

        assert [row.index for row in answer.data] == [2, 1, 0]
        assert same([row.embedding for row in ordered], expected(SMALL, None, None, TEXTS))

    def test_floats_although_base64_was_asked(
        self, emulator: Emulator, oai: openai.OpenAI, co: cohere.ClientV2
    ) -> None:
        """Compatible servers do that; a client that always decodes breaks."""
        emulator.script(Fault.floats(), Fault.floats())
        row = oai.embeddings.create(model=SMALL, input="a", encoding_format="base64").data[0]
        answer = co.embed(model=V5, input_type="search_query", texts=["a"], embedding_types=["base64"])

        assert isinstance(row.embedding, list)
        assert answer.embeddings.base64 is None

    def test_usage_missing_or_wrong(self, emulator: Emulator, oai: openai.OpenAI, vo: voyageai.Client) -> None:
        """The bill does not depend on what was reported."""
        emulator.script(Fault.no_usage(), Fault.reported_tokens(0))
        missing = oai.embeddings.create(model=SMALL, input="one two")
        wrong = vo.embed(["one two"], model=V4)

        assert getattr(missing, "usage", None) is None
        assert wrong.total_tokens == 0
        assert emulator.billed == {("openai", SMALL): 2, ("voyage", V4): 2}

    def test_rules_see_the_request(self, emulator: Emulator, oai: openai.OpenAI, vo: voyageai.Client) -> None:
        """One maker can be down while the others work."""
        emulator.fault_for = lambda received: Fault.status(503) if received.provider == "openai" else None
        with pytest.raises(openai.InternalServerError):
            oai.embeddings.create(model=SMALL, input="a")

        assert vo.embed(["a"], model=V4).total_tokens == 1

    def test_an_error_in_a_rule_is_not_swallowed(self) -> None:
        """A broken test must not look like a broken provider."""

        def broken(received: Received) -> Fault | None:
            raise LookupError(received.model)

        def run() -> None:
            with Emulator() as emulator:
                emulator.fault_for = broken
                httpx.post(f"{emulator.openai_url}/embeddings", json={"model": SMALL})

        with pytest.raises(LookupError, match=SMALL):
            run()


class TestObservation:
    def test_requests_are_written_down_without_secrets(self, emulator: Emulator, vo: voyageai.Client) -> None:
        """A failing test prints what was received, keys must not be in it."""
        vo.embed(TEXTS, model=V4, input_type="query", output_dimension=512)
        received = emulator.received[0]

        assert (received.provider, received.model, received.texts) == ("voyage", V4, tuple(TEXTS))
        assert (received.input_type, received.dimensions) == ("query", 512)
        assert received.fields["truncation"] is True
        assert received.headers["content-type"] == "application/json"
        assert "vo-key" not in repr(received)

    def test_concurrency_is_measured(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """The peak is exact: an answered request has left before its client can send the next one."""
        emulator.latency = 0.02
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: oai.embeddings.create(model=SMALL, input=f"text {i}"), range(16)))

        assert emulator.peak_in_flight == 4
        assert max(received.in_flight for received in emulator.received) == 4
        assert emulator.calls == 16

    def test_reset_forgets(self, emulator: Emulator, oai: openai.OpenAI) -> None:
        """One emulator can serve a whole test module."""
        emulator.script(None, Fault.status(500))
        oai.embeddings.create(model=SMALL, input="a")
        emulator.latency = 1
        emulator.reset()

        assert (emulator.calls, emulator.billed, emulator.unplayed, emulator.latency) == (0, {}, (), 0.0)
        assert emulator.peak_in_flight == 0

    def test_connections_are_kept_open_and_quick(self, oai: openai.OpenAI) -> None:
        """A response in two packets would cost 40 ms of delayed acknowledgement each time."""
        oai.embeddings.create(model=SMALL, input="a")
        started = time.perf_counter()
        for _ in range(20):
            oai.embeddings.create(model=SMALL, input="a")

        assert (time.perf_counter() - started) / 20 < 0.03

    def test_nothing_is_left_behind(self) -> None:
        """Threads end and the port closes, even with a client connected and an answer being late."""
        before = set(threading.enumerate())
        with Emulator() as emulator, openai.OpenAI(api_key="k", base_url=emulator.openai_url, max_retries=0) as client:
            emulator.script(Fault.slow(30))
            with pytest.raises(openai.APITimeoutError):
                client.embeddings.create(model=SMALL, input="a", timeout=0.1)
            host, port = emulator.openai_url.split("/")[2].split(":")

        assert set(threading.enumerate()) <= before
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=1)
