"""The decisions of one call, as generators that do nothing themselves.

A flow yields effects, frozen values that say what should happen next: read the cache, count tokens, call a model,
pause, write the cache, run other flows side by side. A driver (``drive``) performs each one and sends the outcome back
in. All logic that synchronous and asynchronous calls share is here and in ``request``, once; what differs is how an
effect is performed.

1. Each distinct text is looked up in the cache under every model at or above the asked tier, best first.
   Few missing ones may wait a moment for those of other calls, and are sent as one call's.
2. What is missing is counted, checked against the model's limit and the budget, and packed into requests.
3. The requests are sent side by side; see ``request``.
4. The vectors are put in the order of the input.

In place of a text over the model's limit its beginning or its parts are sent: ordinary texts, with cache entries of
their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Literal

import numpy as np

from ..errors import (
    BudgetExceededError,
    ConfigError,
    EmbedRouterError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
)
from ..spending import cost
from ..types import (
    Candidate,
    EmbeddingResult,
    Entry,
    Estimate,
    Found,
    Origin,
    OverlongPolicy,
    TokenCounts,
    Usage,
)
from ._effects import (
    Afford,
    Allowance,
    Count,
    Cut,
    Flow,
    Follow,
    Gather,
    Join,
    Together,
    Write,
)
from ._job import Item, Job, Rules, Saving, saving
from ._plan import listed
from ._request import look_up, packed, rejection, send
from ._sharing import Member, share_out
from ._single_flight import Landing

__all__ = ["at_hand", "embed", "estimate", "prepare"]

FEW = 16
"""Texts of a call that may wait a moment for others, to be sent with theirs."""

STUCK = 120.0
"""Seconds in which no text landed, after which nobody is followed any more: a leader may belong to an event loop that
somebody blocks, perhaps until we are done."""


def embed(job: Job) -> Flow[EmbeddingResult]:
    """Return the vectors of ``job.texts`` in order."""
    try:
        missing = _recall(job)
        if missing:
            missing = yield from _with_others(job, missing, waiting=True)
        if missing:
            missing = yield from _look_up(job, missing)
        if missing:
            missing = yield from _with_others(job, missing, waiting=False)
        if missing:
            yield from _fill(job, missing)
        return _assemble(job)
    finally:
        job.leave()
        job.rules.book(job)


def at_hand(rules: Rules, query: str, rank: int) -> tuple[EmbeddingResult, Saving] | None:
    """Return what ``embed`` returns for one query that was asked lately, and what that saves, in half the time."""
    found = rules.memory.recall(query, rank)
    if found is None:
        return None
    candidate, cached, shortened = found.origin
    avoided = saving(candidate, 1, found.tokens)
    result = EmbeddingResult(
        vectors=found.vector[np.newaxis].copy(),
        space=rules.space,
        models=(candidate.name,),
        cached=(cached,),
        degraded=(False,),
        shortened=(shortened,),
        usage=Usage(saved=avoided.amount),
    )
    return result, avoided


def estimate(job: Job) -> Flow[Estimate]:
    """Return what ``embed`` would take. Reads the cache and calls nothing."""
    items, exact = yield from prepare(job)
    first = _first(job)
    distinct = set(job.texts)
    amount = yield from _cost(items, first)
    return Estimate(
        texts=len(job.texts),
        unique=len(distinct),
        cached=sum(text in job.found for text in distinct),
        tokens=sum(item.tokens for item in items),
        requests=len(_requests(items, first)),
        cost=amount,
        model=first.name,
        exact=exact,
    )


def prepare(job: Job) -> Flow[tuple[list[Item], bool]]:
    """Enter what is known; return what is to be sent for the other texts, and whether its tokens are exact."""
    missing = _recall(job)
    if missing:
        missing = yield from _look_up(job, missing)
    return (yield from _sized(job, missing)) if missing else ([], True)


def _recall(job: Job) -> list[str]:
    """Enter what is known of queries asked lately; return the other distinct texts."""
    if job.input_type == "query":
        for text in job.rows:
            if found := job.rules.memory.recall(text, job.rank):
                job.put(text, found)
    return [] if len(job.found) == len(job.rows) else job.missing(job.rows)


def _sized(job: Job, texts: Sequence[str]) -> Flow[tuple[list[Item], bool]]:
    """Return what is to be sent for texts, and whether its tokens are exact.

    A text known to be too long is refused, or it is entered into ``job.parts`` and its parts are sent in its place.
    """
    candidate = _first(job)
    counts: TokenCounts = yield Count(candidate, texts, job.input_type)
    items = [Item(text, tokens) for text, tokens in zip(texts, counts.tokens, strict=True)]
    limit = _limit(candidate)
    long = [item.text for item in items if item.tokens > limit]
    if not long or not counts.exact:  # of texts that may be too long the provider decides
        return items, counts.exact
    if job.rules.on_too_long == "error":
        positions = job.positions(long)
        raise InvalidInputError(
            f"{len(long)} of the texts are longer than the {limit} tokens that {candidate.name} takes, nothing was "
            f"sent. By position: {listed(positions)}. Split them, or build the router with on_too_long='truncate' "
            "(embed their beginning) or 'mean' (average the vectors of their parts).",
            indices=positions,
        )
    parts = yield from _cut(job, long)
    return list(dict.fromkeys([*(item for item in items if item.tokens <= limit), *parts])), True


def _with_others(job: Job, texts: Sequence[str], *, waiting: bool) -> Flow[list[str]]:
    """Have few texts embedded together with those of other calls that come at the same time; return what is left.

    Args:
        waiting: go along with calls that wait already, without a look into the cache: they look for all.
    """
    first = _first(job)
    if not job.rules.together or len(texts) > FEW or first.local or first.limits.texts == 1:
        return [*texts]
    name = (job.rank, job.input_type, job.tag)
    left = None if job.deadline is None else job.deadline - job.rules.clock()
    outcome: EmbedRouterError | Callable[[], None] | None = yield Gather(
        name, partial(Member, job, texts), send_together, waiting, left
    )
    missing = job.missing(texts)
    if isinstance(outcome, EmbedRouterError):
        if missing:
            raise outcome
    elif outcome is not None:
        job.leave = outcome
    return missing


def send_together(members: Sequence[Member]) -> Flow[None]:
    """Have the texts of several calls embedded as if they were of one, and give each call its share."""
    first = members[0].job
    deadlines = [member.job.deadline for member in members]
    job = Job(
        rules=first.rules,
        texts=[text for member in members for text in member.texts],
        input_type=first.input_type,
        rank=first.rank,
        tag=first.tag,
        deadline=None if None in deadlines else max(deadline for deadline in deadlines if deadline is not None),
    )
    error: EmbedRouterError | None = None
    try:
        missing = yield from _look_up(job, list(job.rows))
        served = [member for member in members if not job.missing(member.texts)]
        if served:  # by the cache: they need not wait for the others' request
            share_out(job, served, None)
            members = [member for member in members if member not in served]
        if missing:
            yield from _fill(job, missing)
    except (InvalidInputError, InputRejectedError, BudgetExceededError):  # each call meets its own again, alone
        pass
    except EmbedRouterError as failure:
        error = failure
    finally:
        share_out(job, members, error)


def _fill(job: Job, texts: Sequence[str]) -> Flow[None]:
    """Have texts embedded."""
    if all(_boundless(candidate) for candidate in job.rules.candidates):
        job.shared = False  # waiting for others would take longer than doing it
        items = [Item(text, len(text)) for text in texts]
    else:
        items, _ = yield from _sized(job, texts)
    yield from _send_all(job, items, job.rules.on_too_long)
    if job.refused:
        items = yield from _cut(job, job.refused)
        yield from _send_all(job, items, "error")
    if job.rejected:
        raise rejection(job)
    if job.parts:
        yield from _put_together(job)


def _look_up(job: Job, texts: Sequence[str]) -> Flow[list[str]]:
    """Enter what the cache has, the best model's vectors first; return the other texts."""
    job.landed = job.rules.flights.landed
    seen: set[str] = set()
    for candidate in sorted(job.rules.candidates, key=lambda candidate: (-candidate.rank, candidate.index)):
        if candidate.rank < job.rank or candidate.fingerprint in seen:
            continue
        seen.add(candidate.fingerprint)
        yield from look_up(job, texts, candidate)
        limit = candidate.limits.input_tokens
        if limit is not None and job.rules.on_too_long != "error":
            long = [text for text in job.missing(texts) if len(text.encode()) > limit]
            yield from look_up(job, long, candidate, _policy_tag(job.rules.on_too_long, limit))
    return job.missing(texts)


