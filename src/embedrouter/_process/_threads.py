"""The one pool of threads.

A ``Lane`` limits how many threads one kind of work takes. An event loop's default executor is never used: a program
whose own tools wait in that executor for an embedding would deadlock.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import ParamSpec, TypeVar

from ..errors import OutOfThreadsError
from ._forks import PerProcess

T = TypeVar("T")
P = ParamSpec("P")


class ThreadPool:
    """Run functions in reused daemon threads, each function in a copy of the caller's context.

    A thread is started for each function that finds no idle thread, so functions may wait for each other. The threads
    are daemons: after a second Ctrl-C the interpreter does not wait for daemon threads, but would for those of
    ``ThreadPoolExecutor``.

    Attributes:
        idle: seconds without work after which a thread ends.
    """

    def __init__(self, idle: float = 30.0) -> None:
        self.idle = idle
        self._idle: PerProcess[list[SimpleQueue[Callable[[], object]]]] = PerProcess(list)
        """The inboxes of the threads without work. Lists are changed by single, atomic operations."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> Future[T]:
        """Run a function in a thread.

        Raises:
            OutOfThreadsError: the system has no more threads.
        """
        future, work = _task(function, *args, **settings)
        self.run(work)
        return future

    def run(self, work: Callable[[], object]) -> None:
        """Run work, which raises nothing, in a thread.

        Raises:
            OutOfThreadsError: the system has no more threads.
        """
        try:
            inbox = self._idle.get().pop()
        except IndexError:
            inbox = SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(inbox,), name="embedrouter", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise OutOfThreadsError(
                    f"The system started no thread ({error}). End threads or programs, or raise the limit: ulimit -u."
                ) from error
        inbox.put(work)

    def _serve(self, inbox: SimpleQueue[Callable[[], object]]) -> None:
        while True:
            try:
                work = inbox.get(timeout=self.idle)
            except Empty:
                with suppress(ValueError):  # work arrived after the timeout
                    self._idle.get().remove(inbox)
                    return
                continue
            work()
            del work  # frees the function's arguments
            self._idle.get().append(inbox)


class Lane:
    """Run functions in threads of a pool, at most ``most`` at a time; the others wait in order.

    Functions of one lane must not wait for each other.
    """

    def __init__(self, pool: ThreadPool, most: int) -> None:
        self._pool, self._most = pool, most
        self._lock = threading.Lock()
        self._busy = 0
        """Threads that run functions of this lane."""
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        """The number of functions that have not begun."""
        return len(self._waiting)

    def submit(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> Future[T]:
        """Run a function in a thread, in a copy of the caller's context.

        Raises:
            OutOfThreadsError: the system has no more threads, and the lane has none.
        """
        future, work = _task(function, *args, **settings)
        with self._lock:
            self._waiting.append(work)
            if self._busy >= self._most:
                return future
            self._busy += 1
        try:
            self._pool.run(self._serve)
        except BaseException as error:  # Ctrl-C, too
            with self._lock:
                self._busy -= 1
                taken = work not in self._waiting
                if isinstance(error, OutOfThreadsError) and (self._busy or taken):
                    return future
                if not taken:
                    self._waiting.remove(work)
            raise
        return future

    def _serve(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._busy -= 1
                    return
                work = self._waiting.popleft()
            work()
            del work  # frees the function's arguments


def _task(function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> tuple[Future[T], Callable[[], None]]:
    """Return the future of a function, and what runs the function in a copy of the caller's context."""
    context = copy_context()
    future: Future[T] = Future()

    def work() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            outcome = context.run(function, *args, **settings)
        except BaseException as error:  # noqa: BLE001 - the future passes the error on
            future.set_exception(error)
        else:
            future.set_result(outcome)

    return future, work


threads = ThreadPool()
"""The one pool of the process."""


async def in_thread(function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
    """Run a blocking function in a thread of the pool. Cancelling the task does not stop the function."""
    return await asyncio.wrap_future(threads.submit(function, *args, **settings))
