"""Make one attempt: wait for admission, reserve money, send the request, store the answer and book its cost.

An answer is validated before use, and is in the cache and in the ledger before the next decision.
"""

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import accumulate

import numpy as np

from ..cache import key_function, same_name
from ..errors import (
    BackendError,
    BadResponseError,
    BudgetExceededError,
    CircuitOpenError,
    EmbedRouterError,
    RateLimitedError,
    RequestTimeoutError,
    SpaceMismatchError,
)
from ..limits import INSTANT, MINUTE, Admission, ModelLimits
from ..models import own_answer, parse_token_count, plausible_count
from ..providers import never_sent
from ..spending import Charge, cost, usage_of
from ..types import Answer, Candidate, Entry, Found, Origin, Spending, Vectors
from ._call import Call, Embedded, SizedText
from ._wiring import Wiring

logger = logging.getLogger("embedrouter")


@dataclass(slots=True)
class Outcome:
    """The outcome of one attempt."""

    embedded: Embedded = field(default_factory=Embedded)
    error: EmbedRouterError | None = None
    cost: Decimal | None = Decimal(0)
    """Cost of the answer in US dollars, zero without an answer; ``None`` where the price is unknown."""
    seconds: float = 0.0
    """Duration from the admission on, without the time in the queue."""
    sent: bool = False
    """Whether a request was made: this one, or another call's that finds out for all."""


