"""A call may be stopped at any moment: what a provider billed by then is kept and booked."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from embedrouter import Model, Router
from embedrouter._process import threads
from embedrouter.cache import write_once
from embedrouter.calls import Calls, Question
from embedrouter.calls._async import AsyncEffects, Tasks
from embedrouter.calls._effects import Stopped
from embedrouter.calls._sync import Started, SyncEffects, run
from embedrouter.errors import AuthenticationError
from embedrouter.router import wiring_of
from embedrouter.spending import Ledger
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.emulator import Emulator
from tests.side_by_side import HANG, auntil, until

ROOT = Path(__file__).parents[1]
LONG = 3600.0
"""Seconds after which nothing is in flight any more."""
AFTERWARDS = 0.05
"""Seconds after which asyncio.run has cancelled what is left; it goes on while one of these tasks waits."""
TEXTS = ["a", "b", "c"]

T = TypeVar("T")
P = ParamSpec("P")


class Provider(FakeBackend):
    """Bills a request when it arrives, and takes a few turns of the loop to answer."""

    def __init__(self, turns: int = 3, **settings: Any) -> None:
        super().__init__(**settings)
        self.turns = turns
        self.billed: Counter[str] = Counter()

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.billed.update(texts)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return self.embed(texts, input_type, timeout=timeout)


class SlowCache(MemoryCache):
    """Keeps nothing until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.go_on = threading.Event(), threading.Event()

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self.writing.set()
        self.go_on.wait(HANG)
        super().put_many(values)


def router_for(fake: FakeBackend, cache: MemoryCache | None = None, **settings: Any) -> Router:
    model = fake.model(**{"batch_size": 1, "max_concurrency": 2, "price": "1", **settings})
    return Router([model], cache=cache or MemoryCache(), ledger=":memory:", retry=NO_WAITING)


def assert_nothing_lost(router: Router, billed: Counter[str], *, unconfirmed: bool = False) -> None:
    """Every billed text is in the cache or its request is unconfirmed, and the accounts agree with the bill.

    Args:
        unconfirmed: whether there may be unconfirmed requests.
    """
    with router.ledger.transaction() as database:
        rows = database.execute("SELECT state = 'settled', texts FROM requests").fetchall()
    booked = sum(texts for settled, texts in rows if settled)
    doubtful = sum(texts for settled, texts in rows if not settled)
    kept = [text for text in billed if router.estimate([text], input_type="document").cached]
    assert unconfirmed or not doubtful
    assert len(kept) + doubtful >= len(billed)
    assert booked <= sum(billed.values()) <= booked + doubtful
    assert router.usage.requests <= booked + doubtful


async def assert_claimed_by_no_call(router: Router, texts: Sequence[str]) -> None:
    """The same texts can be embedded again, without waiting for a call that has ended."""
    async with asyncio.timeout(HANG):
        assert len(await router.aembed(texts, input_type="document")) == len(texts)
        await router.aclose()


async def turn(steps: int) -> None:
    """Let the event loop turn so many times."""
    for _ in range(steps):
        await asyncio.sleep(0)


async def billed(fake: Provider) -> None:
    """Wait until a request has arrived."""
    async with asyncio.timeout(HANG):
        while not fake.billed:
            await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[Any]) -> object:
    """Cancel a task and return how it ended."""
    task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0]


# Tasks


class WithoutThreads(AsyncEffects):
    """Runs blocking functions at once, so that a call suspends at the same places each time."""

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        await asyncio.sleep(0)
        return function(*args, **settings)


