"""Acme's embeddings: an example of a provider that a package of its own brings."""

from decimal import Decimal
from typing import Any

from embedrouter.backends import (
    Answer,
    Card,
    Catalogue,
    Description,
    HttpBackend,
    InputType,
    Model,
    NoVectorsError,
    Server,
    decode_vectors,
    described,
    parse_token_count,
)

SERVER = Server("acme", url="https://api.acme.example/v2", keys=("ACME_API_KEY",), texts=16)
CARDS = {
    "acme:vectors-1": Card(
        model="acme:vectors-1",
        space="acme-vectors-1",
        dimensions=4,
        input_tokens=512,
        texts=16,
        symmetric=False,
        price=Decimal("0.05"),
        source="https://acme.example/models",
    )
}


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the facts of a model; one that is no row of ``CARDS`` needs ``space=`` and ``dimensions=``."""
    if card := CARDS.get(model.name):
        return Description(card, SERVER)
    return described(model, catalogue, dimensions, server=SERVER)


class AcmeBackend(HttpBackend):
    """Calls ``/vectors``."""

    path = "/vectors"

    def build_request(self, texts: Any, input_type: InputType, taken: Any = None) -> dict[str, Any]:
        return self.request({"model": self.model.id, "texts": self.prompted(texts, input_type), "for": input_type})

    def parse_answer(self, response: Any) -> Answer:
        body = self.parsed(response.content, response.headers)
        try:
            vectors, tokens = body["vectors"], body["tokens"]
        except (KeyError, TypeError) as error:
            raise NoVectorsError(body, response.headers) from error
        return Answer(decode_vectors(vectors, self.model.name, self.length), parse_token_count(tokens))


create = AcmeBackend
