"""What follows from each way in which a request can fail, through the makers' own SDKs and over a real socket.

The tables below are the policy: whether a request is made again and after how long, whether the next model is asked
instead, which error it is, and what the ledger says. Time does not pass in these tests: pauses are noted and skipped,
and the random number is always 1, for the longest wait.
"""

from __future__ import annotations

import pkgutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib import import_module
from itertools import cycle
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

import httpx
import openai
import pytest
import requests
import urllib3

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    InputRejectedError,
    NoModelAvailableError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.models import load_catalogue, resolve
from embedrouter.providers import create, describe
from embedrouter.providers._connections import was_sent
from embedrouter.providers._responses import parse_retry_after
from tests.either import embed
from tests.emulator import Emulator, Fault

KEY = "sk-test-7f3a9"
TEXTS = ["a text of some words", "another one"]

MODELS = {
    "openai": ("openai:text-embedding-3-small", "azure_openai:text-embedding-3-small"),
    "azure": ("azure_openai:text-embedding-3-small", "openai:text-embedding-3-small"),
    "cohere": ("cohere:embed-v5.0-fast", "cohere:embed-v5.0-pro"),
    "voyage": ("voyage:voyage-4-lite", "voyage:voyage-4"),
    "google": ("google_genai:gemini-embedding-001", "gemini:gemini-embedding-001"),
}
"""By provider, the model that fails and a dearer one of the same space."""

UNTOLD = ("google",)
"""Whose answers do not tell what was billed: the estimate is booked, which may be higher."""

ALL = ("openai", "cohere", "voyage", "google")
"""Azure is served by OpenAI's code; it has rows where what it says differs."""


def declare(emulator: Emulator, name: str, **settings: Any) -> Model:
    provider = name.partition(":")[0]
    own = {"azure_openai": "azure_url", "google_genai": "google_url", "gemini": "google_url"}
    url = own.get(provider, f"{provider}_url")
    azure = {"api_version": "2024-10-21"} if provider == "azure_openai" else {}
    return Model(name, **{"base_url": getattr(emulator, url), "api_key": KEY, "price": "1", **azure, **settings})


def says(status: int, message: str, code: str | None = None, **headers: str) -> Callable[[str], Fault]:
    """Return a refusal in the shape of each provider's errors."""

    def fault(provider: str) -> Fault:
        body = {
            "cohere": {"id": "1", "message": message},
            "voyage": {"detail": message},
        }.get(provider, {"error": {"message": message, "type": code, "param": None, "code": code}})
        return Fault.status(status, body=body, headers=headers)

    return fault


# Time that does not pass


@dataclass
class Clock:
    """Notes every pause and lets its time be over at once."""

    pauses: list[float] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a router that goes by this clock, and whose random number is always 1."""
        return {"clock": self.now, "sleep": self.pauses.append, "random": lambda: 1.0}

    def now(self) -> float:
        return time.monotonic() + sum(self.pauses)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass(frozen=True)
class Remembering(RetryPolicy):
    """A policy that remembers what it was asked about."""

    errors: list[BackendError] = field(default_factory=list)

    def wait(self, attempt: int, error: BackendError, chance: float) -> float | None:
        self.errors.append(error)
        return RetryPolicy.wait(self, attempt, error, chance)


# The policy

Then: TypeAlias = Literal["again", "next model", "stop"]
Booked: TypeAlias = Literal["free", "billed", "unconfirmed"]

OWN = 1.0
"""Seconds of the first wait where the provider asks for none: ``initial_wait * 2``, at most."""


def asked(seconds: float) -> float:
    """Return how long is waited at most where the provider asks for so many seconds."""
    return seconds + min(0.5, seconds)


def date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@dataclass(frozen=True)
class Row:
    """One way to fail, and what follows."""

    name: str
    fault: Fault | Callable[[str], Fault]
    error: type[BackendError]
    then: Then
    wait: float | None
    """Seconds before it is made again."""
    booked: Booked
    """What the ledger says of the failed request."""
    of: tuple[str, ...] = ALL
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the model."""


def headers(**sent: str) -> Fault:
    return Fault.status(429, body={}, headers={name.replace("_", "-"): value for name, value in sent.items()})


WITH_AZURE = ("openai", "azure", "cohere", "voyage")
OPENAI, COHERE, VOYAGE = ("openai",), ("cohere",), ("voyage",)
LISTED = "Model voyage-4-lite is not supported. Supported models are []."
SLOW = "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s."
TRIAL = "You are using a Trial key, which is limited to 1000 API calls / month."
PAGE = "<html><body>Bad gateway</body></html>"

