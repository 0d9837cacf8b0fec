"""Calls of few texts that come at the same time reach the provider as few requests, and each gets what is its own."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pytest
from embedrouter.calls._sharing import share_out
from hypothesis import given
from hypothesis import strategies as st

import embedrouter
from embedrouter import Budget, EmbeddingResult, Model, RetryPolicy, Router, Usage
from embedrouter._process import Workers
from embedrouter.calls import _driver as drive
from embedrouter.calls._micro_batcher import Gatherings
from embedrouter.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigError,
    EmbedRouterError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    UnavailableError,
)
from embedrouter.langchain import RouterEmbeddings
from embedrouter.llama_index import RouterEmbedding
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.emulator import Emulator, Fault, Received, count_tokens, vector
from tests.properties import examples
from tests.side_by_side import HANG, at_once, until

PROVIDERS = {
    "openai": ("openai:text-embedding-3-small", "openai_url"),
    "cohere": ("cohere:embed-v4.0", "cohere_url"),
    "voyage": ("voyage:voyage-3.5", "voyage_url"),
}
MILLION = 1_000_000


def router_to(emulator: Emulator, provider: str = "openai", **settings: Any) -> Router:
    name, url = PROVIDERS[provider]
    model = Model(name, base_url=getattr(emulator, url), api_key="k", price="1")
    return Router([model], **{"cache": MemoryCache(), "ledger": ":memory:", "retry": NO_WAITING, **settings})


def router_for(fake: FakeBackend, **settings: Any) -> Router:
    own = {"price": "1"} | {key: settings.pop(key) for key in ("max_input_tokens", "free_tokens") if key in settings}
    return Router([fake.model(**own)], **{"cache": None, "ledger": ":memory:", "retry": NO_WAITING, **settings})


async def auntil(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def worlds(router: Router) -> list[Gatherings[Any]]:
    here = router._driver._here
    return [here.gatherings, *here.agatherings._made.values()]


def gathered(router: Router) -> int:
    """Return how many calls wait for a departure."""
    return sum(len(gathering.members) for world in worlds(router) for gathering in [*world._open.values()])


def quiet(router: Router) -> bool:
    here = router._driver._here
    return not (
        here.sent or router._driver.flights._waiting or any(world._open or world._under_way for world in worlds(router))
    )


def assert_quiet(router: Router) -> None:
    """Nothing is left of what was under way, as soon as the thread or task that sent it has ended, too."""
    until(lambda: quiet(router))


def total(usages: Iterable[Usage]) -> Usage:
    return sum(usages, Usage())


def assert_accounts_agree(router: Router, results: Iterable[EmbeddingResult]) -> None:
    """What the calls were told adds up to the router's totals and the ledger's."""
    assert total(result.usage for result in results) == router.usage
    accounts = list(router.ledger.totals("model").values())
    assert router.usage == Usage(
        tokens=sum(account.tokens for account in accounts),
        requests=sum(account.requests for account in accounts),
        cost=sum((account.cost for account in accounts), Decimal(0)),
        saved=sum((account.saved for account in accounts), Decimal(0)),
        unpriced_tokens=sum(account.unpriced_tokens for account in accounts),
    )


class Doors:
    """Takes the place of the window: gatherings depart when they are told to, and not after a time."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.waited = 0

    def sleep(self, _: float) -> None:
        self.waited += 1
        assert self.open.wait(HANG)

    async def asleep(self, _: float) -> None:
        self.waited += 1
        await auntil(self.open.is_set)


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> Doors:
    doors = Doors()
    monkeypatch.setattr(drive, "time", types.SimpleNamespace(sleep=doors.sleep, monotonic=time.monotonic))
    monkeypatch.setattr(drive, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "sleep": doors.asleep}))
    return doors


