"""Connections: why one failed, whether the request was sent, and redirects to other hosts.

The HTTP libraries and the SDKs wrap the reason several times; the reason is found in the chain of causes. A message
names the host, or the proxy, and the variable of the environment that helps. What a server or a proxy says is not
repeated, except for the number of its status.

A redirect is followed only where texts, headers and the key stay with the server that the user named. A download may
lead elsewhere: it holds no text, and is followed without headers.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ..errors import UnavailableError

NO_CONNECTION = {
    "ConnectError",  # httpx, httpx2
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "UnsupportedProtocol",
    "gaierror",
    "ConnectionRefusedError",
    "SSLCertVerificationError",
    "CertificateError",  # urllib3: the certificate is for another name
    "NewConnectionError",  # urllib3, and so requests
    "ConnectTimeoutError",  # urllib3, botocore
    "EndpointConnectionError",  # botocore
    "ClientConnectorError",  # aiohttp
}
"""Exceptions that mean, as do their subclasses, that no connection to the provider was made."""
CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""Failures of TLS that mean that the other side, or the network, closed the connection."""
NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
"""How OpenSSL says that the answer is not TLS."""
NOT_HTTP = "illegal status line"
"""How h11 says that the answer is not HTTP, such as that of a server that speaks TLS."""
PROXY_STATUS = re.compile(r"(?:Tunnel connection failed: )?([0-9]{1,9})(?![0-9])")
"""How the libraries say what a proxy answered to CONNECT; the longer form is that of http.client."""
DEFAULT_PORTS = {"http": 80, "https": 443}
KEPT_METHOD = frozenset({307, 308})
"""Redirects that HTTP clients follow with the same method and body; after the others they send a GET."""

