"""LiteLLM: its disk cache, and `embedding` without a cache.

The cache is read through `aembedding`, which looks each text up; the synchronous `embedding` needs the extras of the
proxy to read a hit. LiteLLM does not split what it is given, so requests are as large as OpenAI takes.
"""

from __future__ import annotations

import asyncio
import tempfile
from functools import partial
from typing import Any

import litellm
from litellm.caching.caching import Cache

from ..worker import Work
from .corpus import NAME, documents, fresh

REQUEST = 2048


def warm_documents(number: int, api: str) -> Work:
    texts = documents(number)

    async def ask() -> list[Any]:
        answer = await litellm.aembedding(
            model=f"openai/{NAME}", input=texts, api_base=api, api_key="sk-benchmark", caching=True
        )
        return [row["embedding"] for row in answer.data]

    async def fill(cache: Cache) -> None:
        """Wait for what LiteLLM writes after it has answered."""
        await ask()
        while len(cache.cache.disk_cache) < number:
            await asyncio.sleep(0.1)

    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        litellm.cache = Cache(type="disk", disk_cache_dir=folder)
        runner.run(fill(litellm.cache))
        while True:
            yield lambda: runner.run(ask())


def cold_documents(number: int, api: str) -> Work:
    def embed(texts: list[str]) -> list[list[float]]:
        made: list[list[float]] = []
        for start in range(0, len(texts), REQUEST):
            part = texts[start : start + REQUEST]
            answer = litellm.embedding(model=f"openai/{NAME}", input=part, api_base=api, api_key="sk-benchmark")
            made += [row["embedding"] for row in answer.data]
        return made

    embed(["the first request opens the connection"])
    for texts in fresh(number):
        yield partial(embed, texts)