def test_a_task_cancelled_wherever_it_suspends_loses_no_answer() -> None:
    """After each number of turns of the loop, until the call ends before it is cancelled."""
    ended = 0

    async def cancelled_after(steps: int) -> None:
        nonlocal ended
        fake, tasks = Provider(), Tasks()
        router = router_for(fake)
        calls = Calls(wiring_of(router))
        question = Question(texts=TEXTS, input_type="document", rank=2, tag="")
        task = asyncio.create_task(calls.embed(WithoutThreads(tasks), question))
        await turn(steps)
        ended += task.done()
        outcome = await cancelled(task)
        await tasks.finish(HANG)
        assert_nothing_lost(router, fake.billed)
        assert router.usage.requests == sum(fake.billed.values())
        assert isinstance(outcome, asyncio.CancelledError) or len(outcome) == len(TEXTS)  # type: ignore[arg-type]
        assert len(await calls.embed(WithoutThreads(tasks), question)) == len(TEXTS)
        router.close()

    for steps in range(80):
        asyncio.run(asyncio.wait_for(cancelled_after(steps), HANG))
    assert 0 < ended < 70


def test_a_task_cancelled_at_any_moment_loses_no_answer() -> None:
    """The same through a router, whose threads add moments of their own."""

    async def cancelled_after(steps: int) -> None:
        fake = Provider()
        router = router_for(fake)
        task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
        await turn(steps)
        outcome = await cancelled(task)
        await router.aclose()
        assert_nothing_lost(router, fake.billed)
        assert router.usage.requests == sum(fake.billed.values())
        assert isinstance(outcome, asyncio.CancelledError) or len(outcome) == len(TEXTS)  # type: ignore[arg-type]
        await assert_claimed_by_no_call(router, TEXTS)

    for steps in (*range(0, 40, 2), *range(40, 400, 30)):
        asyncio.run(asyncio.wait_for(cancelled_after(steps), HANG))


def test_a_loop_that_ends_at_any_moment_loses_no_answer() -> None:
    """asyncio.run cancels what is left, so nothing can finish: what may have been billed is unconfirmed."""
    for steps in (*range(0, 40, 2), 60, 90):
        fake = Provider(turns=30)
        router = router_for(fake)

        async def leave(router: Router = router, steps: int = steps) -> None:
            task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
            await asyncio.sleep(0.001)
            await turn(steps)
            assert not task.cancelled()

        asyncio.run(leave())
        assert_nothing_lost(router, fake.billed, unconfirmed=True)
        asyncio.run(assert_claimed_by_no_call(router, TEXTS))


class Silent(FakeBackend):
    """Answers no request of the form that awaits."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = 0
        self.silent = True

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.arrived += 1
        if self.silent:
            await asyncio.Event().wait()
        return self.embed(texts, input_type, timeout=timeout)


@pytest.mark.parametrize("texts", [["a"], ["a", "b"]])
def test_a_loop_that_is_closed_too_early_keeps_no_slot(texts: list[str], asynchronous: bool) -> None:
    """``wait_for`` and ``loop.close()`` leave the requests behind that were in flight: their slots were lost."""
    backend = Silent()
    model = backend.model(price="1", batch_size=1, max_concurrency=len(texts))
    with Router([model], cache=None, ledger=":memory:") as router:
        loop = asyncio.new_event_loop()
        call = loop.create_task(router.aembed(texts, input_type="document"))
        loop.run_until_complete(auntil(lambda: backend.arrived == len(texts)))
        call.cancel()
        loop.run_until_complete(asyncio.wait([call]))
        loop.close()

        backend.silent = False
        for again in (["c", "d"], texts):
            assert len(embed(router, asynchronous, again, input_type="document", timeout=HANG)) == len(again)
        assert [item.texts for item in router.ledger.unconfirmed()] == [1] * len(texts)


def test_what_waits_for_a_thread_ends_after_its_loop() -> None:
    """It raised that the loop is closed, which a call takes for a defect: it then awaited once more."""
    begun, go_on = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go_on.wait(HANG)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # a task that is pending when it is garbage
    waiting = AsyncEffects(Tasks()).run_blocking(block)
    task = loop.create_task(waiting)
    loop.run_until_complete(auntil(begun.is_set))
    loop.close()
    waiting.close()
    go_on.set()
    assert not task.done()


def test_a_loop_that_ends_while_an_answer_is_written_books_it_too() -> None:
    """The thread that writes goes on to the end of both."""
    fake, cache = Provider(), SlowCache()
    router = router_for(fake, cache)

    async def leave() -> None:
        task = asyncio.create_task(router.aembed(["a"], input_type="document"))
        while not cache.writing.is_set():
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(AFTERWARDS, cache.go_on.set)
        assert not task.done()

    asyncio.run(leave())

    assert len(cache.rows) == router.ledger.totals("model")["fake:model"].requests == 1
    assert_nothing_lost(router, fake.billed)


class Named(Provider):
    """Says which model has answered."""

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return replace(await super().aembed(texts, input_type, timeout=timeout), model="a name")


def test_a_loop_that_ends_while_a_models_name_is_recorded_keeps_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name comes with the first answer, which is paid for as any other."""
    writing, go_on = threading.Event(), threading.Event()

    def slowly(path: Path, record: Mapping[str, object]) -> None:
        writing.set()
        go_on.wait(HANG)
        write_once(path, record)

    monkeypatch.setattr("embedrouter.cache._records.write_once", slowly)
    fake = Named()
    router = Router([fake.model(price="1")], cache=tmp_path, ledger=":memory:", retry=NO_WAITING)

    async def leave() -> None:
        task = asyncio.create_task(router.aembed(["a"], input_type="document"))
        while not writing.is_set():
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(AFTERWARDS, go_on.set)
        assert not task.done()

    asyncio.run(leave())

    assert_nothing_lost(router, fake.billed)
    router.close()


