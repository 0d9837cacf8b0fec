"""Things that belong to one event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One object for each running event loop, made when it is first asked for.

    An SDK client's pooled connections belong to the loop that opened them; used from another they fail. Entries of
    closed loops are dropped at each look-up: a weak dictionary would never let go, because a pooled connection refers
    to its loop, and ids of loops are used again.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self) -> T:
        """Return the running loop's object."""
        loop = asyncio.get_running_loop()
        made = self._made.get(loop)
        if made is None:
            with self._lock:
                self._made = {other: kept for other, kept in self._made.items() if not other.is_closed()}
                made = self._made[loop] = self._make()
        return made

    def pop(self) -> T | None:
        """Forget the running loop's object and return it."""
        with self._lock:
            return self._made.pop(asyncio.get_running_loop(), None)
