"""A call may be stopped at any moment: what a provider billed by then is kept and booked."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Model, Router
from embedrouter import _process as workers
from embedrouter._process import Pool
from embedrouter.errors import AuthenticationError
from embedrouter.spending import Ledger
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.emulator import Emulator
from tests.side_by_side import HANG

ROOT = Path(__file__).parents[1]
LONG = 3600.0
"""Seconds after which nothing is in flight any more."""


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


def router_for(fake: FakeBackend, **settings: Any) -> Router:
    model = fake.model(**{"batch_size": 1, "max_concurrency": 2, "price": "1", **settings})
    return Router([model], cache=MemoryCache(), ledger=":memory:", retry=NO_WAITING)


TEXTS = ["a", "b", "c"]


def unsettled(router: Router) -> int:
    """Return the texts of requests that are unconfirmed, or will be when their time is over."""
    with router.ledger.transaction() as database:
        query = "SELECT COALESCE(SUM(texts), 0) FROM requests WHERE state != 'settled'"
        texts: int = database.execute(query).fetchone()[0]
    return texts


def assert_nothing_lost(router: Router, billed: Counter[str]) -> None:
    """Every billed text is in the cache or its request is unconfirmed, and the accounts agree with the bill."""
    unconfirmed = unsettled(router)
    account = router.ledger.totals("model").get("fake:model")
    booked = account.texts if account else 0
    kept = [text for text in billed if router.estimate([text], input_type="document").cached]
    assert len(kept) + unconfirmed >= len(billed)
    assert booked <= sum(billed.values()) <= booked + unconfirmed
    assert router.usage.requests <= booked + unconfirmed
    assert router._driver.flights._waiting == {}


def assert_kept_and_booked(router: Router, cache: MemoryCache, billed: Counter[str]) -> None:
    """The one request that was made, with nothing in doubt."""
    (account,) = router.ledger.totals("model").values()

    assert len(cache.rows) == account.requests == 1
    assert_nothing_lost(router, billed)
    assert not unsettled(router)


async def turn(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


# Tasks


AFTERWARDS = 0.05
"""Seconds after which asyncio.run has cancelled what is left; it goes on while one of these tasks waits."""


class Slow(MemoryCache):
    """Keeps nothing until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.go_on = threading.Event(), threading.Event()

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self.writing.set()
        self.go_on.wait(HANG)
        super().put_many(values)


class AtOnce(ThreadPoolExecutor):
    """Has no threads."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **settings: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*args, **settings))
        return done


@pytest.mark.parametrize("threads", [False, True])
def test_a_task_cancelled_at_any_moment_loses_no_answer(threads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each number of turns of the loop; once with every effect done at once, once in threads as it is."""
    ended = 0
    if not threads:
        monkeypatch.setattr(workers, "ThreadPoolExecutor", AtOnce)

    async def cancelled_after(steps: int) -> None:
        nonlocal ended
        if not threads:
            asyncio.get_running_loop().set_default_executor(AtOnce())
        fake = Provider()
        router = router_for(fake)
        task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
        await turn(steps)
        ended += not task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        async with asyncio.timeout(20):
            await router.aclose()
        assert_nothing_lost(router, fake.billed)
        assert not unsettled(router)
        assert router.usage.requests == sum(fake.billed.values())
        assert router._driver._here.sent == set()
        if not isinstance(outcome, asyncio.CancelledError):
            assert len(outcome) == len(TEXTS)

    for steps in range(80):
        asyncio.run(cancelled_after(steps))
    if not threads:
        assert 0 < ended < 70


def test_a_loop_that_ends_at_any_moment_loses_no_answer() -> None:
    """asyncio.run cancels what is left, so nothing can finish: what may have been billed is listed."""
    for steps in (*range(0, 40, 2), 60, 90):
        fake = Provider(turns=30)
        router = router_for(fake)

        async def leave(router: Router = router, steps: int = steps) -> None:
            task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
            await asyncio.sleep(0.001)
            await turn(steps)
            assert not task.cancelled()

        asyncio.run(leave())
        assert_nothing_lost(router, fake.billed)


def test_a_loop_that_ends_while_an_answer_is_written_books_it_too() -> None:
    """The thread that writes goes on to the end of both."""
    fake, cache = Provider(), Slow()
    router = Router([fake.model(price="1")], cache=cache, ledger=":memory:")

    async def leave() -> None:
        task = asyncio.create_task(router.aembed(["a"], input_type="document"))
        while not cache.writing.is_set():
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(AFTERWARDS, cache.go_on.set)
        assert not task.done()

    asyncio.run(leave())

    assert_kept_and_booked(router, cache, fake.billed)


