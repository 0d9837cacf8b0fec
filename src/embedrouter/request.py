"""One request, from the first candidate to the vectors.

``send`` takes the texts of one request through the candidates, cheapest first. An answer is checked, written to the
cache and booked before anything else is decided. A failed call arrives as a value, so that what follows from it reads
as a table: try again after a pause, go to the next candidate, or stop.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import numpy as np

from .effects import Call, Flow, Pause, Read, Reserve, Settle, Write
from .errors import (
    Attempt,
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    EmbedRouterError,
    InputRejectedError,
    NoModelAvailableError,
    RequestTimeoutError,
)
from .job import Charge, Found, Item, Job
from .keys import keyer
from .plan import listed, pack
from .prices import cost
from .types import Answer, Candidate, Entry, OverlongPolicy, Spending, Vectors

__all__ = ["fault", "located", "look_up", "packed", "send"]

logger = logging.getLogger("embedrouter")


def send(job: Job, items: Sequence[Item], on_too_long: OverlongPolicy) -> Flow[None]:
    """Take the texts of one request through the candidates until they have vectors.

    Where the user allows it, queries that no candidate can embed are answered by lower tiers, best first: from the
    cache and then by a call.
    """
    failures: list[EmbedRouterError] = []
    dearest: Decimal | None = None
    for candidate in [*job.candidates, *job.lesser]:
        if candidate.rank < job.rank:
            if not job.may_degrade(*failures):
                break
            yield from look_up(job, [item.text for item in items], candidate)
            items = [item for item in items if item.text not in job.found]
            if not items:
                return
        if dearest is not None and (candidate.price is None or candidate.price > dearest):
            continue
        if failures:
            logger.warning("embedding with %s instead, after %s", candidate.name, type(failures[-1]).__name__)
        failure, items = yield from _through(job, candidate, items, on_too_long)
        match failure:
            case None:
                return
            case InputRejectedError():
                raise failure
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


def look_up(job: Job, texts: Sequence[str], candidate: Candidate, policy: str = "") -> Flow[None]:
    """Fill ``job.found`` with what the cache has of one model: its own vectors, then the beginnings of longer ones."""
    own = (candidate.space.dimensions, candidate.fingerprint)
    for length, fingerprint in (own, *candidate.longer):
        missing = [text for text in texts if text not in job.found]
        if not missing:
            return
        key = keyer(replace(candidate, fingerprint=fingerprint), job.input_type, policy=policy)
        keys = {key(text): text for text in missing}
        entries: Mapping[bytes, Entry] = yield Read(list(keys), length)
        for found, entry in entries.items():
            vector = entry.vector if length == own[0] else _beginning(entry.vector, own[0])
            if vector is not None:
                job.found[keys[found]] = Found(vector, candidate, entry.tokens, cached=True, shortened=bool(policy))


def _beginning(vector: Vectors, length: int) -> Vectors | None:
    """Return the first numbers of a vector, scaled to length 1."""
    beginning = vector[:length]
    norm = np.linalg.norm(beginning)
    return np.asarray(beginning / norm, np.float32) if norm else None


def _through(
    job: Job, candidate: Candidate, items: Sequence[Item], on_too_long: OverlongPolicy
) -> Flow[tuple[EmbedRouterError | None, Sequence[Item]]]:
    """Send texts to one model, in requests of its own size. Return what stopped it and the texts still to do."""
    parts = packed(items, candidate)
    while parts:
        failure = yield from _request(job, candidate, parts[0])
        if failure is None:
            del parts[0]
            continue
        if isinstance(failure, InputRejectedError):
            texts = [item.text for item in parts[0]]
            at_fault = [texts[index] for index in failure.indices] or texts
            if failure.too_long and on_too_long != "error" and (failure.indices or len(texts) == 1):
                job.refused += at_fault
                parts[:1] = packed([item for item in parts[0] if item.text not in at_fault], candidate)
                continue
            failure = located(job, failure, at_fault)
        return failure, [item for part in parts for item in part]
    return None, []


def _request(job: Job, candidate: Candidate, items: Sequence[Item]) -> Flow[EmbedRouterError | None]:
    """Make one request until it is answered.

    Returns:
        ``None`` when ``job.found`` has the vectors; otherwise the last error: tries or time ran out, trying again is
        pointless, or the budget refused.
    """
    rules = job.rules
    texts = [item.text for item in items]
    spending = _spending(job, candidate, items)
    deadline = rules.clock() + rules.retry.timeout
    if job.deadline is not None:
        deadline = min(deadline, job.deadline)
    attempt = 0
    while True:
        attempt += 1
        remaining = deadline - rules.clock()
        if remaining <= 0:
            return RequestTimeoutError(
                "the time allowed was used up before the request", model=candidate.name, perhaps_billed=False
            )
        if job.unaffordable is not None and spending.amount != 0:
            return job.unaffordable
        timeout = min(candidate.timeout, remaining)
        reservation: int | str = yield Reserve(replace(spending, attempt=attempt, timeout=timeout))
        if isinstance(reservation, str):
            return BudgetExceededError(f"{candidate.name} was not called: {reservation}")
        try:
            outcome: Answer | EmbedRouterError = yield Call(candidate, texts, job.input_type, timeout, reservation)
        except GeneratorExit:  # stopped before the answer
            rules.abandon(reservation)
            raise
        spent: Decimal | None = Decimal(0)
        if isinstance(outcome, Answer):
            tokens = spending.tokens if outcome.tokens is None else outcome.tokens
            spent = cost(tokens, candidate.price)
            charge = Charge(tokens, spent)
            job.charges.append(charge)
            wrong = fault(outcome, len(texts), candidate.space.dimensions)
            if wrong is None:  # what was paid for is kept before anything else
                yield from _keep(job, candidate, items, outcome.vectors, tokens)
            charge.amount = spent = yield Settle(reservation, (tokens, spent))
            if wrong is None:
                return None
            outcome = BadResponseError(wrong, model=candidate.name)
        else:
            yield Settle(reservation, None, unconfirmed=isinstance(outcome, BackendError) and outcome.perhaps_billed)
        if not isinstance(outcome, BackendError):
            raise outcome
        job.attempts.append(Attempt(candidate.name, outcome, spent))
        wait = rules.retry.wait(attempt, outcome, rules.chance())
        if wait is None or rules.clock() + wait >= deadline:
            return outcome
        yield Pause(wait)


def _spending(job: Job, candidate: Candidate, items: Sequence[Item]) -> Spending:
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
        attempt=1,
        timeout=candidate.timeout,
    )


def fault(answer: Answer, texts: int, dimensions: int) -> str | None:
    """Say what is wrong with an answer, or return ``None``."""
    vectors = answer.vectors
    if vectors.dtype != np.float32:
        return f"vectors of {vectors.dtype} came, not of float32"
    if vectors.shape != (texts, dimensions):
        return f"vectors of shape {vectors.shape} came for {texts} texts in {dimensions} dimensions"
    if not np.isfinite(vectors).all():
        return "a vector holds numbers that are not finite"
    if not vectors.any(axis=1).all():
        return "a vector is all zeros"
    return None


def _keep(job: Job, candidate: Candidate, items: Sequence[Item], vectors: Vectors, tokens: int) -> Flow[None]:
    """Put answered texts into the cache and into ``job.found``."""
    key = keyer(candidate, job.input_type)
    shares = _shares(tokens, [item.tokens for item in items])
    entries = {key(item.text): Entry(vector, share) for item, vector, share in zip(items, vectors, shares, strict=True)}
    yield Write(entries)
    for item, entry in zip(items, entries.values(), strict=True):
        job.found[item.text] = Found(entry.vector, candidate, entry.tokens, False)


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
    sizes = [len(item.text.encode()) for item in items]
    return [list(items[part]) for part in pack(tokens, sizes, candidate.limits)]


def located(job: Job, error: InputRejectedError, at_fault: Sequence[str]) -> InputRejectedError:
    """Return a refusal with positions in the user's input instead of the request."""
    positions = job.positions(at_fault)
    advice = ""
    if error.too_long and job.rules.on_too_long == "error":
        advice = " Split the text, or build the router with on_too_long='truncate' or 'mean'."
    located = InputRejectedError(
        f"{error} (texts at {listed(positions)}).{advice}",
        model=error.model,
        status=error.status,
        too_long=error.too_long,
        indices=positions,
    )
    located.__cause__ = error.__cause__
    return located
