"""What other processes do in the tests of the ledger, the cache and the budget.

``Process`` starts a task in a process of its own, tells it to begin, so that many start together, and returns what the
task returns. The processes are forked from a server that has imported what they need, because importing an SDK takes
longer than most tasks. A task that is about the end of a program runs in ``a_program`` instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from embedrouter import Budget, Model, RetryPolicy, Router
from embedrouter.cache import Cache, open_cache
from embedrouter.errors import BudgetExceededError, InputRejectedError, NoModelAvailableError
from embedrouter.events import BookingsLost, CacheFailed, Event, LedgerFailed
from embedrouter.limits import Quotas
from embedrouter.redis import RedisState
from embedrouter.redis._claims import RedisClaims
from embedrouter.redis._limits import RedisLimits
from embedrouter.spending import Ledger
from embedrouter.testing import FakeBackend
from embedrouter.types import Spending
from tests.emulator.vectors import vector
from tests.virtual_time import FastTime

__all__ = ["MODEL", "Process", "a_program", "spending", "text"]

ROOT = Path(__file__).parents[1]
MODEL = "openai:text-embedding-3-small"
REFUSALS = 3
"""After so many refusals a thread or task believes that the money is gone."""


FAILED = (InputRejectedError, NoModelAvailableError)
"""A vector of another length counts as the fault of its text, where other texts have vectors of the right one."""


def spending(amount: str | Decimal | None = "0.01", **other: Any) -> Spending:
    """Return a request as the ledger books it, with as little said as possible."""
    told: dict[str, Any] = {
        "model": MODEL,
        "input_type": "document",
        "tier": "high",
        "tag": "",
        "texts": 1,
        "tokens": 100,
        "attempt": 1,
        "timeout": 30.0,
    }
    return Spending(amount=None if amount is None else Decimal(amount), **{**told, **other})


def text(number: int, words: int) -> str:
    """Return a text that no other number has, of about so many tokens."""
    return f"text {number}:" + " word" * words


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["openai", "pytest", "redis", "tests.hammer"])


class Process:
    """A task in a process of its own; killed at the end of the block if it still runs."""

    def __init__(self, task: str, **settings: Any) -> None:
        self._pipe, theirs = SERVER.Pipe()
        self._errors, errors = SERVER.Pipe(duplex=False)
        self._child = SERVER.Process(target=_perform, args=(theirs, errors, dict(os.environ), task, settings))
        with contextlib.chdir(ROOT):  # where the server finds this module
            self._child.start()
        theirs.close()
        errors.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.join()
        self._child.close()
        self._pipe.close()
        self._errors.close()

    def ready(self) -> None:
        """Wait until it is about to begin."""
        try:
            self._pipe.recv()
        except EOFError:
            raise AssertionError(f"the process did not begin: {self._said()}") from None

    def begin(self) -> None:
        self._pipe.send(None)

    def kill(self) -> None:
        """Kill it so that it can do nothing more about it."""
        self._child.kill()
        self._child.join()

    @property
    def running(self) -> bool:
        return self._child.is_alive()

    def killed(self, within: float = 60) -> None:
        """Wait for it to be killed.

        Raises:
            AssertionError: it ended in another way.
        """
        self._child.join(within)
        assert self._child.exitcode == -signal.SIGKILL, self._said()

    def outcome(self, within: float = 60) -> dict[str, Any]:
        """Wait for its end and return what the task returned.

        Raises:
            AssertionError: it failed.
        """
        assert self._pipe.poll(within), "the task did not end in time"
        try:
            story: dict[str, Any] = self._pipe.recv()
        except EOFError:
            raise AssertionError(self._said()) from None
        self._child.join(within)
        assert self._child.exitcode == 0, self._said()
        assert not (errors := self._said()), errors
        return story

    def _said(self) -> str:
        """Return what the process wrote to stderr, when it has ended."""
        self._child.join(10)
        with os.fdopen(os.dup(self._errors.fileno()), encoding="utf-8") as file:
            return file.read()

    @classmethod
    def run(cls, task: str, **settings: Any) -> dict[str, Any]:
        """Run a task from its beginning to its end and return what it returned."""
        with cls(task, **settings) as process:
            process.ready()
            process.begin()
            return process.outcome()


def _perform(
    pipe: Connection, errors: Connection, environment: dict[str, str], task: str, settings: dict[str, Any]
) -> None:
    os.dup2(errors.fileno(), 2)
    errors.close()
    os.environ.clear()
    os.environ.update(environment)
    pipe.send("ready")
    pipe.recv()
    began = time.monotonic()
    told = TASKS[task](**settings)
    pipe.send({**told, "seconds": round(time.monotonic() - began, 2)})


def a_program(task: str, **settings: Any) -> None:
    """Run a task in an interpreter that starts and ends as a user's does; nothing may go to stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hammer", task, json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


