"""Google: what both places ask for, refuse and bill, beside the SDK itself and beside LangChain's package."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google.auth
import google.auth.credentials
import google.auth.exceptions
import numpy as np
import pytest
from google import genai
from google.genai import types

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    ConfigError,
    InvalidInputError,
    NoModelAvailableError,
    RateLimitedError,
    SpaceMismatchError,
    UnavailableError,
)
from tests.either import embed
from tests.emulator import Emulator, Fault, vector
from tests.emulator.google import exhausted

ONE, TWO, OLD = "gemini-embedding-001", "gemini-embedding-2", "text-embedding-005"
EXCEPTIONS: Any = google.auth.exceptions  # without types
KEY = "AIza-test-7f3a9c2b"
TEXTS = ["the tram stops at the harbour", "a recipe for lentil soup", "日本語のテキスト"]


def developer(emulator: Emulator, name: str = ONE, **settings: Any) -> Model:
    return Model(f"google_genai:{name}", **{"base_url": emulator.google_url, "api_key": KEY, **settings})


def vertex(emulator: Emulator, name: str = ONE, **settings: Any) -> Model:
    return Model(f"google_vertexai:{name}", **{"base_url": emulator.vertex_url, "api_key": KEY, **settings})


def router_of(*models: Model, **settings: Any) -> Router:
    return Router(list(models), **{"cache": None, "retry": RetryPolicy(attempts=1), **settings})


def failure(router: Router, asynchronous: bool, texts: list[str]) -> BackendError:
    with router, pytest.raises((NoModelAvailableError, BackendError)) as caught:
        embed(router, asynchronous, texts, input_type="document")
    error = caught.value
    found = error.attempts[-1].error if isinstance(error, NoModelAvailableError) else error
    assert isinstance(found, BackendError)
    return found


class Credentials(google.auth.credentials.Credentials):
    """Credentials whose token is renewed without a network."""

    def __init__(self, token: str = "token-of-the-project") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.renewed_in: list[str] = []
        self._next = token

    def refresh(self, request: object) -> None:
        self.renewed_in.append(threading.current_thread().name)
        self.token = self._next


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    """Those of the machine."""
    own = Credentials()
    monkeypatch.setattr(google.auth, "default", lambda **_: (own, "own-project"))
    return own


# Requests and answers


@pytest.mark.parametrize("declare", [developer, vertex])
@pytest.mark.parametrize("input_type", ["document", "query"])
def test_gemini_2_is_told_its_task_in_the_text(
    emulator: Emulator, asynchronous: bool, declare: Callable[..., Model], input_type: str
) -> None:
    """It knows no task types; and a list of strings would be one content, which has one vector."""
    prompt = {"document": "title: none | text: ", "query": "task: search result | query: "}[input_type]
    with router_of(declare(emulator, TWO)) as router:
        result = embed(router, asynchronous, TEXTS, input_type=input_type)

    sent = [text for received in emulator.received for text in received.texts]
    assert sorted(sent) == sorted(prompt + text for text in TEXTS)
    assert all(received.input_type is None for received in emulator.received)
    for row, text in zip(result.vectors, TEXTS, strict=True):
        assert np.array_equal(row, vector(TWO, None, None, prompt + text))
    assert emulator.refused == ()


def test_vertex_takes_one_text_of_gemini_a_request(emulator: Emulator, asynchronous: bool) -> None:
    """As documented; several are sent side by side. Each answer says what it bills."""
    with router_of(vertex(emulator)) as router:
        result = embed(router, asynchronous, TEXTS, input_type="document")

    assert [len(received.texts) for received in emulator.received] == [1, 1, 1]
    assert all('"autoTruncate": false' in json.dumps(received.fields) for received in emulator.received)
    assert result.usage.tokens == sum(emulator.billed.values())
    for row, text in zip(result.vectors, TEXTS, strict=True):
        assert np.array_equal(row, vector(ONE, None, "document", text))


def test_vertex_takes_several_where_the_user_says_so(emulator: Emulator, asynchronous: bool) -> None:
    """The answer of a batch has one vector for each text, and the tokens of all."""
    with router_of(vertex(emulator, batch_size=100)) as router:
        result = embed(router, asynchronous, TEXTS, input_type="query")

    assert emulator.calls == 1
    assert result.usage.tokens == sum(emulator.billed.values())
    for row, text in zip(result.vectors, TEXTS, strict=True):
        assert np.array_equal(row, vector(ONE, None, "query", text))


def test_shorter_vectors_are_as_google_gives_them(emulator: Emulator, asynchronous: bool) -> None:
    """Those of gemini-embedding-001 are not of length 1, so none is cut from a longer one."""
    with router_of(developer(emulator, dimensions=768)) as router:
        [row] = embed(router, asynchronous, ["a"], input_type="document").vectors

    assert np.array_equal(row, vector(ONE, 768, "document", "a"))
    assert np.linalg.norm(row) < 0.9
    assert emulator.received[0].dimensions == 768


@pytest.mark.parametrize(("place", "name"), [("google", ONE), ("google", TWO), ("vertex", ONE), ("vertex", OLD)])
def test_requests_are_those_of_the_sdk(emulator: Emulator, asynchronous: bool, place: str, name: str) -> None:
    """The same call made by hand sends the same, and the answers fit the SDK's own types."""
    prompt = "task: search result | query: " if name == TWO else ""
    config = types.EmbedContentConfig(
        task_type=None if prompt else "RETRIEVAL_QUERY",
        output_dimensionality=256,
        auto_truncate=False if place == "vertex" else None,
    )
    url = emulator.google_url if place == "google" else emulator.vertex_url
    client = genai.Client(vertexai=place == "vertex", api_key=KEY, http_options=types.HttpOptions(base_url=url))
    with client, router_of((developer if place == "google" else vertex)(emulator, name, dimensions=256)) as router:
        for texts in (TEXTS[:1], TEXTS):
            emulator.reset()
            vectors = embed(router, asynchronous, texts, input_type="query").vectors
            ours = sent(emulator)
            emulator.reset()
            answered = []
            for batch in [[text] for text in texts] if (place, name) == ("vertex", ONE) else [texts]:
                contents: Any = [types.Content(parts=[types.Part(text=prompt + text)]) for text in batch]
                response = client.models.embed_content(model=name, contents=contents, config=config)
                assert isinstance(response, types.EmbedContentResponse)
                assert response.embeddings
                answered += [item.values for item in response.embeddings]

            assert ours == sent(emulator)
            assert np.array_equal(vectors, np.asarray(answered, np.float32))
            assert emulator.refused == ()


