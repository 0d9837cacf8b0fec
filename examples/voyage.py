"""Embed with Voyage AI.

The code is the same as for any other provider. Documents and queries are sent with Voyage's input types, and texts over
the limit are refused; by default the API would truncate such texts without an error.

Needs VOYAGE_API_KEY.
"""

from embedrouter import Router

router = Router(["voyage:voyage-4"])

documents = router.embed(["Tides follow the moon.", "Rivers follow the valley."], input_type="document")
query = router.embed(["What do tides follow?"], input_type="query")

print(f"{len(documents)} documents and {len(query)} query in {documents.space}")
print(f"billed: {router.usage.tokens} tokens, ${router.usage.cost:.8f}")
