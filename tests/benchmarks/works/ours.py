"""This package, through the router and through its LangChain adapter, with default settings."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from embedrouter import Budget, Model, Router
from embedrouter.langchain import RouterEmbeddings
from embedrouter.models import Backend
from embedrouter.types import Answer, InputType

from ..worker import Work
from .corpus import DIMENSIONS, NAME, ROUNDS, Known, documents, fresh, queries


def _run(runner: asyncio.Runner, ask: Callable[..., Coroutine[Any, Any, Any]], *given: Any, **settings: Any) -> Any:
    return runner.run(ask(*given, **settings))


def _map(pool: ThreadPoolExecutor, function: Callable[[str], Any], given: Sequence[str]) -> list[Any]:
    return list(pool.map(function, given))


class _Backend(Backend):
    def __init__(self, known: Known) -> None:
        self.known = known

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return Answer(self.known.vectors(len(texts)), 10 * len(texts))


@contextmanager
def _warm(texts: list[str], input_type: InputType, redis: str | None = None, **settings: Any) -> Iterator[Router]:
    """Yield a router whose cache holds the texts, opened anew: nothing is left in memory from filling it.

    The cache is a folder, or on a Redis server.
    """
    known = Known()
    model = Model(
        "benchmark:known", space="known", dimensions=DIMENSIONS, batch_size=2048, price="0.02", backend=_Backend(known)
    )
    with tempfile.TemporaryDirectory() as folder:
        place, ledger = redis or folder, str(Path(folder) / "ledger.db")
        with Router([model], cache=place, ledger=ledger) as router:
            router.embed(texts, input_type=input_type)
        known.filling = False
        with Router([model], cache=place, ledger=ledger, **settings) as router:
            yield router


def warm_lists(number: int, **settings: Any) -> Work:
    texts = documents(number)
    with _warm(texts, "document", **settings) as router:
        while True:
            yield partial(RouterEmbeddings(router).embed_documents, texts)


def warm_arrays(number: int) -> Work:
    texts = documents(number)
    with _warm(texts, "document") as router:
        while True:
            yield partial(router.embed, texts, input_type="document")


def warm_query_lists(number: int, **settings: Any) -> Work:
    asked = queries(number)
    with _warm(asked, "query", **settings) as router:
        embedder = RouterEmbeddings(router)
        while True:
            yield lambda: sum(len(embedder.embed_query(query)) > 0 for query in asked * ROUNDS)


def warm_query_arrays(number: int, **settings: Any) -> Work:
    asked = queries(number)
    with _warm(asked, "query", **settings) as router:
        while True:
            yield lambda: sum(len(router.embed([query], input_type="query")) for query in asked * ROUNDS)


@contextmanager
def _cold(api: str, **settings: Any) -> Iterator[Router]:
    """Yield a router with an empty cache and a connection that is open."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model(f"openai:{NAME}", base_url=api, api_key="sk-benchmark")
        with Router([model], cache=folder, **settings) as router:
            router.embed(["the first request opens the connection"], input_type="document")
            yield router


def cold_arrays(number: int, api: str) -> Work:
    for texts in fresh(number):
        with _cold(api) as router:
            yield partial(router.embed, texts, input_type="document")


def cold_lists(number: int, api: str) -> Work:
    for texts in fresh(number):
        with _cold(api) as router:
            yield partial(RouterEmbeddings(router).embed_documents, texts)


def tasks(number: int, api: str) -> Work:
    """So many coroutines at once, each with a query of its own."""
    with _cold(api) as router, asyncio.Runner() as runner:
        embedder = RouterEmbeddings(router)

        async def ask(asked: list[str]) -> list[list[float]]:
            return await asyncio.gather(*(embedder.aembed_query(query) for query in asked))

        for round_ in itertools.count():
            asked = queries(number, round_ * number)
            yield partial(_run, runner, ask, asked)


def threads(number: int, api: str) -> Work:
    """So many threads at once, each with a query of its own."""
    with _cold(api) as router, ThreadPoolExecutor(number) as pool:
        embedder = RouterEmbeddings(router)
        for round_ in itertools.count():
            asked = queries(number, round_ * number)
            yield partial(_map, pool, embedder.embed_query, asked)


@contextmanager
def _in_use(api: str) -> Iterator[Router]:
    """Yield a router with a ledger, a budget and a cache of many documents: its files have grown as far as they do."""
    with _cold(api, budget=Budget(per_day="100")) as router:
        router.embed(documents(10_000), input_type="document")
        yield router


def uncached_queries(number: int, api: str) -> Work:
    """Queries that are not cached, one after another."""

    def ask(router: Router, asked: list[str]) -> int:
        return sum(len(router.embed([query], input_type="query")) for query in asked)

    with _in_use(api) as router:
        for round_ in itertools.count():
            yield partial(ask, router, queries(number, number * round_))


def uncached_queries_async(number: int, api: str) -> Work:
    async def ask(router: Router, asked: list[str]) -> int:
        return sum([len(await router.aembed([query], input_type="query")) for query in asked])

    with _in_use(api) as router, asyncio.Runner() as runner:
        for round_ in itertools.count():
            yield partial(_run, runner, ask, router, queries(number, number * round_))


def many_at_once(number: int, api: str) -> Work:
    """One call for each text, all at once."""

    async def embed(router: Router, texts: list[str]) -> list[Any]:
        return await asyncio.gather(*(router.aembed([text], input_type="document") for text in texts))

    for texts in fresh(number):
        with _cold(api) as router, asyncio.Runner() as runner:
            yield partial(_run, runner, embed, router, texts)


def in_one_call(number: int, api: str) -> Work:
    for texts in fresh(number):
        with _cold(api) as router, asyncio.Runner() as runner:
            yield partial(_run, runner, router.aembed, texts, input_type="document")