def sent(emulator: Emulator) -> list[tuple[str, str]]:
    """Return the bodies and paths of all requests, in any order."""
    return sorted((json.dumps(one.fields, sort_keys=True), one.path) for one in emulator.received)


def test_langchains_package_gets_the_same_with_more_requests(emulator: Emulator) -> None:
    """It sends the same bodies, but for the role of a single text, and splits by an estimate that is twice as high."""
    langchain = pytest.importorskip("langchain_google_genai")
    texts = [f"{number} " + "word " * 300 for number in range(30)]
    theirs = langchain.GoogleGenerativeAIEmbeddings(model=ONE, api_key=KEY, base_url=emulator.google_url)
    documents, query = theirs.embed_documents(texts), theirs.embed_query("where?")
    calls, bodies = emulator.calls, [contents_of(one.fields) for one in emulator.received]
    emulator.reset()
    with router_of(developer(emulator)) as router:
        own = router.embed(texts, input_type="document").vectors
        own_query = router.embed(["where?"], input_type="query").vectors[0]

    ours = [contents_of(one.fields) for one in emulator.received]
    assert np.array_equal(own, np.asarray(documents, np.float32))
    assert np.array_equal(own_query, np.asarray(query, np.float32))
    assert sorted(json.dumps(one) for body in ours for one in body) == sorted(
        json.dumps(one) for body in bodies for one in body
    )
    assert emulator.calls < calls


def contents_of(fields: Any) -> list[Any]:
    """Return the requests of a batch, without the role, which is ``user`` where it is left out."""
    return [{**one, "content": {"parts": one["content"]["parts"]}} for one in fields["requests"]]


# Spaces


def test_the_two_gemini_models_are_never_mixed() -> None:
    """Google documents that their vectors cannot be compared."""
    with pytest.raises(SpaceMismatchError, match="trained apart"):
        Router([f"google_genai:{ONE}", f"google_genai:{TWO}"])
    with pytest.raises(SpaceMismatchError, match="trained apart"):
        Router([f"google_genai:{ONE}", f"google_vertexai:{TWO}"])


