"""Equal texts that are needed at the same moment are paid once."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrouter import EmbeddingResult, Model, RetryPolicy, Router
from embedrouter.calls import _flow as flow
from embedrouter.calls._single_flight import Flights
from embedrouter.errors import AuthenticationError, NoModelAvailableError, UnavailableError
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.emulator import Emulator, count_tokens, vector
from tests.side_by_side import HANG, at_once, until

NAME = "text-embedding-3-small"


def router_to(emulator: Emulator, **settings: Any) -> Router:
    model = Model(f"openai:{NAME}", base_url=emulator.openai_url, api_key="k")
    return Router([model], **{"cache": MemoryCache(), "ledger": ":memory:", **settings})


def texts_received(emulator: Emulator) -> Counter[str]:
    return Counter(text for received in emulator.received for text in received.texts)


def right(result: EmbeddingResult, texts: Sequence[str], input_type: InputType = "document") -> bool:
    """Return whether every vector is the emulator's for its text."""
    return all(
        np.allclose(row, vector(NAME, None, input_type, text), atol=1e-6)
        for row, text in zip(result.vectors, texts, strict=True)
    )


async def all_at_once(router: Router, batches: Sequence[Sequence[str]]) -> list[EmbeddingResult]:
    async with asyncio.timeout(HANG):
        return await asyncio.gather(*(router.aembed(batch, input_type="document") for batch in batches))


def assert_paid_once(router: Router, emulator: Emulator, results: list[Any], batches: list[Sequence[str]]) -> None:
    """Everybody has the right vectors, every text was sent once, and the accounts agree with the bill."""
    distinct = {text for batch in batches for text in batch}
    assert texts_received(emulator) == Counter(distinct)
    for result, batch in zip(results, batches, strict=True):
        assert right(result, batch)
    places = sum(map(len, batches))
    assert sum(sum(result.cached) for result in results) == places - len(distinct)
    (billed,) = emulator.billed.values()
    (account,) = router.ledger.totals("model").values()
    assert account.tokens == router.usage.tokens == billed
    assert account.requests == router.usage.requests == emulator.calls
    everything = sum(count_tokens("openai", text) for batch in batches for text in batch)
    price = Decimal("0.02") / 1_000_000
    assert sum(result.usage.saved for result in results) == account.saved == (everything - billed) * price
    assert router._driver.flights._waiting == {}


# Threads, tasks, both


def test_fifty_threads_that_need_one_text_pay_for_it_once(emulator: Emulator) -> None:
    """A web server's workers, and the question of the day."""
    emulator.latency = 0.2
    router = router_to(emulator)
    batches = [["the question"]] * 50
    results = at_once([lambda: router.embed(["the question"], input_type="document")] * 50)

    assert_paid_once(router, emulator, results, batches)


def test_two_hundred_tasks_that_need_one_text_pay_for_it_once(emulator: Emulator) -> None:
    """The same in an event loop."""
    emulator.latency = 0.2
    router = router_to(emulator)
    batches = [["the question"]] * 200

    async def crowd() -> list[EmbeddingResult]:
        async with router:
            return await all_at_once(router, batches)

    assert_paid_once(router, emulator, asyncio.run(crowd()), batches)


def test_threads_and_tasks_pay_once_between_them(emulator: Emulator) -> None:
    """A thread follows a task of an event loop elsewhere, and a task follows a thread."""
    emulator.latency = 0.2
    router = router_to(emulator)
    texts = ["the question", "another"]

    async def crowd() -> list[EmbeddingResult]:
        async with router:
            return await all_at_once(router, [texts] * 20)

    outcomes = at_once([lambda: asyncio.run(crowd())] * 2 + [lambda: [router.embed(texts, input_type="document")]] * 20)

    results = [result for outcome in outcomes for result in outcome]
    assert_paid_once(router, emulator, results, [texts] * len(results))


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_batches_that_overlap_pay_for_each_text_once(emulator: Emulator, kind: str) -> None:
    """Each leads some of its texts and follows for the others."""
    emulator.latency = 0.2
    router = router_to(emulator)
    letters = [f"text {letter}" for letter in "abcdefghij"]
    batches: list[Sequence[str]] = [letters[start : start + 3] for start in range(8)]
    if kind == "threads":
        results = at_once([lambda b=batch: router.embed(b, input_type="document") for batch in batches])
    else:

        async def crowd() -> list[EmbeddingResult]:
            async with router:
                return await all_at_once(router, batches)

        results = asyncio.run(crowd())

    assert_paid_once(router, emulator, results, batches)


