"""Performing flows: the only place that waits, and the two forms of every effect side by side.

``Driver.run`` and ``Driver.arun`` are the same loop. What differs between synchronous and asynchronous calls is what
``_perform`` and ``_aperform`` do with each effect, and nothing else.

A call can be stopped at any moment, by Ctrl-C or by cancelling its task: nothing new is begun then, and requests that
are out already are finished, kept in the cache and booked. Ctrl-C waits for that, a second one leaves at once; a
cancelled task does not wait, the rest goes on behind it and ``finish`` waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar, assert_never

from .._process import PerLoop, threads
from ..cache import VectorCache
from ..errors import BackendError, EmbedRouterError, RequestTimeoutError
from ..limits import Admission, Gate, ModelHealth, Wait
from ..models import Backend
from ..models import _tokens as tokens
from ..spending import Budget, Ledger
from ..types import Answer, Candidate, Found
from ._effects import (
    Admit,
    Afford,
    Allowance,
    Call,
    Count,
    Cut,
    Effect,
    Flow,
    Follow,
    Gather,
    Join,
    Pause,
    Read,
    Reserve,
    Settle,
    Together,
    Write,
)
from ._micro_batcher import Gathering, Gatherings
from ._sharing import Member
from ._single_flight import Flights

__all__ = ["Driver"]

T = TypeVar("T")

logger = logging.getLogger("embedrouter")

BEGINNINGS = (Admit, Reserve, Pause, Follow)
"""Effects at which a flow that was stopped ends."""

LITTLE = 1_000
"""Characters whose tokens are counted in less time than it takes to hand them to another thread and back."""


@dataclass(frozen=True, slots=True)
class _Here:
    """What belongs to one process. A forked child makes its own: nobody would release a lock held at the fork."""

    process: int
    slots: Sequence[threading.BoundedSemaphore]
    aslots: PerLoop[Sequence[asyncio.Semaphore]]
    gates: Sequence[Gate]
    gatherings: Gatherings[Member]
    """Of calls from threads."""
    agatherings: PerLoop[Gatherings[Member]]
    sent: set[int]
    """Reservations whose request went out and is not settled yet."""
    unfinished: set[asyncio.Task[Any]]
    """Tasks that nobody may be waiting for, and that finish what is paid for."""


class Driver:
    """Performs the effects of one router's flows.

    Args:
        cooldown: seconds that a model which keeps failing is left alone.
        window: seconds that calls of few texts wait for each other.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        candidates: Sequence[Candidate],
        cache: VectorCache,
        ledger: Ledger,
        budget: Budget,
        cooldown: float,
        window: float,
    ) -> None:
        self._backends = backends
        self._candidates = candidates
        self._cache = cache
        self._ledger = ledger
        self._budget = budget
        self._cooldown = cooldown
        self._window = window
        self._counted: set[int] = set()
        """Candidates that have their vocabulary at hand, if they have any; a local one may let go of it."""
        self.flights: Flights[Found] = Flights()
        """Texts that are being embedded at this moment."""
        self._own = self._start()

    def _start(self) -> _Here:
        candidates = self._candidates
        return _Here(
            process=os.getpid(),
            slots=[threading.BoundedSemaphore(candidate.concurrency) for candidate in candidates],
            aslots=PerLoop(lambda: [asyncio.Semaphore(candidate.concurrency) for candidate in candidates]),
            gates=[
                Gate(
                    requests=candidate.requests_per_minute,
                    tokens=candidate.tokens_per_minute,
                    cooldown=self._cooldown,
                    lease=2 * candidate.timeout,
                )
                for candidate in candidates
            ],
            gatherings=Gatherings(),
            agatherings=PerLoop(Gatherings),
            sent=set(),
            unfinished=set(),
        )

    @property
    def _here(self) -> _Here:
        if self._own.process != os.getpid():
            self._own = self._start()
        return self._own

    def health(self) -> list[ModelHealth]:
        """Return how each model has been doing, in the order of the candidates."""
        now = time.monotonic()
        gates = self._here.gates
        return [gates[candidate.index].health(candidate.name, now) for candidate in self._candidates]

    # The loop, twice

    def run(self, flow: Flow[T], stop: threading.Event | None = None) -> T | None:
        """Run a flow to its end and return its result; ``None`` when ``stop`` was set before it got there."""
        outcome: Any = None
        try:
            while True:
                try:
                    effect = flow.send(outcome)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                if stop is not None and stop.is_set() and isinstance(effect, BEGINNINGS):
                    return None
                outcome = self._perform(effect, stop)
        finally:
            flow.close()

    async def arun(self, flow: Flow[T]) -> T | None:
        """Run a flow to its end and return its result.

        From where it makes requests it runs in a task of its own, which is not cancelled with the caller's but stopped.
        """
        outcome: Any = None
        task: asyncio.Task[T | None] | None = None
        try:
            while True:
                try:
                    effect = flow.send(outcome)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                if isinstance(effect, Together):
                    stop = asyncio.Event()
                    task = asyncio.create_task(self._acarry_on(flow, stop, effect))
                    task.add_done_callback(lambda _: flow.close())  # also if it was cancelled before it began
                    return await self._shielded(task, stop)
                outcome = await self._aperform(effect, None)
        finally:
            if task is None:
                flow.close()

    async def _shielded(self, task: asyncio.Task[T], stop: asyncio.Event) -> T:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            if not task.done():
                unfinished = self._here.unfinished
                unfinished.add(task)
                task.add_done_callback(unfinished.discard)
                task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody is left to be told
            raise

    async def _acarry_on(self, flow: Flow[T], stop: asyncio.Event, effect: Effect | None = None) -> T | None:
        """Run a flow from ``effect`` on to its end; ``None`` when ``stop`` was set before it got there."""
        with closing(flow):
            try:
                effect = effect or next(flow)
                while not (stop.is_set() and isinstance(effect, BEGINNINGS)):
                    outcome = await self._aperform(effect, stop)
                    if stop.is_set() and isinstance(effect, Together) and outcome is None:  # some ended before requests
                        break
                    effect = flow.send(outcome)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
        return None

    async def finish(self) -> None:
        """Wait until what cancelled calls had paid for is kept; no longer than a request may take."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._here.unfinished if task.get_loop() is loop]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=max(candidate.timeout for candidate in self._candidates))
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    # Every effect, twice

    def _perform(self, effect: Effect, stop: threading.Event | None) -> Any:
        match effect:
            case Read(keys, dimensions):
                return self._cache.read(keys, dimensions)
            case Gather():
                return self._gather(effect)
            case Join(names):
                if _inside_a_loop():  # who blocks a loop must not wait for a task of that loop
                    return None
                return self.flights.join(names)
            case Count(candidate, texts, input_type):
                counts = self._backends[candidate.index].count(texts, input_type)
                if not candidate.local:
                    self._counted.add(candidate.index)
                return counts
            case Together(flows, width):
                return self._together(flows, width)
            case Admit(candidate, amount, least):
                return self._here.gates[candidate.index].admit(amount, time.monotonic(), least=least)
            case Reserve(spending):
                return self._ledger.reserve(self._budget, spending)
            case Call(candidate, texts, input_type):
                backend = self._backends[candidate.index]
                with _turn(self._here.slots[candidate.index], effect.deadline) as come:
                    timeout = self._departure(effect, come and not (stop and stop.is_set()))
                    if isinstance(timeout, Wait):
                        return timeout
                    try:
                        return self._heard(effect, timeout, backend.embed(texts, input_type, timeout=timeout))
                    except EmbedRouterError as error:
                        return self._heard(effect, timeout, error)
            case Settle():
                return self._settle(effect)
            case Write(entries):
                return self._cache.write(entries)
            case Cut():
                return self._cut(effect)
            case Allowance(candidate):
                return self._ledger.free_tokens(candidate.name, candidate.free_tokens)
            case Afford(amount):
                return self._ledger.refusal(self._budget, amount)
            case Follow(futures, seconds):
                return wait(futures, seconds)
            case Pause(seconds):
                return (stop or threading.Event()).wait(seconds)
            case _:
                assert_never(effect)

    async def _aperform(self, effect: Effect, stop: asyncio.Event | None) -> Any:
        match effect:
            case Read(keys, dimensions) if (entries := self._cache.read_at_once(keys, dimensions)) is not None:
                return entries
            case Gather():
                return await self._agather(effect)
            case Join(names):
                return self.flights.join(names)
            case Count(candidate, texts) if candidate.index in self._counted and sum(map(len, texts)) < LITTLE:
                return self._perform(effect, None)
            case Together(flows, width):
                return await self._atogether(flows, width, stop or asyncio.Event())
            case Admit():
                return self._perform(effect, None)
            case Reserve(spending) if (reserved := self._ledger.reserve_at_once(self._budget, spending)) is not None:
                return reserved
            case Reserve():
                return await self._areserve(effect)
            case Call(candidate, texts, input_type):
                backend = self._backends[candidate.index]
                async with _aturn(self._here.aslots.get()[candidate.index], effect.deadline) as come:
                    timeout = self._departure(effect, come and not (stop and stop.is_set()))
                    if isinstance(timeout, Wait):
                        return timeout
                    try:
                        return self._heard(effect, timeout, await backend.aembed(texts, input_type, timeout=timeout))
                    except EmbedRouterError as error:
                        return self._heard(effect, timeout, error)
            case Settle():
                return await _ended(threads.submit(self._settle, effect))
            case Write() if self._cache.store is None:
                return self._perform(effect, None)
            case Read() | Write() | Count() | Cut() | Allowance() | Afford():  # in a thread
                return await asyncio.to_thread(self._perform, effect, None)
            case Follow(futures, seconds):
                return await _followed(futures, seconds)
            case Pause(seconds):
                return await _apause(seconds, stop)
            case _:
                assert_never(effect)

    def _departure(self, call: Call, may: bool) -> float | Wait:
        """Send a request on its way, unless it may not go out any more, and return the seconds that it may take."""
        gate = self._here.gates[call.candidate.index]
        now = time.monotonic()
        timeout = call.timeout if call.deadline is None else min(call.timeout, call.deadline - now)
        if not may or timeout <= 0:
            gate.withdraw(call.admission)
            return Wait(0.0, down=False)
        longer = gate.depart(call.admission, now)
        if longer is not None:
            return longer
        self._here.sent.add(call.reservation)
        return timeout

    def _heard(self, call: Call, timeout: float, outcome: Answer | EmbedRouterError) -> Answer | EmbedRouterError:
        """Note what a request says of its model's health."""
        gate = self._here.gates[call.candidate.index]
        if isinstance(outcome, Answer):
            billed = tokens.parse_token_count(outcome.tokens)  # a backend of the user's may say anything
            outcome = Answer(self._cache.rounded(outcome.vectors), billed, outcome.limits)
            gate.answered(call.admission, outcome.tokens, outcome.limits, time.monotonic())
        elif isinstance(outcome, BackendError):
            hurried = isinstance(outcome, RequestTimeoutError) and timeout < call.candidate.timeout
            gate.failed(call.admission, outcome, time.monotonic(), counts=not hurried)
        return outcome

    async def _areserve(self, effect: Reserve) -> int | str:
        """Set money aside in a thread, which may wait for others; give it back if meanwhile the task was cancelled."""

        def give_back(done: Future[int | str]) -> None:
            if not done.exception() and isinstance(reservation := done.result(), int):
                self._ledger.release(reservation)

        reserved = threads.submit(self._ledger.reserve, self._budget, effect.spending)
        try:
            return await _ended(reserved)
        except asyncio.CancelledError:
            reserved.add_done_callback(give_back)
            raise

    def withdraw(self, candidate: Candidate, admission: Admission) -> None:
        """Take back what was let out and will not be sent."""
        self._here.gates[candidate.index].withdraw(admission)

    def abandon(self, reservation: int) -> None:
        """Book a reservation whose flow was closed: a request that went out may have been billed, others were not."""
        if reservation in self._here.sent:
            self._ledger.suspect(reservation)
        else:
            self._ledger.release(reservation)
        self._here.sent.discard(reservation)

    def _settle(self, effect: Settle) -> Decimal | None:
        try:
            self._cache.write(effect.entries)
        finally:
            booked = self._book(effect)
        return booked

    def _book(self, effect: Settle) -> Decimal | None:
        self._here.sent.discard(effect.reservation)
        if effect.billed is not None:
            return self._ledger.settle(effect.reservation, *effect.billed)
        if effect.unconfirmed:
            self._ledger.suspect(effect.reservation)
        else:
            self._ledger.release(effect.reservation)
        return None

    def _cut(self, effect: Cut) -> list[str]:
        backend = self._backends[effect.candidate.index]

        def count(text: str) -> int:
            return backend.count([text], effect.input_type).tokens[0]

        return tokens.pieces(effect.text, effect.limit, effect.policy, count)

    # Together with other calls, twice: whoever comes first has them sent, but none of the callers has it in hand

    def _gather(self, effect: Gather) -> EmbedRouterError | Callable[[], None] | None:
        if _inside_a_loop():  # who blocks a loop goes alone
            return None
        gatherings = self._here.gatherings
        entered = (gatherings.join if effect.waiting else gatherings.enter)(effect.name, effect.member)
        if entered is None:
            return None if effect.waiting else partial(gatherings.leave, effect.name)
        gathering, member = entered
        if gathering.first is member:
            depart = partial(self._depart, gatherings, gathering, effect.send)
            try:
                threads.submit(depart)
            except RuntimeError:  # the system has no more threads: in this one
                depart()
            except BaseException:  # Ctrl-C: perhaps there is no thread that will
                if gatherings.withdraw(gathering, member):
                    gatherings.end(gathering)
                    _dismiss(gathering)
                raise
        try:
            wait([member.told], effect.seconds)
        except BaseException:  # Ctrl-C
            if not gatherings.withdraw(gathering, member):
                wait([member.told])
            raise
        if not member.told.cancel():
            return member.told.result()
        gatherings.withdraw(gathering, member)
        return None

    def _depart(
        self,
        gatherings: Gatherings[Member],
        gathering: Gathering[Member],
        send: Callable[[Sequence[Member]], Flow[None]],
    ) -> None:
        try:
            time.sleep(self._window)
            if members := gatherings.depart(gathering):
                self.run(send(members))
        except Exception:
            logger.exception("what was sent for several calls failed")
        finally:
            gatherings.end(gathering)
            _dismiss(gathering)

    async def _agather(self, effect: Gather) -> EmbedRouterError | Callable[[], None] | None:
        gatherings = self._here.agatherings.get()
        entered = (gatherings.join if effect.waiting else gatherings.enter)(effect.name, effect.member)
        if entered is None:
            return None if effect.waiting else partial(gatherings.leave, effect.name)
        gathering, member = entered
        if gathering.first is member:
            task = asyncio.create_task(self._adepart(gatherings, gathering, effect.send))
            gathering.stop = task.cancel
            self._here.unfinished.add(task)
            task.add_done_callback(self._here.unfinished.discard)
        try:
            async with asyncio.timeout(effect.seconds):
                return await asyncio.wrap_future(member.told)
        except TimeoutError:
            return None
        finally:
            gatherings.withdraw(gathering, member)
            if all(other.told.cancelled() for other in gathering.members):
                gathering.stop()

    async def _adepart(
        self,
        gatherings: Gatherings[Member],
        gathering: Gathering[Member],
        send: Callable[[Sequence[Member]], Flow[None]],
    ) -> None:
        try:
            await asyncio.sleep(self._window)
            if members := gatherings.depart(gathering):
                await self.arun(send(members))
        except Exception:
            logger.exception("what was sent for several calls failed")
        finally:
            gatherings.end(gathering)
            _dismiss(gathering)

    # Side by side, twice: after the first error nobody starts anything, and what is in flight is finished and kept

    def _together(self, flows: Sequence[Flow[None]], width: int) -> EmbedRouterError | None:
        if len(flows) == 1 and threading.current_thread() is not threading.main_thread():
            try:
                self.run(flows[0])
            except EmbedRouterError as error:
                return error
            return None
        stop = threading.Event()
        waiting = iter(flows)
        errors: list[BaseException] = []

        def work() -> None:
            for flow in waiting:
                try:
                    self.run(flow, stop)
                except BaseException as error:  # noqa: BLE001 - raised below
                    errors.append(error)
                    stop.set()

        ends: list[Future[None]] = []
        try:
            for _ in range(min(width, len(flows))):
                ends.append(threads.submit(work))
            wait(ends)
        except BaseException:  # Ctrl-C, which only the main thread hears: it makes no request itself
            stop.set()
            wait(ends)  # the second Ctrl-C ends this, too; nobody waits for daemons
            raise
        return _failure(errors)

    async def _atogether(self, flows: Sequence[Flow[None]], width: int, stop: asyncio.Event) -> EmbedRouterError | None:
        if len(flows) == 1:
            try:
                await self._acarry_on(flows[0], stop)
            except EmbedRouterError as error:
                return error
            return None
        waiting = iter(flows)
        errors: list[Exception] = []

        async def work() -> None:
            for flow in waiting:
                try:
                    await self._acarry_on(flow, stop)
                except Exception as error:  # noqa: BLE001 - raised below, when the others have kept what they paid for
                    errors.append(error)
                    stop.set()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(width, len(flows))):
                group.create_task(work())
        return _failure(errors)