def test_both_places_share_a_space_and_the_cache(emulator: Emulator, tmp_path: Any) -> None:
    """It is the same model; ``gemini:`` is another name of ``google_genai:``."""
    for declared in (developer(emulator), vertex(emulator), Model(f"gemini:{ONE}", base_url="http://127.0.0.1:9")):
        with router_of(declared, cache=tmp_path) as router:
            router.embed(["a"], input_type="document")
    with router_of(developer(emulator), vertex(emulator)) as router:
        assert router.space.name == ONE

    assert emulator.calls == 1


# Refusals


@pytest.fixture(params=[developer, vertex], ids=["developer", "vertex"])
def declare(request: pytest.FixtureRequest) -> Callable[..., Model]:
    return request.param


def test_a_wrong_key_is_no_fault_of_a_text(asynchronous: bool, declare: Callable[..., Model]) -> None:
    """Google says so with a 400, as it refuses texts; the key is not shown."""
    with Emulator(keys={"another"}) as strict:
        error = failure(router_of(declare(strict)), asynchronous, TEXTS)

        assert isinstance(error, AuthenticationError)
        assert "API key not valid" in str(error)
        assert "api_key=" in str(error)
        assert KEY not in str(error)
        assert strict.calls <= len(TEXTS)


def test_a_place_where_google_does_not_serve_is_no_fault_of_a_text(emulator: Emulator, asynchronous: bool) -> None:
    """It is said with a 400."""
    body = {"error": {"code": 400, "message": "User location is not supported for the API use.",
                      "status": "FAILED_PRECONDITION"}}  # fmt: skip
    emulator.script(*[Fault.status(400, body=body)] * 9)

    assert isinstance(failure(router_of(developer(emulator)), asynchronous, TEXTS), AuthenticationError)
    assert emulator.calls == 1


def refuse_with(quota: str, wait: str | None) -> Fault:
    return Fault.status(429, body=exhausted(quota, wait=wait).body.decode())


def test_a_quota_of_the_day_is_not_waited_for(emulator: Emulator, asynchronous: bool) -> None:
    """Although Google names a wait; the next candidate is asked."""
    day = "EmbedContentRequestsPerDayPerUserPerProjectPerModel-FreeTier"
    emulator.script(refuse_with(day, "45s"), refuse_with(day, "45s"))
    error = failure(router_of(developer(emulator)), asynchronous, ["a"])
    with Router([developer(emulator), vertex(emulator)], cache=None) as router:
        result = embed(router, asynchronous, ["a"], input_type="document")

    assert isinstance(error, RateLimitedError)
    assert not error.retryable
    assert result.usage.tokens > 0
    assert [received.provider for received in emulator.received] == ["google", "google", "vertex"]


def test_a_quota_of_the_minute_is_waited_for(emulator: Emulator, asynchronous: bool) -> None:
    """As long as RetryInfo says, wherever it stands in the details."""
    minute = "EmbedContentRequestsPerMinutePerUserPerProjectPerModel-FreeTier"
    body = json.loads(exhausted(minute, wait="17s").body)
    body["error"]["message"] = "Resource has been exhausted (e.g. check quota)."
    emulator.script(Fault.status(429, body=body))
    error = failure(router_of(developer(emulator)), asynchronous, ["a"])

    assert isinstance(error, RateLimitedError)
    assert error.retryable
    assert error.retry_after == 17


@pytest.mark.parametrize("status", [500, 503, 504])
def test_an_overloaded_model_is_tried_again(
    emulator: Emulator, asynchronous: bool, declare: Callable[..., Model], status: int
) -> None:
    """By us: the SDK's own attempts are off."""
    emulator.script(Fault.status(status))
    error = failure(router_of(declare(emulator)), asynchronous, ["a"])

    assert isinstance(error, UnavailableError)
    assert error.retryable
    assert error.status == status
    assert emulator.calls == 1


