"""Checks of each model of a router: its answer, price, token counts, drift, and agreement with the other models.

Each model embeds the probe texts once for each input type, without the cache; the ledger records the cost as for any
call. The vectors are compared with stored vectors and with those of the router's other models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import get_args

import numpy as np

from ..errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    ConfigError,
    EmbedRouterError,
    InputRejectedError,
    InvalidInputError,
    NoModelAvailableError,
    RateLimitedError,
)
from ..models import PRICE_MAX_AGE, Card
from ..models.agreement import (
    PROBE_TEXTS,
    SAME_MODEL_COSINE,
    Agreement,
    ProbeVectors,
    compare_models,
    highest_cosine_between_texts,
    lowest_cosine,
    unique_names,
)
from ..providers import address_of, encoding
from ..router import Router, embed_alone, wiring_of
from ..types import Candidate, InputType, Usage, Vectors, dollars
from ._drift import ProbedModel, check_drift
from ._finding import Finding, fine, problem, warning
from ._probe_records import ProbeRecord, ProbeRecords

INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)
LENGTH_TOLERANCE = 1e-3
"""The largest difference of a unit vector's length from 1: half-precision numbers give no less."""

FAILURES: dict[type[EmbedRouterError], tuple[str, str]] = {
    AuthenticationError: ("key", "Check the key, and whether the account may use the model."),
    RateLimitedError: ("reachable", "Wait and repeat, or check the account's limits and quota."),
    BadResponseError: (
        "answer",
        "Check dimensions=, encoding_format= and base_url: the answer does not match the declaration.",
    ),
    InputRejectedError: ("answer", "Check dimensions=, prompts= and the model's name."),
    InvalidInputError: ("answer", "Check max_input_tokens=: the probe texts have under 100 tokens each."),
    BackendError: ("reachable", "Check the network, base_url and the provider's status page, and repeat."),
    BudgetExceededError: ("budget", "Raise the cap in Budget(…), or set the model's price."),
    ConfigError: ("settings", "Correct the model's declaration."),
    EmbedRouterError: ("answer", "Read the router's log."),
}
"""The check that failed and the advice, by error; the first matching class counts."""


@dataclass(slots=True)
class Checkup:
    """The result of checking the models of a router."""

    findings: list[Finding] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    """Tokens, requests and cost of the probes."""


