"""Workers that share the limits of one model, on a virtual clock.

Each worker has what a process has: ``ModelLimits`` of its own, and the stage that admits requests. The shared limits
are the scripts on a real Redis server, which are given the virtual time. The provider is a window of the emulator.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from embedrouter.calls._admission import Admitting
from embedrouter.calls._call import SizedText
from embedrouter.calls._shared_state import Asked, SharedState
from embedrouter.errors import RateLimitedError
from embedrouter.events import Events
from embedrouter.limits import Admission, Quotas, SharedModelLimits
from embedrouter.redis._limits import RedisLimits
from embedrouter.redis._server import Server
from embedrouter.types import Candidate, RateLimits
from tests.emulator import Pace
from tests.scripted import Script, ScriptedEffects, calls, scripted_call
from tests.scripted import candidate as declared

__all__ = ["Crew", "Direct", "Worker"]


class Direct(SharedState):
    """Asks at once: time stands still meanwhile."""

    def __init__(self) -> None:
        super().__init__(Events(), "limits", "", "")
        self.dead = False

    async def ask(self, effects: Any, within: float, function: Any, *args: Any, **settings: Any) -> Any:
        return Asked(function(*args, **settings))

    def start(self, function: Any, *args: Any, **settings: Any) -> None:
        if not self.dead:
            function(*args, **settings)


class _Until:
    """Suspends a coroutine until a time."""

    def __init__(self, time: float) -> None:
        self.time = time

    def __await__(self) -> Generator[float, None, None]:
        yield self.time


class _Effects(ScriptedEffects):
    def __init__(self, crew: Crew) -> None:
        super().__init__(crew.script)
        self._crew = crew

    async def sleep(self, seconds: float) -> None:
        await self._crew.sleep(seconds)


@dataclass(eq=False)
class Worker:
    """A process with work without end.

    Args:
        sizes: the billed tokens of its requests, one after the other.
        outstanding: requests that wait or are in flight at once.
        ratio: of the estimates to the bills.
        begins: seconds after which it joins.
        pause: returns the seconds between an answer and the next request.
        killed: seconds after which it does nothing more, and ends nothing.
    """

    sizes: Iterator[int]
    outstanding: int = 4
    ratio: float = 1.0
    begins: float = 0.0
    pause: Callable[[], float] = lambda: 0.0
    killed: float = float("inf")
    limits: Any = None
    state: Direct = field(default_factory=Direct)
    answered: list[tuple[float, int]] = field(default_factory=list)
    """When requests were answered, and their bills."""
    waits: list[float] = field(default_factory=list)
    """Seconds until each request was admitted."""

    def used(self, begin: float, end: float) -> int:
        return sum(tokens for at, tokens in self.answered if begin <= at < end)


class Crew:
    """Workers and a provider.

    Args:
        declares: whether the workers declare the limits; otherwise the answers report them.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        pace: Pace,
        workers: Sequence[Worker],
        *,
        declares: bool = True,
        concurrency: int | None = None,
        slowest: float = 0.3,
        seed: int = 0,
        **candidate: Any,
    ) -> None:
        self.script, self.pace, self.workers = Script(), pace, workers
        self.begin = self.now = 1_764_544_800.0
        self.chance, self.slowest = random.Random(seed), slowest
        self.reports = not declares
        self.in_flight = self.most_in_flight = 0
        self._order = itertools.count()
        self._tasks: list[tuple[float, int, Worker, Coroutine[Any, Any, None]]] = []
        tokens, requests = (pace.tokens, pace.requests) if declares else (None, None)
        quotas: Quotas = ((requests, 60.5), (None, 60.5), (tokens, 60.5))
        self.candidate: Candidate = declared("a", timeout=30.0, concurrency=1000, **candidate)
        wiring = replace(calls(self.script, [self.candidate]).wiring, clock=self.clock)
        self.call = replace(scripted_call(self.script, [self.candidate]), effects=_Effects(self))
        for number, worker in enumerate(workers):
            shared = RedisLimits(server, name, quotas, concurrency, clock=self.clock)
            worker.limits = SharedModelLimits(
                shared,
                worker.state.start,
                f"worker {number}",
                concurrency=1000,
                requests=requests,
                tokens=tokens,
                cooldown=10,
                lease=60,
                backoff=lambda refusals, error: min(10.0, self.chance.random() * 0.5 * 2.0**refusals),
            )
            admitting = Admitting(wiring, {self.candidate.index: worker.limits}, worker.state)
            for _ in range(worker.outstanding):
                self._start(worker, self._work(worker, admitting), worker.begins)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await _Until(self.now + seconds)

    def run(self, seconds: float) -> None:
        """Let seconds pass."""
        end = self.now + seconds
        while self._tasks and self._tasks[0][0] < end:
            self.now, _, worker, task = heapq.heappop(self._tasks)
            if self.now - self.begin >= worker.killed:
                self._kill(worker, task)
                continue
            try:
                until = task.send(None)
            except StopIteration:
                continue
            heapq.heappush(self._tasks, (until, next(self._order), worker, task))
        self.now = end

    def close(self) -> None:
        """Kill all workers."""
        for _, _, worker, task in self._tasks:
            self._kill(worker, task)
        self._tasks.clear()

    def _kill(self, worker: Worker, task: Coroutine[Any, Any, None]) -> None:
        worker.state.dead = True
        task.close()

    def used(self, begin: float, end: float) -> float:
        """Return the share of the limit that was used, from and to seconds after the beginning."""
        return self.pace.used(self.begin + begin, self.begin + end) / ((end - begin) / 60 * (self.pace.tokens or 1))

    def share(self, worker: Worker, begin: float, end: float) -> float:
        """Return what a worker used, in shares of the limit."""
        tokens = worker.used(self.begin + begin, self.begin + end)
        return tokens / ((end - begin) / 60 * (self.pace.tokens or 1))

    def _start(self, worker: Worker, work: Coroutine[Any, Any, None], after: float) -> None:
        heapq.heappush(self._tasks, (self.now + after + self.chance.random(), next(self._order), worker, work))

    async def _work(self, worker: Worker, admitting: Admitting) -> None:
        for bill in worker.sizes:
            texts = [SizedText("text", max(1, int(bill * worker.ratio)))]
            began = self.now
            while not await self._request(worker, admitting, texts, bill):
                pass
            worker.waits.append(self.now - began)
            if pause := worker.pause():
                await self.sleep(pause)

    async def _request(self, worker: Worker, admitting: Admitting, texts: Sequence[SizedText], bill: int) -> bool:
        """Make a request and return whether it was answered."""
        limits = worker.limits
        admission, _ = await admitting.admit(self.call, self.candidate, texts, 60.0, True)
        if not isinstance(admission, Admission):
            await self.sleep(1.0)
            return False
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self.sleep(self.chance.uniform(0.01, self.slowest))
        accepted = self.pace.take(bill, self.now)
        await self.sleep(self.chance.uniform(0.01, self.slowest))
        self.in_flight -= 1
        told = RateLimits(self.pace.requests, tokens=self.pace.tokens) if self.reports else None
        if accepted:
            limits.answered(admission, bill, told, self.now)
            worker.answered.append((self.now, bill))
        else:
            limits.failed(admission, RateLimitedError("slow down", limits=told), self.now)
            await self.sleep(self.chance.uniform(0.1, 1.0))
        return accepted
