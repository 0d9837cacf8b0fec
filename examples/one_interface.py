"""Use any provider through the same code.

Only the model's name changes. The differences between providers (keys, limits, input types, prices, errors) stay behind
the router, so the code that searches is the same for every provider.

Needs OPENAI_API_KEY, CO_API_KEY, VOYAGE_API_KEY, and the extra wordllama for the model that runs here.
"""

from embedrouter import Router

MODELS = (
    "openai:text-embedding-3-small",
    "cohere:embed-v4.0",
    "voyage:voyage-4-lite",
    "wordllama:l2_supercat_256",
)


def search(router: Router, documents: list[str], question: str) -> str:
    """Return the document that is nearest to the question."""
    stored = router.embed(documents, input_type="document")
    asked = router.embed([question], input_type="query")
    scores = stored.vectors @ asked.vectors[0]
    return documents[int(scores.argmax())]


documents = ["The library opens at nine.", "The garden has old apple trees.", "Buses to the harbour leave hourly."]

for model in MODELS:
    with Router([model]) as router:
        answer = search(router, documents, "When do buses leave for the harbour?")
        print(f"{model}: {answer} ({router.space.dimensions} dimensions, ${router.usage.cost:.8f})")
