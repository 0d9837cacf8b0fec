"""Pay once for equal texts that several calls need at the same time.

The first call that needs a text claims the text and makes the request. Each other call waits for a future, which is
resolved with the vector. A claim that ends without a vector is resolved as handed over (its call was stopped) or as
failed; the waiting calls then embed the text themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, Literal, TypeAlias, TypeVar

from .._process import Future, Lock

T = TypeVar("T")
Resolution: TypeAlias = "T | Literal['handed over', 'failed']"


class SingleFlight(Generic[T]):
    """Claims, with the futures of the waiting calls. Calls of one kind can use each other's vectors."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._claimed: defaultdict[Hashable, dict[str, tuple[Future[Resolution[T]], ...]]] = defaultdict(dict)
        self.completed = 0
        """Claims resolved so far."""

    def claim(self, kind: Hashable, texts: Iterable[str]) -> dict[str, Future[Resolution[T]]]:
        """Claim texts; return a future for each text that another call has claimed."""
        waiting: dict[str, Future[Resolution[T]]] = {}
        with self._lock:
            claimed = self._claimed[kind]
            for text in texts:
                if text in claimed:
                    waiting[text] = Future()
                    claimed[text] += (waiting[text],)
                else:
                    claimed[text] = ()
        return waiting

    def resolve(self, kind: Hashable, texts: Iterable[str], resolution: Callable[[str], Resolution[T]]) -> None:
        """Resolve claims of this caller; resolved claims are skipped."""
        with self._lock:
            claimed = self._claimed[kind]
            resolved = [(text, claimed.pop(text)) for text in texts if text in claimed]
            self.completed += len(resolved)
        for text, futures in resolved:
            if futures:
                outcome = resolution(text)
                for future in futures:
                    if future.set_running_or_notify_cancel():
                        future.set_result(outcome)
