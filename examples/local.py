"""Embed on your own machine, without a key and without a bill.

all-MiniLM-L6-v2 runs on torch; wordllama starts in a fraction of a second, with lower quality. The two models are two
spaces, so choose one model for each index.

Needs the extras sentence-transformers and wordllama; the first run downloads all-MiniLM-L6-v2 (90 MB).
"""

from embedrouter import Router

texts = ["The cat sat on the mat.", "A kitten was sitting on a rug.", "Interest rates rose again."]

for model in ("wordllama:l2_supercat_256", "sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"):
    with Router([model]) as router:
        result = router.embed(texts, input_type="document")
    kitten, rates = result.vectors[0] @ result.vectors[1], result.vectors[0] @ result.vectors[2]
    print(f"{result.space}: cat and kitten {kitten:.2f}, cat and interest rates {rates:.2f}, ${result.usage.cost}")