async def _ended(work: Future[T]) -> T:
    """Wait until a thread has done something, and return the outcome; a task that is cancelled waits, too, but once.

    Neither takes the work back, as ``asyncio.wrap_future`` would; shielding that takes the loop more turns.
    """
    loop, end = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end.set)

    work.add_done_callback(tell)
    try:
        await end.wait()
    except asyncio.CancelledError:
        await end.wait()
        raise
    return work.result()


@contextmanager
def _turn(slot: threading.BoundedSemaphore, deadline: float | None) -> Iterator[bool]:
    """Stand in line, and say whether the turn has come before the deadline."""
    come = slot.acquire(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
    try:
        yield come
    finally:
        if come:
            slot.release()


@asynccontextmanager
async def _aturn(slot: asyncio.Semaphore, deadline: float | None) -> AsyncIterator[bool]:
    come = False
    try:
        async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
            come = await slot.acquire()
    except TimeoutError:
        pass
    try:
        yield come
    finally:
        if come:
            slot.release()


def _failure(errors: Sequence[BaseException]) -> EmbedRouterError | None:
    """Return the first error for the flow to decide; one that is a bug ends everything."""
    if not errors:
        return None
    if isinstance(errors[0], EmbedRouterError):
        return errors[0]
    raise errors[0]


def _dismiss(gathering: Gathering[Member]) -> None:
    """Let those who got no share try for themselves."""
    for member in gathering.members:
        told = member.told
        if not told.done() and (told.running() or told.set_running_or_notify_cancel()):
            told.set_result(None)


def _inside_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _followed(futures: Sequence[Future[Any]], seconds: float | None) -> None:
    waiting = [asyncio.wrap_future(future) for future in futures]
    try:
        await asyncio.wait(waiting, timeout=seconds)
    finally:
        for future in waiting:  # nobody is to look for this loop, when it may be closed, to tell it of one
            future.cancel()


async def _apause(seconds: float, stop: asyncio.Event | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await (stop or asyncio.Event()).wait()
    except TimeoutError:
        pass
