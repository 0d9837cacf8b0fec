"""Google, through the google-genai SDK: the Gemini developer API, and Vertex AI.

The developer API takes a key, Vertex AI a project with Google's own credentials, or a key. Models are the same at both
places, and so are their vectors. ``google_genai:`` asks Vertex AI where ``GOOGLE_GENAI_USE_ENTERPRISE`` or
``GOOGLE_GENAI_USE_VERTEXAI`` says so, as the SDK does; ``google_vertexai:`` always does.

Documents and queries are told apart by the task type, and by words before the text for gemini-embedding-2, which knows
no task types. Each text is sent as a ``Content`` of its own: of a list of strings the SDK makes one content, which
gemini-embedding-2 answers with one vector. Vertex AI is told not to cut texts; the developer API cannot be told.

The SDK is given HTTP clients of our making, and an asynchronous client finds its token renewed: the SDK would renew the
token in the event loop's default executor, in which a program's own tools may be waiting for that request.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any

from .._process import in_thread
from ..errors import AuthenticationError, ConfigError, UnavailableError
from ..models import Catalogue, Model, implausible_count, parse_token_count
from ..types import Answer, InputType
from . import Description, needs_extra
from ._clients import check_clients, http_client, ssl_context
from ._environment import Address, Endpoint
from ._remote import NoVectorsError, RemoteBackend, described
from ._responses import Refusal, decode_vectors, failed_to_parse
from ._taken import Taken
from .google_batches import GoogleBatches

DEVELOPER, VERTEX = "google_genai", "google_vertexai"
SWITCHES = ("GOOGLE_GENAI_USE_ENTERPRISE", "GOOGLE_GENAI_USE_VERTEXAI")
"""Variables that send ``google_genai:`` to Vertex AI; the first that is set decides."""
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
SIGN_IN = "Run: gcloud auth application-default login; or set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials"


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the card and the server of the place that serves the model.

    A model that the catalogue does not know needs ``space=`` and ``dimensions=``.

    Raises:
        ConfigError: the client is none of the SDK's, or is made for the other place.
    """
    check_clients(
        model, "google.genai.Client", "google.genai.Client(…).aio", lambda client: client.models.embed_content
    )
    given = model.client is not None or model.async_client is not None
    told = next((value for name in SWITCHES if (value := os.environ.get(name)) is not None), "")
    if told.lower() in ("true", "1") and not given:
        model = replace(model, name=f"{VERTEX}:{model.id}")
    server = catalogue.servers[model.provider]
    on_vertex = server.name == VERTEX
    if getattr(model.client, "vertexai", on_vertex) is not on_vertex:
        other = f"{DEVELOPER if on_vertex else VERTEX}:{model.id}"
        raise ConfigError(f"{model.name}: client= was made for another place. Declare {other!r}.")
    return described(model, catalogue, dimensions, server=server, batches=not on_vertex)