def test_without_a_cache_it_works_all_the_same(emulator: Emulator) -> None:
    """While the request is under way; afterwards nobody remembers."""
    emulator.latency = 0.4
    router = router_to(emulator, cache=None)
    results = at_once([lambda: router.embed(["a"], input_type="document")] * 10)
    router.embed(["a"], input_type="document")

    assert emulator.calls == 2
    assert sum(sum(result.cached) for result in results) == 9


def test_documents_and_queries_tiers_and_routers_are_not_merged(emulator: Emulator) -> None:
    """Their vectors differ, or their models, or their caches."""
    emulator.latency = 0.3
    names = {"low": "voyage-4-lite", "high": "voyage-4"}
    models = [
        Model(f"voyage:{name}", tier=tier, base_url=emulator.voyage_url, api_key="k") for tier, name in names.items()
    ]
    routers = [Router(models, cache=MemoryCache(), ledger=":memory:") for _ in range(2)]
    asked: list[tuple[Router, InputType, str]] = [
        (router, kind, tier) for router in routers for kind in ("document", "query") for tier in names
    ]
    results = at_once([lambda r=r, k=k, t=t: r.embed(["a"], input_type=k, tier=t) for r, k, t in asked * 2])

    assert Counter((received.model, received.input_type) for received in emulator.received) == Counter(
        {(name, kind): 2 for name in names.values() for kind in ("document", "query")}
    )
    for (_, kind, tier), result in zip(asked * 2, results, strict=True):
        assert np.allclose(result.vectors[0], vector(names[tier], None, kind, "a"), atol=1e-6)
    for router in routers:
        router.close()


# Leaders that do not land


class Gated(FakeBackend):
    """Answers when it is told to."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.arrived, self.open = threading.Event(), threading.Event()
        self.cancelled = 0

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.arrived.set()
        assert self.open.wait(HANG)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.arrived.set()
        deadline = time.monotonic() + HANG
        while not self.open.is_set():
            assert time.monotonic() < deadline
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return super().embed(texts, input_type, timeout=timeout)


def gated_router(backend: FakeBackend, **settings: Any) -> Router:
    return Router(
        [backend.model(batch_size=1, max_concurrency=64)],
        **{"cache": MemoryCache(), "ledger": ":memory:", "retry": NO_WAITING, **settings},
    )


def followers(router: Router) -> int:
    with router._driver.flights._lock:
        return sum(map(len, router._driver.flights._waiting.values()))


@pytest.mark.parametrize("failures", [1, 5, 99])
def test_when_the_leader_fails_its_followers_try_for_themselves(failures: int) -> None:
    """Nobody hangs, nobody is told of another's failure, and nobody asks more often than alone."""
    fake = Gated(outcomes=[AuthenticationError("no")] * failures)
    router = gated_router(fake)
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(router.embed, ["a"], input_type="document") for _ in range(10)]
        until(lambda: followers(router) == 9)
        fake.open.set()
        errors = [call.exception(HANG) for call in calls]

    assert 1 <= len([error for error in errors if error]) <= failures
    assert len(fake.calls) <= 10
    assert router._driver.flights._waiting == {}


async def test_a_cancelled_leader_in_flight_serves_its_followers() -> None:
    """The answer is paid for: it is finished and shared."""
    fake = Gated()
    router = gated_router(fake)
    leader = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await asyncio.to_thread(fake.arrived.wait, HANG)
    others = [asyncio.create_task(router.aembed(["a"], input_type="document")) for _ in range(5)]
    while followers(router) < 5:
        await asyncio.sleep(0.002)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    fake.open.set()
    async with asyncio.timeout(HANG):
        results = await asyncio.gather(*others)
    await router.aclose()

    assert [result.cached for result in results] == [(True,)] * 5
    assert len(fake.calls) == 1
    assert fake.cancelled == 0
    assert router._driver.flights._waiting == {}


