"""Synchronous and asynchronous calls are the same program."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter import Model, RetryPolicy, Router, Usage, tier
from embedrouter._process import PerLoop
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    EmbedRouterError,
    InputRejectedError,
    NoModelAvailableError,
    RateLimitedError,
    UnavailableError,
)
from embedrouter.providers import Backend
from embedrouter.testing import NO_WAITING, FakeBackend, FakeCall, MemoryCache
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.properties import examples
from tests.side_by_side import at_once

FAILURES = {
    "ok": None,
    "down": UnavailableError("down"),
    "slow": RateLimitedError("slow down"),
    "gone": UnavailableError("gone", retryable=False),
    "key": AuthenticationError("key"),
    "refused": InputRejectedError("refused"),
    "nan": Answer(np.full((1, 8), np.nan, np.float32), 3),
}
outcomes = st.lists(st.sampled_from(sorted(FAILURES)), max_size=12)
texts = st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=8)


@dataclass(frozen=True)
class Seen:
    """Everything that can be observed of one call."""

    result: object
    calls: tuple[tuple[FakeCall, ...], ...]
    entries: tuple[tuple[bytes, bytes], ...]
    usage: Usage


def observe(
    asynchronous: bool, script: tuple[Sequence[str], ...], calls: Sequence[tuple[Sequence[str], InputType]]
) -> Seen:
    fakes = [FakeBackend(outcomes=[FAILURES[name] for name in names]) for names in script]
    models = [
        fake.model(f"fake:{number}", price=str(number), batch_size=3, max_concurrency=1, tier=name)
        for number, (fake, name) in enumerate(zip(fakes, ("low", "high"), strict=True))
    ]
    store = MemoryCache()
    router = Router(models, cache=store, retry=NO_WAITING, query_tier="low", document_tier="low")
    seen: list[object] = []
    for batch, input_type in calls:
        try:
            result = embed(router, asynchronous, batch, input_type=input_type)
            seen.append((result.vectors.tobytes(), result.models, result.cached, result.usage))
        except EmbedRouterError as error:
            attempts = getattr(error, "attempts", ())
            seen.append((type(error), str(error), [str(attempt) for attempt in attempts]))
    return Seen(
        tuple(map(str, seen)),
        tuple(tuple(fake.calls) for fake in fakes),
        tuple(sorted(store.rows.items())),
        router.usage,
    )


@examples(150)
@given(
    script=st.tuples(outcomes, outcomes),
    calls=st.lists(st.tuples(texts, st.sampled_from(["document", "query"])), min_size=1, max_size=3),
)
def test_the_same_script_gives_the_same_calls_vectors_entries_and_usage(
    script: tuple[list[str], list[str]], calls: list[tuple[list[str], InputType]]
) -> None:
    """Whatever providers do. Frameworks whose two halves were written twice differ here."""
    assert observe(False, script, calls) == observe(True, script, calls)


class Slow(Backend):
    """Takes a moment for each request, and counts how many are in flight."""

    def __init__(self, seconds: float = 0.05, fail: frozenset[str] = frozenset()) -> None:
        self.seconds = seconds
        self.fail = fail
        self.in_flight = self.peak = self.started = 0
        self.lock = threading.Lock()

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self._enter()
        time.sleep(self.seconds)
        return self._leave(texts)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self._enter()
        await asyncio.sleep(self.seconds)
        return self._leave(texts)

    def _enter(self) -> None:
        with self.lock:
            self.started += 1
            self.in_flight += 1
            self.peak = max(self.peak, self.in_flight)

    def _leave(self, texts: Sequence[str]) -> Answer:
        with self.lock:
            self.in_flight -= 1
        if self.fail & set(texts):
            raise AuthenticationError("refused")
        return Answer(np.ones((len(texts), 4), np.float32), len(texts))


def slow_router(backend: Slow, **settings: object) -> Router:
    return Router(
        [Model("slow:x", space="s", dimensions=4, backend=backend, batch_size=1, **settings)],  # type: ignore[arg-type]
        cache=MemoryCache(),
        ledger=":memory:",
        retry=RetryPolicy(attempts=1),
    )


@pytest.mark.parametrize("asynchronous", [False, True])
def test_requests_of_one_call_run_side_by_side_within_the_models_concurrency(asynchronous: bool) -> None:
    """As many as allowed, and no more."""
    backend = Slow()
    router = slow_router(backend, max_concurrency=3)
    many = [str(number) for number in range(9)]
    embed(router, asynchronous, many, input_type="document")

    assert backend.started == 9
    assert backend.peak == 3


async def test_concurrency_holds_across_calls_that_run_at_once() -> None:
    """LlamaIndex starts 500 calls together."""
    backend = Slow(0.01)
    router = slow_router(backend, max_concurrency=4)
    await asyncio.gather(*(router.aembed([str(number)], input_type="document") for number in range(40)))

    assert backend.started == 40
    assert backend.peak == 4


def test_concurrency_holds_across_threads() -> None:
    """The same in a thread pool."""
    backend = Slow(0.01)
    router = slow_router(backend, max_concurrency=4)
    threads = [
        threading.Thread(target=router.embed, args=([str(number)],), kwargs={"input_type": "document"})
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert backend.started == 20
    assert backend.peak == 4


def test_concurrency_counts_threads_and_event_loops_together() -> None:
    """A limit is that of the model, whichever form its callers use; each of them gets its turn."""
    backend = Slow(0.01)
    router = slow_router(backend, max_concurrency=3)

    async def tasks(name: str) -> None:
        await asyncio.gather(*(router.aembed([f"{name} {number}"], input_type="document") for number in range(10)))

    def one(number: int) -> None:
        router.embed([str(number)], input_type="document")

    loops = [lambda name=name: asyncio.run(tasks(name)) for name in ("one loop", "another")]
    at_once([*loops, *(partial(one, number) for number in range(10))])

    assert backend.started == 30
    assert backend.peak == 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_after_a_failure_nothing_new_is_started_and_what_was_in_flight_is_kept(asynchronous: bool) -> None:
    """Requests in flight are billed anyway; requests not yet made need not be."""
    backend = Slow(fail=frozenset({"0"}))
    router = slow_router(backend, max_concurrency=3)
    many = [str(number) for number in range(30)]
    with pytest.raises(AuthenticationError):
        embed(router, asynchronous, many, input_type="document")

    assert backend.started < 9
    assert router.estimate(many, input_type="document").cached == backend.started - 1
    assert router.usage.requests == backend.started - 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_requests_that_were_never_sent_are_not_booked(asynchronous: bool) -> None:
    """A failing neighbour stops them before they go out; money for them must not stay set aside."""
    backend = Slow(fail=frozenset({"0"}))
    router = slow_router(backend, max_concurrency=2, price="1")
    with pytest.raises(AuthenticationError):
        embed(router, asynchronous, [str(number) for number in range(30)], input_type="document")
    (account,) = router.ledger.totals("model").values()

    assert account.requests == backend.started - 1
    with router.ledger.transaction() as database:
        assert database.execute("SELECT COUNT(*) FROM requests WHERE state != 'settled'").fetchone() == (0,)


async def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_costs_nothing() -> None:
    """One that is in flight was paid for: it is finished behind the caller's back, kept and booked."""
    backend = Slow(0.2)
    router = slow_router(backend, max_concurrency=1, price="1")
    tasks = [asyncio.create_task(router.aembed([text], input_type="document")) for text in ("first", "second")]
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await router.aclose()

    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert backend.started == 1
    assert router.estimate(["first", "second"], input_type="document").cached == 1
    assert [account.requests for account in router.ledger.totals("day").values()] == [1]
    assert not router.ledger.unconfirmed()


