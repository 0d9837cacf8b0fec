"""The decisions of one call, as generators that do nothing themselves.

A flow yields effects, frozen values that say what should happen next: read the cache, count tokens, call a model,
pause, write the cache, run other flows side by side. A driver (``drive``) performs each one and sends the outcome back
in. All logic that synchronous and asynchronous calls share is here, once; what differs is how an effect is performed.

``embed`` is the flow of a whole call:

1. each distinct text is looked up in the cache under every model at or above the asked tier, best first;
2. what is missing is counted, checked against the model's limit and the budget, and packed into requests;
3. ``_send`` takes one request through the candidates, cheapest first: an answered request is checked, booked and
   written to the cache before anything else is decided; a failed one is tried again as the retry policy says, then
   handed to the next candidate;
4. the vectors are put in the order of the input.

A failed call arrives as a value, so a request reads as a table of decisions. Texts over the model's limit become
ordinary texts (their beginning, or their parts) before they are sent: see ``_shorten``.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Protocol

import numpy as np

from .budget import Budget
from .effects import Call, Count, Cut, Flow, Pause, Read, Together, Write
from .errors import (
    Attempt,
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    EmbedRouterError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    RequestTimeoutError,
)
from .keys import keyer
from .plan import listed, pack
from .policy import RetryPolicy
from .prices import MILLION, cost
from .types import (
    Answer,
    Candidate,
    EmbeddingResult,
    Entry,
    Estimate,
    InputType,
    OverlongPolicy,
    Space,
    TokenCounts,
    Usage,
    Vectors,
)

__all__ = ["Job", "Ledger", "Rules", "embed", "estimate"]

logger = logging.getLogger("embedrouter")


# What a call knows


class Ledger(Protocol):
    """Where money is reserved and booked. Every method is one atomic step."""

    def refusal(self, budget: Budget, amount: Decimal | None) -> str | None:
        """Say why ``amount`` (``None``: unknown) does not fit, or return ``None``."""

    def reserve(self, budget: Budget, amount: Decimal | None) -> str | None:
        """Set ``amount`` aside and return ``None``, or say why it does not fit."""

    def settle(self, reserved: Decimal | None, spent: Decimal | None) -> None:
        """Replace what was set aside by what was spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a router decided when it was built."""

    candidates: Sequence[Candidate]
    space: Space
    retry: RetryPolicy
    on_too_long: OverlongPolicy
    budget: Budget
    ledger: Ledger
    clock: Callable[[], float]
    """Seconds, monotonic."""
    chance: Callable[[], float]
    """A random number from 0 to 1."""


@dataclass(slots=True)
class _Found:
    """The vector of one text and where it came from."""

    vector: Vectors
    candidate: Candidate
    tokens: int
    cached: bool
    shortened: bool = False


@dataclass(frozen=True, slots=True)
class _Item:
    """One text to be sent, with its size."""

    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class _Charge:
    """What one answered request was billed."""

    candidate: Candidate
    tokens: int


@dataclass(slots=True, kw_only=True)
class Job:
    """One call under way. Its flows run side by side and share ``found``, ``charges``, ``attempts`` and ``refused``."""

    rules: Rules
    texts: Sequence[str]
    """As the user gave them, for positions in messages."""
    input_type: InputType
    rank: int
    deadline: float | None = None
    found: dict[str, _Found] = field(default_factory=dict)
    charges: list[_Charge] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    """Texts that a provider found too long."""
    saved: Decimal = Decimal(0)
    """What the cache and the removal of duplicates avoided."""

    @property
    def candidates(self) -> list[Candidate]:
        """The models at or above the asked tier, cheapest first, unknown prices last."""
        able = [candidate for candidate in self.rules.candidates if candidate.rank >= self.rank]
        return sorted(able, key=lambda candidate: (candidate.price is None, candidate.price or 0, candidate.index))

    def positions(self, texts: Sequence[str]) -> list[int]:
        """Return where ``texts`` stand in the input."""
        wanted = set(texts)
        return [index for index, text in enumerate(self.texts) if text in wanted]

    def usage(self) -> Usage:
        """Return what was billed and avoided so far."""
        amounts = [cost(charge.tokens, charge.candidate.price) for charge in self.charges]
        return Usage(
            tokens=sum(charge.tokens for charge in self.charges),
            requests=len(self.charges),
            cost=sum((amount for amount in amounts if amount is not None), Decimal(0)),
            saved=self.saved,
            unpriced_tokens=sum(charge.tokens for charge in self.charges if charge.candidate.price is None),
        )


# The flows of a call


def embed(job: Job) -> Flow[EmbeddingResult]:
    """Return the vectors of ``job.texts`` in order."""
    distinct = list(dict.fromkeys(job.texts))
    yield from _look_up(job, distinct)
    missing = [text for text in distinct if text not in job.found]
    if missing:
        yield from _compute(job, missing, job.rules.on_too_long)
    return _assemble(job)


def estimate(job: Job) -> Flow[Estimate]:
    """Return what ``embed`` would take. Reads the cache and calls nothing."""
    distinct = list(dict.fromkeys(job.texts))
    yield from _look_up(job, distinct)
    missing = [text for text in distinct if text not in job.found]
    first = _first(job)
    items, long, exact = yield from _measure(job, missing, first, job.rules.on_too_long)
    for text in long:
        parts: list[str] = yield Cut(first, text, _limit(first), job.rules.on_too_long)
        counts: TokenCounts = yield Count(first, parts)
        items += [_Item(part, tokens) for part, tokens in zip(parts, counts.tokens, strict=True)]
    tokens = sum(item.tokens for item in items)
    return Estimate(
        texts=len(job.texts),
        unique=len(distinct),
        cached=len(distinct) - len(missing),
        tokens=tokens,
        requests=len(_requests(items, first)),
        cost=cost(tokens, first.price),
        model=first.name,
        exact=exact,
    )


def _look_up(job: Job, texts: Sequence[str]) -> Flow[None]:
    """Fill ``job.found`` from the cache, the best model's vectors first."""
    seen: set[str] = set()
    for candidate in sorted(job.rules.candidates, key=lambda candidate: (-candidate.rank, candidate.index)):
        if candidate.rank < job.rank or candidate.fingerprint in seen:
            continue
        seen.add(candidate.fingerprint)
        yield from _read(job, [text for text in texts if text not in job.found], candidate, "")
        limit = candidate.limits.input_tokens
        if limit is not None and job.rules.on_too_long != "error":
            long = [text for text in texts if text not in job.found and len(text.encode()) > limit]
            yield from _read(job, long, candidate, _policy_tag(job.rules.on_too_long, limit))


