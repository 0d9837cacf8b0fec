"""Catch errors, and handle each error in the right way.

No retry loop is needed, and no vector is ever ``None``. The router retries after rate limits and outages as its
``RetryPolicy`` says, so every error that is raised needs a decision; vectors that arrived before the error are cached.

Needs OPENAI_API_KEY for the first case; the others fail on purpose.
"""

from embedrouter import Budget, Model, RetryPolicy, Router
from embedrouter.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
)

SMALL = "openai:text-embedding-3-small"


def index(router: Router, texts: list[str]) -> None:
    """Embed documents, and print the result or the error."""
    try:
        result = router.embed(texts, input_type="document")
    except InvalidInputError as error:  # your texts: leave invalid texts out, or repair such texts
        print(f"bad input at {error.indices}; going on without")
        index(router, [text for position, text in enumerate(texts) if position not in error.indices])
    except InputRejectedError as error:  # the provider refuses these texts: inspect the texts
        print(f"{error.model} refuses the texts at {error.indices}")
    except BudgetExceededError as error:  # the money: raise the budget, or continue tomorrow
        print(f"over budget: {error}")
    except AuthenticationError as error:  # the key: the message names the variable to set
        print(f"no access: {error}")
    except NoModelAvailableError as error:  # the providers: try later; embedded texts are cached
        print(f"no model answered, after {len(error.attempts)} attempts:")
        for attempt in error.attempts:
            print(f"  {attempt.model}: {type(attempt.error).__name__}, cost ${attempt.cost}")
    else:
        print(f"{len(result)} vectors in {result.space}")


index(Router([SMALL]), ["a good text", "", "another good text"])

frugal = Budget(per_call="0.00001")  # US dollars
index(Router([SMALL], cache=None, budget=frugal), [f"text number {number}" for number in range(1000)])

index(Router([Model(SMALL, api_key_env="NOT_SET_ANYWHERE")], cache=None), ["a text without a key"])

nobody_there = Model(SMALL, base_url="http://127.0.0.1:9/v1", api_key="any")
patience = RetryPolicy(attempts=3, initial_wait=0.1, timeout=5)
index(Router([nobody_there], cache=None, retry=patience), ["a text for a server that is down"])

try:
    Router(["openai:text-embedding-3-smal"])
except ConfigError as error:  # a setting: raised when the router is built, before anything is spent
    print(f"wrong setting: {error}")
