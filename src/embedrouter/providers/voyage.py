"""Voyage AI.

Documents and queries are told apart by ``input_type``. Truncation, which the server does silently by default, is off.
Requests go through the SDK's ``Embedding`` resource, because its client drops the ``index`` of the answers and takes no
time limit for a single request. Two faults of the SDK are guarded: it takes any status from 505 on for a success, and
it raises a plain ``APIError`` for a 429 without ``detail``. voyage-4-nano never goes through this SDK, which would run
code from the model hub for it; load it with sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import (
    BadResponseError,
    ConfigError,
    RequestTimeoutError,
    UnavailableError,
)
from ..models import Card, Model, billed, custom_card
from ..types import Answer, Candidate, InputType
from . import Backend, Description, missing_extra
from ._environment import api_key
from ._responses import failed, from_status, matrix, unreadable, was_sent

BASE_URL = "https://api.voyageai.com/v1"
MONGODB_URL = "https://ai.mongodb.com/v1"
"""Where keys that begin with ``al-`` belong (voyageai.util.get_default_base_url)."""
INPUT_TYPES = {"document": "document", "query": "query"}


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``.

    Raises:
        ConfigError: the model is voyage-4-nano, which the API does not serve.
    """
    if model.id.endswith("-nano"):
        raise ConfigError(
            f"Voyage's API does not serve {model.id}. Run it here: Model('sentence-transformers:voyageai/{model.id}', "
            "revision='…', trust_remote_code=True)."
        )
    if model.client is not None or model.async_client is not None:
        raise ConfigError(f"{model.name} takes api_key= or api_key_env= and base_url=, not a client of the SDK's.")
    if model.headers:
        raise ConfigError(f"{model.name}: Voyage's SDK sends no headers but its own. Leave headers= out.")
    if (card := cards.get(model.name)) is None:
        card = custom_card(model, dimensions, texts=1000, tokens=120_000, input_types=INPUT_TYPES)
    return Description(card)


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    return VoyageBackend(model, known.card, candidate.space.dimensions)


class VoyageBackend(Backend):
    """Calls ``/embeddings`` through the voyageai SDK, which keeps a session per thread and needs no closing."""

    def __init__(self, model: Model, card: Card, dimensions: int) -> None:
        self._model = model
        self._input_types = card.input_types or INPUT_TYPES
        self._dimensions = dimensions if dimensions != card.dimensions else None

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        resource = _resource(self._model)
        request = self._request(texts, input_type, timeout)
        try:
            response = resource.create(**request)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = failed(error, _translated(error, self._model, texts), self._model, texts)
        else:
            return _answer(response, self._model)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        resource = _resource(self._model)
        request = self._request(texts, input_type, timeout)
        try:
            response = await resource.acreate(**request)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = failed(error, _translated(error, self._model, texts), self._model, texts)
        else:
            return _answer(response, self._model)
        raise failure

    # The request

    def _request(self, texts: Sequence[str], input_type: InputType, timeout: float) -> dict[str, Any]:
        key = api_key(self._model)
        prompt = (self._model.prompts or {}).get(input_type, "")
        return {
            "api_key": key,
            "base_url": self._model.base_url or (MONGODB_URL if key.startswith("al-") else BASE_URL),
            "request_timeout": timeout,
            "model": self._model.id,
            "input": [prompt + text for text in texts],
            "input_type": self._input_types[input_type],
            "truncation": False,
            "output_dimension": self._dimensions,
            "output_dtype": None,
            "encoding_format": "base64",
        }


def _resource(model: Model) -> Any:
    try:
        import voyageai
    except ImportError as error:
        raise missing_extra(model, "voyage", error) from error
    return voyageai.api_resources.Embedding  # pyright: ignore[reportAttributeAccessIssue] - shipped without types


# The response


def _answer(response: Any, model: Model) -> Answer:
    try:
        rows = sorted(response["data"], key=lambda row: row["index"])
        if [row["index"] for row in rows] != list(range(len(rows))):
            raise BadResponseError("the answer repeats or skips an index", model=model.name)
        embeddings = [row["embedding"] for row in rows]
        tokens = (response.get("usage") or {}).get("total_tokens")
    except (KeyError, TypeError, AttributeError) as error:
        if isinstance(response, dict) and "detail" in response:  # an error of a status that the SDK takes for a success
            raise UnavailableError("the server failed", model=model.name) from error
        raise BadResponseError("the answer is not an embeddings response", model=model.name) from error
    return Answer(matrix(embeddings, model.name), billed(tokens))


# The errors


def _translated(error: Exception, model: Model, texts: Sequence[str]) -> Exception:
    """Return our error for one of the SDK's, or ``error`` itself when it is none of its."""
    import aiohttp
    import requests
    from voyageai import error as sdk

    match error:
        case sdk.Timeout():
            return RequestTimeoutError("no answer in time", model=model.name, perhaps_billed=was_sent(error))
        case sdk.APIConnectionError() | aiohttp.ClientError() | requests.RequestException():
            return UnavailableError(
                f"the connection failed ({type(error).__name__})", model=model.name, perhaps_billed=was_sent(error)
            )
        case sdk.VoyageError(http_status=int(status)) if status >= 300:
            detail = str(error.json_body.get("detail") or "") if isinstance(error.json_body, dict) else ""
            unknown_model = status == 400 and detail.startswith("Model ") and "not supported" in detail
            return from_status(
                status,
                detail,
                model=model,
                headers=error.headers,
                texts=texts,
                unknown_model=unknown_model,
            )
        case sdk.VoyageError():
            return BadResponseError("the answer is not an embeddings response", model=model.name)
        case _ if unreadable(error):
            return BadResponseError("the answer is not an embeddings response", model=model.name)
        case _:
            return error
