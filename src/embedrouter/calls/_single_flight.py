"""Texts that are being embedded at this moment, so that equal ones are paid once.

The first call that needs a text claims it and makes the request. Other calls that need the same text meanwhile wait for
a future each, which is resolved with the vector. A claim that ends without a vector is handed over, when its call was
stopped, or has failed: then the waiting calls try for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, Literal, TypeAlias, TypeVar

from .._process import Future, Lock

__all__ = ["Resolution", "SingleFlight"]

T = TypeVar("T")
Resolution: TypeAlias = "T | Literal['handed over', 'failed']"


class SingleFlight(Generic[T]):
    """Claimed names, with the futures of the calls that wait for them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._claimed: dict[Hashable, list[Future[Resolution[T]]]] = {}
        self.completed = 0
        """Claims resolved so far."""

    def claim(self, names: Sequence[Hashable]) -> dict[Hashable, Future[Resolution[T]]]:
        """Claim names; return a future for each name that another call has claimed."""
        waiting: dict[Hashable, Future[Resolution[T]]] = {}
        with self._lock:
            for name in names:
                futures = self._claimed.get(name)
                if futures is None:
                    self._claimed[name] = []
                else:
                    waiting[name] = Future()
                    futures.append(waiting[name])
        return waiting

    def resolve(self, names: Iterable[Hashable], resolution: Callable[[Hashable], Resolution[T]]) -> None:
        """Resolve names that this caller has claimed; those resolved already are left out."""
        with self._lock:
            resolved = [(name, self._claimed.pop(name)) for name in names if name in self._claimed]
            self.completed += len(resolved)
        for name, futures in resolved:
            if futures:
                outcome = resolution(name)
                for future in futures:
                    if future.set_running_or_notify_cancel():
                        future.set_result(outcome)
