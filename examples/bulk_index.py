"""Index many texts under a budget: estimate first, stop in time, go on later without paying twice.

The budget stops the first run in the middle. What was paid for is in the cache, so the second run, with more money,
pays for the rest only. The same holds after Ctrl-C, a crash, or a provider's outage.

Needs OPENAI_API_KEY and the extra openai; one run costs a tenth of a cent.
"""

from collections.abc import Iterator

from embedrouter import Budget, Router
from embedrouter.errors import BudgetExceededError, InvalidInputError

MODEL = "openai:text-embedding-3-small"


def documents(count: int = 2000) -> Iterator[str]:
    """Read from a file, a database or a crawler: one text at a time is enough."""
    for number in range(count):
        yield f"Invoice {number} was paid in full." if number != 1500 else ""


def usable(texts: Iterator[str]) -> Iterator[str]:
    return (text for text in texts if text)


def index(budget: Budget) -> None:
    with Router([MODEL], budget=budget, cache="./cache", ledger="./cache/ledger.db") as router:
        print(router.estimate(list(usable(documents())), input_type="document"))
        done = paid = 0
        try:
            for result in router.embed_iter(usable(documents()), input_type="document", chunk_size=500):
                done += len(result)  # here the vectors go into your store
                paid += result.usage.tokens
        except BudgetExceededError as error:
            print(f"stopped after {done:,} texts, {paid:,} tokens: {error}")
        else:
            print(f"indexed {done:,} texts, {paid:,} tokens paid in this run; saved ${router.usage.saved:.6f}")


with Router([MODEL], cache=None, ledger=":memory:") as router:
    try:
        router.embed(list(documents()), input_type="document")  # an empty text is refused before anything is sent
    except InvalidInputError as error:
        print(f"refused: no text at {error.indices}")

index(Budget(total="0.0002"))
index(Budget(total="0.005"))
