"""Outages of whole dependencies, one after the other: what the caller sees, how long it takes, what is kept and booked.

Each outage is a call of twenty texts in four requests, with ``timeout=3``, while one thing does not work. What becomes
of the call is the outage's row in ``docs/outages.md``: a row is right in both forms of the call, or a test fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import embedrouter
from embedrouter import Budget, EmbeddingResult, Model, RetryPolicy, Router
from embedrouter.errors import CacheWarning
from embedrouter.spending import Account, Ledger
from tests.emulator import Emulator, Fault, count_tokens
from tests.hammer import MODEL
from tests.raw_server import RawServer, Reply, dripping

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "outages.md"
TEXTS = [f"text number {number} of an outage" for number in range(20)]
REQUEST = 5
"""Texts."""
TIMEOUT = 3.0
"""Seconds; of the call."""


@dataclass
class Scene:
    """Where an outage takes place: a cache and a ledger in a folder each, and a provider."""

    folder: Path
    url: str
    asynchronous: bool
    stack: ExitStack = field(default_factory=ExitStack)
    """What ends when all has been counted."""
    timeout: float = TIMEOUT
    seconds: float = 0.0
    """How long the call took."""

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger" / "ledger.db"

    def router(self, url: str = "", **settings: Any) -> Router:
        """Return a router that has embedded something before the outage."""
        retry = RetryPolicy(attempts=3, initial_wait=0.05, max_wait=0.2, cooldown=0.5)
        model = Model(MODEL, base_url=url or self.url, api_key="k", batch_size=REQUEST, dimensions=256, timeout=10)
        router = Router([model], cache=self.cache, ledger=self.ledger, retry=retry, **settings)
        if not url:
            with embedrouter.tag("before"):
                router.embed(["before", "the outage"], input_type="document")
        return router

    def call(self, router: Router) -> str:
        """Return what the caller sees."""

        async def call() -> EmbeddingResult:
            try:
                return await router.aembed(TEXTS, input_type="document", timeout=self.timeout)
            finally:
                self.seconds = time.monotonic() - began
                await router.aclose()

        began = time.monotonic()
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always", CacheWarning)
                if self.asynchronous:
                    found = asyncio.run(call())
                else:
                    found = router.embed(TEXTS, input_type="document", timeout=self.timeout)
                    self.seconds = time.monotonic() - began
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - it is looked at
            self.seconds = self.seconds or time.monotonic() - began
            return type(error).__name__
        assert len(found) == len(TEXTS)
        return "vectors, CacheWarning" if any(one.category is CacheWarning for one in told) else "vectors"

    def program(self, code: str, **environment: str) -> str:
        """Return what the caller in a program sees, or how the program ended."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM + code, str(self.folder), self.url, str(int(self.asynchronous))],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", *filter(None, sys.path)]), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        began, *lines = done.stdout.splitlines()
        self.seconds = float(lines[1]) if lines else time.monotonic() - float(began)
        return lines[0] if lines else f"ends with {done.returncode}"


PROGRAM = """
import asyncio, os, signal, sys, threading, time
real, offset = time.time, [0]
time.time = lambda: real() + offset[0]
from embedrouter import Budget
from tests.test_outages import Path, Scene
scene = Scene(Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "1")

def begin(*arguments, **settings):
    router = scene.router(*arguments, **settings)
    print(time.monotonic(), flush=True)
    return router

def show(seen):
    print(seen, scene.seconds, sep="\\n", flush=True)
"""

Play: TypeAlias = Callable[[Scene, Emulator], AbstractContextManager[Callable[[], str]]]
"""Begins an outage, gives the call, and ends the outage."""


@dataclass(frozen=True)
class Outage:
    """One row of the page. Where the forms of a call differ, the synchronous one comes first: ``"one / other"``."""

    group: str
    name: str
    play: Play
    sees: str
    after: float
    """Seconds, at most."""
    kept: str
    booked: str

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"

    def expected(self, asynchronous: bool) -> tuple[str, ...]:
        """Return what is seen, kept and booked in one form of the call."""
        return tuple(text.split(" / ")[-1 if asynchronous else 0] for text in (self.sees, self.kept, self.booked))

    @property
    def line(self) -> str:
        sees = re.sub(r"[A-Z]\w+", r"`\g<0>`", self.sees)
        return f"| {self.name} | {sees} | {self.after:g} s | {self.kept} | {self.booked} |"


