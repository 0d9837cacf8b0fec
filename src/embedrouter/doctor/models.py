"""Each model of a router, asked directly for the vectors of the probe texts.

It is asked once for each input type, past the cache, and what that costs is booked like any call. The vectors are
compared with those that are stored, and with those of the router's other models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
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
from ..models import Card
from ..models import _agreement as probes
from ..providers import encoding
from ..router import Router
from ..types import Candidate, InputType, Usage, Vectors, dollars
from .drift import Probed, drifted
from .finding import Finding, fine, problem, warning
from .records import Record, Records

__all__ = ["Checkup", "check_models"]

INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)
OLD = timedelta(days=365)
UNIT = 1e-3
"""How far from 1 the length of a unit vector may be: half-precision numbers give no less."""

FAILURES: dict[type[EmbedRouterError], tuple[str, str]] = {
    AuthenticationError: ("key", "Check the key, and whether the account may use the model."),
    RateLimitedError: ("reachable", "Wait and repeat, or look at the account's limits and quota."),
    BadResponseError: (
        "answer",
        "Check dimensions=, encoding_format= and base_url: what answers there is not what was declared.",
    ),
    InputRejectedError: ("answer", "Check dimensions=, prompts= and the model's name."),
    InvalidInputError: ("answer", "Check max_input_tokens=: the probe texts have under 100 tokens each."),
    BackendError: ("reachable", "Check the network, base_url and the provider's status page, and repeat."),
    BudgetExceededError: ("budget", "Raise the cap in Budget(…), or set the model's price."),
    ConfigError: ("settings", "Correct the model's declaration."),
    EmbedRouterError: ("answer", "Look at the router's log."),
}
"""What an error says about a model, and what to do; the first that fits."""


@dataclass(slots=True)
class Checkup:
    """What became of the models of a router."""

    findings: list[Finding] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    """What the probes took."""


def check_models(
    router: Router,
    records: Records,
    *,
    cards: Mapping[str, Card],
    today: date,
    accept: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Checkup:
    """Probe every model of a router, and compare.

    Args:
        records: what the models answered on an earlier day; what is missing is added.
        cards: the catalogue, for the day a price was read.
        today: what records are dated with.
        accept: whether to store today's vectors in place of those that differ.
    """
    checkup, before = Checkup(), router.usage
    probed = []
    for position, name in enumerate(probes.labels(router.models)):
        candidate = router.candidates[position]
        outcome = _probe(router, position, name, clock)
        checkup.findings += [outcome] if isinstance(outcome, Finding) else _answered(outcome)
        checkup.findings += [_price(router, candidate, name, cards.get(candidate.name), today)]
        checkup.findings += _counting(candidate, name, cards.get(candidate.name))
        if not isinstance(outcome, Finding):
            probed.append(outcome)
    agreed = probes.agreements([probes.Place(item.name, item.candidate.fingerprint, item.vectors) for item in probed])
    checkup.findings += [_agreement(item) for item in agreed]
    doubtful = {name for item in agreed if not item.agrees for name in (item.one, item.other)}
    stored: dict[tuple[str, InputType], Record] = {}
    for item in probed:
        checkup.findings += drifted(item, records, stored, today, keep=item.name not in doubtful, accept=accept)
    used = router.usage
    checkup.usage = Usage(
        tokens=used.tokens - before.tokens,
        requests=used.requests - before.requests,
        cost=used.cost - before.cost,
        unpriced_tokens=used.unpriced_tokens - before.unpriced_tokens,
    )
    return checkup


# One model


def _probe(router: Router, position: int, name: str, clock: Callable[[], float]) -> Probed | Finding:
    vectors: dict[InputType, Vectors] = {}
    seconds: dict[InputType, float] = {}
    for input_type in INPUT_TYPES:
        began = clock()
        try:
            vectors[input_type] = router.embed_with(position, probes.TEXTS, input_type=input_type).vectors
        except EmbedRouterError as error:
            return _failure(name, input_type, error)
        seconds[input_type] = clock() - began
    return Probed(router.candidates[position], name, vectors, seconds)


def _failure(name: str, input_type: InputType, error: EmbedRouterError) -> Finding:
    cause: EmbedRouterError = error
    if isinstance(error, NoModelAvailableError) and error.attempts:
        cause = error.attempts[-1].error
    check, advice = next(said for kind, said in FAILURES.items() if isinstance(cause, kind))
    facts = {"input_type": input_type, "error": type(cause).__name__}
    if isinstance(cause, AuthenticationError) and cause.status is None:
        return problem(name, check, str(cause), "Set it where this command runs, and repeat.", **facts)
    if isinstance(cause, AuthenticationError):  # a provider may quote the key it got
        return problem(name, check, f"the provider refused the key (HTTP {cause.status})", advice, **facts)
    return problem(name, check, str(cause), advice, **facts)


def _answered(probed: Probed) -> Iterator[Finding]:
    name, candidate = probed.name, probed.candidate
    first, *rest = (f"{kind} in {seconds:.2f} s" for kind, seconds in probed.seconds.items())
    times = "; ".join([f"{first}, start-up included", *rest])
    yield fine(
        name,
        "answer",
        f"{candidate.space.dimensions} dimensions, all finite; {times}",
        space=candidate.space.name,
        dimensions=candidate.space.dimensions,
        tier=candidate.tier,
        seconds={kind: round(seconds, 4) for kind, seconds in probed.seconds.items()},
    )
    lengths = np.linalg.norm(np.concatenate(list(probed.vectors.values())).astype(np.float64), axis=1)
    if np.abs(lengths - 1).max() > UNIT:
        yield warning(
            name,
            "length",
            f"vectors are not of length 1 but from {lengths.min():.3f} to {lengths.max():.3f}",
            "Let the vector store compare by cosine, not by inner product.",
            shortest=float(lengths.min()),
            longest=float(lengths.max()),
        )
    if (nearest := max(map(probes.nearest, probed.vectors.values()))) >= probes.SAME:
        yield problem(
            name,
            "texts",
            f"different texts have the same vector (cosine {nearest:.4f})",
            "What answers there is no embedding model, or it does not read the texts. Check base_url and its log.",
            cosine=nearest,
        )
    if candidate.symmetric and (least := probes.cosine(*probed.vectors.values())) < probes.SAME:
        yield problem(
            name,
            "symmetry",
            f"documents and queries are taken to be embedded alike, and are not (cosine {least:.4f})",
            "One cache entry serves both, which is wrong here. Check what answers at base_url, or correct the row of "
            "the catalogue: catalog=….",
            cosine=least,
        )


def _price(router: Router, candidate: Candidate, name: str, card: Card | None, today: date) -> Finding:
    price = candidate.price
    if price is None:
        try:
            router.afford(None)
        except EmbedRouterError:
            return problem(
                name,
                "price",
                "unknown, so no budget can hold and the model is never called",
                "Set Model(…, price=…), US dollars per million tokens.",
                price=None,
            )
        return warning(
            name,
            "price",
            "unknown, so what it costs is not booked",
            "Set Model(…, price=…), US dollars per million tokens.",
            price=None,
        )
    if not price:
        return fine(name, "price", "it costs nothing", price=price)
    each = f"{dollars(price)} per million tokens"
    if card is None or card.price != price:
        return fine(name, "price", f"{each}, as declared", price=price)
    if card.checked is None or today - card.checked > OLD:
        when = f"read on {card.checked}, more than a year ago" if card.checked else "nobody knows from when"
        return warning(
            name,
            "price",
            f"{each}, {when}",
            f"Look at {card.source or 'the maker’s page'} and set Model(…, price=…), or update embedrouter.",
            price=price,
            checked=card.checked,
        )
    return fine(name, "price", f"{each}, read on {card.checked}", price=price, checked=card.checked)


def _counting(candidate: Candidate, name: str, card: Card | None) -> Iterator[Finding]:
    if card is None or card.tokenizer is None:
        return
    if encoding(card.tokenizer) is not None:
        yield fine(name, "tokens", f"counted exactly with {card.tokenizer}", exact=True)
    else:
        yield warning(
            name,
            "tokens",
            f"estimated, up to 1.6 times too high: the vocabulary of {card.tokenizer} is not on this machine",
            "Only estimates suffer, never bills. To count exactly, set TIKTOKEN_CACHE_DIR to a folder and have it "
            f"downloaded: python -c \"import tiktoken; tiktoken.get_encoding('{card.tokenizer}')\"",
            exact=False,
        )


# Several models


def _agreement(item: probes.Agreement) -> Finding:
    what = "the same model" if item.claim == "same model" else "models of one space"
    facts = {
        "places": [item.one, item.other],
        "claim": item.claim,
        "cosine": item.cosine,
        "nearest_other": item.nearest_other,
    }
    if item.agrees:
        return fine("agreement", what, str(item), **facts)
    return problem("agreement", what, str(item), probes.advice(item), **facts)