# fmt: off
TABLE = [
    # The provider asks to slow down: wait as long as it says, in each of the forms; longer than the time allowed is not
    Row("429", Fault.rate_limited(), RateLimitedError, "again", OWN, "free", (*COHERE, *VOYAGE)),
    Row("429 that says 6 ms", Fault.rate_limited(), RateLimitedError, "again", asked(0.006), "free", OPENAI),
    Row("429 that says 20 s", says(429, SLOW), RateLimitedError, "again", asked(20), "free"),
    Row("429 that says 1 s", Fault.rate_limited(), RateLimitedError, "again", asked(1), "free", ("azure",)),
    Row("429 that says 7 s after 2 s", says(429, "Please retry after 7 seconds.", **{"retry-after": "2"}),
        RateLimitedError, "again", asked(2), "free"),
    Row("429 without JSON", Fault.status(429, body="slow down"), RateLimitedError, "again", OWN, "free"),
    Row("429 without detail", Fault.status(429, body={"message": "slow"}), RateLimitedError, "again", OWN, "free"),
    Row("429 after 17 s", headers(retry_after="17"), RateLimitedError, "again", asked(17), "free", WITH_AZURE),
    Row("429 after 0.2 s", headers(retry_after="0.2"), RateLimitedError, "again", asked(0.2), "free"),
    Row("429 after 250 ms", headers(retry_after_ms="250"), RateLimitedError, "again", asked(0.25), "free"),
    Row("429 after 1 s and 0 ms", headers(retry_after="1", retry_after_ms="0"),
        RateLimitedError, "again", asked(1), "free", WITH_AZURE),
    Row("429 after 0 ms", headers(retry_after_ms="0"), RateLimitedError, "again", OWN, "free"),
    Row("429 after 0 s", headers(retry_after="0"), RateLimitedError, "again", OWN, "free"),
    Row("429 after -3 s", headers(retry_after="-3"), RateLimitedError, "again", OWN, "free"),
    Row("429 after nan s", headers(retry_after="nan"), RateLimitedError, "again", OWN, "free"),
    Row("429 after nonsense", headers(retry_after="soon"), RateLimitedError, "again", OWN, "free"),
    Row("429 after a date", lambda _: headers(retry_after=date(40)), RateLimitedError, "again", asked(40), "free"),
    Row("429 after a past date", headers(retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        RateLimitedError, "again", OWN, "free"),
    Row("429 after 61 s", headers(retry_after="61"), RateLimitedError, "next model", None, "free"),
    Row("429 after a day", headers(retry_after_ms="86400000"), RateLimitedError, "next model", None, "free"),
    Row("429 after a far date", lambda _: headers(retry_after=date(4000)),
        RateLimitedError, "next model", None, "free"),
    Row("429 after inf s", headers(retry_after="inf"), RateLimitedError, "next model", None, "free"),
    # The account is out of money: OpenAI says so with a code; Cohere's words are not relied on
    Row("429 quota", Fault.insufficient_quota(), RateLimitedError, "next model", None, "free", OPENAI),
    Row("429 trial", says(429, TRIAL), RateLimitedError, "again", OWN, "free", COHERE),
    Row("402", says(402, "Payment required."), RateLimitedError, "next model", None, "free"),
    # The key: never a silent step to a dearer model
    Row("401", Fault.status(401), AuthenticationError, "stop", None, "free", WITH_AZURE),
    Row("403", Fault.status(403), AuthenticationError, "stop", None, "free"),
    Row("403 page", Fault.status(403, body=PAGE), AuthenticationError, "stop", None, "free"),
    Row("498", says(498, "invalid token"), AuthenticationError, "stop", None, "free", COHERE),
    # The model is not there
    Row("404", Fault.status(404), UnavailableError, "next model", None, "free", WITH_AZURE),
    Row("404 page", Fault.status(404, body=PAGE), UnavailableError, "next model", None, "free"),
    Row("400 unknown model", says(400, LISTED), UnavailableError, "next model", None, "free", VOYAGE),
    # The provider, or what stands before it, is in trouble
    Row("408", Fault.status(408, body="upstream request timeout"),
        RequestTimeoutError, "again", OWN, "unconfirmed", WITH_AZURE),
    Row("409", Fault.status(409, body="conflict"), UnavailableError, "again", OWN, "free"),
    Row("425", Fault.status(425, body=""), UnavailableError, "again", OWN, "free"),
    Row("499", says(499, "client closed request"), UnavailableError, "again", OWN, "free", COHERE),
    Row("500", Fault.status(500), UnavailableError, "again", OWN, "free"),
    Row("500 without a word", Fault.status(500, body=""), UnavailableError, "again", OWN, "free"),
    Row("501", Fault.status(501, body="not implemented"), UnavailableError, "next model", None, "free"),
    Row("502 page", Fault.status(502, body=PAGE), UnavailableError, "again", OWN, "free"),
    Row("503", Fault.unavailable(503), UnavailableError, "again", OWN, "free", WITH_AZURE),
    Row("503 after 3 s", Fault.status(503, retry_after=3, body="busy"), UnavailableError, "again", asked(3), "free"),
    Row("504", Fault.unavailable(504), UnavailableError, "again", OWN, "unconfirmed"),
    Row("524 page", Fault.status(524, body=PAGE), UnavailableError, "again", OWN, "unconfirmed"),
    Row("505", Fault.status(505, body=""), UnavailableError, "next model", None, "free"),
    Row("520 page", Fault.status(520, body=PAGE), UnavailableError, "again", OWN, "free"),
    Row("529", Fault.status(529, body={"detail": "overloaded"}), UnavailableError, "again", OWN, "free"),
    Row("529 page", Fault.status(529, body=PAGE), UnavailableError, "again", OWN, "free"),
    # The answer never came, or not all of it: it may have been billed
    Row("reset before the answer", Fault.reset(), UnavailableError, "again", OWN, "unconfirmed", WITH_AZURE),
    Row("reset after it was computed", Fault.lost(), UnavailableError, "again", OWN, "unconfirmed"),
    Row("half an answer", Fault.half_body(), BackendError, "again", OWN, "unconfirmed"),
    Row("read timeout", Fault.slow(3), RequestTimeoutError, "again", OWN, "unconfirmed", settings={"timeout": 0.2}),
    # An answer came that says nothing of vectors, nor of a bill
    Row("200 page", Fault.html(), BadResponseError, "next model", None, "unconfirmed", ("openai", "azure", "voyage")),
    Row("200 page in an SDK", Fault.html(), BadResponseError, "again", OWN, "unconfirmed", ("cohere", "google")),
    Row("200 empty", Fault.status(200, body=""), BadResponseError, "again", OWN, "unconfirmed"),
    Row("200 null", Fault.status(200, body="null"), BadResponseError, "again", OWN, "unconfirmed"),
    Row("200 {}", Fault.status(200, body={}), BadResponseError, "again", OWN, "unconfirmed"),
    Row("200 error", Fault.status(200, body={"error": {"message": "no"}}),
        BadResponseError, "again", OWN, "unconfirmed"),
    Row("200 not UTF-8", Fault.status(200, body=b"\xff\xfe{}"), BadResponseError, "again", OWN, "unconfirmed"),
    Row("200 half a JSON", Fault.status(200, body='{"data": [{"index": 0, "embedding": "AAAA'),
        BadResponseError, "again", OWN, "unconfirmed"),
    Row("200 rows of another kind", Fault.status(200, body={"data": [1, 2], "embeddings": {"float": 1}, "usage": None}),
        BadResponseError, "again", OWN, "unconfirmed"),
    Row("200 vectors of another kind", lambda provider: Fault.status(200, body={
        "data": [{"index": 0, "embedding": "a"}, {"index": 1, "embedding": None}],
        "embeddings": {"float": ["a", None]}, "id": "1", "texts": TEXTS,
    }), BadResponseError, "again", OWN, "unconfirmed"),
    Row("204", Fault.status(204, body=""), BadResponseError, "again", OWN, "unconfirmed"),
    # Vectors came, and a bill, but not the right vectors
    Row("a vector too few", Fault.wrong_count(-1), BadResponseError, "again", OWN, "billed"),
    Row("no vectors", Fault.wrong_count(-2), BadResponseError, "again", OWN, "billed"),
    Row("vectors too many", Fault.wrong_count(3), BadResponseError, "again", OWN, "billed"),
    Row("other dimensions", Fault.wrong_dimensions(8), BadResponseError, "next model", None, "billed"),
    Row("not a number", Fault.nan(), BadResponseError, "again", OWN, "billed"),
    Row("all zeros", Fault.zeros(), BadResponseError, "again", OWN, "billed"),
]
# fmt: on


FEW = ("429 after 0.2 s", "403", "404 page", "502 page", "half an answer", "read timeout", "204", "other dimensions")
"""The rows that are fast tests for Google, whose SDK takes longer than the others."""


@pytest.mark.parametrize(
    ("row", "provider"),
    [
        pytest.param(
            row,
            name,
            marks=pytest.mark.slow if name == "google" and row.name not in FEW else (),
            id=f"{row.name}-{name}",
        )
        for row in TABLE
        for name in row.of
    ],
)
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")  # Voyage's SDK logs half an answer with it
def test_what_follows_from_a_failure(
    row: Row, provider: str, asynchronous: bool, emulator: Emulator, clock: Clock
) -> None:
    """Answers in another order are no failure: see test_backends, where they are put right."""
    emulator.script(row.fault if isinstance(row.fault, Fault) else row.fault(provider))
    first, second = MODELS[provider]
    policy = Remembering()
    router = Router(
        [declare(emulator, first, **row.settings), declare(emulator, second, price="2")],
        cache=None,
        ledger=":memory:",
        retry=policy,
        **clock.settings,
    )
    if row.then == "stop":
        with pytest.raises(row.error) as caught:
            embed(router, asynchronous, TEXTS, input_type="document")
        assert policy.errors == [caught.value]
    else:
        result = embed(router, asynchronous, TEXTS, input_type="document")
        assert set(result.models) == {first if row.then == "again" else second}
    router.close()
    (error,) = policy.errors

    assert isinstance(error, row.error)
    assert error.retryable is (row.then == "again" or row.name.startswith("429 after"))
    assert error.model == first
    assert KEY not in str(error)
    assert clock.pauses == ([] if row.wait is None else [pytest.approx(row.wait, abs=1.5 if "date" in row.name else 0)])
    assert emulator.calls == (1 if row.then == "stop" else 2)
    assert emulator.unplayed == ()
    assert booked(router, first, answered=row.then == "again") == row.booked
    assert_the_bill_is_within_the_ledger(router, emulator)


def booked(router: Router, model: str, *, answered: bool) -> Booked:
    """Return what the ledger says of a model's one failed request."""
    account = router.ledger.totals("model").get(model)
    doubtful = router.ledger.unconfirmed()
    settled = (account.requests if account else 0) - answered
    assert settled + len(doubtful) <= 1
    if doubtful:
        return "unconfirmed"
    return "billed" if settled else "free"


def assert_the_bill_is_within_the_ledger(router: Router, emulator: Emulator) -> None:
    """What the provider billed is what was booked, but for what is said to be in doubt."""
    certain = sum(account.tokens for account in router.ledger.totals("model").values())
    doubtful = sum(item.tokens for item in router.ledger.unconfirmed())
    billed = sum(emulator.billed.values())
    assert billed <= certain + doubtful
    assert certain <= billed or all(name in UNTOLD for name, _ in emulator.billed)


def test_a_failure_that_may_pass_is_tried_as_often_as_the_policy_says_with_longer_and_longer_waits(
    emulator: Emulator, clock: Clock, asynchronous: bool
) -> None:
    """Then the next model is asked, once."""
    first, second = MODELS["voyage"]
    emulator.fault_for = lambda received: Fault.unavailable(503) if received.model == "voyage-4-lite" else None
    policy = RetryPolicy(attempts=4, initial_wait=1, max_wait=5)
    models = [declare(emulator, first), declare(emulator, second, price="2")]
    router = Router(models, cache=None, ledger=":memory:", retry=policy, **clock.settings)
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert set(result.models) == {second}
    assert clock.pauses == [2, 4, 5]
    assert [received.model for received in emulator.received] == ["voyage-4-lite"] * 4 + ["voyage-4"]


def test_without_another_model_the_error_has_what_the_provider_asked_for(
    emulator: Emulator, clock: Clock, asynchronous: bool
) -> None:
    """The caller may come back then."""
    emulator.script(headers(retry_after="3600"))
    router = Router([declare(emulator, MODELS["cohere"][0])], cache=None, ledger=":memory:", **clock.settings)
    with pytest.raises(NoModelAvailableError) as caught:
        embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert caught.value.attempts[0].error.retry_after == 3600
    assert clock.pauses == []


def test_a_wait_beyond_the_calls_own_time_is_not_begun(emulator: Emulator, clock: Clock, asynchronous: bool) -> None:
    """embed(…, timeout=) covers the whole call."""
    emulator.script(headers(retry_after="17"))
    first, second = MODELS["openai"]
    models = [declare(emulator, first), declare(emulator, second, price="2")]
    router = Router(models, cache=None, ledger=":memory:", **clock.settings)
    result = embed(router, asynchronous, TEXTS, input_type="document", timeout=10)
    router.close()

    assert set(result.models) == {second}
    assert clock.pauses == []


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "0.5"}, 0.5),
        ({"RETRY-AFTER-MS": "250"}, 0.25),
        ({"retry-after": "1", "retry-after-ms": "0"}, 1),
        ({"retry-after": "1", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "30, 5"}, 30),
        ({"retry-after": "5, soon"}, None),
        ({"retry-after": "2015-10-21T07:28:00Z"}, 0),
        ({"retry-after": "1445412480"}, 0),
        ({"retry-after": "1445412480000"}, 0),
        ({"retry-after": ""}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00"}, 0),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT"}, None),
        ({"retry-after": "Wed, 41 Oct 2015 07:28:00 GMT", "retry-after-ms": "500"}, 0.5),
    ],
)
def test_retry_after_is_read_in_all_its_forms(sent: dict[str, str], seconds: float | None) -> None:
    """Azure really sends 1 s next to 0 ms; the longer one counts."""
    assert parse_retry_after(sent) == seconds


