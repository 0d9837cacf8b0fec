"""Pay for a text once.

The second call makes no request, and its result is marked as cached. A text with a newline at its end is another text.
In a second run the first call is a hit, too: the cache outlives the program.

Needs OPENAI_API_KEY.
"""

from embedrouter import Router

router = Router(["openai:text-embedding-3-small"])
text = "Bought once, kept for good"

for call in ("first", "second"):
    result = router.embed([text], input_type="document")
    found = "hit" if result.cached[0] else "miss"
    print(f"{call} call: cache {found}, {result.usage.requests} requests, saved ${result.usage.saved:.8f}")

result = router.embed([text, text + "\n"], input_type="document")
print(f"with and without a newline at the end: cached {result.cached}")
