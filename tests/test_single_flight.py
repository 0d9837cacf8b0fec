"""Equal texts that are needed at the same moment are paid once."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter import EmbeddingResult, Model, RetryPolicy, Router
from embedrouter.cache import VectorCache
from embedrouter.calls._call import Call, Embedded
from embedrouter.calls._look_up import CacheReader
from embedrouter.calls._share import Share
from embedrouter.calls._single_flight import SingleFlight
from embedrouter.calls._sync import Started, SyncEffects, run
from embedrouter.errors import AuthenticationError, NoModelAvailableError, UnavailableError
from embedrouter.events import Events
from embedrouter.router import wiring_of
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, Found, InputType, Origin
from tests.either import embed
from tests.emulator import Emulator, count_tokens, vector
from tests.properties import examples
from tests.side_by_side import HANG, Watch, at_once, auntil, caller, until

NAME = "text-embedding-3-small"

T = TypeVar("T")


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
    """Every call has the right vectors, every text was sent once, and the accounts agree with the bill."""
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
    assert_claimed_by_no_call(router, sorted(distinct))


def assert_claimed_by_no_call(router: Router, texts: Sequence[str]) -> None:
    """Texts that are not in the cache any more can be embedded again, without waiting for a call that has ended."""
    if isinstance(store := router.cache.store, MemoryCache):
        store.rows.clear()
    result = router.embed(texts, input_type="document", timeout=HANG)
    assert not any(result.cached)


# Threads, tasks, both


def test_fifty_threads_that_need_one_text_pay_for_it_once(emulator: Emulator) -> None:
    """A web server's workers, and the question of the day."""
    emulator.latency = 0.2
    router = router_to(emulator)
    batches: list[Sequence[str]] = [["the question"]] * 50
    results = at_once([lambda: router.embed(["the question"], input_type="document")] * 50)

    assert_paid_once(router, emulator, results, batches)


def test_two_hundred_tasks_that_need_one_text_pay_for_it_once(emulator: Emulator) -> None:
    """The same in an event loop."""
    emulator.latency = 0.2
    router = router_to(emulator)
    batches: list[Sequence[str]] = [["the question"]] * 200

    async def crowd() -> list[EmbeddingResult]:
        async with router:
            return await all_at_once(router, batches)

    assert_paid_once(router, emulator, asyncio.run(crowd()), batches)


def test_threads_and_tasks_pay_once_between_them(emulator: Emulator) -> None:
    """A thread waits for a task of an event loop elsewhere, and a task waits for a thread."""
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
    """Each call makes the requests for some of its texts, and waits for the others."""
    emulator.latency = 0.2
    router = router_to(emulator)
    letters = [f"text {letter}" for letter in "abcdefghij"]
    batches: list[Sequence[str]] = [letters[start : start + 3] for start in range(8)]
    if kind == "threads":
        results = at_once([partial(router.embed, batch, input_type="document") for batch in batches])
    else:

        async def crowd() -> list[EmbeddingResult]:
            async with router:
                return await all_at_once(router, batches)

        results = asyncio.run(crowd())

    assert_paid_once(router, emulator, results, batches)


def test_without_a_cache_it_works_all_the_same(emulator: Emulator) -> None:
    """While the request is under way; afterwards the text is sent again."""
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
    results = at_once([partial(r.embed, ["a"], input_type=k, tier=t) for r, k, t in asked * 2])

    assert Counter((received.model, received.input_type) for received in emulator.received) == Counter(
        {(name, kind): 2 for name in names.values() for kind in ("document", "query")}
    )
    for (_, kind, tier), result in zip(asked * 2, results, strict=True):
        assert np.allclose(result.vectors[0], vector(names[tier], None, kind, "a"), atol=1e-6)
    for router in routers:
        router.close()


# Calls that make the request and fail, or are cancelled


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
        try:
            await auntil(self.open.is_set)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return super().embed(texts, input_type, timeout=timeout)


