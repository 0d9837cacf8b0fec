"""Stalls, crashes and leaks: the end of the interpreter, files under a map, databases of others, threads, HTTP 429."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import EmbeddingResult, Model, RetryPolicy, Router
from embedrouter._process import Lane, threads
from embedrouter._sqlite import SQLiteFile, ends_in, failure
from embedrouter.cache._disk import VECTORS, DiskCache
from embedrouter.errors import (
    CacheWarning,
    EmbedRouterError,
    NoModelAvailableError,
    OutOfThreadsError,
    RateLimitedError,
)
from embedrouter.limits import Admission, ModelLimits, Wait
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.cache_folders import KEYS, fill
from tests.either import embed
from tests.emulator import Emulator, Fault
from tests.side_by_side import HANG, at_once
from tests.virtual_time import FastTime

ROOT = Path(__file__).parents[1]

# The end of the interpreter

DAEMON = """
import asyncio, sys, threading, time
from embedrouter import Router
from embedrouter.testing import FakeBackend

kind, folder, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
router = Router([FakeBackend(dimensions=256).model()], cache=folder)
router.embed(["warm"], input_type="document")

def warm():
    while True:
        router.embed(["warm"], input_type="document")

def cold():
    number = 0
    while True:
        number += 1
        router.embed([f"{id(threading.current_thread())} {number} {text}" for text in range(40)], input_type="document")

def task():
    async def each():
        number = 0
        while True:
            number += 1
            await router.aembed([f"{id(number)} {number}", "warm"], input_type="document")
    async def crowd():
        await asyncio.gather(*(each() for _ in range(8)))
    asyncio.run(crowd())

def closing():
    while True:
        router.embed(["warm", str(time.monotonic())], input_type="query")
        router.close()

for _ in range(4):
    threading.Thread(target=globals()[kind], daemon=True).start()
time.sleep(pause)
"""


def program(code: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def end_often(kind: str, folder: Path, times: int) -> None:
    for run in range(times):
        done = program(DAEMON, kind, str(folder / kind), str(0.02 + 0.01 * (run % 10)))
        assert (done.returncode, done.stderr) == (0, ""), (
            f"run {run} of {kind}: {done.returncode}\n{done.stderr[-2000:]}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["warm", "cold", "task", "closing"])
def test_the_interpreter_ends_while_daemon_threads_embed(kind: str, tmp_path: Path) -> None:
    """Python frees what is left while the threads are at work: no crash, no wait, nothing on stderr."""
    end_often(kind, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["warm", "cold", "task", "closing"])
def test_the_interpreter_ends_eight_times_while_daemon_threads_embed(kind: str, tmp_path: Path) -> None:
    """A crash is a matter of chance."""
    end_often(kind, tmp_path, 8)


@pytest.mark.slow
def test_exit_functions_that_were_registered_before_may_still_embed(tmp_path: Path) -> None:
    """They run after the files were closed: in the main thread, which makes its requests in others."""
    code = """
import atexit, sys
def last():
    result = router.embed(["cold", *map(str, range(600))], input_type="document")
    print(len(result), router.embed(["warm"], input_type="document").cached)
    router.close()
atexit.register(last)
from embedrouter import Router
from embedrouter.testing import FakeBackend
router = Router([FakeBackend().model(batch_size=8)], cache=sys.argv[1])
router.embed(["warm"], input_type="document")
"""
    done = program(code, str(tmp_path))

    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["601", "(True,)"])


@pytest.mark.slow
def test_the_end_waits_for_no_thread_that_waits_for_another_process(tmp_path: Path) -> None:
    """Another process holds the write lock for longer than the program has left."""
    fill(tmp_path)
    code = """
