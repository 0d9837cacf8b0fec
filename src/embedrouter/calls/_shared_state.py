"""Ask the server on which workers share state, for a bounded time, and go on without it while it does not answer.

A question runs in a thread, so that a server that is stalled holds no call longer than ``PATIENCE``. After a failure
the server is not asked for ``PAUSE`` seconds; then one question finds out whether it answers again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from typing import Any, Generic, Literal, ParamSpec, TypeVar

from .._process import Future, Lane, Lock, threads, watch_end
from ..errors import OutOfThreadsError
from ..events import Events, SharedStateFailed
from ._effects import Effects

T = TypeVar("T")
P = ParamSpec("P")

PATIENCE, FIRST = 2.0, 5.0
"""Seconds that a call waits for an answer, and for the first one: a client is imported, and connections are opened."""
PAUSE = 3.0
"""Seconds without a question after a failure."""
MOST_ASKING = 32
"""Questions at once."""


class Asked(Generic[T]):
    """An answer of the server."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


class SharedState:
    """One use of the shared state, in one process.

    Args:
        what: is shared.
        consequence: of going on without it, for messages.
        place: where the server is, for messages.
    """

    def __init__(self, events: Events, what: Literal["limits", "claims"], consequence: str, place: str) -> None:
        self._what: Literal["limits", "claims"] = what
        self._events, self._consequence, self._place = events, consequence, place
        self._lane = Lane(threads, MOST_ASKING)
        self._lock = Lock()
        self._answered = self._failed = False
        self._silent_until = 0.0
        self._started: set[Future[Any]] = set()
        watch_end(self)

    async def ask(
        self, effects: Effects, within: float, function: Callable[P, T], *args: P.args, **settings: P.kwargs
    ) -> Asked[T] | None:
        """Return what a function answers; ``None`` where the server does not, or was not asked.

        Args:
            within: seconds that the call may wait; it waits no longer than ``PATIENCE``.

        Raises:
            Stopped: the call was stopped; the function may have run all the same.
        """
        effects.check()
        if not self._may_ask():
            return None
        try:
            future = self._lane.submit(self._attempt, partial(function, *args, **settings))
        except OutOfThreadsError:
            return None
        patience = PATIENCE if self._answered or self._failed else FIRST
        try:
            await effects.wait_for([future], max(0.0, min(within, patience)))
        finally:
            late = not future.done()
            if late:
                future.cancel()
        if late:
            if within >= patience:
                self._fail(f"no answer in {patience:g} s")
            return None
        return future.result()

    def start(self, function: Callable[P, object], *args: P.args, **settings: P.kwargs) -> None:
        """Run a function in the background, and not while the server does not answer. Raises nothing."""
        if time.monotonic() < self._silent_until:
            return
        try:
            future = self._lane.submit(self._attempt, partial(function, *args, **settings))
        except OutOfThreadsError:
            return
        self._started.add(future)
        future.add_done_callback(self._started.discard)

    def finish(self, seconds: float = PATIENCE) -> None:
        """Wait for what was started, at most so many seconds."""
        wait(list(self._started), max(0.0, seconds))

    def at_end(self, deadline: float) -> None:
        """Do the same when the interpreter ends: other processes need not wait for leases to end."""
        self.finish(deadline - time.monotonic())

    def _attempt(self, function: Callable[[], T]) -> Asked[T] | None:
        try:
            answer = Asked(function())
        except Exception as error:  # noqa: BLE001 - a client of the user's may raise errors of its own
            self._fail(str(error) or type(error).__name__)
            return None
        with self._lock:
            self._answered, self._failed, self._silent_until = True, False, 0.0
        return answer

    def _may_ask(self) -> bool:
        """Return whether to ask; after a failure one question goes first."""
        with self._lock:
            now = time.monotonic()
            if now < self._silent_until:
                return False
            if self._failed:
                self._silent_until = now + PAUSE
            return True

    def _fail(self, reason: str) -> None:
        with self._lock:
            first, self._failed = not self._failed, True
            self._silent_until = time.monotonic() + PAUSE
        if first:
            self._events.emit(
                SharedStateFailed,
                what=self._what,
                place=self._place,
                reason=reason,
                consequence=self._consequence,
            )
