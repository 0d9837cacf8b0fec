"""One request, from the first candidate to the vectors.

``send`` takes the texts of one request through the candidates, cheapest first. An answer is checked, written to the
cache and booked before anything else is decided. A failed call arrives as a value, so that what follows from it reads
as a table: try again after a pause, go to the next candidate, or stop.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import accumulate

import numpy as np

from ..errors import (
    Attempt,
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    CircuitOpenError,
    EmbedRouterError,
    InputRejectedError,
    NoModelAvailableError,
    RequestTimeoutError,
)
from ..limits import MINUTE, Admission, Wait
from ..spending import cost
from ..types import (
    Answer,
    Candidate,
    Entry,
    Origin,
    OverlongPolicy,
    Spending,
    Vectors,
)
from ._effects import Admit, Call, Flow, Pause, Read, Reserve, Settle
from ._job import Charge, Item, Job
from ._plan import listed, pack

__all__ = ["fault", "look_up", "packed", "rejection", "send"]

HOPELESS = 24
"""Refusals of one request and its parts, with none embedded, after which no more are tried: every half had its turn."""

SLICE = 256
"""Keys read at once: few enough that their rows are copied while the processor still has them at hand."""

logger = logging.getLogger("embedrouter")


def send(job: Job, items: Sequence[Item], on_too_long: OverlongPolicy) -> Flow[None]:
    """Take the texts of one request through the candidates until they have vectors.

    A candidate that keeps failing is asked after the others. Where the user allows it, queries that no candidate can
    embed are answered by lower tiers, best first: from the cache and then by a call.
    """
    failures: list[EmbedRouterError] = []
    demoted: list[Candidate] = []
    dearest: Decimal | None = None
    for candidate, patient in _turns(job, demoted):
        if candidate.rank < job.rank:
            if not job.may_degrade(*failures):
                continue
            yield from look_up(job, [item.text for item in items], candidate)
            items = [item for item in items if item.text not in job.found]
            if not items:
                return
        if dearest is not None and (candidate.price is None or candidate.price > dearest):
            continue
        if failures:
            logger.warning("embedding with %s instead, after %s", candidate.name, type(failures[-1]).__name__)
        failure, items = yield from _through(job, candidate, items, on_too_long, patient)
        match failure:
            case None:
                return
            case CircuitOpenError() if not patient:
                demoted.append(candidate)
            case AuthenticationError():  # a missing key is never a silent step to a dearer model
                dearest = candidate.price if candidate.price is not None else Decimal(0)
        failures.append(failure)
    last = failures[-1]
    if isinstance(last, AuthenticationError) or all(isinstance(failure, BudgetExceededError) for failure in failures):
        raise failures[0] if isinstance(last, BudgetExceededError) else last
    raise NoModelAvailableError(
        f"No model could embed {len(items)} of the texts; {len(job.attempts)} requests failed. What was answered is in "
        "the cache, so the same call continues from there.",
        attempts=job.attempts,
    ) from last


def _turns(job: Job, demoted: Sequence[Candidate]) -> Iterator[tuple[Candidate, bool]]:
    """Return the candidates in the order in which they are asked, and whether to wait for one that keeps failing."""
    able = job.candidates
    for candidate in able:
        yield candidate, len(able) == 1 and not job.may_degrade(CircuitOpenError(""))
    for candidate in job.lesser:
        yield candidate, False
    for candidate in [*demoted]:
        yield candidate, True


def look_up(job: Job, texts: Sequence[str], candidate: Candidate, policy: str = "") -> Flow[None]:
    """Enter what the cache has of one model: its own vectors, then the beginnings of longer ones."""
    if not job.rules.cached:
        return
    own = candidate.space.dimensions
    origin = Origin(candidate, cached=True, shortened=bool(policy))
    for length, fingerprint in ((own, candidate.fingerprint), *candidate.longer):
        missing = job.missing(texts)
        if not missing:
            return
        key = job.key(candidate, fingerprint=fingerprint, policy=policy)
        keys = {key(text): text for text in missing}
        names = list(keys)
        for start in range(0, len(names), SLICE):
            entries: Mapping[bytes, Entry] = yield Read(names[start : start + SLICE], length)
            vectors = ((keys[name], vector, tokens) for name, (vector, tokens) in entries.items())
            job.enter(vectors if length == own else _beginnings(vectors, own), origin)
        job.remember(missing)


def _beginnings(vectors: Iterable[tuple[str, Vectors, int]], length: int) -> Iterator[tuple[str, Vectors, int]]:
    """Return the first numbers of vectors, scaled to length 1."""
    for text, vector, tokens in vectors:
        beginning = vector[:length]
        norm = np.linalg.norm(beginning)
        if norm:
            yield text, np.asarray(beginning / norm, np.float32), tokens


def _through(
    job: Job, candidate: Candidate, items: Sequence[Item], on_too_long: OverlongPolicy, patient: bool
) -> Flow[tuple[EmbedRouterError | None, Sequence[Item]]]:
    """Send texts to one model, in requests of its own size. Return what stopped it and the texts still to do.

    A request that is refused because of some of its texts is halved until they stand alone: the others are embedded.
    When one stands alone and none is embedded yet, the larger parts go first: perhaps it is not because of a text.
    """
    parts = packed(items, candidate)
    refusals, alone, embedded = 0, False, False
    while parts:
        part, *parts = parts
        failure = yield from _request(job, candidate, part, patient)
        if failure is None:
            embedded = True
            if later := [item for item in part if item.text not in job.found]:
                parts = [later, *parts]
        elif isinstance(failure, InputRejectedError):
            at_fault = {part[index].text for index in failure.indices}
            refusals += not at_fault
            if refusals >= HOPELESS and not embedded:
                job.rejected |= dict.fromkeys((item.text for part in [part, *parts] for item in part), failure)
                if not job.charges:  # other requests need not find out for themselves
                    raise rejection(job)
                return None, []
            if not at_fault and len(part) > 1:
                halves = [part[: len(part) // 2], part[len(part) // 2 :]]
                parts = [*parts, *halves] if alone and not embedded else [*halves, *parts]
                continue
            at_fault = at_fault or {part[0].text}
            parts = [*packed([item for item in part if item.text not in at_fault], candidate), *parts]
            if failure.too_long and on_too_long != "error":
                job.refused += at_fault
            else:
                job.rejected |= dict.fromkeys(at_fault, failure)
                alone = True
        else:
            return failure, [item for part in [part, *parts] for item in part]
    return None, []


def _request(job: Job, candidate: Candidate, items: Sequence[Item], patient: bool) -> Flow[EmbedRouterError | None]:
    """Make one request until it is answered, of all the texts or of the first ones, if only they may go out now.

    Args:
        patient: whether to wait for a model that keeps failing.

    Returns:
        ``None`` when ``job.found`` has the vectors; otherwise the last error: tries or time ran out, trying again is
        pointless, or the budget refused.
    """
    rules = job.rules
    spent_time = 0.0
    attempt = 0
    while True:
        attempt += 1
        admission: Admission | BackendError = yield from _admitted(job, candidate, items, patient)
        if isinstance(admission, BackendError):
            job.attempts.append(Attempt(candidate.name, admission))
            return admission
        began = rules.clock()
        timeout = min(candidate.timeout, _left(job, spent_time, began))
        items = _first_of(items, admission.tokens)
        texts = [item.text for item in items]
        spending = _spending(job, candidate, items, attempt, timeout)
        reservation: int | str | None = None
        try:
            if timeout <= 0:
                late = RequestTimeoutError(
                    "the time allowed was used up before the request", model=candidate.name, perhaps_billed=False
                )
                job.attempts.append(Attempt(candidate.name, late))
                return late
            if job.unaffordable is not None and spending.amount != 0:
                return job.unaffordable
            reservation = yield Reserve(spending)
            if isinstance(reservation, str):
                return BudgetExceededError(f"{candidate.name} was not called: {reservation}")
        finally:
            if not isinstance(reservation, int):
                rules.withdraw(candidate, admission)
        assert isinstance(reservation, int)
        try:
            outcome: Answer | EmbedRouterError | Wait = yield Call(
                candidate, texts, job.input_type, timeout, job.deadline, reservation, admission
            )
        except GeneratorExit:  # stopped before the answer
            rules.abandon(reservation)
            raise
        if isinstance(outcome, Wait):  # nothing was sent
            yield Settle(reservation)
            attempt -= 1
            continue
        spent: Decimal | None = Decimal(0)
        if isinstance(outcome, Answer):
            tokens = spending.tokens if outcome.tokens is None else outcome.tokens
            spent = cost(tokens, candidate.price)
            charge = Charge(tokens, spent)
            job.charges.append(charge)
            wrong = fault(outcome, len(texts), candidate.space.dimensions)
            shares = _shares(tokens, [item.tokens for item in items])
            kept = {} if wrong else _entries(job, candidate, texts, outcome.vectors, shares)  # before anything else
            charge.amount = spent = yield Settle(reservation, (tokens, spent), entries=kept)
            if wrong is None:
                job.enter(zip(texts, outcome.vectors, shares, strict=True), Origin(candidate, cached=False))
                job.remember(texts)
                if job.shared:
                    job.land(texts)
                return None
            outcome = BadResponseError(wrong, model=candidate.name)
        else:
            yield Settle(reservation, unconfirmed=isinstance(outcome, BackendError) and outcome.perhaps_billed)
        if not isinstance(outcome, BackendError):
            raise outcome
        job.attempts.append(Attempt(candidate.name, outcome, spent))
        wait = rules.retry.wait(attempt, outcome, rules.chance())
        now = rules.clock()
        spent_time += now - max(began, admission.departed)
        if wait is None or wait >= _left(job, spent_time, now):
            return outcome
        yield Pause(wait)
        spent_time += rules.clock() - now


def _left(job: Job, spent: float, now: float) -> float:
    """Return the seconds that a request has, of which its tries have taken some: the time in line does not count."""
    own = job.rules.retry.timeout - spent
    return own if job.deadline is None else min(own, job.deadline - now)


def _admitted(job: Job, candidate: Candidate, items: Sequence[Item], patient: bool) -> Flow[Admission | BackendError]:
    """Wait until a request may go out: for the pace its provider bears, and for a model that keeps failing."""
    rules = job.rules
    began = rules.clock()
    tokens = sum(item.tokens for item in items)
    while True:
        answer: Admission | Wait = yield Admit(candidate, tokens, items[0].tokens)
        if isinstance(answer, Admission):
            return answer
        until = rules.clock() + answer.seconds
        down = answer.down or answer.seconds > MINUTE  # as its provider asked
        if down and (not patient or until > began + rules.retry.timeout):
            reason = "because it keeps failing" if answer.down else "as its provider asks"
            return CircuitOpenError(f"left alone for {answer.seconds:.1f} s, {reason}", model=candidate.name)
        if job.deadline is not None and until > job.deadline:
            why = "it keeps failing" if answer.down else "its rate limit"
            return RequestTimeoutError(
                f"the time allowed ends before the next request may go out, in {answer.seconds:.1f} s ({why})",
                model=candidate.name,
                perhaps_billed=False,
            )
        yield Pause(answer.seconds)


def _first_of(items: Sequence[Item], tokens: int) -> Sequence[Item]:
    """Return as many of the first texts as have so many tokens, at least one."""
    together = list(accumulate(item.tokens for item in items))
    return items[: max(1, bisect_right(together, tokens))]


def _spending(job: Job, candidate: Candidate, items: Sequence[Item], attempt: int, timeout: float) -> Spending:
    tokens = sum(item.tokens for item in items)
    return Spending(
        model=candidate.name,
        input_type=job.input_type,
        tier=candidate.tier,
        tag=job.tag,
        texts=len(items),
        tokens=tokens,
        amount=cost(tokens, candidate.price),
        free_tokens=candidate.free_tokens,
        attempt=attempt,
        timeout=timeout,
    )


def fault(answer: Answer, texts: int, dimensions: int) -> str | None:
    """Say what is wrong with an answer, or return ``None``."""
    vectors = answer.vectors
    if vectors.dtype != np.float32:
        return f"vectors of {vectors.dtype} came, not of float32"
    if vectors.shape != (texts, dimensions):
        return f"vectors of shape {vectors.shape} came for {texts} texts in {dimensions} dimensions"
    with np.errstate(over="ignore"):
        squares = np.vecdot(vectors, vectors).tolist()
    if min(squares) > 0 and sum(squares) < math.inf:  # else look closer: squares of sound numbers may overflow, too
        return None
    if not np.isfinite(vectors).all():
        return "a vector holds numbers that are not finite"
    if not vectors.any(axis=1).all():
        return "a vector is all zeros"
    return None


def _entries(
    job: Job, candidate: Candidate, texts: Sequence[str], vectors: Vectors, shares: Sequence[int]
) -> dict[bytes, Entry]:
    """Return what the cache is to keep of an answer."""
    if not job.rules.cached:
        return {}
    key = job.key(candidate)
    return {key(text): Entry(vector, share) for text, vector, share in zip(texts, vectors, shares, strict=True)}


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Split what a request was billed among its texts, in proportion, so that the shares add up to it."""
    whole = sum(weights) or 1
    shares, given, seen = [], 0, 0
    for weight in weights:
        seen += weight
        share = total * seen // whole - given
        shares.append(share)
        given += share
    return shares


