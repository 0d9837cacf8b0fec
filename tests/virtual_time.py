"""Clocks for ``Router(clock=time, sleep=time.sleep)``: time that a test lets pass, and time that passes fast."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

__all__ = ["FastTime", "VirtualTime"]


class VirtualTime:
    """Time that passes only where a router sleeps, or where a test sets ``now``. For one caller at a time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []
        """Every wait so far, in seconds."""

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


class FastTime:
    """Time that passes ``factor`` times as fast as the time of this machine, for threads and event loops."""

    def __init__(self, factor: float) -> None:
        self._factor = factor

    def __call__(self) -> float:
        return time.monotonic() * self._factor

    def sleep(self, seconds: float) -> Awaitable[None] | None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            time.sleep(seconds / self._factor)
            return None
        return asyncio.sleep(seconds / self._factor)
