"""Where requests go: addresses of the environment, Azure's two interfaces, clients of the user's own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import AuthenticationError, ConfigError, NoModelAvailableError
from embedrouter.testing import NO_WAITING
from tests.company_network import Server, read_request, serve
from tests.either import embed
from tests.emulator import Emulator
from tests.virtual_time import VirtualTime

KEY = "sk-of-the-gateway-0123"
SMALL = "text-embedding-3-small"
VARIABLES = [
    ("openai:text-embedding-3-small", "OPENAI_BASE_URL", "openai_url", "OPENAI_API_KEY"),
    ("openai:text-embedding-3-small", "OPENAI_API_BASE", "openai_url", "OPENAI_API_KEY"),
    ("azure_openai:text-embedding-3-small", "AZURE_OPENAI_ENDPOINT", "azure_url", "AZURE_OPENAI_API_KEY"),
    ("cohere:embed-v4.0", "CO_API_URL", "cohere_url", "CO_API_KEY"),
]
each_variable = pytest.mark.parametrize(("name", "variable", "url", "key"), VARIABLES)


@pytest.fixture(autouse=True)
def _version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")


def ask(asynchronous: bool, *models: Model | str) -> None:
    router = Router(list(models), cache=None, ledger=":memory:", retry=RetryPolicy(attempts=1))
    embed(router, asynchronous, ["a text"], input_type="document")
    router.close()


# Variables of the environment


@each_variable
def test_the_variables_of_the_sdks_are_followed(
    name: str, variable: str, url: str, key: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's key belongs to the gateway: sent to the vendor, both the key and the texts would be given away."""
    with Emulator(keys={KEY}) as gateway:
        monkeypatch.setenv(variable, getattr(gateway, url))
        monkeypatch.setenv(key, KEY)
        ask(asynchronous, name)

        assert gateway.calls == 1


