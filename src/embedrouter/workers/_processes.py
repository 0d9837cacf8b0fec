"""Processes of this machine that embed, each with a model of its own.

They are started anew (``spawn``), so that neither threads nor libraries of this process are copied. Each writes its
vectors to the cache itself, so that a process which is killed loses the request that it was at.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

from ..errors import EmbedRouterError
from ..types import EmbeddingResult
from ._worker import Worker

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that say how many threads numerical libraries start."""

_worker: Worker
"""The worker of a process that was started here."""


class Processes:
    """Embed lists of texts in several processes. Used as a context manager; at the end all are stopped at once.

    Args:
        worker: what each process has. Its cache has to be one that processes share.
        number: of processes.
    """

    def __init__(self, worker: Worker, number: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(
            number,
            spawn,
            initializer=_begin,
            initargs=(worker, worker.router.cache.must_keep, shares(cores(), number), spawn.Value("i", 0)),
        )
        self._started: list[BaseProcess] = []

    def submit(self, texts: list[str]) -> Future[EmbeddingResult]:
        """Have the next free process embed texts into the cache; its errors are those of ``Router.embed``.

        Raises:
            EmbedRouterError: a process was killed.
        """
        with _translated():
            if self._started:
                return self._executor.submit(_embed, texts)
            others = multiprocessing.active_children()
            with _without_interrupts():  # which the processes inherit
                future = self._executor.submit(_embed, texts)
            self._started = [process for process in multiprocessing.active_children() if process not in others]
            return future

    @staticmethod
    def result(future: Future[EmbeddingResult]) -> EmbeddingResult:
        """Wait for the result of ``submit``, whose vectors have no numbers: they are in the cache.

        Raises:
            EmbedRouterError: an error of ``Router.embed``, or a process was killed.
        """
        with _translated():
            return future.result()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # the processes are at work on texts that are not wanted any more
            for process in self._started:
                process.terminate()
        self._executor.shutdown(cancel_futures=True)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise EmbedRouterError(
            "A worker process was killed, perhaps because memory is short: each worker holds a model of its own. What "
            "was embedded is in the cache. Run the command again with fewer workers."
        ) from error


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, where signals are handled: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def cores() -> list[int]:
    """Return the processor cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def shares(cores: list[int], number: int) -> list[list[int]]:
    """Distribute cores over processes; where there are more processes than cores, each has one."""
    if number >= len(cores):
        return [[cores[process % len(cores)]] for process in range(number)]
    return [cores[process::number] for process in range(number)]


# In the processes


def _begin(worker: Worker, must_keep: bool, shares: list[list[int]], started: Any) -> None:
    """Prepare a process: its share of the cores, and the end together with the process that started it.

    Libraries count the cores that their process may use. Where a system has no such limit, and for those that count all
    the same, variables say how many threads to start.
    """
    global _worker
    with started.get_lock():
        own = shares[started.value % len(shares)]
        started.value += 1
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, own)
    for name in THREADS:
        os.environ.setdefault(name, str(len(own)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker.router.cache.must_keep = must_keep
    _worker = worker


def _embed(texts: list[str]) -> EmbeddingResult:
    """Return a result without vectors, which are in the cache.

    With them a process would hold the lock of the pipe for long, and one that is killed meanwhile holds it for ever.
    """
    result = _worker.embed(texts)
    return replace(result, vectors=result.vectors[:, :0])


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