async def test_a_leader_that_is_cancelled_before_its_request_hands_over() -> None:
    """One of the followers leads; the others follow it."""
    fake = Gated()
    router = Router(
        [fake.model(max_concurrency=1)], cache=MemoryCache(), ledger=":memory:", retry=NO_WAITING, micro_batch_window=0
    )
    first = asyncio.create_task(router.aembed(["first"], input_type="document"))
    await asyncio.to_thread(fake.arrived.wait, HANG)
    leader = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while len(router._driver.flights._waiting) < 2:
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(router.aembed(["a"], input_type="document")) for _ in range(5)]
    while followers(router) < 5:
        await asyncio.sleep(0.002)
    leader.cancel()
    fake.open.set()
    async with asyncio.timeout(HANG):
        results = await asyncio.gather(*others)
        await first
    await router.aclose()

    assert [call.texts for call in fake.calls] == [("first",), ("a",)]
    assert sum(sum(result.cached) for result in results) == 4
    assert router._driver.flights._waiting == {}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_follower_does_not_wait_longer_than_its_time(asynchronous: bool) -> None:
    """The leader may take its own; nothing is sent for who has no time left."""
    fake = Gated()
    router = gated_router(fake)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(router.embed, ["a"], input_type="document")
        until(fake.arrived.is_set)
        with pytest.raises(NoModelAvailableError):
            embed(router, asynchronous, ["a"], input_type="document", timeout=0.2)
        fake.open.set()
        leader.result(HANG)

    assert len(fake.calls) == 1
    assert router._driver.flights._waiting == {}


