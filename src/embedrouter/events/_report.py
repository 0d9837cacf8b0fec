"""Report events: the one place that logs them and hands them to ``on_event``.

An event is logged where it happens, in the caller's thread, as ``logging`` is used everywhere. ``on_event`` runs in a
thread of the package, one event at a time, in order and in the context of the event's call, so that it blocks no event
loop. A call ends when its events are received, or after ``PATIENCE``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from decimal import Decimal
from threading import get_ident
from time import monotonic
from typing import Any, ParamSpec, cast

from .._display import get_logger
from .._process import Lane, PerProcess, threads, watch_end
from ..errors import OutOfThreadsError
from ._kinds import Event, shown

P = ParamSpec("P")

LINES, SECONDS = 10, 60.0
"""Lines of one kind and model in so many seconds; the next line says how many were left out. DEBUG has all of them."""
PATIENCE = 0.25
"""Seconds that the end of a call waits for ``on_event``; calls wait no more until it has caught up."""
LAST_WAIT = 0.5
"""The same for ``close``, and for the end of the process."""
MOST_WAITING = 10_000
"""Events that wait for ``on_event``; further ones are dropped."""

own_logger = get_logger("embedrouter.events")


class _State:
    """What belongs to one process."""

    def __init__(self) -> None:
        self.lane = Lane(threads, 1)
        self.last: Future[None] | None = None
        """The event that was handed over last."""
        self.late: Future[None] | None = None
        """An event for which a call has waited in vain."""
        self.receiver = 0
        """The thread in which ``on_event`` runs."""
        self.lines: dict[tuple[type[Event], str], tuple[float, int]] = {}
        """When a minute began, and how many lines it had."""
        self.complained: set[str] = set()


class Events:
    """Reports the events of one router.

    Args:
        on_event: receives each event; ``None`` leaves them to the log.
        clock: seconds, monotonic, for the minutes of the log.
    """

    def __init__(
        self, on_event: Callable[[Event], object] | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self._on_event, self._clock = on_event, clock
        self._state = PerProcess(_State)
        if on_event is not None:
            watch_end(self)

    def wanted(self, kind: type[Event]) -> bool:
        """Return whether events of a kind are received or logged."""
        return self._on_event is not None or kind.logger.isEnabledFor(kind.level)

    def emit(self, kind: Callable[P, Event], /, *args: P.args, **facts: P.kwargs) -> None:
        """Make and report an event, if it is wanted."""
        if self.wanted(cast(type[Event], kind)):
            self.report(kind(*args, **facts))

    def report(self, event: Event) -> None:
        """Log an event, and hand it to ``on_event``. Raises nothing."""
        with suppress(Exception):  # of a handler or a filter of the user's: an answer may be paid for
            self._log(event)
        if self._on_event is not None:
            self._hand_over(event, self._on_event)

    async def received(self, wait_for: Callable[[Sequence[Future[Any]], float], Awaitable[None]]) -> None:
        """Wait until ``on_event`` has received all events so far, at most ``PATIENCE``, and not where it is late."""
        state = self._state.get()
        last, late = state.last, state.late
        if last is None or last.done() or state.receiver == get_ident() or (late is not None and not late.done()):
            return
        await wait_for([last], PATIENCE)
        state.late = None if last.done() else last

    def finish(self, seconds: float = LAST_WAIT) -> None:
        """Wait until ``on_event`` has received all events so far, at most ``seconds``."""
        state = self._state.get()
        if state.last is not None and state.receiver != get_ident():
            wait([state.last], seconds)

    def at_end(self, deadline: float) -> None:
        """Do the same when the interpreter ends."""
        self.finish(min(LAST_WAIT, deadline - monotonic()))

    # The log

    def _log(self, event: Event) -> None:
        if not event.logger.isEnabledFor(event.level):
            return
        kind, left_out = type(event), 0
        if event.level > logging.DEBUG:
            lines, key, now = self._state.get().lines, (kind, event.model), self._clock()
            began, count = lines.get(key, (now, 0))
            if now - began >= SECONDS:
                began, count, left_out = now, 0, max(0, count - LINES)
            lines[key] = began, count + 1
            if count >= LINES:
                return
        facts = event.facts()
        extra = {f"embedrouter_{name}": _plain(value) for name, value in facts.items()}
        extra |= {"embedrouter_event": kind.__name__, "embedrouter_left_out": left_out}
        message = f"{event.message} (%(left_out)d more of these were left out)" if left_out else event.message
        said = {name: shown(value) for name, value in facts.items()}
        event.logger.log(event.level, message, said | {"left_out": left_out}, extra=extra)

    # on_event

    def _hand_over(self, event: Event, on_event: Callable[[Event], object]) -> None:
        state = self._state.get()
        if state.lane.waiting >= MOST_WAITING:
            self._complain("on_event is too slow: %s events wait for it, and further ones are dropped", MOST_WAITING)
            return
        try:
            state.last = state.lane.submit(self._receive, event, on_event)
        except OutOfThreadsError:
            self._receive(event, on_event)

    def _receive(self, event: Event, on_event: Callable[[Event], object]) -> None:
        state = self._state.get()
        state.receiver = get_ident()
        try:
            on_event(event)
        except Exception as error:  # noqa: BLE001 - a function of the user's breaks no call
            self._complain("on_event raised %s; its further errors are not logged", type(error).__name__, error)
        finally:
            state.receiver = 0

    def _complain(self, message: str, value: object, error: Exception | None = None) -> None:
        """Log what is wrong with ``on_event``, once in a process."""
        complained = self._state.get().complained
        if message not in complained:
            complained.add(message)
            own_logger.error(message, value, exc_info=error)


def _plain(value: object) -> object:
    """Return a value that every formatter can write: an amount is a number of dollars."""
    return float(value) if isinstance(value, Decimal) else value if value is None else shown(value)
