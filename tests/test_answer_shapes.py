"""Answers of gateways and servers in shapes that their protocol does not have: what is read all the same, and what not.

Each shape is one that a public server, gateway or proxy gives; see ``tests/test_answers.py`` for the usual ones.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedrouter import RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    NoModelAvailableError,
    RateLimitedError,
    UnavailableError,
)
from embedrouter.providers._connections import host_of
from embedrouter.providers._responses import parse_retry_after
from tests.either import embed
from tests.raw_server import RawServer, Reply, rows, vectors
from tests.test_answers import KEY, TEXTS, always, declare, failure

TWICE = RetryPolicy(attempts=2, initial_wait=0)


@pytest.fixture
def server() -> Iterator[RawServer]:
    running = RawServer()
    yield running
    running.close()


def body_of(texts: list[str], **changes: Any) -> dict[str, Any]:
    return {"object": "list", "data": rows(texts), "model": "house-model", "usage": {"prompt_tokens": 6}, **changes}


def router_of(server: RawServer, provider: str = "openai") -> Router:
    return Router([declare(server, provider, price="1")], cache=None, ledger=":memory:", retry=TWICE)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"total_tokens": 6}, 6),  # Voyage
        ({"input_tokens": 6}, 6),
        ({"prompt_tokens": None, "total_tokens": 6}, 6),
        ("6 tokens", 9),
        (6, 9),
        ([{"prompt_tokens": 6}], 9),
        (None, 9),
    ],
)
@pytest.mark.parametrize("provider", ["openai", "voyage"])
def test_what_is_billed_is_read_in_other_fields_and_spoils_no_vectors_in_another_shape(
    provider: str, usage: object, tokens: int, server: RawServer, asynchronous: bool
) -> None:
    """Where no number can be read, the estimate of nine tokens is booked."""
    server.answer = lambda body, texts: Reply(body=body_of(texts, usage=usage))
    with router_of(server, provider) as router:
        result = embed(router, asynchronous, TEXTS, input_type="document")

    assert result.vectors.tolist() == vectors(TEXTS)
    assert result.usage.tokens == tokens
    assert len(server.received) == 1


def test_a_row_that_is_null_spoils_no_other(server: RawServer, asynchronous: bool) -> None:
    """The text of the missing row is sent once more, alone."""

    def answer(body: dict[str, Any], texts: list[str]) -> Reply:
        found: list[Any] = rows(texts)
        return Reply(body=body_of(texts, data=[found[0], None, found[2]] if len(texts) > 1 else found))

    server.answer = answer
    with router_of(server) as router:
        result = embed(router, asynchronous, TEXTS, input_type="document")

    assert result.vectors.tolist() == vectors(TEXTS)
    assert [body["input"] for body in server.received] == [TEXTS, TEXTS[1:2]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_answer_with_a_byte_order_mark_is_read(encoding: str, server: RawServer, asynchronous: bool) -> None:
    """As some gateways of .NET write it."""
    server.answer = lambda body, texts: Reply(body=json.dumps(body_of(texts)).encode(encoding))
    with router_of(server) as router:
        assert embed(router, asynchronous, TEXTS, input_type="document").vectors.tolist() == vectors(TEXTS)


@pytest.mark.parametrize("frame", ["data: {}\n\ndata: [DONE]\n\n", "cb({})", "{}\n{}", "{}<!-- cached -->"])
def test_no_message_shows_vectors(frame: str, server: RawServer, asynchronous: bool) -> None:
    """Of an answer in another frame than JSON, such as events or a callback; texts can be guessed from vectors."""
    server.answer = lambda body, texts: Reply(body=frame.replace("{}", json.dumps(body_of(texts))))
    error = failure(server, "openai", asynchronous)

    assert type(error) is BadResponseError
    assert "0.5" not in str(error)
    assert "Check base_url." in str(error)


@pytest.mark.parametrize(
    ("coding", "says"), [("", "perhaps compressed"), ("x-gzip", "perhaps compressed"), ("wrongly gzip", "")]
)
def test_a_coding_that_headers_do_not_name_is_no_broken_connection(
    coding: str, says: str, server: RawServer, asynchronous: bool
) -> None:
    """A proxy compressed the answer and left the header out, or the other way round."""
    named = {"content-encoding": "gzip" if coding == "wrongly gzip" else coding} if coding else {}
    server.answer = lambda body, texts: Reply(
        body=b"{}" if coding == "wrongly gzip" else gzip.compress(json.dumps(body_of(texts)).encode()), headers=named
    )
    error = failure(server, "openai", asynchronous)

    assert type(error) is BadResponseError
    assert says in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "change",
    [lambda vector: [vector], lambda vector: {"values": vector}, json.dumps],
    ids=["nested", "object", "text"],
)
def test_vectors_in_another_shape_say_what_to_check(
    change: Callable[[list[float]], Any], server: RawServer, asynchronous: bool
) -> None:
    """Not the name of an exception."""
    server.answer = lambda body, texts: Reply(
        body=body_of(texts, data=[{**row, "embedding": change(row["embedding"])} for row in rows(texts)])
    )
    assert "Check base_url and encoding_format=" in str(failure(server, "openai", asynchronous))


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ({"vectors": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
         RateLimitedError, 429),
        ({"vectors": None, "base_resp": {"status_code": 1002, "status_msg": "rate limit exceeded(RPM)"}},
         RateLimitedError, 429),
        ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, RateLimitedError, 429),
        ({"error_code": 110, "error_msg": "Access token invalid or no longer valid"}, AuthenticationError, 401),
        ({"Response": {"Error": {"Code": "AuthFailure", "Message": "The SecretId is not found"}}},
         AuthenticationError, 401),
        ({"success": False, "result": None, "errors": [{"code": 10000, "message": "Authentication error"}]},
         AuthenticationError, 401),
        ({"data": None, "errors": [{"message": "Unauthorized"}]}, AuthenticationError, 401),
        ({"code": 16, "message": "invalid api key", "details": []}, AuthenticationError, 401),
        ({"__type": "ThrottlingException", "message": "Rate exceeded"}, RateLimitedError, 429),
        ({"error": {"message": "no", "type": "invalid_api_key"}}, AuthenticationError, 401),
        ({"success": False, "error": [{"code": 2001, "message": "Please configure the gateway"}]},
         BadResponseError, None),
    ],
)  # fmt: skip
def test_an_error_with_status_200_is_known_by_its_words(
    body: Any, kind: type[BackendError], status: int | None, server: RawServer, asynchronous: bool
) -> None:
    """A wrong key is no silent step to another model, and a limit is waited for."""
    server.answer = always(Reply(200, body))
    error = failure(server, "openai", asynchronous)

    assert type(error) is kind
    assert error.status == status


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (402, ""),
        (402, {"detail": {"error": "inference prohibited, please enter a payment method"}}),
        (
            400,
            {"error": {"code": "Arrearage", "message": "Make sure your account is in good standing."}},
        ),
        (429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
    ],
)
def test_an_account_without_money_is_told_in_the_words_of_other_makers(
    status: int, body: Any, server: RawServer, asynchronous: bool
) -> None:
    """And not tried again."""
    server.answer = always(Reply(status, body))
    error = failure(server, "openai", asynchronous)

    assert type(error) is RateLimitedError
    assert not error.retryable
    assert "Check the credits" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "advice"),
    [
        (400, "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head>", "https://"),
        (400, "Client sent an HTTP request to an HTTPS server.\n", "https://"),
        (400, "<html><head><title>400 Request Header Or Cookie Too Large</title></head>", "headers="),
        (431, "<html><head><title>431 Request Header Fields Too Large</title></head>", "headers="),
        (400, {"status": "failure", "message": "Either x-portkey-config or x-portkey-provider header is required"},
         "headers="),
        (503, {"error": {"message": "no channel for house-model", "code": "model_not_found"}}, "model's name"),
    ],
)  # fmt: skip
def test_a_fault_of_the_request_is_no_texts(
    status: int, body: Any, advice: str, server: RawServer, asynchronous: bool
) -> None:
    """One request is enough, and the message says what to do."""
    server.answer = always(Reply(status, body))
    error = failure(server, "openai", asynchronous)

    assert type(error) is UnavailableError
    assert advice in str(error)
    assert not error.retryable
    assert len(server.received) == 1


def test_a_wrong_key_is_told_as_such_by_litellm_without_a_database(server: RawServer, asynchronous: bool) -> None:
    """LiteLLM 1.108.7 answers 400 with these words; no text is refused."""
    refusal = {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}
    server.answer = always(Reply(400, {"error": refusal}))
    error = failure(server, "openai", asynchronous)

    assert type(error) is AuthenticationError
    assert "api_key=" in str(error)
    assert len(server.received) == 1


def test_a_page_that_refuses_may_be_a_firewalls(server: RawServer, asynchronous: bool) -> None:
    """The key may be right."""
    server.answer = always(Reply(403, "<!DOCTYPE html><title>Attention Required!</title>"))
    error = failure(server, "openai", asynchronous)

    assert type(error) is AuthenticationError
    assert "Attention Required!" in str(error)
    assert "firewall" in str(error)
    assert "api_key=" in str(error)
    assert KEY not in str(error)


@pytest.mark.parametrize("status", [408, 504, 524])
def test_what_a_gateway_gave_up_may_be_billed_and_is_listed(status: int, server: RawServer, asynchronous: bool) -> None:
    """They have sent the request on, and the provider answers it when they have given up."""
    server.answer = always(Reply(status, "<title>Gateway Time-out</title>"))
    router = router_of(server)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, ["one text"], input_type="document")
    router.close()

    assert len(router.ledger.unconfirmed()) == len(server.received) == 2


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ({"ratelimit": "limit=100, remaining=0, reset=50"}, 50),
        ({"ratelimit": '"minute";r=0;t=30'}, 30),
        ({"ratelimit": '"minute";r=7;t=30'}, None),
        ({"x-rate-limit-reset": "9", "x-rate-limit-remaining": "0"}, 9),
        ({"anthropic-ratelimit-tokens-reset": "2015-10-21T07:28:00Z", "anthropic-ratelimit-tokens-remaining": "0"}, 0),
        ({"x-ratelimit-reset-requests": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"x-ratelimit-reset-requests": "-3"}, None),
    ],
)  # fmt: skip
def test_the_end_of_a_limit_is_read_from_the_headers_of_other_makers(
    sent: dict[str, str], seconds: float | None
) -> None:
    """Where a refusal says no wait."""
    assert parse_retry_after(sent, limited=True) == seconds


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    """Without brackets the port cannot be told from the address."""
    assert host_of("http://[::1]:8000/v1") == "[::1]:8000"
    assert host_of("https://[2001:db8::1]/v1") == "[2001:db8::1]"