def test_a_leader_that_lands_after_its_followers_loop_is_closed_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever sets the future must not look for the loop."""
    fake = Gated()
    router = gated_router(fake)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(router.embed, ["a"], input_type="document")
        until(fake.arrived.is_set)

        async def give_up() -> None:
            await asyncio.wait([asyncio.create_task(router.aembed(["a"], input_type="document"))], timeout=0.1)

        asyncio.run(give_up())
        fake.open.set()
        leader.result(HANG)

    assert not caplog.records


# Who must not wait


async def test_a_sync_call_inside_a_loop_does_not_wait_for_a_task_of_that_loop() -> None:
    """It would wait for ever: the loop does not turn while it waits."""
    fake = FakeBackend()

    class Polite(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            await asyncio.sleep(0.05)
            return fake.embed(texts, input_type, timeout=timeout)

        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            return fake.embed(texts, input_type, timeout=timeout)

    router = gated_router(Polite())
    task = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while not router._driver.flights._waiting:
        await asyncio.sleep(0)
    result = router.embed(["a"], input_type="document")

    assert np.array_equal(result.vectors, (await task).vectors)
    assert router._driver.flights._waiting == {}


async def test_a_sync_call_inside_a_loop_that_fails_leaves_others_flights_alone() -> None:
    """It does not lead, so it has nothing to tell to who follows."""
    fake = Gated()
    router = gated_router(fake)
    leader = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await asyncio.to_thread(fake.arrived.wait, HANG)
    follower = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while followers(router) < 1:
        await asyncio.sleep(0.002)
    with pytest.raises(NoModelAvailableError):
        router.embed(["a"], input_type="document", timeout=0)
    assert followers(router) == 1
    fake.open.set()
    await asyncio.gather(leader, follower)

    assert len(fake.calls) == 1


async def test_a_thread_that_blocks_the_leaders_loop_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex's bridge: a coroutine that waits for a thread, which needs what a task of this loop fetches."""
    monkeypatch.setattr(flow, "STUCK", 0.2)

    class Slow(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            await asyncio.sleep(0.05)
            return self.embed(texts, input_type, timeout=timeout)

    router = gated_router(Slow())
    task = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while not router._driver.flights._waiting:
        await asyncio.sleep(0)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(router.embed, ["a"], input_type="document").result(HANG)

    assert np.array_equal(result.vectors, (await task).vectors)


def test_a_follower_is_patient_while_texts_land(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader's last request may be far away."""
    monkeypatch.setattr(flow, "STUCK", 0.3)

    class Slow(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            time.sleep(0.1)
            return super().embed(texts, input_type, timeout=timeout)

    fake = Slow()
    router = Router([fake.model(batch_size=1, max_concurrency=1)], cache=None, ledger=":memory:", retry=NO_WAITING)
    many = [f"text {number}" for number in range(9)]
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(router.embed, many, input_type="document")
        until(lambda: bool(router._driver.flights._waiting))
        router.embed(many[-1:], input_type="document")
        leader.result(HANG)

    assert len(fake.calls) == 9


# Between the look into the cache and the request


class Lagging(MemoryCache):
    """Answers one read, when it is told to, with what it held when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        found = super().get_many(keys)
        if threading.current_thread().name == "late" and not self.asked.is_set():
            self.asked.set()
            assert self.go.wait(HANG)
        return found


def test_a_text_that_lands_between_a_look_into_the_cache_and_the_request_is_not_paid_again() -> None:
    """Its flight is over by then, and the answer to the look is old."""
    fake, store = FakeBackend(), Lagging()
    router = gated_router(fake, cache=store)
    results: list[EmbeddingResult] = []
    late = threading.Thread(target=lambda: results.append(router.embed(["a", "b"], input_type="document")), name="late")
    late.start()
    assert store.asked.wait(HANG)
    router.embed(["a"], input_type="document")
    store.go.set()
    late.join(HANG)

    assert [call.texts for call in fake.calls] == [("a",), ("b",)]
    assert results[0].cached == (True, False)
    assert router._driver.flights._waiting == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_flights() -> None:
    """The leader's thread did not come along, nor will anybody release what it holds."""
    flights: Flights[int] = Flights()
    flights.join(["a"])
    flights._lock.acquire()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        following = flights.join(["a", "b"])
        os.write(writing, str(len(following)).encode())
        os._exit(0)
    flights._lock.release()
    os.waitpid(child, 0)

    assert os.read(reading, 10) == b"0"
    assert list(flights.join(["a"])) == ["a"]
    os.close(reading)
    os.close(writing)


# Anything at once


class Whimsical(FakeBackend):
    """Fails now and then, after a moment, and counts what it answers."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.answered: Counter[str] = Counter()
        self.roll = threading.Lock()

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        with self.roll:
            seconds, chance = self.dice.random() / 200, self.dice.random()
        time.sleep(seconds)
        if chance < 0.2:
            raise UnavailableError("down")
        if chance < 0.25:
            raise AuthenticationError("no")
        with self.roll:
            self.answered.update(texts)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return await asyncio.to_thread(self.embed, texts, input_type, timeout=timeout)


@settings(max_examples=25, deadline=None)
@given(
    batches=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=2, max_size=8),
    asynchronous=st.lists(st.booleans(), min_size=8, max_size=8),
    seed=st.integers(0, 2**16),
)
def test_whatever_overlaps_and_fails_each_text_is_paid_once_and_each_vector_is_right(
    batches: list[list[str]], asynchronous: list[bool], seed: int
) -> None:
    """With a cache a success is the last: nobody pays for a text that somebody has paid for."""
    fake = Whimsical(seed)
    router = Router([fake.model(batch_size=2)], cache=MemoryCache(), ledger=":memory:", retry=RETRY)

    def call(batch: list[str], task: bool) -> EmbeddingResult:
        if task:
            return asyncio.run(router.aembed(batch, input_type="document"))
        return router.embed(batch, input_type="document")

    outcomes = at_once([lambda b=b, t=t: call(b, t) for b, t in zip(batches, asynchronous, strict=False)])

    assert all(times == 1 for times in fake.answered.values())
    for batch, outcome in zip(batches, outcomes, strict=True):
        if isinstance(outcome, EmbeddingResult):
            for text, row in zip(batch, outcome.vectors, strict=True):
                assert np.allclose(row, fake.vector(text, "document"))
    assert router._driver.flights._waiting == {}
    assert router.usage.requests == sum(account.requests for account in router.ledger.totals("model").values())
    with router.ledger.transaction() as database:
        assert database.execute("SELECT COUNT(*) FROM requests WHERE state = 'reserved'").fetchone() == (0,)


RETRY = RetryPolicy(attempts=3, initial_wait=0.001, max_wait=0.001, cooldown=0)


def test_landing_tells_each_follower_once() -> None:
    """And only those of who still waits."""
    flights: Flights[int] = Flights()
    assert flights.join(["a", "b"]) == {}
    waiting: list[Future[Any]] = [*flights.join(["a", "b"]).values(), *flights.join(["a"]).values()]
    waiting[2].cancel()
    flights.land(["a", "c"], {"a": 1, "c": 3}.__getitem__)  # type: ignore[arg-type]
    flights.land(["a", "b"], {"a": 2, "b": "failed"}.__getitem__)  # type: ignore[arg-type]

    assert [future.result() for future in waiting[:2]] == [1, "failed"]
    assert flights.landed == 2
    assert flights._waiting == {}
