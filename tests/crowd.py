"""Calls that come while another one is under way, for tests of what is sent as one."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import count
from typing import Any

import embedrouter
from embedrouter import EmbeddingResult, Router
from embedrouter.testing import NO_WAITING, FakeBackend
from embedrouter.types import Answer, InputType
from tests.side_by_side import HANG, Watch, auntil, caller, until

__all__ = ["WINDOW", "Crowd", "Doors", "Gated", "asking", "outcome", "router_for"]

WINDOW = 0.0099
"""Seconds, as no other wait is long."""


def router_for(fake: FakeBackend, *, model: dict[str, Any] | None = None, **settings: Any) -> Router:
    declared = fake.model(**{"price": "1", **(model or {})})
    return Router([declared], **{"cache": None, "ledger": ":memory:", "retry": NO_WAITING, **settings})


class Doors:
    """Stands in for the window: a batch is sent when the doors are opened. ``Router(…, sleep=doors)``.

    Attributes:
        batches: how many have waited so far.
    """

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches = 0

    def __call__(self, seconds: float) -> object:
        if seconds != WINDOW:  # before another try
            return None
        self.batches += 1
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            assert self.open.wait(HANG)
            return None
        return auntil(self.open.is_set)


class Gated(FakeBackend):
    """Answers its first request when it is told to and the others at once; with ``every`` all when it is told to.

    Attributes:
        waiting: requests that have had to wait so far.
    """

    def __init__(self, *, every: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.every, self.shut, self.open = every, True, threading.Event()
        self.waiting = 0
        self.counting = threading.Lock()

    def waits(self) -> bool:
        with self.counting:
            waits, self.shut = self.shut, self.shut and self.every
            self.waiting += waits
        return waits

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if self.waits():
            assert self.open.wait(HANG)
        return super().embed(texts, input_type, timeout=timeout)

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if self.waits():
            await auntil(self.open.is_set)
        return super().embed(texts, input_type, timeout=timeout)

    @property
    def asked(self) -> list[Counter[str]]:
        """The texts of each request."""
        return [Counter(call.texts) for call in self.calls]

    @property
    def sent(self) -> Counter[str]:
        """The texts of all requests."""
        return sum(self.asked, Counter())


Call = tuple[Sequence[str], dict[str, Any]]


def asking(*texts: str, **asked: Any) -> Call:
    return texts, asked


class Crowd:
    """Calls in threads, or in tasks of one event loop, which gather while a request is out until the doors are opened.

    Args:
        router: built with ``sleep=doors`` and ``clock=watch``.
    """

    def __init__(
        self, asynchronous: bool, doors: Doors, watch: Watch, fake: FakeBackend | None = None, **settings: Any
    ) -> None:
        self.asynchronous, self.doors, self.watch = asynchronous, doors, watch
        self.fake = fake
        self.names = map(str, count())
        self.numbers = count()
        self.pool = ThreadPoolExecutor(128)
        self.loop = asyncio.new_event_loop()
        self.turning = threading.Thread(target=self.loop.run_forever)
        if fake is not None:
            self.router = router_for(fake, **self.own, **settings)

    @property
    def own(self) -> dict[str, Any]:
        """The settings of a router for these calls."""
        return {"sleep": self.doors, "clock": self.watch, "micro_batch_window": WINDOW}

    def __enter__(self) -> Crowd:
        self.turning.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self.pool.shutdown()
        if self.asynchronous:
            self.run(self.router.aclose())
        self.router.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.turning.join(HANG)
        self.loop.close()

    def open(self) -> None:
        """Let everything go on."""
        self.doors.open.set()
        if isinstance(self.fake, Gated):
            self.fake.open.set()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop of the calls."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(HANG)

    def begin(self, *texts: str, tag: str = "", name: str = "", router: Router | None = None, **asked: Any) -> Any:
        """Begin a call and return its future."""
        router, name = router or self.router, name or next(self.names)
        asked = {"input_type": "query", **asked}

        def call() -> EmbeddingResult:
            caller.set(name)
            with embedrouter.tag(tag) if tag else nullcontext():
                return router.embed(texts, **asked)

        async def acall() -> EmbeddingResult:
            caller.set(name)
            with embedrouter.tag(tag) if tag else nullcontext():
                return await router.aembed(texts, **asked)

        if self.asynchronous:
            return asyncio.run_coroutine_threadsafe(acall(), self.loop)
        return self.pool.submit(call)

    def begin_first(self, *texts: str, **asked: Any) -> Any:
        """Begin a call and wait until its request is out, and waits for its answer."""
        assert isinstance(self.fake, Gated)
        before = self.fake.waiting
        future = self.begin(*(texts or ("first",)), **asked)
        until(lambda: self.fake.waiting > before)  # type: ignore[union-attr]
        return future

    def gather(self, *texts: str, **asked: Any) -> Any:
        """Begin a call and wait until it waits for others."""
        name = f"gathers {next(self.names)}"
        future = self.begin(*texts, name=name, **asked)
        until(lambda: self.watch.asked[name] > ("timeout" in asked))
        return future

    def outcomes(self, *calls: Call) -> list[Any]:
        """Return what a first call, which goes alone, and calls that gather meanwhile return or raise."""
        futures = [self.begin_first(), *(self.gather(*texts, **asked) for texts, asked in calls)]
        self.doors.open.set()
        outcomes = [outcome(future) for future in futures[1:]]
        self.open()
        return [outcome(futures[0]), *outcomes]

    def assert_quiet(self) -> None:
        """Nothing is left of what was under way: the next call goes alone, and waits for no other."""
        until(self.goes_alone)

    def goes_alone(self) -> bool:
        before = self.doors.batches
        self.begin(f"afterwards {next(self.numbers)}", timeout=HANG).result(HANG)
        return self.doors.batches == before


def outcome(future: Future[EmbeddingResult]) -> Any:
    """Return what a call returned or raised."""
    return future.exception(HANG) or future.result()