async def test_closing_while_an_answer_is_written_takes_nothing_back() -> None:
    """The thread that writes ends afterwards, and the next call has another."""
    fake, cache = Provider(), SlowCache()
    router = router_for(fake, cache)
    task = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while not cache.writing.is_set():
        await asyncio.sleep(0)
    await router.aclose()
    cache.go_on.set()

    assert (await task).usage.requests == 1
    assert len(cache.rows) == 1
    assert_nothing_lost(router, fake.billed)
    assert (await router.aembed(["a", "b"], input_type="document")).cached == (True, False)
    await router.aclose()


async def test_a_time_limit_around_a_call_loses_no_answer() -> None:
    """asyncio.timeout() cancels from within."""
    fake = Provider(turns=50)
    router = router_for(fake)

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            expiry = asyncio.create_task(expire(limit))
            await router.aembed([str(number) for number in range(200)], input_type="document")
        await expiry

    async def expire(limit: asyncio.Timeout) -> None:
        while len(fake.billed) < 5:
            await asyncio.sleep(0)
        limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        await limited()
    await router.aclose()

    assert 5 <= len(fake.billed) < 200
    assert_nothing_lost(router, fake.billed)


async def test_a_sibling_that_fails_in_a_task_group_loses_no_answer() -> None:
    """The group cancels the others; their requests in flight are finished in the background."""
    fake = Provider(turns=50)
    router = router_for(fake, max_concurrency=8)

    async def fail() -> None:
        await billed(fake)
        raise ZeroDivisionError

    async def siblings() -> None:
        async with asyncio.TaskGroup() as group:
            for text in TEXTS:
                group.create_task(router.aembed([text], input_type="document"))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        await siblings()
    await router.aclose()

    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert_nothing_lost(router, fake.billed)


async def test_what_is_finished_behind_a_cancelled_call_is_in_the_totals() -> None:
    """Router.usage and the ledger agree."""
    fake = Provider(turns=50)
    router = router_for(fake)
    task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
    await billed(fake)
    await cancelled(task)
    await router.aclose()
    (account,) = router.ledger.totals("model").values()

    assert account.requests == router.usage.requests == sum(fake.billed.values()) > 0
    assert account.cost == router.usage.cost


