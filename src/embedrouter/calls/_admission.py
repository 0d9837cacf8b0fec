"""Wait until a request may go out: a free slot, the rate limit, an open circuit; and what all workers share.

A request is admitted in its process first (``ModelLimits``), then by the limits that the workers share, where there are
such. The shared limits are asked again with the same ticket until they admit it. While their server does not answer,
requests go out as the process alone admits them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Literal

from ..errors import BackendError, CircuitOpenError, RequestTimeoutError
from ..events import LimitWaited
from ..limits import MINUTE, Admission, Held, ModelLimits, SharedModelLimits
from ..types import Candidate
from ._call import Call, SizedText
from ._shared_state import SharedState
from ._wiring import Wiring

LEASE = 10.0
"""Seconds beyond a request's timeout after which its worker counts as dead."""
LONGEST_SLEEP = 15.0
"""Seconds after which a waiting request asks again, at the latest: it loses its place otherwise."""


class Admitting:
    """Wait for the admission of requests.

    Args:
        limits: those of each candidate in this process, by its index.
        state: asks the server of the shared limits.
    """

    def __init__(self, wiring: Wiring, limits: Mapping[int, ModelLimits], state: SharedState | None = None) -> None:
        self._wiring, self._limits, self._clock, self._state = wiring, limits, wiring.clock, state

    async def admit(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], left: float, patient: bool
    ) -> tuple[Admission | BackendError, float]:
        """Wait until a request may go out; return the seconds of the wait after HTTP 429, too, which count as attempts.

        Args:
            left: seconds that its attempts may take.
            patient: whether to wait for an open circuit, and for minutes as the provider asks.
        """
        admission, held = await self._admit_here(call, candidate, texts, left, patient)
        limits = self._limits[candidate.index]
        if self._state is None or not isinstance(limits, SharedModelLimits) or not isinstance(admission, Admission):
            return admission, held
        left -= held
        try:
            refusal, more = await self._admit_everywhere(call, candidate, limits, self._state, admission, left, patient)
        except BaseException:
            limits.release(admission)
            raise
        if refusal is not None:
            limits.release(admission)
        return refusal or admission, held + more

    async def _admit_everywhere(
        self,
        call: Call,
        candidate: Candidate,
        limits: SharedModelLimits,
        state: SharedState,
        admission: Admission,
        left: float,
        patient: bool,
    ) -> tuple[BackendError | None, float]:
        """Wait for the limits that the workers share, with a ticket that the admission keeps."""
        admission.ticket = ticket = limits.ticket(admission, candidate.timeout + LEASE)
        began = now = self._clock()
        last: Held | None = None
        refused_for = 0.0
        while True:
            asked = await state.ask(call.effects, call.seconds_left(now), limits.shared.admit, ticket)
            now = self._clock()
            if asked is None and call.seconds_left(now) > 0:
                admission.ticket = None  # as this process alone admits it
                return None, refused_for
            held = None if asked is None else asked.value
            if asked is not None and held is None:
                if last is not None:
                    limit: Literal["concurrency limit", "rate limit"]
                    limit = "concurrency limit" if last.reason == "concurrency limit" else "rate limit"
                    self._wiring.events.emit(LimitWaited, **call.about(candidate), limit=limit, seconds=now - began)
                return None, refused_for
            seconds, reason = (held.seconds, held.reason) if held is not None else (0.0, "rate limit")
            if seconds >= call.seconds_left(now):
                return _too_late(candidate, seconds, f"its {reason}, which all workers share"), refused_for
            if reason == "HTTP 429":
                refused_for += seconds
                if refused_for > left or (seconds > MINUTE and not patient):
                    story = (
                        f"not called for {refused_for:.1f} s, because it answered HTTP 429 to this or another worker"
                    )
                    return CircuitOpenError(story, model=candidate.name), refused_for
            last = held
            await call.effects.sleep(min(seconds, LONGEST_SLEEP))
            now = self._clock()

    async def _admit_here(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], left: float, patient: bool
    ) -> tuple[Admission | BackendError, float]:
        """Wait for a free slot, for the rate limit, and for the end of an open circuit."""
        began, refused_for = self._clock(), 0.0
        limits, slot = self._limits[candidate.index], None
        limit: Literal["rate limit", "concurrency limit", "open circuit"] | None = None
        refusal = limits.refusal
        tokens = sum(item.tokens for item in texts)
        try:
            while True:
                call.effects.check()
                now = self._clock()
                answer = limits.admit(
                    tokens,
                    now,
                    texts=len(texts),
                    least=texts[0].tokens,
                    slot=slot,
                    loop=call.effects.loop,
                    blocked_loop=call.effects.blocked_loop,
                )
                if isinstance(answer, Admission):
                    if limit is not None:
                        self._wiring.events.emit(LimitWaited, **call.about(candidate), limit=limit, seconds=now - began)
                    return answer, refused_for
                if limits.refusal is not refusal and limits.refusal is not None:
                    return copy(limits.refusal), refused_for
                if answer.slot is not None:
                    slot, seconds, limit = answer.slot, answer.seconds, "concurrency limit"
                    if call.seconds_left(now) <= 0:
                        return _too_late(candidate, 0.0, "its concurrency limit"), refused_for
                    await call.effects.wait_for([slot], min(seconds, call.seconds_left(now)))
                    continue
                limit = "open circuit" if answer.circuit_open else "rate limit"
                until = now + answer.seconds
                long = answer.circuit_open or answer.seconds > MINUTE  # as the provider requests
                if long and (not patient or answer.unreached or until > began + left):
                    reason = "because it keeps failing" if answer.circuit_open else "as its provider asks"
                    last = f": {answer.unreached}" if answer.unreached else ""
                    story = f"not called for {answer.seconds:.1f} s, {reason}{last}"
                    return CircuitOpenError(story, model=candidate.name), refused_for
                refused_for += answer.seconds if answer.refused else 0.0
                if refused_for > left:
                    story = f"not called for {answer.seconds:.1f} s more, because it keeps answering HTTP 429"
                    return CircuitOpenError(story, model=candidate.name), refused_for
                if call.deadline is not None and until > call.deadline:
                    reason = "it keeps failing" if answer.circuit_open else "its rate limit"
                    return _too_late(candidate, answer.seconds, reason), refused_for
                await call.effects.sleep(answer.seconds)
        finally:
            if slot is not None:
                limits.give_up(slot)


def _too_late(candidate: Candidate, seconds: float, reason: str) -> RequestTimeoutError:
    return RequestTimeoutError(
        f"the time allowed ends before the next request may go out, in {seconds:.1f} s ({reason})",
        model=candidate.name,
        perhaps_billed=False,
    )