class Gated(FakeBackend):
    """Answers the first request when it is told to, the others at once."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.first = True
        self.arrived, self.open = threading.Event(), threading.Event()
        self.stays_shut = False
        self.waiting = 0

    def _waits(self) -> bool:
        with self._lock:
            first, self.first = self.first, self.stays_shut
            self.waiting += first
        self.arrived.set()
        return first

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if self._waits():
            assert self.open.wait(HANG)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if self._waits():
            await auntil(self.open.is_set)
        return super().embed(texts, input_type, timeout=timeout)

    @property
    def asked(self) -> list[Counter[str]]:
        """The texts of each request."""
        return [Counter(call.texts) for call in self.calls]


Call = tuple[Sequence[str], dict[str, Any]]


def asking(*texts: str, **asked: Any) -> Call:
    return texts, {"input_type": "query", **asked}


class Crowd:
    """Calls that come while another one is under way; they gather until the doors are opened."""

    def __init__(self, router: Router, fake: Gated, doors: Doors) -> None:
        self.router, self.fake, self.doors = router, fake, doors

    def run(self, asynchronous: bool, calls: Sequence[Call]) -> list[Any]:
        """Return what the first call, which goes alone, and those who gather return or raise."""
        return asyncio.run(self._arun(calls)) if asynchronous else self._run(calls)

    def _run(self, calls: Sequence[Call]) -> list[Any]:
        def call(texts: Sequence[str], asked: dict[str, Any]) -> Any:
            try:
                return self.router.embed(texts, **asked)
            except EmbedRouterError as error:
                return error

        with ThreadPoolExecutor(len(calls) + 1) as pool:
            futures = [pool.submit(call, *asking("first"))]
            until(self.fake.arrived.is_set)
            for number, (texts, asked) in enumerate(calls, 1):
                futures.append(pool.submit(call, texts, asked))
                until(lambda number=number: gathered(self.router) == number)  # type: ignore[misc]
            self.doors.open.set()
            results = [future.result(HANG) for future in futures[1:]]
            self.fake.open.set()
            return [futures[0].result(HANG), *results]

    async def _arun(self, calls: Sequence[Call]) -> list[Any]:
        async with asyncio.timeout(HANG):
            texts, asked = asking("first")
            first = asyncio.create_task(self.router.aembed(texts, **asked))
            await auntil(self.fake.arrived.is_set)
            tasks = []
            for number, (texts, asked) in enumerate(calls, 1):
                tasks.append(asyncio.create_task(self.router.aembed(texts, **asked)))
                await auntil(lambda number=number: gathered(self.router) == number)  # type: ignore[misc]
            self.doors.open.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self.fake.open.set()
            outcomes = [await first, *results]
            await self.router.aclose()
            return outcomes


@pytest.fixture(params=[False, True], ids=["threads", "tasks"])
def asynchronous(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# Few requests


def single_text_calls(way: str, router: Router) -> tuple[Callable[[str], Any], Callable[[str], Awaitable[Any]]]:
    """Return how one query is asked, in both forms; the answer is its vector."""
    if way == "langchain":
        chain = RouterEmbeddings(router)
        return chain.embed_query, chain.aembed_query
    if way == "llama_index":
        index = RouterEmbedding(router=router)
        return index.get_query_embedding, index.aget_query_embedding

    async def ask(text: str) -> Any:
        return (await router.aembed([text], input_type="query")).vectors[0]

    return lambda text: router.embed([text], input_type="query").vectors[0], ask


def ask_all(router: Router, way: str, asynchronous: bool, texts: Sequence[str]) -> list[Any]:
    """Ask for each text in a thread or task of its own, all at once; return the vectors."""
    call, acall = single_text_calls(way, router)
    if not asynchronous:
        return at_once([partial(call, text) for text in texts])

    async def crowd() -> list[Any]:
        async with router, asyncio.timeout(HANG):
            return await asyncio.gather(*map(acall, texts))

    return asyncio.run(crowd())


@pytest.mark.parametrize(
    ("provider", "way"),
    [("openai", "router"), ("cohere", "router"), ("voyage", "langchain"), ("openai", "llama_index")],
)
def test_two_hundred_different_texts_at_once_are_few_requests(
    emulator: Emulator, provider: str, way: str, asynchronous: bool
) -> None:
    """Each caller gets the vector of its own text. The window is wide because a busy machine starts threads slowly."""
    emulator.latency = 0.1
    router = router_to(emulator, provider, micro_batch_window=0.25)
    texts = [f"question number {number}" for number in range(200)]
    answers = ask_all(router, way, asynchronous, texts)
    router.close()

    assert emulator.calls <= 4
    assert Counter(text for received in emulator.received for text in received.texts) == Counter(texts)
    name = PROVIDERS[provider][0].partition(":")[2]
    for text, answer in zip(texts, answers, strict=True):
        assert np.allclose(answer, vector(name, None, "query", text), atol=1e-6)
    (billed,) = emulator.billed.values()
    (account,) = router.ledger.totals("model").values()
    assert account.tokens == router.usage.tokens == billed
    assert account.requests == router.usage.requests == emulator.calls
    assert account.cost == router.usage.cost == Decimal(billed) / MILLION
    assert_quiet(router)


@pytest.mark.parametrize(
    ("way", "cache"), [("router", True), ("router", False), ("langchain", True), ("llama_index", False)]
)
def test_two_hundred_equal_texts_at_once_are_one_request(
    emulator: Emulator, way: str, asynchronous: bool, cache: bool
) -> None:
    """Those who gather follow the one that went alone."""
    emulator.latency = 0.6
    router = router_to(emulator, cache=MemoryCache() if cache else None)
    answers = ask_all(router, way, asynchronous, ["the question"] * 200)
    router.close()

    assert [received.texts for received in emulator.received] == [("the question",)]
    right = vector("text-embedding-3-small", None, "query", "the question")
    assert all(np.allclose(answer, right, atol=1e-6) for answer in answers)
    assert_quiet(router)


def test_with_the_default_window_what_overlaps_is_right(emulator: Emulator, asynchronous: bool) -> None:
    """How many requests it makes depends on the machine; everything else does not."""
    emulator.latency = 0.05
    router = router_to(emulator)
    texts = [f"question number {number % 70}" for number in range(100)]
    answers = ask_all(router, "router", asynchronous, texts)
    router.close()

    for text, answer in zip(texts, answers, strict=True):
        assert np.allclose(answer, vector("text-embedding-3-small", None, "query", text), atol=1e-6)
    assert Counter(text for received in emulator.received for text in received.texts) == Counter(set(texts))
    assert router.usage.tokens == sum(emulator.billed.values())
    assert router.usage.requests == emulator.calls
    assert_quiet(router)


def test_those_who_gather_are_one_request(doors: Doors, asynchronous: bool) -> None:
    """Twenty calls of several texts, some of them the same."""
    fake = Gated()
    router = router_for(fake)
    calls = [asking(f"text {number}", f"text {number + 1}") for number in range(20)]
    results = Crowd(router, fake, doors).run(asynchronous, calls)

    assert fake.asked == [Counter(f"text {number}" for number in range(21)), Counter(["first"])]
    for (texts, _), result in zip(calls, results[1:], strict=True):
        assert np.array_equal(result.vectors, [fake.vector(text, "query") for text in texts])
    assert [result.cached for result in results[1:]] == [(False, False)] + [(True, False)] * 19
    assert [result.usage.requests for result in results] == [1, 1] + [0] * 19
    assert [result.usage.tokens for result in results] == [1, 4] + [2] * 19
    assert [result.usage.cost for result in results] == [result.usage.tokens * Decimal("1e-6") for result in results]
    assert [result.usage.saved for result in results] == [0, 0] + [Decimal("2e-6")] * 19
    assert_accounts_agree(router, results)
    assert_quiet(router)


def test_results_are_the_callers_own(doors: Doors, asynchronous: bool) -> None:
    """Whoever changes an array changes nobody else's, nor what is remembered."""
    fake = Gated()
    router = router_for(fake, cache=MemoryCache())
    _, *results = Crowd(router, fake, doors).run(asynchronous, [asking("a")] * 3)
    for result in results:
        assert np.array_equal(result.vectors[0], fake.vector("a", "query"))
        result.vectors[:] = np.nan

    assert np.array_equal(router.embed(["a"], input_type="query").vectors[0], fake.vector("a", "query"))


# Nobody waits without need


@pytest.mark.parametrize("way", ["router", "langchain", "llama_index"])
def test_alone_nothing_waits(doors: Doors, way: str, asynchronous: bool) -> None:
    """Call after call, with doors that never open: no gathering is even begun."""
    fake = FakeBackend()
    router = router_for(fake, micro_batch_window=1.0, cache=MemoryCache())
    call, acall = single_text_calls(way, router)

    async def one_by_one() -> None:
        for number in range(5):
            await acall(str(number))

    if asynchronous:
        asyncio.run(one_by_one())
    else:
        for number in range(5):
            call(str(number))

    assert len(fake.calls) == 5
    assert doors.waited == 0
    assert_quiet(router)


def test_a_call_that_failed_is_not_under_way_any_more(doors: Doors, asynchronous: bool) -> None:
    """The next one is alone again."""
    fake = FakeBackend(outcomes=[AuthenticationError("no")] * 3)
    router = router_for(fake)
    for number in range(4):
        try:
            if asynchronous:
                asyncio.run(router.aembed([str(number)], input_type="query"))
            else:
                router.embed([str(number)], input_type="query")
        except AuthenticationError:
            pass

    assert len(fake.calls) == 4
    assert doors.waited == 0
    assert_quiet(router)


