"""Checks of each model of a router: its answer, price, token counts, drift, and agreement with the other models.

Each model embeds the probe texts once for each input type, without the cache; the ledger records the cost as for any
call. The vectors are compared with stored vectors and with those of the router's other models.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date
from typing import get_args

import numpy as np

from .. import errors, models
from ..models import agreement
from ..providers import address_of, encoding, runtime_of
from ..router import Router, embed_alone, wiring_of
from ..types import Candidate, InputType, Vectors, dollars
from ._drift import CHANGED, ProbeRecords, check_drift
from ._finding import Finding, fine, problem, warning

INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)
LENGTH_TOLERANCE = 1e-3
"""The largest difference of a unit vector's length from 1: half-precision numbers give no less."""

FAILURES: dict[type[errors.EmbedRouterError], tuple[str, str]] = {
    errors.AuthenticationError: ("key", "Check the key, and whether the account may use the model."),
    errors.RateLimitedError: ("reachable", "Wait and repeat, or check the account's limits and quota."),
    errors.BadResponseError: (
        "answer",
        "Check dimensions=, encoding_format= and base_url: the answer does not match the declaration.",
    ),
    errors.InputRejectedError: ("answer", "Check dimensions=, prompts= and the model's name."),
    errors.InvalidInputError: ("answer", "Check max_input_tokens=: the probe texts have under 100 tokens each."),
    errors.BackendError: ("reachable", "Check the network, base_url and the provider's status page, and repeat."),
    errors.BudgetExceededError: ("budget", "Raise the cap in Budget(…), or set the model's price."),
    errors.SpaceMismatchError: (
        "drift",
        f"If both names mean one model, declare Model(…, served_as=[…]). Otherwise: {CHANGED}",
    ),
    errors.ConfigError: ("settings", "Correct the model's declaration."),
    errors.EmbedRouterError: ("answer", "Read the router's log."),
}
"""The check that failed and the advice, by error; the first matching class counts."""


def check_models(
    router: Router, records: ProbeRecords, *, cards: models.Catalogue, today: date, accept: bool = False
) -> Iterator[Finding]:
    """Probe every model of a router and compare the vectors.

    Args:
        records: vectors of an earlier day; missing records are added.
        cards: the catalogue, for the day on which a price was checked.
        today: the date of new records.
        accept: whether to replace records that differ, and names by which servers call the models.
    """
    probed: list[agreement.ProbeVectors] = []
    for position, name in enumerate(agreement.unique_names(router.models)):
        candidate = wiring_of(router).candidates[position]
        yield from _address(router, candidate, name)
        if accept:
            wiring_of(router).served.forget(candidate.name, candidate.fingerprint)
        vectors: dict[InputType, Vectors] = {}
        seconds: dict[str, float] = {}
        for input_type in INPUT_TYPES:
            began = time.monotonic()
            try:
                vectors[input_type] = embed_alone(router, position, agreement.PROBE_TEXTS, input_type).vectors
            except errors.EmbedRouterError as error:
                yield _failure(name, input_type, error)
                break
            seconds[input_type] = round(time.monotonic() - began, 4)
        else:
            probed.append(agreement.ProbeVectors.of(candidate, name, vectors))
            yield from _answered(name, candidate, probed[-1].vectors, seconds)
        if runtime := runtime_of(wiring_of(router).backends[candidate.index]):
            yield fine(name, "runtime", runtime, runtime=runtime)
        card = _card(cards, candidate.name)
        yield _price(router, candidate, name, card, today)
        yield from _counting(card, name)
    compared = agreement.compare_models(probed)
    yield from map(_agreement, compared)
    doubtful = {name for item in compared if not item.agrees for name in (item.one, item.other)}
    # of several deployments of one model that agree, one is compared
    distinct = {model.name if model.name in doubtful else model.fingerprint: model for model in reversed(probed)}
    for model in reversed(distinct.values()):
        keep, events = model.name not in doubtful, wiring_of(router).events
        yield from check_drift(model, records, today, keep=keep, accept=accept, events=events)


# One model


def _address(router: Router, candidate: Candidate, name: str) -> Iterator[Finding]:
    if (address := address_of(wiring_of(router).backends[candidate.index])) is not None:
        origin = f", from {address.variable}" if address.variable else ""
        yield fine(name, "address", f"{address}{origin}", url=str(address), variable=address.variable)


