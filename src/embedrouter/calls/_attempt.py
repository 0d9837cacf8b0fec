"""Make one attempt: wait for admission, reserve money, send the request, store the answer and book its cost.

An answer is validated before use, and is in the cache and in the ledger before the next decision.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import accumulate

from ..cache import key_function, same_name
from ..errors import (
    BackendError,
    BadResponseError,
    BudgetExceededError,
    EmbedRouterError,
    RateLimitedError,
    RequestTimeoutError,
    SpaceMismatchError,
)
from ..events import BillImplausible, BudgetRefused
from ..limits import INSTANT, Admission, ModelLimits
from ..models import own_answer
from ..providers import never_sent
from ..spending import Charge, Refusal, cost, usage_of
from ..types import Answer, Candidate, Entry, Found, Origin, Spending
from ._admission import Admitting
from ._answer import MISSING, billed, fault, has_other_length, shares, unusable
from ._call import Call, Embedded, Limiter, SizedText
from ._events import RequestEvents
from ._learned import Learned
from ._shared_state import SharedState
from ._wiring import Wiring


@dataclass(slots=True)
class Outcome:
    """The outcome of one attempt."""

    embedded: Embedded = field(default_factory=Embedded)
    error: EmbedRouterError | None = None
    cost: Decimal | None = Decimal(0)
    """Cost of the answer in US dollars, zero without an answer; ``None`` where the price is unknown."""
    seconds: float = 0.0
    """Duration from the admission on, and the wait after HTTP 429 before; without the time in the queue."""
    sent: bool = False
    """Whether a request was made: this one, or another call's that finds out for all."""


