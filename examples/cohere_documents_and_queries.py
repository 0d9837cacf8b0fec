"""Embed documents and queries with their input types, as Cohere's API requires.

``input_type`` has no default, because a document that is embedded as a query is a mistake without an error. The same
text gives two vectors with two cache entries; both vectors are in one space, so that queries are compared with
documents.

Needs CO_API_KEY (or COHERE_API_KEY).
"""

from embedrouter import Router

texts = [
    "The laboratory closes at six.",
    "The cafeteria serves lunch from noon until two.",
    "Visitors leave their bags at the entrance.",
]

with Router(["cohere:embed-v4.0"]) as router:
    documents = router.embed(texts, input_type="document")
    query = router.embed(["When can I get lunch?"], input_type="query")
    scores = documents.vectors @ query.vectors[0]
    print(f"{documents.space}: {texts[scores.argmax()]}")

    stored = router.embed(["lunch"], input_type="document").vectors[0]
    asked = router.embed(["lunch"], input_type="query").vectors[0]
    print(f"'lunch' as a document and as a query: cosine {stored @ asked:.3f}, not 1")