import sys, threading, time
from embedrouter.cache._disk import DiskCache
cache = DiskCache(sys.argv[1])
threading.Thread(target=lambda: cache.put_many({b"k" * 20: b"v"}), daemon=True).start()
time.sleep(0.3)
"""
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        done = program(code, str(tmp_path))
        took = time.monotonic() - began

    assert (done.returncode, done.stderr) == (0, "")
    assert took < 10


# Files under a map

DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut to nothing": lambda folder: os.truncate(folder / "cache.db", 0),
    "cut in the middle": lambda folder: os.truncate(folder / "cache.db", 3 * 2**15),
    "another copied over it": lambda folder: (folder / "cache.db").write_bytes((folder / "backup.db").read_bytes()),
    "noise over it": lambda folder: (folder / "cache.db").write_bytes(b"noise" * 50_000),
    "the log cut": lambda folder: os.truncate(folder / "cache.db-wal", 100),
    "the index of the log cut": lambda folder: os.truncate(folder / "cache.db-shm", 0),
    "a backup of all files": lambda folder: [
        (folder / f"cache.db{end}").write_bytes(b"") for end in ("", "-wal", "-shm")
    ],
}

LIVE = """
import sys, warnings
warnings.simplefilter("ignore")
import logging
logging.disable(logging.CRITICAL)
import numpy as np
from embedrouter import Router
from embedrouter.testing import FakeBackend
fake = FakeBackend(dimensions=1024)
router = Router([fake.model()], cache=sys.argv[1], ledger=":memory:", cache_memory=0)
texts = [str(number) for number in range(100)]
right = router.embed(texts, input_type="document").vectors
print("ready", flush=True)
for line in sys.stdin:
    for number in range(3):
        vectors = router.embed([*texts, f"{line} {number}"], input_type="document").vectors
        assert np.array_equal(vectors[:100], right)
    print("right", flush=True)