class GoogleBackend(RemoteBackend):
    """Calls ``models.embed_content`` of the google-genai SDK, with the SDK's own retries off."""

    @property
    def address(self) -> Address | None:
        """The address to which requests go; of Vertex AI that of the location."""
        found, location = self.endpoint.address, _cloud("LOCATION")
        if self.server.name != VERTEX or found is None or found.url != self.server.url or location in ("", "global"):
            return found
        host = f"aiplatform.{location}.rep" if location in ("us", "eu") else f"{location}-aiplatform"
        return Address(f"https://{host}.googleapis.com", "GOOGLE_CLOUD_LOCATION")

    @classmethod
    def connect(cls, endpoint: Endpoint, *, asynchronous: bool) -> tuple[Any, Any]:
        model = endpoint.model
        with needs_extra(model, "google"):
            from google import genai
            from google.genai import types

            settings = _credentials(endpoint)  # before a file of certificate authorities is read for nothing
        library, base = http_library(), endpoint.url
        common: dict[str, Any] = {"follow_redirects": True, "timeout": model.timeout}
        http = http_client(library.Client, library, model, asynchronous=False, **common)
        async_http = http_client(library.AsyncClient, library, model, asynchronous=True, **common)
        options = types.HttpOptions(
            base_url=None if base == endpoint.server.url else base,
            headers=dict(model.headers or {}),  # of uploads, which take no others
            httpx_client=http,
            httpx_async_client=async_http,
            async_client_args={"ssl": ssl_context(library)},  # else the SDK reads the file of authorities once more
        )
        client = genai.Client(http_options=options, **settings)
        if not asynchronous:
            return client, http.close
        credentials = settings.get("credentials")
        return _Signed(client.aio, credentials) if credentials else client.aio, async_http.aclose

    def build_request(self, texts: Sequence[str], input_type: InputType, taken: Taken | None = None) -> dict[str, Any]:
        config: dict[str, Any] = {}
        if self.card.input_types:
            config["task_type"] = self.card.input_types[input_type]
        if (dimensions := self.number_of_dimensions(taken)) is not None:
            config["output_dimensionality"] = dimensions
        if self.server.name == VERTEX:
            config["auto_truncate"] = False
        return {
            "model": self.model.deployment or self.model.id,
            "contents": [{"parts": [{"text": text}]} for text in self.prompted(texts, input_type)],
            "config": config,
        }

    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        request = {**request, "config": {**request["config"], "http_options": self.http_options(timeout)}}
        if isinstance(client, _Signed):
            return client.embed(request)
        return client.models.embed_content(**request)

    def http_options(self, timeout: float) -> dict[str, Any]:
        """Return the options of one request, also of a client that the user passed in."""
        return {
            "timeout": max(1, math.ceil(timeout * 1000)),
            "headers": dict(self.model.headers or {}),
            "retry_options": {"attempts": 1},
        }

    def parse_answer(self, response: Any) -> Answer:
        try:
            embeddings = [item.values for item in response.embeddings]
            tokens = _billed(response)
        except (AttributeError, TypeError) as error:
            raise NoVectorsError(None, None) from error
        vectors = decode_vectors(embeddings, self.model.name, self.length)
        return Answer(vectors, parse_token_count(tokens), implausible=implausible_count(tokens))

    def sent_keys(self, error: Exception) -> list[str]:
        """Return the keys and tokens that were sent with a request, also those of a client that the user passed in."""
        request = getattr(getattr(error, "response", None), "request", None)
        headers = getattr(request, "headers", None) or {}
        return [word for name in ("authorization", "x-goog-api-key") for word in headers.get(name, "").split()]

    def translate_error(self, error: Exception) -> Exception | Refusal:
        import google.auth.exceptions as auth
        from google.genai.errors import APIError

        timeouts, failures, unreadable = _kinds("TimeoutException"), _kinds("RequestError"), _kinds("DecodingError")
        match error:
            case APIError():
                body, headers = _plain(error.details), getattr(error.response, "headers", None)
                return Refusal(error.code, body, headers) if error.code >= 300 else NoVectorsError(body, headers)
            case json.JSONDecodeError():
                return NoVectorsError(error.doc, None)
            case auth.GoogleAuthError():
                return self._not_signed_in(error)
        if isinstance(error, timeouts):
            return self.no_answer_in_time(error)
        if isinstance(error, unreadable):
            return self.not_an_answer()
        if isinstance(error, (*failures, *_kinds("ClientError", "aiohttp"))):
            return self.connection_failed(error)
        return self.not_an_answer() if failed_to_parse(error) else error

    @property
    def batches(self) -> GoogleBatches | None:
        return None if self.server.name == VERTEX else GoogleBatches(self, self.http_options)

    def _not_signed_in(self, error: Any) -> Exception:
        """Return the error for Google's credentials, whose own words may quote a token."""
        kind, name = type(error).__name__, self.model.name
        if getattr(error, "retryable", False) or kind == "TransportError":
            story = f"Google's credentials could not be renewed ({kind}). Check the network, and try again later."
            return UnavailableError(story, model=name, perhaps_billed=False)
        return AuthenticationError(f"Google's credentials were refused ({kind}). {SIGN_IN}.", model=name)