async def test_a_cancelled_call_leaves_nothing_running() -> None:
    """And what was answered before is in the cache."""
    backend = Slow(0.05)
    router = slow_router(backend, max_concurrency=2)
    task = asyncio.create_task(router.aembed([str(number) for number in range(20)], input_type="document"))
    await asyncio.sleep(0.12)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started = backend.started
    await asyncio.sleep(0.1)

    assert backend.started == started
    assert router.estimate([str(number) for number in range(20)], input_type="document").cached >= 2


async def test_the_synchronous_form_works_inside_a_running_loop() -> None:
    """Notebooks have one."""
    fake = FakeBackend()

    assert len(Router([fake.model()], cache=None).embed(["a"], input_type="query")) == 1


async def test_a_large_call_leaves_the_event_loop_responsive() -> None:
    """Cache, tokenizer and local models work in threads."""

    class Busy(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            return await Backend.aembed(self, texts, input_type, timeout=timeout)

        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            time.sleep(0.3)
            return super().embed(texts, input_type, timeout=timeout)

    gaps: list[float] = []

    async def heartbeat() -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)
            before = time.monotonic()

    beat = asyncio.create_task(heartbeat())
    await Router([Busy().model()], cache=None).aembed(["a"], input_type="query")
    beat.cancel()

    assert len(gaps) > 10