router.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_cut_or_overwritten_in_use_ends_no_process(damage: str, tmp_path: Path) -> None:
    """A mapped file that is cut short is a SIGBUS: the cache fails open instead."""
    with closing(DiskCache(tmp_path)) as cache:
        cache.put_many({KEYS[0]: b"row"})
    (tmp_path / "backup.db").write_bytes((tmp_path / "cache.db").read_bytes())
    with subprocess.Popen(
        [sys.executable, "-c", LIVE, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            DAMAGE[damage](tmp_path)
            process.stdin.write("again\n")
            process.stdin.flush()
            assert process.stdout.readline() == "right\n", signal.Signals(-(process.wait(HANG) or -1))
        process.stdin.close()
        assert process.wait(HANG) == 0


def test_no_part_of_a_database_is_mapped(tmp_path: Path) -> None:
    """Whatever SQLite was built with. Its index of the log is mapped, and is made whole before each use."""
    cache = DiskCache(tmp_path)
    cache.put_many({KEYS[0]: b"row"})
    cache.get_many(KEYS)
    mapped = [line.split()[-1] for line in Path("/proc/self/maps").read_text("utf-8").splitlines()]
    cache.close()

    assert not {str(tmp_path / "cache.db"), str(tmp_path / "cache.db-wal")} & set(mapped)


# Databases of others

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
COLUMNS = VECTORS.removeprefix("CREATE TABLE vectors ")
PLANTED = {
    "endless view": f"DROP TABLE vectors; CREATE VIEW vectors AS {ENDLESS} x'00' AS key, 0.0 AS stored, x'00' AS value"
    " FROM n WHERE i < 0",
    "endless trigger": f"{VECTORS.replace('CREATE TABLE', 'CREATE TABLE IF NOT EXISTS')};"
    f" CREATE TRIGGER t BEFORE INSERT ON vectors BEGIN SELECT count(*) FROM ({ENDLESS} i FROM n); END",
    "trigger after": f"CREATE TRIGGER t AFTER INSERT ON vectors BEGIN SELECT count(*) FROM ({ENDLESS} i FROM n); END",
    "trigger instead": "DROP TABLE vectors; CREATE VIEW vectors AS SELECT x'00' AS key, 0.0 AS stored, x'00' AS value;"
    f" CREATE TRIGGER t INSTEAD OF INSERT ON vectors BEGIN SELECT count(*) FROM ({ENDLESS} i FROM n); END",
    "other columns": "DROP TABLE vectors; CREATE TABLE vectors (id INTEGER PRIMARY KEY, value)",
    "no unique keys": f"DROP TABLE vectors; CREATE TABLE vectors {COLUMNS.replace(' UNIQUE', '')}",
    "costly column": f"DROP TABLE vectors; CREATE TABLE vectors {COLUMNS[:-1]}, more AS (hex(zeroblob(100000000))))",
    "costly index": "CREATE INDEX more ON vectors (hex(key))",
    "without row numbers": "DROP TABLE vectors;"
    f" CREATE TABLE Vectors {COLUMNS.replace('UNIQUE', 'PRIMARY KEY')} WITHOUT ROWID",
    "nothing": "DROP TABLE vectors",
    "endless uses": f"DROP TABLE uses; CREATE VIEW uses AS {ENDLESS} x'00' AS key, 0.0 AS used FROM n WHERE i < 0",
    "trigger of uses": f"CREATE TRIGGER t BEFORE INSERT ON uses BEGIN SELECT count(*) FROM ({ENDLESS} i FROM n); END",
}


def plant(file: Path, script: str) -> None:
    with closing(sqlite3.connect(file)) as other:
        other.executescript(script)


@pytest.mark.parametrize("live", [False, True], ids=["before", "in use"])
@pytest.mark.parametrize("name", PLANTED)
def test_a_cache_that_others_have_changed_is_left_alone(
    name: str, live: bool, asynchronous: bool, tmp_path: Path
) -> None:
    """A view or a trigger can go on for ever: one warning, and the call goes on without the cache."""
    fill(tmp_path)
    fake = FakeBackend()
    router = Router([fake.model()], cache=tmp_path, ledger=":memory:", cache_memory=0)
    if live:
        embed(router, asynchronous, ["before"], input_type="document")
    plant(tmp_path / "cache.db", PLANTED[name])
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for text in ("a", "b"):
            result = embed(router, asynchronous, [text], input_type="document", timeout=3)
            assert np.array_equal(result.vectors[0], fake.vector(text, "document"))
        router.close()
    took = time.monotonic() - began

    assert [str(warning.message).count("move it away") for warning in seen] == [1]
    assert took < 2


@pytest.mark.slow
@pytest.mark.parametrize("writing", [False, True])
def test_a_statement_is_over_when_the_time_of_its_call_is_up(writing: bool, tmp_path: Path) -> None:
    """Whatever makes it long: half of what a call has left for reading, at least a second for writing."""
    file = SQLiteFile(tmp_path / "a.db", version=1, migrate=lambda database, _: None)
    for seconds, most in ((1.0, 1.5), (-5.0, 1.5)):
        began = time.monotonic()
        with (
            pytest.raises(sqlite3.OperationalError) as error,
            ends_in(seconds),
            file.writing() if writing else file.reading() as database,
        ):
            database.execute(f"SELECT count(*) FROM ({ENDLESS} i FROM n)").fetchone()
        assert failure(error.value) == "slow"
        assert time.monotonic() - began < most
    with file.reading() as database:
        assert database.execute("SELECT 1").fetchone() == (1,)
    file.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["write lock", "slow migration"])
def test_a_call_waits_for_the_cache_no_longer_than_it_may(kind: str, asynchronous: bool, tmp_path: Path) -> None:
    """Another process holds the lock; the rows of an earlier version are an endless table's."""
    if kind == "write lock":
        fill(tmp_path)
    other = sqlite3.connect(tmp_path / "cache.db", isolation_level=None)
    if kind == "write lock":
        other.execute("BEGIN IMMEDIATE")
    else:
        other.executescript(
            "CREATE TABLE Cache (key BLOB, store_time REAL, value BLOB, raw INTEGER, mode INTEGER);"
            " INSERT INTO Cache VALUES (zeroblob(20), 0, x'455200', 1, 1);"
            f" CREATE TRIGGER t BEFORE DELETE ON Cache BEGIN SELECT count(*) FROM ({ENDLESS} i FROM n); END"
        )
    router = Router([FakeBackend().model()], cache=tmp_path, ledger=":memory:")
    began = time.monotonic()
    with pytest.warns(CacheWarning):
        result = embed(router, asynchronous, ["a"], input_type="document", timeout=2)
    took = time.monotonic() - began
    other.close()
    router.close()

    assert len(result) == 1
    assert took < 4.5


def test_a_row_that_is_no_vector_for_its_size_is_not_read(tmp_path: Path) -> None:
    """A gigabyte under the right key would be in memory at once."""
    with closing(DiskCache(tmp_path)) as cache:
        cache.put_many({KEYS[0]: bytes(2**23), KEYS[1]: b"row"})

        assert cache.get_many(KEYS) == {KEYS[1]: b"row"}


# Threads


class Slow(FakeBackend):
    """Takes a moment for each request, and counts the requests and threads at once."""

    def __init__(self, seconds: float = 0.005) -> None:
        super().__init__()
        self.seconds, self.most = seconds, 0
        self.at_once = self.most_at_once = 0
        self.counting = threading.Lock()

    def embed(self, texts: Any, input_type: InputType, *, timeout: float) -> Answer:
        with self.counting:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.most = max(self.most, sum(thread.name == "embedrouter" for thread in threading.enumerate()))
        time.sleep(self.seconds)
        with self.counting:
            self.at_once -= 1
        return self.right(texts, input_type, timeout)

    def right(self, texts: Any, input_type: InputType, timeout: float) -> Answer:
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Any, input_type: InputType, *, timeout: float) -> Answer:
        self.most = max(self.most, sum(thread.name == "embedrouter" for thread in threading.enumerate()))
        await asyncio.sleep(self.seconds)
        return super().embed(texts, input_type, timeout=timeout)


