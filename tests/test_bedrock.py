"""Amazon Bedrock through boto3: credentials, regions, each maker's bodies, AWS's errors, and the company's network.

The emulator computes each signature again, and botocore's own description of the service is asked whether a request may
be made. What holds for all providers is in ``test_backends``, ``test_secrets``, ``test_poison`` and ``test_fuzz``.
"""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import numpy as np
import pytest
from boto3.session import Session
from botocore.config import Config
from botocore.response import StreamingBody
from botocore.stub import Stubber
from langchain_aws import BedrockEmbeddings

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    ConfigError,
    InputRejectedError,
    NoModelAvailableError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.langchain import RouterEmbeddings
from embedrouter.models import load_catalogue
from embedrouter.testing import NO_WAITING
from tests.company_network import Authority, proxy, redirect, refusing_handshakes, serve, tls
from tests.either import embed
from tests.emulator import Emulator, Fault, vector
from tests.emulator.bedrock import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN

ONCE = RetryPolicy(attempts=1)
TITAN = "bedrock:amazon.titan-embed-text-v2:0"
TITAN_V1 = "bedrock:amazon.titan-embed-text-v1"
NOVA = "bedrock:amazon.nova-2-multimodal-embeddings-v1:0"
V4 = "bedrock:cohere.embed-v4:0"
V3 = "bedrock:cohere.embed-english-v3"
MODELS = (TITAN, TITAN_V1, NOVA, V4, V3)
WORDS = {
    NOVA: ("GENERIC_INDEX", "TEXT_RETRIEVAL"),
    V4: ("search_document", "search_query"),
    V3: ("search_document", "search_query"),
}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the keys that the emulator accepts, and a region; keep the tester's network out."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for variable in (*PROXIES, *map(str.lower, PROXIES), "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[Emulator, Any]]:
    """One emulator and one client for many tests: making a client takes longer than a request."""
    with Emulator() as emulator:
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=emulator.bedrock_url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}),
        )
        yield emulator, client
        client.close()


@pytest.fixture
def shared(standing: tuple[Emulator, Any]) -> tuple[Emulator, dict[str, Any]]:
    """The emulator that stays, with the settings of a model that uses its client."""
    emulator, client = standing
    emulator.reset()
    return emulator, {"base_url": None, "client": client}


def router_of(emulator: Emulator, name: str = TITAN, retry: RetryPolicy = ONCE, **settings: Any) -> Router:
    return Router([Model(name, **{"base_url": emulator.bedrock_url, **settings})], cache=None, retry=retry)


def ask(router: Router, asynchronous: bool = False, texts: list[str] | None = None) -> np.ndarray:
    try:
        return embed(router, asynchronous, texts or ["a text"], input_type="document").vectors
    finally:
        router.close()


def failure(router: Router, asynchronous: bool = False, texts: list[str] | None = None) -> BackendError:
    with pytest.raises((NoModelAvailableError, BackendError)) as caught:
        ask(router, asynchronous, texts)
    error = caught.value
    found = error.attempts[-1].error if isinstance(error, NoModelAvailableError) else error
    assert isinstance(found, BackendError)
    return found


# Each model


@pytest.mark.parametrize("name", MODELS)
def test_documents_and_queries_of_each_model(
    name: str, asynchronous: bool, shared: tuple[Emulator, dict[str, Any]]
) -> None:
    """In the words of its maker, one text in a request or many, and each bill is the provider's."""
    emulator, settings = shared
    texts = ["first text", "second text", "third"]
    for place, input_type in enumerate(("document", "query")):
        router = router_of(emulator, name, **settings)
        emulator.reset()
        result = embed(router, asynchronous, texts, input_type=input_type)
        router.close()

        word = WORDS[name][place] if name in WORDS else None
        assert {received.input_type for received in emulator.received} == {word}
        assert emulator.calls == (1 if name in (V3, V4) else 3)
        assert result.usage.tokens == sum(emulator.billed.values())
        for row, text in zip(result.vectors, texts, strict=True):
            assert np.array_equal(row, vector(name.partition(":")[2], None, word, text))
    assert emulator.refused == ()