def gated_router(backend: FakeBackend, **settings: Any) -> Router:
    return Router(
        [backend.model(batch_size=1, max_concurrency=64)],
        **{"cache": MemoryCache(), "ledger": ":memory:", "retry": NO_WAITING, **settings},
    )


def named(name: str, call: Callable[[], T]) -> T:
    """Make a call under a name, by which a ``Watch`` knows it."""
    caller.set(name)
    return call()


async def anamed(name: str, call: Callable[[], Awaitable[T]]) -> T:
    """Do the same in a task."""
    caller.set(name)
    return await call()


def waiting(watch: Watch) -> int:
    """Return how many calls wait for another one: they have asked the time when they began, and when they waited."""
    return sum(watch.asked[name] == 2 for name in map(str, range(10)))


@pytest.mark.parametrize("failures", [1, 5, 99])
def test_when_the_request_fails_the_calls_that_wait_try_for_themselves(failures: int) -> None:
    """No call hangs, none gets another one's error, and none asks more often than alone."""
    fake, watch = Gated(outcomes=[AuthenticationError("no")] * failures), Watch()
    router = gated_router(fake, clock=watch)

    def call() -> EmbeddingResult:
        return router.embed(["a"], input_type="document", timeout=HANG)

    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(named, "leader", call)]
        until(fake.arrived.is_set)
        calls += [pool.submit(named, str(number), call) for number in range(9)]
        until(lambda: waiting(watch) == 9)
        fake.open.set()
        errors = [call.exception(HANG) for call in calls]

    assert 1 <= len([error for error in errors if error]) <= failures
    assert len(fake.calls) <= 10
    if failures < 10:
        assert_claimed_by_no_call(router, ["a"])


async def test_a_call_that_is_cancelled_in_flight_serves_those_that_wait() -> None:
    """The answer is paid for: it is finished and shared."""
    fake, watch = Gated(), Watch()
    router = gated_router(fake, clock=watch)

    async def call() -> EmbeddingResult:
        return await router.aembed(["a"], input_type="document", timeout=HANG)

    leader = asyncio.create_task(call())
    await auntil(fake.arrived.is_set)
    others = [asyncio.create_task(anamed(str(number), call)) for number in range(5)]
    await auntil(lambda: waiting(watch) == 5)
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


async def test_a_call_that_is_cancelled_before_its_request_hands_over() -> None:
    """One of the calls that wait makes the request; the others wait for it."""
    fake, watch = Gated(), Watch()
    router = Router(
        [fake.model(max_concurrency=1)],
        cache=MemoryCache(),
        ledger=":memory:",
        retry=NO_WAITING,
        micro_batch_window=0,
        clock=watch,
    )

    async def call() -> EmbeddingResult:
        return await router.aembed(["a"], input_type="document", timeout=HANG)

    first = asyncio.create_task(router.aembed(["first"], input_type="document"))
    await auntil(fake.arrived.is_set)
    leader = asyncio.create_task(anamed("leader", call))
    await auntil(lambda: watch.asked["leader"] >= 3)  # it waits for a free slot
    others = [asyncio.create_task(anamed(str(number), call)) for number in range(5)]
    await auntil(lambda: waiting(watch) == 5)
    leader.cancel()
    fake.open.set()
    async with asyncio.timeout(HANG):
        results = await asyncio.gather(*others)
        await first
    await router.aclose()

    assert [call.texts for call in fake.calls] == [("first",), ("a",)]
    assert sum(sum(result.cached) for result in results) == 4


def test_a_call_does_not_wait_for_another_longer_than_its_time(asynchronous: bool) -> None:
    """The other one may take its own; nothing is sent for a call that has no time left."""
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
    assert_claimed_by_no_call(router, ["a"])


