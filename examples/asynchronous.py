"""Embed from asyncio, with a bound on the requests in flight.

Notice that fifty callers may ask at once: ``max_concurrency`` decides how many requests are under way, the rest wait
their turn. Where you hold all the texts yourself one call is better than fifty: it makes a single request.

Needs OPENAI_API_KEY.
"""

import asyncio

from embedrouter import Model, Router

texts = [f"Ticket {number}: the printer is out of paper." for number in range(50)]
model = Model("openai:text-embedding-3-small", max_concurrency=10)


async def main() -> None:
    async with Router([model], cache=None) as router:
        results = await asyncio.gather(*(router.aembed([text], input_type="document") for text in texts))
        print(f"{len(results)} callers: {router.usage.requests} requests, at most {model.max_concurrency} at once")

        result = await router.aembed(texts, input_type="document")
        print(f"one caller with {len(result)} texts: {result.usage.requests} request")


asyncio.run(main())
