"""Act when the process ends.

Daemon threads go on while the interpreter ends. An object that another thread must not use any more when Python frees
what is left is registered with ``watch_end``.
"""

import atexit
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Protocol

HALF_IMPORTED = (AttributeError, NameError)
"""Errors of ``multiprocessing`` while another thread imports it: then it has not started this process."""
LAST_WAIT = 1.0
"""Seconds that the end of the interpreter waits for threads that are at work."""


class WatchesEnd(Protocol):
    """An object that acts when the interpreter ends."""

    def at_end(self, deadline: float) -> None:
        """Close what another thread must not use any more, at the latest at ``deadline`` of ``time.monotonic``."""


_watching_end: weakref.WeakSet[WatchesEnd] = weakref.WeakSet()
_ended = False
_may_go_on: ContextVar[bool] = ContextVar("embedrouter_may_go_on", default=False)
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
    with suppress(*HALF_IMPORTED):
        if process is not None and util is not None and process.parent_process() is not None:
            util.Finalize(None, function, exitpriority=0)


def is_daemon_process() -> bool:
    """Return whether this process is a daemon of ``multiprocessing``, as in its pools: a signal ends such a process."""
    process = sys.modules.get("multiprocessing.process")
    with suppress(*HALF_IMPORTED):
        return process is not None and bool(process.current_process().daemon)
    return False