def test_a_text_that_the_developer_api_may_cut_is_not_sent(emulator: Emulator, asynchronous: bool) -> None:
    """It has no field that forbids cutting, so our own count decides, and the policy for long texts applies."""
    long = "letters " * 2048 + "."
    with (
        router_of(developer(emulator)) as router,
        pytest.raises(InvalidInputError, match="longer than the 2048 tokens"),
    ):
        embed(router, asynchronous, ["short", long], input_type="document")
    with router_of(developer(emulator), on_too_long="truncate") as router:
        result = embed(router, asynchronous, ["short", long], input_type="document")

    assert all(long not in received.texts for received in emulator.received)
    assert result.shortened == (False, True)


@pytest.mark.refused
def test_a_text_that_vertex_refuses_is_shortened_to_the_limit_it_names(emulator: Emulator, asynchronous: bool) -> None:
    """It was told not to cut."""
    with router_of(vertex(emulator, OLD), on_too_long="truncate") as router:
        result = embed(router, asynchronous, ["short", "word " * 2_100], input_type="document")

    assert result.shortened == (False, True)


def test_an_answer_of_other_dimensions_stops(
    emulator: Emulator, asynchronous: bool, declare: Callable[..., Model]
) -> None:
    """No retry changes it."""
    emulator.script(Fault.wrong_dimensions(8))
    error = failure(router_of(declare(emulator)), asynchronous, ["a"])

    assert isinstance(error, BadResponseError)
    assert "8" in str(error)


@pytest.mark.parametrize("body", ["<html><title>Sign in</title></html>", "{", "[]", '{"embeddings": 3}', "{}"])
def test_an_answer_that_is_none_is_said_to_be_none(
    emulator: Emulator, asynchronous: bool, declare: Callable[..., Model], body: str
) -> None:
    """The SDK dies of some with its own exceptions."""
    emulator.script(Fault.status(200, body=body))
    error = failure(router_of(declare(emulator)), asynchronous, ["a"])

    assert isinstance(error, BadResponseError)
    assert "embeddings response" in str(error)


# Who asks, and where


def test_the_sdks_order_of_variables_is_kept(asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """GOOGLE_API_KEY comes before GEMINI_API_KEY; the address is that of the environment."""
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    monkeypatch.setenv("GOOGLE_API_KEY", "first-of-two")
    with Emulator(keys={"first-of-two"}) as strict:
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", strict.google_url)
        with router_of(Model(f"google_genai:{ONE}")) as router:
            embed(router, asynchronous, ["a"], input_type="document")

        assert strict.calls == 1


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"GOOGLE_GENAI_USE_VERTEXAI": "true"}, "vertex"),
        ({"GOOGLE_GENAI_USE_ENTERPRISE": "1"}, "vertex"),
        ({"GOOGLE_GENAI_USE_ENTERPRISE": "false", "GOOGLE_GENAI_USE_VERTEXAI": "true"}, "google"),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "yes"}, "google"),
    ],
)
def test_the_sdks_switch_is_followed(
    emulator: Emulator, asynchronous: bool, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    """With the limits of the other place, and its address."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", emulator.google_url)
    monkeypatch.setenv("GOOGLE_VERTEX_BASE_URL", emulator.vertex_url)
    with router_of(Model(f"google_genai:{ONE}", api_key=KEY)) as router:
        embed(router, asynchronous, TEXTS[:2], input_type="document")

    assert [received.provider for received in emulator.received] == ["vertex"] * 2 if place == "vertex" else ["google"]


def test_vertex_asks_for_a_project_with_the_credentials_of_the_machine(
    asynchronous: bool, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables decide about project and location; a key of the developer API is not sent."""
    monkeypatch.setenv("GOOGLE_API_KEY", "key-of-the-developer-api")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
    with Emulator(keys={"token-of-the-project"}) as strict:
        with router_of(vertex(strict, api_key=None)) as router:
            embed(router, asynchronous, ["a"], input_type="document")

        place = "projects/my-project/locations/europe-west4/publishers/google"
        assert strict.received[0].path.startswith(f"/v1beta1/{place}/models/{ONE}:")


def test_a_token_is_not_renewed_in_the_loops_own_executor(emulator: Emulator, credentials: Credentials) -> None:
    """A program's own tools may be waiting there for this request."""

    async def call() -> None:
        class Full(ThreadPoolExecutor):
            def submit(self, *_: Any, **__: Any) -> Any:
                raise AssertionError("the loop's executor is full")

        asyncio.get_running_loop().set_default_executor(Full())
        async with router_of(vertex(emulator, api_key=None)) as router:
            await router.aembed(["a"], input_type="document")
            await router.aembed(["b"], input_type="document")

    asyncio.run(call())

    assert emulator.calls == 2
    assert len(credentials.renewed_in) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EXCEPTIONS.RefreshError("invalid_grant: secret-token"), AuthenticationError),
        (EXCEPTIONS.RefreshError("busy", retryable=True), UnavailableError),
        (EXCEPTIONS.TransportError("unreachable"), UnavailableError),
    ],
)
def test_credentials_that_cannot_be_renewed(
    emulator: Emulator,
    asynchronous: bool,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[BackendError],
) -> None:
    """Nothing was sent, so nothing is billed; Google's words, which may quote a token, are not shown."""

    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(credentials, "refresh", refuse)
    found = failure(router_of(vertex(emulator, api_key=None)), asynchronous, ["a"])

    assert isinstance(found, kind)
    assert not found.perhaps_billed
    assert "secret-token" not in str(found)
    assert emulator.calls == 0