class OneAttempt:
    """Make one request to one model.

    Args:
        wiring: the backends, the cache and the accounts; an open circuit is waited for as long as a retry may take.
        limits: those of each candidate in this process, by its index.
        learned: is told which candidates give usable vectors.
        state: asks the server of the limits that workers share.
    """

    def __init__(
        self,
        wiring: Wiring,
        limits: Mapping[int, ModelLimits],
        learned: Learned,
        state: SharedState | None = None,
    ) -> None:
        self._wiring, self._limits, self._learned = wiring, limits, learned
        self._cache, self._ledger, self._clock = wiring.cache, wiring.ledger, wiring.clock
        self._served, self._tell = wiring.served, RequestEvents(wiring.events)
        self._admission = Admitting(wiring, limits, state)
        self._warned: set[str] = set()
        """The models of which an implausible bill was logged."""

    async def make(
        self, call: Call, candidate: Candidate, texts: Sequence[SizedText], number: int, left: float, patient: bool
    ) -> Outcome:
        """Make attempt ``number`` (from 1), which may take ``left`` seconds."""
        admission, held = await self._admission.admit(call, candidate, texts, left, patient)
        left -= held
        if isinstance(admission, BackendError):
            return Outcome(error=admission, sent=isinstance(admission, RateLimitedError), seconds=held)
        try:
            if call.limiter is not None and not candidate.local:
                await _turn(call, call.limiter)
            began = self._clock()
            outcome = await self._send(call, candidate, _first(texts, admission), number, left, admission)
        finally:
            self._limits[candidate.index].release(admission)
        outcome.seconds = held + self._clock() - began
        return outcome

    async def _send(
        self,
        call: Call,
        candidate: Candidate,
        texts: Sequence[SizedText],
        number: int,
        left: float,
        admission: Admission,
    ) -> Outcome:
        timeout = min(candidate.timeout, left, call.seconds_left(self._clock()))
        if timeout < INSTANT:  # an event loop may wake a call a little early
            return Outcome(error=_used_up(candidate))
        spending = _spending(call, candidate, texts, number, timeout)
        if call.unaffordable is not None and spending.amount != 0:
            return Outcome(error=call.unaffordable)
        reserved: list[int | Refusal] = []
        sent = booked = False

        def reserve() -> None:
            reserved.append(self._ledger.reserve(self._wiring.budget, spending))

        try:
            await call.effects.run_blocking(reserve)
            (reservation,) = reserved
            if isinstance(reservation, Refusal):
                about = call.about(candidate)
                self._wiring.events.emit(BudgetRefused, **about, cost=spending.amount, reason=reservation)
                refused = BudgetExceededError(f"{candidate.name} was not called: {reservation}", tag=reservation.tag)
                return Outcome(error=refused)
            call.effects.check()
            timeout = min(timeout, call.seconds_left(self._clock()))  # another process may have held the ledger's lock
            if timeout < INSTANT:
                booked = True
                return await self._book(call, candidate, texts, spending, reservation, _used_up(candidate))
            sent, began = True, self._clock()
            with self._tell.sent(call, candidate, spending, self._wiring.backends[candidate.index]):
                outcome = await self._request(call, candidate, texts, timeout, admission, spending)
                if isinstance(outcome, Answer) and outcome.implausible is not None:
                    self._tell_of_bill(call, candidate, spending, outcome.implausible)
                booked, seconds = True, self._clock() - began
                return await self._book(call, candidate, texts, spending, reservation, outcome, seconds)
        except BaseException as stopped:  # or a defect in a backend
            if not booked and reserved and isinstance(reserved[0], int):
                perhaps_billed = sent and not never_sent(stopped)
                if isinstance(stopped, GeneratorExit):  # the event loop is gone
                    self._end(reserved[0], perhaps_billed)
                else:
                    await call.effects.run_blocking(self._end, reserved[0], perhaps_billed)
                if perhaps_billed:
                    self._tell.unconfirmed(call, candidate, spending, stopped)
            elif sent and not isinstance(stopped, EmbedRouterError):
                self._tell.failed(call, candidate, spending, stopped, self._clock() - began)
            raise

    def _end(self, reservation: int, perhaps_billed: bool) -> None:
        """End the reservation of a request without an answer."""
        if perhaps_billed:
            self._ledger.mark_unconfirmed(reservation)
        else:
            self._ledger.release(reservation)

    async def _request(
        self,
        call: Call,
        candidate: Candidate,
        texts: Sequence[SizedText],
        timeout: float,
        admission: Admission,
        spending: Spending,
    ) -> Answer | EmbedRouterError:
        """Send the request, and record its outcome in the model's limits."""
        limits, backend = self._limits[candidate.index], self._wiring.backends[candidate.index]
        began = self._clock()
        try:
            sent = [item.text for item in texts]
            answer = own_answer(await call.effects.request(backend, sent, call.input_type, timeout))
        except BaseException as error:
            now = self._clock()
            self._tell.failed(call, candidate, spending, error, now - began)
            if isinstance(error, BackendError):
                hurried = isinstance(error, RequestTimeoutError) and timeout < candidate.timeout
                if state := limits.failed(admission, error, now, counts=not hurried):
                    self._tell.circuit(call, candidate, state, limits.health(candidate.name, now), error)
            if isinstance(error, EmbedRouterError):
                return error
            if not never_sent(error):
                limits.unanswered(admission, now)
            raise
        tokens, implausible = billed(answer, candidate, texts)
        now = self._clock()
        if state := limits.answered(admission, tokens, answer.limits, now):
            self._tell.circuit(call, candidate, state, limits.health(candidate.name, now))
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
        seconds: float = 0.0,
    ) -> Outcome:
        """Store the vectors of an answer, and replace the reservation by the billed cost."""
        if not isinstance(outcome, Answer):
            unconfirmed = isinstance(outcome, BackendError) and outcome.perhaps_billed
            await call.effects.run_blocking(self._end, reservation, unconfirmed)
            if unconfirmed:
                self._tell.unconfirmed(call, candidate, spending, outcome)
            if not isinstance(outcome, BackendError):
                raise outcome
            return Outcome(error=outcome, sent=True)
        tokens = spending.tokens if outcome.tokens is None else outcome.tokens
        dimensions = candidate.space.dimensions
        wrong = fault(outcome, len(texts), candidate)
        bad: dict[int, str] = {}
        found: dict[str, Found] = {}
        if wrong is None:
            bad = unusable(outcome.vectors)
            parts = shares(tokens, [item.tokens for item in texts])
            origin = Origin(candidate, cached=False)
            rows = enumerate(zip(texts, outcome.vectors, parts, strict=True))
            found = {
                item.text: Found(vector, share, origin) for index, (item, vector, share) in rows if index not in bad
            }
        keep = partial(self._keep, call, candidate, found, outcome, reservation, tokens)
        amount, other = await call.effects.run_blocking(keep)
        charge = Charge(tokens, amount)
        self._wiring.totals.add(usage_of([charge]))
        embedded = Embedded({} if other else found, [charge])
        call.report(embedded)
        if embedded.found:
            self._learned.useful.add(candidate.index)
        if other is None and wrong is None and not bad:
            self._tell.answered(call, candidate, spending, tokens, amount, seconds, outcome.model or "")
            return Outcome(embedded, cost=amount, sent=True)
        length = has_other_length(outcome.vectors, len(texts), dimensions)
        if length and len(texts) == 1 and candidate.index in self._learned.useful:
            wrong, bad = None, {0: MISSING}  # other texts have vectors of the right length
        error = other or BadResponseError(
            wrong or "; ".join(dict.fromkeys(bad.values())),
            model=candidate.name,
            retryable=not (candidate.repeats or (length and not bad)),  # what comes again would be paid for again
            indices=list(bad),
        )
        self._tell.failed(call, candidate, spending, error, seconds, amount)
        if isinstance(other, SpaceMismatchError):
            first = self._served.known(candidate.name, candidate.fingerprint)
            self._tell.changed(call, candidate, "name", first, outcome.model)
        if other is not None:
            raise other
        if length and not bad:
            self._tell.changed(call, candidate, "number of dimensions", dimensions, outcome.vectors.shape[1])
        return Outcome(embedded, error, amount, sent=True)

    def _tell_of_bill(self, call: Call, candidate: Candidate, spending: Spending, reported: str) -> None:
        """Report that a bill cannot be true, once for each model."""
        if candidate.name not in self._warned:
            self._warned.add(candidate.name)
            about, texts, tokens = call.about(candidate), spending.texts, spending.tokens
            self._wiring.events.emit(BillImplausible, **about, reported=reported, texts=texts, tokens=tokens)

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
        forget = f"remove {path}" if path else "run: embedrouter doctor --accept"
        return SpaceMismatchError(
            f"{candidate.name} was served as {first!r} before, and now as {name!r}: the vectors may be of another "
            "space, and were not kept. Load the former model; or, if both names mean one model, declare "
            f"Model(…, served_as=[{name!r}]); or embed everything again, and {forget}."
        )

    def _keep(
        self,
        call: Call,
        candidate: Candidate,
        found: Mapping[str, Found],
        answer: Answer,
        reservation: int,
        tokens: int,
    ) -> tuple[Decimal | None, EmbedRouterError | None]:
        """Store vectors and book their cost; vectors of another model than before are not stored."""
        other: EmbedRouterError | None = None
        try:
            other = self._other_model(candidate, answer.model)
            if found and other is None and self._cache.store is not None:
                key = key_function(candidate, call.input_type, dtype=self._cache.dtype)
                kept = self._cache.write({key(text): Entry(item.vector, item.tokens) for text, item in found.items()})
                if not kept and self._cache.must_keep:
                    other = self._cache.refusal()
        finally:
            amount = self._ledger.settle(
                reservation,
                tokens,
                cost(tokens, candidate.price),
                answer.implausible,
                reported=answer.tokens is not None,
            )
        return amount, other


