"""Decisions of one history, and the search for the few that a failure needs.

Each decision has a name: who decides (a task of the history), about what, and for the how-manieth time. It is a small
number, and 0 is what happens on an ordinary day: the provider answers, the file works, the same task goes on. So a
history is no more than the decisions that are not 0, and one that is left out becomes 0 and moves no other.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Decision: TypeAlias = tuple[tuple[str, str, int], int]
"""Who, about what, the how-manieth; and the number."""


class Choices:
    """Draws decisions at random, or takes those that are given."""

    def __init__(self, seed: str = "", given: Mapping[tuple[str, str, int], int] | None = None) -> None:
        self._random = random.Random(seed)
        self._given = given
        self._counts: Counter[tuple[str, str]] = Counter()
        self.taken: dict[tuple[str, str, int], int] = {}
        """All decisions so far that are not 0."""

    def pick(self, who: str, what: str, odds: float, options: Sequence[T]) -> T:
        """Return the first option, with a chance of ``odds`` one of the others."""
        if self._given is None and not odds:
            return options[0]
        number = self._counts[who, what]
        self._counts[who, what] = number + 1
        if self._given is not None:
            value = min(self._given.get((who, what, number), 0), len(options) - 1)
        elif self._random.random() < odds and len(options) > 1:
            value = 1 + int(self._random.random() * (len(options) - 1))
        else:
            value = 0
        if value:
            self.taken[who, what, number] = value
        return options[value]

    def odds(self, *options: float) -> float:
        """Draw how often something happens in this history; no decision, because given ones need no odds."""
        return self._random.choice(options)


def shrink(decisions: Sequence[Decision], fails: Callable[[Sequence[Decision]], bool]) -> list[Decision]:
    """Leave out decisions, first many at a time, and make them earlier, for as long as the history still fails."""
    kept, size = list(decisions), len(decisions)
    while size:
        start, before = 0, list(kept)
        while start < len(kept):
            if fails(fewer := kept[:start] + kept[start + size :]):
                kept = fewer
            else:
                start += size
        if size == 1:
            for place, ((who, what, number), value) in enumerate(kept):
                for earlier in sorted({0, number // 2, number - 1} - {-1, number}):
                    sooner = [*kept[:place], ((who, what, earlier), value), *kept[place + 1 :]]
                    if len(dict(sooner)) == len(kept) and fails(sooner):
                        kept = sooner
                        break
        if size > 1 or kept == before:
            size //= 2
    return kept