def test_a_loop_that_ends_before_an_answer_is_written_keeps_and_books_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads have been busy with something else."""
    fake, cache, threads = Provider(turns=30), MemoryCache(), ThreadPoolExecutor(1)
    monkeypatch.setattr(workers, "ThreadPoolExecutor", lambda **_: threads)
    router = Router([fake.model(price="1")], cache=cache, ledger=":memory:")
    busy, leaving = threading.Event(), threading.Event()

    def something_else() -> None:
        busy.set()
        leaving.wait(HANG)

    async def leave() -> None:
        task = asyncio.create_task(router.aembed(["a"], input_type="document"))
        while not fake.billed:
            await asyncio.sleep(0)
        threads.submit(something_else)
        while not busy.is_set() or threads._work_queue.empty():
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(AFTERWARDS, leaving.set)
        assert not task.done()

    asyncio.run(leave())

    assert_kept_and_booked(router, cache, fake.billed)


def test_a_pool_that_is_closed_does_what_it_was_given() -> None:
    """Also what waits for a thread; and it begins again."""
    pool, go_on = Pool(), threading.Event()
    given = [pool.submit(go_on.wait, HANG) for _ in range(100)]
    pool.close()
    go_on.set()

    assert all(work.result(HANG) for work in given)
    assert pool.submit(len, "again").result(HANG) == 5
    pool.close()


async def test_closing_while_an_answer_is_written_takes_nothing_back() -> None:
    """The thread that writes ends afterwards, and the next call has another."""
    fake, cache = Provider(), Slow()
    router = Router([fake.model(price="1")], cache=cache, ledger=":memory:")
    task = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while not cache.writing.is_set():
        await asyncio.sleep(0)
    await router.aclose()
    cache.go_on.set()

    assert (await task).usage.requests == 1
    assert_kept_and_booked(router, cache, fake.billed)
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
    assert not unsettled(router)


async def test_a_sibling_that_fails_in_a_task_group_loses_no_answer() -> None:
    """The group cancels the others; their requests in flight are finished behind them."""
    fake = Provider(turns=50)
    router = router_for(fake, max_concurrency=8)

    async def fail() -> None:
        while not fake.billed:
            await asyncio.sleep(0)
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
    assert not unsettled(router)


async def test_what_is_finished_behind_a_cancelled_call_is_in_the_totals() -> None:
    """Router.usage and the ledger tell the same."""
    fake = Provider(turns=50)
    router = router_for(fake)
    task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
    while not fake.billed:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await router.aclose()
    (account,) = router.ledger.totals("model").values()

    assert account.requests == router.usage.requests == sum(fake.billed.values()) > 0
    assert account.cost == router.usage.cost


async def test_closing_does_not_wait_for_ever_for_a_provider_that_hangs() -> None:
    """As long as a request may take; what became of it nobody knows."""

    class Hanging(FakeBackend):
        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            started.set()
            await asyncio.sleep(3600)
            raise AssertionError

    started = asyncio.Event()
    router = router_for(Hanging(), timeout=0.2)
    task = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(20):
        await router.aclose()

    assert len(router.ledger.unconfirmed()) == 1
    assert router._driver.flights._waiting == {}


async def test_a_task_cancelled_while_it_waits_for_its_model_costs_nothing() -> None:
    """For the rate limit, here; closing does not wait for the minute to pass."""
    fake = Provider()
    router = router_for(fake, requests_per_minute=1)
    await router.aembed(["first"], input_type="document")
    task = asyncio.create_task(router.aembed(["second"], input_type="document"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        await router.aclose()

    assert fake.billed == Counter(["first"])
    assert router._driver.flights._waiting == {}
    assert_nothing_lost(router, fake.billed)


async def test_a_task_cancelled_while_it_follows_another_lets_it_go_on() -> None:
    """Whoever leads is not touched, and closing does not wait for the leader on behalf of who has gone."""
    fake = Provider(turns=100)
    router = router_for(fake)
    leader = asyncio.create_task(router.aembed(["a"], input_type="document"))
    while not fake.billed:
        await asyncio.sleep(0)
    follower = asyncio.create_task(router.aembed(["a"], input_type="document"))
    await asyncio.sleep(0)
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower

    assert len(await leader) == 1
    await router.aclose()
    assert fake.billed == Counter(["a"])


async def test_an_error_behind_a_cancelled_call_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The caller has gone; an unretrieved exception would be a warning at some later moment."""
    fake = Provider(turns=50, outcomes=[AuthenticationError("no")] * 9)
    router = router_for(fake)
    task = asyncio.create_task(router.aembed(TEXTS, input_type="document"))
    while not fake.billed:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
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


def test_a_stopped_call_in_a_thread_of_the_users_is_not_ours_to_stop() -> None:
    """Only the main thread hears Ctrl-C; a single request of another thread runs in that thread."""
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
