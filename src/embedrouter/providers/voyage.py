"""Voyage AI, through its REST interface: one POST for each request.

Documents and queries are told apart by ``input_type``. Truncation, which the server does silently by default, is off.
The voyageai SDK is not used. Its two forms read different proxies and certificate authorities, its synchronous form
sends what ``~/.netrc`` holds for the host in place of the key, both drop every header but two and connect anew for each
asynchronous request, and none of this can be set by documented means. With httpx both forms behave as they do for
OpenAI and Cohere. voyage-4-nano is not served; sentence-transformers loads it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..models import Catalogue, Model, implausible_count, parse_token_count
from ..types import Answer, InputType
from . import Description
from ._http import HttpBackend, check_http_clients
from ._remote import NoVectorsError, described
from ._responses import decode_vectors, parse_name, parse_rate_limits, parse_usage
from ._taken import Taken
from .voyage_batches import VoyageBatches


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
    check_http_clients(model)
    return described(model, catalogue, dimensions, batches=True, free_batches=False)


class VoyageBackend(HttpBackend):
    """Calls ``/embeddings``."""

    extra = "voyage"

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
        return self.request(body)

    def parse_answer(self, response: Any) -> Answer:
        return self.parse_body(self.parsed(response.content, response.headers), response.headers)

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

    @property
    def batches(self) -> VoyageBatches:
        return VoyageBatches(self)


create = VoyageBackend