def _cut(job: Job, texts: Sequence[str]) -> Flow[list[Item]]:
    """Enter texts over the limit into ``job.parts``; return those of their parts that are not cached."""
    candidate = _first(job)
    for text in texts:
        job.parts[text] = yield Cut(candidate, text, job.input_type, _limit(candidate), job.rules.on_too_long)
    parts = list(dict.fromkeys(part for text in texts for part in job.parts[text]))
    job.make_room(parts)
    yield from _look_up(job, parts)
    missing = job.missing(parts)
    counts: TokenCounts = yield Count(candidate, missing, job.input_type)
    return [Item(part, tokens) for part, tokens in zip(missing, counts.tokens, strict=True)]


def _send_all(job: Job, items: Sequence[Item], on_too_long: OverlongPolicy) -> Flow[None]:
    """Have texts embedded: send those that nobody else is sending at this moment, and wait for the others."""
    if not job.shared:
        yield from _lead(job, items, on_too_long)
        return
    flights = job.rules.flights
    alone = False
    while items:
        names: dict[Hashable, Item] = {job.name(item.text): item for item in items}
        joined: dict[Hashable, Future[Landing[Found]]] | None = None if alone else (yield Join(list(names)))
        alone, followed = joined is None, joined or {}
        led = [name for name in names if name not in followed]
        left: Literal["handed over", "failed"] = "failed"
        try:
            if flights.landed != job.landed:  # perhaps one of these, between our look into the cache and now
                yield from _look_up(job, [names[name].text for name in led])
            yield from _lead(job, [names[name] for name in led if names[name].text not in job.found], on_too_long)
        except (GeneratorExit, EmbedRouterError):  # stopped, or its requests failed: a follower leads
            left = "handed over"
            raise
        finally:
            if not alone:
                job.land([names[name].text for name in led], left)
        if not followed:
            return
        yield from _follow(job, list(followed.values()))
        outcomes = {name: _landed(future) for name, future in followed.items()}
        for name, outcome in outcomes.items():
            if isinstance(outcome, Found):
                job.put(names[name].text, outcome.again())
        items = [names[name] for name, outcome in outcomes.items() if not isinstance(outcome, Found)]
        alone = "failed" in outcomes.values()