async def test_a_cache_that_takes_long_does_not_hold_up_the_event_loop() -> None:
    """As a folder on a slow disk: it is read in a thread."""
    occupied, inside, leave = threading.Event(), threading.Event(), threading.Event()

    class Slow(MemoryCache):
        def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
            if occupied.is_set():
                inside.set()
                leave.wait(10)
            return super().get_many(keys)

    router = Router([FakeBackend().model()], cache=Slow(), ledger=None)
    await router.aembed(["a"], input_type="document")
    occupied.set()
    waiting = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while not inside.is_set():
        await asyncio.sleep(0.01)

    assert not waiting.done()
    leave.set()
    assert (await waiting).cached == (True,)
    await router.aclose()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_ends_when_its_time_is_up(asynchronous: bool) -> None:
    """timeout= covers all requests, tries and waits."""
    fake = FakeBackend(outcomes=[RateLimitedError("slow", retry_after=30)] * 3)
    router = Router([fake.model()], cache=None)
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, ["a"], input_type="query", timeout=1)

    assert len(fake.calls) == 1


def test_the_surrounding_tier_reaches_the_threads_of_a_call() -> None:
    """The context is copied into the pool."""
    seen: list[str | None] = []

    class Watching(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            from embedrouter.models import requested

            seen.append(requested("query"))
            return super().embed(texts, input_type, timeout=timeout)

    router = Router([Watching().model(batch_size=1)], cache=None)
    with tier("high"):
        router.embed(["a", "b", "c"], input_type="query")

    assert seen == ["high"] * 3


def test_a_programming_error_passes_unchanged() -> None:
    """No defect is relabelled as a provider's failure."""

    class Broken(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            raise ZeroDivisionError

    router = Router([Broken().model(batch_size=1)], cache=None)
    for batch in (["a"], ["a", "b"]):
        with pytest.raises(ZeroDivisionError):
            router.embed(batch, input_type="query")
        with pytest.raises(ZeroDivisionError):
            asyncio.run(router.aembed(batch, input_type="query"))


class Client:
    """What belongs to one event loop."""


def test_what_belongs_to_closed_loops_is_released() -> None:
    """Fifty asyncio.run() calls must not leave fifty clients behind, nor reuse one of a closed loop."""
    kept: PerLoop[Client] = PerLoop(Client)
    made: list[weakref.ref[Client]] = []

    async def use() -> None:
        assert kept.get() is kept.get()
        made.append(weakref.ref(kept.get()))

    for _ in range(50):
        asyncio.run(use())
    gc.collect()

    assert [client() is not None for client in made] == [False] * 49 + [True]


def test_errors_are_those_of_the_first_request_in_order() -> None:
    """The same input fails with the same message."""
    fake = FakeBackend(outcomes=[UnavailableError("first", retryable=False), BackendError("second")])
    router = Router([fake.model(batch_size=1, max_concurrency=1)], cache=None)

    with pytest.raises(NoModelAvailableError, match="first"):
        router.embed(["a", "b"], input_type="document")
