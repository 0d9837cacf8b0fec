"""What the stages of a call may ask of the world, in one of two forms.

The stages are coroutines. They wait only in the seven methods of ``Effects``, so both forms of a call are the same
program: in the synchronous form (``_sync``) the methods block and never suspend, in the asynchronous form (``_async``)
they await.

A call can be stopped at any moment, by Ctrl-C or by cancelling its task. Requests that are out are then finished, kept
in the cache and booked; nothing new is begun, because ``check``, ``sleep`` and ``wait_for`` raise ``Stopped``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from .._process import Future
from ..models import Backend
from ..types import Answer, InputType

__all__ = ["Effects", "Running", "Stopped"]

T = TypeVar("T")
P = ParamSpec("P")

Running: TypeAlias = Coroutine[Any, Any, T]
"""A stage that was called and has not run yet. What it yields is between the event loop and its futures."""


class Stopped(BaseException):
    """The call was stopped; nothing new may begin. Not an ``Exception``, so that no handler takes it for a failure."""


class Effects(Protocol):
    """One form of waiting, for one call."""

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        """Run a function that reads or writes files, or computes for long: never on an event loop."""
        ...

    async def request(self, backend: Backend, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        """Make one request to a model."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: the call was stopped, before or meanwhile.
        """

    async def wait_for(self, futures: Sequence[Future[Any]], seconds: float | None) -> None:
        """Wait until all futures are done, at most so many seconds.

        Raises:
            Stopped: the call was stopped, before or meanwhile.
        """

    async def run_concurrently(self, stages: Sequence[Running[T]], width: int) -> list[T]:
        """Run stages side by side, ``width`` at once, and return their results in order.

        Raises:
            Exception: the first error. The other stages have then finished what was in flight, and begun nothing.
        """
        ...

    async def run_until_stopped(self, stage: Running[T]) -> T:
        """Run a stage that spends money: when its caller is cancelled it is stopped, and ends in the background."""
        ...

    def start(self, stage: Running[None]) -> None:
        """Run a stage in the background."""

    # The form itself

    @property
    def group(self) -> Hashable:
        """What calls must have in common to be sent as one; ``None`` for a call that must not wait for others."""
        ...

    def detached(self) -> Effects:
        """Return effects of the same form for work on behalf of several callers, which no single caller stops."""
        ...

    def check(self) -> None:
        """Raise ``Stopped`` if the call was stopped."""

    def stop(self) -> None:
        """Stop what runs with these effects."""
