"""Cascades: a second search in a better store, for the queries that the cheap store is least sure of.

A query is in doubt where the gap between the scores of hit 1 and hit 10 is small: the ten best are about equally good,
and the cheap model could not tell them apart. Of the signs that need nothing but the hits this gap is the most
reliable; the score of hit 1 alone is the least.

How small a small gap is differs from one collection to another, so there is no threshold to set. The user sets the
*share* of the queries that may be escalated. Each gap is compared with the gaps of recent queries, and the smallest are
escalated. Only the difference of two scores is read, without its sign, so similarities and distances serve alike.

This module decides. The ``TieredRetriever``s of both frameworks search.
"""

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from .._display import shown, shown_name
from .._process import Lock, PerProcess
from ..errors import ConfigError

DEPTH = 10
"""The hit whose score is compared with that of the first."""

CORRECTION = 0.02
"""How far the share is moved by each query that was escalated over the allowance, or kept below it."""


class Cascade:
    """Escalate a share of the queries: those with the smallest gaps.

    A query is escalated when its gap is among the lowest ``share`` of the window. The share holds for any sequence of
    gaps (a new collection, a drift, many equal gaps), because the bar moves with the count of escalations: it is
    ``share``, plus 0.02 for each query that the allowance has left, or minus 0.02 for each query over it. After n
    queries at most ``share / 0.02 + 1`` more than ``share * n`` were escalated (16 more at 30 %), and at most
    ``(1 - share) / 0.02 + 1`` fewer.

    There is no warm-up: the first query is kept, and each later one is compared with those before it, few as they are.
    ``gaps`` of this collection from ``embedrouter calibrate`` make the first decisions as good as the later ones.

    One cascade is for one collection and one pair of tiers. Several threads and tasks may use it, and the same queries
    in the same order are decided alike. A copy in another process continues from the same state, and counts on its own.

    Args:
        share: the part of the queries that may be escalated, from 0 to 1.
        cheap: the tier that is asked first; the lowest when left out.
        good: the tier that is asked next; the highest when left out.
        window: the number of recent queries that a gap is compared with.
        gaps: the gaps of earlier queries, in the scores of the cheap tier's store; the oldest leave the window as new
            ones are added.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self,
        share: float,
        *,
        cheap: str | None = None,
        good: str | None = None,
        window: int = 1000,
        gaps: Iterable[float] = (),
    ) -> None:
        if not 0 <= share <= 1:
            raise ConfigError(f"Cascade.share must be from 0 to 1, such as 0.3 for 30 %, not {shown(share)}.")
        if window < 1:
            raise ConfigError(f"Cascade.window must be at least 1, not {shown(window)}.")
        if cheap is not None and cheap == good:
            raise ConfigError(f"Cascade.cheap and Cascade.good must be two tiers, not {shown_name(cheap)} twice.")
        self.share = share
        self.cheap = cheap
        self.good = good
        self._recent = deque((_finite(number) for number in gaps), maxlen=window)
        self.seen = 0
        """Queries decided so far."""
        self.escalated = 0
        """Queries escalated so far."""
        self._lock = PerProcess(Lock)

    def escalates(self, scores: Sequence[float]) -> bool:
        """Decide about one query, and count the decision.

        Args:
            scores: of the cheap tier's hits, best first; similarities or distances. Ten are enough; of fewer, the last
                one counts. With fewer than two there is nothing to rank: the query is kept and not counted.
        """
        if len(scores) < 2:
            return False
        found = gap(scores)
        with self._lock.get():
            others = sorted(self._recent)
            below, up_to = bisect_left(others, found), bisect_right(others, found)
            rank = (below + up_to + 1) / 2 / (len(others) + 1)  # over 0 and under 1, the middle among equals
            bar = self.share + CORRECTION * (self.share * self.seen - self.escalated)
            escalated = rank < bar
            self.seen += 1
            self.escalated += escalated
            self._recent.append(found)
        return escalated

    def __getstate__(self) -> dict[str, Any]:
        with self._lock.get():
            return {**self.__dict__, "_recent": self._recent.copy(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=PerProcess(Lock))

    def __repr__(self) -> str:
        return f"Cascade({self.share:g}; escalated {self.escalated} of {self.seen})"


def gap(scores: Sequence[float]) -> float:
    """Return how far the scores of the first and the tenth hit are apart (of fewer hits, the last).

    Scores that are not finite count as no gap.
    """
    return _finite(abs(scores[0] - scores[min(len(scores), DEPTH) - 1]))


def _finite(number: float) -> float:
    return float(number) if math.isfinite(number) else 0.0
