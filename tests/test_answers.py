"""What providers answer, of every kind that was seen: through the makers' SDKs, over a socket, in both forms."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product, repeat
from typing import Any

import numpy as np
import pytest

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
from embedrouter.testing import NO_WAITING
from tests.either import embed
from tests.raw_server import DIMENSIONS, RawServer, Reply, dripping, rows, vectors

ONCE = RetryPolicy(attempts=1)
KEY = "sk-test-7f3a9c2b"
TEXTS = ["a", "bb", "ccc"]
ALL = ("openai", "cohere", "voyage")
WITH_INDEX = ("openai", "voyage")


@pytest.fixture
def server() -> Iterator[RawServer]:
    running = RawServer()
    yield running
    running.close()


def declare(server: RawServer, provider: str, **settings: Any) -> Model:
    url = server.url if provider == "cohere" else f"{server.url}/v1"
    given = {"base_url": url, "api_key": KEY, "space": "house", "dimensions": DIMENSIONS, "batch_size": 100, **settings}
    return Model(f"{provider}:house-model", **given)


def build(server: RawServer, provider: str, retry: RetryPolicy = ONCE, **settings: Any) -> Router:
    return Router([declare(server, provider, **settings)], cache=None, ledger=":memory:", retry=retry)


def ask(server: RawServer, provider: str, asynchronous: bool, texts: list[str] = TEXTS, **settings: Any) -> Any:
    router = build(server, provider, **settings)
    try:
        return embed(router, asynchronous, texts, input_type="document")
    finally:
        router.close()


def failure(server: RawServer, provider: str, asynchronous: bool, texts: list[str] = TEXTS, **settings: Any) -> Any:
    """Return the error of one request."""
    with pytest.raises((NoModelAvailableError, BackendError)) as caught:
        ask(server, provider, asynchronous, texts, **settings)
    error = caught.value
    return error.attempts[-1].error if isinstance(error, NoModelAvailableError) else error


def always(reply: Reply) -> Callable[[dict[str, Any], list[str]], Reply]:
    return lambda body, texts: reply


# Rows that lack their place

Change = Callable[[list[dict[str, Any]]], Any]


def without_zero(found: list[dict[str, Any]]) -> None:
    """Leave the index out where it is zero, as Gemini does."""
    del found[0]["index"]


def without_any(found: list[dict[str, Any]]) -> None:
    for row in found:
        del row["index"]


def all_of(value: object) -> Change:
    def change(found: list[dict[str, Any]]) -> None:
        for row in found:
            row["index"] = value

    return change


def without_zero_reversed(found: list[dict[str, Any]]) -> None:
    del found[0]["index"]
    found.reverse()


def as_text_reversed(found: list[dict[str, Any]]) -> None:
    for row in found:
        row["index"] = str(row["index"])
    found.reverse()


def ids(found: list[dict[str, Any]]) -> None:
    for row in found:
        row["index"] = f"row-{row['index']}"


PLACES: list[Change] = [
    without_zero, without_any, all_of(None), all_of(0), all_of("0"), all_of(""), ids, without_zero_reversed,
    as_text_reversed, lambda found: found.reverse(),
]  # fmt: skip


@pytest.mark.parametrize("change", PLACES, ids=range(len(PLACES)))
@pytest.mark.parametrize("provider", WITH_INDEX)
def test_rows_are_in_their_places_or_in_the_order_in_which_they_came(
    provider: str, change: Change, server: RawServer, asynchronous: bool
) -> None:
    """Where the places cannot be places, and there is one row for each text."""

    def answer(body: dict[str, Any], texts: list[str]) -> Reply:
        found = rows(texts)
        change(found)
        return Reply(body={"data": found, "usage": {}})

    server.answer = answer
    result = ask(server, provider, asynchronous)

    assert np.array_equal(result.vectors, np.array(vectors(TEXTS), np.float32))
    assert len(server.received) == 1


@pytest.mark.parametrize("places", [(0, 1, 1), (0, 2, 3), (1, 2, 3), (-1, 0, 1), (0, 0, 1)])
@pytest.mark.parametrize("provider", WITH_INDEX)
def test_real_places_that_are_repeated_or_skipped_are_an_error(
    provider: str, places: tuple[int, ...], server: RawServer, asynchronous: bool
) -> None:
    """Nothing says which row is of which text."""
    server.answer = lambda body, texts: Reply(
        body={"data": [{**row, "index": place} for row, place in zip(rows(texts), places, strict=True)]}
    )
    error = failure(server, provider, asynchronous)

    assert isinstance(error, BadResponseError)
    assert "index" in str(error)


@pytest.mark.parametrize("provider", WITH_INDEX)
def test_rows_without_places_are_counted(provider: str, server: RawServer, asynchronous: bool) -> None:
    """One row too few leaves no order to believe in."""
    server.answer = lambda body, texts: Reply(body={"data": [{"embedding": row} for row in vectors(texts[1:])]})
    assert isinstance(failure(server, provider, asynchronous), BadResponseError)


# Reasons

REASON = "This input was rejected."
SHAPES: dict[str, Any] = {
    "OpenAI": {"error": {"message": REASON, "type": "invalid_request_error", "code": None}},
    "string": {"error": REASON},
    "message": {"message": REASON},
    "detail": {"detail": REASON},
    "FastAPI": {"detail": [{"loc": ["body", "input", 0], "msg": REASON, "type": "value_error"}]},
    "list": [{"error": {"message": REASON}}],
    "nested": {"error": {"error": {"message": REASON}}},
    "text": REASON,
    "page": f"<html><head><title>{REASON}</title></head></html>",
}


@pytest.mark.parametrize(
    ("status", "shape"),
    [*product([400, 500], SHAPES), *product([401, 403, 404, 413, 422, 429, 503], ["OpenAI", "FastAPI"])],
)
@pytest.mark.parametrize("provider", ALL)
def test_the_servers_words_are_in_the_error(
    provider: str, shape: str, status: int, server: RawServer, asynchronous: bool
) -> None:
    """Whatever the shape of the body, and nothing but our own errors leaves."""
    server.answer = always(Reply(status, SHAPES[shape]))
    error = failure(server, provider, asynchronous, ["one text"])

    assert isinstance(error, BackendError)
    assert error.status == status
    assert REASON in str(error)
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize("provider", ALL)
def test_a_text_in_any_shape_is_not_repeated(provider: str, server: RawServer, asynchronous: bool) -> None:
    """Nor a key; and a long reason is cut."""
    secret = "the patient's name is Jane Doe"
    bodies: list[Any] = [
        {"detail": [{"msg": f"no: {secret}"}]},
        [secret],
        {"error": {"error": f"{'x ' * 20}{secret}"}},
        f"<title>{secret}</title>",
        {"unheard": {"of": secret}},
        {"error": f"Incorrect key {KEY}"},
        {"error": "word " * 2000},
    ]
    for body in bodies:
        server.answer = always(Reply(400, body))
        error = failure(server, provider, asynchronous, [secret])
        assert "Jane" not in str(error)
        assert KEY not in str(error)
        assert len(str(error)) < 600


# A success that is none


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"error": {"message": "Provider returned error", "code": 502}}, UnavailableError, 502),
        ({"error": {"message": "slow down", "code": 429}}, RateLimitedError, 429),
        ({"error": {"message": "no auth", "code": "401"}}, AuthenticationError, 401),
        ({"error": {"message": "This model's maximum context length is 512 tokens"}}, InputRejectedError, 400),
        ({"error": "Rate limited. Please try again in 20s"}, RateLimitedError, 429),
        ({"message": "Insufficient credits", "code": 402}, RateLimitedError, 402),
        ({"errors": [{"code": 500, "message": "internal"}], "success": False}, UnavailableError, 500),
        ({"detail": "no idea"}, BadResponseError, None),
        ({"error": {"message": "no idea", "code": 7}}, BadResponseError, None),
    ],
)
@pytest.mark.parametrize("provider", ALL)
def test_an_error_with_status_200_is_the_error_that_it_carries(
    provider: str, body: Any, kind: type[BackendError], status: int | None, server: RawServer, asynchronous: bool
) -> None:
    """As OpenRouter and others answer; without a status its words are shown."""
    server.answer = always(Reply(200, body))
    error = failure(server, provider, asynchronous, ["one text"])

    assert type(error) is kind
    assert error.status == status
    message = next(iter(_texts(body)))
    assert message in str(error)


def _texts(body: Any) -> Iterator[str]:
    if isinstance(body, str):
        yield body
    for item in body.values() if isinstance(body, dict) else body if isinstance(body, list) else ():
        yield from _texts(item)


@pytest.mark.parametrize("provider", ALL)
def test_a_page_with_status_200_shows_its_title(provider: str, server: RawServer, asynchronous: bool) -> None:
    """Of a captive portal, or a wrong address."""
    server.answer = always(Reply(200, "<html><title>Sign in to the network</title><body>Welcome</body></html>"))
    error = failure(server, provider, asynchronous)

    assert isinstance(error, BadResponseError)
    assert "Sign in to the network" in str(error)
    assert "base_url" in str(error)


# Formats of numbers, and dimensions

REFUSALS = [
    (400, {"error": {"message": "encoding_format base64 is not supported"}}),
    (400, {"error": {"message": "litellm.UnsupportedParamsError: does not support parameters: {'encoding_format'}"}}),
    (422, {"detail": [{"loc": ["body", "encoding_format"], "msg": "Input should be 'float'", "input": "base64"}]}),
    (400, "only float encoding format is supported, not base64"),
    (500, {"error": "Unknown encoding_format"}),
    (501, {"error": {"message": "base64 is not implemented"}}),
]
FORMATS = {"openai": "encoding_format", "cohere": "embedding_types", "voyage": "encoding_format"}


@pytest.mark.parametrize(("status", "body"), REFUSALS, ids=range(len(REFUSALS)))
@pytest.mark.parametrize("provider", ALL)
def test_a_server_that_refuses_base64_is_asked_for_lists(
    provider: str, status: int, body: Any, server: RawServer, asynchronous: bool
) -> None:
    """Once for a model and process; nothing is blamed on texts."""
    server.answer = lambda received, texts: (
        Reply(status, body) if "base64" in (received.get(FORMATS[provider]) or ()) else None
    )
    for _ in range(2):
        result = ask(server, provider, asynchronous)
        assert np.array_equal(result.vectors, np.array(vectors(TEXTS), np.float32))

    assert len(server.received) == 3


@pytest.mark.parametrize("fields", [("encoding_format",), ("dimensions",), ("encoding_format", "dimensions")])
def test_a_server_that_refuses_the_field_is_asked_without_it(
    fields: tuple[str, ...], server: RawServer, asynchronous: bool
) -> None:
    """Whatever its value is."""

    def answer(body: dict[str, Any], texts: list[str]) -> Reply | None:
        wrong = [name for name in fields if name in body]
        return Reply(400, {"error": {"message": f"unknown field {wrong[0]}"}}) if wrong else None

    server.answer = answer
    for _ in range(2):
        ask(server, "openai", asynchronous)

    assert not set(fields) & set(server.received[-1])
    assert not set(fields) & set(server.received[-2])
    assert len(server.received) <= 5


@pytest.mark.parametrize("encoding_format", ["base64", "float", "omit"])
def test_the_format_that_the_user_declares_stays(encoding_format: str, server: RawServer, asynchronous: bool) -> None:
    """The server's refusal is then the error."""
    server.answer = always(Reply(400, {"error": {"message": "encoding_format is wrong"}}))
    error = failure(server, "openai", asynchronous, ["one"], encoding_format=encoding_format)

    assert "encoding_format is wrong" in str(error)
    assert len(server.received) == 1
    assert server.received[0].get("encoding_format", "omit") == encoding_format