def _read(job: Job, texts: Sequence[str], candidate: Candidate, policy: str) -> Flow[None]:
    if not texts:
        return
    key = keyer(candidate, job.input_type, policy=policy)
    keys = {key(text): text for text in texts}
    entries: Mapping[bytes, Entry] = yield Read(list(keys), candidate.space.dimensions)
    for found, entry in entries.items():
        job.found[keys[found]] = _Found(entry.vector, candidate, entry.tokens, cached=True, shortened=bool(policy))


def _compute(job: Job, texts: Sequence[str], on_too_long: OverlongPolicy) -> Flow[None]:
    """Fill ``job.found`` for texts that are not cached."""
    first = _first(job)
    items, long, _ = yield from _measure(job, texts, first, on_too_long)
    expected = cost(sum(item.tokens for item in items), first.price)
    if refusal := job.rules.ledger.refusal(job.rules.budget, expected):
        raise BudgetExceededError(f"{first.name} was not called: {refusal}")
    sends = [_send(job, request, on_too_long) for request in _requests(items, first)]
    if len(sends) == 1:
        yield from sends[0]
    elif sends:
        yield Together(sends, max(candidate.concurrency for candidate in job.candidates))
    for text in [*long, *job.refused]:
        yield from _shorten(job, text, first, on_too_long)


def _measure(
    job: Job, texts: Sequence[str], candidate: Candidate, on_too_long: OverlongPolicy
) -> Flow[tuple[list[_Item], list[str], bool]]:
    """Return the texts to send with their tokens, the texts known to be too long, and whether the counts are exact."""
    counts: TokenCounts = yield Count(candidate, texts)
    limit = _limit(candidate)
    items = [_Item(text, tokens) for text, tokens in zip(texts, counts.tokens, strict=True)]
    if not counts.exact:
        return items, [], False
    long = [item.text for item in items if item.tokens > limit]
    if long and on_too_long == "error":
        positions = job.positions(long)
        raise InvalidInputError(
            f"{len(long)} of the texts are longer than the {limit} tokens that {candidate.name} takes, nothing was "
            f"sent. By position: {listed(positions)}. Split them, or build the router with on_too_long='truncate' "
            "(embed their beginning) or 'mean' (average the vectors of their parts).",
            indices=positions,
        )
    return [item for item in items if item.tokens <= limit], long, True


