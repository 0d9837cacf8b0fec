"""A company's network: certificates, proxies, addresses, redirects, on real sockets, with every provider."""

from __future__ import annotations

import shutil
import socket
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from embedrouter import Model, RetryPolicy, Router
from embedrouter.errors import BackendError, ConfigError, EmbedRouterError, NoModelAvailableError, UnavailableError
from tests.company_network import (
    Authority,
    Server,
    closing,
    proxy,
    redirect,
    refusing_handshakes,
    serve,
    speaking_http,
    tls,
)
from tests.either import embed
from tests.emulator import Emulator, Fault
from tests.virtual_time import VirtualTime

KEY = "sk-test-0123456789"
TEXT = ["a text"]
MODELS = {
    "openai": "openai:text-embedding-3-small",
    "azure": "azure_openai:text-embedding-3-small",
    "cohere": "cohere:embed-v4.0",
    "voyage": "voyage:voyage-4-lite",
    "google": "google_genai:gemini-embedding-001",
}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
TWICE = RetryPolicy(attempts=2, timeout=20)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    provider: str = request.param
    return provider


@pytest.fixture(autouse=True)
def _no_network_of_the_tester(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies and certificates of the machine that runs the tests stay out of them."""
    for variable in (*PROXIES, *map(str.lower, PROXIES), *TRUST, "OPENAI_API_BASE", "CO_API_URL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl is not here")
    made = Authority.create(tmp_path_factory.mktemp("authority") / "company")
    made.issue("right", "DNS:localhost,IP:127.0.0.1,DNS:api.company.test")
    made.issue("other", "DNS:other.company.test")
    made.issue("expired", days=-1)
    return made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def url_of(emulator: Emulator, name: str, *, scheme: str = "http", host: str = "127.0.0.1", port: int = 0) -> str:
    """Return where a provider is emulated, or the same path at another server."""
    parts = urlsplit(getattr(emulator, f"{name}_url"))
    return f"{scheme}://{host}:{port or parts.port}{parts.path}"


def port_of(emulator: Emulator) -> int:
    return urlsplit(emulator.openai_url).port or 0


def router_of(name: str, url: str | None, **settings: Any) -> Router:
    azure = {"api_version": "2024-10-21"} if name == "azure" else {}
    model = Model(MODELS[name], **{"base_url": url, "api_key": KEY, "timeout": 5, **azure, **settings})
    return Router([model], cache=None, ledger=":memory:", retry=TWICE, sleep=lambda seconds: None)


def ask(router: Router, asynchronous: bool) -> None:
    embed(router, asynchronous, TEXT, input_type="document")
    router.close()


def failures(router: Router, asynchronous: bool) -> list[BackendError]:
    """Return the errors of the attempts that a call makes."""
    with pytest.raises(NoModelAvailableError) as caught:
        embed(router, asynchronous, TEXT, input_type="document")
    router.close()
    return [attempt.error for attempt in caught.value.attempts]


# Certificates


@pytest.mark.parametrize(
    ("certificate", "trusted", "reason", "advice"),
    [
        ("right", False, "unable to get local issuer certificate", "SSL_CERT_FILE"),
        ("other", True, "certificate is not valid for '127.0.0.1'", "Check base_url"),
        ("expired", True, "certificate has expired", "clock"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_said_and_not_tried_again(
    certificate: str,
    trusted: bool,
    reason: str,
    advice: str,
    name: str,
    asynchronous: bool,
    emulator: Emulator,
    authority: Authority,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another try would find the same certificate."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    server = stack.enter_context(tls(authority.folder / f"{certificate}.pem", port_of(emulator)))
    url = url_of(emulator, name, scheme="https", port=server.port)
    [error] = failures(router_of(name, url), asynchronous)

    assert isinstance(error, UnavailableError)
    assert not error.retryable
    assert not error.perhaps_billed
    assert f"127.0.0.1:{server.port}" in str(error)
    assert reason in str(error)
    assert advice in str(error)
    assert emulator.calls == 0


@pytest.mark.parametrize("variable", TRUST)
def test_the_companys_authority_is_read_from_the_environment(
    variable: str,
    name: str,
    asynchronous: bool,
    emulator: Emulator,
    authority: Authority,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under the three names that people set, by every provider, in both forms."""
    where = authority.file
    if variable == "SSL_CERT_DIR":
        subprocess.run(["openssl", "rehash", str(authority.folder)], check=True, capture_output=True)
        where = authority.folder
    monkeypatch.setenv(variable, str(where))
    server = stack.enter_context(tls(authority.folder / "right.pem", port_of(emulator)))
    ask(router_of(name, url_of(emulator, name, scheme="https", port=server.port)), asynchronous)

    assert emulator.calls == 1


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", ["no file", "no certificate"])
def test_a_file_of_authorities_that_cannot_be_read_names_its_variable(
    variable: str, content: str, name: str, asynchronous: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a bare OSError of Python's."""
    file = tmp_path / "authorities.pem"
    if content == "no certificate":
        file.write_text("nothing of use")
    monkeypatch.setenv(variable, str(file))
    with pytest.raises(ConfigError, match=variable):
        ask(router_of(name, "https://127.0.0.1:9/v1"), asynchronous)


# Names, ports, handshakes


@pytest.mark.parametrize("host", ["no-such-host.invalid", "gateway.corp.invalid", "llm.invalid"])
def test_an_unknown_name_is_said(host: str, name: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the host, and the variable for those who need a proxy to resolve names."""
    resolve = socket.getaddrinfo

    def known(asked: Any, *rest: Any, **more: Any) -> Any:
        """Resolve names at once, as the tester's network may not."""
        if asked in (host, host.encode()):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(asked, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", known)
    [error] = failures(router_of(name, f"https://{host}/v1"), asynchronous)

    assert type(error) is UnavailableError
    assert not error.retryable
    assert f"({host}): the name is unknown" in str(error)
    assert "HTTPS_PROXY" in str(error)


def test_a_server_that_has_answered_is_tried_longer(
    asynchronous: bool, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address is right, so its name will be known again: a network that is away for a moment ends no long run."""
    router = router_of("openai", url_of(emulator, "openai", host="localhost"))
    embed(router, asynchronous, TEXT, input_type="document")

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    router.close()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", unknown)
        errors = failures(router, asynchronous)

    assert [error.retryable for error in errors] == [True, True]
    assert not any(error.unreached for error in errors)


def test_a_server_that_never_answered_is_tried_for_a_second(asynchronous: bool) -> None:
    """It may be one that starts; or the port is wrong, and a person waits for the reason, also at the tenth call."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    model = Model(MODELS["openai"], base_url=url, api_key=KEY)
    clock = VirtualTime()
    router = Router([model], cache=None, ledger=":memory:", clock=clock, sleep=clock.sleep)
    for _ in range(10):
        began = clock()
        with pytest.raises(NoModelAvailableError, match="no program listens"):
            embed(router, asynchronous, TEXT, input_type="document")
        assert clock() - began <= 1
    router.close()


@pytest.mark.parametrize(
    ("end", "meant"),
    [("/v1/embeddings", "/v1"), ("/v1/embeddings/", "/v1"), ("", "/v1"), ("/v1/chat/completions", "/v1")],
)
def test_a_path_that_is_wrong_is_told_the_right_one(
    end: str, meant: str, asynchronous: bool, emulator: Emulator
) -> None:
    """After one try, with the address that was called."""
    base = emulator.openai_url.removesuffix("/v1")
    [error] = failures(router_of("openai", base + end), asynchronous)

    assert error.status == 404
    assert f"{base.removeprefix('http://')}{end.rstrip('/')}/embeddings" in str(error)
    assert f"base_url='{base}{meant}'" in str(error)


def test_an_error_is_one_short_traceback(asynchronous: bool, emulator: Emulator) -> None:
    """Of the user's lines and of the one call, without the stages and the exceptions below the SDK's."""
    emulator.script(Fault.status(401))
    for url in (emulator.openai_url, "https://nowhere.invalid/v1", f"{emulator.openai_url}/x"):
        with pytest.raises(EmbedRouterError) as caught:
            ask(router_of("openai", url), asynchronous)
        lines = "".join(traceback.format_exception(caught.value)).splitlines()

        assert sum(line.startswith("Traceback") for line in lines) == 1
        assert len(lines) < 40 + 30 * asynchronous  # asyncio.run has frames, too


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_a_closed_port_is_said(host: str, name: str, asynchronous: bool) -> None:
    """With the port, which is what is wrong."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    error, *_ = failures(router_of(name, f"http://{host}:{port}/v1"), asynchronous)

    assert not error.perhaps_billed
    assert f"({host}:{port}): no program listens on that port" in str(error)
    assert "base_url" in str(error)


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (speaking_http, "does not speak TLS"),
        (refusing_handshakes, "handshake was refused"),
        (closing, "broke off|closed"),
    ],
)
def test_a_handshake_that_fails_is_said(
    handle: Callable[[socket.socket, Server], None], reason: str, name: str, asynchronous: bool, stack: ExitStack
) -> None:
    """Nothing was sent."""
    server = stack.enter_context(serve(handle))
    error, *_ = failures(router_of(name, f"https://127.0.0.1:{server.port}/v1"), asynchronous)

    assert not error.perhaps_billed
    assert f"127.0.0.1:{server.port}" in str(error)
    assert any(part in str(error) for part in reason.split("|"))


def test_a_server_that_asks_for_a_certificate_of_the_client_is_said(
    name: str,
    asynchronous: bool,
    emulator: Emulator,
    authority: Authority,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client of one's own can have one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    server = stack.enter_context(tls(authority.folder / "right.pem", port_of(emulator), wanted=authority.file))
    error, _ = failures(router_of(name, url_of(emulator, name, scheme="https", port=server.port)), asynchronous)

    assert "handshake was refused" in str(error)
    assert "client=" in str(error)


# Proxies


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_requests_go_through_the_proxy(
    variable: str,
    name: str,
    asynchronous: bool,
    emulator: Emulator,
    authority: Authority,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of every provider, in both forms, with the proxy's own user and password."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    server = stack.enter_context(tls(authority.folder / "right.pem", port_of(emulator)))
    way = stack.enter_context(proxy(server.port, sign_in="Proxy-Authorization: Basic dXNlcjpwYXNz"))
    monkeypatch.setenv(variable, f"http://user:pass@127.0.0.1:{way.port}")
    ask(router_of(name, url_of(emulator, name, scheme="https", host="api.company.test", port=443)), asynchronous)

    assert emulator.calls == 1
    assert way.requests[0].startswith(b"CONNECT api.company.test:443")


@pytest.mark.parametrize("exempt", ["127.0.0.1", "localhost,127.0.0.1", "*"])
def test_hosts_in_no_proxy_are_called_directly(
    exempt: str, name: str, asynchronous: bool, emulator: Emulator, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a gateway in the company's own network is."""
    way = stack.enter_context(proxy(port_of(emulator), "403 Forbidden"))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{way.port}")
    monkeypatch.setenv("NO_PROXY", exempt)
    ask(router_of(name, url_of(emulator, name)), asynchronous)

    assert emulator.calls == 1
    assert way.connections == 0


@pytest.mark.parametrize(
    ("refusal", "reason", "variable", "attempts"),
    [
        ("403 Forbidden", "(403 Forbidden)", "NO_PROXY", 1),
        ("407 Proxy Authentication Required", "(407 Proxy Authentication Required)", "HTTPS_PROXY", 1),
        ("405 Method Not Allowed", "(405 Method Not Allowed)", "NO_PROXY", 1),
        ("502 Bad Gateway", "(502 Bad Gateway)", "NO_PROXY", 2),
    ],
)
def test_a_proxy_that_refuses_is_named_with_its_reason(
    refusal: str,
    reason: str,
    variable: str,
    attempts: int,
    name: str,
    asynchronous: bool,
    stack: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without its password. What the proxy does not allow is not tried again."""
    way = stack.enter_context(proxy(0, refusal))
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hidden-word@127.0.0.1:{way.port}")
    error, *others = failures(router_of(name, "https://api.company.test/v1"), asynchronous)

    assert len(others) == attempts - 1
    assert not error.perhaps_billed
    assert f"api.company.test through the proxy 127.0.0.1:{way.port}" in str(error)
    assert reason in str(error)
    assert variable in str(error)
    assert "hidden-word" not in repr((error, error.__cause__))


def test_a_proxy_that_forwards_without_a_tunnel_may_ask_for_a_password_too(
    name: str, asynchronous: bool, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses with http:// are not tunnelled: the proxy's status comes as the answer."""
    way = stack.enter_context(proxy(0, "407 Proxy Authentication Required"))
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{way.port}")
    [error] = failures(router_of(name, "http://api.company.test/v1"), asynchronous)

    assert isinstance(error, UnavailableError)
    assert "asks for a user and a password" in str(error)


@pytest.mark.parametrize("where", ["http://127.0.0.1:{port}", "http://proxy.invalid:3128", "127.0.0.1:{port}"])
def test_a_proxy_that_is_not_there_is_said(
    where: str, name: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the provider's host is closed or unknown, but the proxy's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = where.format(port=taken.getsockname()[1])
    monkeypatch.setenv("HTTPS_PROXY", address)
    error, *_ = failures(router_of(name, "https://api.company.test/v1"), asynchronous)

    assert f"through the proxy {address.removeprefix('http://')}" in str(error)
    assert "Check the proxy in HTTPS_PROXY" in str(error)


@pytest.mark.parametrize("value", ["socks9://127.0.0.1:1", "ftp://proxy:secret-word@127.0.0.1", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_a_wrong_setting(
    value: str, name: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a bare ValueError of the HTTP library's."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        ask(router_of(name, "https://api.company.test/v1"), asynchronous)

    assert "secret-word" not in repr((caught.value, caught.value.__cause__))


@pytest.mark.parametrize("machine", ["127.0.0.1", "localhost", "default"])
def test_no_password_of_netrc_replaces_the_key(
    machine: str, name: str, asynchronous: bool, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Voyage's SDK sends it in the key's place."""
    entry = "default" if machine == "default" else f"machine {machine}"
    (tmp_path / ".netrc").write_text(f"{entry} login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    host = "localhost" if machine == "localhost" else "127.0.0.1"
    with Emulator(keys={KEY}) as strict:
        ask(router_of(name, url_of(strict, name, host=host)), asynchronous)


# Redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_to_another_host_is_followed(
    status: int, name: str, asynchronous: bool, emulator: Emulator, stack: ExitStack
) -> None:
    """Texts, the key and the user's headers stay with the server that the user named."""
    elsewhere = url_of(emulator, name, host="localhost") + "/embeddings"
    server = stack.enter_context(redirect(status, elsewhere))
    router = router_of(name, url_of(emulator, name, port=server.port), headers={"X-Team": "search"})
    [error] = failures(router, asynchronous)

    assert isinstance(error, UnavailableError)
    assert not error.retryable
    assert f"HTTP {status}: 127.0.0.1:{server.port} redirects to http://localhost:{port_of(emulator)}" in str(error)
    assert "base_url" in str(error)
    assert emulator.calls == 0


@pytest.mark.parametrize(
    "location", ["//evil.invalid/v1", "https://127.0.0.1:1/", "http://[::1", "http:/\\evil.invalid"]
)
def test_odd_locations_lead_nowhere_else(
    location: str, name: str, asynchronous: bool, emulator: Emulator, stack: ExitStack
) -> None:
    """Without a scheme, with another one, with none that can be read."""
    server = stack.enter_context(redirect(307, location))
    error, *_ = failures(router_of(name, url_of(emulator, name, port=server.port)), asynchronous)

    assert isinstance(error, UnavailableError)
    assert emulator.calls == 0


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_to_the_same_server_is_followed(
    status: int, name: str, asynchronous: bool, emulator: Emulator
) -> None:
    """As of servers that add a slash."""
    target = {
        "openai": "/openai-api/v1/embeddings",
        "azure": "/azure-api/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21",
        "cohere": "/cohere-api/v2/embed",
        "voyage": "/voyage-api/v1/embeddings",
        "google": "/google-api/v1/models/gemini-embedding-001:batchEmbedContents",
    }[name]
    emulator.script(Fault.status(status, body="", headers={"Location": target}), None)
    ask(router_of(name, url_of(emulator, name)), asynchronous)

    assert emulator.calls == 2


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_would_drop_the_texts_says_that_the_address_is_old(
    status: int, name: str, asynchronous: bool, emulator: Emulator
) -> None:
    """HTTP clients follow these with a GET and without a body."""
    emulator.script(Fault.status(status, body="", headers={"Location": "/elsewhere"}), None)
    [error] = failures(router_of(name, url_of(emulator, name)), asynchronous)

    assert "has moved the address" in str(error)
    assert emulator.calls == 1
