"""Requests for vectors that go past most of the openai SDK: they are its requests, and refusals are its errors."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
import openai
import pytest

from embedrouter import Model, Router
from embedrouter.errors import AuthenticationError, BackendError, UnavailableError
from embedrouter.providers._openai_protocol import translated
from embedrouter.providers._openai_requests import Sender
from tests.either import embed

BODY = {"model": "text-embedding-3-small", "input": ["naïve café", "中文 🙂"], "encoding_format": "base64"}
COUNTED = {"x-stainless-retry-count", "x-stainless-read-timeout", "idempotency-key"}
"""Headers in which the SDK counts its own tries."""


Ways = tuple[Callable[[], httpx2.Response], Callable[[], httpx2.Response]]


def ways(
    answer: Callable[[httpx2.Request], httpx2.Response], asynchronous: bool, *, times: int = 1, **settings: Any
) -> Ways:
    """Return two functions that send ``BODY``: past the SDK, and through it."""
    settings = {"api_key": "k", "base_url": "https://127.0.0.1:9/some/v1", "max_retries": 0, **settings}
    transport = httpx2.MockTransport(answer)

    def run(direct: bool) -> httpx2.Response:
        http = openai.DefaultHttpxClient(transport=transport)
        with openai.OpenAI(http_client=http, **settings) as client:
            sender = Sender(client, http if direct else None)
            return sender.accepted([sender.send(BODY, 7.5) for _ in range(times)][-1])

    async def arun(direct: bool) -> httpx2.Response:
        http = openai.DefaultAsyncHttpxClient(transport=transport)
        async with openai.AsyncOpenAI(http_client=http, **settings) as client:
            sender = Sender(client, http if direct else None)
            return sender.accepted([await sender.send(BODY, 7.5) for _ in range(times)][-1])

    if asynchronous:
        return lambda: asyncio.run(arun(True)), lambda: asyncio.run(arun(False))
    return lambda: run(True), lambda: run(False)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"organization": "org-1", "project": "proj-2"},
        {"default_headers": {"authorization": "Basic a"}},
        {"default_headers": {"X-Team": "search", "user-agent": "ours/1", "openai-organization": "org-1"}},
        {"base_url": "https://127.0.0.1:9"},
        {"base_url": "https://127.0.0.1/v1/"},
        {"base_url": "https://gateway.internal/a%20b/v1"},
    ],
    ids=["plain", "of a project", "own key", "own headers", "no path", "no port", "escaped"],
)
def test_the_request_is_that_of_the_sdk(settings: dict[str, Any], asynchronous: bool) -> None:
    received: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        received.append(request)
        return httpx2.Response(200, json={})

    direct, through = ways(answer, asynchronous, **settings)
    direct(), through()

    ours, theirs = received
    assert (ours.method, str(ours.url)) == (theirs.method, str(theirs.url))
    assert ours.extensions["timeout"] == theirs.extensions["timeout"]
    assert json.loads(ours.read()) == json.loads(theirs.read()) == BODY
    assert ours.headers["content-length"] == str(len(ours.read()))
    expected = {name: value for name, value in theirs.headers.items() if name not in COUNTED}
    assert {**ours.headers, "content-length": ""} == {**expected, "content-length": ""}


ERROR = {"error": {"message": "what was wrong", "type": "some_error", "param": "input", "code": "some_code"}}


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 409, 413, 422, 429, 500, 503])
@pytest.mark.parametrize(
    "content",
    [
        {"json": ERROR},
        {"json": {"message": "at the top", "code": 3}},
        {"json": {"error": "a word"}},
        {"json": {"error": {"message": ["no", "text"]}}},
        {"json": ["a", "list"]},
        {"text": "<html>Bad Gateway</html>"},
        {"content": b""},
        {"content": b"\xff\xfe"},
        {"content": b'{"error": {"message": "maximum context length \xe2\x80"}}'},
        {"content": b'{"error": {"code": "\xe9"}}', "headers": {"content-type": "application/json; charset=latin-1"}},
        {"content": b"[" * 100_000},
    ],
    ids=["error", "flat", "word", "no message", "list", "page", "nothing", "bytes", "cut", "latin-1", "deep"],
)
def test_a_refusal_is_the_error_of_the_sdk(status: int, content: dict[str, Any], asynchronous: bool) -> None:
    direct, through = ways(lambda request: httpx2.Response(status, **content), asynchronous)
    with pytest.raises(openai.APIStatusError) as ours:
        direct()
    with pytest.raises(openai.APIStatusError) as theirs:
        through()

    assert type(ours.value) is type(theirs.value)
    assert str(ours.value) == str(theirs.value)
    assert (ours.value.body, ours.value.code) == (theirs.value.body, theirs.value.code)
    assert ours.value.status_code == status


def test_what_is_sent_again_elsewhere_is_whole(asynchronous: bool) -> None:
    """A gateway may move requests to another address."""
    received: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        received.append(request)
        moved = request.url.path.startswith("/some")
        return httpx2.Response(307, headers={"location": "/other/v1"}) if moved else httpx2.Response(200, json={})

    for run in ways(answer, asynchronous):
        run()

    assert [json.loads(request.read()) for request in received] == [BODY] * 4


def test_cookies_go_back_to_who_set_them(asynchronous: bool) -> None:
    """Gateways keep a session on one of their servers by them."""
    received: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        received.append(request.headers.get("cookie"))
        return httpx2.Response(200, headers={"set-cookie": "server=7; Path=/"}, json={})

    for run in ways(answer, asynchronous, times=2):
        run()

    assert received == [None, "server=7"] * 2


@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("refused"),
        httpx2.ConnectTimeout("too slow"),
        httpx2.ReadTimeout("too slow"),
        httpx2.PoolTimeout("too many"),
        httpx2.ReadError("reset"),
        httpx2.RemoteProtocolError("hung up"),
        httpx2.DecodingError("no gzip"),
        ssl.SSLError(1, "bad record mac"),
        ssl.SSLCertVerificationError(1, "certificate verify failed"),
        anyio.EndOfStream(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failed_connection_is_told_like_the_sdks(error: Exception, asynchronous: bool) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise error

    told = []
    for run in ways(fail, asynchronous):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - compared below
            run()
        told.append(translated(caught.value, Model("openai:text-embedding-3-small", api_key="k"), ["a text"]))
    ours, theirs = told

    assert isinstance(ours, BackendError)
    assert isinstance(theirs, BackendError)
    assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    assert (ours.retryable, ours.perhaps_billed) == (theirs.retryable, theirs.perhaps_billed)


def test_a_damaged_record_of_tls_is_a_failed_connection() -> None:
    """Perhaps the request had arrived."""
    ours = translated(
        ssl.SSLError(1, "bad record mac"), Model("openai:text-embedding-3-small", api_key="k"), ["a text"]
    )

    assert isinstance(ours, UnavailableError)
    assert ours.perhaps_billed


def test_without_a_key_nothing_is_made(asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delattr("openai.DefaultHttpxClient")
    monkeypatch.delattr("openai.DefaultAsyncHttpxClient")
    router = Router(["openai:text-embedding-3-small"], cache=None)

    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        embed(router, asynchronous, ["a"], input_type="query")
