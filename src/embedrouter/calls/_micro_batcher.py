"""Collect calls that arrive at the same time into micro-batches, each of which is sent as one request.

A call that arrives while no other call of its kind is in flight is sent alone, at once. Other calls join an open batch,
which is sealed and sent after a short window.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from .._process import Future, Lock
from ..errors import EmbedRouterError
from ._call import Embedded


@dataclass(slots=True, eq=False)
class Member:
    """One call in a batch."""

    texts: Sequence[str]
    deadline: float | None
    result: Future[Embedded | EmbedRouterError] = field(default_factory=Future)
    """Vectors and charges of the call, perhaps of some texts only, or the error."""


@dataclass(slots=True, eq=False)
class Batch:
    """Calls that will be sent as one request."""

    kind: Hashable
    members: list[Member] = field(default_factory=list)
    context: Context = field(default_factory=copy_context)
    """Of the first call, in which the request is made: events and traces count it there."""
    sealed: bool = False
    """Whether no further call can join."""
    ended: bool = False
    stop: Callable[[], object] = lambda: None
    """Stops the request when no caller waits any more."""


class MicroBatcher:
    """The micro-batches of one process, by the kind of their calls."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: Counter[Hashable] = Counter()
        self._open: dict[Hashable, Batch] = {}

    def enter(self, kind: Hashable, texts: Sequence[str], deadline: float | None) -> tuple[Batch, Member] | None:
        """Add a call to the open batch of its kind, or open a batch.

        Returns:
            ``None`` when no call of the kind is in flight: the call is sent alone, and ends with ``leave``.
        """
        with self._lock:
            if kind not in self._open and not self._under_way[kind]:
                self._under_way[kind] = 1
                return None
            batch = self._open.setdefault(kind, Batch(kind))
            batch.members.append(Member(texts, deadline))
            return batch, batch.members[-1]

    def seal(self, batch: Batch) -> list[Member] | None:
        """Seal a batch, so that no further call can join, and return its calls, which are in flight until ``end``.

        Returns:
            ``None`` when the batch is sealed already. Calls that no longer wait are not among the calls.
        """
        with self._lock:
            if batch.sealed:
                return None
            batch.sealed = True
            del self._open[batch.kind]
            self._under_way[batch.kind] += 1
            return batch.members

    def remove(self, batch: Batch, member: Member) -> None:
        """Remove a call whose caller no longer waits; stop the batch when no caller is left."""
        member.result.cancel()
        with self._lock:
            if not batch.sealed:
                batch.members.remove(member)
            left = [other for other in batch.members if not other.result.done()]
        if not left:
            batch.stop()

    def end(self, batch: Batch) -> None:
        """End a batch. Calls without a result get an empty one, and then embed their texts alone."""
        with self._lock:
            if not batch.sealed:
                batch.sealed = True
                del self._open[batch.kind]
            elif not batch.ended:
                self._leave(batch.kind)
            batch.ended = True
        for member in batch.members:
            if not member.result.done() and member.result.set_running_or_notify_cancel():
                member.result.set_result(Embedded())

    def leave(self, kind: Hashable) -> Batch | None:
        """End a call that was sent alone; return the open batch if no call of the kind is in flight any more."""
        with self._lock:
            self._leave(kind)
            return None if kind in self._under_way else self._open.get(kind)

    def _leave(self, kind: Hashable) -> None:
        self._under_way[kind] -= 1
        if not self._under_way[kind]:
            del self._under_way[kind]
