"""Voyage AI.

Documents and queries are told apart by ``input_type``. Truncation, which the server does silently by default, is off.
Requests are made with the SDK's ``Embedding`` resource, because ``voyageai.Client`` drops the ``index`` of the answers
and takes no time limit for a single request. Two faults of the SDK are guarded: it takes any status from 505 on for a
success, and it raises a plain ``APIError`` for a 429 without ``detail``. voyage-4-nano is never asked for through this
SDK, which would run code from the model hub for it; sentence-transformers loads it.
"""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, UnavailableError
from ..models import Card, Model, custom_card, parse_token_count
from ..types import Answer, InputType
from . import Description, needs_extra
from ._environment import api_key
from ._remote import RemoteBackend
from ._responses import Refusal, decode_vectors, failed_to_parse

BASE_URL = "https://api.voyageai.com/v1"
MONGODB_URL = "https://ai.mongodb.com/v1"
"""Serves keys that begin with ``al-`` (voyageai.util.get_default_base_url)."""
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
    facts: dict[str, Any] = {"texts": 1000, "tokens": 120_000, "input_types": INPUT_TYPES}
    return Description(cards.get(model.name) or custom_card(model, dimensions, **facts))


class VoyageBackend(RemoteBackend):
    """Calls ``/embeddings`` through the voyageai SDK, which keeps its own sessions: there is nothing to close."""

    @staticmethod
    def connect(model: Model, *, asynchronous: bool) -> tuple[Any, Any]:
        with needs_extra(model, "voyage"):
            from voyageai.api_resources import Embedding
        platform.platform()  # reads a file, and the SDK asks for it at the first request; Python remembers the answer
        return (Embedding.acreate if asynchronous else Embedding.create), None

    def build_request(self, texts: Sequence[str], input_type: InputType) -> dict[str, Any]:
        key = api_key(self.model)
        return {
            "api_key": key,
            "base_url": self.model.base_url or (MONGODB_URL if key.startswith("al-") else BASE_URL),
            "model": self.model.id,
            "input": self.prompted(texts, input_type),
            "input_type": (self.card.input_types or INPUT_TYPES)[input_type],
            "truncation": False,
            "output_dimension": self.dimensions,
            "output_dtype": None,
            "encoding_format": "base64",
        }

    def send(self, client: Any, request: dict[str, Any], timeout: float) -> Any:
        return client(**request, request_timeout=timeout)

    def parse_answer(self, response: Any) -> Answer:
        try:
            embeddings = self.in_order(response["data"])
            tokens = (response.get("usage") or {}).get("total_tokens")
        except (KeyError, TypeError, AttributeError) as error:
            if isinstance(response, dict) and "detail" in response:  # an error that the SDK takes for a success
                raise UnavailableError("the server failed", model=self.model.name) from error
            raise self.not_an_answer() from error
        return Answer(decode_vectors(embeddings, self.model.name), parse_token_count(tokens))

    def translate_error(self, error: Exception) -> Exception | Refusal:
        import aiohttp
        import requests
        from voyageai import error as sdk

        match error:
            case sdk.Timeout():
                return self.no_answer_in_time(error)
            case sdk.APIConnectionError() | aiohttp.ClientError() | requests.RequestException():
                return self.connection_failed(error)
            case sdk.VoyageError(http_status=int(status)) if status >= 300:
                detail = str(error.json_body.get("detail") or "") if isinstance(error.json_body, dict) else ""
                unknown_model = status == 400 and detail.startswith("Model ") and "not supported" in detail
                return Refusal(status, detail, error.headers, unknown_model=unknown_model)
            case sdk.VoyageError():
                return self.not_an_answer()
            case _:
                return self.not_an_answer() if failed_to_parse(error) else error


create = VoyageBackend
