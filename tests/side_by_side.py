"""Calls in several threads, for tests of what happens between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from embedrouter.errors import EmbedRouterError

__all__ = ["HANG", "at_once", "until"]

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