# Connections that are never made


@dataclass(frozen=True)
class Door:
    """An address at which no connection comes about."""

    name: str
    url: Callable[[ExitStack, Emulator], str]
    error: type[BackendError]
    tries: int = 2
    timeout: float = 10.0
    """Seconds; short where the time passes."""
    booked: dict[str, Booked] = field(default_factory=dict)
    """Where it is not free: by provider, or by provider and form."""


def not_listening(stack: ExitStack, emulator: Emulator) -> str:
    closed = stack.enter_context(socket.socket())
    closed.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{closed.getsockname()[1]}"


def no_such_host(stack: ExitStack, emulator: Emulator) -> str:
    return "http://no-such-host.invalid"


def no_tls(stack: ExitStack, emulator: Emulator) -> str:
    return emulator.openai_url.replace("http:", "https:")


def never_accepted(stack: ExitStack, emulator: Emulator) -> str:
    """Fill the queue of connections that wait to be accepted, so that the next one is not answered."""
    full = stack.enter_context(socket.socket())
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    for _ in range(2):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(full.getsockname())
    return f"http://127.0.0.1:{full.getsockname()[1]}"


DOORS = [
    Door("nothing listens", not_listening, UnavailableError),
    Door("no such host", no_such_host, UnavailableError, tries=1),
    Door("no TLS where it is expected", no_tls, UnavailableError, tries=1),
    Door("connect timeout", never_accepted, RequestTimeoutError, timeout=0.2),
]
"""What may be there a moment later is tried again; then the next model is asked."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.slow
@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_what_follows_when_no_connection_is_made(
    door: Door, provider: str, asynchronous: bool, emulator: Emulator, clock: Clock, stack: ExitStack
) -> None:
    """The request was never sent, so it was not billed."""
    first, second = MODELS[provider]
    policy = Remembering(attempts=2)
    shut = declare(emulator, first, base_url=door.url(stack, emulator), timeout=door.timeout)
    models = [shut, declare(emulator, second, price="2")]
    router = Router(models, cache=None, ledger=":memory:", retry=policy, **clock.settings)
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()
    form = f"{provider} {'async' if asynchronous else 'sync'}"
    expected: Booked = door.booked.get(form, door.booked.get(provider, "free"))

    assert set(result.models) == {second}
    assert [type(error) for error in policy.errors] == [door.error] * door.tries
    assert {error.retryable for error in policy.errors} == {door.tries > 1}
    assert clock.pauses == [OWN] * (door.tries - 1)
    assert {error.perhaps_billed for error in policy.errors} == {expected == "unconfirmed"}
    assert len(router.ledger.unconfirmed()) == (2 if expected == "unconfirmed" else 0)


# Requests that are refused: made smaller as long as they hold several texts

MANY = "Requested 453357 tokens, max 300000 tokens per request"
CONTEXT = "This model's maximum context length is 8192 tokens, however you requested 9000 tokens (9000 in your prompt)."
BATCH = (
    "Request to model 'voyage-4-lite' failed. The max allowed tokens per submitted batch is 1000000. Your batch has "
    "1200000 tokens after truncation. Please lower the number of tokens in the batch."
)
EXAMPLE = (
    "Request to model 'voyage-4-lite' failed. The example at index 0 in your batch has too many tokens and does not "
    "fit into the model's context window of 32000 tokens."
)


@dataclass(frozen=True)
class Refused:
    """A refusal, and whether it says that a text is too long."""

    name: str
    fault: Callable[[str], Fault]
    too_long: bool = False
    of: tuple[str, ...] = ALL


REFUSALS = [
    Refused("429 request too large", lambda _: Fault.request_too_large(), of=OPENAI),
    Refused("400 too many tokens a request", says(400, MANY, "max_tokens_per_request"), of=OPENAI),
    Refused("400 too many tokens a batch", says(400, BATCH), of=VOYAGE),
    Refused("400 too many texts", says(400, "invalid request: total number of texts must be at most 2"), of=COHERE),
    Refused("413 page", lambda _: Fault.status(413, body="<html>Request Entity Too Large</html>")),
    Refused("400", says(400, "'$.input' is invalid.")),
    Refused("400 page", lambda _: Fault.status(400, body=PAGE)),
    Refused("422", says(422, "invalid request: texts must be strings")),
    Refused("400 over-long text", says(400, CONTEXT), too_long=True, of=OPENAI),
    Refused("400 over-long text", says(400, "too many tokens: size limit exceeded by 7 tokens."), True, COHERE),
    Refused("400 over-long text", says(400, EXAMPLE), too_long=True, of=VOYAGE),
]
refusals = pytest.mark.parametrize(
    ("row", "provider"), [pytest.param(row, name, id=f"{row.name}-{name}") for row in REFUSALS for name in row.of]
)


@refusals
def test_a_refused_request_is_sent_in_parts(
    row: Refused, provider: str, asynchronous: bool, emulator: Emulator, clock: Clock
) -> None:
    """Here nothing is wrong with the texts, only with their number, which one server names. Each is paid once."""
    refusal = row.fault(provider)
    emulator.fault_for = lambda received: refusal if len(received.texts) > 2 else None
    router = Router([declare(emulator, MODELS[provider][0])], cache=None, ledger=":memory:", **clock.settings)
    texts = [f"text {number}" for number in range(8)]
    result = embed(router, asynchronous, texts, input_type="document")
    router.close()

    named = row.name == "400 too many texts"
    assert [len(received.texts) for received in emulator.received] == (
        [8] + [2] * 4 if named else [8, 4, 2, 2, 4, 2, 2]
    )
    if provider not in UNTOLD:
        assert result.usage.tokens == sum(emulator.billed.values())
    assert result.usage.requests == 4
    assert clock.pauses == []


@refusals
def test_a_refused_text_is_named_and_no_other_model_is_asked(
    row: Refused, provider: str, asynchronous: bool, emulator: Emulator, clock: Clock
) -> None:
    """The text is at fault, not the model."""
    refusal = row.fault(provider)
    emulator.fault_for = lambda received: refusal if "poison" in received.texts else None
    first, second = MODELS[provider]
    models = [declare(emulator, first, batch_size=1, max_concurrency=1), declare(emulator, second, price="2")]
    router = Router(models, cache=None, ledger=":memory:", **clock.settings)
    with pytest.raises(InputRejectedError) as caught:
        embed(router, asynchronous, ["good", "poison"], input_type="document")
    router.close()

    assert caught.value.indices == (1,)
    assert caught.value.too_long is row.too_long
    assert caught.value.model == first
    assert ("on_too_long" in str(caught.value)) is row.too_long
    assert emulator.calls == 2
    assert clock.pauses == []
    assert booked(router, first, answered=True) == "free"


# Every exception of the SDKs has a place


Given: TypeAlias = dict[str, Any]

HTTP: Any = import_module(openai.DefaultHttpxClient.__bases__[0].__module__.partition(".")[0])
"""What the SDK makes its requests with: httpx2, or httpx before openai 3."""

ASKED = HTTP.Request("POST", "https://api.openai.com/v1/embeddings")


def answered(status: int) -> Given:
    return {"message": "words", "response": HTTP.Response(status, request=ASKED), "body": None}


OPENAI_EXCEPTIONS: dict[str, tuple[Given, type[BackendError] | None]] = {
    "OpenAIError": ({}, BackendError),
    "SubjectTokenProviderError": ({"message": "words"}, BackendError),
    "APIError": ({"message": "words", "request": ASKED, "body": None}, BackendError),
    "APIResponseValidationError": ({"response": HTTP.Response(200, request=ASKED), "body": None}, BadResponseError),
    "APIConnectionError": ({"request": ASKED}, UnavailableError),
    "APITimeoutError": ({"request": ASKED}, RequestTimeoutError),
    "APIStatusError": (answered(413), InputRejectedError),
    "BadRequestError": (answered(400), InputRejectedError),
    "AuthenticationError": (answered(401), AuthenticationError),
    "OAuthError": ({"response": HTTP.Response(401, request=ASKED), "body": None}, AuthenticationError),
    "PermissionDeniedError": (answered(403), AuthenticationError),
    "NotFoundError": (answered(404), UnavailableError),
    "ConflictError": (answered(409), UnavailableError),
    "UnprocessableEntityError": (answered(422), InputRejectedError),
    "RateLimitError": (answered(429), RateLimitedError),
    "InternalServerError": (answered(500), UnavailableError),
    # None of these comes from a request for embeddings
    "LengthFinishReasonError": ({"completion": SimpleNamespace(usage=None)}, BackendError),
    "ContentFilterFinishReasonError": ({}, BackendError),
    "WebSocketConnectionClosedError": ({"message": "words", "unsent_messages": []}, BackendError),
    "WebSocketQueueFullError": ({}, BackendError),
    "InvalidWebhookSignatureError": ({}, None),
}

HTTPX_EXCEPTIONS: dict[str, tuple[Given, type[BackendError] | None]] = {
    "HTTPError": ({"message": "words"}, None),
    "HTTPStatusError": ({"message": "words", "request": None, "response": None}, None),
    "InvalidURL": ({"message": "words"}, None),
    "CookieConflict": ({"message": "words"}, None),
    "RequestError": ({"message": "words"}, UnavailableError),
    "TransportError": ({"message": "words"}, UnavailableError),
    "NetworkError": ({"message": "words"}, UnavailableError),
    "ConnectError": ({"message": "words"}, UnavailableError),
    "ReadError": ({"message": "words"}, UnavailableError),
    "WriteError": ({"message": "words"}, UnavailableError),
    "CloseError": ({"message": "words"}, UnavailableError),
    "ProxyError": ({"message": "words"}, UnavailableError),
    "UnsupportedProtocol": ({"message": "words"}, UnavailableError),
    "ProtocolError": ({"message": "words"}, UnavailableError),
    "LocalProtocolError": ({"message": "words"}, UnavailableError),
    "RemoteProtocolError": ({"message": "words"}, UnavailableError),
    "TooManyRedirects": ({"message": "words"}, UnavailableError),
    "DecodingError": ({"message": "words"}, BadResponseError),
    "TimeoutException": ({"message": "words"}, RequestTimeoutError),
    "ConnectTimeout": ({"message": "words"}, RequestTimeoutError),
    "ReadTimeout": ({"message": "words"}, RequestTimeoutError),
    "WriteTimeout": ({"message": "words"}, RequestTimeoutError),
    "PoolTimeout": ({"message": "words"}, RequestTimeoutError),
    # Of answers that are read bit by bit, which these are not
    "StreamError": ({"message": "words"}, None),
    "StreamConsumed": ({}, None),
    "StreamClosed": ({}, None),
    "ResponseNotRead": ({}, None),
    "RequestNotRead": ({}, None),
}

COHERE_EXCEPTIONS: dict[str, tuple[Given, type[BackendError] | None]] = {
    "ApiError": ({"status_code": 413, "body": "words"}, InputRejectedError),
    "ParsingError": ({"status_code": 200}, BadResponseError),
    "BadRequestError": ({"body": {"message": "words"}}, InputRejectedError),
    "UnauthorizedError": ({"body": {"message": "words"}}, AuthenticationError),
    "ForbiddenError": ({"body": {"message": "words"}}, AuthenticationError),
    "InvalidTokenError": ({"body": {"message": "words"}}, AuthenticationError),
    "NotFoundError": ({"body": {"message": "words"}}, UnavailableError),
    "UnprocessableEntityError": ({"body": {"message": "words"}}, InputRejectedError),
    "TooManyRequestsError": ({"body": {"message": "words"}}, RateLimitedError),
    "ClientClosedRequestError": ({"body": {"message": "words"}}, UnavailableError),
    "InternalServerError": ({"body": None}, UnavailableError),
    "NotImplementedError": ({"body": None}, UnavailableError),
    "ServiceUnavailableError": ({"body": None}, UnavailableError),
    "GatewayTimeoutError": ({"body": None}, UnavailableError),
    # Of the library below, which the SDK lets through
    "SSEError": ({"message": "words"}, UnavailableError),
    **HTTPX_EXCEPTIONS,
}

VOYAGE_EXCEPTIONS: dict[str, tuple[Given, type[BackendError] | None]] = {
    **HTTPX_EXCEPTIONS,
    "HTTPStatusError": (
        {"message": "words", "request": None, "response": httpx.Response(413)},
        InputRejectedError,
    ),
}

SDKS: dict[str, dict[str, tuple[Given, type[BackendError] | None]]] = {
    "openai": OPENAI_EXCEPTIONS,
    "cohere": COHERE_EXCEPTIONS,
    "voyage": VOYAGE_EXCEPTIONS,
}
"""By provider, what each exception is made with and becomes (``None``: it passes as it is)."""

NEWER = {
    "SubjectTokenProviderError",
    "OAuthError",
    "WebSocketConnectionClosedError",
    "WebSocketQueueFullError",
    "ParsingError",
    "SSEError",
}
"""Exceptions that the lowest supported SDKs do not have."""


def translated(provider: str, error: Exception) -> Exception:
    """Return what a provider's backend makes of an exception."""
    model = Model(MODELS[provider][0], api_key=KEY)
    known = describe(model, load_catalogue(), None)
    candidate = resolve(model, known.card, dimensions=None, index=0, rank=0, local=False, identity=None)
    backend: Any = create(model, known, candidate)
    ours: Exception = backend.chained(error, TEXTS)
    return ours


