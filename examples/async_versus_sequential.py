"""Measure three ways to embed 100, 500 and 1,000 texts.

Concurrent requests are faster than one request at a time, and a batch is faster than both: one request does the work of
a thousand. The cache is off, because only the first way would make requests otherwise. Micro-batching is off, because
the router would send the calls of the second way as a batch otherwise.

Needs OPENAI_API_KEY, and some minutes: the first way makes 1,600 requests one after the other.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from embedrouter import Model, Router

MODEL = Model("openai:text-embedding-3-small", max_concurrency=20)


async def one_by_one(router: Router, texts: list[str]) -> None:
    for text in texts:
        await router.aembed([text], input_type="document")


async def many_at_once(router: Router, texts: list[str]) -> None:
    await asyncio.gather(*(router.aembed([text], input_type="document") for text in texts))


async def in_one_batch(router: Router, texts: list[str]) -> None:
    await router.aembed(texts, input_type="document")


async def measure(way: Callable[[Router, list[str]], Awaitable[None]], texts: list[str]) -> tuple[float, int]:
    """Return the seconds and the number of requests of one way."""
    async with Router([MODEL], cache=None, micro_batch_window=0) as router:
        await router.aembed(["the first request opens the connection"], input_type="document")
        before = router.usage.requests
        start = time.perf_counter()
        await way(router, texts)
        return time.perf_counter() - start, router.usage.requests - before


async def main() -> None:
    for number in (100, 500, 1000):
        texts = [f"Reading {index} of the series" for index in range(number)]
        taken = {way.__name__: await measure(way, texts) for way in (one_by_one, many_at_once, in_one_batch)}
        sequential, _ = taken["one_by_one"]
        for name, (seconds, requests) in taken.items():
            print(f"{number} texts, {name}: {requests} requests, {seconds:.2f} s, {sequential / seconds:.1f} times")


asyncio.run(main())