@pytest.mark.parametrize(("name", "others"), [(TITAN, (512, 256)), (NOVA, (1024, 384, 256)), (V4, (1024, 512, 256))])
def test_dimensions_of_each_model(name: str, others: tuple[int, ...], shared: tuple[Emulator, dict[str, Any]]) -> None:
    """Under the field of its maker; not sent where they are the model's own."""
    emulator, settings = shared
    for dimensions in others:
        vectors = ask(router_of(emulator, name, dimensions=dimensions, **settings), False)
        assert emulator.received[-1].dimensions == vectors.shape[1] == dimensions
    ask(router_of(emulator, name, **settings), False)

    assert emulator.received[-1].dimensions is None
    assert emulator.refused == ()


@pytest.mark.parametrize("name", [TITAN_V1, V3])
def test_models_of_one_length_are_asked_for_no_other(name: str, emulator: Emulator) -> None:
    """When the router is built."""
    with pytest.raises(ConfigError, match="does not offer 256 dimensions"):
        router_of(emulator, name, dimensions=256)


@pytest.mark.parametrize("name", MODELS)
def test_botocore_finds_requests_valid(name: str, emulator: Emulator) -> None:
    """By its own description of the service: types, lengths, required fields."""
    client = boto3.client("bedrock-runtime", region_name="us-east-1")
    with Stubber(client) as stubber:
        body = json.dumps({"embedding": [1.0], "embeddings": [[1.0]]}).encode()
        answer = StreamingBody(io.BytesIO(body), len(body))
        stubber.add_response("invoke_model", {"body": answer, "contentType": "application/json"})
        failure(router_of(emulator, name, base_url=None, client=client))
        stubber.assert_no_pending_responses()


@pytest.mark.refused
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (TITAN, "word " * 8_300, "Max input tokens: 8192"),
        (TITAN, "x" * 50_001, "expected maxLength: 50000"),
        (NOVA, "word " * 8_300, "too long"),
        (NOVA, "x" * 50_001, "expected maxLength: 50000"),
        (V3, "ab " * 600, "too long"),
        (V3, "x" * 2_049, "expected maxLength: 2048"),
    ],
)
def test_a_text_that_is_too_long_is_refused_and_named(
    name: str, text: str, words: str, asynchronous: bool, shared: tuple[Emulator, dict[str, Any]]
) -> None:
    """By tokens and by characters; never cut."""
    emulator, settings = shared
    router = router_of(emulator, name, **settings)
    with pytest.raises(InputRejectedError, match=words) as caught:
        embed(router, asynchronous, ["short", text], input_type="document")
    router.close()

    assert caught.value.too_long
    assert caught.value.indices == (1,)


@pytest.mark.refused
def test_a_text_that_is_too_long_can_be_shortened(emulator: Emulator) -> None:
    """To the tokens of the model's row."""
    model = Model(V3, base_url=emulator.bedrock_url)
    router = Router([model], cache=None, retry=ONCE, on_too_long="truncate")
    result = router.embed(["short", "wonderful " * 700], input_type="document")
    router.close()

    assert result.shortened == (False, True)


def test_the_estimate_of_a_query_has_the_words_that_nova_puts_before_it(emulator: Emulator) -> None:
    """They are billed, and more than a short query itself."""
    router = router_of(emulator, NOVA)
    estimates = [router.estimate(["Test Nova settings"], input_type=kind) for kind in ("document", "query")]
    billed = router.embed(["Test Nova settings"], input_type="query").usage.tokens
    router.close()

    assert estimates[0].tokens < billed <= estimates[1].tokens


def test_a_text_that_nova_has_cut_all_the_same_is_refused(emulator: Emulator) -> None:
    """Its answers say so, and some report that it cuts texts although it is told not to."""
    row = {"embeddingType": "TEXT", "embedding": [1.0] * 3072, "truncatedCharLength": 12_645}
    emulator.script(Fault.status(200, body={"embeddings": [row]}))
    error = failure(router_of(emulator, NOVA))

    assert isinstance(error, InputRejectedError)
    assert error.too_long
    assert "12645 characters" in str(error)


