"""Whether a model may be asked now: how its provider wants to be paced, and a breaker for what keeps failing.

A ``Gate`` stands in front of each model. It lets a request out when the last minute has room for it, under the limits
the user declared or the provider reports, and when no answer asked to wait. A request in flight counts as it was
estimated. Its minute begins with its answer, because nobody knows when before that it arrived, and from then on it
counts as billed: so no minute of the provider's holds more than the limit, however long the network takes. Until the
first answer, which may tell the limits, not much is let out.

After ``FAILURES`` failed requests in a row the model is left alone for a while, then one probe decides: an answer opens
the gate, a failure closes it for twice the time. Times are seconds of a monotonic clock and are passed in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from copy import copy
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import (
    BackendError,
    BadResponseError,
    InputRejectedError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from ..types import RateLimits

__all__ = ["FINEST", "MINUTE", "Admission", "Gate", "ModelHealth", "Wait"]

MINUTE = 60.5
"""Seconds in which a limit per minute must not be passed: a little more, because providers may count whole seconds."""
TRAVEL = 60.0
"""Seconds after which a request has arrived, answered or not. On a busy machine the first ones take several: an SDK is
imported and connections are made before anything is sent.
"""
FINEST = 40
"""Parts of a limit of tokens. Smaller requests fill it no better, and each of them takes a journey."""
AGAIN = 1.0
"""Seconds after which to ask again where an answer may change much: a probe's, or a bill below its estimate."""
UNKNOWN = 2**19
"""Tokens in flight at most, where there is more than one request, until an answer says what the limit is, if it does.
Accounts that pay may send a million or more in a minute."""
SOON = 0.05
"""Seconds after which to look for that answer again."""
SICK = (UnavailableError, RequestTimeoutError, BadResponseError)
INSTANT = 1e-6
"""Seconds that are none: a wait so short would not move a clock."""
FAILURES = 8
LONGEST = 300.0
"""Seconds that a model is left alone at most."""
STALE = 1.0
"""Seconds between admission and departure after which a request is admitted anew."""


