"""Calls of few texts that come at the same time reach the provider as few requests, and each gets what is its own."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedrouter
from embedrouter import Budget, EmbeddingResult, Model, RetryPolicy, Router, Usage
from embedrouter._process import threads
from embedrouter.calls._call import Embedded
from embedrouter.calls._micro_batcher import MicroBatcher
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
from embedrouter.spending import Ledger
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.crowd import WINDOW, Crowd, Doors, Gated, asking, outcome, router_for
from tests.emulator import Emulator, Fault, Received, count_tokens, vector
from tests.side_by_side import HANG, Watch, at_once, auntil, caller, until

PROVIDERS = {
    "openai": ("openai:text-embedding-3-small", "openai_url"),
    "cohere": ("cohere:embed-v4.0", "cohere_url"),
    "voyage": ("voyage:voyage-3.5", "voyage_url"),
    "google": ("google_genai:gemini-embedding-001", "google_url"),
}
MILLION = 1_000_000
HURRY = 0.004
"""Seconds in which a call is answered now and then."""

Outcome: TypeAlias = tuple[dict[str, Any], Any]
"""A call, and what came of it."""


def router_to(emulator: Emulator, provider: str = "openai", **settings: Any) -> Router:
    name, url = PROVIDERS[provider]
    model = Model(name, base_url=getattr(emulator, url), api_key="k", price="1")
    return Router([model], **{"cache": MemoryCache(), "ledger": ":memory:", "retry": NO_WAITING, **settings})


def assert_accounts_agree(router: Router, results: Iterable[EmbeddingResult]) -> None:
    """What the results say adds up to the router's totals and the ledger's."""
    assert sum((result.usage for result in results), Usage()) == router.usage
    accounts = list(router.ledger.totals("model").values())
    assert router.usage == Usage(
        tokens=sum(account.tokens for account in accounts),
        requests=sum(account.requests for account in accounts),
        cost=sum((account.cost for account in accounts), Decimal(0)),
        saved=sum((account.saved for account in accounts), Decimal(0)),
        unpriced_tokens=sum(account.unpriced_tokens for account in accounts),
    )


@pytest.fixture
def crowd(asynchronous: bool) -> Iterator[Callable[..., Crowd]]:
    """Make a crowd of calls to a backend, in both forms; ``settings`` are the router's."""
    made: list[Crowd] = []

    def make(fake: FakeBackend | None = None, **settings: Any) -> Crowd:
        made.append(Crowd(asynchronous, Doors(), Watch(), fake or Gated(), **settings).__enter__())
        return made[0]

    yield make
    for one in made:
        one.__exit__()


MakeCrowd = Callable[..., Crowd]

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

    async def all_tasks() -> list[Any]:
        async with router, asyncio.timeout(HANG):
            return await asyncio.gather(*map(acall, texts))

    return asyncio.run(all_tasks())


@pytest.mark.parametrize(
    ("provider", "way"),
    [
        ("openai", "router"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (("cohere", "router"), ("voyage", "langchain"), ("openai", "llama_index"))
        ),
    ],
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


@pytest.mark.parametrize(
    ("way", "cache"),
    [
        ("router", True),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (("router", False), ("langchain", True), ("llama_index", False))
        ),
    ],
)
def test_two_hundred_equal_texts_at_once_are_one_request(
    emulator: Emulator, way: str, asynchronous: bool, cache: bool
) -> None:
    """Those that gather wait for the call that went alone."""
    emulator.latency = 0.6
    router = router_to(emulator, cache=MemoryCache() if cache else None)
    answers = ask_all(router, way, asynchronous, ["the question"] * 200)
    router.close()

    assert [received.texts for received in emulator.received] == [("the question",)]
    right = vector("text-embedding-3-small", None, "query", "the question")
    assert all(np.allclose(answer, right, atol=1e-6) for answer in answers)


def test_calls_that_gather_are_one_request(crowd: MakeCrowd) -> None:
    """Twenty calls of several texts, some of them the same."""
    few = crowd(fake := Gated())
    calls = [asking(f"text {number}", f"text {number + 1}") for number in range(20)]
    results = few.outcomes(*calls)

    assert fake.asked == [Counter(f"text {number}" for number in range(21)), Counter(["first"])]
    for (texts, _), result in zip(calls, results[1:], strict=True):
        assert np.array_equal(result.vectors, [fake.vector(text, "query") for text in texts])
    assert [result.cached for result in results[1:]] == [(False, False)] + [(True, False)] * 19
    assert [result.usage.requests for result in results] == [1, 1] + [0] * 19
    assert [result.usage.tokens for result in results] == [1, 4] + [2] * 19
    assert [result.usage.cost for result in results] == [result.usage.tokens * Decimal("1e-6") for result in results]
    assert [result.usage.saved for result in results] == [0, 0] + [Decimal("2e-6")] * 19
    assert_accounts_agree(few.router, results)
    few.assert_quiet()


