"""Rate limiter: keep the provider's limits of requests, texts and tokens.

A limit is the one that the user declares, per minute, otherwise the one that the provider reports, for the time that
the report implies. A request in flight counts with its estimated tokens. The minute of a request begins with the
answer, because the moment at which the provider counts the request is unknown; from then on the request counts with its
billed tokens. So no minute of the provider exceeds the limit, however slow the network is. Until the first answer,
which may report the limits, few tokens are sent.

Times are seconds of a monotonic clock, passed as arguments. The limiter has no lock: ``ModelLimits`` holds one.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeAlias

from ..types import RateLimits

MINUTE = 60.5
"""Seconds of the period of a limit per minute: a little more than 60, because providers may count whole seconds."""
SHORT_PERIOD = 10.0
"""Seconds in which a reported limit fills up again if it is no limit per minute, but for instance per second."""
LONGEST_FLIGHT = 60.0
"""Seconds after which a request counts as arrived, answered or not. On a busy machine the first requests take several
seconds, because an SDK is imported and connections are opened before the first byte is sent."""
REQUESTS_PER_LIMIT = 40
"""Maximum number of parts of a token limit. Smaller requests use the limit no better, and cost round trips."""
SOON_FREE = 1.0
"""Seconds until the next check where an answer may free tokens: bills are often below their estimates."""
UNKNOWN_LIMIT = 2**19
"""Maximum tokens in flight of several requests, until the first answer, which may report the limit. Paid accounts may
send a million tokens or more per minute."""
FIRST_ANSWER_POLL = 0.05
"""Seconds between checks for the first answer."""
INSTANT = 1e-6
"""Seconds that count as zero: so short a wait would not move a clock."""
LONGEST_WAIT = 300.0
"""Maximum seconds of a wait that a provider requests; longer waits are shortened."""

Quotas: TypeAlias = tuple[tuple[int | None, float], ...]
"""The limits of requests, texts and tokens, each with its period in seconds; ``None`` where there is none."""


@dataclass(slots=True, eq=False)
class Admission:
    """A request that may be sent now."""

    at: float
    """Time of the admission."""
    tokens: int
    """Estimated tokens. Fewer than requested where only the first texts may be sent."""
    texts: int = 1
    """Likewise."""
    loop: Hashable = None
    """The event loop whose task makes the request."""
    ticket: object = None
    """Of the limits that workers share, where there are such."""


class _Quota:
    """One limit, and the amounts that count against the limit.

    Args:
        declared: the limit per minute that the user declares; ``None`` to follow the provider's reports.
        estimated: whether the amount of a request may turn out to be lower when the answer arrives.
    """

    def __init__(self, declared: int | None, *, estimated: bool = False) -> None:
        self._declared, self._estimated = declared, estimated
        self.limit = declared
        """The limit, where one is declared or reported."""
        self.in_flight = 0
        """The amount of the requests in flight."""
        self._period = MINUTE
        self._past: deque[tuple[float, int]] = deque()
        """Times and amounts of requests that were answered in the last period, oldest first."""
        self._past_amount = self._since_report = 0
        self._left: int | None = None
        self._reset = self._reported_at = 0.0

    @property
    def reported(self) -> tuple[int | None, float]:
        """The limit and its period in seconds, where the provider reports one and none is declared."""
        return (None if self._declared is not None else self.limit), self._period

    @property
    def room(self) -> int:
        """How much may be sent now, by this limit, which is known."""
        assert self.limit is not None
        return self.limit - self._past_amount - self.in_flight

    def start(self, amount: int) -> None:
        """Count a request that is sent."""
        self.in_flight += amount
        self._since_report += amount

    def release(self, amount: int) -> None:
        """Remove a request that was not sent."""
        self.in_flight -= amount
        self._since_report = max(0, self._since_report - amount)

    def arrived(self, amount: int, billed: int, at: float) -> None:
        """Begin the period of a request."""
        self.in_flight -= amount
        self._past.append((max(self._past[-1][0], at) if self._past else at, billed))
        self._past_amount += billed

    def expire(self, now: float) -> None:
        """Drop requests older than the period."""
        while self._past and self._remaining(self._past[0][0], now) < INSTANT:
            self._past_amount -= self._past.popleft()[1]

    def lost(self, amount: int) -> None:
        """Drop a request whose answer never arrived."""
        self.in_flight -= amount

    def report(self, limit: int | None, left: int | None, reset: float | None, now: float) -> None:
        """Record what an answer reports: the limit, how much of the limit is left, and the seconds until all is."""
        self._since_report, self._reported_at = 0, now
        known = reset is not None and reset >= 0
        self._left = left if known else None
        self._reset = min(reset, LONGEST_WAIT) if known and reset is not None else 0.0
        if self._declared is not None:
            return
        self.limit, self._period = limit or None, MINUTE
        if limit and self._left is not None and self._reset * limit <= SHORT_PERIOD * max(1, limit - self._left):
            self._period = max(1.0, self._reset)

    def wait(self, amount: int, now: float) -> float:
        """Return the seconds until ``amount`` may be sent; beyond the whole limit, the provider decides."""
        wait = self._reported_wait(amount, now)
        if self.limit is None:
            return wait
        missing = min(amount, self.limit) - self.room
        if missing <= 0:
            return wait
        free = SOON_FREE if self._estimated and missing <= self.in_flight else self._period
        for at, part in self._past:
            missing -= part
            if missing <= 0:
                free = min(free, self._remaining(at, now))
                break
        return max(wait, free)

    def soon_more(self, now: float) -> float:
        """Return the seconds until more becomes free, if soon: one request is better than two."""
        if self.in_flight:
            return SOON_FREE
        wait = self._remaining(self._past[0][0], now) if self._past else 0.0
        return wait if wait <= SOON_FREE else 0.0

    def _reported_wait(self, amount: int, now: float) -> float:
        """Return the wait where the provider reports that little is left: other programs may share the account."""
        if self._left is None:
            return 0.0
        whole = self.limit or amount
        missing = min(amount, whole) + self._since_report - self._left
        if missing <= 0:
            return 0.0
        refilled = missing * min(self._period, 60.0) / whole if self._estimated else self._reset
        return self._reported_at + min(self._reset, refilled) - now

    def _remaining(self, at: float, now: float) -> float:
        return self._period - (now - at)


class RateLimiter:
    """Count the requests, texts and tokens of the last minute for one model.

    Args:
        requests: declared limit of requests per minute; ``None`` to follow the limit that the provider reports.
        texts: declared limit of texts per minute; no provider reports one.
        tokens: declared limit of tokens per minute; ``None`` to follow the provider's.
    """

    def __init__(self, *, requests: int | None, texts: int | None = None, tokens: int | None = None) -> None:
        self._requests, self._texts, self._tokens = _Quota(requests), _Quota(texts), _Quota(tokens, estimated=True)
        self._in_flight: OrderedDict[Admission, None] = OrderedDict()
        """Requests that are admitted and not answered, oldest first."""
        self._answered = False
        """Whether an answer, or a failure other than a rate limit, has arrived."""

    def fit(self, texts: int, tokens: int, least: int, now: float) -> tuple[int, int, float]:
        """Return how many texts and tokens may be sent next, and the seconds until then.

        Args:
            least: tokens of the request's first text, where a part of the request may be sent before the rest.
        """
        self._expire(now)
        wait = 0.0
        if self._texts.limit is not None and least < tokens and texts > self._texts.room:
            smallest = -(-self._texts.limit // REQUESTS_PER_LIMIT)
            texts = min(texts, max(self._texts.room, smallest))
        if self._tokens.limit is None:
            many = self._in_flight and not self._answered and self._tokens.in_flight + tokens > UNKNOWN_LIMIT
            wait = FIRST_ANSWER_POLL if many else 0.0
        elif least < tokens and tokens > (room := self._tokens.room):
            tokens = min(tokens, max(room, least, self._tokens.limit // REQUESTS_PER_LIMIT))
            wait = self._tokens.soon_more(now)
        waits = self._requests.wait(1, now), self._texts.wait(texts, now), self._tokens.wait(tokens, now)
        return texts, tokens, max(wait, *waits)

    def admit(self, texts: int, tokens: int, now: float) -> Admission:
        """Count a request that is sent now."""
        admission = Admission(now, tokens, texts)
        self._in_flight[admission] = None
        for quota, amount in self._amounts(admission):
            quota.start(amount)
        return admission

    def release(self, admission: Admission) -> None:
        """Release a request that was admitted and not sent."""
        if admission in self._in_flight:
            del self._in_flight[admission]
            for quota, amount in self._amounts(admission):
                quota.release(amount)

    def arrived(self, admission: Admission, tokens: int | None, now: float) -> None:
        """Begin the minute of a request that has arrived, with the billed tokens where known."""
        if admission not in self._in_flight:  # expired: too long in flight
            return
        del self._in_flight[admission]
        at = min(now, admission.at + LONGEST_FLIGHT)
        for quota, amount in self._amounts(admission):
            billed = tokens if quota is self._tokens and tokens is not None else amount
            quota.arrived(amount, billed, at)

    def report(self, limits: RateLimits, now: float) -> None:
        """Record the limits that an answer or a refusal reports; a refusal may name one of them."""
        requests = limits.requests, limits.requests_left, limits.requests_reset
        tokens = limits.tokens, limits.tokens_left, limits.tokens_reset
        for quota, numbers in ((self._requests, requests), (self._tokens, tokens)):
            if numbers != (None, None, None):
                quota.report(*numbers, now)

    def first_answer(self) -> None:
        """Record that the provider has answered: requests no longer wait for a report of the limits."""
        self._answered = True

    @property
    def reported(self) -> Quotas:
        """The limits that the provider has reported."""
        return self._requests.reported, self._texts.reported, self._tokens.reported

    def _amounts(self, admission: Admission) -> tuple[tuple[_Quota, int], ...]:
        return (self._requests, 1), (self._texts, admission.texts), (self._tokens, admission.tokens)

    def _expire(self, now: float) -> None:
        """Drop requests older than their period, and requests whose answer never arrived."""
        for quota in (self._requests, self._texts, self._tokens):
            quota.expire(now)
        while self._in_flight and (oldest := next(iter(self._in_flight))).at + LONGEST_FLIGHT <= now - MINUTE:
            del self._in_flight[oldest]
            for quota, amount in self._amounts(oldest):
                quota.lost(amount)