@dataclass(frozen=True, slots=True)
class _Signed:
    """An asynchronous client of the SDK, and the credentials by which its requests are signed."""

    client: Any
    credentials: Any

    async def embed(self, request: dict[str, Any]) -> Any:
        if self.credentials.expired or not self.credentials.token:
            await in_thread(self._renew)
        return await self.client.models.embed_content(**request)

    def _renew(self) -> None:
        from google.auth.transport.requests import Request

        self.credentials.refresh(Request())


def _cloud(name: str) -> str:
    return os.environ.get(f"GOOGLE_CLOUD_{name}", "").strip()


def _credentials(endpoint: Endpoint) -> dict[str, Any]:
    """Return the arguments of the SDK's client that say who asks, such that the SDK reads no variable besides.

    Vertex AI takes a key only where the declaration names one, or where the environment has a key and no project.

    Raises:
        AuthenticationError: there is neither a key nor a file of credentials.
    """
    model, project, location = endpoint.model, _cloud("PROJECT"), _cloud("LOCATION")
    if endpoint.server.name != VERTEX:
        return {"vertexai": False, "api_key": endpoint.api_key}
    declared = model.api_key or model.api_key_env is not None
    if declared or (endpoint.known_key and not project and not location):
        return {"vertexai": True, "api_key": endpoint.api_key}
    import google.auth
    import google.auth.exceptions

    try:
        credentials, found = google.auth.default(scopes=[SCOPE])
    except google.auth.exceptions.GoogleAuthError as error:
        kind = type(error).__name__
    else:
        if project := project or found or "":
            return {"vertexai": True, "credentials": credentials, "project": project, "location": location or "global"}
        raise ConfigError(f"{model.name} needs a project of Google Cloud: set GOOGLE_CLOUD_PROJECT.")
    raise AuthenticationError(
        f"No credentials of Google Cloud for {model.name} ({kind}). {SIGN_IN}; or, for a key of Vertex AI, set the "
        "environment variable GOOGLE_API_KEY.",
        model=model.name,
    )


def http_library() -> ModuleType:
    """Return the library below the SDK: ``httpx2``, or ``httpx`` where the SDK does not know the former."""
    from google.genai.types import HttpOptions

    takes = str(HttpOptions.model_fields["httpx_client"].annotation)
    return import_module("httpx2" if "httpx2" in takes else "httpx")


def _kinds(name: str, *libraries: str) -> tuple[type[Exception], ...]:
    """Return an exception of the HTTP libraries in use: a client of the user's may have another than ours."""
    found = [getattr(sys.modules.get(library), name, None) for library in libraries or ("httpx", "httpx2")]
    return tuple(kind for kind in found if kind is not None)


def _billed(response: Any) -> Any:
    """Return the tokens that an answer reports: of the request, or of each text."""
    usage = getattr(response, "usage_metadata", None)
    if usage is not None and usage.prompt_token_count is not None:
        return usage.prompt_token_count
    counts = [item.statistics and item.statistics.token_count for item in response.embeddings]
    return None if None in counts else sum(counts)


def _plain(body: Any) -> Any:
    """Return an error with what its details say where others say it: a wait, and that a quota of the day is used up."""
    error = body.get("error") if isinstance(body, Mapping) else None
    details = error.get("details") if isinstance(error, Mapping) else None
    if not isinstance(error, Mapping) or not isinstance(details, list):
        return body
    known = [detail for detail in details if isinstance(detail, Mapping)]
    plain = {**error, "details": [detail for detail in known if "reason" in detail]}
    if any("PerDay" in quota for detail in known for quota in _quotas(detail.get("violations"))):
        plain |= {"type": "insufficient_quota"}
    elif wait := next((detail["retryDelay"] for detail in known if "retryDelay" in detail), None):
        plain |= {"retryDelay": wait}
    return {"error": plain}


def _quotas(violations: object) -> list[str]:
    """Return the ids of the quotas that a refusal names."""
    listed = violations if isinstance(violations, list) else []
    return [str(one.get("quotaId")) for one in listed if isinstance(one, Mapping)]


create = GoogleBackend
