"""Embed with Voyage AI.

Notice that the code is that of any other provider. Documents and queries are told apart as Voyage wants it, and texts
over the limit are refused; left to itself the API would cut them without a word.

Needs VOYAGE_API_KEY.
"""

from embedrouter import Router

router = Router(["voyage:voyage-4"])

documents = router.embed(["Tides follow the moon.", "Rivers follow the valley."], input_type="document")
query = router.embed(["What do tides follow?"], input_type="query")

print(f"{len(documents)} documents and {len(query)} query in {documents.space}")
print(f"billed: {router.usage.tokens} tokens, ${router.usage.cost:.8f}")