def test_results_belong_to_their_caller(crowd: MakeCrowd) -> None:
    """A change of one array changes no other, nor what is kept in memory."""
    few = crowd(fake := Gated(), cache=MemoryCache())
    _, *results = few.outcomes(*[asking("a")] * 3)
    for result in results:
        assert np.array_equal(result.vectors[0], fake.vector("a", "query"))
        result.vectors[:] = np.nan

    assert np.array_equal(few.router.embed(["a"], input_type="query").vectors[0], fake.vector("a", "query"))


# No call waits without need


@pytest.mark.parametrize("way", ["router", "langchain", "llama_index"])
def test_alone_no_call_waits(way: str, asynchronous: bool) -> None:
    """Call after call, with doors that never open: no batch is even begun."""
    fake, doors = FakeBackend(), Doors()
    router = router_for(fake, micro_batch_window=WINDOW, cache=MemoryCache(), sleep=doors)
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
    assert doors.batches == 0


def test_a_call_that_failed_is_not_under_way_any_more(crowd: MakeCrowd) -> None:
    """The next one is alone again."""
    few = crowd(fake := FakeBackend(outcomes=[AuthenticationError("no")] * 3))
    outcomes = [outcome(few.begin(str(number))) for number in range(4)]

    assert [type(item) for item in outcomes] == [AuthenticationError] * 3 + [EmbeddingResult]
    assert len(fake.calls) == 4
    assert few.doors.batches == 0


def test_a_call_of_many_texts_goes_by_itself(crowd: MakeCrowd) -> None:
    """It fills a request of its own, and others do not wait on its account."""
    few = crowd(fake := Gated())
    large = few.begin_first(*map(str, range(17)))
    few.begin("small").result(HANG)
    few.open()
    large.result(HANG)

    assert sorted(len(call.texts) for call in fake.calls) == [1, 17]
    assert few.doors.batches == 0


@pytest.mark.parametrize("switch", [{"micro_batch_window": 0}, {"budget": Budget(per_call="1.00")}], ids=str)
def test_micro_batching_can_be_switched_off(switch: dict[str, Any], asynchronous: bool) -> None:
    """A cap on each call's cost needs to know what each costs."""
    fake, doors = FakeBackend(), Doors()
    router = router_for(fake, **{"sleep": doors, "micro_batch_window": WINDOW, **switch})
    texts = [str(number) for number in range(30)]
    ask_all(router, "router", asynchronous, texts)

    assert Counter(call.texts for call in fake.calls) == Counter((text,) for text in texts)
    assert doors.batches == 0


@pytest.mark.parametrize("window", [-0.001, 1.001, float("nan")])
def test_a_window_that_is_no_short_time_is_refused(window: float) -> None:
    """Minutes for milliseconds would hold every call up."""
    with pytest.raises(ConfigError, match="micro_batch_window"):
        router_for(FakeBackend(), micro_batch_window=window)


def test_a_query_in_memory_does_not_gather(crowd: MakeCrowd) -> None:
    """Nor does it count as under way."""
    few = crowd(fake := Gated(), cache=MemoryCache())
    fake.shut = False
    few.begin("warm").result(HANG)
    fake.shut = True
    cold = few.begin_first("cold")
    warm = few.begin("warm").result(HANG)
    few.open()
    cold.result(HANG)

    assert warm.cached == (True,)
    assert few.doors.batches == 0


async def test_a_sync_call_inside_a_loop_goes_alone() -> None:
    """A call that blocks a loop must not wait for its tasks, nor for a window."""
    fake, doors, watch = Gated(), Doors(), Watch()
    router = router_for(fake, sleep=doors, clock=watch, micro_batch_window=WINDOW)
    task = asyncio.create_task(router.aembed(["first"], input_type="query"))
    await auntil(lambda: fake.waiting == 1)
    others = [asyncio.create_task(router.aembed([text], input_type="query")) for text in "ab"]
    await auntil(lambda: doors.batches == 1)
    result = router.embed(["c"], input_type="query")
    assert fake.asked == [Counter("c")]
    doors.open.set()
    fake.open.set()
    results = [await task, *await asyncio.gather(*others), result]

    assert fake.asked[1:] in ([Counter("ab"), Counter(["first"])], [Counter(["first"]), Counter("ab")])
    assert_accounts_agree(router, results)


def test_what_the_cache_holds_does_not_wait_for_the_provider(crowd: MakeCrowd) -> None:
    """A call that joined others is served from the cache when they are sent, while their request is out."""
    store = MemoryCache()
    router_for(FakeBackend(), cache=store).embed(["warm"], input_type="query")
    few = crowd(fake := Gated(every=True), cache=store)
    cold = [few.begin_first(), few.gather("second")]
    warm = few.gather("warm")
    few.doors.open.set()
    until(lambda: fake.waiting == 2)
    result = warm.result(HANG / 2)
    few.open()

    assert result.cached == (True,)
    assert [len(call.result(HANG)) for call in cold] == [1, 1]


def test_calls_that_come_while_the_first_is_looked_up_are_one_request(asynchronous: bool) -> None:
    """The window begins before the cache is read, because reads of many calls end one after the other."""

    class Slow(MemoryCache):
        def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
            time.sleep(0.002)
            return dict(super().get_many(keys))

    timer = threading.Timer(0.3, (fake := Gated()).open.set)
    timer.start()
    router = router_for(fake, cache=Slow(), micro_batch_window=0.2)
    ask_all(router, "router", asynchronous, [str(number) for number in range(20)])

    assert len(fake.calls) == 2


