"""Retry one request while a retry can help and time is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..errors import Attempt, BackendError, BadResponseError, EmbedRouterError
from ..events import Events, RequestRetried
from ..limits import RetryPolicy
from ..types import Candidate
from ._attempt import OneAttempt
from ._call import Call, Embedded, SizedText

FIRST_CONTACT = 1.0
"""Seconds for which a server is tried that has not answered this process yet: one that starts, or a wrong address."""


@dataclass(slots=True)
class Tried:
    """The result of all attempts of one model."""

    embedded: Embedded = field(default_factory=Embedded)
    attempts: list[Attempt] = field(default_factory=list)
    """The failed requests, in order."""
    failure: EmbedRouterError | None = None
    """The error of the texts without a vector."""
    unusable: Sequence[SizedText] = ()
    """Texts whose vectors cannot be used; the failure is an answer."""
    may_wait: bool = False
    """Whether the model was given up because it is busy, and could be waited for."""

    def add(self, other: Tried) -> None:
        """Add the result of another request."""
        self.embedded.add(other.embedded)
        self.attempts += other.attempts
        self.failure, self.may_wait = other.failure, other.may_wait


class Retries:
    """Repeat one request until an answer arrives, or the retry policy ends the attempts."""

    def __init__(
        self,
        policy: RetryPolicy,
        clock: Callable[[], float],
        random: Callable[[], float],
        events: Events,
        following: OneAttempt,
    ) -> None:
        self._policy, self._clock, self._random = policy, clock, random
        self._events, self._following = events, following

    async def request(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], patient: bool, *, once: bool = False
    ) -> Tried:
        """Return the vectors of the texts, or of the first texts where the rate limit admits only these.

        Of an answer with vectors that cannot be used the others are kept. The texts of the former are sent once more,
        alone: a server may fail for a moment, or because of the texts beside them.

        Args:
            patient: whether to wait for an open circuit, and for a busy model until the time is up.
            once: whether failures other than those of a busy model are not retried.
        """
        tried = Tried()
        number, busy, spoilt, left = 0, 0, 0, self._policy.timeout
        first_failed = 0.0
        while True:
            number += 1
            outcome = await self._following.make(call, candidate, texts, number, left, patient)
            left -= outcome.seconds
            tried.embedded.add(outcome.embedded)
            tried.failure = outcome.error
            if outcome.error is None or not isinstance(outcome.error, BackendError):
                return tried
            tried.attempts.append(Attempt(candidate.name, outcome.error, outcome.cost))
            bad: Sequence[int] = ()
            if isinstance(outcome.error, BadResponseError):
                bad = outcome.error.indices or (range(len(texts)) if spoilt else ())
            tried.unusable = [texts[index] for index in bad]
            texts, spoilt = tried.unusable or texts, spoilt + bool(bad)
            if not outcome.sent or (once and not outcome.error.busy) or (bad and spoilt > 1):
                return tried
            busy += outcome.error.busy and patient and self._policy.is_patient
            counted = number if number - busy >= self._policy.attempts else min(number, self._policy.attempts - 1)
            chance = self._random()
            wait = self._policy.wait(counted, outcome.error, chance)
            if wait is not None and number > counted:  # still busy, however short the waits are that it asks for
                wait = max(wait, self._policy.backoff(counted, chance))
            now = self._clock()
            first_failed = now if number == 1 else first_failed
            if outcome.error.unreached and wait is not None and now - first_failed + wait > FIRST_CONTACT:
                wait = None
            if wait is None or wait >= min(left, call.seconds_left(now)):
                tried.may_wait = outcome.error.busy and not patient and self._policy.is_patient
                return tried
            error = outcome.error
            self._events.emit(
                RequestRetried,
                **call.about(candidate),
                error=type(error).__name__,
                status=error.status,
                attempt=number,
                seconds=wait,
            )
            await call.effects.sleep(wait)
            left -= self._clock() - now
