"""Embed 250 documents in as few requests as the provider allows.

No loop is needed: the router packs texts by the provider's limits (2,048 texts for OpenAI), pays equal texts once and
keeps the order. ``batch_size`` is for servers with smaller limits; the cache is off, so that every text is sent.

Needs OPENAI_API_KEY.
"""

from embedrouter import Model, Router

documents = [f"Invoice {number} was paid in full." for number in range(250)]

for model in (
    Model("openai:text-embedding-3-small"),
    Model("openai:text-embedding-3-small", batch_size=100),
):
    router = Router([model], cache=None)
    result = router.embed(documents, input_type="document")
    print(f"{len(result)} vectors in {result.usage.requests} requests, {result.usage.tokens} tokens")

repeated = router.embed(documents[:3] * 100, input_type="document")
print(f"{len(repeated)} vectors of 3 distinct texts: {repeated.usage.tokens} tokens, saved ${repeated.usage.saved:.8f}")