KEPT: list[Ledger] = []
"""Ledgers that live as long as the process."""

# Tasks that need a ledger alone: in a file, or on the server of an address


def _ledger(file: str, **settings: Any) -> Ledger:
    if "://" in file:
        return Ledger(books=RedisState(file).books(), **settings)
    return Ledger(Path(file), **settings)


def book(file: str, amounts: Sequence[str], tag: str = "") -> dict[str, Any]:
    """Book requests, each as it was estimated."""
    ledger = _ledger(file)
    for amount in amounts:
        reservation = ledger.reserve(Budget(), spending(amount, tag=tag))
        assert isinstance(reservation, int)
        ledger.settle(reservation, 100, Decimal(amount))
    ledger.close()
    return {}


def die(file: str, amount: str, timeout: float) -> dict[str, Any]:
    """Die with a request in flight."""
    _ledger(file).reserve(Budget(), spending(amount, timeout=timeout))
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def reserve(
    file: str, amount: str, total: str, times: int, tag: str = "", tags: dict[str, str] | None = None
) -> dict[str, Any]:
    """Set money aside as often as the budget lets it."""
    ledger = _ledger(file)
    outcomes = [
        ledger.reserve(
            _budget(total, tags),
            spending(amount, tag=tag),
        )
        for _ in range(times)
    ]
    return {"accepted": sum(isinstance(outcome, int) for outcome in outcomes)}


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which is what is tested
        return os.fork()


def pay(file: str, times: int, pause: float) -> dict[str, Any]:
    """Reserve and settle, with the time of a request between; return the milliseconds that each took."""
    ledger, budget = _ledger(file, required=True), Budget(per_day="1000", per_month="10000")
    reserving, settling = [], []
    chance = random.Random(os.getpid())
    for _ in range(times):
        began = time.perf_counter()
        reservation = ledger.reserve(budget, spending("0.0001", tag="team", exact=True))
        reserving.append(1000 * (time.perf_counter() - began))
        assert isinstance(reservation, int)
        time.sleep(pause * 2 * chance.random())
        began = time.perf_counter()
        ledger.settle(reservation, 90, Decimal("0.00009"))
        settling.append(1000 * (time.perf_counter() - began))
    ledger.close()
    return {"reserving": reserving, "settling": settling}


def save(file: str, times: int, forgotten: bool) -> dict[str, Any]:
    """Save, and end without closing; ``forgotten`` lets go of the ledger before."""
    ledgers = [_ledger(file)]
    for _ in range(times):
        ledgers[0].save(MODEL, "warm", 1, 10, Decimal("0.01"))
    if not forgotten:
        KEPT.extend(ledgers)
    return {}


def book_and_leave(file: str, amounts: Sequence[str], quietly: bool) -> dict[str, Any]:
    """Book requests, and end without closing; ``quietly`` logs nothing of a file that fails."""
    logging.getLogger("embedrouter").setLevel(logging.CRITICAL if quietly else logging.NOTSET)
    ledger = _ledger(file, busy_timeout=0.1)
    for amount in amounts:
        reservation = ledger.reserve(Budget(), spending(amount))
        assert isinstance(reservation, int)
        ledger.settle(reservation, 100, Decimal(amount))
    KEPT.append(ledger)
    return {}


def fork(file: str) -> dict[str, Any]:
    """Save in a forked child while a thread of the parent was inside the ledger."""
    ledger = _ledger(file)
    ledger.save(MODEL, "parent", 1, 10, Decimal("0.5"))
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger.transaction():
            inside.set()
            leave.wait(0.5)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(60)
    child = _fork()
    if child == 0:
        signal.alarm(10)  # what waits for a lock that no thread will release waits for ever
        ledger.save(MODEL, "child", 2, 20, Decimal("0.25"))
        ledger.close()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    leave.set()
    thread.join()
    ledger.close()
    return {"child": os.waitstatus_to_exitcode(status)}


