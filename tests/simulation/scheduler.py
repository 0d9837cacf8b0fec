"""Tasks of a history, stepped one at a time, in virtual time.

A task is a coroutine: a thread or an asyncio task of one simulated process. It suspends itself until a time or until
something is true, and time goes on only when no task is ready. Which of the ready tasks goes on is a decision.
"""

from __future__ import annotations

import types
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .plan import Caller
    from .world import Process

__all__ = ["Cancelled", "Interrupt", "Killed", "Loop", "Task", "Violation", "finished", "suspend"]

Suspension: TypeAlias = "tuple[float | None, Callable[[], bool] | None]"
Cancelled = CancelledError


class Killed(BaseException):
    """The process is killed: none of its code runs any more."""


class Interrupt(KeyboardInterrupt):
    """Ctrl-C in the simulated main thread; a real one ends the simulation."""


class Violation(BaseException):
    """An invariant does not hold. No ``Exception``, which a stage may catch."""

    def __init__(self, invariant: str, story: str) -> None:
        super().__init__(f"{invariant}: {story}")
        self.invariant, self.story = invariant, story


class Loop:
    """An event loop of a process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.blocked_by: Task | None = None
        """The task that makes a synchronous call inside the loop."""
        self.blocked_for = 0.0
        """Seconds so far."""
        self.ended = False
        self.ending: list[Task] | None = None
        """Tasks that were cancelled at the end of the loop, which waits for them."""


class Task:
    """A thread or an asyncio task."""

    def __init__(
        self,
        name: str,
        coroutine: Coroutine[Any, Any, Any],
        process: Process | None,
        loop: Loop | None = None,
        condition: Callable[[], bool] | None = None,
    ) -> None:
        self.name, self.coroutine, self.process, self.loop = name, coroutine, process, loop
        self.until: float | None = 0.0 if condition is None else None
        self.condition = condition
        self.caller: Caller | None = None
        """Where it is a caller's own thread or task."""
        self.inner: Coroutine[Any, Any, Any] | None = None
        """What it will await, and what is closed with it before."""
        self.children = 0
        self.admitted, self.admitted_at = 0, 0.0
        """The number of effects, and the time, when its last request was admitted."""
        self.main = False
        """Whether it is the main thread, the one that Ctrl-C interrupts."""
        self.begun = self.done = False
        self.thrown: BaseException | None = None
        self.value: Any = None
        self.error: BaseException | None = None

    def is_ready(self, now: float) -> bool:
        loop, until = self.loop, self.until
        if loop is not None and loop.blocked_by is not None and loop.blocked_by is not self:
            return False
        if (until is not None and until <= now) or self.thrown is not None:
            return True
        return self.condition is not None and self.condition()

    @property
    def may_be_stopped(self) -> bool:
        """Whether it is a caller that can be cancelled or interrupted."""
        if self.loop is not None and self.loop.blocked_by is not None:
            return False
        return self.begun and self.caller is not None and (self.main or self.loop is not None)

    def throw(self, error: BaseException) -> None:
        """Raise an error where the task is suspended, at its next step."""
        if not self.done:
            self.thrown = error

    def cancel_unbegun(self) -> bool:
        """Drop a task that has not begun, as ``Future.cancel`` does; return whether it had not."""
        if self.begun or self.done:
            return False
        self.close()
        return True

    def close(self) -> None:
        """End the task where it is suspended."""
        self.done, self.error = True, Cancelled()
        self.coroutine.close()
        if self.inner is not None and not self.begun:
            self.inner.close()

    def result(self) -> Any:
        assert self.done
        if self.error is not None:
            raise self.error
        return self.value

    def step(self) -> None:
        """Run the task until it suspends itself or ends."""
        thrown, self.thrown = self.thrown, None
        try:
            self.begun = True
            if thrown is None:
                self.until, self.condition = self.coroutine.send(None)
            else:
                self.until, self.condition = self.coroutine.throw(thrown)
        except StopIteration as end:
            self.done, self.value = True, end.value
        except (Killed, Violation):
            raise
        except BaseException as error:
            if type(error) is KeyboardInterrupt:
                raise
            self.done, self.error = True, error


@types.coroutine
def suspend(
    until: float | None = 0.0, condition: Callable[[], bool] | None = None
) -> Generator[Suspension, None, None]:
    """Let other tasks go on until a time, or until something is true."""
    yield until, condition


async def finished(*tasks: Task) -> None:
    """Wait for the end of tasks."""
    await suspend(None, lambda: all(task.done for task in tasks))
