"""Perform effects synchronously: block the calling thread, and never suspend.

Ctrl-C interrupts only the main thread, so the main thread makes no requests: requests run in threads of the pool, which
the main thread stops and waits for. A second Ctrl-C ends the wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from .._process import Lane, running_loop, threads
from ..errors import OutOfThreadsError
from ..models import Backend
from ..types import Answer, InputType
from ._effects import Running, Stopped, in_order

T = TypeVar("T")
P = ParamSpec("P")


def run(stage: Running[T]) -> T:
    """Run a stage whose effects never suspend, and return its result."""
    try:
        stage.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    stage.close()
    raise RuntimeError("a synchronous call was suspended")


class Started:
    """Background work of the synchronous calls of one process.

    Args:
        slots: requests that may be in flight at once; more threads beside the callers' own would only wait.
    """

    def __init__(self, slots: int = 8) -> None:
        self._futures: set[Future[None]] = set()
        self.helpers = Lane(threads, slots)
        """Threads that make requests beside the callers' own threads."""

    def add(self, future: Future[None]) -> None:
        """Hold a future until it is done."""
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

    def finish(self, seconds: float | None = None) -> None:
        """Wait until the work is done, at most ``seconds``."""
        wait(list(self._futures), seconds)


class SyncEffects:
    """Perform effects in the calling thread.

    Args:
        started: holds the background work.
        sleep: waits a number of seconds, in place of the machine's clock.
    """

    def __init__(self, started: Started, sleep: Callable[[float], object] | None = None) -> None:
        self._started, self._sleep = started, sleep
        self._stop = threading.Event()
        self.blocked_loop = running_loop()

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        return function(*args, **settings)

    async def request(self, backend: Backend, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        return backend.embed(texts, input_type, timeout=timeout)

    async def sleep(self, seconds: float) -> None:
        self.check()
        if self._sleep is None:
            self._stop.wait(seconds)
        else:
            self._sleep(seconds)
        self.check()

    async def wait_for(self, futures: Sequence[Future[Any]], seconds: float | None) -> None:
        self.check()
        wait(futures, seconds)
        self.check()

    async def run_concurrently(self, stages: Sequence[Running[T]], width: int) -> list[T]:
        is_main = threading.current_thread() is threading.main_thread()
        if len(stages) == 1 and not is_main:
            return [await stages[0]]
        waiting = iter(enumerate(stages))
        results: dict[int, T] = {}
        errors: list[BaseException] = []

        def work() -> None:
            for place, stage in waiting:
                if self._stop.is_set():
                    stage.close()
                    continue
                try:
                    results[place] = run(stage)
                except BaseException as error:  # noqa: BLE001 - raised below, after the other stages have ended
                    errors.append(error)
                    self._stop.set()

        ends: list[Future[None]] = []
        try:
            with suppress(OutOfThreadsError):
                if is_main:
                    ends.append(threads.submit(work))
                ends += (self._started.helpers.submit(work) for _ in range(min(width, len(stages)) - 1))
            if is_main and ends:
                wait(ends[:1])
            else:
                work()
            _wait_for_begun(ends)
        except BaseException:  # Ctrl-C
            self._stop.set()
            _wait_for_begun(ends)
            raise
        finally:
            for _, stage in waiting:  # no thread has begun; Python warns of a coroutine that is never awaited
                stage.close()
        return in_order(results, errors, len(stages))

    async def run_until_stopped(self, stage: Running[T]) -> T:
        return await stage

    def start(self, stage: Running[None]) -> None:
        def work() -> None:
            with suppress(Stopped):
                run(stage)

        try:
            future = threads.submit(work)
        except OutOfThreadsError:
            work()
            return
        self._started.add(future)

    @property
    def group(self) -> Hashable:
        """Key of all threads; ``None`` where the call blocks an event loop, whose tasks the call must not wait for."""
        return "threads" if self.blocked_loop is None else None

    @property
    def loop(self) -> None:
        return None

    def detached(self) -> SyncEffects:
        return SyncEffects(self._started, self._sleep)

    def check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def stop(self) -> None:
        self._stop.set()


def _wait_for_begun(ends: Sequence[Future[None]]) -> None:
    """Wait for the threads that have begun; the others find nothing left to do."""
    wait([end for end in ends if not end.cancel()])