def idle() -> int:
    """Return the threads that other tests have left, which are used again."""
    return sum(thread.name == "embedrouter" for thread in threading.enumerate())


@pytest.mark.slow
def test_many_callers_of_many_requests_take_as_many_threads_as_slots() -> None:
    """150 callers of 16 requests each, beside their own threads: 8 slots take 8 threads."""
    fake, before = Slow(), idle()
    router = Router([fake.model(batch_size=1)], cache=None, ledger=":memory:")
    texts = [[f"{caller} {n}" for n in range(16)] for caller in range(150)]
    results = at_once([partial(router.embed, part, input_type="document") for part in texts])
    router.close()

    assert [len(result) for result in results] == [16] * 150
    assert len(fake.calls) == 150 * 16
    assert fake.most_at_once == 8
    assert fake.most <= max(before, 8 + 2)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["main thread", "another"])
def test_one_caller_still_fills_all_slots(elsewhere: bool, asynchronous: bool) -> None:
    """The work of 32 requests is done eight at a time."""
    fake = Slow(0.05)
    router = Router([fake.model(batch_size=1)], cache=None, ledger=":memory:")
    texts = list(map(str, range(32)))

    def call() -> EmbeddingResult:
        return embed(router, asynchronous, texts, input_type="document")

    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(call).result(HANG) if elsewhere else call()
    took = time.monotonic() - began
    router.close()

    assert len(result) == 32
    assert took < 32 / 8 * 0.05 * 2.5


@pytest.mark.slow
def test_three_hundred_tasks_take_few_threads(tmp_path: Path) -> None:
    """Each reads the cache, sets money aside and books it."""
    fake, before = Slow(), idle()
    router = Router([fake.model(batch_size=2)], cache=tmp_path, micro_batch_window=0)

    async def crowd() -> list[EmbeddingResult]:
        async with router:
            return await asyncio.gather(
                *(router.aembed([f"{n} a", f"{n} b", f"{n} c"], input_type="document") for n in range(300))
            )

    assert [len(result) for result in asyncio.run(crowd())] == [3] * 300
    assert fake.most <= max(before, 32 + 8)