def test_an_answer_that_comes_after_the_loop_of_a_waiting_call_is_closed_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The thread that resolves a claim must not need the loop."""
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


# Calls that must not wait


async def test_a_sync_call_inside_a_loop_does_not_wait_for_a_task_of_that_loop() -> None:
    """It would wait for ever: the loop does not turn while it waits."""
    arrived = asyncio.Event()

    class Polite(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            arrived.set()
            await asyncio.sleep(0.05)
            return self.embed(texts, input_type, timeout=timeout)

    router = gated_router(Polite())
    task = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await arrived.wait()
    result = router.embed(["a"], input_type="document")

    assert np.array_equal(result.vectors, (await task).vectors)


async def test_a_sync_call_inside_a_loop_that_fails_resolves_no_claim_of_another() -> None:
    """It has claimed nothing: the call that waits goes on waiting for the one that makes the request."""
    fake, watch = Gated(), Watch()
    router = gated_router(fake, clock=watch)

    async def call() -> EmbeddingResult:
        return await router.aembed(["a"], input_type="document", timeout=HANG)

    leader = asyncio.create_task(call())
    await auntil(fake.arrived.is_set)
    follower = asyncio.create_task(anamed("0", call))
    await auntil(lambda: waiting(watch) == 1)
    with pytest.raises(NoModelAvailableError):
        router.embed(["a"], input_type="document", timeout=0)
    await asyncio.sleep(0.05)
    assert waiting(watch) == 1
    fake.open.set()
    await asyncio.gather(leader, follower)

    assert len(fake.calls) == 1


class Following:
    """A stage that embeds everything it is asked for, and notes what that was."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        self.asked += texts
        return Embedded({text: found(call, len(text)) for text in texts})


def found(call: Call, number: int) -> Found:
    return Found(np.full(8, number, np.float32), 1, Origin(call.first, cached=False))


def stage(claims: SingleFlight[Found], following: Following, stalled: float) -> tuple[Share, Call]:
    """Return the stage of single flight with its own parts, and a synchronous call."""
    (candidate,) = wiring_of(gated_router(FakeBackend())).candidates
    call = Call(
        effects=SyncEffects(Started()), input_type="document", rank=2, tag="", deadline=None, candidates=[candidate]
    )
    reader = CacheReader(VectorCache(None), [candidate], "error")
    return Share(claims, reader, time.monotonic, Events(), following, stalled=stalled), call


def test_a_call_does_not_wait_for_ever_where_no_claim_is_resolved() -> None:
    """The task that makes the request may belong to a loop that waits for this very call, as LlamaIndex's bridge does:
    a coroutine that waits for a thread.
    """
    claims: SingleFlight[Found] = SingleFlight()
    following = Following()
    share, call = stage(claims, following, stalled=0.1)
    claims.claim((2, "document"), ["a"])
    embedded = run(share.embed(call, ["a", "b"]))

    assert set(embedded.found) == {"a", "b"}
    assert following.asked == ["b", "a"]
    assert claims.claim((2, "document"), ["a"]), "the claim belongs to the call that made it"


def test_a_call_ends_no_claim_that_another_call_has_made_meanwhile() -> None:
    """Without a cache a text that was answered early is claimed again while the first call waits for its others."""
    claims: SingleFlight[Found] = SingleFlight()

    class InTwoRequests(Following):
        async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
            embedded = await super().embed(call, texts)
            call.report(Embedded({"a": embedded.found["a"]}))
            assert claims.claim((2, "document"), ["a"]) == {}, "it is answered"
            return embedded

    share, call = stage(claims, InTwoRequests(), stalled=0.1)
    run(share.embed(call, ["a", "b"]))

    assert claims.claim((2, "document"), ["a"]), "the claim belongs to the call that made it"
    assert claims.claim((2, "document"), ["b"]) == {}