def test_a_call_waits_only_while_another_is_in_flight(crowd: MakeCrowd) -> None:
    """When none is, the batch is sent before its window ends: the doors stay shut."""
    few = crowd(fake := Gated())
    first, *others = few.begin_first(), few.gather("a"), few.gather("b")
    fake.open.set()

    assert [len(call.result(HANG)) for call in (first, *others)] == [1, 1, 1]
    assert fake.asked == [Counter(["first"]), Counter("ab")]
    few.open()
    few.assert_quiet()


def test_a_batch_that_all_calls_have_left_is_not_in_flight(crowd: MakeCrowd) -> None:
    """The call that was sent alone ends while the batch is open, and empty."""
    few = crowd(fake := Gated())
    first, hurried = few.begin_first(), few.gather("hurried", timeout=0.2)
    assert isinstance(outcome(hurried), EmbedRouterError)
    fake.open.set()
    first.result(HANG)
    few.open()
    few.assert_quiet()


# What must not be mixed


def test_tags_tiers_input_types_and_routers_do_not_mix(crowd: MakeCrowd) -> None:
    """Each request has one of each, and the ledger knows the tags."""
    few = crowd(fake := Gated(every=True))
    models = [fake.model(f"fake:{tier}", tier=tier, price=price) for tier, price in (("low", "1"), ("high", "2"))]
    routers = [
        Router(models, cache=None, ledger=":memory:", retry=NO_WAITING, **few.own),
        Router(models, cache=None, ledger=":memory:", retry=NO_WAITING, **few.own),
    ]
    kinds: list[dict[str, Any]] = [
        {"router": router, "tag": tag, "tier": tier, "input_type": kind}
        for router in routers
        for tag in ("mine", "yours")
        for tier in ("low", "high")
        for kind in ("query", "document")
    ]
    calls = [few.begin_first(f"{place} 0", **kind) for place, kind in enumerate(kinds)]  # one of each kind is under way
    calls += [few.gather(f"{place} {number}", **kind) for number in (1, 2, 3) for place, kind in enumerate(kinds)]
    few.open()
    for call in calls:
        call.result(HANG)

    requests = [
        (call.input_type, {text.partition(" ")[0] for text in call.texts}, len(call.texts)) for call in fake.calls
    ]
    expected = [(kind["input_type"], {str(place)}, size) for place, kind in enumerate(kinds) for size in (1, 3)]
    assert sorted(requests, key=str) == sorted(expected, key=str)
    for router in routers:
        accounts = router.ledger.totals("tag").items()
        assert {tag: account.requests for tag, account in accounts} == {"mine": 8, "yours": 8}


def test_threads_and_tasks_gather_apart() -> None:
    """A thread cannot wait for an event loop that may be blocked; both are served."""
    doors, watch, fake = Doors(), Watch(), Gated(every=True)
    with Crowd(True, doors, watch, fake) as tasks, Crowd(False, doors, watch, fake) as pool:
        pool.router = tasks.router
        pool.names = tasks.names
        calls = [pool.begin_first("thread first"), tasks.begin_first("task first")]
        calls += [
            crowd.gather(f"{name} {text}") for crowd, name in ((pool, "thread"), (tasks, "task")) for text in "ab"
        ]
        tasks.open()
        results = [call.result(HANG) for call in calls]

    assert Counter(frozenset(call.texts) for call in fake.calls) == Counter(
        map(frozenset, [["thread first"], ["task first"], ["thread a", "thread b"], ["task a", "task b"]])
    )
    assert_accounts_agree(tasks.router, results)


# Bills