def _follow(job: Job, futures: Sequence[Future[Landing[Found]]]) -> Flow[None]:
    """Wait until texts land, or the time is up, or nothing at all lands any more: their leader may be stuck."""
    rules = job.rules
    before = -1
    while before != rules.flights.landed and not all(future.done() for future in futures):
        before = rules.flights.landed
        left = STUCK if job.deadline is None else min(STUCK, job.deadline - rules.clock())
        yield Follow(futures, left)
        if left < STUCK:
            return


def _landed(future: Future[Landing[Found]]) -> Landing[Found]:
    """Return what became of a text, or of the wait for it."""
    return future.result() if future.done() and not future.cancelled() else "failed"


def _lead(job: Job, items: Sequence[Item], on_too_long: OverlongPolicy) -> Flow[None]:
    """Send texts in requests side by side, if the budget has room for all of them."""
    if not items:
        return
    first = _first(job)
    requests = _requests(items, first)
    if len(requests) > 1 or job.rules.budget.per_call is not None:  # of a single request its reservation decides
        expected = yield from _cost(items, first)
        refusal: str | None = yield Afford(expected)
        if refusal is not None:
            job.unaffordable = BudgetExceededError(f"{first.name} was not called: {refusal}")
            if not job.may_degrade(job.unaffordable):
                raise job.unaffordable
    flows = [send(job, request, on_too_long) for request in requests]
    failure: EmbedRouterError | None = yield Together(flows, first.concurrency)
    if failure is not None:
        raise failure


