"""Ollama, through its own interface: one POST to ``/api/embed`` for each request.

Ollama cuts over-long texts silently, and its endpoint of OpenAI's protocol offers no way to forbid it; ``/api/embed``
has ``truncate``, which is off here, so that the server refuses such texts. An address that ends with ``/v1`` is asked
in OpenAI's protocol all the same, for gateways that offer no other; then our count decides which texts are too long.

Ollama puts no prompt before a text. Where a model's maker documents prompts, they are put there here.
"""

from collections.abc import Sequence
from typing import Any

from ..models import Backend, Catalogue, Model, implausible_count, parse_token_count
from ..types import Answer, Candidate, InputType
from . import Description
from ._environment import Endpoint
from ._http import HttpBackend, check_http_clients
from ._remote import NoVectorsError, described
from ._responses import decode_vectors, parse_name
from ._taken import Taken
from .openai import OpenAIBackend

OPENAI_PROTOCOL = "/v1"
"""The end of the addresses that speak OpenAI's protocol."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the card; a model that the catalogue does not know needs ``space=`` and ``dimensions=``."""
    speaks_openai = _speaks_openai(Endpoint(model, catalogue.servers[model.provider]))
    if not speaks_openai:
        check_http_clients(model)
    return described(model, catalogue, dimensions, cuts=speaks_openai)


class OllamaBackend(HttpBackend):
    """Calls ``/api/embed``."""

    extra, path = "ollama", "/api/embed"

    def build_request(self, texts: Sequence[str], input_type: InputType, taken: Taken | None = None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model.deployment or self.model.id,
            "input": self.prompted(texts, input_type),
            "truncate": False,
        }
        if (dimensions := self.number_of_dimensions(taken)) is not None:
            body["dimensions"] = dimensions
        return self.request({**body, **self.model.body(input_type)})

    def parse_answer(self, response: Any) -> Answer:
        body = self.parsed(response.content, response.headers)
        try:
            embeddings, tokens = body["embeddings"], body.get("prompt_eval_count")
            vectors = decode_vectors(embeddings, self.model.name, self.length)
        except (KeyError, TypeError, AttributeError) as error:
            raise NoVectorsError(body, response.headers) from error
        return Answer(vectors, parse_token_count(tokens), None, parse_name(body), implausible_count(tokens))


def _speaks_openai(endpoint: Endpoint) -> bool:
    return endpoint.url.rstrip("/").endswith(OPENAI_PROTOCOL)


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    """Return the backend for the protocol that the address speaks."""
    assert known.server is not None, "every provider of this package has a row"
    kind = OpenAIBackend if _speaks_openai(Endpoint(model, known.server)) else OllamaBackend
    return kind(model, known, candidate)