async def test_closing_does_not_wait_for_ever_for_a_provider_that_hangs() -> None:
    """It waits as long as a request may take; then the request is unconfirmed."""

    class Hanging(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            started.set()
            await asyncio.sleep(0 if started_before else 3600)
            return self.embed(texts, input_type, timeout=timeout)

    started, started_before = asyncio.Event(), False
    router = router_for(Hanging(), timeout=0.2)
    task = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await started.wait()
    await cancelled(task)
    async with asyncio.timeout(HANG):
        await router.aclose()

    assert len(router.ledger.unconfirmed()) == 1
    started_before = True
    await assert_claimed_by_no_call(router, ["a"])


async def test_a_task_cancelled_while_it_waits_for_its_model_costs_nothing() -> None:
    """For the rate limit, here; closing does not wait for the minute to pass."""
    fake = Provider()
    router = router_for(fake, requests_per_minute=1)
    await router.aembed(["first"], input_type="document")
    task = asyncio.create_task(router.aembed(["second"], input_type="document"))
    await asyncio.sleep(0.05)
    outcome = await cancelled(task)
    async with asyncio.timeout(HANG):
        await router.aclose()

    assert isinstance(outcome, asyncio.CancelledError)
    assert fake.billed == Counter(["first"])
    assert_nothing_lost(router, fake.billed)


async def test_a_task_cancelled_while_it_follows_another_lets_it_go_on() -> None:
    """The call that makes the request is not touched."""
    fake = Provider(turns=100)
    router = router_for(fake)
    leader = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await billed(fake)
    follower = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await asyncio.sleep(0)

    assert isinstance(await cancelled(follower), asyncio.CancelledError)
    assert len(await leader) == 1
    await router.aclose()
    assert fake.billed == Counter(["a"])


async def test_closing_does_not_wait_for_the_call_that_a_cancelled_one_followed() -> None:
    """A cancelled follower ends at once: nothing is paid for on its behalf."""

    class Gated(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            arrived.set()
            assert answer.wait(HANG)
            return super().embed(texts, input_type, timeout=timeout)

    arrived, answer = threading.Event(), threading.Event()
    fake, cache = Gated(), MemoryCache()
    router = router_for(fake, cache)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(router.embed, ["a"], input_type="document")
        await asyncio.to_thread(until, arrived.is_set)
        follower = asyncio.create_task(router.aembed(["a"], input_type="document"))
        await asyncio.sleep(0.05)
        await cancelled(follower)
        async with asyncio.timeout(HANG / 2):
            await router.aclose()
        assert not leader.done()
        answer.set()
        await asyncio.to_thread(leader.result, HANG)
    router.close()

    assert len(fake.calls) == 1


def test_a_call_that_was_stopped_begins_no_stage(asynchronous: bool) -> None:
    """And says so, however late the stop came."""

    async def stage() -> None:
        pytest.fail("it was begun")

    effects = AsyncEffects(Tasks()) if asynchronous else SyncEffects(Started())
    effects.stop()
    stages = effects.run_concurrently([stage(), stage()], 2)
    with pytest.raises(Stopped):
        asyncio.run(stages) if asynchronous else run(stages)


def test_ctrl_c_before_a_thread_begins_leaves_no_stage_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would warn of a coroutine that is never awaited."""

    async def stage() -> None:
        raise AssertionError("a request was made after Ctrl-C")

    begin = threads.run

    def busy(work: Callable[[], object]) -> None:
        """Have Ctrl-C come while no thread has begun; what ends behind calls of earlier tests goes on."""
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        else:
            begin(work)

    monkeypatch.setattr(threads, "run", busy)
    stages = [stage(), stage()]
    with pytest.raises(KeyboardInterrupt):
        run(SyncEffects(Started()).run_concurrently(stages, 2))

    assert [inspect.getcoroutinestate(item) for item in stages] == [inspect.CORO_CLOSED] * 2


async def test_an_error_behind_a_cancelled_call_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No caller is left; an unretrieved exception would be a warning at some later moment."""
    fake = Provider(turns=50, outcomes=[AuthenticationError("no")] * 9)
    router = router_for(fake)
    task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
    await billed(fake)
    await cancelled(task)
    await router.aclose()

    assert not caplog.records
    assert_nothing_lost(router, Counter())


# Ctrl-C

SCRIPT = """
    import sys
    from embedrouter import Model, Router

    url, folder, texts = sys.argv[1:]
    model = Model("openai:text-embedding-3-small", base_url=url, api_key="k", batch_size=1, max_concurrency=4)
    router = Router([model], cache=folder)
    print("ready", flush=True)
    try:
        router.embed([f"text {number}" for number in range(int(texts))], input_type="document")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        sys.exit(130)
"""


class Interrupted:
    """A process that embeds, one text to a request, and is interrupted."""

    def __init__(self, emulator: Emulator, folder: Path, texts: int) -> None:
        self.emulator = emulator
        arguments = [emulator.openai_url, str(folder), str(texts)]
        self.child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Interrupted:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.communicate()

    def interrupt_at(self, calls: int) -> None:
        deadline = time.monotonic() + 60
        while self.emulator.calls < calls:
            assert self.child.poll() is None, self.child.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        self.interrupt()

    def interrupt(self) -> None:
        self.child.send_signal(signal.SIGINT)

    def ended(self, within: float) -> tuple[int, str, str]:
        said, errors = self.child.communicate(timeout=within)
        return self.child.returncode, said, errors


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(("texts", "in_flight"), [(1, 1), (20, 4)])
def test_ctrl_c_waits_for_what_is_in_flight_and_keeps_it(
    emulator: Emulator, tmp_path: Path, texts: int, in_flight: int
) -> None:
    """Nothing new is begun; what is paid for is in the cache and in the ledger."""
    emulator.latency = 0.7
    with Interrupted(emulator, tmp_path, texts) as process:
        process.interrupt_at(calls=in_flight)
        code, said, errors = process.ended(within=30)

    assert (code, said.split()) == (130, ["ready", "interrupted"]), errors
    assert emulator.calls == in_flight
    (billed,) = emulator.billed.values()
    with Router([Model("openai:text-embedding-3-small", api_key="k")], cache=tmp_path) as router:
        everything = [f"text {number}" for number in range(texts)]
        assert router.estimate(everything, input_type="document").cached == in_flight
        (account,) = router.ledger.totals("model").values()
        assert (account.requests, account.tokens) == (in_flight, billed)
        assert not router.ledger.unconfirmed()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(("texts", "in_flight"), [(1, 1), (20, 4)])
def test_a_second_ctrl_c_leaves_at_once(emulator: Emulator, tmp_path: Path, texts: int, in_flight: int) -> None:
    """What was in flight is listed as perhaps billed, when its time is over."""
    emulator.latency = 20
    with Interrupted(emulator, tmp_path, texts) as process:
        process.interrupt_at(calls=in_flight)
        time.sleep(0.5)
        assert process.child.poll() is None
        process.interrupt()
        code, said, errors = process.ended(within=10)

    assert (code, said.split()) == (130, ["ready", "interrupted"]), errors
    assert emulator.calls == in_flight
    ledger = Ledger(tmp_path / "ledger.db", now=lambda: time.time() + LONG)
    assert sum(item.texts for item in ledger.unconfirmed()) == in_flight
    ledger.close()


def test_a_request_of_a_thread_of_the_users_runs_in_that_thread() -> None:
    """Ctrl-C reaches the main thread alone; a single request of another thread runs in that thread."""
    seen: list[str] = []

    class Watching(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            seen.append(threading.current_thread().name)
            return super().embed(texts, input_type, timeout=timeout)

    router = router_for(Watching())
    thread = threading.Thread(target=router.embed, args=(["a"],), kwargs={"input_type": "document"}, name="mine")
    thread.start()
    thread.join(20)

    assert seen == ["mine"]
