"""Backends that need no SDK: one POST of JSON with httpx for each request."""

from collections.abc import Awaitable, Mapping
from inspect import isawaitable
from typing import Any, ClassVar

from ..models import Model
from . import needs_extra
from ._clients import check_clients, http_client
from ._environment import Endpoint
from ._messages import parse_body
from ._remote import NoVectorsError, RemoteBackend, described
from ._responses import Refusal, decode_vectors

__all__ = ["HttpBackend", "NoVectorsError", "check_http_clients", "decode_vectors", "described"]


class HttpBackend(RemoteBackend):
    """Makes requests with httpx.

    A subclass has ``build_request(texts, input_type, taken)``, which returns the arguments of ``httpx.Client.post``
    (see ``request``), and ``parse_answer(response)``, which returns an ``Answer`` and raises ``NoVectorsError`` where
    the response has no vectors.
    """

    extra: ClassVar[str] = "http"
    """The extra of the package that installs httpx."""

    @classmethod
    def connect(cls, endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Any]:
        model, _ = endpoint.model, endpoint.api_key  # which is missed before a file of certificates is read for nothing
        with needs_extra(model, cls.extra):
            import httpx
        settings: dict[str, Any] = {"follow_redirects": True, "timeout": model.timeout}
        if asynchronous:
            async_http = http_client(httpx.AsyncClient, httpx, model, asynchronous=True, **settings)
            return async_http, async_http.aclose
        http = http_client(httpx.Client, httpx, model, asynchronous=False, **settings)
        return http, http.close

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a POST to ``path``, with the key, if there is one, and the user's headers."""
        key = self.endpoint.api_key
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **(self.model.headers or {})}
        return {"url": f"{self.endpoint.url.rstrip('/')}{self.path}", "json": body, "headers": headers}

    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        response = client.post(**request, timeout=timeout)
        return _asucceeded(response) if isawaitable(response) else _succeeded(response)

    def translate_error(self, error: Exception) -> Exception | Refusal:
        import httpx

        match error:
            case httpx.HTTPStatusError(response=response):
                return Refusal(response.status_code, parse_body(response.content), response.headers)
            case httpx.TimeoutException():
                return self.no_answer_in_time(error)
            case httpx.DecodingError():
                return self.not_an_answer()
            case httpx.RequestError():
                return self.connection_failed(error)
            case _:
                return error


def check_http_clients(model: Model) -> None:
    """Refuse a ``client=`` or ``async_client=`` that is no client of httpx.

    Raises:
        ConfigError: the object is another.
    """
    check_clients(model, "httpx.Client", "httpx.AsyncClient", _post_method)


def _post_method(client: Any) -> Any:
    """Return the method of an httpx client; other libraries' clients have one of the same name."""
    if all(kind.__module__.partition(".")[0] != "httpx" for kind in type(client).__mro__):
        raise AttributeError("post")
    return client.post


def _succeeded(response: Any) -> Any:
    response.raise_for_status()
    return response


async def _asucceeded(response: Awaitable[Any]) -> Any:
    return _succeeded(await response)
