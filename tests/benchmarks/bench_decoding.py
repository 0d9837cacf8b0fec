"""What one answer costs the client: our backends beside the makers' SDKs, in CPU time.

    python -m pytest tests/benchmarks/bench_decoding.py -o python_files="bench_*.py" -s

One full request of documents and one query, to the tests' emulator in a process of its own, so that its work is not
the client's. The SDKs are asked as their documentation does. The limit is what nothing can do without: sending and
receiving bytes through a bare HTTP client, and the fastest parser and base64 decoder there are, into one array.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import httpx2
import numpy as np
import pytest
from pydantic_core import from_json

from embedrouter import Model
from embedrouter.models import load_catalogue, resolve
from embedrouter.providers import Backend, create, describe
from tests.emulator import Emulator

from .contestants import ROOT
from .table import Figure, Row, Table

Name = Literal["openai", "cohere", "voyage"]
KEY = "k"


@dataclass(frozen=True)
class Provider:
    """The largest request a provider takes, and the least ratio to its SDK that we want."""

    model: str
    texts: int
    goal: float = 2.0

    @property
    def id(self) -> str:
        return self.model.partition(":")[2]


PROVIDERS: dict[Name, Provider] = {
    "openai": Provider("openai:text-embedding-3-small", 2048),
    "cohere": Provider("cohere:embed-v4.0", 96),
    "voyage": Provider("voyage:voyage-4-lite", 1000),
}


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[Name, str]]:
    """The emulator's addresses."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())
    process.communicate()


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("what", ["documents", "one query"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_an_answer(name: Name, what: str, kind: str, urls: dict[Name, str], table: Table) -> None:
    """In turns, so that what else the machine does hits all alike."""
    provider, url = PROVIDERS[name], urls[name]
    number, rounds = (provider.texts, 15) if what == "documents" else (1, 150)
    texts = [f"Document {place} is about routers, embeddings and what they cost." for place in range(number)]
    backend = _backend(provider, url)
    with asyncio.Runner() as runner, httpx2.Client(timeout=60) as http, ExitStack() as opened:
        if kind == "sync":
            sdk = _sdk(name, provider, url, opened)
            contestants: dict[str, Callable[[], object]] = {
                "ours": lambda: backend.embed(texts, "document", timeout=60),
                f"{name} SDK": lambda: sdk(texts),
            }
        else:
            opened.callback(lambda: runner.run(backend.aclose()))
            sdk = _async_sdk(name, provider, url, opened, runner)
            contestants = {
                "ours": lambda: runner.run(_done(backend.aembed(texts, "document", timeout=60))),
                f"{name} SDK": lambda: runner.run(_done(sdk(texts))),
            }
        contestants["bytes, parser, base64"] = lambda: _limit(http, name, provider, url, texts)
        taken = _race(contestants, rounds)
    backend.close()

    own = taken["ours"]
    figures = [
        Figure(
            contestant,
            "ours" if contestant == "ours" else "peer" if contestant.endswith("SDK") else "limit",
            1e6 * median(cost) / number,
            median(other / mine for other, mine in zip(cost, own, strict=True)),
            provider.goal if contestant.endswith("SDK") and what == "documents" else None,
        )
        for contestant, cost in taken.items()
    ]
    table.rows.append(Row(f"Answer of {name}, {what}, {kind}", "µs CPU a text", rounds, figures))


def _race(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each round; the first, which imports and connects, is left out."""
    taken: dict[str, list[float]] = {contestant: [] for contestant in contestants}
    for round_ in range(rounds + 1):
        for contestant, work in contestants.items():
            started = time.process_time()
            work()
            if round_:
                taken[contestant].append(time.process_time() - started)
    return taken


async def _done(work: Awaitable[object]) -> None:
    """Drop the result: a runner formats its task, ``repr`` of the result included, for an error of its own."""
    await work


# Ours


def _backend(provider: Provider, url: str) -> Backend:
    model = Model(provider.model, base_url=url, api_key=KEY)
    known = describe(model, load_catalogue(None), None)
    settled = resolve(model, known.card, dimensions=None, index=0, rank=0, local=False, batches=False, identity=None)
    return create(model, known, settled)


# The makers'


def _sdk(name: Name, provider: Provider, url: str, opened: ExitStack) -> Callable[[list[str]], Any]:
    match name:
        case "openai":
            import openai

            client = opened.enter_context(openai.OpenAI(api_key=KEY, base_url=url))
            return lambda texts: client.embeddings.create(model=provider.id, input=texts)
        case "cohere":
            import cohere
            import httpx

            v2 = cohere.ClientV2(KEY, base_url=url, httpx_client=opened.enter_context(httpx.Client(timeout=60)))
            return lambda texts: v2.embed(
                model=provider.id, input_type="search_document", texts=texts, embedding_types=["float"]
            )
        case "voyage":
            import voyageai

            voyage = voyageai.Client(KEY, base_url=url)  # pyright: ignore[reportPrivateImportUsage]
            return lambda texts: voyage.embed(texts, model=provider.id, input_type="document")


def _async_sdk(
    name: Name, provider: Provider, url: str, opened: ExitStack, runner: asyncio.Runner
) -> Callable[[list[str]], Any]:
    match name:
        case "openai":
            import openai

            client = openai.AsyncOpenAI(api_key=KEY, base_url=url)
            opened.callback(lambda: runner.run(client.close()))
            return lambda texts: client.embeddings.create(model=provider.id, input=texts)
        case "cohere":
            import cohere
            import httpx

            http = httpx.AsyncClient(timeout=60)
            opened.callback(lambda: runner.run(http.aclose()))
            v2 = cohere.AsyncClientV2(KEY, base_url=url, httpx_client=http)
            return lambda texts: v2.embed(
                model=provider.id, input_type="search_document", texts=texts, embedding_types=["float"]
            )
        case "voyage":
            import voyageai

            voyage = voyageai.AsyncClient(KEY, base_url=url)  # pyright: ignore[reportPrivateImportUsage]
            return lambda texts: voyage.embed(texts, model=provider.id, input_type="document")


# The limit


def _limit(http: httpx2.Client, name: Name, provider: Provider, url: str, texts: list[str]) -> np.ndarray:
    import pybase64  # chromadb brings it

    path, request = {
        "openai": ("/embeddings", {"input": texts, "encoding_format": "base64"}),
        "cohere": ("/v2/embed", {"texts": texts, "input_type": "search_document", "embedding_types": ["base64"]}),
        "voyage": ("/embeddings", {"input": texts, "input_type": "document", "encoding_format": "base64"}),
    }[name]
    headers = {"authorization": f"Bearer {KEY}"}
    body = from_json(http.post(url + path, json={"model": provider.id, **request}, headers=headers).content)
    rows = body["embeddings"]["base64"] if name == "cohere" else [row["embedding"] for row in body["data"]]
    numbers = b"".join([pybase64.b64decode(row, validate=True) for row in rows])
    return np.frombuffer(numbers, "<f4").reshape(len(texts), -1)


if __name__ == "__main__":
    with Emulator() as emulator:
        addresses = {"openai": emulator.openai_url, "cohere": emulator.cohere_url, "voyage": emulator.voyage_url}
        print(json.dumps(addresses), flush=True)
        sys.stdin.read()
