"""What a tutorial writes: a JSON file for each vector, and one request for each text, one by one or ten at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from pathlib import Path

from openai import AsyncOpenAI

from ..worker import Work
from .corpus import NAME, documents, matrix


class _JsonCache:
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def _file(self, text: str) -> Path:
        return self.folder / f"{hashlib.sha256(f'{NAME}:{text}'.encode()).hexdigest()[:16]}.json"

    def get(self, text: str) -> list[float] | None:
        file = self._file(text)
        if file.exists():
            with file.open() as opened:
                return json.load(opened)
        return None

    def set(self, text: str, embedding: list[float]) -> None:
        with self._file(text).open("w") as opened:
            json.dump(embedding, opened)


def warm_documents(number: int) -> Work:
    texts = documents(number)
    with tempfile.TemporaryDirectory() as folder:
        cache = _JsonCache(folder)
        for text, vector in zip(texts, matrix(number).tolist(), strict=True):
            cache.set(text, vector)
        while True:
            yield lambda: [vector for text in texts if (vector := cache.get(text))]


def sequential(number: int, api: str) -> Work:
    """One request after the other."""
    return _exercise(number, api, at_once=1)


def parallel(number: int, api: str) -> Work:
    """At most ten requests at once, one for each text."""
    return _exercise(number, api, at_once=10)


def _exercise(number: int, api: str, at_once: int) -> Work:
    client = AsyncOpenAI(base_url=api, api_key="sk-benchmark")

    async def embed(text: str) -> list[float]:
        return (await client.embeddings.create(model=NAME, input=text)).data[0].embedding

    async def embed_all(texts: list[str]) -> list[list[float]]:
        semaphore = asyncio.Semaphore(at_once)

        async def limited(text: str) -> list[float]:
            async with semaphore:
                return await embed(text)

        return await asyncio.gather(*(limited(text) for text in texts))

    with asyncio.Runner() as runner:
        runner.run(embed("the first request opens the connection"))
        while True:
            yield lambda: runner.run(embed_all(documents(number)))
