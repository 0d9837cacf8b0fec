"""Limits per minute, as makers enforce them.

No maker documents the arithmetic, so there are three: the last minute at any moment (`Sliding`), the minute of the
clock (`Aligned`), and a bucket that refills steadily, as OpenAI's reset headers suggest (`Bucket`). A request is
measured when it arrives, and one that is refused takes nothing. Times are passed in; the `minute` may be shorter.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping


class Pace(ABC):
    """A limit of requests and one of tokens a minute; None where there is none."""

    def __init__(self, *, requests: int | None = None, tokens: int | None = None, minute: float = 60.0) -> None:
        self.requests, self.tokens, self.minute = requests, tokens, minute
        self.accepted: list[tuple[float, int]] = []
        """When requests arrived, and their tokens."""
        self.provoked = 0
        """Requests over a limit."""
        self._lock = threading.Lock()

    def take(self, tokens: int, at: float) -> bool:
        """Count a request in, or refuse it."""
        with self._lock:
            requests_left, tokens_left = self._left(at)
            if requests_left < 1 or tokens_left < tokens:
                self.provoked += 1
                return False
            self.accepted.append((at, tokens))
            self._count(tokens, at)
            return True

    def used(self, begin: float, end: float) -> int:
        """Return the tokens of the requests that arrived from `begin` to before `end`."""
        with self._lock:
            return sum(tokens for at, tokens in self.accepted if begin <= at < end)

    def headers(self, at: float) -> Mapping[str, str]:
        """Return what OpenAI's answers say of the limits."""
        with self._lock:
            left = self._left(at)
        said: dict[str, str] = {}
        for name, limit, remaining in zip(("requests", "tokens"), (self.requests, self.tokens), left, strict=True):
            if limit is not None:
                said[f"x-ratelimit-limit-{name}"] = str(limit)
                said[f"x-ratelimit-remaining-{name}"] = str(int(remaining))
                said[f"x-ratelimit-reset-{name}"] = f"{(1 - remaining / limit) * self.minute:.3f}s"
        return said

    @abstractmethod
    def _left(self, at: float) -> tuple[float, float]:
        """Return the requests and the tokens that are left."""

    @abstractmethod
    def _count(self, tokens: int, at: float) -> None:
        """Count a request in."""


class Sliding(Pace):
    """No more than the limits in any minute."""

    def __init__(self, *, requests: int | None = None, tokens: int | None = None, minute: float = 60.0) -> None:
        super().__init__(requests=requests, tokens=tokens, minute=minute)
        self._recent: deque[tuple[float, int]] = deque()
        self._sum = 0

    def _left(self, at: float) -> tuple[float, float]:
        while self._recent and self._recent[0][0] <= at - self.minute:
            self._sum -= self._recent.popleft()[1]
        return _of(self.requests) - len(self._recent), _of(self.tokens) - self._sum

    def _count(self, tokens: int, at: float) -> None:
        self._recent.append((at, tokens))
        self._sum += tokens


class Aligned(Pace):
    """No more than the limits from one full minute of the clock to the next."""

    def __init__(self, *, requests: int | None = None, tokens: int | None = None, minute: float = 60.0) -> None:
        super().__init__(requests=requests, tokens=tokens, minute=minute)
        self._minute, self._requests, self._sum = -1.0, 0, 0

    def _left(self, at: float) -> tuple[float, float]:
        if at // self.minute != self._minute:
            self._minute, self._requests, self._sum = at // self.minute, 0, 0
        return _of(self.requests) - self._requests, _of(self.tokens) - self._sum

    def _count(self, tokens: int, at: float) -> None:
        self._requests += 1
        self._sum += tokens


class Bucket(Pace):
    """As much as a bucket holds, which is full at first and refills at the pace of the limits."""

    def __init__(self, *, requests: int | None = None, tokens: int | None = None, minute: float = 60.0) -> None:
        super().__init__(requests=requests, tokens=tokens, minute=minute)
        self._levels = (_of(requests), _of(tokens))
        self._at = 0.0

    def _left(self, at: float) -> tuple[float, float]:
        passed = max(0.0, at - self._at) / self.minute
        full = _of(self.requests), _of(self.tokens)
        requests, tokens = (min(most, level + passed * most) for most, level in zip(full, self._levels, strict=True))
        self._levels, self._at = (requests, tokens), at
        return self._levels

    def _count(self, tokens: int, at: float) -> None:
        self._levels = self._levels[0] - 1, self._levels[1] - tokens


def _of(limit: int | None) -> float:
    return 1e12 if limit is None else limit