def test_a_call_of_many_texts_goes_by_itself(doors: Doors, asynchronous: bool) -> None:
    """It fills a request of its own, and others do not wait on its account."""
    fake = Gated()
    router = router_for(fake)
    many = [str(number) for number in range(17)]

    async def both() -> None:
        large = asyncio.create_task(router.aembed(many, input_type="query"))
        await auntil(fake.arrived.is_set)
        await router.aembed(["small"], input_type="query")
        fake.open.set()
        await large

    if asynchronous:
        asyncio.run(both())
    else:
        with ThreadPoolExecutor(1) as pool:
            large = pool.submit(router.embed, many, input_type="query")
            until(fake.arrived.is_set)
            router.embed(["small"], input_type="query")
            fake.open.set()
            large.result(HANG)

    assert sorted(len(call.texts) for call in fake.calls) == [1, 17]
    assert doors.waited == 0


@pytest.mark.parametrize(
    "switch",
    [
        {"micro_batch_window": 0},
        {"budget": Budget(per_call="1.00")},
    ],
)
def test_who_opts_out_sends_each_call_by_itself(doors: Doors, switch: dict[str, Any], asynchronous: bool) -> None:
    """A cap on each call's cost needs to know what each costs."""
    fake = FakeBackend()
    router = router_for(fake, **switch)
    texts = [str(number) for number in range(30)]
    ask_all(router, "router", asynchronous, texts)

    assert Counter(call.texts for call in fake.calls) == Counter((text,) for text in texts)
    assert doors.waited == 0


@pytest.mark.parametrize("window", [-0.001, 1.001, float("nan")])
def test_a_window_that_is_no_short_time_is_refused(window: float) -> None:
    """Minutes for milliseconds would hold every call up."""
    with pytest.raises(ConfigError, match="micro_batch_window"):
        router_for(FakeBackend(), micro_batch_window=window)


def test_what_memory_knows_does_not_gather(doors: Doors, asynchronous: bool) -> None:
    """Nor does it mark anything as under way."""
    fake = Gated()
    router = router_for(fake, cache=MemoryCache())
    fake.first = False
    router.embed(["warm"], input_type="query")
    fake.first = True
    fake.arrived.clear()

    async def both() -> EmbeddingResult:
        cold = asyncio.create_task(router.aembed(["cold"], input_type="query"))
        await auntil(fake.arrived.is_set)
        warm = await router.aembed(["warm"], input_type="query")
        fake.open.set()
        await cold
        return warm

    if asynchronous:
        warm = asyncio.run(both())
    else:
        with ThreadPoolExecutor(1) as pool:
            cold = pool.submit(router.embed, ["cold"], input_type="query")
            until(fake.arrived.is_set)
            warm = router.embed(["warm"], input_type="query")
            fake.open.set()
            cold.result(HANG)

    assert warm.cached == (True,)
    assert doors.waited == 0


async def test_a_sync_call_inside_a_loop_goes_alone(doors: Doors) -> None:
    """Whoever blocks a loop must not wait for its tasks, nor for a window."""
    fake = Gated()
    router = router_for(fake)
    task = asyncio.create_task(router.aembed(["first"], input_type="query"))
    await auntil(fake.arrived.is_set)
    others = [asyncio.create_task(router.aembed([text], input_type="query")) for text in "ab"]
    await auntil(lambda: gathered(router) == 2)
    result = router.embed(["c"], input_type="query")
    assert fake.asked == [Counter("c")]
    doors.open.set()
    fake.open.set()
    results = [await task, *await asyncio.gather(*others), result]

    assert_accounts_agree(router, results)
    assert_quiet(router)


def test_what_the_cache_knows_does_not_wait_for_the_provider(doors: Doors, asynchronous: bool) -> None:
    """Who joined those who wait is served from the cache when they depart, while their request is out."""
    store = MemoryCache()
    fake = Gated()
    fake.first = False
    router_for(fake, cache=store).embed(["warm"], input_type="query")
    fake.first = fake.stays_shut = True
    fake.arrived.clear()
    router = router_for(fake, cache=store)

    async def tasks() -> EmbeddingResult:
        cold = [asyncio.create_task(router.aembed(["first"], input_type="query"))]
        await auntil(lambda: fake.waiting == 1)
        cold.append(asyncio.create_task(router.aembed(["second"], input_type="query")))
        await auntil(lambda: gathered(router) == 1)
        warm = asyncio.create_task(router.aembed(["warm"], input_type="query"))
        await auntil(lambda: gathered(router) == 2)
        doors.open.set()
        await auntil(lambda: fake.waiting == 2)
        try:
            return await asyncio.wait_for(warm, 2)
        finally:
            fake.open.set()
            await asyncio.gather(*cold)

    def threads() -> EmbeddingResult:
        with ThreadPoolExecutor(3) as pool:
            cold = [pool.submit(router.embed, ["first"], input_type="query")]
            until(lambda: fake.waiting == 1)
            cold.append(pool.submit(router.embed, ["second"], input_type="query"))
            until(lambda: gathered(router) == 1)
            warm = pool.submit(router.embed, ["warm"], input_type="query")
            until(lambda: gathered(router) == 2)
            doors.open.set()
            until(lambda: fake.waiting == 2)
            try:
                return warm.result(2)
            finally:
                fake.open.set()

    result = asyncio.run(tasks()) if asynchronous else threads()

    assert result.cached == (True,)


# What must not be mixed


def test_tags_tiers_input_types_and_routers_do_not_mix(doors: Doors, asynchronous: bool) -> None:
    """Each request has one of each, and the ledger knows who asked."""
    fake = Gated()

    def build() -> Router:
        models = [fake.model(f"fake:{tier}", tier=tier, price=price) for tier, price in (("low", "1"), ("high", "2"))]
        return Router(models, cache=None, ledger=":memory:", retry=NO_WAITING)

    routers = [build(), build()]
    kinds: list[tuple[Router, str, str, InputType]] = [
        (router, tag, tier, kind)
        for router in routers
        for tag in ("mine", "yours")
        for tier in ("low", "high")
        for kind in ("query", "document")
    ]

    def text(router: Router, *others: str) -> str:
        return " ".join([str(routers.index(router)), *others])

    fake.stays_shut = True  # one call of each kind is under way

    async def aask(number: int, router: Router, tag: str, tier: str, kind: InputType) -> EmbeddingResult:
        with embedrouter.tag(tag):
            return await router.aembed([f"{text(router, tag, tier, kind)} {number}"], input_type=kind, tier=tier)

    def ask(number: int, router: Router, tag: str, tier: str, kind: InputType) -> EmbeddingResult:
        with embedrouter.tag(tag):
            return router.embed([f"{text(router, tag, tier, kind)} {number}"], input_type=kind, tier=tier)

    async def tasks() -> list[EmbeddingResult]:
        first = [asyncio.create_task(aask(0, *kind)) for kind in kinds]
        await auntil(lambda: fake.waiting == len(kinds))
        others = [asyncio.create_task(aask(number, *kind)) for number in (1, 2, 3) for kind in kinds]
        await auntil(lambda: sum(map(gathered, routers)) == len(others))
        doors.open.set()
        fake.open.set()
        return await asyncio.gather(*first, *others)

    def threads() -> list[EmbeddingResult]:
        with ThreadPoolExecutor(4 * len(kinds)) as pool:
            first = [pool.submit(ask, 0, *kind) for kind in kinds]
            until(lambda: fake.waiting == len(kinds))
            others = [pool.submit(ask, number, *kind) for number in (1, 2, 3) for kind in kinds]
            until(lambda: sum(map(gathered, routers)) == len(others))
            doors.open.set()
            fake.open.set()
            return [future.result(HANG) for future in first + others]

    if asynchronous:
        asyncio.run(tasks())
    else:
        threads()

    requests = Counter(
        (call.input_type, frozenset(text.rpartition(" ")[0] for text in call.texts), len(call.texts))
        for call in fake.calls
    )
    assert requests == Counter((kind[-1], frozenset([text(*kind)]), size) for kind in kinds for size in (1, 3))
    for router in routers:
        assert {tag: account.requests for tag, account in router.ledger.totals("tag").items()} == {
            "mine": 8,
            "yours": 8,
        }
        assert_quiet(router)