@each_variable
def test_a_declared_address_takes_precedence(
    name: str,
    variable: str,
    url: str,
    key: str,
    asynchronous: bool,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A variable that is set for another program does not redirect a declared model."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    ask(asynchronous, Model(name, base_url=getattr(emulator, url), api_key=KEY))

    assert emulator.calls == 1


def test_the_sdks_own_variable_takes_precedence_over_langchains(
    asynchronous: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one counts as none."""
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.openai_url)
    ask(asynchronous, Model("openai:text-embedding-3-small", api_key=KEY))
    monkeypatch.setenv("OPENAI_API_BASE", emulator.openai_url)
    monkeypatch.setenv("OPENAI_BASE_URL", " ")
    ask(asynchronous, Model("openai:text-embedding-3-small", api_key=KEY))

    assert emulator.calls == 2


@each_variable
def test_a_password_in_an_address_of_the_environment_is_refused(
    name: str, variable: str, url: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages and logs show addresses."""
    monkeypatch.setenv(variable, "https://user:hidden-word@gateway.test/v1")
    with pytest.raises(ConfigError, match=variable) as caught:
        Router([name], cache=None)

    assert "hidden-word" not in str(caught.value)


@each_variable
def test_a_configuration_that_was_found_by_search_follows_the_variables_too(
    name: str,
    variable: str,
    url: str,
    key: str,
    asynchronous: bool,
    tmp_path: Path,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file cannot set them. Its own address still needs a key's variable of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, getattr(emulator, url))
    monkeypatch.setenv(key, KEY)
    Path("embedrouter.toml").write_text(f'cache = false\nledger = ":memory:"\n[[models]]\nmodel = "{name}"\n')
    router = Router.from_config()
    embed(router, asynchronous, ["a text"], input_type="document")
    router.close()
    assert emulator.calls == 1

    with Path("embedrouter.toml").open("a") as file:
        file.write('base_url = "https://evil.test"\n')
    with pytest.raises(ConfigError, match="api_key_env"):
        Router.from_config()


@each_variable
def test_the_address_of_the_environment_stands_in_messages(
    name: str, variable: str, url: str, key: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise people look for the fault at the vendor."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
    monkeypatch.setenv(variable, f"http://{host}")
    monkeypatch.setenv(key, KEY)
    with pytest.raises(NoModelAvailableError, match=host):
        ask(asynchronous, name)


# Azure


def answering(connection: socket.socket, server: Server) -> None:
    """Answer a request for one text with a vector."""
    server.requests.append(read_request(connection))
    row = {"object": "embedding", "index": 0, "embedding": [1.0] + [0.0] * 1535}
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    body = json.dumps({"object": "list", "data": [row], "model": SMALL, "usage": usage}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode() + body)


def token() -> str:
    return "entra-token"


class Token:
    """A provider that is an object, as those of azure-identity may be, and says in which thread it was asked."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __call__(self) -> str:
        self.threads.append(threading.get_ident())
        return "entra-token"


@pytest.mark.parametrize("path", ["/openai/v1", "/openai/v1/", "/api/projects/one/openai/v1"])
@pytest.mark.parametrize("provider", ["azure_openai", "openai"])
@pytest.mark.parametrize("give", [lambda: token, Token], ids=["function", "object"])
def test_azures_interface_without_versions_takes_a_token(
    path: str, provider: str, give: Callable[[], Any], asynchronous: bool
) -> None:
    """Without a key; the name of the deployment is the model's name there."""
    with serve(answering) as azure:
        model = Model(
            f"{provider}:{SMALL}",
            base_url=f"http://127.0.0.1:{azure.port}{path}",
            azure_ad_token_provider=give(),
            deployment="my-deployment",
        )
        ask(asynchronous, model)
    [request] = azure.requests

    assert request.startswith(f"POST {path.rstrip('/')}/embeddings HTTP".encode())
    assert b"authorization: bearer entra-token" in request.lower()
    assert b'"my-deployment"' in request


@pytest.mark.parametrize("version", [None, "preview"])
def test_azures_interface_without_versions_takes_a_key(version: str | None, asynchronous: bool) -> None:
    """``OPENAI_API_VERSION`` is for the other interface; a declared version is sent."""
    with serve(answering) as azure:
        url = f"http://127.0.0.1:{azure.port}/openai/v1"
        ask(asynchronous, Model(f"azure_openai:{SMALL}", base_url=url, api_key=KEY, api_version=version))
    [request] = azure.requests

    assert (b"api-version" in request) == (version is not None)
    assert f"bearer {KEY}".encode() in request.lower()


def test_a_token_provider_does_not_hold_up_the_event_loop(emulator: Emulator) -> None:
    """It may ask Azure over the network; it is asked in a thread, with both interfaces."""
    provider = Token()
    with Emulator(keys={"entra-token"}) as azure, serve(answering) as other:
        for url in (azure.azure_url, f"http://127.0.0.1:{other.port}/openai/v1"):
            ask(True, Model(f"azure_openai:{SMALL}", base_url=url, azure_ad_token_provider=provider))

    assert len(provider.threads) == 2
    assert threading.get_ident() not in provider.threads


def test_a_token_provider_of_asyncio_is_awaited() -> None:
    """As those of ``azure.identity.aio`` are."""

    async def atoken() -> str:
        await asyncio.sleep(0)
        return "entra-token"

    with serve(answering) as azure:
        given: Any = atoken
        url = f"http://127.0.0.1:{azure.port}/openai/v1"
        ask(True, Model(f"azure_openai:{SMALL}", base_url=url, azure_ad_token_provider=given))

    assert b"entra-token" in azure.requests[0]


def test_no_token_for_azure_is_sent_to_openai() -> None:
    """Without an address it would be."""
    with pytest.raises(ConfigError, match="base_url"):
        Router([Model(f"openai:{SMALL}", azure_ad_token_provider=token)], cache=None)


# Voyage


def test_voyage_takes_a_client_of_httpx_and_leaves_it_open(emulator: Emulator) -> None:
    """With whatever proxy and certificates it has, in both forms."""

    async def call() -> None:
        async with httpx.AsyncClient() as async_client:
            with httpx.Client() as client:
                clients: Any = {"client": client, "async_client": async_client}
                model = Model("voyage:voyage-4-lite", base_url=emulator.voyage_url, api_key=KEY, **clients)
                router = Router([model], cache=None, ledger=":memory:")
                await router.aembed(["a"], input_type="document")
                await asyncio.to_thread(router.embed, ["b"], input_type="document")
                await router.aclose()

                assert not client.is_closed
                assert not async_client.is_closed

    asyncio.run(call())

    assert emulator.calls == 2


def test_other_clients_than_httpxs_are_refused_for_voyage() -> None:
    """The SDK's own says what to pass instead."""
    import aiohttp
    import openai
    import requests
    import voyageai

    sdk: Any = voyageai
    for name in ("client", "async_client"):
        for client in (sdk.Client(KEY), sdk.AsyncClient(KEY)):
            with pytest.raises(ConfigError, match=rf"{name}= takes a client of httpx.*api_key="):
                Router([Model("voyage:voyage-4", **{name: client})], cache=None)
    for other in (requests.Session(), openai.OpenAI(api_key=KEY), aiohttp.ClientSession, httpx.AsyncClient()):
        with pytest.raises(ConfigError, match=r"client= takes a httpx\.Client"):
            Router([Model("voyage:voyage-4", client=other)], cache=None)


def test_keys_of_mongodb_go_to_mongodb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that begin with al-, as in the voyageai SDK."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(401, json={"detail": "no"})

    for key in ("al-0123456789", "pa-0123456789"):
        client = httpx.Client(transport=httpx.MockTransport(answer))
        with pytest.raises((AuthenticationError, NoModelAvailableError)):
            ask(False, Model("voyage:voyage-4", api_key=key, client=client))

    assert seen == ["https://ai.mongodb.com/v1/embeddings", "https://api.voyageai.com/v1/embeddings"]


# Limits


def test_coheres_limit_of_texts_is_kept_without_being_declared(asynchronous: bool, emulator: Emulator) -> None:
    """2,000 a minute: the rest waits for the next minute, and no request is refused."""
    time = VirtualTime()
    model = Model("cohere:embed-v4.0", base_url=emulator.cohere_url, api_key=KEY, dimensions=256, max_concurrency=1)
    router = Router([model], cache=None, ledger=":memory:", retry=NO_WAITING, clock=time, sleep=time.sleep)
    embed(router, asynchronous, [f"text {number}" for number in range(2100)], input_type="document")
    router.close()

    assert sum(len(received.texts) for received in emulator.received) == 2100
    assert sum(time.sleeps) >= 50
