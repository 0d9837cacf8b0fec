"""OpenAI, Azure OpenAI, and every server that speaks OpenAI's embeddings protocol.

Requests are made with ``client.embeddings.with_raw_response.create``: tracing that patches or wraps the SDK sees them,
and the answer is bytes. The SDK would build a list of Python floats for each vector, 3.6 times as slow as decoding
base64 to float32 here. A server that answers with lists all the same is understood; one that refuses base64 is asked
again for lists, then without the field. Answers are put in the order of their ``index``, if they have one.
``dimensions`` is sent only when it differs from the model's own number, because older models refuse it, and for models
that the catalogue does not know; a server that refuses it for these is asked again without.

The tokenizer is tiktoken's, when its vocabulary is on this machine; it is never downloaded in the middle of a call.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from inspect import isawaitable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .._process import in_thread
from ..errors import BackendError, ConfigError
from ..models import BatchEndpoint, Catalogue, Model, implausible_count, parse_token_count
from ..types import Answer, InputType, TokenCounts
from . import Description, needs_extra
from ._clients import Clients, check_clients, http_client
from ._environment import Endpoint
from ._messages import parse_body
from ._remote import NoVectorsError, RemoteBackend, described
from ._responses import Refusal, decode_vectors, parse_name, parse_rate_limits, parse_usage
from ._taken import Taken
from ._tiktoken import encoding
from .mistral_batches import MistralBatches
from .openai_batches import OpenAIBatches

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

AZURE_V1 = "/openai/v1"
"""The end of the address of Azure's API without versions, which speaks OpenAI's own protocol."""

SHOWN = 32
"""Texts that tracing sees of a request. The SDK looks at each of them for types to convert, for 15 microseconds."""

BATCHES: dict[str, type[OpenAIBatches]] = {"openai": OpenAIBatches, "mistral": MistralBatches}
"""The batch endpoints of servers that speak OpenAI's protocol."""

V2 = "opentelemetry.instrumentation.openai_v2"

NO_KEY = "no key"
"""The SDK wants a key; for a server that needs none, no header is sent."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``."""
    check_clients(
        model, "openai.OpenAI", "openai.AsyncOpenAI", lambda client: client.embeddings.with_raw_response.create
    )
    server = catalogue.servers[model.provider]
    endpoint = Endpoint(model, server)
    given = model.client or model.async_client
    if given is None and _has_versions(endpoint):
        _azure_settings(endpoint)
    elif given is None and model.azure_ad_token_provider is not None and endpoint.url == server.url:
        raise ConfigError(
            f"{model.name}: azure_ad_token_provider= is for Azure. Pass base_url=, such as "
            f"'https://RESOURCE.openai.azure.com{AZURE_V1}'."
        )
    elif given is None and not endpoint.url:
        variables = " or ".join(server.address_variables)
        way = f"pass it to Model, or set {variables}" if variables else "pass it to Model"
        raise ConfigError(f"{model.name} needs base_url=: {way}. {server.note}".strip())
    return described(model, catalogue, dimensions, batches=server.name in BATCHES)


