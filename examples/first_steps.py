"""Embed texts, search among them, and see what was paid and what was not.

The first run computes each text once, the second finds every vector in the cache. With an API's model the same lines
show the bill: python examples/first_steps.py openai:text-embedding-3-small

Needs the extra wordllama, and no key.
"""

import sys

from embedrouter import Router

model = sys.argv[1] if len(sys.argv) > 1 else "wordllama:l2_supercat_256"
texts = [
    "The ferry to the island leaves at eight.",
    "Bicycles travel free of charge on the night train.",
    "Lost luggage is kept at the counter for a month.",
    "The ferry to the island leaves at eight.",  # again: it is paid for once
]

with Router([model], cache="./cache", ledger="./cache/ledger.db") as router:
    estimate = router.estimate(texts, input_type="document")
    print(f"before: {estimate.texts} texts, {estimate.unique} distinct, ${estimate.cost:.8f} at most")

    documents = router.embed(texts, input_type="document")
    query = router.embed(["Where is my suitcase?"], input_type="query")
    print(f"found:  {texts[(documents.vectors @ query.vectors[0]).argmax()]}")
    print(f"space:  {documents.space}, from {documents.models[0]}")

    again = router.embed(texts, input_type="document")
    print(f"again:  {sum(again.cached)} of {len(again)} from the cache, {again.usage.requests} requests")
    print(router.ledger.totals("model"))