def test_threads_and_tasks_gather_apart(doors: Doors) -> None:
    """A thread cannot wait for an event loop that somebody may block; both are served."""
    fake = Gated()
    fake.stays_shut = True
    router = router_for(fake)

    async def tasks() -> list[EmbeddingResult]:
        calls = [asyncio.create_task(router.aembed(["task first"], input_type="query"))]
        await auntil(lambda: fake.waiting == 2)
        calls += [asyncio.create_task(router.aembed([text], input_type="query")) for text in ("task a", "task b")]
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(4) as pool:
        calls: list[Future[Any]] = [pool.submit(router.embed, ["thread first"], input_type="query")]
        until(lambda: fake.waiting == 1)
        loop = pool.submit(asyncio.run, tasks())
        until(lambda: gathered(router) == 2)
        calls += [pool.submit(router.embed, [text], input_type="query") for text in ("thread a", "thread b")]
        until(lambda: gathered(router) == 4)
        doors.open.set()
        fake.open.set()
        results = [*loop.result(HANG), *(call.result(HANG) for call in calls)]

    assert Counter(frozenset(call.texts) for call in fake.calls) == Counter(
        map(frozenset, [["thread first"], ["task first"], ["thread a", "thread b"], ["task a", "task b"]])
    )
    assert_accounts_agree(router, results)
    assert_quiet(router)


# Bills