def test_a_lane_runs_some_functions_at_a_time_in_order() -> None:
    """One that is cancelled before it began is left out."""
    lane, gate, ran = Lane(threads, 2), threading.Event(), list[int]()
    first = [lane.submit(gate.wait, HANG) for _ in range(2)]
    others = [lane.submit(ran.append, number) for number in range(6)]
    every: list[Any] = [*first, *others[:3], *others[4:]]
    assert others[3].cancel()
    gate.set()
    for future in every:
        future.result(HANG)

    assert sorted(ran) == [0, 1, 2, 4, 5]


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the system have no more threads, of which none of the package's is idle."""
    start, done = threading.Thread.start, threading.Event()

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "embedrouter" or thread.name.startswith("asyncio"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    deadline = time.monotonic() + 2
    occupied = 0
    while occupied < idle() and time.monotonic() < deadline:
        try:
            threads.submit(done.wait, HANG)
            occupied += 1
        except OutOfThreadsError:
            time.sleep(0.001)
    yield
    done.set()


@pytest.mark.slow
@pytest.mark.usefixtures("no_threads")
@pytest.mark.parametrize("kind", ["a backend", "openai", "cohere", "voyage", "a store", "micro-batches"])
def test_without_threads_a_call_goes_on_or_says_so(kind: str, asynchronous: bool, emulator: Emulator) -> None:
    """Never as RuntimeError: in its own thread, or an error of ours before any money is spent."""
    names = {"openai": "text-embedding-3-small", "cohere": "embed-v4.0", "voyage": "voyage-4-lite"}
    if kind in names:
        url = getattr(emulator, f"{kind}_url").replace("127.0.0.1", "localhost")
        model = Model(f"{kind}:{names[kind]}", base_url=url, api_key="k")
    else:
        model = FakeBackend().model(batch_size=2)
    store = MemoryCache() if kind == "a store" else None
    router = Router([model], cache=store, ledger=":memory:", retry=RetryPolicy(attempts=2, initial_wait=0.001))

    async def acall(texts: list[str]) -> EmbeddingResult:
        return await router.aembed(texts, input_type="query")

    def call(texts: list[str]) -> EmbeddingResult:
        return asyncio.run(acall(texts)) if asynchronous else router.embed(texts, input_type="query")

    outcomes: list[Any] = []
    for texts in (["a"], ["a", "b", "c", "d", "e"]):
        try:
            outcomes.append(call(texts))
        except EmbedRouterError as error:
            outcomes.append(error)
    if not asynchronous or kind in ("a backend", "micro-batches"):
        assert [len(outcome) for outcome in outcomes] == [1, 5]
    for outcome in outcomes:
        if not isinstance(outcome, EmbeddingResult):
            assert isinstance(outcome, OutOfThreadsError | NoModelAvailableError)
            assert "ulimit -u" in str(outcome)
            assert router.usage.requests == 0


@pytest.mark.slow
@pytest.mark.usefixtures("no_threads")
def test_an_event_loop_that_starts_no_thread_for_a_name_is_told_as_ours() -> None:
    """asyncio looks names up in threads of its own; an SDK may wrap the error."""
    from embedrouter.providers._connections import out_of_threads

    async def look_up() -> Any:
        return await asyncio.get_running_loop().getaddrinfo("localhost", 80)

    with pytest.raises(RuntimeError) as error:
        asyncio.run(look_up())
    wrapped = ConnectionError("Connection error.")
    wrapped.__cause__ = error.value

    assert out_of_threads(error.value)
    assert out_of_threads(wrapped)
    assert not out_of_threads(ConnectionError())


# HTTP 429


class Refusing(FakeBackend):
    """Answers HTTP 429 while ``refuses`` is true."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__()
        self.refuses = True
        self.retry_after = retry_after

    def embed(self, texts: Any, input_type: InputType, *, timeout: float) -> Answer:
        answer = super().embed(texts, input_type, timeout=timeout)
        if self.refuses:
            raise RateLimitedError("slow down", status=429, retry_after=self.retry_after)
        return answer


def all_at_once(router: Router, asynchronous: bool, callers: int, **asked: Any) -> list[Any]:
    """Return what calls of one text each return or raise."""
    if not asynchronous:
        call = partial(router.embed, input_type="query", **asked)
        return at_once([partial(call, [f"text {n}"]) for n in range(callers)])

    async def crowd() -> list[Any]:
        async with router:
            calls = (router.aembed([f"text {n}"], input_type="query", **asked) for n in range(callers))
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(crowd())


@pytest.mark.slow
@pytest.mark.parametrize("retry_after", [None, 1.0, 0.01])
@pytest.mark.parametrize("concurrency", [8, 50])
def test_a_hundred_callers_share_the_wait_and_the_probe(
    retry_after: float | None, concurrency: int, asynchronous: bool
) -> None:
    """15 seconds of HTTP 429 were 500 requests. Afterwards every call is answered, soon."""
    clock = FastTime(10)
    fake = Refusing(retry_after)
    router = Router(
        [fake.model(max_concurrency=concurrency)], cache=None, ledger=":memory:", micro_batch_window=0, clock=clock,
        sleep=clock.sleep,
    )  # fmt: skip

    def recover() -> None:
        time.sleep(1.5)
        fake.refuses = False

    before = threading.Thread(target=recover)
    before.start()
    results = all_at_once(router, asynchronous, 100)
    before.join()
    router.close()

    refused = len(fake.calls) - 100
    assert [len(result) for result in results] == [1] * 100
    assert refused <= concurrency + 30


@pytest.mark.slow
def test_callers_of_a_provider_that_stays_busy_give_up_together(asynchronous: bool) -> None:
    """A probe's refusal counts for all that have waited for it, so none waits for ever."""
    clock = FastTime(50)
    fake = Refusing()
    router = Router(
        [fake.model()], cache=None, ledger=":memory:", micro_batch_window=0, clock=clock, sleep=clock.sleep,
        retry=RetryPolicy(timeout=30),
    )  # fmt: skip
    began = clock()
    outcomes = all_at_once(router, asynchronous, 40)
    took = clock() - began

    assert all(isinstance(outcome, NoModelAvailableError) for outcome in outcomes)
    assert all("slow down" in str(outcome) for outcome in outcomes)
    assert took < 200
    assert len(fake.calls) < 60


def test_a_call_with_a_deadline_waits_for_no_probe_beyond_it(asynchronous: bool) -> None:
    """Nor does it send one more request."""
    fake = Refusing(retry_after=30)
    router = Router([fake.model()], cache=None, ledger=":memory:", micro_batch_window=0)
    began = time.monotonic()
    outcomes = all_at_once(router, asynchronous, 30, timeout=1)
    took = time.monotonic() - began

    assert all(isinstance(outcome, EmbedRouterError) for outcome in outcomes)
    assert took < 3
    assert len(fake.calls) <= 8


@pytest.mark.slow
def test_while_one_model_refuses_another_answers(asynchronous: bool) -> None:
    """Callers go over to the next model, as they do one by one."""
    clock = FastTime(20)
    busy, free = Refusing(), FakeBackend()
    models = [busy.model("fake:busy", price="1"), free.model("fake:free", price="2")]
    router = Router(models, cache=None, ledger=":memory:", micro_batch_window=0, clock=clock, sleep=clock.sleep)
    results = all_at_once(router, asynchronous, 50)
    router.close()

    assert {name for result in results for name in result.models} == {"fake:free"}
    assert len(busy.calls) < 40


def limits(concurrency: int = 10) -> ModelLimits:
    return ModelLimits(
        concurrency=concurrency, requests=None, tokens=None, cooldown=10, lease=60, backoff=lambda times, _: 2.0**times
    )


def admitted(limits: ModelLimits, now: float, **how: Any) -> Admission:
    answer = limits.admit(1, now, **how)
    assert isinstance(answer, Admission), answer
    return answer


def seconds(limits: ModelLimits, now: float, **how: Any) -> float:
    answer = limits.admit(1, now, **how)
    assert isinstance(answer, Wait)
    return answer.seconds


BUSY = RateLimitedError("slow down", status=429)


def test_after_a_429_one_request_finds_out_for_all() -> None:
    """Those that were in flight with it are one refusal; each probe that is refused doubles the wait."""
    model = limits()
    first = [admitted(model, 0.0) for _ in range(3)]
    for admission in first:
        model.failed(admission, BUSY, 1.0)
    assert seconds(model, 1.0) == 2.0
    probe = admitted(model, 3.0)
    assert seconds(model, 3.0) < 1
    assert model.refusal is None
    model.failed(probe, BUSY, 3.5)
    assert (seconds(model, 3.5), str(model.refusal)) == (4.0, "slow down")
    probe = admitted(model, 7.5)
    model.answered(probe, 1, None, 8.0)

    assert [admitted(model, 8.0) for _ in range(5)]


def test_a_probe_that_does_not_find_out_makes_way_for_the_next() -> None:
    """It is not sent, fails otherwise, or is never heard of again; or it is a task of a loop that the caller blocks."""
    for end in ("released", "failed", "lost", "blocked"):
        model, loop = limits(), object()
        model.failed(admitted(model, 0.0), BUSY, 0.0)
        probe = admitted(model, 2.0, loop=loop)
        later = 2.0
        if end == "released":
            model.release(probe)
        elif end == "failed":
            model.failed(probe, RateLimitedError("the quota is used up", retryable=False), 2.0)
        elif end == "lost":
            later = 63.0
        admitted(model, later, blocked_loop=loop if end == "blocked" else None)


def test_an_answer_that_was_under_way_before_ends_no_wait() -> None:
    """It says nothing of the limit that was reached since."""
    model = limits()
    early, refused = admitted(model, 0.0), admitted(model, 0.5)
    model.failed(refused, BUSY, 1.0)
    model.answered(early, 1, None, 1.5)
    admitted(model, 3.0)

    assert seconds(model, 3.0) < 1


@pytest.mark.slow
def test_the_requests_of_a_storm_over_http_are_counted(emulator: Emulator, asynchronous: bool) -> None:
    """With an SDK, and a provider that says when."""
    clock = FastTime(10)
    until = time.monotonic() + 1.5
    emulator.fault_for = lambda received: Fault.rate_limited(retry_after=1) if time.monotonic() < until else None
    model = Model("openai:text-embedding-3-small", base_url=emulator.openai_url, api_key="k")
    router = Router([model], cache=None, ledger=":memory:", micro_batch_window=0, clock=clock, sleep=clock.sleep)
    results = all_at_once(router, asynchronous, 60)
    router.close()

    assert [len(result) for result in results] == [1] * 60
    assert len(emulator.received) <= 60 + 8 + 30