def test_fields_of_ones_own_are_not_left_out(server: RawServer, asynchronous: bool) -> None:
    """``extra_body`` decides."""
    body = {"encoding_format": "base64", "dimensions": 4}
    server.answer = always(Reply(400, {"error": {"message": "encoding_format and dimensions are wrong"}}))
    failure(server, "openai", asynchronous, ["one"], extra_body=body)

    assert len(server.received) == 1


@pytest.mark.parametrize("name", ["dimensions", "output_dimension", "matryoshka representation"])
@pytest.mark.parametrize("provider", ALL)
def test_dimensions_of_an_unknown_model_are_sent_and_left_out_where_they_are_refused(
    provider: str, name: str, server: RawServer, asynchronous: bool
) -> None:
    """The user asks for them. The other length that comes then is an answer's, and checked as any other."""
    field = "dimensions" if provider == "openai" else "output_dimension"
    server.answer = lambda body, texts: Reply(400, {"message": f"no {name} for this model"}) if field in body else None
    for _ in range(2):
        ask(server, provider, asynchronous)

    assert [field in body for body in server.received] == [True, False, False]
    assert server.received[0][field] == DIMENSIONS


def test_dimensions_of_a_catalogued_model_are_not_left_out(server: RawServer, asynchronous: bool) -> None:
    """Vectors of the model's own length would come, and be paid for."""
    server.answer = always(Reply(400, {"error": {"message": "dimensions are not supported"}}))
    model = Model("openai:text-embedding-3-small", base_url=server.url, api_key=KEY, dimensions=256)
    router = Router([model], cache=None, ledger=":memory:", retry=ONCE)
    with pytest.raises((NoModelAvailableError, InputRejectedError)):
        embed(router, asynchronous, ["one"], input_type="document")
    router.close()

    assert len(server.received) == 1


