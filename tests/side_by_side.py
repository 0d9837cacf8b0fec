"""Calls in several threads, for tests of what happens between them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

from embedrouter.errors import EmbedRouterError

__all__ = ["HANG", "Watch", "at_once", "auntil", "caller", "until"]

HANG = 30.0
"""Seconds after which a test has failed."""


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """Run calls in a thread each, begun together, and return what they return or raise."""
    calls = list(calls)
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(HANG)
        try:
            return call()
        except EmbedRouterError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(HANG) for future in [pool.submit(run, call) for call in calls]]


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


async def auntil(true: Callable[[], bool]) -> None:
    """Wait until something is true, while the event loop turns."""
    deadline = time.monotonic() + HANG
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


caller: ContextVar[str] = ContextVar("caller", default="")
"""The name of a call, which reaches its threads and tasks."""


class Watch:
    """A clock that counts how often each call has asked it the time: ``Router(…, clock=watch)``.

    A call that begins to wait for another one, or for its turn, asks the time at that moment; one with a time limit
    asks when it begins, too.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            self.asked[caller.get()] += 1
        return time.monotonic()