def test_without_credentials_the_message_says_how_to_get_some(emulator: Emulator, asynchronous: bool) -> None:
    """Of both kinds."""
    error = failure(router_of(vertex(emulator, api_key=None)), asynchronous, ["a"])

    assert isinstance(error, AuthenticationError)
    assert "gcloud auth application-default login" in str(error)
    assert "GOOGLE_API_KEY" in str(error)


def test_a_client_of_the_users_is_used(emulator: Emulator, asynchronous: bool) -> None:
    """``async_client=`` is its ``.aio``, which may use aiohttp; its own attempts are off as well."""

    async def call() -> None:
        own = genai.Client(
            api_key=KEY,
            http_options=types.HttpOptions(
                base_url=emulator.google_url, retry_options=types.HttpRetryOptions(attempts=5, initial_delay=0.01)
            ),
        )
        router = router_of(Model(f"google_genai:{ONE}", client=own, async_client=own.aio))
        emulator.script(Fault.status(503))
        for _ in range(2):
            try:
                if asynchronous:
                    await router.aembed(TEXTS, input_type="document")
                else:
                    await asyncio.to_thread(router.embed, TEXTS, input_type="document")
            except NoModelAvailableError:
                assert emulator.calls == 1
        await router.aclose()
        await own.aio.aclose()
        own.close()

    asyncio.run(call())

    assert emulator.calls == 2


def test_a_client_that_does_not_fit_is_refused(emulator: Emulator) -> None:
    """Before anything is sent."""
    own = genai.Client(api_key=KEY)
    with pytest.raises(ConfigError, match=r"async_client= takes a google\.genai\.Client\(…\)\.aio, not Client\."):
        Router([Model(f"google_genai:{ONE}", async_client=own)])
    with pytest.raises(ConfigError, match=r"client= takes a google\.genai\.Client, not object\."):
        Router([Model(f"google_genai:{ONE}", client=object())])
    with pytest.raises(ConfigError, match=rf"Declare 'google_genai:{ONE}'"):
        Router([Model(f"google_vertexai:{ONE}", client=own)])
    own.close()


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("", "aiplatform.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_the_address_is_that_of_the_location(monkeypatch: pytest.MonkeyPatch, location: str, host: str) -> None:
    """As the SDK has it, for those who ask where their texts go."""
    from embedrouter.models import load_catalogue, resolve
    from embedrouter.providers import address_of, create, describe

    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", location)
    model = Model(f"google_vertexai:{ONE}")
    known = describe(model, load_catalogue(), None)
    backend = create(model, known, resolve(model, known.card, dimensions=None, index=0, rank=0, local=False))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    sdk = genai.Client(vertexai=True, credentials=Credentials(), project="p", location=location or "global")

    assert str(address_of(backend)) == f"https://{host}"
    assert sdk.vertexai
    sdk.close()


def test_names_of_other_libraries_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM says vertex_ai, pydantic-ai google."""
    for wrong, right in (("vertex_ai", "google_vertexai"), ("vertexai", "google_vertexai"), ("google", "google_genai")):
        with pytest.raises(ConfigError, match=rf"Did you mean '{right}:{ONE}'"):
            Router([f"{wrong}:{ONE}"])


@pytest.fixture(autouse=True)
def _no_connection_is_left(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """Sockets that were not closed warn."""
    yield
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]
