"""Cohere, through the v2 interface.

Documents and queries are told apart by ``input_type``. The server's default is to cut over-long texts silently; here
truncation is off, so that it refuses them. Numbers are asked for as lists; ``encoding_format="base64"`` takes less time
and was not tried on Cohere itself. ``output_dimension`` is sent only when it differs from the model's own number,
because models before embed-v4 do not know it. Network failures reach us as plain httpx exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BadResponseError, RequestTimeoutError, UnavailableError
from ..models import Card, Model, billed, custom_card
from ..types import Answer, Candidate, InputType
from . import Backend, Description, missing_extra
from ._clients import Clients, check_given
from ._environment import api_key
from ._responses import failed, from_status, matrix, unreadable, was_sent

if TYPE_CHECKING:
    from cohere import AsyncClientV2, ClientV2

BASE_URL = "https://api.cohere.com"
INPUT_TYPES = {"document": "search_document", "query": "search_query"}


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``."""
    check_given(model, "cohere.ClientV2", "cohere.AsyncClientV2", lambda client: _http(client).request)
    return Description(cards.get(model.name) or custom_card(model, dimensions, texts=96, input_types=INPUT_TYPES))


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    return CohereBackend(model, known.card, candidate.space.dimensions)


class CohereBackend(Backend):
    """Calls ``/v2/embed`` through the cohere SDK, with the SDK's own retries off."""

    def __init__(self, model: Model, card: Card, dimensions: int) -> None:
        self._model = model
        self._input_types = card.input_types or INPUT_TYPES
        self._encoding = "base64" if model.encoding_format == "base64" else "float"
        self._dimensions = dimensions if dimensions != card.dimensions else None
        self._clients: Clients[ClientV2, AsyncClientV2] = Clients(
            lambda: _client(model, asynchronous=False),
            lambda: _client(model, asynchronous=True),
            lambda client: _http(client).httpx_client.close(),
            lambda client: _http(client).httpx_client.aclose(),
            given=model.client,
            given_async=model.async_client,
        )

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        request = self._request(texts, input_type)
        with self._clients.sync() as client:
            try:
                response = _accepted(_ask(client, request, self._options(timeout)))
            except Exception as error:  # noqa: BLE001 - raised below
                failure = failed(error, _translated(error, self._model, texts), self._model, texts)
            else:
                return _read(response, self._model)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        request = self._request(texts, input_type)
        async with self._clients.asynchronous() as client:
            try:
                response = _accepted(await _ask(client, request, self._options(timeout)))
            except Exception as error:  # noqa: BLE001 - raised below
                failure = failed(error, _translated(error, self._model, texts), self._model, texts)
            else:
                return _read(response, self._model)
        raise failure

    def close(self) -> None:
        self._clients.close()

    async def aclose(self) -> None:
        await self._clients.aclose()

    # The request

    def _options(self, timeout: float) -> dict[str, Any]:
        return {"timeout": timeout, "max_retries": 0, "additional_headers": dict(self._model.headers or {})}

    def _request(self, texts: Sequence[str], input_type: InputType) -> dict[str, Any]:
        prompt = (self._model.prompts or {}).get(input_type, "")
        request: dict[str, Any] = {
            "texts": [prompt + text for text in texts],
            "model": self._model.id,
            "input_type": self._input_types[input_type],
        }
        if self._dimensions is not None:
            request["output_dimension"] = self._dimensions
        return {**request, "embedding_types": [self._encoding], "truncate": "NONE"}


def _ask(client: Any, request: dict[str, Any], options: dict[str, Any]) -> Any:
    """Send a request, and return httpx's response; of an asynchronous client an awaitable.

    This is what ``embed`` of the SDK does before it looks at every number of the answer for the type that it might be
    of: that takes two milliseconds for each vector.
    """
    return _http(client).request("v2/embed", method="POST", json=request, request_options=options)


def _accepted(response: Any) -> Any:
    """Return a response, or raise the SDK's error for what it says."""
    if not response.is_success:
        from cohere.core.api_error import ApiError

        try:
            body = response.json()
        except ValueError:
            body = response.text
        raise ApiError(status_code=response.status_code, headers=dict(response.headers), body=body)
    return response


def _client(model: Model, *, asynchronous: bool) -> Any:
    try:
        import cohere
        import httpx
    except ImportError as error:
        raise missing_extra(model, "cohere", error) from error
    kind: Any = cohere.AsyncClientV2 if asynchronous else cohere.ClientV2
    http: Any = httpx.AsyncClient if asynchronous else httpx.Client
    return kind(
        api_key=api_key(model),
        base_url=model.base_url or BASE_URL,
        max_retries=0,
        httpx_client=http(follow_redirects=True, timeout=model.timeout),
    )


def _http(client: Any) -> Any:
    """Return what an SDK client sends requests with. Inside is httpx's client: the SDK's has no close of its own."""
    return client._client_wrapper.httpx_client


# The response


def _read(response: Any, model: Model) -> Answer:
    from pydantic_core import from_json  # the SDK has loaded it

    try:
        body = from_json(response.content)
        embeddings = body["embeddings"].get("base64") or body["embeddings"].get("float")
        tokens = ((body.get("meta") or {}).get("billed_units") or {}).get("input_tokens")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadResponseError("the answer is not an embeddings response", model=model.name) from error
    if embeddings is None:
        raise BadResponseError("the answer holds neither base64 nor float vectors", model=model.name)
    return Answer(matrix(embeddings, model.name), billed(tokens))


# The errors


def _translated(error: Exception, model: Model, texts: Sequence[str]) -> Exception:
    """Return our error for one of the SDK's or of httpx, or ``error`` itself when it is neither."""
    import httpx
    from cohere.core.api_error import ApiError

    match error:
        case ApiError(status_code=int(status)):
            body = error.body if isinstance(error.body, dict) else {"message": error.body}
            return from_status(
                status,
                str(body.get("message") or ""),
                model=model,
                headers=error.headers,
                code=str(body.get("error_type") or ""),
                texts=texts,
            )
        case httpx.DecodingError():
            return BadResponseError("the answer is not an embeddings response", model=model.name)
        case httpx.TimeoutException():
            return RequestTimeoutError("no answer in time", model=model.name, perhaps_billed=was_sent(error))
        case httpx.RequestError():
            return UnavailableError(
                f"the connection failed ({type(error).__name__})", model=model.name, perhaps_billed=was_sent(error)
            )
        case _ if unreadable(error):
            return BadResponseError("the answer is not an embeddings response", model=model.name)
        case _:
            return error