def exceptions(provider: str) -> dict[str, type[Exception]]:
    """Return the exceptions that a provider's SDK, and what it lets through of the library below, defines."""
    names = {
        "openai": ["openai._exceptions"],
        "cohere": ["httpx", "cohere.core", "cohere.errors"],
        "voyage": ["httpx"],
    }[provider]
    modules = [import_module(name) for name in names]
    for package in modules[:]:
        if package.__name__.startswith("cohere."):
            below = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
            modules += [import_module(found.name) for found in below]
    return {
        value.__name__: value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Exception)
        and value.__module__.partition(".")[0] == module.__name__.partition(".")[0]
    }


@pytest.mark.parametrize("provider", SDKS)
def test_every_exception_of_an_sdk_has_a_place_in_the_table(provider: str) -> None:
    """A new version that brings a new one fails here, by name; one that takes an old one away as well."""
    assert set(exceptions(provider)) ^ set(SDKS[provider]) <= NEWER - set(exceptions(provider))


@pytest.mark.parametrize(("provider", "name"), [(provider, name) for provider in SDKS for name in SDKS[provider]])
def test_every_exception_of_an_sdk_becomes_ours(provider: str, name: str) -> None:
    """What is none of the provider's failures passes as it is."""
    given, kind = SDKS[provider][name]
    found = exceptions(provider)
    if name in NEWER - set(found):
        pytest.skip("this release of the SDK does not have it")
    error = found[name](**given) if given else found[name]()
    ours = translated(provider, error)

    if kind is None:
        assert ours is error
    else:
        assert type(ours) is kind
        assert isinstance(ours, BackendError)
        assert ours.model == MODELS[provider][0]