def _cost(items: Sequence[Item], candidate: Candidate) -> Flow[Decimal | None]:
    """Return what sending texts costs."""
    tokens = sum(item.tokens for item in items)
    free: int = (yield Allowance(candidate)) if candidate.free_tokens else 0
    return cost(max(0, tokens - free), candidate.price)


def _requests(items: Sequence[Item], candidate: Candidate) -> list[list[Item]]:
    """Pack texts into requests. A text that may be too long travels alone, so that a refusal harms no other."""
    limit = _limit(candidate)
    safe = [item for item in items if item.tokens <= limit]
    if candidate.local:  # texts of equal length need no padding
        safe.sort(key=lambda item: len(item.text))
    doubtful = [[item] for item in items if item.tokens > limit]
    return packed(safe, candidate) + doubtful


def _put_together(job: Job) -> Flow[None]:
    """Give each text that was cut the mean of its parts. A part that was cut itself was so later: from the end."""
    entries: dict[bytes, Entry] = {}
    for text, parts in reversed(job.parts.items()):
        whole = _mean([job.find(part) for part in parts], [len(part) for part in parts], job.rules.cache_dtype)
        tag = _policy_tag(job.rules.on_too_long, _limit(_first(job)))
        entries[job.key(whole.origin.candidate, policy=tag)(text)] = Entry(whole.vector, whole.tokens)
        job.put(text, whole)
    yield Write(entries)


def _mean(found: Sequence[Found], weights: Sequence[int], dtype: str) -> Found:
    """Return the unit vector between those of the parts, rounded as the cache keeps it; of a single part its own."""
    vector = found[0].vector
    if len(found) > 1:
        mean = np.average([item.vector for item in found], axis=0, weights=weights)
        vector = (mean / np.linalg.norm(mean)).astype(np.float32).astype(dtype).astype(np.float32)
    origin = Origin(
        candidate=min((item.origin.candidate for item in found), key=lambda candidate: candidate.rank),
        cached=all(item.origin.cached for item in found),
        shortened=True,
    )
    return Found(vector, sum(item.tokens for item in found), origin)


def _assemble(job: Job) -> EmbeddingResult:
    """Put the vectors in the order of the input and add up what was avoided."""
    job.save()
    whole = len(job.texts) == job.distinct == len(job.rows)
    origins = [job.found[text] for text in job.texts]
    return EmbeddingResult(
        vectors=job.vectors if whole else job.vectors[[job.rows[text] for text in job.texts]],
        space=job.rules.space,
        models=tuple([origin.candidate.name for origin in origins]),
        cached=tuple([origin.cached for origin in origins]),
        degraded=tuple([origin.candidate.rank < job.rank for origin in origins]),
        shortened=tuple([origin.shortened for origin in origins]),
        usage=job.usage(),
    )


def _first(job: Job) -> Candidate:
    """Return the candidate that is asked first."""
    if not job.candidates:
        if able := replace(job, batch=False).candidates:
            raise ConfigError(
                f"No batch endpoint is known of {', '.join(candidate.name for candidate in able)}. Nothing was called. "
                "OpenAI's own models have one; everything else is embedded with embed."
            )
        raise NoModelAvailableError(
            "No model of this router has the tier that was asked for or a higher one; nothing was called. "
            "Ask for a lower tier, or give a model a higher one: Model(…, tier=…)."
        )
    return job.candidates[0]


def _boundless(candidate: Candidate) -> bool:
    """Say whether nothing depends on how many tokens its texts have."""
    return candidate.local and candidate.limits.tokens is None and candidate.limits.input_tokens is None


def _limit(candidate: Candidate) -> int:
    return candidate.limits.input_tokens or sys.maxsize


def _policy_tag(policy: OverlongPolicy, limit: int) -> str:
    """Return what a cache key says of a text that was over the limit."""
    return f"{policy}:{limit}"
