"""Several calls of few texts that were sent as one, and the share of each in what was found and billed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal

from ..errors import EmbedRouterError
from ..spending import UNIT
from ..types import Found
from ._job import Charge, Job

__all__ = ["Member", "share_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One call among others."""

    job: Job
    texts: Sequence[str]
    told: Future[EmbedRouterError | None] = field(default_factory=Future)
    """Done when its share has been entered into the job: why nothing was found for the rest, or ``None`` where the call
    should try for itself.
    """


def share_out(job: Job, members: Sequence[Member], error: EmbedRouterError | None) -> None:
    """Enter what became of their texts into the calls that still wait, and tell them.

    Each pays for its texts, whoever comes later with an equal one nothing. The first counts the requests, and pays what
    is left: for answers that were of no use, and for texts of callers who left. Where nobody waits any more it is
    booked with the router's totals alone.
    """
    takers = [member for member in members if member.told.set_running_or_notify_cancel()]
    if not takers:
        job.rules.book(job)
        return
    shares: list[dict[str, Found]] = []
    taken: set[str] = set()
    for member in takers:
        known = {text: job.find(text) for text in member.texts if text in job.found}
        shares.append({text: found.again() if text in taken else found for text, found in known.items()})
        taken |= known.keys()
    charges = _charges(job, shares)
    for member, found, charge in zip(takers, shares, charges, strict=True):
        for text, item in found.items():
            member.job.put(text, item)
        member.job.charges += charge
        member.told.set_result(_copy(error))


def _copy(error: EmbedRouterError | None) -> EmbedRouterError | None:
    """Return an error for one caller: where it is raised adds to its story."""
    if error is None:
        return None
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def _charges(job: Job, shares: Sequence[dict[str, Found]]) -> list[list[Charge]]:
    """Split what was billed, known prices and unknown ones apart."""
    split: list[list[Charge]] = [[] for _ in shares]
    for priced in (True, False):
        charges = [charge for charge in job.charges if (charge.amount is not None) is priced]
        tokens = sum(charge.tokens for charge in charges)
        amount = sum((charge.amount for charge in charges if charge.amount is not None), Decimal(0))
        left, rest = tokens, amount
        for found, charge in zip(shares[1:], split[1:], strict=True):
            if part := min(_paid(found, priced), left):  # a part that stands in several texts was billed once
                share = (amount * part / tokens).quantize(UNIT, ROUND_DOWN)
                charge.append(Charge(part, share if priced else None, requests=0))
                left, rest = left - part, rest - share
        if charges:
            split[0].append(Charge(left, rest if priced else None, len(charges)))
    return split


def _paid(found: dict[str, Found], priced: bool) -> int:
    """Return the tokens of what was paid for just now."""
    return sum(
        tokens
        for _, tokens, (candidate, cached, _) in found.values()
        if not cached and (candidate.price is not None) is priced
    )