class OpenAIBackend(RemoteBackend):
    """Calls ``/embeddings`` through the openai SDK, with the SDK's own retries off."""

    clients: Clients[OpenAI, AsyncOpenAI]

    @classmethod
    def connect(cls, endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Any]:
        model = endpoint.model
        with needs_extra(model, "openai"):
            import openai
            import openai.resources.embeddings  # the SDK would load it at the first request
        azure = _has_versions(endpoint)
        token: Callable[[], Any] | None = model.azure_ad_token_provider
        if token is not None and asynchronous:
            token = partial(_token, token)
        settings: dict[str, Any] = _azure_settings(endpoint) if azure else {"base_url": endpoint.url}
        key = token or endpoint.api_key or NO_KEY
        settings |= {"azure_ad_token_provider": token} if azure and token else {"api_key": key}
        if not azure and model.api_version:
            settings["default_query"] = {"api-version": model.api_version}
        settings |= {"max_retries": 0, "default_headers": dict(model.headers or {})}
        kind: Any
        if asynchronous:
            kind = openai.AsyncAzureOpenAI if azure else openai.AsyncOpenAI
            http = http_client(openai.DefaultAsyncHttpxClient, _http_library(), model, asynchronous=True)
            client = kind(http_client=http, **settings)
            _look_up_platform(client)
        else:
            kind = openai.AzureOpenAI if azure else openai.OpenAI
            http = http_client(openai.DefaultHttpxClient, _http_library(), model, asynchronous=False)
            client = kind(http_client=http, **settings)
        return client, client.close

    def build_request(self, texts: Sequence[str], input_type: InputType, taken: Taken | None = None) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model.deployment or self.model.id,
            "input": self.prompted(texts, input_type),
        }
        server = self.server
        if server.dimensions_field and (dimensions := self.number_of_dimensions(taken)) is not None:
            request[server.dimensions_field] = dimensions
        if (numbers := self.format(taken)) != "omit":
            request[server.format_field] = numbers
        if self.output_dtype is not None:  # after the format, which may be said in the same field
            request[server.dtype_field] = self.output_dtype
        if server.input_type_field and self.words:
            request[server.input_type_field] = self.words[input_type]
        return {**request, **server.fields, **self.model.body(input_type)}

    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        """Make the request. ``extra_body`` is what is sent: its fields take precedence over the arguments."""
        import openai

        if _breaks_raw_responses():
            headers = {"Authorization": openai.Omit()} if self._needs_no_key(client) else {}
            options = {"headers": headers, "timeout": timeout}
            return client.post(self.path, cast_to=_http_library().Response, body=request, options=options)
        return client.embeddings.with_raw_response.create(
            **{name: request[name] for name in ("model", "dimensions", "encoding_format") if name in request},
            input=request["input"][:SHOWN],
            extra_headers={"Authorization": openai.Omit()} if self._needs_no_key(client) else None,
            extra_body={"encoding_format": openai.Omit(), **request},  # the SDK adds the field where it is left out
            timeout=timeout,
        )

    def _needs_no_key(self, client: Any) -> bool:
        """Return whether a client of our making has no key, and the user gives no header in its place."""
        given = {name.lower() for name in self.model.headers or ()}
        return getattr(client, "api_key", None) == NO_KEY and "authorization" not in given

    def parse_answer(self, response: Any) -> Answer:
        response = getattr(response, "http_response", response)
        headers = response.headers
        body = self.parsed(response.content, headers)
        return self.parse_body(body, headers)

    def parse_body(self, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """Return the vectors of the parsed body of an embeddings response.

        Raises:
            BadResponseError: the body is none of an embeddings response.
        """
        try:
            embeddings = self.in_order(body["data"])
            tokens = parse_usage(body)
        except (KeyError, TypeError, AttributeError) as error:
            raise NoVectorsError(body, headers) from error
        vectors = decode_vectors(embeddings, self.model.name, self.length, self.number)
        limits, name = parse_rate_limits(headers or {}), parse_name(body)
        return Answer(vectors, parse_token_count(tokens), limits, name, implausible_count(tokens))

    def sent_keys(self, error: Exception) -> list[str]:
        """Return the keys that were sent with a request, such as a token that only the token provider knew."""
        headers = getattr(getattr(error, "request", None), "headers", None) or {}
        return [word for name in ("authorization", "api-key") for word in headers.get(name, "").split()]

    def translate_error(self, error: Exception) -> Exception | Refusal:
        import anyio
        import openai

        http: Any = _http_library()
        match error:
            case openai.APITimeoutError() | http.TimeoutException():
                return self.no_answer_in_time(error)
            case openai.APIConnectionError(__cause__=http.DecodingError()):  # of the content-encoding
                return self.not_an_answer()
            case openai.APIConnectionError():
                return self.connection_failed(error, error.__cause__)
            case http.RequestError() | ssl.SSLError() | anyio.EndOfStream():
                return self.connection_failed(error)
            case openai.APIStatusError():
                body = parse_body(error.response.content) or error.body
                return Refusal(error.status_code, body, error.response.headers)
            case openai.APIResponseValidationError():
                return self.not_an_answer()
            case openai.OpenAIError():
                return BackendError(f"the openai library failed ({type(error).__name__})", model=self.model.name)
            case _:
                return error

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count with tiktoken where the model's encoding is known and on this machine, else estimate."""
        encoder = encoding(self.card.tokenizer) if self.card.tokenizer else None
        if encoder is None:
            return super().count(texts, input_type)
        prompted = self.prompted(texts, input_type)
        return TokenCounts([len(encoder.encode_ordinary(text)) for text in prompted], exact=True)

    @property
    def batches(self) -> BatchEndpoint | None:
        kind = BATCHES.get(self.server.name)
        return kind(self) if kind else None


def _look_up_platform(client: Any) -> None:
    """Have the SDK look up the platform for its headers now, in this thread.

    Otherwise the first request of an asynchronous client takes a thread of the event loop's default executor, in which
    a program's own tools may be waiting for that request. The SDK looks before it refuses the setting below, and sends
    nothing. Tracing does not see the attempt: it patches ``request`` of the class.
    """
    import openai

    client.request = super(openai.AsyncOpenAI, client).request  # pyright: ignore[reportAttributeAccessIssue] - client is Any
    with suppress(Exception):
        asyncio.run(client.post("/embeddings", cast_to=object, options={"max_retries": -1}))
    del client.request


def _http_library() -> ModuleType:
    """Return the library below the SDK: ``httpx2``, or ``httpx`` before openai 3."""
    import openai

    [base] = openai.DefaultHttpxClient.__bases__
    return import_module(base.__module__.partition(".")[0])


def _breaks_raw_responses() -> bool:
    """Return whether OpenTelemetry's instrumentation of the SDK is on.

    It (2.4b0) takes the raw response of an embeddings request for a parsed one and fails, when the request is paid.
    """
    tool: Any = sys.modules.get(V2)
    return tool is not None and tool.OpenAIInstrumentor().is_instrumented_by_opentelemetry is True


def _has_versions(endpoint: Endpoint) -> bool:
    """Return whether a model is called through Azure's API of which each request names the version."""
    return endpoint.server.name == "azure_openai" and not endpoint.url.rstrip("/").endswith(AZURE_V1)


def _azure_settings(endpoint: Endpoint) -> dict[str, Any]:
    """Return the endpoint and the version of the API, from the declaration or the environment."""
    model = endpoint.model
    return {
        "azure_endpoint": endpoint.setting(model.base_url, "base_url", "AZURE_OPENAI_ENDPOINT"),
        "api_version": endpoint.setting(model.api_version, "api_version", "OPENAI_API_VERSION"),
    }


async def _token(provider: Callable[[], Any]) -> str:
    """Ask for a token in a thread, because a provider may ask Azure for it."""
    found = await in_thread(provider)
    token: str = await found if isawaitable(found) else found
    return token


create = OpenAIBackend
