"""Rate limiter: keep the provider's limits of requests and tokens per minute.

A limit is the one that the user declares, otherwise the one that the provider reports. A request in flight counts with
its estimated tokens. The minute of a request begins with the answer, because the moment at which the provider counts
the request is unknown; from then on the request counts with its billed tokens. So no minute of the provider exceeds the
limit, however slow the network is. Until the first answer, which may report the limits, few tokens are sent.

Times are seconds of a monotonic clock, passed as arguments. The limiter has no lock: ``ModelLimits`` holds one.
"""

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, replace

from ..types import RateLimits

MINUTE = 60.5
"""Seconds of the window of a limit per minute: a little more than 60, because providers may count whole seconds."""
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


@dataclass(slots=True, eq=False)
class Admission:
    """A request that may be sent now."""

    at: float
    """Time of the admission; after the answer, the start of the request's minute."""
    tokens: int
    """Estimated tokens, after the answer billed tokens. Fewer than requested where only the first texts may be sent."""
    loop: Hashable = None
    """The event loop whose task makes the request."""


class RateLimiter:
    """Count the requests and tokens of the last minute for one model.

    Args:
        requests: declared limit of requests per minute; ``None`` to follow the limit that the provider reports.
        tokens: declared limit of tokens per minute; ``None`` likewise.
    """

    def __init__(self, *, requests: int | None, tokens: int | None) -> None:
        self._declared_requests, self._declared_tokens = requests, tokens
        self._reported = RateLimits()
        self._reported_at = 0.0
        self._in_flight: OrderedDict[Admission, None] = OrderedDict()
        """Requests that are admitted and not answered, oldest first."""
        self._window: deque[Admission] = deque()
        """Requests that were answered in the last minute, oldest first."""
        self._in_flight_tokens = self._window_tokens = 0
        self._since_report = 0
        """Tokens sent since the provider's last report."""
        self._answered = False
        """Whether an answer, or a failure other than a rate limit, has arrived."""

    def fit(self, tokens: int, least: int, now: float) -> tuple[int, float]:
        """Return how many tokens may be sent next, and the seconds until then.

        Args:
            least: tokens of the request's first text, where a part of the request may be sent before the rest.
        """
        self._expire(now)
        allowed, wait = self._fit_tokens(tokens, least, now)
        return allowed, max(wait, self._request_wait(now))

    def admit(self, tokens: int, now: float) -> Admission:
        """Count a request that is sent now."""
        admission = Admission(now, tokens)
        self._in_flight[admission] = None
        self._in_flight_tokens += tokens
        self._since_report += tokens
        return admission

    def release(self, admission: Admission) -> None:
        """Release a request that was admitted and not sent."""
        if admission in self._in_flight:
            del self._in_flight[admission]
            self._in_flight_tokens -= admission.tokens
            self._since_report = max(0, self._since_report - admission.tokens)

    def arrived(self, admission: Admission, tokens: int | None, now: float) -> None:
        """Begin the minute of a request that has arrived, with the billed tokens where known."""
        if admission not in self._in_flight:  # expired: too long in flight
            return
        del self._in_flight[admission]
        self._in_flight_tokens -= admission.tokens
        earlier = self._window[-1].at if self._window else 0.0
        admission.at = max(earlier, min(now, admission.at + LONGEST_FLIGHT))  # the window stays in order
        admission.tokens = admission.tokens if tokens is None else tokens
        self._window.append(admission)
        self._window_tokens += admission.tokens

    def report(self, limits: RateLimits, now: float) -> None:
        """Record the limits that an answer reports."""
        self._reported, self._reported_at, self._since_report = _plausible(limits), now, 0

    def first_answer(self) -> None:
        """Record that the provider has answered: requests no longer wait for a report of the limits."""
        self._answered = True

    def _expire(self, now: float) -> None:
        """Drop requests older than a minute, and requests whose answer never arrived."""
        while self._window and _remaining(self._window[0], now) < INSTANT:
            self._window_tokens -= self._window.popleft().tokens
        while self._in_flight and (oldest := next(iter(self._in_flight))).at + LONGEST_FLIGHT <= now - MINUTE:
            del self._in_flight[oldest]
            self._in_flight_tokens -= oldest.tokens

    def _request_wait(self, now: float) -> float:
        """Return the seconds until the limit of requests admits one more."""
        reported = self._reported
        wait = 0.0
        if reported.requests_left == 0 and reported.requests_reset is not None:  # other programs may share the account
            wait = self._reported_at + reported.requests_reset - now
        limit = self._declared_requests or reported.requests
        excess = 0 if limit is None else len(self._window) + len(self._in_flight) + 1 - limit
        if excess > len(self._window):
            return MINUTE
        return max(wait, _remaining(self._window[excess - 1], now)) if excess > 0 else wait

    def _fit_tokens(self, tokens: int, least: int, now: float) -> tuple[int, float]:
        limit = self._declared_tokens or self._reported.tokens
        if limit is None:
            many = self._in_flight and not self._answered and self._in_flight_tokens + tokens > UNKNOWN_LIMIT
            return tokens, FIRST_ANSWER_POLL if many else 0.0
        room, wait = limit - self._window_tokens - self._in_flight_tokens, 0.0
        if tokens > room and least < tokens:
            tokens = min(tokens, max(room, least, limit // REQUESTS_PER_LIMIT))
            wait = self._soon_more(now)
        wait = max(wait, self._free_wait(min(tokens, limit) - room, now))  # the provider decides beyond the whole limit
        return tokens, max(wait, self._reported_wait(tokens, now))

    def _soon_more(self, now: float) -> float:
        """Return the seconds until more tokens become free, if soon: one request is better than two."""
        if self._in_flight:
            return SOON_FREE
        wait = _remaining(self._window[0], now) if self._window else 0.0
        return wait if wait <= SOON_FREE else 0.0

    def _free_wait(self, missing: int, now: float) -> float:
        """Return the seconds until ``missing`` tokens have left the window."""
        if missing <= 0:
            return 0.0
        wait = MINUTE if missing > self._in_flight_tokens else SOON_FREE
        for admission in self._window:
            missing -= admission.tokens
            if missing <= 0:
                return min(wait, _remaining(admission, now))
        return wait

    def _reported_wait(self, tokens: int, now: float) -> float:
        """Return the wait where the provider reports that few tokens remain: other programs may share the account."""
        reported = self._reported
        if reported.tokens_left is None or reported.tokens_reset is None or not reported.tokens:
            return 0.0
        missing = min(tokens, reported.tokens) + self._since_report - reported.tokens_left
        if missing <= 0:
            return 0.0
        return self._reported_at + min(reported.tokens_reset, missing * 60 / reported.tokens) - now


def _remaining(admission: Admission, now: float) -> float:
    """Return the seconds left of an answered request's minute."""
    return MINUTE - (now - admission.at)


def _plausible(reported: RateLimits) -> RateLimits:
    """Return reported limits without zeros, and without waits over ``LONGEST_WAIT``."""

    def seconds(reset: float | None) -> float | None:
        return None if reset is None or not reset >= 0 else min(reset, LONGEST_WAIT)

    return replace(
        reported,
        requests=reported.requests or None,
        tokens=reported.tokens or None,
        requests_reset=seconds(reported.requests_reset),
        tokens_reset=seconds(reported.tokens_reset),
    )
