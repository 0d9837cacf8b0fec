"""Texts that are being embedded at this moment, so that equal ones are paid once.

Whoever needs a text first leads: it makes the request. Others that need the same text meanwhile follow: each waits for
a future. A leader that is cancelled hands over, one that fails leaves the followers to try for themselves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from typing import Generic, Literal, TypeAlias, TypeVar

__all__ = ["Flights", "Landing"]

T = TypeVar("T")
Landing: TypeAlias = "T | Literal['handed over', 'failed']"


class Flights(Generic[T]):
    """Names of texts under way in this process, with those who wait for them."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, list[Future[Landing[T]]]] = {}
        self.landed = 0
        """Texts that have landed so far."""

    def join(self, names: Sequence[Hashable]) -> dict[Hashable, Future[Landing[T]]]:
        """Follow those that are under way, returned with a future each, and lead the others."""
        if self._process != os.getpid():  # a forked child: nobody leads here
            self._start()
        following: dict[Hashable, Future[Landing[T]]] = {}
        with self._lock:
            for name in names:
                waiting = self._waiting.get(name)
                if waiting is None:
                    self._waiting[name] = []
                else:
                    following[name] = Future()
                    waiting.append(following[name])
        return following

    def land(self, names: Iterable[Hashable], outcome: Callable[[Hashable], Landing[T]]) -> None:
        """Tell the followers what became of texts that this caller leads; what has landed already is left out."""
        with self._lock:
            told = [(name, self._waiting.pop(name)) for name in names if name in self._waiting]
            self.landed += len(told)
        for name, waiting in told:
            if waiting:
                became = outcome(name)
                for future in waiting:
                    if future.set_running_or_notify_cancel():
                        future.set_result(became)