def _used_up(candidate: Candidate) -> RequestTimeoutError:
    story = "the time allowed was used up before the request"
    return RequestTimeoutError(story, model=candidate.name, perhaps_billed=False)


def _first(texts: Sequence[SizedText], admission: Admission) -> Sequence[SizedText]:
    """Return the first texts that are admitted, at least one text."""
    together = list(accumulate(item.tokens for item in texts))
    return texts[: max(1, min(admission.texts, bisect_right(together, admission.tokens)))]


async def _turn(call: Call, limiter: Limiter) -> None:
    """Wait until a framework's rate limiter allows one request."""
    turn = limiter(call.effects.loop)
    try:
        await call.effects.wait_for([turn], None)
        turn.result()
    finally:
        turn.cancel()  # where the call was stopped


def _spending(call: Call, candidate: Candidate, texts: Sequence[SizedText], number: int, timeout: float) -> Spending:
    tokens = sum(item.tokens for item in texts)
    return Spending(
        model=candidate.name,
        input_type=call.input_type,
        tier=candidate.tier,
        tag=call.tag,
        texts=len(texts),
        pieces=sum(item.is_piece for item in texts),
        tokens=tokens,
        exact=call.exact if candidate.index == call.first.index else None,
        amount=cost(tokens, candidate.price),
        free_tokens=candidate.free_tokens,
        attempt=number,
        timeout=timeout,
    )