def _failure(name: str, input_type: InputType, error: errors.EmbedRouterError) -> Finding:
    if isinstance(error, errors.NoModelAvailableError) and error.attempts:
        error = error.attempts[-1].error
    check, advice = next(said for kind, said in FAILURES.items() if isinstance(error, kind))
    story = str(error)
    if isinstance(error, errors.AuthenticationError):
        if error.status is None:
            advice = "Set the variable where this command runs, and repeat."
        else:  # the provider's message may repeat the key
            story = f"the provider refused the key (HTTP {error.status})"
    return problem(name, check, story, advice, input_type=input_type, error=type(error).__name__)


def _answered(
    name: str, candidate: Candidate, vectors: Mapping[InputType, Vectors], seconds: Mapping[str, float]
) -> Iterator[Finding]:
    space = candidate.space
    first, *rest = (f"{kind} in {time:.2f} s" for kind, time in seconds.items())
    numbers = "all finite" if candidate.output_dtype is None else f"as {space.dimensions} numbers of {candidate.number}"
    story = f"{candidate.dimensions} dimensions, {numbers}; {'; '.join([f'{first}, start-up included', *rest])}"
    facts = {"space": space.name, "dimensions": space.dimensions, "tier": candidate.tier, "seconds": seconds}
    yield fine(name, "answer", story, **facts)
    lengths = np.linalg.norm(np.concatenate(list(vectors.values())).astype(np.float64), axis=1)
    if candidate.output_dtype is None and np.abs(lengths - 1).max() > LENGTH_TOLERANCE:
        shortest, longest = float(lengths.min()), float(lengths.max())
        story = f"vectors do not have length 1 but {shortest:.3f} to {longest:.3f}"
        advice = "Configure the vector store to compare by cosine, not by inner product."
        yield warning(name, "length", story, advice, shortest=shortest, longest=longest)
    if (highest := max(map(agreement.highest_cosine_between_texts, vectors.values()))) >= agreement.SAME_MODEL_COSINE:
        story = f"different texts have the same vector (cosine {highest:.4f})"
        advice = "The server ignores the texts or runs no embedding model. Check base_url and the server's log."
        yield problem(name, "texts", story, advice, cosine=highest)
    if candidate.symmetric and (lowest := agreement.lowest_cosine(*vectors.values())) < agreement.SAME_MODEL_COSINE:
        story = f"documents and queries are declared to be embedded alike, and are not (cosine {lowest:.4f})"
        advice = (
            "One cache row would serve both, which is wrong here. Check the server at base_url, or correct the row of "
            "the catalogue: catalog=…."
        )
        yield problem(name, "symmetry", story, advice, cosine=lowest)


def _card(cards: models.Catalogue, name: str) -> models.Card | None:
    """Return the card of a model, also under an alias, of the hub or behind a gateway."""
    with suppress(errors.ConfigError):  # a name that only a backend of the user's may have
        return cards.find(name)
    return None


def _price(router: Router, candidate: Candidate, name: str, card: models.Card | None, today: date) -> Finding:
    price = candidate.price
    if price is None:
        advice = "Set Model(…, price=…), US dollars per million tokens."
        if wiring_of(router).budget.has_caps:
            story = "unknown, so no budget can hold and the model is never called"
            return problem(name, "price", story, advice, price=None)
        return warning(name, "price", "unknown, so the ledger cannot record a cost", advice, price=None)
    if not price:
        return fine(name, "price", "free of charge", price=price)
    each = f"{dollars(price)} per million tokens"
    if card is None or card.price != price:
        return fine(name, "price", f"{each}, as declared", price=price)
    if card.checked is None or today - card.checked > models.PRICE_MAX_AGE:
        when = f"checked on {card.checked}, more than a year ago" if card.checked else "of an unknown day"
        advice = f"Check {card.source or 'the maker’s page'} and set Model(…, price=…), or update embedrouter."
        return warning(name, "price", f"{each}, {when}", advice, price=price, checked=card.checked)
    return fine(name, "price", f"{each}, checked on {card.checked}", price=price, checked=card.checked)


def _counting(card: models.Card | None, name: str) -> Iterator[Finding]:
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


def _agreement(item: agreement.Agreement) -> Finding:
    what = "the same model" if item.claim == "same model" else "models of one space"
    facts = {"places": [item.one, item.other], "claim": item.claim, "cosine": item.cosine}
    facts["nearest_other"] = item.nearest_other
    if item.agrees:
        return fine("agreement", what, str(item), **facts)
    return problem("agreement", what, str(item), item.advice, **facts)
