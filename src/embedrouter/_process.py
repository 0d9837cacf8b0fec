"""Manage state that belongs to one process or one event loop: forks, loop-local objects, the thread pool.

A fork copies only the thread that forks: in the child, a lock of another thread is never released, SQLite counts the
parent's file locks as its own, and connections are shared with the parent. This module is the only one that handles
forks. An object that must act at a fork is registered with ``watch_forks``; an object that is created anew in each
child is kept in a ``PerProcess``.

All threads of the package come from one pool, ``threads``; a ``Lane`` limits how many threads one kind of work takes.
An event loop's default executor is never used: a program whose own tools wait in that executor for an embedding would
deadlock. ``Lock`` and ``Future`` are those of the standard library; the core imports both from this module, so that
import contracts can forbid ``threading``.

Daemon threads go on while the interpreter ends. An object that another thread must not use any more when Python frees
what is left is registered with ``watch_end``.
"""

import asyncio
import atexit
import os
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar, copy_context
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Generic, ParamSpec, Protocol, Self, TypeVar

from .errors import OutOfThreadsError

__all__ = [
    "Closeable",
    "Future",
    "Lane",
    "Lock",
    "PerLoop",
    "PerProcess",
    "ThreadPool",
    "at_worker_exit",
    "in_thread",
    "is_barred",
    "is_daemon_process",
    "threads",
    "watch_end",
    "watch_forks",
]

T = TypeVar("T")
P = ParamSpec("P")


# Forks


class WatchesForks(Protocol):
    """An object that acts before and after a fork."""

    def before_fork(self) -> None:
        """Close files that a child must not inherit, and acquire locks that no other thread may hold in a fork."""

    def after_fork(self, *, in_child: bool) -> None:
        """Release the locks; in the child, reset the state."""


_watching: weakref.WeakSet[WatchesForks] = weakref.WeakSet()
_forking: list[WatchesForks] = []


def watch_forks(item: WatchesForks) -> None:
    """Call ``before_fork`` and ``after_fork`` of an object at every fork, as long as the object exists."""
    _watching.add(item)


def _before_fork() -> None:
    for item in list(_watching):
        item.before_fork()
        _forking.append(item)


def _after_fork(*, in_child: bool) -> None:
    while _forking:
        _forking.pop().after_fork(in_child=in_child)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(in_child=False),
        after_in_child=lambda: _after_fork(in_child=True),
    )


class PerProcess(Generic[T]):
    """Hold one object per process; a forked child creates a new object on first use."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: T | None = None
        watch_forks(self)

    def get(self) -> T:
        """Return this process's object."""
        if self._made is None:
            with self._lock:
                self._made = self._make() if self._made is None else self._made
        return self._made

    def before_fork(self) -> None:
        """Do nothing: the parent keeps its object."""

    def after_fork(self, *, in_child: bool) -> None:
        """Forget the parent's object in a child."""
        if in_child:
            self._lock, self._made = threading.Lock(), None


# The end of the interpreter

LAST_WAIT = 1.0
"""Seconds that the end of the interpreter waits for threads that are at work."""


class WatchesEnd(Protocol):
    """An object that acts when the interpreter ends."""

    def at_end(self, deadline: float) -> None:
        """Close what another thread must not use any more, at the latest at ``deadline`` of ``time.monotonic``."""


_watching_end: weakref.WeakSet[WatchesEnd] = weakref.WeakSet()
_ended = False
_may_go_on: ContextVar[bool] = ContextVar("may_go_on", default=False)
"""Set in the thread that ends the interpreter, and in the threads that work for it: other exit functions may follow."""


def watch_end(item: WatchesEnd) -> None:
    """Call ``at_end`` of an object when the interpreter ends, as long as the object exists."""
    _watching_end.add(item)


def is_barred() -> bool:
    """Return whether the interpreter ends and the calling thread is one that goes on all the same: it must wait."""
    return _ended and not _may_go_on.get()


@atexit.register
def _at_end() -> None:
    global _ended
    _ended = True
    _may_go_on.set(True)
    deadline = time.monotonic() + LAST_WAIT
    for item in list(_watching_end):
        item.at_end(deadline)


# Worker processes: multiprocessing is looked up, not imported, because the package starts no process itself


def at_worker_exit(function: Callable[[], object]) -> None:
    """Call a function at the end of this process if ``multiprocessing`` started the process.

    Such a process, where it was forked, skips ``atexit``.
    """
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, function, exitpriority=0)


def is_daemon_process() -> bool:
    """Return whether this process is a daemon of ``multiprocessing``, as in its pools: a signal ends such a process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(process.current_process().daemon)


# Event loops


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


# Threads


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


# Closing


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
