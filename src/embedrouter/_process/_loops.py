"""What belongs to an event loop, and what is closed in both forms."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Hold one object per event loop, created on first use.

    Pooled connections of an SDK client fail in every loop but the one that opened them. Objects of closed loops are
    dropped at each look-up. A weak dictionary would never drop such objects, because a pooled connection refers to its
    loop; ids are no keys, because ids of loops are reused.
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
        """Remove and return the running loop's object."""
        with self._lock:
            return self._made.pop(asyncio.get_running_loop(), None)


class Closeable(ABC):
    """An object with ``close`` and ``aclose``, usable in ``with`` and ``async with``."""

    @abstractmethod
    def close(self) -> None:
        """Close connections and files. Never required; a later call opens new ones."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close connections and files, including the running event loop's connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