@pytest.mark.parametrize("provider", ALL)
def test_a_refusal_for_another_reason_teaches_nothing(provider: str, server: RawServer, asynchronous: bool) -> None:
    """A text is at fault that speaks of base64; the next request asks for base64 again."""
    server.answer = lambda body, texts: Reply(400, {"message": "the text is about base64"}) if "b" in texts else None
    failure(server, provider, asynchronous, ["b"])
    server.received.clear()
    ask(server, provider, asynchronous, ["c"])

    assert "base64" in str(server.received)


# Waits, limits and money


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "3"}, "slow", 3),
        ({"retry-after": "1", "retry-after-ms": "1500"}, "slow", 1.5),
        ({"llm_provider-retry-after": "4"}, "slow", 4),
        ({"x-ratelimit-reset-requests": "6s", "x-ratelimit-remaining-requests": "0"}, "slow", 6),
        ({"x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-remaining-requests": "14370",
          "x-ratelimit-reset-tokens": "7.66s", "x-ratelimit-remaining-tokens": "0"}, "slow", 7.66),
        ({"x-ratelimit-reset-requests": "5"}, "slow", 5),
        ({"llm_provider-x-ratelimit-reset-tokens": "120ms"}, "slow", 0.12),
        ({}, "Rate limit reached. Please try again in 20s.", 20),
        ({}, "Please try again in 1m2.5s", 62.5),
        ({}, "retry after 17 seconds", 17),
        ({}, "Please wait 300 ms", 0.3),
        ({"retry-after": "0"}, "try again in 2s", 2),
        ({"retry-after": "5"}, "try again in 20s", 5),
        ({}, "slow down", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("provider", ALL)
def test_a_wait_is_read_wherever_it_is_written(
    provider: str, headers: dict[str, str], message: str, seconds: float | None, server: RawServer, asynchronous: bool
) -> None:
    """Headers, those that a gateway passes on, and the message."""
    server.answer = always(Reply(429, {"error": {"message": message}, "detail": message}, headers))
    error = failure(server, provider, asynchronous)

    assert isinstance(error, RateLimitedError)
    assert error.retryable
    assert error.retry_after == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("message", "requests", "tokens"),
    [
        ("You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM "
         "and 10K TPM.", 3, 10_000),
        ("Rate limit reached on requests per min. Limit: 3 / min. Please try again in 20s.", 3, None),
        ("Rate limit reached on tokens per min (TPM): Limit 1,000,000, Used 999999", None, 1_000_000),
        ("limited to 100 API calls / minute", 100, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("provider", ALL)
def test_limits_in_a_refusal_are_kept_from_then_on(
    provider: str, message: str, requests: int | None, tokens: int | None, server: RawServer, asynchronous: bool
) -> None:
    """The error has them, and the limiter keeps them."""
    server.answer = always(Reply(429, {"detail": message}))
    error = failure(server, provider, asynchronous)

    assert error.retryable
    assert (error.limits.requests, error.limits.tokens) == (requests, tokens)


def test_the_limiter_keeps_a_limit_that_a_refusal_names(server: RawServer, asynchronous: bool) -> None:
    """Two requests a minute: the third waits."""
    pauses: list[float] = []
    refuse = iter([Reply(429, {"detail": "2 RPM and 10M TPM"})])
    server.answer = lambda body, texts: next(refuse, None)
    router = Router(
        [declare(server, "voyage", batch_size=1, max_concurrency=1)],
        cache=None,
        ledger=":memory:",
        clock=lambda: time.monotonic() + sum(pauses),
        sleep=pauses.append,
        random=lambda: 0.01,
    )
    embed(router, asynchronous, ["a", "b", "c", "d"], input_type="document")
    router.close()

    assert sum(pauses) > 60
    assert len(server.received) == 5


QUOTA = [
    (429, "You exceeded your current quota, please check your plan and billing details."),
    (429, "litellm.RateLimitError: OpenAIException - You exceeded your current quota"),
    (402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits"),
    (403, "Sorry, your account balance is insufficient"),
    (400, "Your credit balance is too low to access the API"),
]


@pytest.mark.parametrize(("status", "message"), QUOTA)
@pytest.mark.parametrize("provider", ALL)
def test_without_money_the_next_model_is_asked_at_once(
    provider: str, status: int, message: str, server: RawServer, asynchronous: bool
) -> None:
    """Behind a gateway, too, which has no code for it."""
    server.answer = lambda body, texts: (
        Reply(status, {"error": {"message": message, "type": "throttling_error"}, "detail": message})
        if body["model"] == "house-model"
        else None
    )
    first, second = declare(server, provider, price="1"), declare(server, "openai", deployment="other", price="2")
    router = Router([first, second], cache=None, ledger=":memory:", retry=NO_WAITING)
    result = embed(router, asynchronous, TEXTS, input_type="document")
    router.close()

    assert set(result.models) == {second.name}
    assert len(server.received) == 2


# Texts that are too long, and requests of too many texts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "message", "limit"),
    [
        (413, "Input validation error: `inputs` must have less than 512 tokens. Given: 992", 512),
        (400, "This model's maximum context length is 8192 tokens, however you requested 9000 tokens.", 8192),
        (500, "input (992 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
         512),
        (500, "the request exceeds the available context size (512 tokens), try increasing it", 512),
        (502, "Input is too long for requested model.", None),
        (500, "The size of tensor a (992) must match the size of tensor b (512) at non-singleton dimension 1", 512),
    ],
)  # fmt: skip
@pytest.mark.parametrize("provider", ALL)
def test_a_text_that_is_too_long(
    provider: str, status: int, message: str, limit: int | None, server: RawServer, asynchronous: bool
) -> None:
    """Alone it is refused, the others are embedded, whatever the status is."""
    long = "long " * 30
    server.answer = lambda body, texts: Reply(status, {"message": message}) if long in texts else None
    error = failure(server, provider, asynchronous, ["a", long, "c"], retry=NO_WAITING)

    assert isinstance(error, InputRejectedError)
    assert error.too_long
    assert error.indices == (1,)
    assert len(server.received) <= 5


@pytest.mark.parametrize(
    "message", ["must have less than 40 tokens", "maximum context length is 40 tokens", "limit 40."]
)
@pytest.mark.parametrize("provider", ALL)
def test_the_limit_that_the_server_names_cuts_the_text(
    provider: str, message: str, server: RawServer, asynchronous: bool
) -> None:
    """With a policy that allows it, and without a setting."""
    refusal = Reply(400, {"message": f"the input is too long: {message}"})
    server.answer = lambda body, texts: refusal if any(len(text) > 200 for text in texts) else None
    router = Router([declare(server, provider)], cache=None, ledger=":memory:", retry=ONCE, on_too_long="truncate")
    result = embed(router, asynchronous, ["short", "word " * 100], input_type="document")
    router.close()

    assert result.shortened == (False, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "most", "message"),
    [
        ("openai", 10, "batch size is invalid, it should not be larger than {}"),
        ("openai", 7, "invalid request: total number of texts must be at most {}"),
        ("openai", 7, "batch size 30 > maximum allowed batch size {}"),
        ("openai", 10, "Invalid 'input': array is too long, maximum {}"),
        ("openai", 10, "List should have at most {} items after validation, not 30"),
        ("cohere", 10, "invalid request: total number of texts must be at most {}"),
        ("voyage", 7, "List should have at most {} items after validation, not 30"),
    ],
)
def test_the_number_of_texts_that_the_server_names_is_kept(
    provider: str, most: int, message: str, server: RawServer, asynchronous: bool
) -> None:
    """One refusal, and none at the next call."""
    refusal = Reply(422, {"error": {"message": message.format(most)}})
    server.answer = lambda body, texts: refusal if len(texts) > most else None
    router = Router([declare(server, provider, max_concurrency=1)], cache=None, ledger=":memory:", retry=ONCE)
    for word in ("x", "y"):
        embed(router, asynchronous, [f"{word}{number}" for number in range(30)], input_type="document")
    router.close()

    refused = [body for body in server.received if len(body.get("input") or body["texts"]) > most]
    assert len(refused) == 1
    assert len(server.received) == 1 + 2 * -(-30 // most)


# Faults of the request, and of the model

FAULTS = [
    (400, "litellm.UnsupportedParamsError: voyage does not support parameters: ['user']"),
    (400, "Invalid model name passed in model=house-model. Call /v1/models to view available models"),
    (400, "The model house-model is not found"),
    (422, "This model is not supported for embeddings"),
    (422, "Extra inputs are not permitted: user"),
    (404, "no such page"),
]


@pytest.mark.parametrize(("status", "message"), FAULTS)
@pytest.mark.parametrize("provider", ALL)
def test_a_fault_of_the_request_or_of_the_model_goes_to_the_next_one_at_once(
    provider: str, status: int, message: str, server: RawServer, asynchronous: bool
) -> None:
    """No text is sent alone."""
    server.answer = lambda body, texts: Reply(status, {"message": message}) if body["model"] == "house-model" else None
    first, second = declare(server, provider, price="1"), declare(server, "openai", deployment="other", price="2")
    router = Router([first, second], cache=None, ledger=":memory:", retry=NO_WAITING)
    result = embed(router, asynchronous, [f"text {number}" for number in range(64)], input_type="document")
    router.close()

    assert set(result.models) == {second.name}
    assert len(server.received) == 2


# Answers that are long, or without end


@pytest.mark.slow
@pytest.mark.parametrize("status", [404, 429, 502])
@pytest.mark.parametrize("provider", ALL)
def test_a_long_page_is_cut_before_anything_looks_at_it(
    provider: str, status: int, server: RawServer, asynchronous: bool
) -> None:
    """With the texts of a whole request."""
    page = "<html><head><title>Bad gateway</title></head><body>" + "<p>some words of a page</p>" * 4000 + "</body>"
    server.answer = always(Reply(status, page))
    texts = [f"{number} " + "some other words that fill a chunk of a document " * 40 for number in range(96)]
    error = failure(server, provider, asynchronous, texts)

    assert "Bad gateway" in str(error)
    assert len(str(error)) < 600
    assert _seconds_to_translate(declare(server, provider), texts) < 0.3  # 0.005 where nothing else runs


def _seconds_to_translate(model: Model, texts: list[str]) -> float:
    """Return how long an error takes to become ours."""
    from embedrouter.models import load_catalogue, resolve
    from embedrouter.providers import create, describe

    known = describe(model, load_catalogue(), None)
    candidate = resolve(model, known.card, dimensions=None, index=0, rank=0, local=False, identity=None)
    backend: Any = create(model, known, candidate)
    caught: list[Exception] = []
    with backend.clients.lease() as client:
        try:
            backend.send(client, backend.build_request(texts, "document"), 5)
        except Exception as error:  # noqa: BLE001 - of any SDK
            caught.append(error)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        backend.chained(caught[0], texts)
        times.append(time.perf_counter() - began)
    backend.close()
    return min(times)


@cache
def bomb() -> bytes:
    """Return some kilobytes that become 128 megabytes."""
    return gzip.compress(b'{"data": [' + b" " * 2**27)


ENDLESS: dict[str, tuple[dict[str, str], Callable[[], Any]]] = {
    "gzip": ({"content-encoding": "gzip"}, bomb),
    "chunks": ({}, lambda: repeat(b" " * 2**16)),
    "lines": ({}, lambda: repeat(b"\n" * 2**13)),
}
"""Answers that never end, or become very large: headers, and what makes the body."""


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("provider", ALL)
def test_an_answer_without_end_is_given_up(
    provider: str, name: str, status: int, server: RawServer, asynchronous: bool
) -> None:
    """Before it fills the memory; of an error the beginning is enough."""
    headers, body = ENDLESS[name]
    server.answer = lambda received, texts: Reply(status, body(), headers)
    error = failure(server, provider, asynchronous)

    assert isinstance(error, BadResponseError if status == 200 else UnavailableError)
    assert "bytes" in str(error) or status == 500
    assert not error.retryable or status == 500


@pytest.mark.parametrize(("provider", "status"), [("openai", 200), ("openai", 502), ("cohere", 502), ("voyage", 200)])
def test_what_a_small_answer_becomes_does_not_fill_the_memory(
    provider: str, status: int, server: RawServer, asynchronous: bool
) -> None:
    """A piece of it, at most."""
    content = bomb()
    server.answer = always(Reply(status, content, {"content-encoding": "gzip"}))
    router = build(server, provider)
    with pytest.raises(NoModelAvailableError):  # imports
        embed(router, asynchronous, TEXTS, input_type="document")
    tracemalloc.start()
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, TEXTS, input_type="document")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    router.close()

    assert most < 100 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("provider", "where"),
    [
        *product(["openai"], ["body", "chunks", "headers", "status line", "error"]),
        *product(["cohere", "voyage"], ["body", "headers"]),
    ],
)
def test_a_server_that_drips_is_given_up_at_the_timeout(
    provider: str, where: str, server: RawServer, asynchronous: bool
) -> None:
    """The timeout is for the whole exchange, not for each byte."""
    stop = threading.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n"
    error_head = b"HTTP/1.1 500 Oops\r\ncontent-length: 100000\r\n\r\n"

    def pieces(first: bytes, rest: bytes) -> Iterator[bytes]:
        yield first
        yield from dripping(rest, 0.1, stop)

    def answer(body: dict[str, Any], texts: list[str]) -> Reply:
        return {
            "body": Reply(raw=pieces(head + b"\r\n", b" " * 1000)),
            "chunks": Reply(body=pieces(b" ", b" " * 1000)),
            "headers": Reply(raw=pieces(head, b"x-" + b"a" * 1000)),
            "status line": Reply(raw=dripping(head * 10, 0.1, stop)),
            "error": Reply(raw=pieces(error_head, b" " * 1000)),
        }[where]

    server.answer = answer
    router = build(server, provider, timeout=0.4)
    began = time.monotonic()
    with pytest.raises(NoModelAvailableError) as caught:
        embed(router, asynchronous, TEXTS, input_type="document")
    took = time.monotonic() - began
    stop.set()
    router.close()

    assert isinstance(caught.value.attempts[0].error, RequestTimeoutError)
    assert took < 1.7


@pytest.mark.slow
@pytest.mark.parametrize("provider", ALL)
def test_a_right_answer_of_any_length_is_no_fault(provider: str, server: RawServer, asynchronous: bool) -> None:
    """Lists of long numbers, with the texts repeated."""
    texts = [f"{number} " + "é" * 2000 for number in range(100)]

    def answer(received: dict[str, Any], texts: list[str]) -> Reply:
        numbers = [[1 / 3 * 10 ** -(place % 5) for place in range(1536)] for _ in texts]
        data = [{"index": place, "embedding": row, "text": texts[place]} for place, row in enumerate(numbers)]
        return Reply(200, {"data": data, "id": "1", "embeddings": {"float": numbers}, "texts": texts})

    server.answer = answer
    result = ask(server, provider, asynchronous, texts, dimensions=1536)

    assert result.vectors.shape == (100, 1536)


# The name of the model


@pytest.mark.parametrize("provider", WITH_INDEX)
@pytest.mark.parametrize("name", ["house-model", "maker/house-model:latest", None, 3, ""])
def test_the_name_that_the_server_gives_the_model(
    provider: str, name: Any, server: RawServer, asynchronous: bool
) -> None:
    """Where it is a name; see test_served_names for what follows."""
    from embedrouter.models import load_catalogue, resolve
    from embedrouter.providers import create, describe

    server.answer = lambda body, texts: Reply(body={"data": rows(texts), "model": name})
    model = declare(server, provider)
    known = describe(model, load_catalogue(), None)
    candidate = resolve(model, known.card, dimensions=None, index=0, rank=0, local=False, identity=None)
    backend = create(model, known, candidate)

    async def answer() -> Any:
        try:
            return await backend.aembed(TEXTS, "document", timeout=5)
        finally:
            await backend.aclose()

    found = asyncio.run(answer()) if asynchronous else backend.embed(TEXTS, "document", timeout=5)
    backend.close()

    assert found.model == (name if isinstance(name, str) and name else None)


# Messages


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_says_which_variable_was_read(
    provider: str, status: int, server: RawServer, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or which argument."""
    variables = {"openai": "OPENAI_API_KEY", "cohere": "CO_API_KEY", "voyage": "VOYAGE_API_KEY"}
    server.answer = always(Reply(status, {"detail": "wrong"}))
    monkeypatch.setenv("TEAM_KEY", KEY)
    monkeypatch.setenv(variables[provider], KEY)
    origins: list[tuple[dict[str, Any], str]] = [
        ({"api_key": None}, variables[provider]),
        ({"api_key": None, "api_key_env": "TEAM_KEY"}, "TEAM_KEY"),
        ({}, "api_key="),
    ]
    for settings, origin in origins:
        error = failure(server, provider, asynchronous, **settings)
        assert isinstance(error, AuthenticationError)
        assert origin in str(error)
        assert KEY not in str(error)


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 402])
@pytest.mark.parametrize("provider", ALL)
def test_a_message_names_the_address_and_the_next_action(
    provider: str, status: int, server: RawServer, asynchronous: bool
) -> None:
    """Host and path, without a query."""
    server.answer = always(Reply(status, {"detail": "no"}))
    with pytest.raises((NoModelAvailableError, BackendError)) as caught:
        ask(server, provider, asynchronous, ["one"])
    message = str(caught.value)
    path = "/v2/embed" if provider == "cohere" else "/v1/embeddings"

    assert f"{server.url.removeprefix('http://')}{path}" in message
    assert f"{provider}:house-model" in message
    assert message.rstrip().endswith((".", ")"))
    assert f"HTTP {status}" in message


@pytest.mark.parametrize(("attempts", "line"), [(5, "1-5. "), (2, "1-2. "), (1, "1. ")])
def test_equal_attempts_are_one_line(attempts: int, line: str, server: RawServer, asynchronous: bool) -> None:
    """With their number."""
    server.answer = always(Reply(500, {"error": {"message": "down"}}))
    policy = RetryPolicy(attempts=attempts, initial_wait=0)
    with pytest.raises(NoModelAvailableError) as caught:
        ask(server, "openai", asynchronous, ["one"], retry=policy)
    message = str(caught.value)

    assert len(caught.value.attempts) == attempts
    assert message.count("down") == 1
    assert line in message
    assert (f"({attempts} times)" in message) is (attempts > 1)
