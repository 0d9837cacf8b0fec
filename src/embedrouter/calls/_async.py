"""Perform effects asynchronously, in the caller's event loop.

Blocking functions run in threads of the package's pool. From the stage that spends money on, a call runs in a separate
task: a cancelled caller returns at once, and the task finishes the requests in flight, stores their vectors and books
their cost.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .._process import Lane, threads
from ..errors import OutOfThreadsError
from ..models import Backend
from ..types import Answer, InputType
from ._effects import Running, Stopped, in_order

T = TypeVar("T")
P = ParamSpec("P")

MOST_BLOCKING = 32
"""Blocking functions at once. Most of them take turns with one file, where more threads would only wait."""

MOST_AWAITS = 100
"""Of a call whose loop is closed, while it ends."""


class Tasks:
    """Background tasks that finish paid requests of cancelled callers, and the threads of all calls."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._of_loops: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}
        """The tasks of all calls that have begun to spend money."""
        self.blocking = Lane(threads, MOST_BLOCKING)
        """Threads that run blocking functions."""

    def add(self, task: asyncio.Task[Any]) -> None:
        """Hold a task until its end, and retrieve its error, because no caller is left."""
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def begun(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Remember a task until its end, in case its loop is closed before."""
        tasks = self._of_loops.setdefault(task.get_loop(), set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def left(self) -> list[asyncio.Task[Any]]:
        """Return, once, the tasks of loops that were closed before the tasks were over."""
        closed = [loop for loop in list(self._of_loops) if loop.is_closed()]
        left = [task for loop in closed for task in self._of_loops.pop(loop, ())]
        self._tasks.difference_update(left)
        return left

    async def finish(self, seconds: float) -> None:
        """Wait for the running loop's tasks, at most ``seconds``, and cancel the remaining tasks."""
        loop = asyncio.get_running_loop()
        if tasks := [task for task in self._tasks if task.get_loop() is loop]:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class AsyncEffects:
    """Perform effects in the running event loop.

    Args:
        tasks: holds tasks that outlive their caller.
        sleep: waits a number of seconds, in place of the machine's clock; an awaitable result is awaited.
    """

    def __init__(self, tasks: Tasks, sleep: Callable[[float], object] | None = None) -> None:
        self._tasks, self._sleep = tasks, sleep
        self._stopped = False
        self._shielded = False
        """Whether the call has begun to spend money."""
        self._waiting: set[asyncio.Event] = set()

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        try:
            result = asyncio.wrap_future(self._tasks.blocking.submit(function, *args, **settings))
        except OutOfThreadsError:
            if not self._shielded:
                raise
            return _on_the_loop(partial(function, *args, **settings))
        try:
            return await asyncio.shield(result)
        except asyncio.CancelledError:
            while self._shielded and not result.done():  # the loop ends; the caller needs the number of a reservation
                with suppress(asyncio.CancelledError):  # the loop cancels a task, and so does the task's group
                    await asyncio.wait([result])
            raise
        finally:
            with suppress(RuntimeError):  # the loop is closed
                result.cancel()  # a running function reports to no caller: the loop may be closed at its end

    async def request(self, backend: Backend, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        return await backend.aembed(texts, input_type, timeout=timeout)

    async def sleep(self, seconds: float) -> None:
        self.check()
        if self._sleep is None:
            with self._woken_by_stop() as woken, suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await woken.wait()
        elif inspect.isawaitable(waiting := self._sleep(seconds)):
            await waiting
        self.check()

    async def wait_for(self, futures: Sequence[Future[Any]], seconds: float | None) -> None:
        self.check()
        loop, left = asyncio.get_running_loop(), len(futures)

        def one_done() -> None:
            nonlocal left
            left -= 1
            if not left:
                woken.set()

        def tell(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(one_done)

        with self._woken_by_stop() as woken, suppress(TimeoutError):
            for future in futures:
                future.add_done_callback(tell)
            async with asyncio.timeout(seconds):
                await woken.wait()
        self.check()

    async def run_concurrently(self, stages: Sequence[Running[T]], width: int) -> list[T]:
        waiting = iter(enumerate(stages))
        results: dict[int, T] = {}
        errors: list[BaseException] = []

        async def work() -> None:
            for place, stage in waiting:
                if self._stopped:
                    stage.close()
                    continue
                try:
                    results[place] = await stage
                except (Exception, Stopped) as error:  # noqa: BLE001 - raised below, as in the synchronous form
                    errors.append(error)
                    self.stop()

        try:
            if len(stages) == 1:
                await work()
            else:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(width, len(stages))):
                        self._tasks.begun(group.create_task(work()))
        finally:
            for _, stage in waiting:  # the loop ends; Python warns of a coroutine that is never awaited
                stage.close()
        return in_order(results, errors, len(stages))

    async def run_until_stopped(self, stage: Running[T]) -> T:
        self._shielded = True
        task = self._tasks.begun(asyncio.create_task(stage))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.stop()
            self._tasks.add(task)
            raise

    def start(self, stage: Running[None]) -> None:
        self._tasks.add(self._tasks.begun(asyncio.create_task(stage)))

    @contextmanager
    def _woken_by_stop(self) -> Iterator[asyncio.Event]:
        woken = asyncio.Event()
        self._waiting.add(woken)
        try:
            yield woken
        finally:
            self._waiting.discard(woken)

    @property
    def group(self) -> Hashable:
        """Key of one loop's tasks: another loop may be blocked, or closed."""
        return self.loop

    @property
    def loop(self) -> Hashable:
        return asyncio.get_running_loop()

    @property
    def blocked_loop(self) -> None:
        return None

    def detached(self) -> AsyncEffects:
        effects = AsyncEffects(self._tasks, self._sleep)
        effects._shielded = True
        return effects

    def check(self) -> None:
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        self._stopped = True
        for woken in self._waiting:
            woken.set()


def end(left: Sequence[asyncio.Task[Any]]) -> None:
    """End tasks that no loop runs any more: their calls hold slots, claims and money set aside. Blocks."""
    for task in left:
        coroutine = task.get_coro()
        for _ in range(MOST_AWAITS):
            with suppress(Exception, Stopped, asyncio.CancelledError):  # it awaits once more, or ends with an error
                coroutine.close()
                break


def _on_the_loop(function: Callable[[], T]) -> T:
    """Run a blocking function where there is no thread: an answer may be paid for, and the loop waits for once."""
    return function()
