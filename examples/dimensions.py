"""Request fewer dimensions: less storage and faster search, for slightly worse retrieval.

Every number of dimensions is a separate space. Vectors of 256 and of 512 numbers are never mixed in a router, a cache
entry or a result; an attempt to mix such vectors is an error when the router is built, not bad search results later.

Needs OPENAI_API_KEY.
"""

from embedrouter import Model, Router
from embedrouter.errors import SpaceMismatchError

text = "Shorter vectors keep most of the meaning"

for dimensions in (256, 512, 1024, 1536):
    router = Router(["openai:text-embedding-3-small"], dimensions=dimensions)
    result = router.embed([text], input_type="document")
    print(f"{dimensions:>5} dimensions: vectors of shape {result.vectors.shape} in {result.space}")

try:
    Router(
        [
            Model("openai:text-embedding-3-small", dimensions=256),
            Model("openai:text-embedding-3-small", dimensions=512),
        ]
    )
except SpaceMismatchError as error:
    print(f"Refused: {error}")