def test_exceptions_from_other_corners_of_openais_sdk_are_translated_too() -> None:
    """All that are derived from its base class, in modules that a request may load."""
    import openai

    waiting: list[type[Exception]] = [openai.OpenAIError]
    for kind in waiting:
        own = [below for below in kind.__subclasses__() if below.__module__.partition(".")[0] == "openai"]
        waiting += own  # and not those of other packages, such as litellm's
        if kind.__module__ != "openai":
            ours = translated("openai", kind.__new__(kind))
            assert isinstance(ours, BackendError), kind


def test_a_damaged_record_of_tls_is_a_failed_connection() -> None:
    """Perhaps the request had arrived."""
    ours = translated("openai", ssl.SSLError(1, "bad record mac"))

    assert isinstance(ours, UnavailableError)
    assert ours.perhaps_billed


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x"), MemoryError()])
@pytest.mark.parametrize("provider", SDKS)
def test_mistakes_in_programs_pass_unrelabelled(provider: str, error: Exception) -> None:
    """They are no failure of a provider."""
    assert translated(provider, error) is error


def test_a_certificate_that_is_refused_says_that_nothing_was_sent() -> None:
    """Through the layers that the libraries wrap it in."""
    error = requests.exceptions.SSLError(retried := urllib3.exceptions.MaxRetryError(None, "/"))  # type: ignore[arg-type]
    retried.__cause__ = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))

    assert not was_sent(error)


