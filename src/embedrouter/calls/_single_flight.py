"""Pay once for equal texts that several calls need at the same time.

The first call that needs a text claims the text and makes the request. Each other call waits for a future, which is
resolved with the vector. A claim that ends without a vector is resolved as handed over (its call was stopped) or as
failed; the waiting calls then embed the text themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, Literal, TypeAlias, TypeVar

from .._process import Future, Lock

T = TypeVar("T")
Resolution: TypeAlias = "T | Literal['handed over', 'failed']"


class SingleFlight(Generic[T]):
    """Claims, with the futures of the waiting calls."""

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
        """Resolve claims of this caller; resolved claims are skipped."""
        with self._lock:
            resolved = [(name, self._claimed.pop(name)) for name in names if name in self._claimed]
            self.completed += len(resolved)
        for name, futures in resolved:
            if futures:
                outcome = resolution(name)
                for future in futures:
                    if future.set_running_or_notify_cancel():
                        future.set_result(outcome)