TRUST = (
    "If that server, or a proxy on the way, has a certificate of your company's, set {variable} to a PEM file with the "
    "company's certificate authority."
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed."""

    reason: str
    advice: str
    permanent: bool = False
    """Whether the same request would fail again."""


def was_sent(error: BaseException | None) -> bool:
    """Return whether a request whose connection failed may have reached the provider: not if none was made."""
    causes = list(_causes(error))
    if any(kind.__name__ in NO_CONNECTION for cause in causes for kind in type(cause).__mro__):
        return False
    return not any(_of_handshake(cause) for cause in causes)


def explain(error: BaseException, url: str, authorities: str = "SSL_CERT_FILE", *, reached: bool = True) -> Failure:
    """Return the reason for which a connection to ``url`` failed, and what to do.

    Args:
        authorities: the variable that names a file of certificate authorities to the HTTP client.
        reached: whether the server has answered before; otherwise its name, or its port, is probably wrong.
    """
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    where = _where(url)
    no_proxy = any(isinstance(cause, socket.gaierror | ConnectionRefusedError) for cause in _causes(error))
    if "ProxyError" in kinds and not no_proxy:
        return _refused_by_proxy(error)
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return _untrusted(cause, authorities)
            case ssl.SSLError():
                connecting = "ConnectError" in kinds or _of_handshake(cause)
                return _no_tls(cause, connecting=connecting, reached=reached)
            case socket.gaierror():
                unknown = cause.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
                return Failure("the name is unknown", where, permanent=unknown and not reached)
            case ConnectionRefusedError():
                return Failure("no program listens on that port", where)
    if "CertificateError" in kinds:
        return Failure("its certificate is for another name", "Check base_url.", permanent=True)
    if "UnsupportedProtocol" in kinds:
        return Failure("the address does not begin with https:// or http://", "Correct base_url.", permanent=True)
    if "ConnectTimeout" in kinds:
        return Failure("no connection was made in time", where)
    if "ConnectError" in kinds:
        return Failure("it was closed before it was complete, or no route leads there", where)
    if NOT_HTTP in str(error) and not reached:
        return Failure("the answer is not HTTP", "Check base_url: perhaps it begins with https://.", permanent=True)
    status = "Check the network and the provider's status."
    if url.startswith("http:") and not reached:
        status = "Check base_url: perhaps the address begins with https://."
    return Failure(f"the connection broke ({type(error).__name__})", status)


def out_of_threads(error: BaseException) -> bool:
    """Return whether a request was not made because the system has no more threads."""
    return any(isinstance(cause, RuntimeError) and "new thread" in str(cause) for cause in _causes(error))


def url_of(error: BaseException) -> str | None:
    """Return the address of the request that failed, where the libraries keep the request with the error."""
    for cause in _causes(error):
        for holder in (cause, getattr(cause, "response", None)):
            with suppress(RuntimeError):  # of httpx, where there is no request
                if (request := getattr(holder, "request", None)) is not None and hasattr(request, "url"):
                    return str(request.url)
        if isinstance(named := _named(cause).get("endpoint_url"), str):
            return named
    return None


def proxy_of(url: str) -> str | None:
    """Return the host and the port of the proxy that the environment sets for an address, without its password."""
    with suppress(ValueError):
        parts = urlsplit(url)
        proxies = getproxies()
        if parts.hostname and not proxy_bypass(parts.hostname):
            found = proxies.get(parts.scheme) or proxies.get("all")
            return host_of(found if "://" in found else f"http://{found}") if found else None
    return None


def host_of(url: str) -> str:
    """Return the host of an address, and its port if that is not the usual one."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.hostname:
            usual = parts.port is None or parts.port == DEFAULT_PORTS.get(parts.scheme)
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            return host if usual else f"{host}:{parts.port}"
    return url.partition("?")[0] or "the server"


def path_of(url: str) -> str:
    """Return the host and the path of an address, without its query."""
    with suppress(ValueError):
        return f"{host_of(url)}{urlsplit(url).path}" if url else "the server"
    return host_of(url)


def place_of(url: str) -> str:
    """Return the host, and the proxy on the way to it, for messages."""
    proxy = proxy_of(url)
    return f"{host_of(url)} through the proxy {proxy}" if proxy else host_of(url)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes. Its context is left out: that may be an error that the caller handles."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            more = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
            told = (getattr(one, "reason", None), _named(one).get("error"), *one.args)  # the first of urllib, urllib3
            waiting += [one.__cause__, *more, *(item for item in told if isinstance(item, BaseException))]


def _named(error: BaseException) -> Mapping[str, object]:
    """Return what an exception of botocore was made from: the address, and the exception of urllib3."""
    named = getattr(error, "kwargs", None)
    return named if isinstance(named, Mapping) else {}


def _where(url: str) -> str:
    variable = "HTTP_PROXY" if url.startswith("http:") else "HTTPS_PROXY"
    if proxy_of(url):
        return f"Check the proxy in {variable}; hosts that need no proxy belong in NO_PROXY."
    return f"Check base_url and the network. If this machine reaches that host through a proxy, set {variable}."


def _untrusted(error: ssl.SSLCertVerificationError, authorities: str) -> Failure:
    reason = f"its certificate is not trusted ({error.verify_message})"
    if "mismatch" in error.verify_message.lower():
        return Failure(reason, "Check base_url: the certificate is for another name.", permanent=True)
    if "expired" in error.verify_message:
        return Failure(reason, "Check this machine's clock, and have the certificate renewed.", permanent=True)
    return Failure(reason, TRUST.format(variable=authorities), permanent=True)


def _no_tls(error: ssl.SSLError, *, connecting: bool, reached: bool) -> Failure:
    if isinstance(error, CUT_OFF) or not connecting:
        return Failure(f"TLS broke off ({_reason(error)})", "Check the network and the proxy.")
    if _reason(error) in NOT_TLS:
        advice = "Check base_url: perhaps the port is another one, or the address begins with http://."
        return Failure("the server does not speak TLS on that port", advice, permanent=not reached)
    advice = "Check base_url, and whether the server asks for a certificate of yours: pass client= and async_client=."
    return Failure(f"the TLS handshake was refused ({_reason(error)})", advice)


def _of_handshake(error: BaseException) -> bool:
    """Return whether OpenSSL's name for a failure is one of handshakes alone."""
    reason = str(getattr(error, "reason", ""))  # of ssl.SSLError
    return reason in NOT_TLS or "HANDSHAKE" in reason


def _reason(error: ssl.SSLError) -> str:
    """Return OpenSSL's name for a failure; Python sets it only on errors of a connection."""
    return getattr(error, "reason", None) or type(error).__name__


def _refused_by_proxy(error: BaseException) -> Failure:
    """Return what a proxy's answer to CONNECT means, of which the libraries give the status line as text."""
    number = next((found[1] for cause in _causes(error) if (found := PROXY_STATUS.match(str(cause)))), "")
    status = int(number) if number else 0
    with suppress(ValueError):
        number = f"{status} {HTTPStatus(status).phrase}" if status else ""
    reason = f"the proxy refused the connection{f' ({number})' if number else ''}"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return Failure(reason, SIGN_IN, permanent=True)
    allow = "Have the host allowed at the proxy; if it needs no proxy, put it in NO_PROXY."
    return Failure(reason, allow, permanent=status < 500)


SIGN_IN = "Put the proxy's user and password into HTTPS_PROXY (http://user:password@host:port)."


# Redirects

DOWNLOAD = {"embedrouter_download": True}
"""The extension of a request whose redirects the caller follows, without headers."""


def redirect_guard(model: str, *, asynchronous: bool) -> Callable[[Any], Any]:
    """Return a hook for the responses of an HTTP client, which refuses redirects to other hosts.

    The hook raises ``UnavailableError`` for the model.
    """

    def refuse(response: Any) -> None:
        """Look at the response before the client follows it."""
        if DOWNLOAD.keys() <= response.request.extensions.keys():
            return
        if response.has_redirect_location and (reason := _reason_to_refuse(response)):
            raise UnavailableError(
                f"HTTP {response.status_code}: {host_of(str(response.request.url))} {reason}",
                model=model,
                status=response.status_code,
                retryable=False,
            )

    async def arefuse(response: Any) -> None:
        refuse(response)

    return arefuse if asynchronous else refuse


def _reason_to_refuse(response: Any) -> str:
    here = response.request.url
    try:
        there = here.join(response.headers["location"])
    except Exception:  # noqa: BLE001 - of the library; an address that it cannot parse
        return "redirects to an address that cannot be understood. Check base_url."
    target = f"{there.scheme}://{host_of(str(there))}{there.path if there.path != here.path else ''}"
    if there.host and not (_origin(there) == _origin(here) or _is_same_host_over_tls(here, there)):
        return (
            f"redirects to {target}. Texts and keys are not sent to another host. If that is the right server, set "
            "base_url to its address."
        )
    if response.status_code not in KEPT_METHOD and response.request.method != "GET":
        return f"has moved the address, at {target}. Set base_url to the address that it has now."
    return ""


def _origin(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or DEFAULT_PORTS.get(url.scheme)


def _is_same_host_over_tls(here: Any, there: Any) -> bool:
    return (here.scheme, there.scheme) == ("http", "https") and here.host == there.host and here.port == there.port