# A provider that is busy, and says so


BUSY = [
    ("503 loading", Fault.status(503, body={"error": {"message": "Loading model", "type": "unavailable_error"}})),
    ("429", Fault.status(429, body={"error": {"message": "slow down"}})),
    ("429 in plain text", Fault.status(429, body="slow down")),
    ("503 page", Fault.status(503, body=PAGE)),
]


@pytest.mark.parametrize("fault", [fault for _, fault in BUSY], ids=[name for name, _ in BUSY])
def test_a_busy_provider_is_waited_for_until_the_time_is_up(
    fault: Fault, emulator: Emulator, clock: Clock, asynchronous: bool
) -> None:
    """Not until a number of tries: a server that loads a model takes half a minute."""
    begin = clock.now()
    emulator.fault_for = lambda received: fault if clock.now() < begin + 35 else None
    router = Router([declare(emulator, MODELS["openai"][0])], cache=None, ledger=":memory:", **clock.settings)
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert len(result) == len(TEXTS)
    assert len(emulator.received) > 3


def test_a_provider_that_stays_busy_is_given_up_when_the_time_is_up(
    emulator: Emulator, clock: Clock, asynchronous: bool
) -> None:
    """The policy's timeout counts, with all waits."""
    emulator.fault_for = lambda received: says(429, SLOW)("openai")
    router = Router([declare(emulator, MODELS["openai"][0])], cache=None, ledger=":memory:", **clock.settings)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert 30 < sum(clock.pauses) <= 60


