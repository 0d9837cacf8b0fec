"""A web service with many callers at once, configured by a file.

The models, tiers, limits and the budget are in embedrouter.toml; a misspelt key is an error, and the file holds no API
key. Calls that come at the same time are sent as one request, and equal texts are requested once.

Needs VOYAGE_API_KEY and the extra voyage.
"""

import asyncio
from pathlib import Path

import embedrouter
from embedrouter import Router
from embedrouter.errors import EmbedRouterError, NoModelAvailableError

CONFIG = Path(__file__).with_name("embedrouter.toml")
questions = [f"Where is platform {number % 25}?" for number in range(50)]


async def answer(router: Router, question: str, tier: str | None = None) -> str:
    """Embed one question, as a handler of FastAPI or Starlette does."""
    try:
        with embedrouter.tag("service"):
            result = await router.aembed([question], input_type="query", tier=tier)
    except NoModelAvailableError as error:  # 503: every model of the tier failed
        return f"try later: {[attempt.model for attempt in error.attempts]}"
    except EmbedRouterError as error:  # 400 or 500: a text, a key, a setting or the budget; the message says which
        return f"refused: {error}"
    return result.models[0]


async def main(router: Router) -> None:
    async with router:
        answered = await asyncio.gather(*(answer(router, question) for question in questions))
        print(f"{len(answered)} callers, {len(set(questions))} questions: {router.usage.requests} requests")
        print(f"by default {answered[0]}, asked for more {await answer(router, 'Where is the exit?', 'high')}")
        print(await answer(router, ""))
        print(await asyncio.to_thread(router.ledger.totals, "tag"))  # it reads a file


asyncio.run(main(Router.from_config(CONFIG)))
