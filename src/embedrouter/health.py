"""Whether a model may be asked now: how its provider wants to be paced, and a breaker for what keeps failing.

A ``Gate`` stands in front of each model. It lets a request out when the last minute has room for it, under the limits
the user declared or the provider reports, and when no answer asked to wait. After ``FAILURES`` failed requests in a row
the model is left alone for a while, then one probe decides: an answer opens the gate, a failure closes it for twice the
time. Times are seconds of a monotonic clock and are passed in.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

from .errors import (
    BackendError,
    BadResponseError,
    InputRejectedError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from .types import RateLimits

__all__ = ["MINUTE", "Admission", "Gate", "ModelHealth", "Wait"]

MINUTE = 61.0
"""Seconds in which a limit per minute must not be passed: a little more, because the provider's clock is not ours."""
SICK = (UnavailableError, RequestTimeoutError, BadResponseError)
FAILURES = 8
LONGEST = 300.0
"""Seconds that a model is left alone at most."""
PROBE = 1.0
"""Seconds after which to ask again whether a probe has come back."""
STALE = 1.0
"""Seconds between admission and departure after which a request is admitted anew."""


@dataclass(slots=True)
class Admission:
    """A request that may go out now. ``tokens`` are those estimated, after the answer those billed."""

    at: float
    tokens: int
    recent: bool = True
    """Whether it is among those of the last minute."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A request that has to wait so many seconds; ``down`` says that the model keeps failing."""

    seconds: float
    down: bool


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """How a model has been doing, seen from this process."""

    model: str
    state: Literal["up", "down", "probing"]
    """``"down"``: it is left alone. ``"probing"``: the next request decides."""
    failures: int
    """In a row."""
    retry_in: float
    """Seconds until it is asked again; more than 0 also where the provider asked to wait."""
    error: BackendError | None
    """What it failed with last."""