def _requests(items: Sequence[_Item], candidate: Candidate) -> list[list[_Item]]:
    """Pack texts into requests. A text that may be too long travels alone, so that a refusal harms no other."""
    limit = _limit(candidate)
    safe = [item for item in items if item.tokens <= limit]
    if candidate.local:  # texts of equal length need no padding
        safe.sort(key=lambda item: len(item.text))
    doubtful = [[item] for item in items if item.tokens > limit]
    return _packed(safe, candidate) + doubtful


def _packed(items: Sequence[_Item], candidate: Candidate) -> list[list[_Item]]:
    tokens = [item.tokens for item in items]
    sizes = [len(item.text.encode()) for item in items]
    return [list(items[part]) for part in pack(tokens, sizes, candidate.limits)]


def _send(job: Job, items: Sequence[_Item], on_too_long: OverlongPolicy) -> Flow[None]:
    """Take the texts of one request through the candidates until they have vectors."""
    failures: list[EmbedRouterError] = []
    dearest: Decimal | None = None
    for candidate in job.candidates:
        if dearest is not None and (candidate.price is None or candidate.price > dearest):
            continue
        if failures:
            logger.warning("embedding with %s instead, after %s", candidate.name, type(failures[-1]).__name__)
        failure, items = yield from _through(job, candidate, items)
        match failure:
            case None:
                return
            case InputRejectedError(too_long=True) if on_too_long != "error" and len(items) == 1:
                job.refused.append(items[0].text)
                return
            case InputRejectedError():
                raise failure
            case AuthenticationError():  # a missing key is never a silent step to a dearer model
                dearest = candidate.price if candidate.price is not None else Decimal(0)
        failures.append(failure)
    last = failures[-1]
    if isinstance(last, AuthenticationError) or all(isinstance(failure, BudgetExceededError) for failure in failures):
        raise last
    raise NoModelAvailableError(
        f"No model could embed {len(items)} of the texts; {len(job.attempts)} requests failed. What was answered is in "
        "the cache, so the same call continues from there.",
        attempts=job.attempts,
    ) from last


def _through(
    job: Job, candidate: Candidate, items: Sequence[_Item]
) -> Flow[tuple[EmbedRouterError | None, Sequence[_Item]]]:
    """Send texts to one model, in requests of its own size. Return what stopped it and the texts still to do."""
    parts = _packed(items, candidate)
    for done, part in enumerate(parts):
        failure = yield from _request(job, candidate, part)
        if isinstance(failure, InputRejectedError):
            failure = _located(job, failure, part)
        if failure is not None:
            return failure, [item for rest in parts[done:] for item in rest]
    return None, []


def _request(job: Job, candidate: Candidate, items: Sequence[_Item]) -> Flow[EmbedRouterError | None]:
    """Make one request until it is answered.

    Returns:
        ``None`` when ``job.found`` has the vectors; otherwise the last error: tries or time ran out, trying again is
        pointless, or the budget refused.
    """
    rules = job.rules
    texts = [item.text for item in items]
    expected = cost(sum(item.tokens for item in items), candidate.price)
    deadline = min(rules.clock() + rules.retry.timeout, job.deadline or float("inf"))
    attempt = 0
    while True:
        attempt += 1
        remaining = deadline - rules.clock()
        if remaining <= 0:
            return RequestTimeoutError("the time allowed was used up before the request", model=candidate.name)
        if refusal := rules.ledger.reserve(rules.budget, expected):
            return BudgetExceededError(f"{candidate.name} was not called: {refusal}")
        spent = expected  # whoever stops us while a request is in flight leaves it counted: it was probably billed
        try:
            outcome: Answer | BackendError = yield Call(
                candidate, texts, job.input_type, min(candidate.timeout, remaining)
            )
            spent = Decimal(0)
            if isinstance(outcome, Answer):
                tokens = sum(item.tokens for item in items) if outcome.tokens is None else outcome.tokens
                spent = cost(tokens, candidate.price)
                job.charges.append(_Charge(candidate, tokens))
        finally:
            rules.ledger.settle(expected, spent)
        if isinstance(outcome, Answer):
            if not (fault := _fault(outcome, len(texts), candidate.space.dimensions)):
                yield from _keep(job, candidate, items, outcome.vectors, tokens)
                return None
            outcome = BadResponseError(fault, model=candidate.name)
        job.attempts.append(Attempt(candidate.name, outcome, spent))
        wait = rules.retry.wait(attempt, outcome, rules.chance())
        if wait is None or rules.clock() + wait >= deadline:
            return outcome
        yield Pause(wait)


