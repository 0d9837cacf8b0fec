"""Backends that need no SDK: one POST of JSON with httpx for each request."""

from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

from ..models import Model
from . import needs_extra
from ._clients import check_clients, http_client
from ._environment import Endpoint
from ._messages import parse_body
from ._remote import RemoteBackend
from ._responses import Refusal


class HttpBackend(RemoteBackend):
    """Makes requests with httpx. ``build_request`` returns the arguments of ``post``: address, body and headers."""

    @staticmethod
    def connect(endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Any]:
        model, _ = endpoint.model, endpoint.api_key  # which is missed before a file of certificates is read for nothing
        with needs_extra(model, endpoint.server.name):
            import httpx
        settings: dict[str, Any] = {"follow_redirects": True, "timeout": model.timeout}
        if asynchronous:
            async_http = http_client(httpx.AsyncClient, httpx, model, asynchronous=True, **settings)
            return async_http, async_http.aclose
        http = http_client(httpx.Client, httpx, model, asynchronous=False, **settings)
        return http, http.close

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request: the key, if there is one, and the user's."""
        key = self.endpoint.api_key
        return {**({"Authorization": f"Bearer {key}"} if key else {}), **(self.model.headers or {})}

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
