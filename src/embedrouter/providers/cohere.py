"""Cohere, through the v2 interface.

Documents and queries are told apart by ``input_type``. The server's default is to cut over-long texts silently; here
truncation is off, so that the server refuses them. Numbers are asked for as base64 of float32: of lists the SDK checks
every number for the type that it might be of, four milliseconds for each vector. A server that answers with lists all
the same is understood. Integers come as lists alone. ``output_dimension`` is sent only when it differs from the model's
own number, because models before embed-v4 do not know it. Network failures reach us as plain httpx exceptions.

The SDK's client has no ``close``, so it is given an HTTP client of our making, which has one.
"""

from collections.abc import Sequence
from inspect import signature
from typing import Any

from ..errors import BadResponseError
from ..models import Catalogue, Model, implausible_count, parse_token_count
from ..types import Answer, InputType
from . import Description, needs_extra
from ._clients import check_clients, http_client
from ._environment import Endpoint
from ._messages import words
from ._redaction import find_possible_keys
from ._remote import NoVectorsError, RemoteBackend, described
from ._responses import Refusal, decode_vectors, failed_to_parse
from ._taken import Taken


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``."""
    check_clients(model, "cohere.ClientV2", "cohere.AsyncClientV2", _embed_method)
    return described(model, catalogue, dimensions)


class CohereBackend(RemoteBackend):
    """Calls ``/v2/embed`` through the cohere SDK, with the SDK's own retries off."""

    path = "/v2/embed"

    @classmethod
    def connect(cls, endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Any]:
        model = endpoint.model
        with needs_extra(model, "cohere"):
            import cohere
            import httpx
        own: dict[str, Any] = {"api_key": endpoint.api_key, "base_url": endpoint.url}
        settings: dict[str, Any] = {"follow_redirects": True, "timeout": model.timeout}
        if asynchronous:
            async_http = http_client(httpx.AsyncClient, httpx, model, asynchronous=True, **settings)
            return cohere.AsyncClientV2(httpx_client=async_http, **own), async_http.aclose
        http = http_client(httpx.Client, httpx, model, asynchronous=False, **settings)
        return cohere.ClientV2(httpx_client=http, **own), http.close

    def build_request(self, texts: Sequence[str], input_type: InputType, taken: Taken | None = None) -> dict[str, Any]:
        request: dict[str, Any] = {
            "texts": self.prompted(texts, input_type),
            "model": self.model.id,
            "input_type": self.words[input_type],
            "embedding_types": [self.output_dtype or ("float" if self.format(taken) == "float" else "base64")],
            "truncate": "NONE",
        }
        if (dimensions := self.number_of_dimensions(taken)) is not None:
            request["output_dimension"] = dimensions
        return request

    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        headers = dict(self.model.headers or {})
        options = {"timeout": timeout, "max_retries": 0, "additional_headers": headers}
        return client.embed(**request, request_options=options)

    def parse_answer(self, response: Any) -> Answer:
        try:
            found = response.embeddings
            if self.output_dtype is None:
                embeddings = found.float_ if found.base64 is None else found.base64
            else:
                embeddings = getattr(found, self.output_dtype)
            units = response.meta and response.meta.billed_units
            tokens = units and units.input_tokens
        except AttributeError as error:
            body = getattr(response, "model_extra", None)  # of pydantic: what the SDK does not know
            raise NoVectorsError(body, None) from error
        if not isinstance(embeddings, list):
            kinds = "neither base64 nor float" if self.output_dtype is None else f"no {self.output_dtype}"
            raise BadResponseError(f"the answer holds {kinds} vectors. Check base_url.", model=self.model.name)
        vectors = decode_vectors(embeddings, self.model.name, self.length, self.number)
        return Answer(vectors, parse_token_count(tokens), implausible=implausible_count(tokens))

    def sent_keys(self, error: Exception) -> list[str]:
        """Return the words of a provider's message that may be the key of a client that the user passed in.

        No documented attribute of the client tells its key, so all that looks like one is taken for it.
        """
        if self.model.client is None and self.model.async_client is None:
            return []
        return find_possible_keys(words(getattr(error, "body", "")))

    def translate_error(self, error: Exception) -> Exception | Refusal:
        import httpx
        from cohere.core.api_error import ApiError

        ParsingError = _parsing_error()
        match error:
            case ApiError(status_code=int(status)) if status >= 300:
                return Refusal(status, error.body, error.headers)
            case httpx.TimeoutException():
                return self.no_answer_in_time(error)
            case ApiError(body=body):
                return NoVectorsError(body, error.headers)
            case ParsingError() | httpx.DecodingError():
                return self.not_an_answer()
            case httpx.RequestError():
                return self.connection_failed(error)
            case _:
                return self.not_an_answer() if failed_to_parse(error) else error


def _embed_method(client: Any) -> Any:
    """Return the method of the v2 interface; that of ``cohere.Client`` has other parameters."""
    if "output_dimension" not in signature(client.embed).parameters:
        raise AttributeError("embed")
    return client.embed


def _parsing_error() -> type[Exception]:
    """Return the SDK's error for an answer of another form; older releases raise pydantic's."""
    try:
        from cohere.core.parse_error import ParsingError
    except ImportError:
        from pydantic import ValidationError

        return ValidationError
    return ParsingError


create = CohereBackend