@dataclass(slots=True, eq=False)
class Admission:
    """A request that may go out now."""

    at: float
    """When it was let out; after the answer, from when its minute counts."""
    tokens: int
    """As estimated, after the answer as billed. Fewer than were asked for where only the first of its texts may go."""
    departed: float = 0.0
    """When it went out, after it stood in line for its model."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A request that has to wait so many seconds before it asks again; ``down`` says that the model keeps failing."""

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
    """What it failed with last, without traceback and cause."""


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
        self._flying: OrderedDict[Admission, None] = OrderedDict()
        """Let out and not answered, oldest first."""
        self._landed: deque[Admission] = deque()
        """Answered in the last minute, oldest first."""
        self._flying_tokens = self._landed_tokens = 0
        self._since = 0
        """Tokens sent after the provider last reported what remains."""
        self._cooldown, self._lease = cooldown, lease
        self._heard = False
        """Whether there was an answer, or a failure that has nothing to do with the pace."""
        self._failures = self._trips = 0
        self._error: BackendError | None = None
        self._down_until = self._held_until = self._probe_until = 0.0

    def admit(self, tokens: int, now: float, *, least: int | None = None) -> Admission | Wait:
        """Let a request of so many tokens out, or say how long it has to wait.

        Args:
            least: the tokens of its first text, where a part of it may go before the rest. The admission says how many
                tokens may.
        """
        with self._lock:
            return self._admit(tokens, tokens if least is None else least, now)

    def depart(self, admission: Admission, now: float) -> Wait | None:
        """Let an admitted request out that had to stand in line, or take its admission back: it has to wait again."""
        with self._lock:
            if now - admission.at < STALE and now >= max(self._down_until, self._held_until):
                self._flying.move_to_end(admission)
                admission.at = admission.departed = now
                return None
            self._take_back(admission)
            answer = self._admit(admission.tokens, admission.tokens, now)
            if isinstance(answer, Wait):
                return answer
            del self._flying[answer]
            self._flying[admission] = None
            admission.at = admission.departed = now
            return None

    def withdraw(self, admission: Admission) -> None:
        """Forget a request that was admitted and not sent."""
        with self._lock:
            self._take_back(admission)

    def answered(self, admission: Admission, tokens: int | None, limits: RateLimits | None, now: float) -> None:
        """Note an answer: what was billed, and what the provider says of its limits."""
        with self._lock:
            self._recover()
            self._land(admission, tokens, now)
            self._heard = True
            if limits is not None:
                self._reported, self._reported_at, self._since = _plausible(limits), now, 0

    def failed(self, admission: Admission, error: BackendError, now: float, *, counts: bool = True) -> None:
        """Note a failure; ``counts`` is whether it may be the model's fault."""
        with self._lock:
            probed = admission.at >= self._down_until
            self._land(admission, None, now)
            self._heard = self._heard or not isinstance(error, RateLimitedError)
            if isinstance(error, InputRejectedError):  # an answer, too
                self._recover()
                return
            if isinstance(error, RateLimitedError):
                if error.retryable and error.retry_after:
                    self._held_until = max(self._held_until, now + min(error.retry_after, LONGEST))
                self._error = copy(error)
            elif counts and error.retryable and isinstance(error, SICK):
                self._failures += 1
                self._error = copy(error)
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

    def _admit(self, tokens: int, least: int, now: float) -> Admission | Wait:
        self._forget(now)
        down = self._down(now)
        tokens, pace = self._fitting(tokens, least, now)
        seconds = max(down, self._held_until - now, self._turn(now), pace)
        if seconds > 0:
            return Wait(seconds, down > 0)
        if self._failures >= FAILURES:
            self._probe_until = now + self._lease
        admission = Admission(now, tokens)
        self._flying[admission] = None
        self._flying_tokens += tokens
        self._since += tokens
        return admission

    def _take_back(self, admission: Admission) -> None:
        if admission in self._flying:
            del self._flying[admission]
            self._flying_tokens -= admission.tokens
        self._since = max(0, self._since - admission.tokens)
        if admission.at >= self._down_until:
            self._probe_until = 0.0

    def _land(self, admission: Admission, tokens: int | None, now: float) -> None:
        """Begin the minute of a request that has arrived by now."""
        if admission not in self._flying:  # it was out for so long that it is forgotten
            return
        del self._flying[admission]
        self._flying_tokens -= admission.tokens
        earlier = self._landed[-1].at if self._landed else 0.0
        admission.at = max(earlier, min(now, admission.at + TRAVEL))  # in order, or a wait for one would never end
        admission.tokens = admission.tokens if tokens is None else tokens
        self._landed.append(admission)
        self._landed_tokens += admission.tokens

    def _forget(self, now: float) -> None:
        """Drop what is older than a minute, and what nobody heard of again."""
        while self._landed and _ends(self._landed[0], now) < INSTANT:
            self._landed_tokens -= self._landed.popleft().tokens
        while self._flying and (oldest := next(iter(self._flying))).at + TRAVEL <= now - MINUTE:
            del self._flying[oldest]
            self._flying_tokens -= oldest.tokens

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
        return min(AGAIN, max(0.0, self._probe_until - now))

    def _turn(self, now: float) -> float:
        """Return how long the limit of requests keeps one back."""
        said = self._reported
        wait = 0.0
        if said.requests_left == 0 and said.requests_reset is not None:  # others may share the account
            wait = self._reported_at + said.requests_reset - now
        most = self._declared[0] or said.requests
        over = 0 if most is None else len(self._landed) + len(self._flying) + 1 - most
        if over > len(self._landed):
            return MINUTE
        return max(wait, _ends(self._landed[over - 1], now)) if over > 0 else wait

    def _fitting(self, tokens: int, least: int, now: float) -> tuple[int, float]:
        """Return how many of the tokens may go out next, and how long the limit of tokens keeps these back."""
        most = self._declared[1] or self._reported.tokens
        if most is None:
            unsure = self._flying and not self._heard and self._flying_tokens + tokens > UNKNOWN
            return tokens, SOON if unsure else 0.0
        room, wait = most - self._landed_tokens - self._flying_tokens, 0.0
        if tokens > room and least < tokens:
            tokens = min(tokens, max(room, least, most // FINEST))
            wait = self._more(now)
        wait = max(wait, self._free(min(tokens, most) - room, now))  # over the whole limit: its provider decides
        return tokens, max(wait, self._reported_wait(tokens, now))

    def _more(self, now: float) -> float:
        """Return how long it takes until more becomes free, if soon: one request then is better than two."""
        if self._flying:
            return AGAIN
        wait = _ends(self._landed[0], now) if self._landed else 0.0
        return wait if wait <= AGAIN else 0.0

    def _free(self, missing: int, now: float) -> float:
        """Return how long it takes until so many tokens are no longer of the last minute."""
        if missing <= 0:
            return 0.0
        wait = MINUTE if missing > self._flying_tokens else AGAIN  # bills are often below the estimates
        for admission in self._landed:
            missing -= admission.tokens
            if missing <= 0:
                return min(wait, _ends(admission, now))
        return wait

    def _reported_wait(self, tokens: int, now: float) -> float:
        """Return how long to wait where the provider said that few tokens remain: others may share the account."""
        said = self._reported
        if said.tokens_left is None or said.tokens_reset is None or not said.tokens:
            return 0.0
        missing = min(tokens, said.tokens) + self._since - said.tokens_left
        return self._reported_at + min(said.tokens_reset, missing * 60 / said.tokens) - now if missing > 0 else 0.0


def _ends(admission: Admission, now: float) -> float:
    """Return how long the minute of an answered request still takes."""
    return MINUTE - (now - admission.at)


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