class Gate:
    """Stands in front of one model.

    Args:
        requests: a minute, as the user declares; otherwise as the provider reports.
        tokens: the same.
        cooldown: seconds that the model is left alone after it failed too often; doubled with each probe that fails.
        lease: seconds after which a probe that nobody heard of again is forgotten.
    """

    def __init__(self, *, requests: int | None, tokens: int | None, cooldown: float, lease: float) -> None:
        self._lock = threading.Lock()
        self._declared = (requests, tokens)
        self._reported = RateLimits()
        self._reported_at = 0.0
        self._sent: deque[Admission] = deque()
        """Of the last minute."""
        self._tokens = 0
        """Their tokens."""
        self._since = 0
        """Tokens sent after the provider last reported what remains."""
        self._cooldown, self._lease = cooldown, lease
        self._failures = self._trips = 0
        self._error: BackendError | None = None
        self._down_until = self._held_until = self._probe_until = 0.0

    def admit(self, tokens: int, now: float) -> Admission | Wait:
        """Let a request of so many tokens out, or say how long it has to wait."""
        with self._lock:
            return self._admit(tokens, now)

    def depart(self, admission: Admission, now: float) -> Wait | None:
        """Let an admitted request out that had to stand in line, or take its admission back: it has to wait again."""
        with self._lock:
            if now - admission.at < STALE and now >= max(self._down_until, self._held_until):
                return None
            self._take_back(admission)
            answer = self._admit(admission.tokens, now)
            if isinstance(answer, Wait):
                return answer
            self._sent[-1] = admission
            admission.at, admission.recent = now, True
            return None

    def withdraw(self, admission: Admission) -> None:
        """Forget a request that was admitted and not sent."""
        with self._lock:
            self._take_back(admission)

    def answered(self, admission: Admission, tokens: int | None, limits: RateLimits | None, now: float) -> None:
        """Note an answer: what was billed, and what the provider says of its limits."""
        with self._lock:
            self._recover()
            if tokens is not None and admission.recent:
                self._tokens += tokens - admission.tokens
                admission.tokens = tokens
            if limits is not None:
                self._reported, self._reported_at, self._since = _plausible(limits), now, 0

    def failed(self, admission: Admission, error: BackendError, now: float, *, counts: bool = True) -> None:
        """Note a failure; ``counts`` is whether it may be the model's fault."""
        with self._lock:
            if isinstance(error, InputRejectedError):  # an answer, too
                self._recover()
                return
            probed = admission.at >= self._down_until
            if isinstance(error, RateLimitedError):
                if error.retryable and error.retry_after:
                    self._held_until = max(self._held_until, now + min(error.retry_after, LONGEST))
                self._error = error
            elif counts and error.retryable and isinstance(error, SICK):
                self._failures += 1
                self._error = error
                if self._failures >= FAILURES and probed:
                    self._down_until = now + min(self._cooldown * 2.0**self._trips, LONGEST)
                    self._trips += 1
            if probed:
                self._probe_until = 0.0

    def health(self, model: str, now: float) -> ModelHealth:
        """Return how the model has been doing."""
        with self._lock:
            state: Literal["up", "down", "probing"] = "up"
            if self._failures >= FAILURES:
                state = "down" if now < self._down_until else "probing"
            wait = max(0.0, self._down(now), self._held_until - now)
            return ModelHealth(model, state, self._failures, wait, self._error)

    def _admit(self, tokens: int, now: float) -> Admission | Wait:
        down = self._down(now)
        seconds = max(down, self._held_until - now, self._paced(tokens, now))
        if seconds > 0:
            return Wait(seconds, down > 0)
        if self._failures >= FAILURES:
            self._probe_until = now + self._lease
        admission = Admission(now, tokens)
        self._sent.append(admission)
        self._tokens += tokens
        self._since += tokens
        return admission

    def _take_back(self, admission: Admission) -> None:
        if admission.recent:
            self._sent = deque(other for other in self._sent if other is not admission)
            self._tokens -= admission.tokens
            admission.recent = False
        self._since = max(0, self._since - admission.tokens)
        if admission.at >= self._down_until:
            self._probe_until = 0.0

    def _recover(self) -> None:
        self._failures = self._trips = 0
        self._down_until = self._probe_until = 0.0
        self._error = None

    def _down(self, now: float) -> float:
        """Return how long the breaker keeps the model from being asked."""
        if self._failures < FAILURES or not self._cooldown:
            return 0.0
        if now < self._down_until:
            return self._down_until - now
        return min(PROBE, max(0.0, self._probe_until - now))

    def _paced(self, tokens: int, now: float) -> float:
        """Return how long the limits keep a request back."""
        while self._sent and self._sent[0].at <= now - MINUTE:
            old = self._sent.popleft()
            old.recent = False
            self._tokens -= old.tokens
        wait = 0.0
        most_requests = self._declared[0] or self._reported.requests
        if most_requests is not None and len(self._sent) >= most_requests:
            wait = self._sent[len(self._sent) - most_requests].at + MINUTE - now
        most_tokens = self._declared[1] or self._reported.tokens
        if most_tokens is not None and self._sent and self._tokens + tokens > most_tokens:
            excess = self._tokens + tokens - most_tokens
            for admission in self._sent:
                excess -= admission.tokens
                if excess <= 0:
                    break
            wait = max(wait, admission.at + MINUTE - now)
        return max(wait, self._reported_wait(tokens, now))

    def _reported_wait(self, tokens: int, now: float) -> float:
        """Return how long to wait where the provider said that little remains: others may share the account."""
        said = self._reported
        wait = 0.0
        if said.requests_left == 0 and said.requests_reset is not None:
            wait = self._reported_at + said.requests_reset - now
        if said.tokens_left is not None and said.tokens_reset is not None and said.tokens:
            missing = min(tokens, said.tokens) + self._since - said.tokens_left
            if missing > 0:
                wait = max(wait, self._reported_at + min(said.tokens_reset, missing * 60 / said.tokens) - now)
        return wait


def _plausible(said: RateLimits) -> RateLimits:
    """Return what can be believed of reported limits: none of zero, and no wait beyond the longest."""

    def seconds(reset: float | None) -> float | None:
        return None if reset is None or not reset >= 0 else min(reset, LONGEST)

    return replace(
        said,
        requests=said.requests or None,
        tokens=said.tokens or None,
        requests_reset=seconds(said.requests_reset),
        tokens_reset=seconds(said.tokens_reset),
    )