def test_answers_by_type_and_plain_ones_are_understood(emulator: Emulator) -> None:
    """Cohere's models before v4 answer either, by what is asked for."""
    for embeddings in ({"float": [[1.0] * 1024]}, [[1.0] * 1024]):
        emulator.script(Fault.status(200, body={"embeddings": embeddings}))
        assert ask(router_of(emulator, V3), False).shape == (1, 1024)


def test_cohere_on_bedrock_is_in_the_space_of_cohere(emulator: Emulator) -> None:
    """One index may be searched through either."""
    models = [Model(V4, base_url=emulator.bedrock_url, tier="low"), Model("cohere:embed-v4.0", tier="high")]

    assert Router(models, cache=None).space.name == "embed-v4.0"


# Names


@pytest.mark.parametrize(
    ("name", "deployment"),
    [
        (V4, "us.cohere.embed-v4:0"),
        (V4, "global.cohere.embed-v4:0"),
        (V4, "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.cohere.embed-v4:0"),
        (TITAN, "arn:aws:bedrock:us-east-1::foundation-model/amazon.titan-embed-text-v2:0"),
        (TITAN, "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/otnfa2ysixqd"),
    ],
)
def test_an_inference_profile_is_the_same_model(name: str, deployment: str) -> None:
    """Its name stands percent-encoded in the path; space, price and vectors are the model's."""
    base = name.partition(":")[2]
    with Emulator(deployments={deployment: base} if "application" in deployment else None) as served:
        vectors = ask(router_of(served, name, deployment=deployment))

        assert served.received[0].deployment == deployment
        assert served.refused == ()
    assert np.array_equal(vectors[0], vector(base, None, "search_document" if name == V4 else None, "a text"))


@pytest.mark.parametrize("name", ["us.cohere.embed-v4:0", "global.cohere.embed-v4:0", "arn:aws:bedrock:us-east-1:x"])
def test_a_profile_in_place_of_a_model_gets_the_right_declaration(name: str) -> None:
    """The catalogue knows the model."""
    with pytest.raises(ConfigError, match=rf"Model\('bedrock:[a-z.-]+[\w-]+:0', deployment='{name}'\)"):
        Router([f"bedrock:{name}"], cache=None)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("amazon.titan-embed-image-v1", "embeds images"),
        ("twelvelabs.marengo-embed-3-0-v1:0", "embeds videos"),
        ("us.twelvelabs.marengo-embed-2-7-v1:0", "embeds videos"),
        ("cohere.rerank-v3-5:0", "ranks texts"),
        ("meta.llama3-8b-instruct-v1:0", "bodies of their own"),
    ],
)
def test_models_that_cannot_be_used_are_refused_by_name(name: str, reason: str) -> None:
    """With the reason and another model, or what to pass."""
    with pytest.raises(ConfigError, match=reason):
        Router([Model(f"bedrock:{name}", space="s", dimensions=8)], cache=None)