def test_a_call_goes_on_waiting_while_claims_are_resolved() -> None:
    """The last request of a large call may be far away."""
    claims: SingleFlight[Found] = SingleFlight()
    following = Following()
    share, call = stage(claims, following, stalled=1.0)
    kind = (2, "document")
    claims.claim(kind, "abcdefgh")

    def resolve() -> None:
        for text in "abcdefgh":
            time.sleep(0.15)
            claims.resolve(kind, [text], lambda _: found(call, 7))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(resolve)
        embedded = run(share.embed(call, ["h"]))
        done.result(HANG)

    assert following.asked == []
    assert embedded.found["h"].origin.cached, "it was paid for by another call"


# Between the look into the cache and the request


class Lagging(MemoryCache):
    """Answers one read, when it is told to, with what it held when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = threading.Event(), threading.Event()

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        rows = super().get_many(keys)
        if threading.current_thread().name == "late" and not self.asked.is_set():
            self.asked.set()
            assert self.go.wait(HANG)
        return rows


def test_a_text_embedded_between_a_look_into_the_cache_and_the_request_is_not_paid_again() -> None:
    """Its claim is resolved by then, and what the cache has said is old."""
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
    assert_claimed_by_no_call(router, ["a", "b"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_call_of_its_parent() -> None:
    """The thread that makes the request did not come along."""
    fake = Gated()
    router = gated_router(fake)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(router.embed, ["a"], input_type="document")
        until(fake.arrived.is_set)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            outcome = b"failed"
            try:
                fake.open.set()
                result = router.embed(["a"], input_type="document", timeout=HANG / 2)
                outcome = b"waited" if result.cached == (True,) else b"embedded"
            finally:
                os.write(writing, outcome)
                os._exit(0)
        os.waitpid(child, 0)
        fake.open.set()
        leader.result(HANG)

    assert os.read(reading, 10) == b"embedded"
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


RETRY = RetryPolicy(attempts=3, initial_wait=0.001, max_wait=0.001, cooldown=0)


@examples(25)
@given(
    batches=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=2, max_size=8),
    asynchronous=st.lists(st.booleans(), min_size=8, max_size=8),
    seed=st.integers(0, 2**16),
)
def test_of_calls_that_overlap_and_fail_each_text_is_paid_once_and_each_vector_is_right(
    batches: list[list[str]], asynchronous: list[bool], seed: int
) -> None:
    """With a cache no call pays for a text that another one has paid for."""
    fake = Whimsical(seed)
    router = Router([fake.model(batch_size=2)], cache=MemoryCache(), ledger=":memory:", retry=RETRY)

    def call(batch: list[str], task: bool) -> EmbeddingResult:
        if task:
            return asyncio.run(router.aembed(batch, input_type="document"))
        return router.embed(batch, input_type="document")

    outcomes = at_once([partial(call, b, t) for b, t in zip(batches, asynchronous, strict=False)])

    assert all(times == 1 for times in fake.answered.values())
    for batch, outcome in zip(batches, outcomes, strict=True):
        if isinstance(outcome, EmbeddingResult):
            for text, row in zip(batch, outcome.vectors, strict=True):
                assert np.allclose(row, fake.vector(text, "document"))
    assert router.usage.requests == sum(account.requests for account in router.ledger.totals("model").values())
    with router.ledger.transaction() as database:
        assert database.execute("SELECT COUNT(*) FROM requests WHERE state = 'reserved'").fetchone() == (0,)


def test_a_resolution_reaches_each_call_that_waits_once() -> None:
    """And no call that has given up."""
    claims: SingleFlight[int] = SingleFlight()
    assert claims.claim("kind", ["a", "b"]) == {}
    futures: list[Future[Any]] = [*claims.claim("kind", ["a", "b"]).values(), *claims.claim("kind", ["a"]).values()]
    futures[2].cancel()
    claims.resolve("kind", ["a", "c"], {"a": 1, "c": 3}.__getitem__)
    claims.resolve("kind", ["a", "b"], {"a": 2, "b": "failed"}.__getitem__)  # type: ignore[arg-type]

    assert [future.result() for future in futures[:2]] == [1, "failed"]
    assert claims.completed == 2
    assert claims.claim("kind", ["a", "b"]) == {}
