"""Handle forks: the only module that does.

A fork copies only the thread that forks: in the child, a lock of another thread is never released, SQLite counts the
parent's file locks as its own, and connections are shared with the parent. An object that must act at a fork is
registered with ``watch_forks``; an object that is created anew in each child is kept in a ``PerProcess``.
"""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")


class WatchesForks(Protocol):
    """An object that acts before and after a fork."""

    def before_fork(self) -> None:
        """Close files that a child must not inherit, and acquire locks that no other thread may hold in a fork."""

    def after_fork(self, *, in_child: bool) -> None:
        """Release the locks; in the child, reset the state."""


_watching: weakref.WeakSet[WatchesForks] = weakref.WeakSet()
_forking: list[WatchesForks] = []
_one_fork = threading.Lock()
"""Held by the thread that forks: of two that fork at once, each releases its own locks."""


def watch_forks(item: WatchesForks) -> None:
    """Call ``before_fork`` and ``after_fork`` of an object at every fork, as long as the object exists."""
    _watching.add(item)


def _before_fork() -> None:
    _one_fork.acquire()
    for item in list(_watching):
        item.before_fork()
        _forking.append(item)


def _after_fork(*, in_child: bool) -> None:
    while _forking:
        _forking.pop().after_fork(in_child=in_child)
    _one_fork.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(in_child=False),
        after_in_child=lambda: _after_fork(in_child=True),
    )


LONGEST_IMPORT = 3.0
"""Seconds that a fork waits for the imports of other threads."""


class DelaysForks:
    """Delay forks while a block imports modules: a child waits for ever for a module that is half imported."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = False
        """Whether the thread that forks holds the lock."""
        watch_forks(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Wait for the imports of other threads, not for ever: they may wait for a lock that is held during forks."""
        self._held = self._lock.acquire(timeout=LONGEST_IMPORT)

    def after_fork(self, *, in_child: bool) -> None:
        """Let other threads import again."""
        if self._held:
            self._lock.release()
        elif in_child:
            self._lock = threading.RLock()


importing = DelaysForks()


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
