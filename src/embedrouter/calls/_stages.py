"""The stages of one router in one process, each built with the next, and the state that its calls share."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex
from typing import Any

from ..errors import RateLimitedError
from ..limits import ModelLimits, SharedModelLimits
from ..types import Candidate, Found
from ._afford import Afford
from ._async import Tasks
from ._attempt import OneAttempt
from ._call import Stage
from ._claim import Claim
from ._isolate import Isolate
from ._learned import Learned
from ._look_up import CacheReader, LookUp
from ._micro_batch import MicroBatch
from ._recall import Recall
from ._retries import Retries
from ._send import Send
from ._share import Share
from ._shared_state import SharedState
from ._single_flight import SingleFlight
from ._size import Size
from ._sync import Started
from ._wiring import Wiring

NO_LIMITS = "each process keeps the limits by itself"
NO_CLAIMS = "a text that two processes need at the same moment is paid for twice"
"""What follows where the server of the shared limits, or claims, does not answer."""


class Stages:
    """The stages of one process, with the state that calls share."""

    def __init__(self, wiring: Wiring) -> None:
        clock = wiring.clock
        self.started = Started(max(candidate.concurrency for candidate in wiring.candidates))
        self.tasks = Tasks()
        state = None if wiring.shared is None else SharedState(wiring.events, "limits", NO_LIMITS, wiring.shared.place)
        self.states = [] if state is None else [state]
        """Of which the background work is waited for."""
        self.limits = {candidate.index: _limits(wiring, candidate, state) for candidate in wiring.candidates}
        claims: SingleFlight[Found] = SingleFlight()
        self.reader = CacheReader(wiring.cache, wiring.candidates, wiring.on_too_long)
        self.learned = Learned(wiring.events)
        attempt = OneAttempt(wiring, self.limits, self.learned, state)
        retries = Retries(wiring.retry, clock, wiring.random, wiring.events, attempt)
        send = Send(self.reader, wiring.degradation, wiring.events, Isolate(self.learned, retries))
        self.afford = Afford(wiring.ledger, wiring.budget, wiring.degradation, wiring.events, send)
        self.size = Size(wiring.backends, wiring.cache, self.reader, wiring.on_too_long, self.learned, self.afford)
        self.first: Stage = self.size
        if wiring.share:
            single = Share(claims, self.reader, clock, wiring.events, self._claimed(wiring))
            look_up: Stage = LookUp(self.reader, claims, single)
            if wiring.micro_batch_window > 0 and not wiring.budget.caps_calls:
                look_up = MicroBatch(wiring.micro_batch_window, clock, wiring.events, look_up)
            self.first = Recall(wiring.memory, look_up)

    def _claimed(self, wiring: Wiring) -> Stage:
        """Return the stage after the calls of this process: the other processes' where they share a cache."""
        if wiring.shared is None or wiring.cache.store is None:
            return self.size
        state = SharedState(wiring.events, "claims", NO_CLAIMS, wiring.shared.place)
        self.states.append(state)
        claims, dtype = wiring.shared.claims, wiring.cache.dtype
        return Claim(claims, state, self.reader, dtype, wiring.clock, wiring.events, self.size)


def _limits(wiring: Wiring, candidate: Candidate, state: SharedState | None) -> ModelLimits:
    """Return the limits of a model in this process, which are part of those of all workers where state is shared."""
    settings: dict[str, Any] = {
        "concurrency": candidate.concurrency,
        "requests": candidate.requests_per_minute,
        "texts": candidate.texts_per_minute,
        "tokens": candidate.tokens_per_minute,
        "cooldown": wiring.retry.cooldown,
        "lease": 2 * candidate.timeout,
        "backoff": _backoff(wiring),
    }
    if wiring.shared is None or state is None or candidate.local:
        return ModelLimits(**settings)
    return SharedModelLimits(wiring.shared.limits[candidate.index], state.start, token_hex(8), **settings)


def _backoff(wiring: Wiring) -> Callable[[int, RateLimitedError], float] | None:
    """Return how long no call asks a model after so many HTTP 429; ``None`` where the policy has no waits."""
    policy, random = wiring.retry, wiring.random

    def backoff(refusals: int, last: RateLimitedError) -> float:
        if last.retry_after and refusals < policy.attempts:
            return 0.0  # the wait that the provider asks for is kept anyway
        return min(policy.cooldown, policy.backoff(refusals, random()))

    return backoff if policy.cooldown and policy.is_patient else None
