"""Objects that belong to one process or one event loop, threads, and objects that can be closed and open again."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar

__all__ = ["Closeable", "PerLoop", "Pool", "Workers"]

IDLE = 30.0
"""Seconds without work after which a thread ends."""

BUSY, WAITING, POOLED = "embedrouter", "idle embedrouter", "pool of embedrouter"
"""Names of threads."""

T = TypeVar("T")
Work: TypeAlias = tuple[Callable[[], None], threading.Lock]


class Workers:
    """Runs functions side by side, each in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[Work | None]] = []

    def start(self, function: Callable[[], None]) -> threading.Lock:
        """Run a function, which raises nothing, in a copy of the caller's context.

        Returns:
            A lock that is held until the function has ended: waiting for it takes a third of the time of a ``Future``.

        Raises:
            RuntimeError: the system has no more threads.
        """
        context = copy_context()
        end = threading.Lock()
        end.acquire()
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name=BUSY, daemon=True).start()
        inbox.put((lambda: context.run(function), end))
        return end

    def close(self) -> None:
        """End the threads that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _serve(self, inbox: SimpleQueue[Work | None]) -> None:
        thread = threading.current_thread()
        while True:
            try:
                work = inbox.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        return
                continue  # it was given work at this very moment
            if work is None:
                return
            function, end = work
            thread.name = BUSY
            function()
            del work, function  # they hold what the caller holds
            thread.name = WAITING
            with self._lock:
                self._idle.append(inbox)
            end.release()


class Pool:
    """Runs functions in a few threads, which begin when they are needed, also after they were closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(thread_name_prefix=POOLED)
            return self._executor.submit(function, *arguments)

    def close(self) -> None:
        """End the threads, as soon as they have done what they were given."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)


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


class Closeable(ABC):
    """A context manager of both kinds, for whatever has ``close`` and ``aclose``."""

    @abstractmethod
    def close(self) -> None:
        """Release connections and files. Never required; a later call opens them again."""

    @abstractmethod
    async def aclose(self) -> None:
        """Do what ``close`` does, for the running event loop's connections too."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
