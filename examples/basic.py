"""Embed one text.

The result has more than the vector: the vector's space, the model that computed the vector, and the cost. A second run
costs nothing, because the vector is in the cache: in your user cache folder, unless you name another folder.

Needs OPENAI_API_KEY.
"""

from embedrouter import Router

router = Router(["openai:text-embedding-3-small"])
result = router.embed(["The ferry leaves at eight."], input_type="document")

vector = result.vectors[0]
print(f"{len(vector)} numbers, the first of them {vector[:3]}")
print(f"space:  {result.space}")
print(f"model:  {result.models[0]}")
print(f"billed: {result.usage.tokens} tokens, ${result.usage.cost:.8f}")