OUTAGES: list[Outage] = []

Playing: TypeAlias = Callable[[Scene, Emulator], Iterator[Callable[[], str]]]


def outage(group: str, name: str, sees: str, after: float, kept: str, booked: str) -> Callable[[Playing], Playing]:
    def decorate(play: Playing) -> Playing:
        OUTAGES.append(Outage(group, name, contextmanager(play), sees, after, kept, booked))
        return play

    return decorate


NOTHING, EVERYTHING, BILLED, UNCONFIRMED = "nothing", "everything", "as billed", "unconfirmed"
UNBOOKED = "nothing, and the program is told"
WHAT_CAME = "what was answered"
VECTORS = ("vectors", 1.0, EVERYTHING, BILLED)


# The provider

PROVIDER = "The provider"


def every(fault: Fault) -> Playing:
    def play(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
        with closing(scene.router()) as router:
            emulator.fault_for = lambda _: fault
            yield lambda: scene.call(router)
            emulator.fault_for = None

    return play


def some(*faults: Fault) -> Playing:
    def play(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
        with closing(scene.router()) as router:
            emulator.script(*faults)
            yield lambda: scene.call(router)

    return play


for name, playing, *expected in (
    ("HTTP 503 to every request", every(Fault.unavailable()), "NoModelAvailableError", 3.5, NOTHING, NOTHING),
    ("HTTP 503 to two requests", some(*[Fault.unavailable()] * 2), *VECTORS),
    ("HTTP 500 to every request", every(Fault.status(500)), "NoModelAvailableError", 3.5, NOTHING, NOTHING),
    ("HTTP 429 to every request", every(Fault.rate_limited()), "NoModelAvailableError", 3.5, NOTHING, NOTHING),
    ("HTTP 429 for an hour", every(Fault.rate_limited(3600)), "NoModelAvailableError", 1.0, NOTHING, NOTHING),
    ("HTTP 429 for a second", some(*[Fault.rate_limited(1)] * 2), "vectors", 3.0, EVERYTHING, BILLED),
    ("the quota is used up", every(Fault.insufficient_quota()), "NoModelAvailableError", 1.0, NOTHING, NOTHING),
    ("the key is refused", every(Fault.status(401)), "AuthenticationError", 1.0, NOTHING, NOTHING),
    ("connections are reset", every(Fault.reset()), "NoModelAvailableError", 3.5, NOTHING, UNCONFIRMED),
    ("a web page answers", every(Fault.html()), "NoModelAvailableError", 3.5, NOTHING, UNCONFIRMED),
    ("answers are a minute late", every(Fault.slow(60)), "NoModelAvailableError", 3.5, NOTHING, UNCONFIRMED),
    ("all answers are lost", every(Fault.lost()), "NoModelAvailableError", 3.5, NOTHING, UNCONFIRMED),
    ("one answer is lost", some(Fault.lost()), "vectors", 1.0, EVERYTHING, f"{BILLED}, one {UNCONFIRMED}"),
    ("one answer is cut in half", some(Fault.half_body()), "vectors", 1.0, EVERYTHING, f"{BILLED}, one {UNCONFIRMED}"),
    ("all answers lack a vector", every(Fault.wrong_count(-1)), "NoModelAvailableError", 3.5, NOTHING, BILLED),
    ("one answer lacks a vector", some(Fault.wrong_count(-1)), *VECTORS),
    ("vectors have another length", every(Fault.wrong_dimensions(8)), "NoModelAvailableError", 1.0, NOTHING, BILLED),
):
    outage(PROVIDER, name, *expected)(playing)  # type: ignore[arg-type]


@outage(PROVIDER, "one text is refused", "InputRejectedError", 1.0, "19 of 20", BILLED)
def poison(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
    with closing(scene.router()) as router:
        refusal = Fault.status(400)
        emulator.fault_for = lambda received: refusal if TEXTS[7] in received.texts else None
        yield lambda: scene.call(router)


@outage(PROVIDER, "connections are refused", "NoModelAvailableError", 3.5, NOTHING, NOTHING)
def refused(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        with closing(scene.router(f"http://127.0.0.1:{unused.getsockname()[1]}/v1")) as router:
            yield lambda: scene.call(router)


@outage(PROVIDER, "connections are made, and no byte follows", "NoModelAvailableError", 3.5, NOTHING, UNCONFIRMED)
def black_hole(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
    silent = scene.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
    with closing(scene.router(f"http://127.0.0.1:{silent.getsockname()[1]}/v1")) as router:
        yield lambda: scene.call(router)


@outage(PROVIDER, "answers come a byte at a time", "NoModelAvailableError", 3.5, NOTHING, UNCONFIRMED)
def drip(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
    with closing(RawServer()) as server, closing(scene.router(f"{server.url}/v1")) as router:
        ended = threading.Event()
        server.answer = lambda body, texts: Reply(raw=dripping(b"HTTP/1.1 200 OK\r\n" * 100, 0.2, ended))
        yield lambda: scene.call(router)
        ended.set()


# The ledger and the cache

LEDGER, CACHE = "The ledger", "The cache"


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of two megabytes."""
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting needs rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the write lock, as a backup or a shell does that was left open."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def full(file: Path) -> Iterator[None]:
    """Leave no byte."""
    stuff = file.with_name("stuff")
    with stuff.open("wb", buffering=0) as content, contextlib.suppress(OSError):
        while True:
            content.write(b"x" * 4096)
    yield
    stuff.unlink()


@contextmanager
def read_only(file: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", file.parent, file.parent], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", file.parent], check=True)
    yield
    subprocess.run(["umount", "-l", file.parent], check=True)


@contextmanager
def removed(file: Path) -> Iterator[None]:
    shutil.rmtree(file.parent)
    yield


@contextmanager
def damaged(file: Path) -> Iterator[None]:
    """Write over all but the beginning of the file."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as content:
        content.seek(100)
        content.write(b"\xa5" * (file.stat().st_size - 100))
    yield


@contextmanager
def replaced(file: Path) -> Iterator[None]:
    """Put another file in its place, as restoring a backup does."""
    other = file.with_name("other.db")
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(other)) as new:
        old.backup(new)
    other.replace(file)
    yield


@contextmanager
def foreign(file: Path) -> Iterator[None]:
    """Put a table of another program in the place of ours."""
    with closing(sqlite3.connect(file)) as other:
        other.executescript("DROP TABLE vectors; CREATE TABLE vectors (id INTEGER PRIMARY KEY, shape TEXT)")
    yield


Begins: TypeAlias = Callable[[Path], AbstractContextManager[None]]


def storage(which: str, begins: Begins, budget: Budget | None = None) -> Playing:
    """Play what happens to the file of the ledger or of the cache while a router uses it."""

    def play(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
        file = scene.ledger if which is LEDGER else scene.cache / "cache.db"
        if begins is full:
            scene.stack.enter_context(disk(file.parent))
        router = scene.router(budget=budget)
        if begins is read_only:
            router.close()  # open files would stay as they are
        with begins(file):
            yield lambda: scene.call(router)
        router.close()

    return play


CAPPED = Budget(total="1")
for which, name, begins, budget, *expected in (
    (LEDGER, "locked by another program", locked, None, "vectors", 2.0, EVERYTHING, BILLED),
    (LEDGER, "locked, under a budget", locked, CAPPED, "LedgerError", 3.5, NOTHING, NOTHING),
    (LEDGER, "its disk is full", full, None, *VECTORS),
    (LEDGER, "its disk is full, under a budget", full, CAPPED, "LedgerError", 1.0, NOTHING, NOTHING),
    (LEDGER, "read-only", read_only, None, *VECTORS),
    (LEDGER, "read-only, under a budget", read_only, CAPPED, "LedgerError", 1.0, NOTHING, NOTHING),
    (LEDGER, "its folder is removed", removed, None, *VECTORS),
    (LEDGER, "its folder is removed, under a budget", removed, CAPPED, "LedgerError", 1.0, NOTHING, NOTHING),
    (LEDGER, "damaged", damaged, None, "vectors", 1.0, EVERYTHING, UNBOOKED),
    (LEDGER, "damaged, under a budget", damaged, CAPPED, "LedgerError", 1.0, NOTHING, NOTHING),
    (LEDGER, "replaced by its backup", replaced, None, *VECTORS),
    (LEDGER, "replaced by its backup, under a budget", replaced, CAPPED, "LedgerError", 1.0, NOTHING, NOTHING),
    (CACHE, "locked by another program", locked, None, "vectors, CacheWarning", 3.5, NOTHING, BILLED),
    (CACHE, "its disk is full", full, None, "vectors, CacheWarning", 1.0, NOTHING, BILLED),
    (CACHE, "read-only", read_only, None, "vectors, CacheWarning", 1.0, NOTHING, BILLED),
    (CACHE, "its folder is removed", removed, None, *VECTORS),
    (CACHE, "damaged", damaged, None, "vectors, CacheWarning", 1.0, NOTHING, BILLED),
    (CACHE, "replaced by its backup", replaced, None, *VECTORS),
    (CACHE, "its table is another program's", foreign, None, "vectors, CacheWarning", 1.0, NOTHING, BILLED),
):
    outage(which, name, *expected)(storage(which, begins, budget))  # type: ignore[arg-type]

NO_LOCKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
static int locks(int command) { return command == F_SETLK || command == F_SETLKW || command == F_GETLK; }
#define WITHOUT_LOCKS(name) \\
    int name(int file, int command, ...) { \\
        va_list rest; va_start(rest, command); void *argument = va_arg(rest, void *); va_end(rest); \\
        if (locks(command)) { errno = ENOLCK; return -1; } \\
        int (*real)(int, int, ...) = dlsym(RTLD_NEXT, #name); \\
        return real(file, command, argument); \\
    }
WITHOUT_LOCKS(fcntl)
WITHOUT_LOCKS(fcntl64)
"""


def without_locks(code: str) -> Playing:
    """Run a program on a file system that has no locks, as some network file systems have none."""

    def play(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
        scene.router().close()
        source, library = scene.folder / "locks.c", scene.folder / "locks.so"
        source.write_text(NO_LOCKS, "utf-8")
        if subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], capture_output=True).returncode:
            pytest.skip("there is no compiler")
        yield lambda: scene.program(code, LD_PRELOAD=str(library))

    return play


outage(LEDGER, "on a file system without locks, under a budget", "ConfigError", 3.5, NOTHING, NOTHING)(
    without_locks("show(scene.call(begin(scene.url, budget=Budget(total='1'))))")
)
outage(CACHE, "on a file system without locks", "vectors, CacheWarning", 3.5, NOTHING, UNBOOKED)(
    without_locks("import openai.resources.embeddings\nshow(scene.call(begin(scene.url)))")
)


# The clock, the process, the event loop, memory and threads


def program(code: str, fault: Fault | None = None) -> Playing:
    """Run a program whose requests, but for the first two, have a fault."""

    def play(scene: Scene, emulator: Emulator) -> Iterator[Callable[[], str]]:
        emulator.script(None, None, None)
        emulator.fault_for = lambda _: fault
        yield lambda: scene.program(code)
        emulator.fault_for = None

    return play


CLOCK, PROCESS, LOOP, MACHINE = "The clock", "The process", "The event loop", "Memory and threads"

SPENT = """
import embedrouter
from tests.test_outages import TEXTS
router = begin(budget=Budget(PERIOD="0.000004"))
with embedrouter.tag("spent"):
    router.embed([text.upper() for text in TEXTS], input_type="document")
offset[0] = DAYS * 86400
show(scene.call(router))
"""


def spent(period: str, days: int) -> Playing:
    """Use up a cap, and set the clock."""
    return program(SPENT.replace("PERIOD", period).replace("DAYS", str(days)))


KILLED = """
router = begin()
threading.Timer(1, os.kill, (os.getpid(), signal.SIGNAL)).start()
scene.call(router)
"""
INTERRUPTED = """
router = begin()
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
show(scene.call(router))
router.close()
"""
DAEMON = """
router = begin()
threading.Thread(target=scene.call, args=(router,), daemon=True).start()
time.sleep(1)
"""
FORKED = """
router = begin(ADDRESS)
scene.timeout = SECONDS
working = threading.Thread(target=scene.call, args=(router,))
working.start()
time.sleep(0.3)
if os.fork() == 0:
    show(scene.call(router))
    os._exit(0)
os.wait()
working.join()
router.close()
"""
IN_A_LOOP = """
from tests.test_outages import TEXTS
router = begin()
began = time.monotonic()

async def main():
    call = router.aembed(TEXTS, input_type="document", timeout=3)
    task = asyncio.create_task(call)
    await asyncio.sleep(0.5)
    REST

task = asyncio.run(main())
scene.seconds = time.monotonic() - began
show("CancelledError" if task.cancelled() else "vectors")
router.close()
"""
MANY_LOOPS = """
router = begin()
scene.asynchronous = True
seen = []
working = [threading.Thread(target=lambda: seen.append(scene.call(router))) for _ in range(20)]
for thread in working:
    thread.start()
for thread in working:
    thread.join()
assert len(seen) == 20
show(*set(seen))
router.close()
"""
NO_THREADS = """
from embedrouter._process import threads

router = begin()
for working in [threads.submit(time.sleep, 0.1) for _ in range(8)]:
    working.result()
time.sleep(0.1)  # eight threads are idle, however many the first call has left
start = threading.Thread.start

def refuse(self):
    if sys._getframe(1).f_code.co_name == "shutdown_default_executor":  # asyncio's own, at the end of its loop
        return start(self)
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
show(scene.call(router))
threading.Thread.start = start
router.close()
"""
NO_MEMORY = """
import numpy as np
from embedrouter.cache import VectorCache
router = begin()
VectorCache.rounded = lambda self, vectors: np.empty(2**48)
show(scene.call(router))
"""

IN_FLIGHT = "while two of four requests are in flight"
HALF = ("10 of 20", f"{BILLED}, two {UNCONFIRMED}")
for group, name, playing, *expected in (
    (CLOCK, "a day back; today's cap is used up", spent("per_day", -1), "BudgetExceededError", 1.0, NOTHING, NOTHING),
    (CLOCK, "a day forward; today's cap was used up", spent("per_day", 1), *VECTORS),
    (CLOCK, "a month back; its cap is used up", spent("per_month", -31), "BudgetExceededError", 1.0, NOTHING, NOTHING),
    (CLOCK, "the month ends; its cap was used up", spent("per_month", 31), *VECTORS),
    (CLOCK, "a day forward; `total=` is used up", spent("total", 1), "BudgetExceededError", 1.0, NOTHING, NOTHING),
    (
        PROCESS,
        f"killed {IN_FLIGHT}",
        program(KILLED.replace("SIGNAL", "SIGKILL"), Fault.slow(30)),
        "ends with -9",
        10.0,
        *HALF,
    ),
    (
        PROCESS,
        f"SIGTERM {IN_FLIGHT}",
        program(KILLED.replace("SIGNAL", "SIGTERM"), Fault.slow(30)),
        "ends with -15",
        10.0,
        *HALF,
    ),
    (
        PROCESS,
        f"Ctrl-C {IN_FLIGHT}",
        program(INTERRUPTED, Fault.slow(1)),
        "KeyboardInterrupt",
        2.0,
        EVERYTHING,
        BILLED,
    ),
    (PROCESS, f"ends {IN_FLIGHT}, in a daemon thread", program(DAEMON, Fault.slow(30)), "ends with 0", 10.0, *HALF),
    (
        PROCESS,
        "forked while a thread embeds; the child embeds",
        program(FORKED.replace("ADDRESS", "").replace("SECONDS", "3"), Fault.slow(1)),
        "vectors",
        2.5,
        EVERYTHING,
        BILLED,
    ),
    (
        LOOP,
        "blocked for two seconds by the program",
        program(IN_A_LOOP.replace("REST", "time.sleep(2); await task; return task"), Fault.slow(1)),
        "vectors",
        3.5,
        EVERYTHING,
        BILLED,
    ),
    (
        LOOP,
        f"ends {IN_FLIGHT}",
        program(IN_A_LOOP.replace("REST", "return task"), Fault.slow(1)),
        "CancelledError",
        1.5,
        *HALF,
    ),
    (LOOP, "twenty loops at once, in a thread each", program(MANY_LOOPS), "vectors", 3.5, EVERYTHING, BILLED),
    (
        MACHINE,
        "no further thread can be started",
        program(NO_THREADS),
        "vectors / NoModelAvailableError",
        1.0,
        f"{EVERYTHING} / {WHAT_CAME}",
        f"{BILLED} / {WHAT_CAME}",
    ),
    (MACHINE, "no memory for the answers", program(NO_MEMORY), "MemoryError", 1.0, NOTHING, UNCONFIRMED),
):
    outage(group, name, *expected)(playing)  # type: ignore[arg-type]


# The test

LATER = 10_000.0
"""Seconds after which the requests of a process that is gone are unconfirmed."""


def counted(scene: Scene, emulator: Emulator) -> tuple[str, str]:
    """Return how many of the texts are kept, and what is booked of the tokens that the provider billed for them."""
    with warnings.catch_warnings(), closing(scene.router(scene.url)) as router:
        warnings.simplefilter("ignore", CacheWarning)
        cached = router.estimate(TEXTS, input_type="document").cached
    kept = {0: NOTHING, len(TEXTS): EVERYTHING}.get(cached, f"{cached} of {len(TEXTS)}")
    with closing(Ledger(scene.ledger, now=lambda: time.time() + LATER)) as ledger:
        accounts = ledger.totals("tag")
        waiting = [request for request in ledger.unconfirmed() if not request.tag]
    tokens, lost = accounts.get("", Account()).tokens, sum(request.tokens for request in waiting)
    others = sum(count_tokens("openai", text) for sent in emulator.received for text in sent.texts if text not in TEXTS)
    billed = emulator.billed.total() - others
    if not tokens:
        return kept, UNCONFIRMED if waiting else NOTHING if billed <= 0 else UNBOOKED
    number = {0: "", 1: f", one {UNCONFIRMED}", 2: f", two {UNCONFIRMED}"}[len(waiting)]
    return kept, (BILLED if tokens + lost >= billed >= tokens else f"{tokens} of {billed}") + number


BUSY = 2.0
"""Seconds by which a machine with other work may be late."""


@pytest.mark.slow
@pytest.mark.parametrize("row", OUTAGES, ids=str)
def test_an_outage_ends_as_its_row_says(row: Outage, tmp_path: Path, asynchronous: bool, emulator: Emulator) -> None:
    """In both forms."""
    scene = Scene(tmp_path, emulator.openai_url, asynchronous)
    with scene.stack:
        with row.play(scene, emulator) as call:
            seen = call()
        kept, booked = counted(scene, emulator)

    expected = row.expected(asynchronous)
    assert seen == expected[0]
    assert kept == expected[1] or expected[1] == WHAT_CAME
    assert booked == expected[2] or expected[2] == WHAT_CAME
    assert scene.seconds <= row.after + BUSY


@pytest.mark.slow
def test_a_fork_waits_while_another_thread_loads_an_sdk(tmp_path: Path, asynchronous: bool, emulator: Emulator) -> None:
    """A child would wait for ever for a module that is half imported. What an SDK imports later, with a request,
    may cost the child that request's time, and no more.
    """
    scene = Scene(tmp_path, emulator.openai_url, asynchronous)
    code = FORKED.replace("ADDRESS", "scene.url").replace("SECONDS", "20")

    assert scene.program(code) in ("vectors", "NoModelAvailableError")


def test_the_page_has_a_row_for_each_outage() -> None:
    """Each row has been played."""
    head = "| outage | the caller sees | after at most | kept | booked |\n|---|---|---|---|---|\n"
    tables = [
        f"## {group}\n\n{head}" + "".join(f"{row.line}\n" for row in OUTAGES if row.group == group)
        for group in dict.fromkeys(row.group for row in OUTAGES)
    ]
    page = PAGE.read_text("utf-8")

    assert [table for table in tables if table not in page] == []
    assert page.count("\n| ") == len(OUTAGES) + len(tables)