def check_models(
    router: Router,
    records: ProbeRecords,
    *,
    cards: Mapping[str, Card],
    today: date,
    accept: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Checkup:
    """Probe every model of a router and compare the vectors.

    Args:
        records: vectors of an earlier day; missing records are added.
        cards: the catalogue, for the day on which a price was checked.
        today: the date of new records.
        accept: whether to replace records that differ.
    """
    checkup, before = Checkup(), router.usage
    probed = []
    for position, name in enumerate(unique_names(router.models)):
        candidate = wiring_of(router).candidates[position]
        outcome = _probe(router, position, name, clock)
        checkup.findings += _address(router, candidate, name)
        checkup.findings += [outcome] if isinstance(outcome, Finding) else _answered(outcome)
        card = cards.get(candidate.name)
        checkup.findings += _retirement(card, name, today)
        checkup.findings += [_price(router, candidate, name, card, today), *_counting(card, name)]
        if not isinstance(outcome, Finding):
            probed.append(outcome)
    compared = compare_models([ProbeVectors(item.name, item.candidate.fingerprint, item.vectors) for item in probed])
    checkup.findings += [_agreement(item) for item in compared]
    doubtful = {name for item in compared if not item.agrees for name in (item.one, item.other)}
    stored: dict[tuple[str, InputType], ProbeRecord] = {}
    for item in probed:
        checkup.findings += check_drift(item, records, stored, today, keep=item.name not in doubtful, accept=accept)
    used = router.usage
    checkup.usage = Usage(
        tokens=used.tokens - before.tokens,
        requests=used.requests - before.requests,
        cost=used.cost - before.cost,
        unpriced_tokens=used.unpriced_tokens - before.unpriced_tokens,
    )
    return checkup


# One model


def _probe(router: Router, position: int, name: str, clock: Callable[[], float]) -> ProbedModel | Finding:
    vectors: dict[InputType, Vectors] = {}
    seconds: dict[InputType, float] = {}
    for input_type in INPUT_TYPES:
        began = clock()
        try:
            vectors[input_type] = embed_alone(router, position, PROBE_TEXTS, input_type).vectors
        except EmbedRouterError as error:
            return _failure(name, input_type, error)
        seconds[input_type] = clock() - began
    return ProbedModel(wiring_of(router).candidates[position], name, vectors, seconds)


def _address(router: Router, candidate: Candidate, name: str) -> Iterator[Finding]:
    if (address := address_of(wiring_of(router).backends[candidate.index])) is not None:
        origin = f", from {address.variable}" if address.variable else ""
        yield fine(name, "address", f"{address}{origin}", url=str(address), variable=address.variable)


def _retirement(card: Card | None, name: str, today: date) -> Iterator[Finding]:
    if card is not None and (retirement := card.retirement(today)) is not None:
        advice = f"Choose another model and embed the documents again in time. See {card.source}."
        yield warning(name, "retirement", f"the model {retirement}", advice, retired=card.retired)


def _failure(name: str, input_type: InputType, error: EmbedRouterError) -> Finding:
    cause: EmbedRouterError = error
    if isinstance(error, NoModelAvailableError) and error.attempts:
        cause = error.attempts[-1].error
    check, advice = next(said for kind, said in FAILURES.items() if isinstance(cause, kind))
    facts = {"input_type": input_type, "error": type(cause).__name__}
    story = str(cause)
    if isinstance(cause, AuthenticationError):
        if cause.status is None:
            advice = "Set the variable where this command runs, and repeat."
        else:  # the provider's message may repeat the key
            story = f"the provider refused the key (HTTP {cause.status})"
    return problem(name, check, story, advice, **facts)


def _answered(probed: ProbedModel) -> Iterator[Finding]:
    name, candidate = probed.name, probed.candidate
    first, *rest = (f"{kind} in {seconds:.2f} s" for kind, seconds in probed.seconds.items())
    times = "; ".join([f"{first}, start-up included", *rest])
    space = candidate.space
    rounded = {kind: round(seconds, 4) for kind, seconds in probed.seconds.items()}
    facts = {"space": space.name, "dimensions": space.dimensions, "tier": candidate.tier, "seconds": rounded}
    yield fine(name, "answer", f"{space.dimensions} dimensions, all finite; {times}", **facts)
    lengths = np.linalg.norm(np.concatenate(list(probed.vectors.values())).astype(np.float64), axis=1)
    if np.abs(lengths - 1).max() > LENGTH_TOLERANCE:
        shortest, longest = float(lengths.min()), float(lengths.max())
        story = f"vectors do not have length 1 but {shortest:.3f} to {longest:.3f}"
        advice = "Configure the vector store to compare by cosine, not by inner product."
        yield warning(name, "length", story, advice, shortest=shortest, longest=longest)
    if (highest := max(map(highest_cosine_between_texts, probed.vectors.values()))) >= SAME_MODEL_COSINE:
        story = f"different texts have the same vector (cosine {highest:.4f})"
        advice = "The server ignores the texts or runs no embedding model. Check base_url and the server's log."
        yield problem(name, "texts", story, advice, cosine=highest)
    if candidate.symmetric and (lowest := lowest_cosine(*probed.vectors.values())) < SAME_MODEL_COSINE:
        story = f"documents and queries are declared to be embedded alike, and are not (cosine {lowest:.4f})"
        advice = (
            "One cache row would serve both, which is wrong here. Check the server at base_url, or correct the row of "
            "the catalogue: catalog=…."
        )
        yield problem(name, "symmetry", story, advice, cosine=lowest)


def _price(router: Router, candidate: Candidate, name: str, card: Card | None, today: date) -> Finding:
    price = candidate.price
    if price is None:
        advice = "Set Model(…, price=…), US dollars per million tokens."
        try:
            wiring_of(router).require_affordable(None)
        except EmbedRouterError:
            story = "unknown, so no budget can hold and the model is never called"
            return problem(name, "price", story, advice, price=None)
        return warning(name, "price", "unknown, so the ledger cannot record a cost", advice, price=None)
    if not price:
        return fine(name, "price", "free of charge", price=price)
    each = f"{dollars(price)} per million tokens"
    if card is None or card.price != price:
        return fine(name, "price", f"{each}, as declared", price=price)
    if card.checked is None or today - card.checked > PRICE_MAX_AGE:
        when = f"checked on {card.checked}, more than a year ago" if card.checked else "of an unknown day"
        advice = f"Check {card.source or 'the maker’s page'} and set Model(…, price=…), or update embedrouter."
        return warning(name, "price", f"{each}, {when}", advice, price=price, checked=card.checked)
    return fine(name, "price", f"{each}, checked on {card.checked}", price=price, checked=card.checked)


def _counting(card: Card | None, name: str) -> Iterator[Finding]:
    if card is None or card.tokenizer is None:
        return
    if encoding(card.tokenizer) is not None:
        yield fine(name, "tokens", f"counted exactly with {card.tokenizer}", exact=True)
    else:
        story = f"estimated, up to 1.6 times too high: the vocabulary of {card.tokenizer} is not on this machine"
        advice = (
            "Only estimates are affected, never bills. To count exactly, set TIKTOKEN_CACHE_DIR to a folder and "
            f"download the vocabulary: python -c \"import tiktoken; tiktoken.get_encoding('{card.tokenizer}')\""
        )
        yield warning(name, "tokens", story, advice, exact=False)


# Several models


def _agreement(item: Agreement) -> Finding:
    what = "the same model" if item.claim == "same model" else "models of one space"
    facts = {"places": [item.one, item.other], "claim": item.claim, "cosine": item.cosine}
    facts["nearest_other"] = item.nearest_other
    if item.agrees:
        return fine("agreement", what, str(item), **facts)
    return problem("agreement", what, str(item), item.advice, **facts)