def test_waits_that_all_callers_of_a_busy_model_share_count_for_the_time_too(
    emulator: Emulator, clock: Clock, asynchronous: bool
) -> None:
    """Not only the waits of the retries, which are shorter by chance, or because there are few attempts."""
    emulator.fault_for = lambda received: says(429, "slow down")("openai")
    numbers = cycle([1.0, 0.05])  # of the shared wait, of the retry's
    settings = {**clock.settings, "random": lambda: next(numbers)}
    retry = RetryPolicy(attempts=2, timeout=20)
    router = Router([declare(emulator, MODELS["openai"][0])], cache=None, ledger=":memory:", retry=retry, **settings)
    with pytest.raises(NoModelAvailableError, match="429"):
        embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert 10 < sum(clock.pauses) <= 20
    assert len(emulator.received) < 10


@pytest.mark.parametrize("seconds", [0.001, 0.1, 1])
def test_a_provider_that_stays_busy_is_not_called_at_short_intervals(
    emulator: Emulator, clock: Clock, seconds: float, asynchronous: bool
) -> None:
    """Where it asks for short waits: some providers count refused requests, too."""
    emulator.fault_for = lambda received: Fault.rate_limited(retry_after=seconds)
    router = Router([declare(emulator, MODELS["openai"][0])], cache=None, ledger=":memory:", **clock.settings)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert clock.pauses[:4] == pytest.approx([asked(seconds)] * 4, rel=0.3)
    assert 5 < len(emulator.received) < 20


def test_a_busy_model_is_called_again_after_the_others(emulator: Emulator, clock: Clock, asynchronous: bool) -> None:
    """They failed in another way; patience is left."""
    first, second = MODELS["voyage"]
    begin = clock.now()

    def fault(received: Any) -> Fault | None:
        if received.model != first.partition(":")[2]:
            return Fault.status(404)
        return Fault.unavailable(503) if clock.now() < begin + 40 else None

    emulator.fault_for = fault
    models = [declare(emulator, first), declare(emulator, second, price="2")]
    router = Router(models, cache=None, ledger=":memory:", **clock.settings)
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert set(result.models) == {first}