@pytest.mark.parametrize(("price", "free"), [("0.13", 0), (None, 0), ("0.13", 7), ("0.000007", 5)])
def test_the_shares_add_up_to_the_bill(crowd: MakeCrowd, price: str | None, free: int) -> None:
    """To the last digit, also where a part of it is free; an unknown price is shown as such."""
    few = crowd(Gated(), model={"price": price, "free_tokens": free}, cache=MemoryCache())
    results = few.outcomes(*(asking("word " * number, "word " * (number // 2 + 1)) for number in range(1, 14)))
    router = few.router

    assert_accounts_agree(router, results)
    assert all(result.usage.cost >= 0 and result.usage.tokens >= 0 for result in results)
    if price is None:
        assert router.usage.unpriced_tokens == router.usage.tokens > 0
    else:
        assert router.usage.cost == (router.usage.tokens - free) * Decimal(price) / MILLION


def test_the_accounts_agree_with_the_providers_bill(emulator: Emulator) -> None:
    """Real tokens, in proportion to what each text has."""
    emulator.fault_for = lambda received: Fault.slow(0.5) if "first" in received.texts else None
    texts = [f"question number {number} " + "and so on " * number for number in range(20)]
    crowd = Crowd(False, Doors(), Watch())
    crowd.router = router_to(emulator, **crowd.own)
    with crowd:
        calls = [crowd.begin("first")]
        until(lambda: emulator.calls == 1)
        calls += [crowd.gather(text) for text in texts]
        crowd.open()
        results = [call.result(HANG) for call in calls]

    assert [len(received.texts) for received in emulator.received] == [1, 20]
    assert crowd.router.usage.tokens == sum(emulator.billed.values())
    assert [result.usage.tokens for result in results[1:]] == [count_tokens("openai", text) for text in texts]
    assert_accounts_agree(crowd.router, results)


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_a_part_that_stands_in_texts_of_several_callers_is_billed_once(crowd: MakeCrowd, policy: str) -> None:
    """No bill is negative on account of it."""
    few = crowd(Gated(), model={"max_input_tokens": 4}, on_too_long=policy, cache=MemoryCache())
    beginning = "one two three four "
    results = few.outcomes(asking("short"), *(asking(beginning + str(number)) for number in range(6)))

    assert all(result.usage.tokens >= 0 and result.usage.cost >= 0 for result in results)
    assert all(result.shortened == (True,) for result in results[2:])
    assert_accounts_agree(few.router, results)


def test_what_was_billed_for_nothing_is_in_a_result(crowd: MakeCrowd) -> None:
    """An answer that could not be used is paid for all the same."""
    few = crowd(Gated(outcomes=[Answer(np.zeros((3, 8), np.float32), 5)]))
    results = few.outcomes(*map(asking, "abc"))

    assert [result.usage.tokens for result in results] == [1, 6, 1, 1]
    assert [result.usage.requests for result in results] == [1, 2, 0, 0]
    assert_accounts_agree(few.router, results)


# Failures


@pytest.mark.parametrize("cache", [True, False])
def test_a_text_that_is_refused_harms_only_its_own_call(emulator: Emulator, asynchronous: bool, cache: bool) -> None:
    """The others are paid for once, with a cache and without."""
    refusal = Fault.status(400, body={"error": {"message": "unsafe", "type": "invalid_request_error", "param": None}})

    def rule(received: Received) -> Fault | None:
        return refusal if "POISON" in received.texts else Fault.slow(0.5) if "first" in received.texts else None

    emulator.fault_for = rule
    texts = [f"text {number}" for number in range(20)]
    texts[7] = "POISON"
    crowd = Crowd(asynchronous, Doors(), Watch())
    crowd.router = router = router_to(emulator, cache=MemoryCache() if cache else None, **crowd.own)
    with crowd:
        calls = [crowd.begin("first")]
        until(lambda: emulator.calls == 1)
        calls += [crowd.gather(text) for text in texts]
        crowd.open()
        results = [outcome(call) for call in calls]

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


def test_a_text_that_is_too_long_harms_only_its_own_call(crowd: MakeCrowd) -> None:
    """It is found before anything is sent, and its position is that in its own call."""
    few = crowd(fake := Gated(), model={"max_input_tokens": 3})
    results = few.outcomes(asking("a"), asking("b", "one two three four"), asking("c"))

    assert isinstance(results[2], InvalidInputError)
    assert results[2].indices == (1,)
    for text, result in zip("ac", [results[1], results[3]], strict=True):
        assert np.array_equal(result.vectors[0], fake.vector(text, "query"))
    assert fake.sent == Counter(["first", "a", "c"])


def test_a_wrong_key_is_an_error_of_every_call(emulator: Emulator, asynchronous: bool) -> None:
    """With few requests; each call has an error of its own."""
    emulator.fault_for = lambda _: Fault.status(401).after(0.1)
    router = router_to(emulator, micro_batch_window=0.25)

    async def tasks(texts: Sequence[str]) -> list[Any]:
        async with router:
            calls = (router.aembed([text], input_type="query") for text in texts)
            return await asyncio.gather(*calls, return_exceptions=True)

    texts = [f"text {number}" for number in range(50)]
    call = partial(router.embed, input_type="query")
    errors = asyncio.run(tasks(texts)) if asynchronous else at_once([partial(call, [text]) for text in texts])
    router.close()

    assert {type(error) for error in errors} == {AuthenticationError}
    assert len(set(map(id, errors))) == 50
    assert len({str(error) for error in errors}) == 1
    assert emulator.calls <= 4


def test_every_call_gets_the_whole_story(crowd: MakeCrowd) -> None:
    """Every attempt, and the cause."""
    policy = RetryPolicy(attempts=3, initial_wait=0, max_wait=0, cooldown=0)
    few = crowd(Gated(outcomes=[UnavailableError("down")] * 3), retry=policy)
    _, *errors = few.outcomes(*map(asking, "abc"))

    for error in errors:
        assert isinstance(error, NoModelAvailableError)
        assert len(error.attempts) == 3
        assert isinstance(error.attempts[-1].error, UnavailableError)
    assert len({id(error) for error in errors}) == 3
    few.assert_quiet()


class DownForSome(Gated):
    """Answers no request that holds the text "bad", and not before it has answered another."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if "bad" in texts:
            until(lambda: bool(self.calls))
            raise UnavailableError("down", retryable=False)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if "bad" in texts:
            await auntil(lambda: bool(self.calls))
            raise UnavailableError("down", retryable=False)
        return await super().aembed(texts, input_type, timeout=timeout)


def test_where_one_of_two_requests_fails_the_calls_of_the_other_are_served(crowd: MakeCrowd) -> None:
    """What is paid for is not lost to them, without a cache either, and each pays its part."""
    few = crowd(fake := DownForSome(), model={"batch_size": 3})
    first, *results = few.outcomes(*map(asking, ("a", "b", "c", "d", "bad")))

    assert [type(item) for item in results] == [EmbeddingResult] * 3 + [NoModelAvailableError] * 2
    assert fake.sent == Counter(["first", "a", "b", "c"])
    assert [result.usage.tokens for result in results[:3]] == [1, 1, 1]
    assert_accounts_agree(few.router, [first, *results[:3]])


class Refused(AuthenticationError):
    """An error of a user's own."""

    def __init__(self, code: int, *, server: str) -> None:
        super().__init__(f"code {code}")
        self.server = server


def test_every_call_gets_an_error_of_the_users_own(crowd: MakeCrowd) -> None:
    """Its constructor may take other arguments. The call that went alone is not affected; the next one tries again."""
    few = crowd(fake := Gated(outcomes=[Refused(7, server="b")]))
    first, *errors = few.outcomes(*map(asking, "abc"))

    for error in errors:
        assert isinstance(error, Refused)
        assert (str(error), error.server) == ("code 7", "b")
    assert len({id(error) for error in errors}) == 3
    assert len(first) == 1
    assert len(fake.calls) == 2, "no call has to find out alone"
    assert len(few.begin("a").result(HANG)) == 1


class Broken(Gated):
    """A backend with a defect that some texts bring to light."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if "defect" in texts:
            raise ZeroDivisionError
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if "defect" in texts:
            raise ZeroDivisionError
        return await super().aembed(texts, input_type, timeout=timeout)


def test_a_defect_in_a_backend_leaves_no_call_waiting(crowd: MakeCrowd) -> None:
    """Each tries for itself, and meets the defect or does not."""
    few = crowd(Broken())
    outcomes = few.outcomes(*map(asking, ("a", "defect", "b")))
    few.assert_quiet()

    assert [type(item) for item in outcomes] == [EmbeddingResult, EmbeddingResult, ZeroDivisionError, EmbeddingResult]


def test_a_budget_that_suffices_for_some_of_the_calls_serves_some(crowd: MakeCrowd) -> None:
    """As if each had come alone: what is refused together may fit one by one."""
    few = crowd(Gated(), budget=Budget(total="0.000003"))
    results = few.outcomes(*map(asking, "abcdefgh"))

    served = [result for result in results if isinstance(result, EmbeddingResult)]
    assert {type(result) for result in results} == {EmbeddingResult, BudgetExceededError}
    assert len(served) == 3
    assert few.router.usage.cost == Decimal("0.000003")
    assert_accounts_agree(few.router, served)


# Callers that leave


@pytest.mark.parametrize("leavers", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "after it is sent"])
def test_a_task_that_is_cancelled_leaves_the_others_alone(leavers: list[int], sent: bool) -> None:
    """Before the batch is sent its text is not; afterwards it is paid for and in the totals. The others get theirs."""
    fake = Gated(every=True)
    with Crowd(True, Doors(), Watch(), fake, cache=MemoryCache()) as crowd:
        first = crowd.begin_first()
        calls = [crowd.gather(text) for text in "abc"]
        if sent:
            crowd.doors.open.set()
            until(lambda: fake.waiting == 2)
        for place in leavers:
            calls[place].cancel()
        crowd.run(asyncio.sleep(0.01))
        crowd.open()
        for place, call in enumerate(calls):
            if place in leavers:
                with pytest.raises(CancelledError):
                    call.result(HANG)
            else:
                assert np.array_equal(call.result(HANG).vectors[0], fake.vector("abc"[place], "query"))
        assert len(first.result(HANG)) == 1
        crowd.run(crowd.router.aclose())
        kept = [text for place, text in enumerate("abc") if sent or place not in leavers]

        assert fake.sent == Counter(["first", *kept])
        (account,) = crowd.router.ledger.totals("model").values()
        assert crowd.router.usage.tokens == account.tokens == 1 + len(kept)
        assert crowd.router.estimate([*kept, "first"], input_type="query").tokens == 0
        crowd.assert_quiet()


@pytest.mark.slow
@pytest.mark.parametrize("cache", [True, False])
async def test_a_task_cancelled_at_any_moment_loses_nothing(cache: bool) -> None:
    """After each number of turns of the loop: the totals are the ledger's, no task hangs, nothing is left."""
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
        for text, one in zip("abcd", outcomes, strict=True):
            if isinstance(one, EmbeddingResult):
                assert np.array_equal(one.vectors[0], fake.vector(text, "query"))
            else:
                assert isinstance(one, asyncio.CancelledError)
        (account,) = router.ledger.totals("model").values()
        usage = router.usage
        assert (account.tokens, account.requests, account.cost) == (usage.tokens, usage.requests, usage.cost)
        assert len(await asyncio.wait_for(router.aembed([*"abcd"], input_type="query"), HANG)) == 4


@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "after it is sent"])
def test_a_call_with_little_time_does_not_wait_longer(crowd: MakeCrowd, sent: bool) -> None:
    """The others are not hurried. Its text is not sent, or paid for once."""
    few = crowd(fake := Gated(every=True))
    calls = [few.begin_first(), few.gather("slow")]
    quick = few.gather("quick", timeout=0.5)
    if sent:
        few.doors.open.set()
        until(lambda: fake.waiting == 2)
    hurried = outcome(quick)
    few.open()
    results = [call.result(HANG) for call in calls]

    assert isinstance(hurried, NoModelAvailableError)
    assert fake.sent == Counter(["first", "slow", *["quick"] * sent])
    assert [result.usage.tokens for result in results] == [1, 1 + sent]
    assert_accounts_agree(few.router, results)
    few.assert_quiet()


class Waiting(FakeBackend):
    """Answers a text when its event is set."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: set[str] = set()
        self.answer = {"first": threading.Event(), "hurried": threading.Event()}

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.begun |= set(texts)
        assert self.answer[texts[0]].wait(HANG)
        return super().embed(texts, input_type, timeout=timeout)


def test_closing_waits_for_a_request_whose_call_had_no_time_left(tmp_path: Path, asynchronous: bool) -> None:
    """Its answer is paid for: it is in the cache and in the ledger before the files are closed, in either form."""
    fake, file = Waiting(), tmp_path / "ledger.db"
    router = router_for(fake, cache=MemoryCache(), ledger=file, micro_batch_window=WINDOW)
    with ThreadPoolExecutor(2) as pool, closing(Ledger(file, now=lambda: time.time() + 3600)) as later:
        first = pool.submit(router.embed, ["first"], input_type="query")
        until(lambda: "first" in fake.begun)
        hurried = pool.submit(router.embed, ["hurried"], input_type="query", timeout=0.3)
        until(lambda: "hurried" in fake.begun)
        fake.answer["first"].set()
        first.result(HANG)
        assert isinstance(hurried.exception(HANG), NoModelAvailableError)
        assert len(later.unconfirmed()) == 1
        threading.Timer(0.2, fake.answer["hurried"].set).start()
        if asynchronous:
            asyncio.run(router.aclose())
        else:
            router.close()

        assert not later.unconfirmed()
        assert [account.tokens for account in later.totals("model").values()] == [2]
    assert router.embed(["hurried"], input_type="query").cached == (True,)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("sent", [False, True], ids=["before it is sent", "after it is sent"])
def test_ctrl_c_while_a_call_waits_for_others_loses_nothing(sent: bool) -> None:
    """What is out is waited for, kept, and in the totals; the others get theirs."""
    fake = Gated(every=True)
    with Crowd(False, Doors(), Watch(), fake, cache=MemoryCache()) as crowd:
        calls = [crowd.begin_first(), crowd.gather("other")]

        def interrupt() -> None:
            until(lambda: crowd.watch.asked["main"] == 1)
            if sent:
                crowd.doors.open.set()
                until(lambda: fake.waiting == 2)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.1)
            crowd.open()

        caller.set("main")
        helper = crowd.pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            crowd.router.embed(["interrupted"], input_type="query")
        helper.result(HANG)
        caller.set("")
        results = [call.result(HANG) for call in calls]
        kept = ["first", "other", *["interrupted"] * sent]

        assert fake.sent == Counter(kept)
        (account,) = crowd.router.ledger.totals("model").values()
        assert account.tokens == crowd.router.usage.tokens == len(kept)
        assert [len(result) for result in results] == [1, 1]
        crowd.assert_quiet()


# Where there are no threads, no loop, another process


@pytest.fixture
def thread_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], BaseException]]]:
    """Let the system have no more threads for the package, of which none is idle; or raise other errors first."""
    start, done = threading.Thread.start, threading.Event()
    errors: list[Callable[[], BaseException]] = []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "embedrouter":
            raise errors.pop()() if errors else RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    occupied, deadline = 0, time.monotonic() + 2
    while occupied < sum(thread.name == "embedrouter" for thread in threading.enumerate()):
        try:
            threads.submit(done.wait, HANG)
            occupied += 1
        except RuntimeError:  # a thread that ended its work a moment ago is not idle yet
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
    yield errors
    done.set()


@pytest.mark.usefixtures("thread_start")
def test_without_more_threads_a_call_sends_the_batch_itself() -> None:
    """The system's limit is no reason to fail, nor to hang."""
    fake = Gated()
    with Crowd(False, Doors(), Watch(), fake) as crowd:
        first = crowd.begin_first()
        calls = [crowd.begin("a")]
        until(lambda: crowd.doors.batches == 1)
        calls += [crowd.gather(text) for text in "bc"]
        crowd.doors.open.set()
        results = [call.result(HANG) for call in calls]
        crowd.open()
        results.append(first.result(HANG))

        assert fake.asked == [Counter("abc"), Counter(["first"])]
        assert_accounts_agree(crowd.router, results)
        crowd.assert_quiet()


@pytest.mark.filterwarnings("ignore:.*never awaited", "ignore:Exception ignored in. <coroutine object MicroBatch._send")
def test_ctrl_c_while_the_thread_of_a_batch_is_started_leaves_no_call_waiting(
    thread_start: list[Callable[[], BaseException]],
) -> None:
    """The batch is open by then; a call that has joined it must not wait for ever."""
    starting, joined = threading.Event(), threading.Event()

    def interrupt() -> BaseException:
        starting.set()
        joined.wait(HANG)
        return KeyboardInterrupt()

    with Crowd(False, Doors(), Watch(), Gated()) as crowd:
        first = crowd.begin_first()
        thread_start.append(interrupt)
        interrupted = crowd.begin("interrupted")
        until(starting.is_set)
        other = crowd.gather("other", timeout=HANG)
        joined.set()
        assert isinstance(interrupted.exception(HANG), KeyboardInterrupt)
        crowd.open()

        assert len(other.result(HANG)) == len(first.result(HANG)) == 1
        crowd.assert_quiet()


@pytest.mark.usefixtures("thread_start")
def test_ctrl_c_in_the_window_without_more_threads_leaves_no_call_waiting() -> None:
    """The thread that sends the batch of all the others is the one that is interrupted."""

    class Interrupted(Doors):
        def __call__(self, seconds: float) -> object:
            super().__call__(seconds)
            if caller.get() == "interrupted":
                raise KeyboardInterrupt
            return None

    with Crowd(False, Interrupted(), Watch(), Gated()) as crowd:
        first = crowd.begin_first()
        interrupted = crowd.begin("interrupted", name="interrupted")
        until(lambda: crowd.doors.batches == 1)
        other = crowd.gather("other", timeout=HANG)
        crowd.open()

        assert isinstance(interrupted.exception(HANG), KeyboardInterrupt)
        assert len(first.result(HANG)) == len(other.result(HANG)) == 1
        crowd.assert_quiet()


def test_a_loop_that_ends_while_calls_gather_does_not_touch_the_next() -> None:
    """Its callers are gone and its batches with them; nothing is sent for them."""
    fake, doors, watch = Gated(), Doors(), Watch()
    router = router_for(fake, sleep=doors, clock=watch, micro_batch_window=WINDOW)

    async def leave() -> None:
        tasks = [asyncio.create_task(router.aembed(["first"], input_type="query"))]
        await auntil(lambda: fake.waiting == 1)
        tasks += [asyncio.create_task(router.aembed([text], input_type="query")) for text in "abc"]
        await auntil(lambda: doors.batches == 1)
        assert not any(task.done() for task in tasks)

    async def gather() -> list[EmbeddingResult]:
        async with router, asyncio.timeout(HANG):
            return await asyncio.gather(*(router.aembed([text], input_type="query") for text in "de"))

    asyncio.run(leave())
    assert not fake.calls
    doors.open.set()
    results = asyncio.run(gather())

    assert [len(result) for result in results] == [1, 1]
    assert fake.sent == Counter("de")


def test_a_batch_is_stopped_when_the_last_call_that_waits_leaves() -> None:
    """One of its calls was answered from the cache, and waits no more: a request would be paid for, for no call."""
    batcher, stopped = MicroBatcher(), threading.Event()
    assert batcher.enter("kind", ["alone"], None) is None
    entered = [batcher.enter("kind", [text], None) for text in "abc"]
    (batch, first), (_, second), (_, third) = [item for item in entered if item is not None]
    batch.stop = stopped.set
    batcher.seal(batch)
    first.result.set_result(Embedded())
    batcher.remove(batch, second)
    assert not stopped.is_set()

    batcher.remove(batch, third)
    assert stopped.is_set()


def test_a_loop_that_is_stopped_in_the_middle_does_not_touch_the_next() -> None:
    """Notebooks and frameworks do that; its tasks go on later, or never."""
    fake, doors = Gated(), Doors()
    router = router_for(fake, sleep=doors, micro_batch_window=WINDOW)
    loop = asyncio.new_event_loop()

    async def begin() -> list[asyncio.Task[EmbeddingResult]]:
        tasks = [asyncio.create_task(router.aembed(["first"], input_type="query"))]
        await auntil(lambda: fake.waiting == 1)
        tasks += [asyncio.create_task(router.aembed([text], input_type="query")) for text in "abc"]
        await auntil(lambda: doors.batches == 1)
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
def test_a_child_forked_while_calls_gather_goes_its_own_way() -> None:
    """The thread that sends the batch did not come along."""
    with Crowd(False, Doors(), Watch(), Gated(), cache=MemoryCache()) as crowd:
        calls = [crowd.begin_first(), crowd.gather("second")]
        until(lambda: crowd.doors.batches == 1)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            said = b"failed"
            try:
                crowd.router.embed(["second"], input_type="query", timeout=10)
                said = b"embedded" if crowd.doors.batches == 1 else b"waited"
            finally:
                os.write(writing, said)
                os._exit(0)
        os.waitpid(child, 0)
        crowd.open()
        results = [call.result(HANG) for call in calls]

        assert os.read(reading, 100) == b"embedded"
        assert_accounts_agree(crowd.router, results)
    os.close(reading)
    os.close(writing)


# Anything at once


class Whimsical(FakeBackend):
    """Fails now and then, after a moment; refuses one text always."""

    def __init__(self, seed: int, failing: float) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.failing = failing

    def moment(self) -> float:
        return self.dice.random() / 300

    def answer(self, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        chance = self.dice.random()
        if "poison" in texts:
            raise InputRejectedError("unsafe")
        if chance < self.failing:
            raise UnavailableError("down")
        if chance < self.failing * 1.2:
            raise AuthenticationError("no")
        return super().embed(texts, input_type, timeout=timeout)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        time.sleep(self.moment())
        return self.answer(texts, input_type, timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        await asyncio.sleep(self.moment())
        return self.answer(texts, input_type, timeout)


RETRY = RetryPolicy(attempts=3, initial_wait=0.001, max_wait=0.001, cooldown=0)
WORDS = ["a", "b b", "c c c", "d", "e e e e e", "f", "g g"]


@st.composite
def single_calls(draw: st.DrawFn) -> dict[str, Any]:
    """Return one call: its texts, its kind, its tag, its time, and the seconds after which its task is cancelled."""
    return {
        "texts": draw(st.lists(st.sampled_from([*WORDS, "poison"]), min_size=1, max_size=3)),
        "input_type": draw(st.sampled_from(["query", "query", "document"])),
        "tag": draw(st.sampled_from(["mine", "mine", "yours"])),
        "timeout": draw(st.sampled_from([None, None, 10.0, HURRY])),
        "cancel": draw(st.sampled_from([None, None, None, 0.002, 0.005])),
    }


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    calls=st.lists(single_calls(), min_size=2, max_size=10),
    loops=st.integers(0, 2),
    cache=st.booleans(),
    priced=st.sampled_from([("0.07", 0), ("0.07", 5), (None, 0)]),
    budget=st.sampled_from([None, Budget(per_day="1"), Budget(total="0.0000008")]),
    failing=st.sampled_from([0.0, 0.0, 0.25]),
    policy=st.sampled_from(["error", "truncate", "mean"]),
    seed=st.integers(0, 2**16),
)
def test_of_calls_that_overlap_and_fail_vectors_are_right_and_accounts_agree(
    calls: list[dict[str, Any]],
    loops: int,
    cache: bool,
    priced: tuple[str | None, int],
    budget: Budget | None,
    failing: float,
    policy: str,
    seed: int,
) -> None:
    """Threads and the tasks of some loops, with little time and cancelled ones, all at once: no call hangs."""
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

    def threaded(call: dict[str, Any]) -> list[Outcome]:
        with embedrouter.tag(call["tag"]):
            try:
                return [(call, router.embed(call["texts"], input_type=call["input_type"], timeout=call["timeout"]))]
            except EmbedRouterError as error:
                return [(call, error)]

    async def tasks(several: Sequence[dict[str, Any]]) -> list[Outcome]:
        async def one(call: dict[str, Any]) -> Any:
            with embedrouter.tag(call["tag"]):
                embedding = router.aembed(call["texts"], input_type=call["input_type"], timeout=call["timeout"])
                return await asyncio.wait_for(embedding, call["cancel"])

        async with asyncio.timeout(HANG):
            outcomes = await asyncio.gather(*map(one, several), return_exceptions=True)
            await router.aclose()
        return list(zip(several, outcomes, strict=True))

    def looped(several: Sequence[dict[str, Any]]) -> list[Outcome]:
        return asyncio.run(tasks(several))

    work: list[Callable[[], list[Outcome]]] = [partial(looped, calls[n :: loops + 1]) for n in range(loops)]
    work += [partial(threaded, call) for call in calls[loops :: loops + 1]]
    outcomes = [pair for pairs in at_once(work) for pair in pairs]
    router.close()  # waits for requests whose calls had no time left

    results = []
    for call, one in outcomes:
        if isinstance(one, EmbeddingResult):
            results.append(one)
            assert one.usage.tokens >= 0
            assert one.usage.cost >= 0
            for text, row in zip(call["texts"], one.vectors, strict=True):
                if len(text.split()) <= 4:
                    assert np.array_equal(row, fake.vector(text, call["input_type"]))
        else:
            assert isinstance(one, EmbedRouterError | TimeoutError), one
            if isinstance(one, InputRejectedError):
                wrong = tuple(index for index, text in enumerate(call["texts"]) if text == "poison")
                assert one.indices == wrong != ()
    accounts = router.ledger.totals("model").values()
    assert router.usage.tokens == sum(account.tokens for account in accounts)
    assert router.usage.requests == sum(account.requests for account in accounts)
    assert router.usage.cost == sum(account.cost for account in accounts)
    with router.ledger.transaction() as database:
        assert database.execute("SELECT COUNT(*) FROM requests WHERE state = 'reserved'").fetchone() == (0,)
    hurried = any(call["timeout"] == HURRY for call in calls)  # finds in the cache what a batch was billed for
    if len(results) == len(calls) and not hurried:
        assert_accounts_agree(router, results)
    else:
        assert sum(result.usage.tokens for result in results) <= router.usage.tokens
