"""Embed from asyncio, with many callers at once.

Fifty callers make a request or two: the first call is sent at once, and the calls of the next ``micro_batch_window``
seconds are sent as one request. For callers with many texts, ``max_concurrency`` limits the requests in flight, of all
threads and event loops together.

Needs OPENAI_API_KEY.
"""

import asyncio

from embedrouter import Model, Router

texts = [f"Ticket {number}: the printer is out of paper." for number in range(50)]
model = Model("openai:text-embedding-3-small", max_concurrency=10)


async def main() -> None:
    async with Router([model], cache=None) as router:
        results = await asyncio.gather(*(router.aembed([text], input_type="document") for text in texts))
        print(f"{len(results)} callers: {router.usage.requests} requests")

        result = await router.aembed(texts, input_type="document")
        print(f"one caller with {len(result)} texts: {result.usage.requests} request")


asyncio.run(main())
