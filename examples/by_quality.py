"""Choose between cached, local and paid vectors by quality.

The two qualities are two spaces: a local vector is never returned in place of the paid model's vector, not even from
the cache, and ``result.space`` names the space. Keep an index for each space; for cheap queries on one index see
tiers.py.

Needs OPENAI_API_KEY and the extra sentence-transformers.
"""

from embedrouter import Router, TieredRouter

both = TieredRouter(
    {
        "low": Router(["sentence-transformers:sentence-transformers/all-MiniLM-L6-v2"]),
        "high": Router(["openai:text-embedding-3-small"]),
    }
)

text = "Good enough depends on what it is for"

results = []
for quality in ("low", "high", "low", "high"):
    result = both.embed([text], input_type="document", tier=quality)
    results.append(result)
    source = "from the cache" if result.cached[0] else f"computed for ${result.usage.cost:.8f}"
    print(f"{quality}: {result.space}, {source}")

low, high = results[:2]
print(f"comparable: {low.space == high.space}")
