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
from dataclasses import dataclass
from decimal import Decimal
from threading import get_ident
from time import monotonic
from typing import Any, ParamSpec, cast

from .._display import counted, get_logger
from .._process import Lane, PerProcess, threads, watch_end
from ..errors import OutOfThreadsError
from ..types import dollars
from ._calls import CallBilled, CallEnded
from ._event import Event, shown
from ._summary import summarise_if_asked
from ._watch import tell, watchers

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


@dataclass(slots=True)
class _Minute:
    """The lines of one kind and model."""

    began: float
    lines: int = 0
    left_out: int = 0
    texts: int = 0
    """Of calls that cost money and were left out."""
    cost: Decimal = Decimal(0)

    def skip(self, event: Event) -> None:
        """Count an event that is not logged."""
        self.left_out += 1
        if isinstance(event, CallEnded):
            self.texts, self.cost = self.texts + event.texts, self.cost + event.cost

    @property
    def spent(self) -> str:
        """What the calls that were left out have cost."""
        return f": {counted(self.texts, 'text')}, {dollars(self.cost)}" if self.texts else ""


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
        self.minutes: dict[tuple[type[Event], str], _Minute] = {}
        """The last minute of each kind and model."""
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
        summarise_if_asked()
        self._state = PerProcess(_State)
        if on_event is not None:
            watch_end(self)

    def wanted(self, kind: type[Event]) -> bool:
        """Return whether events of a kind are received, watched or logged."""
        return self._on_event is not None or bool(watchers) or kind.logger.isEnabledFor(kind.level)

    def emit(self, kind: Callable[P, Event], /, *args: P.args, **facts: P.kwargs) -> None:
        """Make and report an event, if it is wanted."""
        if self.wanted(cast(type[Event], kind)):
            self.report(kind(*args, **facts))

    def report(self, event: Event) -> None:
        """Log an event, and hand it to watchers and to ``on_event``. Raises nothing."""
        with suppress(Exception):  # of a handler or a filter of the user's: an answer may be paid for
            self._log(event)
        if watchers:
            tell(event)
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
        """Log what is left, and wait until ``on_event`` has received all events so far, at most ``seconds``."""
        with suppress(Exception):
            self._log_left_out()
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
        kind, before = type(event), _Minute(0)
        if event.level > logging.DEBUG:
            minutes, key, now = self._state.get().minutes, (kind, event.model), self._clock()
            minute = minutes.setdefault(key, _Minute(now))
            if now - minute.began >= SECONDS:
                before, minute = minute, _Minute(now)
                minutes[key] = minute
            minute.lines += 1
            if minute.lines > LINES:
                minute.skip(event)
                if kind is CallBilled:
                    watch_end(self)
                return
        facts = event.facts()
        extra = {f"embedrouter_{name}": _plain(value) for name, value in facts.items()}
        extra |= {"embedrouter_event": kind.__name__, "embedrouter_left_out": before.left_out}
        more = f"{event.message} (%(left_out)d more of these were left out%(spent)s)"
        message = more if before.left_out else event.message
        said = event.said() | {"left_out": before.left_out, "spent": before.spent}
        event.logger.log(event.level, message, said, extra=extra)

    def _log_left_out(self) -> None:
        """Log what calls have cost whose lines were left out: no later line may say so."""
        minutes = self._state.get().minutes
        for (kind, model), minute in list(minutes.items()):
            if minute.texts:
                del minutes[kind, model]
                said = {"model": shown(model), "left_out": minute.left_out, "spent": minute.spent}
                kind.logger.log(kind.level, "%(model)s: %(left_out)d more calls%(spent)s", said)

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
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value if value is None else shown(value)