def inherit(file: str) -> dict[str, Any]:
    """Spend in a forked child while the parent, whose file was open, closes it."""
    ledger = _ledger(file)

    def pay(amount: str) -> None:
        reservation = ledger.reserve(Budget(), spending(amount))
        assert isinstance(reservation, int)
        ledger.settle(reservation, 1, Decimal(amount))

    pay("0.01")
    (parent_hears, child_says), (child_hears, parent_says) = os.pipe(), os.pipe()
    child = _fork()
    if child == 0:
        signal.alarm(10)
        pay("0.02")
        os.write(child_says, b"paid")
        os.read(child_hears, 4)
        pay("0.04")
        ledger.close()
        os._exit(0)
    os.read(parent_hears, 4)
    ledger.close()
    os.write(parent_says, b"shut")
    _, status = os.waitpid(child, 0)
    return {"child": os.waitstatus_to_exitcode(status)}


def fork_cache(folder: str) -> dict[str, Any]:
    """Read in forked children while threads of the parent read and write."""
    cache = open_cache(folder)
    assert cache is not None
    stop = threading.Event()

    def work(worker: int) -> None:
        while not stop.is_set():
            cache.put_many({bytes([worker]): bytes([worker]) * 5000})
            cache.get_many([bytes([number]) for number in range(4)])

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    while len(cache.get_many([bytes([number]) for number in range(4)])) < 4:
        pass
    statuses, inherited = [], 0
    for _ in range(10):
        child = _fork()
        if child == 0:
            signal.alarm(10)
            links = list(Path("/proc/self/fd").iterdir())
            held = any(link.is_symlink() and folder in str(link.readlink()) for link in links)
            rows = cache.get_many([bytes([number]) for number in range(4)])
            cache.put_many({b"child": b"c"})
            os._exit(2 if held else 0 if all(rows[key] == key * 5000 for key in rows) and len(rows) == 4 else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        statuses.append(code)
        inherited += code == 2
    stop.set()
    for thread in threads:
        thread.join()
    cache.close()
    return {"children": statuses, "inherited": inherited}


# Tasks that need a router


def _complain(event: Event) -> None:
    """Print what is no fault of the provider's."""
    if isinstance(event, BookingsLost | CacheFailed | LedgerFailed):
        print(event, file=sys.stderr)


def _budget(total: str, tags: dict[str, str] | None) -> Budget:
    return Budget(total=total, tags={name: Budget(total=cap) for name, cap in (tags or {}).items()})


def _router(settings: dict[str, Any], cache: Cache | None = None) -> Router:
    logging.getLogger("embedrouter").setLevel(logging.CRITICAL)  # the provider's faults are on purpose
    os.environ["EMBEDROUTER_TAG"] = settings.get("tag", "")
    model = Model(
        settings.get("model", MODEL),
        base_url=settings["url"],
        api_key="k",
        dimensions=settings.get("dimensions", 8),
        price=settings["price"],
        timeout=settings["timeout"],
        batch_size=settings.get("batch_size"),
        max_concurrency=settings.get("max_concurrency"),
    )
    return Router(
        [model],
        cache=cache or Path(settings["folder"]),
        ledger=settings.get("ledger") or Path(settings["folder"]) / "ledger.db",
        budget=_budget(settings["cap"], settings.get("tags")),
        retry=RetryPolicy(attempts=4, timeout=20, initial_wait=0.01, max_wait=0.05),
        micro_batch_window=0,  # many requests, each with money of its own
        on_event=_complain,
    )


def _embed_warm(folder: str, asynchronous: bool, embedded: threading.Event | None = None) -> None:
    """Embed what is in the cache, and close nothing; with an event, set it and go on for ever."""
    router = Router([FakeBackend().model(price="1")], cache=Path(folder))
    while True:
        if asynchronous:
            asyncio.run(router.aembed(["a b c"], input_type="document"))
        else:
            router.embed(["a b c"], input_type="document")
        if embedded is None:
            return
        embedded.set()


def warm_workers(folder: str, kind: str, asynchronous: bool) -> dict[str, Any]:
    """Embed what is in the cache, in processes or threads that end in all kinds of ways."""
    told = (folder, asynchronous)
    SERVER.set_forkserver_preload([])  # the server would import this module twice, and warn
    if kind == "pool":
        with multiprocessing.get_context("forkserver").Pool(2) as pool:  # ends its workers by a signal
            pool.starmap(_embed_warm, [told] * 4)
    elif kind == "executor":
        with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as executor:
            wait([executor.submit(_embed_warm, *told) for _ in range(4)])
    elif kind == "daemon thread":
        embedded = threading.Event()
        threading.Thread(target=_embed_warm, args=(*told, embedded), daemon=True).start()
        embedded.wait(30)
    elif kind == "exit":
        _embed_warm(*told)
        sys.exit()
    else:
        context: Any = multiprocessing.get_context(kind)
        worker = context.Process(target=_embed_warm, args=told)
        worker.start()
        worker.join()
        assert worker.exitcode == 0
    return {}


def job(**settings: Any) -> dict[str, Any]:
    """Embed all texts in one call."""
    with _router(settings) as router:
        result = router.embed([text(n, settings["words"]) for n in range(settings["texts"])], input_type="document")
    return {"tokens": result.usage.tokens, "cached": sum(result.cached)}


def _calls(settings: dict[str, Any], worker: int) -> Iterator[list[str]]:
    """Return calls of one to three texts, in an order of the worker's own, until all texts were there."""
    chance = random.Random(f"{settings['seed']}/{settings['process']}/{worker}")
    numbers = list(range(settings["texts"]))
    chance.shuffle(numbers)
    while numbers:
        yield [text(numbers.pop(), settings["words"]) for _ in range(min(len(numbers), chance.randint(1, 3)))]


def threads(**settings: Any) -> dict[str, Any]:
    """Embed from many threads until the budget refuses."""
    story: Counter[str] = Counter()
    problems: list[str] = []
    router = _router(settings)

    def work(worker: int) -> None:
        for texts in _calls(settings, worker):
            try:
                router.embed(texts, input_type="document")
                story["answered"] += 1
            except FAILED:
                story["failed"] += 1
            except BudgetExceededError:
                story["refused"] += 1
                if story["refused"] >= REFUSALS * settings["workers"]:
                    return
            except BaseException as error:
                problems.append(repr(error))
                raise

    crew = [threading.Thread(target=work, args=(worker,)) for worker in range(settings["workers"])]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    router.close()
    return {**story, "problems": problems}


def tasks(**settings: Any) -> dict[str, Any]:
    """Embed from many asyncio tasks until the budget refuses."""
    story: Counter[str] = Counter()

    async def work(router: Router, worker: int) -> None:
        for texts in _calls(settings, worker):
            try:
                await router.aembed(texts, input_type="document")
                story["answered"] += 1
            except FAILED:
                story["failed"] += 1
            except BudgetExceededError:
                story["refused"] += 1
                if story["refused"] >= REFUSALS * settings["workers"]:
                    return

    async def everybody() -> None:
        async with _router(settings) as router, asyncio.TaskGroup() as group:
            for worker in range(settings["workers"]):
                group.create_task(work(router, worker))

    asyncio.run(everybody())
    return {**story, "problems": []}


def serve(**settings: Any) -> dict[str, Any]:
    """Embed, fork four children, and embed in all five at once, partly the same texts."""
    router = _router(settings)
    router.embed([text(0, 3)], input_type="document")
    wrong = 0

    def work(process: int) -> int:
        bad = 0
        for number in range(12):
            texts = [text(number, 3), text(1000 * process + number, 3)]
            got = router.embed(texts, input_type="document").vectors
            bad += any(
                not np.allclose(one, vector("text-embedding-3-small", 8, None, item), atol=1e-6)
                for one, item in zip(got, texts, strict=True)
            )
        return bad

    children = []
    for process in range(1, 5):
        child = _fork()
        if child == 0:
            signal.alarm(30)
            try:
                bad = work(process)
                router.close()
            except BaseException:  # noqa: BLE001 - nothing of the parent's may run on in the child
                traceback.print_exc()
                bad = 9
            os._exit(bad)
        children.append(child)
    wrong = work(5)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    router.close()
    return {"children": codes, "wrong": wrong}


def submit(first: int, **settings: Any) -> dict[str, Any]:
    """Submit texts in a batch, from the given number on."""
    with _router(settings) as router:
        router.submit_batch([text(first + n, settings["words"]) for n in range(settings["texts"])])
    return {}


def collect(**settings: Any) -> dict[str, Any]:
    """Collect all batches."""
    with _router(settings) as router:
        states = [job.poll() for job in router.batches()]
    answered = sum(status.answered for status in states)
    return {"ended": all(status.ended for status in states), "answered": answered, "tokens": router.usage.tokens}


def die_collecting(**settings: Any) -> dict[str, Any]:
    """Die when a batch's answers have been written to the cache for the second time."""
    opened = open_cache(settings["folder"])
    assert opened is not None
    with _router(settings, cache=_Deadly(opened)) as router:
        for job in router.batches():
            job.poll()
    return {}


class _Deadly:
    """A cache whose process dies when it has written twice."""

    def __init__(self, cache: Cache) -> None:
        self._cache, self._written = cache, 0

    def get_many(self, keys: Sequence[bytes]) -> Mapping[bytes, bytes]:
        return self._cache.get_many(keys)

    def put_many(self, values: Mapping[bytes, bytes]) -> None:
        self._cache.put_many(values)
        self._written += 1
        if self._written == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def close(self) -> None:
        self._cache.close()


class FastState(RedisState):
    """State whose minutes are short; all processes of this machine have one clock.

    Args:
        factor: how many times as fast its time passes.
    """

    def __init__(self, address: str, factor: float) -> None:
        super().__init__(address)
        self.time = FastTime(factor)

    def limits(self, account: str, quotas: Quotas, concurrency: int | None) -> RedisLimits:
        return RedisLimits(self.server, account, quotas, concurrency, clock=self.time)


def share_limits(
    url: str, state: str, factor: float, tokens: int, process: int, seconds: float, calls: int
) -> dict[str, Any]:
    """Embed texts of its own for so many seconds, in calls that wait for the limits that all processes share."""
    logging.getLogger("embedrouter.spending").setLevel(logging.CRITICAL)  # the last calls have no time left
    shared = FastState(state, factor)
    model = Model(MODEL, base_url=url, api_key="k", dimensions=8, tokens_per_minute=tokens, timeout=15 * factor)
    router = Router(
        [model],
        state=shared,
        cache=None,
        ledger=":memory:",
        retry=RetryPolicy(timeout=60 * factor),
        clock=shared.time,
        sleep=shared.time.sleep,
    )
    end = time.monotonic() + seconds

    def work(worker: int) -> None:
        for number in itertools.count():
            texts = [text(number * 100 + place, 250) + f" {process} {worker}" for place in range(12)]
            left = (end - time.monotonic()) * factor
            if left <= 0:
                return
            with contextlib.suppress(NoModelAvailableError, InputRejectedError):
                router.embed(texts, input_type="document", timeout=left)

    crew = [threading.Thread(target=work, args=(worker,)) for worker in range(calls)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    router.close()
    return {"tokens": router.usage.tokens, "requests": router.usage.requests}


class ShortState(RedisState):
    """State whose claims end soon after their process."""

    def __init__(self, address: str, lease: float) -> None:
        super().__init__(address)
        self.lease = lease

    def claims(self) -> RedisClaims:
        return RedisClaims(self.server, self.lease)


def share_texts(
    url: str, state: str, numbers: Sequence[int], asynchronous: bool, lease: float = 20.0
) -> dict[str, Any]:
    """Embed texts that other processes need at the same time."""
    model = Model(MODEL, base_url=url, api_key="k", dimensions=8, batch_size=10)
    texts = [text(number, 3) for number in numbers]
    with Router([model], state=ShortState(state, lease), ledger=":memory:") as router:
        if asynchronous:
            result = asyncio.run(router.aembed(texts, input_type="document"))
        else:
            result = router.embed(texts, input_type="document")
    wrong = sum(
        not np.allclose(row, vector("text-embedding-3-small", 8, None, item), atol=1e-6)
        for row, item in zip(result.vectors, texts, strict=True)
    )
    return {"cached": sum(result.cached), "tokens": result.usage.tokens, "wrong": wrong}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    task.__name__: task
    for task in (
        book,
        die,
        reserve,
        book_and_leave,
        pay,
        save,
        warm_workers,
        fork,
        inherit,
        fork_cache,
        serve,
        job,
        threads,
        tasks,
        submit,
        collect,
        die_collecting,
        share_limits,
        share_texts,
    )
}

if __name__ == "__main__":
    TASKS[sys.argv[1]](**json.loads(sys.argv[2]))
