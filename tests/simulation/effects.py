"""The effects of a call in both forms, as ``embedrouter.calls`` performs them, in tasks of a simulated process.

``Blocking`` does what ``_sync.SyncEffects`` does with threads, ``Awaiting`` what ``_async.AsyncEffects`` does with the
tasks of an event loop. Each effect is a place where other tasks go on, a file fails, a caller is stopped, or a process
is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from embedrouter.calls._effects import Stopped, in_order
from embedrouter.models import Backend
from embedrouter.types import Answer, InputType

from .scheduler import Cancelled, Loop, Task, finished, suspend

if TYPE_CHECKING:
    from .world import Process

T = TypeVar("T")
P = ParamSpec("P")
Running: TypeAlias = Coroutine[Any, Any, T]


class Asker:
    """One call, or the calls of a micro-batch together, for which effects are performed."""

    def __init__(self, name: str, rank: int, began: int, now: float) -> None:
        self.name, self.rank = name, rank
        self.began, self.began_at = began, now
        """The number of effects, and the time, when it began."""
        self.excused = 0.0
        """Seconds that files or a backend took, which no deadline ends."""
        self.interrupted = False
        """Whether Ctrl-C ended it; after a second one its requests are left to themselves."""


class Effects:
    def __init__(self, process: Process, asker: Asker) -> None:
        self.process, self.world, self.asker = process, process.world, asker
        self.stopped = False

    async def request(self, backend: Backend, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        self.world.count(self.process)
        return await self.world.provider.request(self, backend, texts, input_type, timeout)

    def check(self) -> None:
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        self.stopped = True

    def _named(self, function: Callable[..., Any]) -> str:
        """Return a name of what a blocking function does, for the story; money is set aside after the admission."""
        inner = function.func if isinstance(function, partial) else function
        name = getattr(inner, "__name__", type(inner).__name__).strip("_")
        if name == "reserve":
            self.world.current.admitted, self.world.current.admitted_at = self.world.effects, self.world.now
        return name

    async def _perform(self, function: Callable[[], T], told: str) -> T:
        """Run a blocking function: at one moment, after the time that it takes."""
        seconds = self.world.blocking_seconds(told)
        if seconds:
            self.asker.excused += seconds
            await suspend(self.world.now + seconds)
        return self.world.perform(self.process, function, told)

    @property
    def group(self) -> Hashable:
        raise NotImplementedError


class Blocking(Effects):
    """Effects of a synchronous call; ``blocks`` is the event loop in which it is made."""

    def __init__(self, process: Process, asker: Asker, blocks: Loop | None = None) -> None:
        super().__init__(process, asker)
        self.blocked_loop = blocks

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        self.world.count(self.process)
        told = self._named(function)
        await suspend()
        return await self._perform(partial(function, *args, **settings), told)

    async def sleep(self, seconds: float) -> None:
        self.world.count(self.process)
        self.check()
        await suspend(self.world.now + seconds, lambda: self.stopped)
        self.check()

    async def wait_for(self, futures: Sequence[Future[Any]], seconds: float | None) -> None:
        self.world.count(self.process)
        self.check()
        until = None if seconds is None else self.world.now + seconds
        await suspend(until, lambda: all(future.done() for future in futures))
        self.check()

    async def run_concurrently(self, stages: Sequence[Running[T]], width: int) -> list[T]:
        self.world.count(self.process)
        is_main = self.world.current.main
        if len(stages) == 1 and not is_main:
            return [await stages[0]]
        waiting = iter(enumerate(stages))
        results: dict[int, T] = {}
        errors: list[BaseException] = []

        async def work() -> None:
            for place, stage in waiting:
                if self.stopped:
                    stage.close()
                    continue
                try:
                    results[place] = await stage
                except BaseException as error:
                    errors.append(error)
                    self.stopped = True
                    if self.process.dead:
                        raise

        ends: list[Task] = []
        try:
            if is_main:
                ends.append(self.world.spawn("thread", work(), self.process))
            ends += (self.process.helper(work()) for _ in range(min(width, len(stages)) - 1))
            if is_main:
                await finished(ends[0])
            else:
                await work()
            await _finished_if_begun(ends)
        except BaseException:
            self.stopped = True
            if not self.process.dead:
                await _finished_if_begun(ends)
            raise
        finally:
            for _, stage in waiting:
                stage.close()
        return in_order(results, errors, len(stages))

    async def run_until_stopped(self, stage: Running[T]) -> T:
        self.world.count(self.process)
        return await stage

    def start(self, stage: Running[None]) -> None:
        self.world.count(self.process)

        async def work() -> None:
            with suppress(Stopped):
                await stage

        self.world.spawn("batch", work(), self.process)

    @property
    def group(self) -> Hashable:
        return "threads" if self.blocked_loop is None else None

    @property
    def loop(self) -> None:
        return None

    def detached(self) -> Blocking:
        return Blocking(self.process, self.world.asker("batch", self.asker.rank), self.blocked_loop)


class Awaiting(Effects):
    """Effects of an asynchronous call in an event loop."""

    def __init__(self, process: Process, asker: Asker, loop: Loop, *, shielded: bool = False) -> None:
        super().__init__(process, asker)
        self._loop, self._shielded = loop, shielded

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        self.world.count(self.process)
        job = self.world.spawn(
            "job", self._perform(partial(function, *args, **settings), self._named(function)), self.process
        )
        try:
            await finished(job)
        except Cancelled:
            while self._shielded and not job.done:
                with suppress(Cancelled):
                    await finished(job)
            job.cancel_unbegun()
            raise
        value: T = job.result()
        return value

    async def sleep(self, seconds: float) -> None:
        self.world.count(self.process)
        self.check()
        await suspend(self.world.now + seconds, lambda: self.stopped)
        self.check()

    async def wait_for(self, futures: Sequence[Future[Any]], seconds: float | None) -> None:
        self.world.count(self.process)
        self.check()
        until = None if seconds is None else self.world.now + seconds
        await suspend(until, lambda: self.stopped or all(future.done() for future in futures))
        self.check()

    async def run_concurrently(self, stages: Sequence[Running[T]], width: int) -> list[T]:
        self.world.count(self.process)
        waiting = iter(enumerate(stages))
        results: dict[int, T] = {}
        errors: list[BaseException] = []

        async def work() -> None:
            for place, stage in waiting:
                if self.stopped:
                    stage.close()
                    continue
                try:
                    results[place] = await stage
                except (Exception, Stopped) as error:  # noqa: BLE001 - raised below
                    errors.append(error)
                    self.stop()

        try:
            if len(stages) == 1:
                await work()
            else:
                await self._in_group([work() for _ in range(min(width, len(stages)))])
        finally:
            for _, stage in waiting:
                stage.close()
        return in_order(results, errors, len(stages))

    async def _in_group(self, works: Sequence[Running[None]]) -> None:
        """Do what ``asyncio.TaskGroup`` does with tasks that raise nothing but their cancellation."""
        tasks = [self.world.spawn("task", work, self.process, self._loop) for work in works]
        try:
            await finished(*tasks)
        except Cancelled:
            for task in tasks:
                task.throw(Cancelled())
            await finished(*tasks)
            raise
        for task in tasks:
            if not isinstance(task.error, Cancelled):
                task.result()

    async def run_until_stopped(self, stage: Running[T]) -> T:
        self.world.count(self.process)
        self._shielded = True
        task = self.world.spawn("task", stage, self.process, self._loop)
        try:
            await finished(task)
        except Cancelled:
            self.stop()
            raise
        value: T = task.result()
        return value

    def start(self, stage: Running[None]) -> None:
        self.world.count(self.process)
        self.world.spawn("batch", stage, self.process, self._loop)

    @property
    def group(self) -> Hashable:
        return self._loop

    @property
    def loop(self) -> Hashable:
        return self._loop

    @property
    def blocked_loop(self) -> None:
        return None

    def detached(self) -> Awaiting:
        return Awaiting(self.process, self.world.asker("batch", self.asker.rank), self._loop, shielded=True)


async def _finished_if_begun(tasks: Sequence[Task]) -> None:
    if begun := [task for task in tasks if not task.cancel_unbegun()]:
        await finished(*begun)
