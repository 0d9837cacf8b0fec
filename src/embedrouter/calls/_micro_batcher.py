"""Calls that come at the same time and wait a moment for each other, to be sent as one.

A call that comes while no other of its kind is under way goes alone and at once. Others wait for those that come after
them, no longer than a short window, and depart together.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Gathering", "Gatherings"]

M = TypeVar("M")


@dataclass(slots=True, eq=False)
class Gathering(Generic[M]):
    """Members that will depart together, or have."""

    name: Hashable
    first: M
    """Who came first, and has it sent."""
    members: list[M] = field(default_factory=list)
    departed: bool = False
    """Nobody can join it any more."""
    ended: bool = False
    stop: Callable[[], object] = lambda: None
    """To be called when nobody is left who waits."""


class Gatherings(Generic[M]):
    """What gathers at this moment among the callers that can wait for each other, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: Counter[Hashable] = Counter()
        self._open: dict[Hashable, Gathering[M]] = {}

    def join(self, name: Hashable, member: Callable[[], M]) -> tuple[Gathering[M], M] | None:
        """Join those who wait, if anybody does, as the member that is made then."""
        with self._lock:
            gathering = self._open.get(name)
            if gathering is None:
                return None
            gathering.members.append(made := member())
            return gathering, made

    def enter(self, name: Hashable, member: Callable[[], M]) -> tuple[Gathering[M], M] | None:
        """Join those who wait, or wait as the first.

        Returns:
            ``None`` when nobody is under way: go at once, and ``leave`` at the end.
        """
        with self._lock:
            if name not in self._open and not self._under_way[name]:
                self._under_way[name] = 1
                return None
            made = member()
            gathering = self._open.setdefault(name, Gathering(name, made))
            gathering.members.append(made)
            return gathering, made

    def depart(self, gathering: Gathering[M]) -> list[M]:
        """Take nobody in any more, and return those who are to go together. They are under way until ``end``."""
        with self._lock:
            if gathering.departed:
                return []
            gathering.departed = True
            del self._open[gathering.name]
            self._under_way[gathering.name] += 1
            return gathering.members

    def withdraw(self, gathering: Gathering[M], member: M) -> bool:
        """Go without a member, if it is not too late."""
        with self._lock:
            if not gathering.departed:
                gathering.members.remove(member)
            return not gathering.departed

    def end(self, gathering: Gathering[M]) -> None:
        """Note that those who went together have ended, or that nobody will have them sent."""
        with self._lock:
            if not gathering.departed:
                gathering.departed = True
                del self._open[gathering.name]
            elif not gathering.ended:
                self._left(gathering.name)
            gathering.ended = True

    def leave(self, name: Hashable) -> None:
        """Note that a call that went alone has ended."""
        with self._lock:
            self._left(name)

    def _left(self, name: Hashable) -> None:
        self._under_way[name] -= 1
        if not self._under_way[name]:
            del self._under_way[name]
