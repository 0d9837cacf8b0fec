"""Define the effects: the only methods in which the stages of a call wait.

Stages are coroutines that wait only in the six coroutines of ``Effects``, so both forms of a call are the same program:
in the synchronous form (``_sync``) these block and never suspend, in the asynchronous form (``_async``) they await.

A call can be stopped at any moment, by Ctrl-C or by cancelling its task. Requests in flight are then finished, stored
in the cache and booked; no request is started, because ``check``, ``sleep`` and ``wait_for`` raise ``Stopped``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar

from .._process import Future
from ..models import Backend
from ..types import Answer, InputType

T = TypeVar("T")
P = ParamSpec("P")

Running: TypeAlias = Coroutine[Any, Any, T]
"""The coroutine of a stage, before its first step. Yielded values are for the event loop only."""


class Stopped(BaseException):
    """The call was stopped: no request may start. Not an ``Exception``, so that no error handler catches it."""


def in_order(results: Mapping[int, T], errors: Sequence[BaseException], number: int) -> list[T]:
    """Return the results of stages that ran concurrently, by their places.

    Raises:
        BaseException: the first error of a stage.
        Stopped: nothing has failed, and a stage was not run.
    """
    if errors:
        raise next((error for error in errors if not isinstance(error, Stopped)), errors[0])
    if len(results) < number:
        raise Stopped
    return [results[place] for place in range(number)]


class Effects(Protocol):
    """The effects of one call, in one form."""

    async def run_blocking(self, function: Callable[P, T], /, *args: P.args, **settings: P.kwargs) -> T:
        """Run a function that uses files or computes for long, never on an event loop."""
        ...

    async def request(self, backend: Backend, texts: Sequence[str], input_type: InputType, timeout: float) -> Answer:
        """Make one request to a model."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait ``seconds``.

        Raises:
            Stopped: the call was stopped before or during the wait.
        """

    async def wait_for(self, futures: Sequence[Future[Any]], seconds: float | None) -> None:
        """Wait until all futures are done, at most ``seconds``.

        Raises:
            Stopped: the call was stopped before or during the wait.
        """

    async def run_concurrently(self, stages: Sequence[Running[T]], width: int) -> list[T]:
        """Run stages concurrently, at most ``width`` at a time, and return their results in order.

        Raises:
            Exception: the first error. The other stages have finished their requests in flight, and started no more.
        """
        ...

    async def run_until_stopped(self, stage: Running[T]) -> T:
        """Run a stage that spends money. If the caller is cancelled, the stage stops and ends in the background."""
        ...

    def start(self, stage: Running[None]) -> None:
        """Run a stage in the background."""

    # Properties of the form

    @property
    def group(self) -> Hashable:
        """Key of calls that may be sent as one request; ``None`` for a call that must not wait for other calls."""
        ...

    @property
    def loop(self) -> Hashable:
        """The event loop whose task makes the call; ``None`` in the synchronous form."""
        ...

    @property
    def blocked_loop(self) -> Hashable:
        """The event loop that a synchronous call blocks; ``None`` where it blocks none."""
        ...

    def detached(self) -> Effects:
        """Return effects of the same form for work of several callers, which no single caller may stop."""
        ...

    def check(self) -> None:
        """Raise ``Stopped`` if the call was stopped."""

    def stop(self) -> None:
        """Stop the stages that run with these effects."""