def test_a_model_that_the_catalogue_does_not_know_is_declared(emulator: Emulator) -> None:
    """Its family decides the body."""
    with pytest.raises(ConfigError, match=r"space=…, dimensions=…"):
        Router(["bedrock:cohere.embed-v9:0"], cache=None)
    model = Model("bedrock:cohere.embed-v9:0", space="v9", dimensions=256, deployment="cohere.embed-v4:0")
    router = Router([model], cache=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", emulator.bedrock_url)
        router.embed([f"text {number}" for number in range(97)], input_type="query")
    router.close()

    assert sorted(len(received.texts) for received in emulator.received) == [1, 96]


@pytest.mark.parametrize("given", ["aws", "amazon_bedrock", "Bedrock"])
def test_other_names_of_the_provider_get_a_suggestion(given: str) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'bedrock:amazon\.titan-embed-text-v2:0'"):
        Router([f"{given}:amazon.titan-embed-text-v2:0"], cache=None)


def test_every_row_has_its_source() -> None:
    """With the day on which it was read."""
    rows = [card for name, card in load_catalogue().items() if name.startswith("bedrock:")]

    assert len(rows) == 6
    assert all(row.source.startswith("https://docs.aws.amazon.com/") and row.checked for row in rows)


# Credentials, regions, clients


def test_temporary_credentials_are_signed_with_their_token(
    asynchronous: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a role, for instance."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)
    ask(router_of(emulator), asynchronous)

    assert emulator.received[0].headers["x-amz-security-token"] == SESSION_TOKEN


def test_a_profile_gives_keys_and_region(
    asynchronous: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As boto3 reads it, and as its command line writes it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / "config").write_text("[profile search]\nregion = eu-central-1\n")
    (tmp_path / "keys").write_text(
        f"[search]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_PROFILE", "search")
    ask(router_of(emulator), asynchronous)

    assert emulator.refused == ()


def called(model: Model, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the host that boto3 would call."""
    hosts: list[str] = []

    def unknown(host: str, *_: Any, **__: Any) -> Any:
        hosts.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        error = failure(Router([model], cache=None, retry=ONCE))
    assert f"({hosts[0]}): the name is unknown" in str(error)
    return hosts[0]


@pytest.mark.parametrize(
    ("settings", "environment", "host"),
    [
        ({}, {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-west-2"}, "bedrock-runtime.eu-west-1.amazonaws.com"),
        ({}, {"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-west-2"}, "bedrock-runtime.us-west-2.amazonaws.com"),
        (
            {"base_url": "https://bedrock-runtime.ap-south-1.amazonaws.com"},
            {"AWS_REGION": ""},
            "bedrock-runtime.ap-south-1.amazonaws.com",
        ),
        ({}, {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "https://bedrock.corp.invalid"}, "bedrock.corp.invalid"),
        ({}, {"AWS_ENDPOINT_URL": "https://aws.corp.invalid"}, "aws.corp.invalid"),
    ],
)
def test_the_address_follows_the_region(
    settings: dict[str, Any], environment: dict[str, str], host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_REGION goes first, as in AWS's other SDKs; an address that names a region needs no other setting."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    assert called(Model(TITAN, **settings), monkeypatch) == host


@pytest.mark.parametrize(
    ("environment", "kind", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, AuthenticationError, "no AWS credentials were found"),
        ({"AWS_SECRET_ACCESS_KEY": ""}, AuthenticationError, "only a part of the credentials"),
        ({"AWS_REGION": ""}, ConfigError, "no region is set. Set AWS_REGION"),
        ({"AWS_PROFILE": "nobody"}, ConfigError, "no profile 'nobody'"),
        ({"AWS_REGION": "not a region"}, ConfigError, "AWS_REGION"),
        ({"AWS_CA_BUNDLE": "/no/such/file"}, ConfigError, "AWS_CA_BUNDLE"),
    ],
)
def test_what_is_missing_is_named(
    environment: dict[str, str],
    kind: type[Exception],
    words: str,
    asynchronous: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the first call, before anything is sent."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(kind, match=words):
        ask(Router([TITAN], cache=None, retry=ONCE), asynchronous)


def test_an_expired_sign_on_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a profile with single sign-on and no token."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "sso")
    (tmp_path / "config").write_text(
        "[profile sso]\nsso_start_url = https://sso.invalid/start\nsso_region = us-east-1\nsso_account_id = 1\n"
        "sso_role_name = r\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    error = failure(Router([TITAN], cache=None, retry=ONCE))

    assert isinstance(error, AuthenticationError)
    assert "aws sso login" in str(error)


def test_an_api_key_is_sent_in_place_of_a_signature(asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument it takes precedence over the variable of boto3; neither keys nor a region are needed."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "another")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    with Emulator(keys={"right"}) as strict:
        ask(router_of(strict, api_key="right"), asynchronous)
        error = failure(router_of(strict), asynchronous)

    assert isinstance(error, AuthenticationError)
    assert "Check the API key (AWS_BEARER_TOKEN_BEDROCK)" in str(error)
    assert "region" in str(error)


@pytest.mark.refused
@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_ACCESS_KEY_ID", "AKIAWRONG"), ("AWS_SECRET_ACCESS_KEY", "wrong")]
)
def test_wrong_keys_are_said_and_not_shown(
    variable: str, value: str, asynchronous: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Next model, no retry."""
    monkeypatch.setenv(variable, f"{value}0123456789")
    error = failure(router_of(emulator, retry=NO_WAITING), asynchronous)

    assert isinstance(error, AuthenticationError)
    assert "AWS_ACCESS_KEY_ID" in str(error)
    assert not any(secret in repr((error, error.__cause__)) for secret in (value, SECRET_KEY, ACCESS_KEY))
    assert emulator.calls == 1


def test_a_users_own_client_serves_both_forms_and_stays_open(asynchronous: bool, emulator: Emulator) -> None:
    """With its own region, keys, retries and time limits."""
    client = boto3.client("bedrock-runtime", region_name="eu-central-1", endpoint_url=emulator.bedrock_url)
    for _ in range(2):
        ask(Router([Model(TITAN, client=client)], cache=None), asynchronous)

    assert emulator.calls == 2


def test_clients_of_other_kinds_are_refused() -> None:
    """When the router is built, with the reason."""
    other = boto3.client("s3", region_name="us-east-1")
    own = boto3.client("bedrock-runtime", region_name="us-east-1")
    for wrong in (object(), other):
        with pytest.raises(ConfigError, match="client= takes a boto3 client of 'bedrock-runtime'"):
            Router([Model(TITAN, client=wrong)], cache=None)
    with pytest.raises(ConfigError, match="boto3 has no asynchronous client"):
        Router([Model(TITAN, async_client=own)], cache=None)
    with pytest.raises(ConfigError, match="headers= cannot be added"):
        Router([Model(TITAN, client=own, headers={"X-Team": "search"})], cache=None)


def test_a_copy_that_lost_its_key_uses_no_other(emulator: Emulator) -> None:
    """The credentials of the environment may be another account's."""
    ways: list[dict[str, Any]] = [
        {"api_key": "k"},
        {"client": boto3.client("bedrock-runtime", region_name="us-east-1")},
    ]
    for settings in ways:
        copy = pickle.loads(pickle.dumps(Model(TITAN, base_url=emulator.bedrock_url, **settings)))
        error = failure(Router([copy], cache=None, retry=ONCE))

        assert isinstance(error, AuthenticationError)
        assert "api_key_env" in str(error)
    assert emulator.calls == 0


def test_clients_are_made_as_declared(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without retries of the SDK's, with the declared time limit, and as many connections as requests at once."""
    made: list[Config] = []
    client = Session.client

    def noted(self: Any, *told: Any, config: Config, **named: Any) -> Any:
        made.append(config)
        return client(self, *told, config=config, **named)

    monkeypatch.setattr(Session, "client", noted)
    ask(router_of(emulator, timeout=7, max_concurrency=100), False)
    config: Any = made[0]

    assert config.retries["total_max_attempts"] == 1
    assert (config.connect_timeout, config.read_timeout, config.max_pool_connections) == (7, 7, 100)


def test_many_tasks_make_one_client_and_none_on_the_event_loop(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Making one reads files; all of one process share it, whatever the loop."""
    threads: list[str] = []
    client = Session.client

    def noted(self: Any, *told: Any, **named: Any) -> Any:
        threads.append(threading.current_thread().name)
        return client(self, *told, **named)

    monkeypatch.setattr(Session, "client", noted)
    router = router_of(emulator)

    async def at_once() -> None:
        await asyncio.gather(*(router.aembed([f"text {place}"], input_type="query") for place in range(8)))

    asyncio.run(at_once())
    asyncio.run(at_once())
    router.close()

    assert threads == ["embedrouter"]


# Errors


def aws(status: int, kind: str, message: str) -> Fault:
    return Fault.status(status, body={"message": message}, headers={"x-amzn-errortype": f"{kind}:http://internal/"})


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "words"),
    [
        (aws(429, "ThrottlingException", "Too many requests"), RateLimitedError, True, "quota"),
        (
            aws(429, "ThrottlingException", "Too many tokens, please wait before trying again."),
            RateLimitedError,
            True,
            "",
        ),
        (aws(400, "ServiceQuotaExceededException", "Over the quota."), RateLimitedError, True, "Service Quotas"),
        (aws(429, "ModelNotReadyException", "The model is not ready."), UnavailableError, True, "not ready"),
        (aws(408, "ModelTimeoutException", "Model has timed out."), RequestTimeoutError, True, "timed out"),
        (aws(424, "ModelErrorException", "The model failed."), UnavailableError, True, "failed"),
        (aws(500, "InternalServerException", "Internal."), UnavailableError, True, "Internal"),
        (aws(503, "ServiceUnavailableException", "Unavailable."), UnavailableError, True, "Unavailable"),
        (
            aws(403, "AccessDeniedException", "You don't have access."),
            AuthenticationError,
            False,
            "bedrock:InvokeModel",
        ),
        (aws(400, "ValidationException", "Operation not allowed"), AuthenticationError, False, "console"),
        (aws(403, "ExpiredTokenException", "Expired."), AuthenticationError, False, "renew the credentials"),
        (aws(400, "IncompleteSignature", "Incomplete."), AuthenticationError, False, "credentials"),
        (aws(404, "ResourceNotFoundException", "Not found."), UnavailableError, False, "AWS_REGION"),
        (
            aws(400, "ValidationException", "The provided model identifier is invalid."),
            UnavailableError,
            False,
            "the region (AWS_REGION)",
        ),
        (
            aws(400, "ValidationException", "Invocation of model ID x with on-demand throughput isn’t supported."),
            UnavailableError,
            False,
            "deployment=, such as 'us.amazon.titan-embed-text-v2:0'",
        ),
        (
            aws(400, "ValidationException", "Malformed input request: #: extraneous key [dimensions] is not permitted"),
            UnavailableError,
            False,
            "extraneous",
        ),
        (Fault.unavailable(502), UnavailableError, True, "502"),
        (Fault.html(), BadResponseError, None, "not an embeddings response"),
        (Fault.status(200, body={"embedding": "x"}), BadResponseError, None, ""),
        (Fault.status(200, body={"message": "Sorry"}), BadResponseError, None, "Sorry"),
        (Fault.status(200, body="{broken"), BadResponseError, None, ""),
        (Fault.wrong_dimensions(8), BadResponseError, None, "vectors of 8 dimensions"),
        (Fault.nan(), InputRejectedError, None, "not finite"),
        (Fault.reset(), UnavailableError, True, "connection broke"),
        (Fault.half_body(), UnavailableError, True, "connection broke"),
    ],
)
def test_each_error_becomes_one_of_ours(
    fault: Fault,
    kind: type[BackendError],
    retryable: bool | None,
    words: str,
    asynchronous: bool,
    shared: tuple[Emulator, dict[str, Any]],
) -> None:
    """With the host, the reason and what to do."""
    emulator, settings = shared
    emulator.script(fault)
    error = failure(router_of(emulator, **settings), asynchronous)

    assert type(error) is kind, repr(error)
    assert retryable is None or error.retryable is retryable
    assert words in str(error)
    assert emulator.calls == 1


def test_an_outage_is_over_after_a_retry(asynchronous: bool, emulator: Emulator) -> None:
    """The retry loop is the package's alone."""
    emulator.script(Fault.unavailable(503), aws(429, "ThrottlingException", "Too many requests"), Fault.reset(), None)
    ask(router_of(emulator, retry=NO_WAITING), asynchronous)

    assert emulator.calls == 4


def test_an_answer_that_takes_too_long_is_given_up(emulator: Emulator) -> None:
    """The limit is the attempt's."""
    emulator.script(Fault.slow(1))
    error = failure(router_of(emulator, timeout=0.2))

    assert isinstance(error, RequestTimeoutError)
    assert error.perhaps_billed


def test_an_answer_without_end_is_cut_off(emulator: Emulator) -> None:
    """Its size follows from the texts and the dimensions."""
    emulator.script(Fault.status(200, body=b" " * (5 * 2**20)))
    error = failure(router_of(emulator))

    assert isinstance(error, BadResponseError)
    assert "more than" in str(error)


def test_keys_and_texts_in_aws_words_are_not_shown(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused signature comes back with what was signed."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)
    text = "the patient's name is Jane Doe"
    said = f"The canonical string was 'x-amz-security-token:{SESSION_TOKEN} of wJalrXUtnFEMIK7MDENGbPxRfiCY9EXAMPLEKEY'"
    for kind, message in (("InvalidSignatureException", said), ("ValidationException", f"cannot embed {text!r}")):
        emulator.script(aws(403 if "Signature" in kind else 400, kind, message))
        error = failure(router_of(emulator), False, [text])
        shown = repr((error, error.__cause__))

        assert not any(secret in shown for secret in (SESSION_TOKEN, "wJalr", "Jane", SECRET_KEY))


# The company's network


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not here")
    made = Authority.create(tmp_path_factory.mktemp("authority") / "company")
    made.issue("right", "DNS:localhost,IP:127.0.0.1,DNS:api.company.test")
    made.issue("other", "DNS:other.company.test")
    return made


@pytest.fixture
def secured(emulator: Emulator, authority: Authority) -> Iterator[Callable[[str], Any]]:
    """Serve the emulator over TLS, with a certificate of this name."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        port = urlsplit(emulator.bedrock_url).port or 0
        yield lambda certificate: stack.enter_context(tls(authority.folder / f"{certificate}.pem", port))


@pytest.mark.slow
def test_the_companys_authority_is_boto3s(
    emulator: Emulator,
    authority: Authority,
    secured: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE; without either the message names the former."""
    url = f"https://127.0.0.1:{secured('right').port}/bedrock-api"
    error = failure(router_of(emulator, base_url=url))
    for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(authority.file))
            ask(router_of(emulator, base_url=url))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    other = failure(router_of(emulator, base_url=f"https://127.0.0.1:{secured('other').port}/x"))

    assert not any((error.retryable, error.perhaps_billed, other.retryable, other.perhaps_billed))
    assert "certificate is not trusted" in str(error)
    assert "set AWS_CA_BUNDLE" in str(error)
    assert "certificate is for another name" in str(other)
    assert emulator.calls == 2


@pytest.mark.slow
def test_requests_go_through_the_proxy(
    emulator: Emulator,
    authority: Authority,
    secured: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its user and password; a refusal is named, and the password is not."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    settings: dict[str, Any] = {"base_url": "https://api.company.test/bedrock-api"}
    with proxy(secured("right").port, sign_in="Proxy-Authorization: Basic dXNlcjpwYXNz") as way:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:pass@127.0.0.1:{way.port}")
        ask(router_of(emulator, **settings))
        assert emulator.calls == 1
    for refusal, retryable in (("407 Proxy Authentication Required", False), ("502 Bad Gateway", True)):
        with proxy(0, refusal) as way:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:hidden-word@127.0.0.1:{way.port}")
            error = failure(router_of(emulator, **settings))
        assert f"the proxy refused the connection ({refusal})" in str(error)
        assert error.retryable is retryable
        assert not error.perhaps_billed
        assert "hidden-word" not in repr((error, error.__cause__))
    gone = failure(router_of(emulator, **settings))
    assert "Check the proxy in HTTPS_PROXY" in str(gone)


def test_what_keeps_a_connection_from_being_made_is_said(emulator: Emulator) -> None:
    """A closed port, a handshake that is refused, a redirect: nothing is sent elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    closed = failure(router_of(emulator, base_url=f"http://127.0.0.1:{port}"))
    with serve(refusing_handshakes) as server:
        refused = failure(router_of(emulator, base_url=f"https://127.0.0.1:{server.port}"))
    with redirect(307, emulator.bedrock_url) as server:
        moved = failure(router_of(emulator, base_url=f"http://127.0.0.1:{server.port}"))

    assert f"(127.0.0.1:{port}): no program listens on that port" in str(closed)
    assert "handshake was refused" in str(refused)
    assert not any((closed.perhaps_billed, refused.perhaps_billed))
    assert "Set base_url" in str(moved)
    assert emulator.calls == 0


# Beside LangChain's own embedder


def langchain(name: str, client: Any) -> BedrockEmbeddings:
    return BedrockEmbeddings(model_id=name.partition(":")[2], client=client, region_name="us-east-1")


def client_of(emulator: Emulator) -> Any:
    return boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=emulator.bedrock_url)


TEXTS = [f"text number {number}" for number in range(24)]
OURS = {V4: {"truncate": "NONE"}, V3: {"truncate": "NONE"}}
"""Fields that LangChain's embedder leaves out: without this one Cohere's models cut texts."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [TITAN, TITAN_V1, V4, V3])
def test_the_same_bodies_and_vectors_as_langchains_embedder(
    name: str, asynchronous: bool, shared: tuple[Emulator, dict[str, Any]]
) -> None:
    """For documents and for a query, in no more requests."""
    emulator, settings = shared
    theirs = langchain(name, settings["client"])
    expected = [*theirs.embed_documents(TEXTS), theirs.embed_query("a question")]
    sent = [json.dumps(received.fields, sort_keys=True) for received in emulator.received]
    emulator.reset()
    router = router_of(emulator, name, **settings)
    ours = RouterEmbeddings(router)

    async def both() -> list[list[float]]:
        async with router:
            return [*await ours.aembed_documents(TEXTS), await ours.aembed_query("a question")]

    once = (
        [ours.embed_documents(TEXTS), [ours.embed_query("a question")]] if not asynchronous else [asyncio.run(both())]
    )
    got = [vector for part in once for vector in part]
    router.close()
    added = OURS.get(name, {}).items()
    asked = [
        {key: value for key, value in one.fields.items() if (key, value) not in added} for one in emulator.received
    ]
    bodies = [json.dumps(body, sort_keys=True) for body in asked]

    assert sorted(bodies) == sorted(sent)
    assert got == expected
    assert emulator.refused == ()


def test_nova_is_told_what_a_text_is_for_unlike_by_langchains_embedder(emulator: Emulator) -> None:
    """Its queries are embedded as documents, and long texts are cut; the bodies are the same otherwise."""
    theirs = langchain(NOVA, client_of(emulator))
    [document, query] = [*theirs.embed_documents(["a"]), theirs.embed_query("a")]
    router = router_of(emulator, NOVA)
    ours = RouterEmbeddings(router)
    got = [*ours.embed_documents(["a"]), ours.embed_query("a")]
    router.close()
    sent = [received.fields["singleEmbeddingParams"] for received in emulator.received]

    assert document == query == got[0]
    assert got[0] != got[1]
    assert [body["embeddingPurpose"] for body in sent] == ["GENERIC_INDEX"] * 3 + ["TEXT_RETRIEVAL"]
    assert [body["text"]["truncationMode"] for body in sent] == ["END", "END", "NONE", "NONE"]


@pytest.mark.slow
def test_many_single_texts_are_asked_side_by_side() -> None:
    """LangChain's embedder asks for one after the other; equal texts are sent once."""
    with Emulator(latency=0.1) as slow:
        langchain(TITAN, client_of(slow)).embed_documents(TEXTS[:5])
        assert (slow.calls, slow.peak_in_flight) == (5, 1)
        slow.reset()
        router = router_of(slow)
        RouterEmbeddings(router).embed_documents([*TEXTS, *TEXTS])
        router.close()

        assert slow.calls == 24
        assert slow.peak_in_flight > 8


def test_one_text_after_the_other_is_few_requests_where_the_model_takes_many(emulator: Emulator) -> None:
    """Small calls that come together are one request; LangChain's asynchronous queries are one each."""
    router = router_of(emulator, V4, retry=NO_WAITING)

    async def ask_all() -> None:
        async with router:
            await asyncio.gather(*(RouterEmbeddings(router).aembed_query(text) for text in TEXTS))

    asyncio.run(ask_all())

    assert emulator.calls < len(TEXTS) / 2
