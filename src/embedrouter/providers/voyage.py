"""Voyage AI, through its REST interface: one POST for each request.

Documents and queries are told apart by ``input_type``. Truncation, which the server does silently by default, is off.
The voyageai SDK is not used. Its two forms read different proxies and certificate authorities, its synchronous form
sends what ``~/.netrc`` holds for the host in place of the key, both drop every header but two and connect anew for each
asynchronous request, and none of this can be set by documented means. With httpx both forms behave as they do for
OpenAI and Cohere. voyage-4-nano is not served; sentence-transformers loads it.
"""

from collections.abc import Awaitable, Sequence
from inspect import isawaitable
from typing import Any

from ..errors import ConfigError
from ..models import Catalogue, Model, implausible_count, parse_token_count
from ..types import Answer, InputType
from . import Description, needs_extra
from ._clients import check_clients, http_client
from ._environment import Endpoint
from ._messages import parse_body
from ._remote import NoVectorsError, RemoteBackend, described
from ._responses import Refusal, decode_vectors, parse_name, parse_rate_limits
from ._taken import Taken


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``.

    Raises:
        ConfigError: the model is voyage-4-nano, which the API does not serve, or ``client=`` is of the voyageai SDK.
    """
    if model.id.endswith("-nano"):
        raise ConfigError(
            f"Voyage's API does not serve {model.id}. Run it here: Model('sentence-transformers:voyageai/{model.id}', "
            "revision='…', trust_remote_code=True)."
        )
    for name, client in (("client", model.client), ("async_client", model.async_client)):
        if type(client).__module__.partition(".")[0] == "voyageai":
            raise ConfigError(
                f"{model.name}: {name}= takes a client of httpx, not of the voyageai SDK, which keeps its connections "
                "and its key to itself. Pass what you gave to it instead: api_key= or api_key_env=, base_url= and "
                "timeout=; or httpx.Client(…) for a proxy or certificates of your own."
            )
    check_clients(model, "httpx.Client", "httpx.AsyncClient", _post_method)
    return described(model, catalogue, dimensions)


class VoyageBackend(RemoteBackend):
    """Calls ``/embeddings`` with httpx."""

    @staticmethod
    def connect(endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Any]:
        model, _ = endpoint.model, endpoint.api_key  # which is missed before a file of certificates is read for nothing
        with needs_extra(model, "voyage"):
            import httpx
        settings: dict[str, Any] = {"follow_redirects": True, "timeout": model.timeout}
        if asynchronous:
            async_http = http_client(httpx.AsyncClient, httpx, model, asynchronous=True, **settings)
            return async_http, async_http.aclose
        http = http_client(httpx.Client, httpx, model, asynchronous=False, **settings)
        return http, http.close

    def build_request(self, texts: Sequence[str], input_type: InputType, taken: Taken | None = None) -> dict[str, Any]:
        body = {
            "model": self.model.id,
            "input": self.prompted(texts, input_type),
            "input_type": self.words[input_type],
            "truncation": False,
        }
        if (numbers := self.format(taken)) != "omit":
            body["encoding_format"] = numbers
        if (dimensions := self.number_of_dimensions(taken)) is not None:
            body["output_dimension"] = dimensions
        if self.output_dtype is not None:
            body[self.server.dtype_field] = self.output_dtype
        headers = {"Authorization": f"Bearer {self.endpoint.api_key}", **(self.model.headers or {})}
        return {"url": f"{self.endpoint.url.rstrip('/')}/embeddings", "json": body, "headers": headers}

    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        response = client.post(**request, timeout=timeout)
        return _asucceeded(response) if isawaitable(response) else _succeeded(response)

    def parse_answer(self, response: Any) -> Answer:
        body = self.parsed(response.content, response.headers)
        try:
            embeddings = self.in_order(body["data"])
            tokens = (body.get("usage") or {}).get("total_tokens")
        except (KeyError, TypeError, AttributeError) as error:
            raise NoVectorsError(body, response.headers) from error
        vectors = decode_vectors(embeddings, self.model.name, self.length, self.number)
        limits = parse_rate_limits(response.headers)
        return Answer(vectors, parse_token_count(tokens), limits, parse_name(body), implausible_count(tokens))

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


create = VoyageBackend
