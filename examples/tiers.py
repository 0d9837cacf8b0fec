"""Index with a large model, query with a small model, in one space.

Vectors of two models are compared, because Voyage documents that the voyage-4 models share a space. Documents stay in
the index and get the best model; a query gets the cheap model, unless the surrounding code requests a higher tier.

Needs VOYAGE_API_KEY.
"""

import embedrouter
from embedrouter import Model, Router

router = Router(
    [
        Model("voyage:voyage-4-large", tier="high"),
        Model("voyage:voyage-4-lite", tier="low"),
    ],
    document_tier="high",
    query_tier="low",
)

texts = [
    "The museum is closed on Mondays.",
    "Tickets for the museum can be bought online.",
    "Dogs are allowed in the park.",
]
documents = router.embed(texts, input_type="document")
print(f"documents: {documents.models[0]}, {documents.space}")


def ask(question: str) -> None:
    query = router.embed([question], input_type="query")
    best = texts[(documents.vectors @ query.vectors[0]).argmax()]
    print(f"{question} {query.models[0]}: {best}")


ask("Where can I buy museum tickets?")

with embedrouter.tier("high"):
    ask("On which days is the museum closed?")

ask("On which days is the museum closed?")  # the large model's vector is cached: better, and free