class OneAttempt:
    """Make one request to one model.

    Args:
        wiring: the backends, the cache and the accounts; an open circuit is waited for as long as a retry may take.
        limits: returns the limits of a candidate in this process.
    """

    def __init__(self, wiring: Wiring, limits: Callable[[Candidate], ModelLimits]) -> None:
        self._wiring, self._limits = wiring, limits
        self._cache, self._ledger, self._clock = wiring.cache, wiring.ledger, wiring.clock
        self._served = wiring.served
        self._warned: set[str] = set()
        """The models of which an implausible bill was logged."""

    async def make(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], number: int, left: float, patient: bool
    ) -> Outcome:
        """Make attempt ``number`` (from 1), which may take ``left`` seconds."""
        admission = await self._admitted(call, candidate, texts, left, patient)
        if isinstance(admission, BackendError):
            return Outcome(error=admission, sent=isinstance(admission, RateLimitedError))
        began = self._clock()
        try:
            outcome = await self._send(call, candidate, _first(texts, admission), number, left, admission)
        finally:
            self._limits(candidate).release(admission)
        outcome.seconds = self._clock() - began
        return outcome

    async def _admitted(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], left: float, patient: bool
    ) -> Admission | BackendError:
        """Wait for a free slot, for the rate limit, and for the end of an open circuit."""
        began = self._clock()
        limits, slot = self._limits(candidate), None
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
                    return answer
                if limits.refusal is not refusal and limits.refusal is not None:
                    return copy(limits.refusal)
                if answer.slot is not None:
                    slot, seconds = answer.slot, answer.seconds
                    if call.deadline is not None and now >= call.deadline:
                        return _too_late(candidate, 0.0, "its concurrency limit")
                    await call.effects.wait_for([slot], _least(seconds, call.deadline, now))
                    continue
                until = now + answer.seconds
                long = answer.circuit_open or answer.seconds > MINUTE  # as the provider requests
                if long and (not patient or until > began + left):
                    reason = "because it keeps failing" if answer.circuit_open else "as its provider asks"
                    return CircuitOpenError(f"not called for {answer.seconds:.1f} s, {reason}", model=candidate.name)
                if call.deadline is not None and until > call.deadline:
                    reason = "it keeps failing" if answer.circuit_open else "its rate limit"
                    return _too_late(candidate, answer.seconds, reason)
                await call.effects.sleep(answer.seconds)
        finally:
            if slot is not None:
                limits.give_up(slot)

    async def _send(
        self,
        call: Call,
        candidate: Candidate,
        texts: Sequence[SizedText],
        number: int,
        left: float,
        admission: Admission,
    ) -> Outcome:
        timeout = min(candidate.timeout, _least(left, call.deadline, self._clock()))
        if timeout < INSTANT:  # an event loop may wake a call a little early
            return Outcome(error=_used_up(candidate))
        spending = _spending(call, candidate, texts, number, timeout)
        if call.unaffordable is not None and spending.amount != 0:
            return Outcome(error=call.unaffordable)
        reserved: list[int | str] = []
        sent = booked = False

        def reserve() -> None:
            reserved.append(self._ledger.reserve(self._wiring.budget, spending))

        try:
            await call.effects.run_blocking(reserve)
            (reservation,) = reserved
            if isinstance(reservation, str):
                return Outcome(error=BudgetExceededError(f"{candidate.name} was not called: {reservation}"))
            call.effects.check()
            timeout = _least(timeout, call.deadline, self._clock())  # another process may have held the ledger's lock
            if timeout < INSTANT:
                booked = True
                return await self._book(call, candidate, texts, spending, reservation, _used_up(candidate))
            sent = True
            outcome = await self._request(call, candidate, texts, timeout, admission)
            if isinstance(outcome, Answer) and outcome.implausible is not None:
                self._warn_of_bill(candidate, spending, outcome.implausible)
            booked = True
            return await self._book(call, candidate, texts, spending, reservation, outcome)
        except BaseException as stopped:  # or a defect in a backend
            if not booked and reserved and isinstance(reserved[0], int):
                perhaps_billed = sent and not never_sent(stopped)
                if isinstance(stopped, GeneratorExit):  # the event loop is gone
                    self._end(reserved[0], perhaps_billed)
                else:
                    await call.effects.run_blocking(self._end, reserved[0], perhaps_billed)
            raise

    def _end(self, reservation: int, perhaps_billed: bool) -> None:
        """End the reservation of a request without an answer."""
        if perhaps_billed:
            self._ledger.mark_unconfirmed(reservation)
        else:
            self._ledger.release(reservation)

    async def _request(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], timeout: float, admission: Admission
    ) -> Answer | EmbedRouterError:
        """Send the request, and record its outcome in the model's limits."""
        limits, backend = self._limits(candidate), self._wiring.backends[candidate.index]
        try:
            sent = [item.text for item in texts]
            answer = own_answer(await call.effects.request(backend, sent, call.input_type, timeout))
        except BackendError as error:
            hurried = isinstance(error, RequestTimeoutError) and timeout < candidate.timeout
            limits.failed(admission, error, self._clock(), counts=not hurried)
            return error
        except EmbedRouterError as error:
            return error
        except BaseException as stopped:  # or a defect in a backend
            if not never_sent(stopped):
                limits.unanswered(admission, self._clock())
            raise
        tokens, implausible = _billed(answer, candidate, texts)
        limits.answered(admission, tokens, answer.limits, self._clock())
        vectors = self._cache.rounded(answer.vectors)
        return replace(answer, vectors=vectors, tokens=tokens, implausible=implausible)

    async def _book(
        self,
        call: Call,
        candidate: Candidate,
        texts: Sequence[SizedText],
        spending: Spending,
        reservation: int,
        outcome: Answer | EmbedRouterError,
    ) -> Outcome:
        """Store the vectors of an answer, and replace the reservation by the billed cost."""
        if not isinstance(outcome, Answer):
            unconfirmed = isinstance(outcome, BackendError) and outcome.perhaps_billed
            await call.effects.run_blocking(self._end, reservation, unconfirmed)
            if not isinstance(outcome, BackendError):
                raise outcome
            return Outcome(error=outcome, sent=True)
        tokens = spending.tokens if outcome.tokens is None else outcome.tokens
        wrong = fault(outcome, len(texts), candidate.space.dimensions)
        found: dict[str, Found] = {}
        if wrong is None:
            shares = _shares(tokens, [item.tokens for item in texts])
            origin = Origin(candidate, cached=False)
            rows = zip(texts, outcome.vectors, shares, strict=True)
            found = {item.text: Found(vector, share, origin) for item, vector, share in rows}
        keep = partial(self._keep, call, candidate, found, outcome.model, reservation, tokens, outcome.implausible)
        amount, other = await call.effects.run_blocking(keep)
        charge = Charge(tokens, amount)
        self._wiring.totals.add(usage_of([charge]))
        embedded = Embedded({} if other else found, [charge])
        call.report(embedded)
        if other is not None:
            raise other
        error = None
        if wrong is not None:  # another number of dimensions comes again, and would be paid for again
            retryable = not _other_length(outcome.vectors, len(texts), candidate.space.dimensions)
            error = BadResponseError(wrong, model=candidate.name, retryable=retryable)
        return Outcome(embedded, error, amount, sent=True)

    def _warn_of_bill(self, candidate: Candidate, spending: Spending, reported: str) -> None:
        """Log that a bill cannot be true, once for each model."""
        if candidate.name not in self._warned:
            self._warned.add(candidate.name)
            logger.warning(
                "%s reported %s billed tokens for %d texts of about %d tokens. The estimate is booked in place of such "
                "bills, and marked: embedrouter ledger show. Check the server, or the gateway before it.",
                candidate.name,
                reported,
                spending.texts,
                spending.tokens,
            )

    def _other_model(self, candidate: Candidate, name: str | None) -> SpaceMismatchError | None:
        """Return an error where the server answers with another model than before."""
        if name is None:
            return None
        model = candidate.name, candidate.fingerprint
        first = self._served.known(*model) or self._served.remember(*model, name)
        for allowed in (first, *candidate.served_as):
            if same_name(name, allowed):
                return None
        path = self._served.path(*model)
        forget = f"; or embed everything again, and remove {path}." if path else "."
        return SpaceMismatchError(
            f"{candidate.name} was served as {first!r} before, and now as {name!r}: the vectors may be of another "
            "space, and were not kept. Load the former model; or, if both names mean one model, declare "
            f"Model(…, served_as=[{name!r}]){forget}"
        )

    def _keep(
        self,
        call: Call,
        candidate: Candidate,
        found: Mapping[str, Found],
        name: str | None,
        reservation: int,
        tokens: int,
        implausible: str | None,
    ) -> tuple[Decimal | None, SpaceMismatchError | None]:
        """Store vectors and book their cost; vectors of another model than before are not stored."""
        other = None
        try:
            other = self._other_model(candidate, name)
            if found and other is None and self._cache.store is not None:
                key = key_function(candidate, call.input_type, dtype=self._cache.dtype)
                self._cache.write({key(text): Entry(item.vector, item.tokens) for text, item in found.items()})
        finally:
            amount = self._ledger.settle(reservation, tokens, cost(tokens, candidate.price), implausible)
        return amount, other


