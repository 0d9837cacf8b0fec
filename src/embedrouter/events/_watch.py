"""Watch the calls and requests of all routers of the process, from inside: tracing, metrics, totals.

``on_event`` belongs to one router and runs in a thread of the package, after the fact. A watcher is entered where a
call or a request begins, in the same thread or task and in its context, and is left where it ends, so that what it
puts into context variables holds for everything between. It receives each event where it happens: it must not block.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

from ._calls import CallBegan, RequestSent
from ._event import Event


class Watcher(Protocol):
    """What is told of every call. Its errors are suppressed, because an answer may be paid for."""

    def around(self, began: CallBegan | RequestSent, /) -> AbstractContextManager[object]:
        """Return what is entered around a call, or around a request; ``Event.call`` tells calls apart."""
        ...

    def receive(self, event: Event, /) -> None:
        """Receive an event, inside of the call and the request that it is about."""


watchers: list[Watcher] = []
"""Those of this process. A forked child has its parent's."""


def watch(watcher: Watcher) -> None:
    """Tell a watcher of all calls that begin from now on."""
    if watcher not in watchers:
        watchers.append(watcher)


def unwatch(watcher: Watcher) -> None:
    """Tell a watcher of no further call."""
    with suppress(ValueError):
        watchers.remove(watcher)


def tell(event: Event) -> None:
    """Hand an event to the watchers."""
    for watcher in tuple(watchers):
        with suppress(Exception):
            watcher.receive(event)


@contextmanager
def watched(began: CallBegan | RequestSent) -> Iterator[None]:
    """Enter the watchers around a block."""
    entered: list[AbstractContextManager[object]] = []
    for watcher in tuple(watchers):
        with suppress(Exception):
            around = watcher.around(began)
            around.__enter__()
            entered.append(around)
    try:
        yield
    except BaseException as error:
        _leave(entered, error)
        raise
    _leave(entered, None)


def _leave(entered: list[AbstractContextManager[object]], error: BaseException | None) -> None:
    for around in reversed(entered):
        with suppress(Exception):
            if error is None:
                around.__exit__(None, None, None)
            else:
                around.__exit__(type(error), error, error.__traceback__)
