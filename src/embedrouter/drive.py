"""Performing flows: the only place that waits, and the two forms of every effect side by side.

``Driver.run`` and ``Driver.arun`` are the same loop. What differs between synchronous and asynchronous calls is what
``_perform`` and ``_aperform`` do with each effect, and nothing else.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from contextvars import copy_context
from decimal import Decimal
from typing import Any, TypeVar, assert_never

from . import tokens
from .backend import Backend
from .budget import Budget
from .cache.vectors import VectorCache
from .effects import (
    Afford,
    Allowance,
    Call,
    Count,
    Cut,
    Effect,
    Flow,
    Pause,
    Read,
    Reserve,
    Settle,
    Together,
    Write,
)
from .errors import EmbedRouterError
from .ledger import Ledger
from .loops import PerLoop
from .types import Candidate

__all__ = ["Driver"]

T = TypeVar("T")


class Driver:
    """Performs the effects of one router's flows."""

    def __init__(
        self,
        backends: Sequence[Backend],
        candidates: Sequence[Candidate],
        cache: VectorCache,
        ledger: Ledger,
        budget: Budget,
    ) -> None:
        self._backends = backends
        self._cache = cache
        self._ledger = ledger
        self._budget = budget
        self._sent: set[int] = set()
        """Reservations whose request went out and is not settled yet."""
        self._slots = [threading.BoundedSemaphore(candidate.concurrency) for candidate in candidates]
        self._aslots = PerLoop(lambda: [asyncio.Semaphore(candidate.concurrency) for candidate in candidates])

    # The loop, twice

    def run(self, flow: Flow[T], stop: threading.Event | None = None) -> T | None:
        """Run a flow to its end and return its result; ``None`` when ``stop`` was set before it got there."""
        with closing(flow):
            outcome: Any = None
            while True:
                try:
                    effect = flow.send(outcome)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                if stop is not None and stop.is_set() and isinstance(effect, Reserve | Pause):
                    return None
                outcome = self._perform(effect, stop)

    async def arun(self, flow: Flow[T], stop: asyncio.Event | None = None) -> T | None:
        """Run a flow to its end and return its result; ``None`` when ``stop`` was set before it got there."""
        with closing(flow):
            outcome: Any = None
            while True:
                try:
                    effect = flow.send(outcome)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
                if stop is not None and stop.is_set() and isinstance(effect, Reserve | Pause):
                    return None
                outcome = await self._aperform(effect, stop)

    # Every effect, twice

    def _perform(self, effect: Effect, stop: threading.Event | None) -> Any:
        match effect:
            case Call(candidate, texts, input_type, timeout, reservation):
                backend = self._backends[candidate.index]
                with self._slots[candidate.index]:
                    self._sent.add(reservation)
                    try:
                        return backend.embed(texts, input_type, timeout=timeout)
                    except EmbedRouterError as error:
                        return error
            case Read(keys, dimensions):
                return self._cache.read(keys, dimensions)
            case Write(entries):
                return self._cache.write(entries)
            case Count(candidate, texts, input_type):
                return self._backends[candidate.index].count(texts, input_type)
            case Cut():
                return self._cut(effect)
            case Allowance(candidate):
                return self._ledger.free_tokens(candidate.name, candidate.free_tokens)
            case Afford(amount):
                return self._ledger.refusal(self._budget, amount)
            case Reserve(spending):
                return self._ledger.reserve(self._budget, spending)
            case Settle():
                return self._settle(effect)
            case Pause(seconds):
                return (stop or threading.Event()).wait(seconds)
            case Together(flows, width):
                return self._together(flows, width)
            case _:
                assert_never(effect)

    async def _aperform(self, effect: Effect, stop: asyncio.Event | None) -> Any:
        match effect:
            case Call(candidate, texts, input_type, timeout, reservation):
                backend = self._backends[candidate.index]
                async with self._aslots.get()[candidate.index]:
                    self._sent.add(reservation)
                    try:
                        return await backend.aembed(texts, input_type, timeout=timeout)
                    except EmbedRouterError as error:
                        return error
            case Read() | Write() if self._cache.store is None:
                return self._perform(effect, None)
            case Read() | Write() | Count() | Cut() | Allowance() | Afford() | Reserve() | Settle():  # in a thread
                return await asyncio.to_thread(self._perform, effect, None)
            case Pause(seconds):
                return await _apause(seconds, stop)
            case Together(flows, width):
                return await self._atogether(flows, width)
            case _:
                assert_never(effect)

    def abandon(self, reservation: int) -> None:
        """Book a reservation whose flow was closed: a request that went out may have been billed, others were not."""
        if reservation in self._sent:
            self._ledger.suspect(reservation)
        else:
            self._ledger.release(reservation)
        self._sent.discard(reservation)

    def _settle(self, effect: Settle) -> Decimal | None:
        self._sent.discard(effect.reservation)
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

    # Side by side, twice: after the first error nobody starts anything, and what is in flight is finished and kept

    def _together(self, flows: Sequence[Flow[None]], width: int) -> None:
        stop = threading.Event()

        def work(flow: Flow[None]) -> None:
            try:
                self.run(flow, stop)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(min(width, len(flows)), "embedrouter") as pool:
            futures = [pool.submit(copy_context().run, work, flow) for flow in flows]
            try:
                wait(futures)
            except BaseException:  # Ctrl-C
                stop.set()
                raise
        for future in futures:
            future.result()

    async def _atogether(self, flows: Sequence[Flow[None]], width: int) -> None:
        stop = asyncio.Event()
        waiting = iter(flows)
        errors: list[Exception] = []

        async def work() -> None:
            for flow in waiting:
                try:
                    await self.arun(flow, stop)
                except Exception as error:  # noqa: BLE001 - raised below, when the others have kept what they paid for
                    errors.append(error)
                    stop.set()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(width, len(flows))):
                group.create_task(work())
        if errors:
            raise errors[0]


async def _apause(seconds: float, stop: asyncio.Event | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await (stop or asyncio.Event()).wait()
    except TimeoutError:
        pass