def _fault(answer: Answer, texts: int, dimensions: int) -> str | None:
    """Say what is wrong with an answer, or return ``None``."""
    vectors = answer.vectors
    if vectors.shape != (texts, dimensions):
        return f"vectors of shape {vectors.shape} came for {texts} texts in {dimensions} dimensions"
    if not np.isfinite(vectors).all():
        return "a vector holds numbers that are not finite"
    if not vectors.any(axis=1).all():
        return "a vector is all zeros"
    return None


def _keep(job: Job, candidate: Candidate, items: Sequence[_Item], vectors: Vectors, tokens: int) -> Flow[None]:
    """Put answered texts into the cache and into ``job.found``."""
    key = keyer(candidate, job.input_type)
    shares = _shares(tokens, [item.tokens for item in items])
    entries = {key(item.text): Entry(vector, share) for item, vector, share in zip(items, vectors, shares, strict=True)}
    yield Write(entries)
    for item, entry in zip(items, entries.values(), strict=True):
        job.found[item.text] = _Found(entry.vector, candidate, entry.tokens, False)


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


def _shorten(job: Job, text: str, candidate: Candidate, on_too_long: OverlongPolicy) -> Flow[None]:
    """Embed a text over the limit by its parts, each an ordinary text with a cache entry of its own."""
    limit = _limit(candidate)
    parts: list[str] = yield Cut(candidate, text, limit, on_too_long)
    inner = replace(job, texts=parts, found={}, refused=[])
    yield from _look_up(inner, list(dict.fromkeys(parts)))
    missing = [part for part in dict.fromkeys(parts) if part not in inner.found]
    if missing:
        yield from _compute(inner, missing, "error")
    found = [inner.found[part] for part in parts]
    whole = replace(found[0], shortened=True)
    if len(found) > 1:
        mean = np.average([item.vector for item in found], axis=0, weights=[len(part) for part in parts])
        whole.vector = (mean / np.linalg.norm(mean)).astype(np.float32)
        whole.tokens = sum(item.tokens for item in found)
        whole.cached = all(item.cached for item in found)
    key = keyer(whole.candidate, job.input_type, policy=_policy_tag(on_too_long, limit))
    yield Write({key(text): Entry(whole.vector, whole.tokens)})
    job.found[text] = whole


# Small decisions


def _first(job: Job) -> Candidate:
    """Return the candidate that is asked first."""
    if not job.candidates:
        raise NoModelAvailableError(
            "No model of this router has the tier that was asked for or a higher one; nothing was called. "
            "Ask for a lower tier, or give a model a higher one: Model(…, tier=…)."
        )
    return job.candidates[0]


def _limit(candidate: Candidate) -> int:
    return candidate.limits.input_tokens or sys.maxsize


def _policy_tag(policy: OverlongPolicy, limit: int) -> str:
    """Return what a cache key says of a text that was over the limit."""
    return f"{policy}:{limit}"


def _located(job: Job, error: InputRejectedError, items: Sequence[_Item]) -> InputRejectedError:
    """Return the provider's refusal with positions in the user's input instead of the request."""
    at_fault = [items[index].text for index in error.indices] or [item.text for item in items]
    positions = job.positions(at_fault)
    advice = (
        " Split the text, or build the router with on_too_long='truncate' or 'mean'."
        if error.too_long and job.rules.on_too_long == "error"
        else ""
    )
    located = InputRejectedError(
        f"{error} (texts at {listed(positions)}).{advice}",
        model=error.model,
        status=error.status,
        too_long=error.too_long,
        indices=positions,
    )
    located.__cause__ = error.__cause__ or error
    return located


def _assemble(job: Job) -> EmbeddingResult:
    """Put the vectors in the order of the input and add up what was avoided."""
    found = [job.found[text] for text in job.texts]
    vectors = np.empty((len(found), job.rules.space.dimensions), np.float32)
    for index, item in enumerate(found):
        vectors[index] = item.vector
    avoided: Counter[Decimal] = Counter()
    for text, times in Counter(job.texts).items():
        item = job.found[text]
        if item.candidate.price:
            avoided[item.candidate.price] += item.tokens * (times if item.cached else times - 1)
    job.saved = sum((tokens * price / MILLION for price, tokens in avoided.items()), Decimal(0))
    return EmbeddingResult(
        vectors=vectors,
        space=job.rules.space,
        models=tuple(item.candidate.name for item in found),
        cached=tuple(item.cached for item in found),
        degraded=tuple(item.candidate.rank < job.rank for item in found),
        shortened=tuple(item.shortened for item in found),
        usage=job.usage(),
    )
