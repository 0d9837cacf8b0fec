"""Estimate the cost of a call before the call.

Equal texts count once, cached texts cost nothing, and an unknown price is ``None``, never a guess. A budget refuses a
call whose estimate is too high.

Needs no key, because no model is called; the extra openai, with tiktoken's vocabulary on your machine, counts exactly.
"""

from dataclasses import replace

from embedrouter import Budget, Model, Router
from embedrouter.errors import BudgetExceededError

same = ["The meter shows the same number every day."] * 1000
different = [f"The meter shows {number} today." for number in range(1000)]

for name in ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"):
    router = Router([f"openai:{name}"])
    for texts in (same, different):
        estimate = router.estimate(texts, input_type="document")
        size = f"{estimate.texts} texts, {estimate.unique} distinct, {estimate.tokens} tokens"
        print(f"{name}: {size}{'' if estimate.exact else ' at most'}, ${estimate.cost:.8f}")

own = Model("openai:our-model", base_url="https://embeddings.example.com/v1", space="our-model", dimensions=768)
print(f"unknown price: {Router([own]).estimate(different, input_type='document').cost}")

priced = replace(own, price="0.01")  # US dollars per million tokens, as a string, which is exact
print(f"known price: ${Router([priced]).estimate(different, input_type='document').cost:.8f}")

careful = Router(["openai:text-embedding-3-small"], budget=Budget(per_call="0.00001"))
try:
    careful.embed(different, input_type="document")
except BudgetExceededError as error:
    print(f"Refused: {error}")