def fault(answer: Answer, texts: int, dimensions: int) -> str | None:
    """Describe the defect of an answer; return ``None`` for a valid answer."""
    vectors = answer.vectors
    if vectors.dtype != np.float32:
        return f"vectors of {vectors.dtype} came, not of float32"
    if _other_length(vectors, texts, dimensions):
        length = vectors.shape[1]
        return f"vectors of {length} dimensions came, not of {dimensions}: declare Model(…, dimensions={length})"
    if vectors.shape != (texts, dimensions):
        return f"vectors of shape {vectors.shape} came for {texts} texts in {dimensions} dimensions"
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors).tolist()  # np.vecdot needs numpy 2
    if min(squares) > 0 and sum(squares) < math.inf:  # otherwise look closer: squares of finite numbers may overflow
        return None
    if not np.isfinite(vectors).all():
        return "a vector holds numbers that are not finite"
    if not vectors.any(axis=1).all():
        return "a vector is all zeros"
    return None


def _other_length(vectors: Vectors, texts: int, dimensions: int) -> bool:
    """Return whether each text has a vector, and the vectors have another number of dimensions."""
    return vectors.ndim == 2 and len(vectors) == texts and vectors.shape[1] != dimensions


def _billed(answer: Answer, candidate: Candidate, texts: Sequence[SizedText]) -> tuple[int | None, str | None]:
    """Return the tokens to book, ``None`` for the estimate; and what was reported in their place, if no bill can be."""
    if answer.implausible is not None:
        return None, answer.implausible
    if candidate.local:  # counts by itself, and its estimate may be one of characters
        return parse_token_count(answer.tokens), None
    return plausible_count(answer.tokens, sum(item.tokens for item in texts), len(texts))


def _used_up(candidate: Candidate) -> RequestTimeoutError:
    story = "the time allowed was used up before the request"
    return RequestTimeoutError(story, model=candidate.name, perhaps_billed=False)


def _too_late(candidate: Candidate, seconds: float, reason: str) -> RequestTimeoutError:
    return RequestTimeoutError(
        f"the time allowed ends before the next request may go out, in {seconds:.1f} s ({reason})",
        model=candidate.name,
        perhaps_billed=False,
    )


def _least(seconds: float, deadline: float | None, now: float) -> float:
    return seconds if deadline is None else min(seconds, deadline - now)


def _first(texts: Sequence[SizedText], admission: Admission) -> Sequence[SizedText]:
    """Return the first texts that are admitted, at least one text."""
    together = list(accumulate(item.tokens for item in texts))
    return texts[: max(1, min(admission.texts, bisect_right(together, admission.tokens)))]


def _spending(call: Call, candidate: Candidate, texts: Sequence[SizedText], number: int, timeout: float) -> Spending:
    tokens = sum(item.tokens for item in texts)
    return Spending(
        model=candidate.name,
        input_type=call.input_type,
        tier=candidate.tier,
        tag=call.tag,
        texts=len(texts),
        tokens=tokens,
        amount=cost(tokens, candidate.price),
        free_tokens=candidate.free_tokens,
        attempt=number,
        timeout=timeout,
    )


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Split the billed tokens of a request in proportion to ``weights``; the shares add up to ``total``."""
    whole = sum(weights) or 1
    shares, given, seen = [], 0, 0
    for weight in weights:
        seen += weight
        share = total * seen // whole - given
        shares.append(share)
        given += share
    return shares