@pytest.mark.parametrize(("price", "free"), [("0.13", 0), (None, 0), ("0.13", 7), ("0.000007", 5)])
def test_the_shares_add_up_to_the_bill(doors: Doors, price: str | None, free: int, asynchronous: bool) -> None:
    """To the last digit, whatever part of it is free; what has no known price is told as such."""
    fake = Gated()
    model = fake.model(price=price, free_tokens=free)
    router = Router([model], cache=MemoryCache(), ledger=":memory:", retry=NO_WAITING)
    calls = [asking("word " * number, "word " * (number // 2 + 1)) for number in range(1, 14)]
    results = Crowd(router, fake, doors).run(asynchronous, calls)

    assert_accounts_agree(router, results)
    assert all(result.usage.cost >= 0 and result.usage.tokens >= 0 for result in results)
    if price is None:
        assert router.usage.unpriced_tokens == router.usage.tokens > 0
    else:
        assert router.usage.cost == (router.usage.tokens - free) * Decimal(price) / MILLION


def test_the_accounts_agree_with_the_providers_bill(emulator: Emulator, doors: Doors) -> None:
    """Real tokens, in proportion to what each text has."""
    emulator.latency = 0.2
    router = router_to(emulator)
    texts = [f"question number {number} " + "and so on " * number for number in range(20)]
    with ThreadPoolExecutor(21) as pool:
        calls = [pool.submit(router.embed, ["first"], input_type="query")]
        until(lambda: emulator.calls == 1)
        calls += [pool.submit(router.embed, [text], input_type="query") for text in texts]
        until(lambda: gathered(router) == 20)
        doors.open.set()
        results = [call.result(HANG) for call in calls]
    router.close()

    assert [len(received.texts) for received in emulator.received] == [1, 20]
    assert router.usage.tokens == sum(emulator.billed.values())
    assert [result.usage.tokens for result in results[1:]] == [count_tokens("openai", text) for text in texts]
    assert_accounts_agree(router, results)


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_a_part_that_stands_in_texts_of_several_callers_is_billed_once(
    doors: Doors, policy: str, asynchronous: bool
) -> None:
    """Nobody's bill is negative on account of it."""
    fake = Gated()
    router = router_for(fake, max_input_tokens=4, on_too_long=policy, cache=MemoryCache())
    beginning = "one two three four "
    calls = [asking("short"), *(asking(beginning + str(number)) for number in range(6))]
    results = Crowd(router, fake, doors).run(asynchronous, calls)

    assert all(result.usage.tokens >= 0 and result.usage.cost >= 0 for result in results)
    assert all(result.shortened == (True,) for result in results[2:])
    assert_accounts_agree(router, results)


def test_what_was_billed_for_nothing_is_told(doors: Doors, asynchronous: bool) -> None:
    """An answer that could not be used is paid for all the same."""
    fake = Gated(outcomes=[Answer(np.zeros((3, 8), np.float32), 5)])
    router = router_for(fake)
    results = Crowd(router, fake, doors).run(asynchronous, [asking(text) for text in "abc"])

    assert [result.usage.tokens for result in results] == [1, 6, 1, 1]
    assert [result.usage.requests for result in results] == [1, 2, 0, 0]
    assert_accounts_agree(router, results)


# Failures


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_a_text_that_is_refused_harms_only_who_brought_it(
    emulator: Emulator, doors: Doors, asynchronous: bool, cache: bool
) -> None:
    """The others are paid for once, with a cache and without."""
    refusal = Fault.status(400, body={"error": {"message": "unsafe", "type": "invalid_request_error", "param": None}})

    def rule(received: Received) -> Fault | None:
        return refusal if "POISON" in received.texts else Fault.slow(0.3) if "first" in received.texts else None

    emulator.fault_for = rule
    router = router_to(emulator, cache=MemoryCache() if cache else None)
    texts = [f"text {number}" for number in range(20)]
    texts[7] = "POISON"

    async def tasks() -> list[Any]:
        async with router:
            calls = [asyncio.create_task(router.aembed(["first"], input_type="query"))]
            await auntil(lambda: emulator.calls == 1)
            calls += [asyncio.create_task(router.aembed([text], input_type="query")) for text in texts]
            await auntil(lambda: gathered(router) == 20)
            doors.open.set()
            return await asyncio.gather(*calls, return_exceptions=True)

    def threads() -> list[Any]:
        def call(text: str) -> Any:
            try:
                return router.embed([text], input_type="query")
            except EmbedRouterError as error:
                return error

        with ThreadPoolExecutor(21) as pool:
            calls = [pool.submit(call, "first")]
            until(lambda: emulator.calls == 1)
            calls += [pool.submit(call, text) for text in texts]
            until(lambda: gathered(router) == 20)
            doors.open.set()
            return [call.result(HANG) for call in calls]

    results = asyncio.run(tasks()) if asynchronous else threads()
    router.close()

    refused = results.pop(8)
    assert isinstance(refused, InputRejectedError)
    assert refused.indices == (0,)
    texts.remove("POISON")
    for text, result in zip(["first", *texts], results, strict=True):
        assert np.allclose(result.vectors[0], vector("text-embedding-3-small", None, "query", text), atol=1e-6)
    answered = [received for received in emulator.received if "POISON" not in received.texts]
    assert Counter(text for received in answered for text in received.texts) == Counter(["first", *texts])
    assert router.usage.tokens == sum(emulator.billed.values())
    assert_accounts_agree(router, results)
    assert_quiet(router)


def test_a_text_that_is_too_long_harms_only_who_brought_it(doors: Doors, asynchronous: bool) -> None:
    """It is found before anything is sent, and its position is that in its own call."""
    fake = Gated()
    router = router_for(fake, max_input_tokens=3)
    calls = [asking("a"), asking("b", "one two three four"), asking("c")]
    results = Crowd(router, fake, doors).run(asynchronous, calls)

    assert isinstance(results[2], InvalidInputError)
    assert results[2].indices == (1,)
    for text, result in zip("ac", [results[1], results[3]], strict=True):
        assert np.array_equal(result.vectors[0], fake.vector(text, "query"))
    assert sum(fake.asked, Counter()) == Counter(["first", "a", "c"])


def test_a_wrong_key_is_told_to_everybody(emulator: Emulator, asynchronous: bool) -> None:
    """With few requests; each has an error of its own."""
    emulator.fault_for = lambda _: Fault.status(401).after(0.1)
    router = router_to(emulator, micro_batch_window=0.25)

    def call(text: str) -> BaseException:
        try:
            router.embed([text], input_type="query")
        except AuthenticationError as error:
            return error
        raise AssertionError

    async def tasks(texts: Sequence[str]) -> list[Any]:
        async with router:
            calls = (router.aembed([text], input_type="query") for text in texts)
            return await asyncio.gather(*calls, return_exceptions=True)

    texts = [f"text {number}" for number in range(50)]
    errors = asyncio.run(tasks(texts)) if asynchronous else at_once([partial(call, text) for text in texts])
    router.close()

    assert {type(error) for error in errors} == {AuthenticationError}
    assert len(set(map(id, errors))) == 50
    assert len({str(error) for error in errors}) == 1
    assert emulator.calls <= 4
    assert_quiet(router)


def test_errors_tell_the_whole_story_to_everybody(doors: Doors, asynchronous: bool) -> None:
    """Every attempt, and the cause."""
    fake = Gated(outcomes=[UnavailableError("down")] * 3)
    router = router_for(fake, retry=RetryPolicy(attempts=3, initial_wait=0, max_wait=0, cooldown=0))
    _, *errors = Crowd(router, fake, doors).run(asynchronous, [asking(text) for text in "abc"])

    for error in errors:
        assert isinstance(error, NoModelAvailableError)
        assert len(error.attempts) == 3
        assert isinstance(error.__cause__, UnavailableError)
    assert len({id(error) for error in errors}) == 3
    assert_quiet(router)


def test_a_failure_is_the_failure_of_those_who_went_together(doors: Doors, asynchronous: bool) -> None:
    """The call that went alone before them knows nothing of it, and the next one tries again."""
    fake = Gated(outcomes=[AuthenticationError("no")])
    router = router_for(fake)
    first, *errors = Crowd(router, fake, doors).run(asynchronous, [asking(text) for text in "abc"])

    assert len(first) == 1
    assert {type(error) for error in errors} == {AuthenticationError}
    assert len(router.embed(["a"], input_type="query")) == 1


class Refused(AuthenticationError):
    """An error of a user's own."""

    def __init__(self, code: int, *, server: str) -> None:
        super().__init__(f"code {code}")
        self.server = server


def test_each_is_told_an_error_of_the_users_own(doors: Doors, asynchronous: bool) -> None:
    """Whatever it is made of; nobody has to find out alone."""
    fake = Gated(outcomes=[Refused(7, server="b")])
    router = router_for(fake)
    _, *errors = Crowd(router, fake, doors).run(asynchronous, [asking(text) for text in "abc"])

    for error in errors:
        assert isinstance(error, Refused)
        assert (str(error), error.server) == ("code 7", "b")
    assert len({id(error) for error in errors}) == 3
    assert len(fake.calls) == 2


class Broken(Gated):
    """A backend with a bug that some texts bring to light."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if "bug" in texts:
            raise ZeroDivisionError
        return super().embed(texts, input_type, timeout=timeout)


def test_a_bug_in_a_backend_leaves_nobody_waiting(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    """Each tries for itself, and meets the bug or does not."""
    fake = Broken()
    router = router_for(fake)
    with ThreadPoolExecutor(4) as pool, caplog.at_level(logging.CRITICAL, "embedrouter"):
        calls = [pool.submit(router.embed, ["first"], input_type="query")]
        until(fake.arrived.is_set)
        calls += [pool.submit(router.embed, [text], input_type="query") for text in ("a", "bug", "b")]
        until(lambda: gathered(router) == 3)
        doors.open.set()
        fake.open.set()
        outcomes = [call.exception(HANG) for call in calls]

    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), ZeroDivisionError, type(None)]
    assert_quiet(router)


def test_a_budget_that_suffices_for_some_of_those_who_gather_serves_some(doors: Doors, asynchronous: bool) -> None:
    """As if each had come alone: what is refused together may fit one by one."""
    fake = Gated()
    router = router_for(fake, budget=Budget(total="0.000003"))
    results = Crowd(router, fake, doors).run(asynchronous, [asking(text) for text in "abcdefgh"])

    served = [result for result in results if isinstance(result, EmbeddingResult)]
    assert {type(result) for result in results} == {EmbeddingResult, BudgetExceededError}
    assert len(served) == 3
    assert router.usage.cost == Decimal("0.000003")
    assert_accounts_agree(router, served)


# Who leaves


@pytest.mark.parametrize("leavers", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("departed", [False, True], ids=["before departure", "after departure"])
async def test_a_task_that_is_cancelled_leaves_the_others_alone(
    doors: Doors, leavers: list[int], departed: bool
) -> None:
    """Before departure its text is not sent; afterwards it is paid for and in the totals. The others get theirs."""
    fake = Gated()
    fake.stays_shut = True
    router = router_for(fake, cache=MemoryCache())
    first = asyncio.create_task(router.aembed(["first"], input_type="query"))
    await auntil(lambda: fake.waiting == 1)
    tasks = []
    for number, text in enumerate("abc", 1):
        tasks.append(asyncio.create_task(router.aembed([text], input_type="query")))
        await auntil(lambda number=number: gathered(router) == number)  # type: ignore[misc]
    if departed:
        doors.open.set()
        await auntil(lambda: fake.waiting == 2)
    for place in leavers:
        tasks[place].cancel()
    gone = await asyncio.gather(*(tasks[place] for place in leavers), return_exceptions=True)
    assert {type(outcome) for outcome in gone} == {asyncio.CancelledError}
    stay = [task for place, task in enumerate(tasks) if place not in leavers]
    if not departed:
        assert gathered(router) == len(stay)
    doors.open.set()
    fake.open.set()
    async with asyncio.timeout(HANG):
        results = await asyncio.gather(*stay)
        assert len(await first) == 1
    await router.aclose()

    kept = [text for place, text in enumerate("abc") if departed or place not in leavers]
    assert sum(fake.asked, Counter()) == Counter(["first", *kept])
    for place, result in zip((place for place in range(3) if place not in leavers), results, strict=True):
        assert np.array_equal(result.vectors[0], fake.vector("abc"[place], "query"))
    assert router.usage.tokens == sum(account.tokens for account in router.ledger.totals("model").values())
    assert router.usage.tokens == 1 + len(kept)
    assert router.estimate([*kept, "first"], input_type="query").tokens == 0
    assert_quiet(router)


@pytest.mark.parametrize("cache", [True, False])
async def test_a_task_cancelled_at_any_moment_loses_nothing(cache: bool) -> None:
    """After each number of turns of the loop: the totals are the ledger's, nobody hangs, nothing is left."""
    for steps in range(60):
        fake = FakeBackend()
        router = router_for(fake, cache=MemoryCache() if cache else None, micro_batch_window=0.001)
        tasks = [asyncio.create_task(router.aembed([text], input_type="query")) for text in "abcd"]
        for _ in range(steps):
            await asyncio.sleep(0.0002 if steps % 2 else 0)
        tasks[steps % 4].cancel()
        async with asyncio.timeout(HANG):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            await router.aclose()
        for text, outcome in zip("abcd", outcomes, strict=True):
            if isinstance(outcome, EmbeddingResult):
                assert np.array_equal(outcome.vectors[0], fake.vector(text, "query"))
            else:
                assert isinstance(outcome, asyncio.CancelledError)
        (account,) = router.ledger.totals("model").values()
        assert (account.tokens, account.requests, account.cost) == (
            router.usage.tokens,
            router.usage.requests,
            router.usage.cost,
        )
        assert_quiet(router)


async def test_a_task_cancelled_when_its_share_has_come_is_in_the_totals() -> None:
    """The share is given out, the task has not woken up yet: whoever is billed, it is told once."""

    class Cancelling(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            await asyncio.sleep(0.02)
            return self.embed(texts, input_type, timeout=timeout)

    fake = Cancelling()
    router = router_for(fake, micro_batch_window=0.001)
    tasks = [asyncio.create_task(router.aembed([text], input_type="query")) for text in "abc"]

    def and_cancel(*what: Any) -> None:
        share_out(*what)
        tasks[2].cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedrouter.calls._flow.share_out", and_cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
    await router.aclose()
    (account,) = router.ledger.totals("model").values()

    assert tasks[2].cancelled()
    assert account.tokens == router.usage.tokens == 3


def test_a_member_with_little_time_does_not_wait_longer(doors: Doors, asynchronous: bool) -> None:
    """It gives up before the departure, so its text is not sent; the others are not hurried."""
    fake = Gated()
    router = router_for(fake)
    hurried: list[Any] = []

    async def tasks() -> list[Any]:
        first = asyncio.create_task(router.aembed(["first"], input_type="query"))
        await auntil(fake.arrived.is_set)
        slow = asyncio.create_task(router.aembed(["slow"], input_type="query"))
        await auntil(lambda: gathered(router) == 1)
        hurried.extend(
            await asyncio.gather(router.aembed(["quick"], input_type="query", timeout=0.05), return_exceptions=True)
        )
        doors.open.set()
        fake.open.set()
        return [await first, await slow]

    def threads() -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(router.embed, ["first"], input_type="query")
            until(fake.arrived.is_set)
            slow = pool.submit(router.embed, ["slow"], input_type="query")
            until(lambda: gathered(router) == 1)
            try:
                router.embed(["quick"], input_type="query", timeout=0.05)
            except EmbedRouterError as error:
                hurried.append(error)
            doors.open.set()
            fake.open.set()
            return [first.result(HANG), slow.result(HANG)]

    results = asyncio.run(tasks()) if asynchronous else threads()

    assert isinstance(hurried[0], NoModelAvailableError)
    assert sum(fake.asked, Counter()) == Counter(["first", "slow"])
    assert_accounts_agree(router, results)
    assert_quiet(router)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["threads", "tasks"])
def test_a_member_whose_time_ends_while_the_request_is_out_leaves(doors: Doors, asynchronous: bool) -> None:
    """The request goes on for the others, who get what they came for; it is paid for once."""
    fake = Gated()
    fake.stays_shut = True
    router = router_for(fake)
    hurried: list[Any] = []

    async def tasks() -> list[Any]:
        first = asyncio.create_task(router.aembed(["first"], input_type="query"))
        await auntil(lambda: fake.waiting == 1)
        slow = asyncio.create_task(router.aembed(["slow"], input_type="query"))
        await auntil(lambda: gathered(router) == 1)
        quick = asyncio.create_task(router.aembed(["quick"], input_type="query", timeout=0.5))
        await auntil(lambda: gathered(router) == 2)
        doors.open.set()
        await auntil(lambda: fake.waiting == 2)
        hurried.extend(await asyncio.gather(quick, return_exceptions=True))
        fake.open.set()
        return [await first, await slow]

    def threads() -> list[Any]:
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(router.embed, ["first"], input_type="query")
            until(lambda: fake.waiting == 1)
            slow = pool.submit(router.embed, ["slow"], input_type="query")
            until(lambda: gathered(router) == 1)
            quick = pool.submit(router.embed, ["quick"], input_type="query", timeout=0.5)
            until(lambda: gathered(router) == 2)
            doors.open.set()
            until(lambda: fake.waiting == 2)
            hurried.append(quick.exception(HANG))
            fake.open.set()
            return [first.result(HANG), slow.result(HANG)]

    results = asyncio.run(tasks()) if asynchronous else threads()

    assert isinstance(hurried[0], NoModelAvailableError)
    assert sum(fake.asked, Counter()) == Counter(["first", "slow", "quick"])
    assert [result.usage.tokens for result in results] == [1, 2]
    assert_accounts_agree(router, results)
    assert_quiet(router)


@pytest.mark.parametrize("departed", [False, True], ids=["before departure", "after departure"])
def test_a_thread_that_is_interrupted_loses_nothing(
    doors: Doors, departed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while it waits for others; what is out is waited for, kept, and in the totals."""
    fake = Gated()
    fake.stays_shut = True
    router = router_for(fake, cache=MemoryCache())
    waits: Counter[str] = Counter()

    def interrupted(futures: Any, seconds: float | None = None) -> Any:
        name = threading.current_thread().name
        waits[name] += 1
        if name != "interrupted" or waits[name] > 1:
            return wait(futures, seconds)
        if departed:
            until(lambda: fake.waiting == 2)
            threading.Timer(0.05, fake.open.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(drive, "wait", interrupted)
    ended: list[BaseException] = []

    def call() -> None:
        try:
            router.embed(["interrupted"], input_type="query")
        except KeyboardInterrupt as error:
            ended.append(error)

    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(router.embed, ["first"], input_type="query")]
        until(lambda: fake.waiting == 1)
        calls.append(pool.submit(router.embed, ["other"], input_type="query"))
        until(lambda: gathered(router) == 1)
        thread = threading.Thread(target=call, name="interrupted")
        if departed:
            thread.start()
            until(lambda: gathered(router) == 2)
            doors.open.set()
            thread.join(HANG)
        else:
            thread.start()
            thread.join(HANG)
            assert gathered(router) == 1
            doors.open.set()
            fake.open.set()
        results = [future.result(HANG) for future in calls]

    assert len(ended) == 1
    kept = ["first", "other"] + ["interrupted"] * departed
    assert sum(fake.asked, Counter()) == Counter(kept)
    (account,) = router.ledger.totals("model").values()
    assert account.tokens == router.usage.tokens == len(kept)
    assert [len(result) for result in results] == [1, 1]
    assert_quiet(router)


# Where there are no threads, no loop, another process


def test_without_more_threads_the_first_has_them_sent_itself(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's limit is no reason to fail, nor to hang."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Workers, "start", refuse)
    fake = Gated()
    router = router_for(fake)
    results = Crowd(router, fake, doors).run(False, [asking(text) for text in "abc"])

    assert fake.asked == [Counter("abc"), Counter(["first"])]
    assert_accounts_agree(router, results)
    assert_quiet(router)


def test_ctrl_c_while_the_thread_is_started_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gathering is open by then; whoever has joined it must not wait for ever."""
    fake = Gated()
    router = router_for(fake)
    joined = threading.Event()

    def interrupted(*_: object) -> None:
        joined.set()
        until(lambda: gathered(router) == 2)
        monkeypatch.undo()
        raise KeyboardInterrupt

    def call() -> None:
        with pytest.raises(KeyboardInterrupt):
            router.embed(["interrupted"], input_type="query")

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(router.embed, ["first"], input_type="query")
        until(fake.arrived.is_set)
        monkeypatch.setattr(Workers, "start", interrupted)
        ended = pool.submit(call)
        assert joined.wait(HANG)
        other = pool.submit(router.embed, ["other"], input_type="query", timeout=10)
        ended.result(HANG)
        fake.open.set()
        assert len(first.result(HANG)) == len(other.result(HANG)) == 1

    assert_quiet(router)


def test_ctrl_c_in_the_window_without_more_threads_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits for all the others is the one that is interrupted."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    fake = Gated()
    router = router_for(fake)

    def interrupted(_: float) -> None:
        if threading.current_thread() is thread:
            until(lambda: gathered(router) == 2)
            raise KeyboardInterrupt

    ended: list[BaseException] = []

    def call() -> None:
        try:
            router.embed(["interrupted"], input_type="query")
        except KeyboardInterrupt as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    monkeypatch.setattr(Workers, "start", refuse)
    monkeypatch.setattr(drive, "time", types.SimpleNamespace(sleep=interrupted, monotonic=time.monotonic))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(router.embed, ["first"], input_type="query")
        until(fake.arrived.is_set)
        thread.start()
        until(lambda: gathered(router) == 1)
        other = pool.submit(router.embed, ["other"], input_type="query", timeout=10)
        thread.join(HANG)
        fake.open.set()
        assert len(first.result(HANG)) == len(other.result(HANG)) == 1

    assert len(ended) == 1
    assert_quiet(router)


def test_a_loop_that_ends_while_calls_gather_does_not_touch_the_next(doors: Doors) -> None:
    """Its callers are gone, its gatherings with them; nothing is sent for them."""
    fake = FakeBackend()
    router = router_for(fake)

    async def leave() -> None:
        router._driver._here.agatherings.get().enter((2, "query", ""), None)
        for text in "abc":
            asyncio.get_running_loop().create_task(router.aembed([text], input_type="query"))
        await auntil(lambda: gathered(router) == 3)

    async def gather() -> list[EmbeddingResult]:
        async with router, asyncio.timeout(HANG):
            return await asyncio.gather(*(router.aembed([text], input_type="query") for text in "de"))

    asyncio.run(leave())
    assert not fake.calls
    doors.open.set()
    results = asyncio.run(gather())

    assert [len(result) for result in results] == [1, 1]
    assert Counter(text for call in fake.calls for text in call.texts) == Counter("de")
    assert len(router._driver._here.agatherings._made) == 1
    assert_quiet(router)


def test_a_loop_that_is_closed_without_a_word_does_not_touch_the_next(doors: Doors) -> None:
    """Notebooks and frameworks stop loops in the middle; its tasks never hear of it."""
    fake = Gated()
    router = router_for(fake)
    loop = asyncio.new_event_loop()

    async def begin() -> list[asyncio.Task[EmbeddingResult]]:
        tasks = [asyncio.create_task(router.aembed(["first"], input_type="query"))]
        await auntil(fake.arrived.is_set)
        tasks += [asyncio.create_task(router.aembed([text], input_type="query")) for text in "abc"]
        await auntil(lambda: gathered(router) == 3)
        return tasks

    tasks = loop.run_until_complete(begin())
    assert len(asyncio.run(asyncio.wait_for(router.aembed(["d"], input_type="query"), HANG))) == 1
    assert router.embed(["e"], input_type="query", timeout=10).usage.requests == 1
    doors.open.set()
    fake.open.set()
    results = loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks), HANG))
    loop.run_until_complete(router.aclose())
    loop.close()

    assert [len(result) for result in results] == [1] * 4
    assert Counter(len(call.texts) for call in fake.calls) == {1: 3, 3: 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_calls_gather_goes_its_own_way(doors: Doors) -> None:
    """The thread that has them sent did not come along."""
    fake = Gated()
    router = router_for(fake, cache=MemoryCache())
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(router.embed, ["first"], input_type="query")]
        until(fake.arrived.is_set)
        calls.append(pool.submit(router.embed, ["second"], input_type="query"))
        until(lambda: gathered(router) == doors.waited == 1)
        router._driver._here.gatherings._lock.acquire()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            said = b"failed"
            try:
                router.embed(["second"], input_type="query", timeout=10)
                said = b"embedded" if not doors.open.is_set() and doors.waited == 1 else b"waited"
            finally:
                os.write(writing, said)
                os._exit(0)
        router._driver._here.gatherings._lock.release()
        os.waitpid(child, 0)
        said = os.read(reading, 100)
        doors.open.set()
        fake.open.set()
        results = [call.result(HANG) for call in calls]

    assert said == b"embedded"
    assert_accounts_agree(router, results)
    assert_quiet(router)
    os.close(reading)
    os.close(writing)


# Anything at once


class Whimsical(FakeBackend):
    """Fails now and then, after a moment; refuses one text always."""

    def __init__(self, seed: int, failing: float) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.failing = failing
        self.answered: Counter[str] = Counter()
        self.roll = threading.Lock()

    def _moment(self) -> float:
        with self.roll:
            return self.dice.random() / 300

    def _answer(self, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        with self.roll:
            chance = self.dice.random()
        if "poison" in texts:
            raise InputRejectedError("unsafe")
        if chance < self.failing:
            raise UnavailableError("down")
        if chance < self.failing * 1.2:
            raise AuthenticationError("no")
        with self.roll:
            self.answered.update(texts)
        return super().embed(texts, input_type, timeout=timeout)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        time.sleep(self._moment())
        return self._answer(texts, input_type, timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        await asyncio.sleep(self._moment())
        return self._answer(texts, input_type, timeout)


RETRY = RetryPolicy(attempts=3, initial_wait=0.001, max_wait=0.001, cooldown=0)
WORDS = ["a", "b b", "c c c", "d", "e e e e e", "f", "g g"]


@examples(60)
@given(
    batches=st.lists(st.lists(st.sampled_from([*WORDS, "poison"]), min_size=1, max_size=3), min_size=2, max_size=10),
    loops=st.integers(0, 2),
    kinds=st.lists(st.sampled_from(["query", "query", "document"]), min_size=10, max_size=10),
    tags=st.lists(st.sampled_from(["mine", "mine", "yours"]), min_size=10, max_size=10),
    timeouts=st.lists(st.sampled_from([None, None, 10.0, 0.004]), min_size=10, max_size=10),
    cancelled=st.lists(st.sampled_from([None, None, None, 0.002, 0.005]), min_size=10, max_size=10),
    cache=st.booleans(),
    priced=st.sampled_from([("0.07", 0), ("0.07", 5), (None, 0)]),
    budget=st.sampled_from([None, Budget(per_day="1"), Budget(total="0.0000008")]),
    failing=st.sampled_from([0.0, 0.0, 0.25]),
    policy=st.sampled_from(["error", "truncate", "mean"]),
    seed=st.integers(0, 2**16),
)
def test_whatever_overlaps_and_fails_vectors_are_right_and_accounts_agree(
    batches: list[list[str]],
    loops: int,
    kinds: list[InputType],
    tags: list[str],
    timeouts: list[float | None],
    cancelled: list[float | None],
    cache: bool,
    priced: tuple[str | None, int],
    budget: Budget | None,
    failing: float,
    policy: str,
    seed: int,
) -> None:
    """Threads and the tasks of some loops, with little time and cancelled ones, all at once: nobody hangs."""
    fake = Whimsical(seed, failing)
    price, free = priced
    router = Router(
        [fake.model(price=price, free_tokens=free, max_input_tokens=4)],
        cache=MemoryCache() if cache else None,
        ledger=":memory:",
        retry=RETRY,
        budget=budget if price else None,
        on_too_long=policy,  # type: ignore[arg-type]
        micro_batch_window=0.002,
    )

    def asked(place: int) -> dict[str, Any]:
        return {"input_type": kinds[place], "timeout": timeouts[place]}

    def threaded(place: int) -> list[tuple[int, Any]]:
        with embedrouter.tag(tags[place]):
            try:
                return [(place, router.embed(batches[place], **asked(place)))]
            except EmbedRouterError as error:
                return [(place, error)]

    async def tasks(places: Sequence[int]) -> list[tuple[int, Any]]:
        async def one(place: int) -> Any:
            with embedrouter.tag(tags[place]):
                return await asyncio.wait_for(router.aembed(batches[place], **asked(place)), cancelled[place])

        async with asyncio.timeout(HANG):
            outcomes = await asyncio.gather(*map(one, places), return_exceptions=True)
            await router.aclose()
        return list(zip(places, outcomes, strict=True))

    def looped(places: Sequence[int]) -> list[tuple[int, Any]]:
        return asyncio.run(tasks(places))

    crowd = range(len(batches))
    work: list[Callable[[], list[tuple[int, Any]]]] = [
        partial(looped, crowd[number :: loops + 1]) for number in range(loops)
    ]
    work += [partial(threaded, place) for place in crowd[loops :: loops + 1]]
    outcomes = [pair for pairs in at_once(work) for pair in pairs]

    results = []
    for place, outcome in outcomes:
        if isinstance(outcome, EmbeddingResult):
            results.append(outcome)
            assert outcome.usage.tokens >= 0
            assert outcome.usage.cost >= 0
            for text, row in zip(batches[place], outcome.vectors, strict=True):
                if len(text.split()) <= 4:
                    assert np.array_equal(row, fake.vector(text, kinds[place]))
        else:
            assert isinstance(outcome, EmbedRouterError | TimeoutError), outcome
            if isinstance(outcome, InputRejectedError):
                wrong = tuple(index for index, text in enumerate(batches[place]) if text == "poison")
                assert outcome.indices == wrong != ()
    assert_quiet(router)
    accounts = router.ledger.totals("model").values()
    assert router.usage.tokens == sum(account.tokens for account in accounts)
    assert router.usage.requests == sum(account.requests for account in accounts)
    assert router.usage.cost == sum(account.cost for account in accounts)
    with router.ledger.transaction() as database:
        assert database.execute("SELECT COUNT(*) FROM requests WHERE state = 'reserved'").fetchone() == (0,)
    if len(results) == len(batches):
        assert_accounts_agree(router, results)
    else:
        assert total(result.usage for result in results).tokens <= router.usage.tokens