def packed(items: Sequence[Item], candidate: Candidate) -> list[list[Item]]:
    """Split texts into requests that keep the candidate's limits."""
    tokens = [item.tokens for item in items]
    sized = candidate.limits.size is not None
    sizes = [len(item.text.encode()) if sized else 0 for item in items]
    return [list(items[part]) for part in pack(tokens, sizes, candidate.limits)]


def rejection(job: Job) -> InputRejectedError:
    """Return the error for all texts that were rejected, with their positions in the user's input and the reasons."""
    reasons: dict[str, list[str]] = {}
    for text, error in job.rejected.items():
        reasons.setdefault(str(error), []).append(text)
    stories = [f"{reason} (texts at {listed(job.positions(texts))})." for reason, texts in reasons.items()]
    errors = list(job.rejected.values())
    if any(error.too_long for error in errors) and job.rules.on_too_long == "error":
        stories.append("Split the text, or build the router with on_too_long='truncate' or 'mean'.")
    if job.charges:
        stories.append("The other texts were embedded and are in the cache.")
    first = errors[0]
    rejection = InputRejectedError(
        " ".join(stories),
        model=first.model,
        status=first.status,
        too_long=any(error.too_long for error in errors),
        indices=job.positions(list(job.rejected)),
    )
    rejection.__cause__ = first.__cause__
    return rejection
