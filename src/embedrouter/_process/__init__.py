"""Manage what belongs to one process or one event loop: forks, the end, threads, loop-local objects.

``Lock`` and ``Future`` are those of the standard library; the core imports both from here, so that import contracts can
forbid ``threading``.
"""

from concurrent.futures import Future
from threading import Lock

from ._end import LAST_WAIT, at_worker_exit, is_barred, is_daemon_process, watch_end
from ._forks import PerProcess, importing, watch_forks
from ._loops import Closeable, PerLoop, running_loop
from ._threads import Lane, ThreadPool, in_thread, threads

__all__ = [
    "LAST_WAIT",
    "Closeable",
    "Future",
    "Lane",
    "Lock",
    "PerLoop",
    "PerProcess",
    "ThreadPool",
    "at_worker_exit",
    "importing",
    "in_thread",
    "is_barred",
    "is_daemon_process",
    "running_loop",
    "threads",
    "watch_end",
    "watch_forks",
]
