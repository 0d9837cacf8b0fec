"""Calls that come at the same time and wait a moment for each other, to be sent as one request.

A call that comes while no other of its kind is under way goes alone and at once. Others wait for those that come after
them, no longer than a short window; then their batch is sealed and sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from .._process import Future, Lock
from ..errors import EmbedRouterError
from ._call import Embedded

__all__ = ["Batch", "Member", "MicroBatcher"]


@dataclass(slots=True, eq=False)
class Member:
    """One call in a batch."""

    texts: Sequence[str]
    deadline: float | None
    result: Future[Embedded | EmbedRouterError] = field(default_factory=Future)
    """Its share of what was found and billed, perhaps of some texts only, or why none was found."""


@dataclass(slots=True, eq=False)
class Batch:
    """Calls that are sent as one request."""

    kind: Hashable
    members: list[Member] = field(default_factory=list)
    sealed: bool = False
    """Whether no further call can join."""
    ended: bool = False
    stop: Callable[[], object] = lambda: None
    """Stops the request when no caller waits for it any more."""


class MicroBatcher:
    """The batches of one process, by the kind of their calls."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: Counter[Hashable] = Counter()
        self._open: dict[Hashable, Batch] = {}

    def join(self, kind: Hashable, member: Member) -> Batch | None:
        """Add a call to the batch that is open, if there is one."""
        with self._lock:
            batch = self._open.get(kind)
            if batch is not None:
                batch.members.append(member)
            return batch

    def enter(self, kind: Hashable, member: Member) -> Batch | None:
        """Add a call to the open batch, or open one.

        Returns:
            ``None`` when no call of the kind is under way: the call goes alone, and ends with ``leave``.
        """
        with self._lock:
            if kind not in self._open and not self._under_way[kind]:
                self._under_way[kind] = 1
                return None
            batch = self._open.setdefault(kind, Batch(kind))
            batch.members.append(member)
            return batch

    def seal(self, batch: Batch) -> list[Member]:
        """Let no further call in, and return the calls to be sent. They are under way until ``end``."""
        with self._lock:
            if batch.sealed:
                return []
            batch.sealed = True
            del self._open[batch.kind]
            self._under_way[batch.kind] += 1
            return batch.members

    def withdraw(self, batch: Batch, member: Member) -> None:
        """Take a call whose caller waits no longer out of a batch; stop the batch when no caller is left."""
        member.result.cancel()
        with self._lock:
            if not batch.sealed:
                batch.members.remove(member)
            left = [other for other in batch.members if not other.result.cancelled()]
        if not left:
            batch.stop()

    def end(self, batch: Batch) -> None:
        """Note that a batch has ended. Calls without a result are told to try for themselves."""
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

    def leave(self, kind: Hashable) -> None:
        """Note that a call that went alone has ended."""
        with self._lock:
            self._leave(kind)

    def _leave(self, kind: Hashable) -> None:
        self._under_way[kind] -= 1
        if not self._under_way[kind]:
            del self._under_way[kind]
