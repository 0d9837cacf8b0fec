"""The stage of micro-batching: few texts of several calls that come at the same time are sent as one call's.

``JoinBatch`` stands before the cache: where a batch waits already, one look into the cache serves all its calls.
``OpenBatch`` stands behind it: a call whose texts are missing there waits for others while one of its kind is under
way, and otherwise goes alone and at once.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal

from ..errors import BudgetExceededError, EmbedRouterError
from ..spending import UNIT, Charge
from ..types import Found
from ._call import Call, Embedded, Stage, TextsRejected, TextsTooLong, seconds_left, without
from ._look_up import CacheReader
from ._micro_batcher import Batch, Member, MicroBatcher

__all__ = ["JoinBatch", "OpenBatch", "distribute"]

FEW = 16
"""Texts of a call that may wait a moment for others, to be sent with theirs."""

logger = logging.getLogger("embedrouter")


def kind_of(call: Call, texts: Sequence[str]) -> Hashable:
    """Return what calls must have in common to be sent as one; ``None`` for a call that goes alone."""
    group = call.effects.group
    if group is None or len(texts) > FEW or call.first.local or call.first.limits.texts == 1:
        return None
    return (group, call.rank, call.input_type, call.tag)


class JoinBatch:
    """Hands few texts to a batch that waits already."""

    def __init__(self, batcher: MicroBatcher, clock: Callable[[], float], following: Stage) -> None:
        self._batcher, self._clock, self._following = batcher, clock, following

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        kind = kind_of(call, texts)
        member = Member(texts, call.deadline)
        batch = self._batcher.join(kind, member) if kind else None
        embedded = await result(self._batcher, call, batch, member, self._clock()) if batch else Embedded()
        if missing := without(texts, embedded.found):
            embedded.add(await self._following.embed(call, missing))
        return embedded


class OpenBatch:
    """Has few texts sent together with those of other calls.

    Args:
        window: seconds that calls wait for each other.
    """

    def __init__(
        self,
        batcher: MicroBatcher,
        reader: CacheReader,
        window: float,
        clock: Callable[[], float],
        following: Stage,
    ) -> None:
        self._batcher, self._reader = batcher, reader
        self._window, self._clock, self._following = window, clock, following

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        kind = kind_of(call, texts)
        if kind is None:
            return await self._following.embed(call, texts)
        member = Member(texts, call.deadline)
        batch = self._batcher.enter(kind, member)
        if batch is None:
            try:
                return await self._following.embed(call, texts)
            finally:
                self._batcher.leave(kind)
        if batch.members[0] is member:
            effects = call.effects.detached()
            batch.stop = effects.stop
            try:
                effects.start(self._send(replace(call, effects=effects), batch))
            except BaseException:  # Ctrl-C while its thread is started: no call may wait for it
                self._batcher.end(batch)
                raise
        embedded = await result(self._batcher, call, batch, member, self._clock())
        if missing := without(texts, embedded.found):
            embedded.add(await self._following.embed(call, missing))
        return embedded

    async def _send(self, call: Call, batch: Batch) -> None:
        """Wait for further calls, and send what has come."""
        try:
            await call.effects.sleep(self._window)
            if members := self._batcher.seal(batch):
                await self._embed_together(call, members)
        except Exception:
            logger.exception("a request for several calls failed")
        finally:
            self._batcher.end(batch)

    async def _embed_together(self, call: Call, members: Sequence[Member]) -> None:
        """Embed the texts of several calls as if they were of one, and distribute what was found."""
        deadlines = [member.deadline for member in members if member.deadline is not None]
        call = replace(call, deadline=max(deadlines) if len(deadlines) == len(members) else None)
        texts = list(dict.fromkeys(text for member in members for text in member.texts))
        embedded = Embedded(await self._reader.look_up(call, texts))
        served = [member for member in members if not without(member.texts, embedded.found)]
        distribute(embedded, served, None)  # they need not wait for the others' request
        rest = [member for member in members if member not in served]
        error: EmbedRouterError | None = None
        answered = Embedded()
        try:
            if missing := without(texts, embedded.found):
                embedded.add(await self._following.embed(replace(call, report=answered.add), missing))
        except EmbedRouterError as failure:
            embedded.add(answered)
            if not isinstance(failure, TextsTooLong | TextsRejected | BudgetExceededError):
                error = failure  # of the others each call meets its own again, alone
        distribute(embedded, rest, error)


async def result(batcher: MicroBatcher, call: Call, batch: Batch, member: Member, now: float) -> Embedded:
    """Wait for a call's share; what is missing in it the call has to find alone."""
    try:
        await call.effects.wait_for([member.result], seconds_left(call, now))
    finally:
        if not member.result.done():  # its time is up, or it was stopped
            batcher.withdraw(batch, member)
    if member.result.cancelled():
        return Embedded()
    share = member.result.result()
    if isinstance(share, EmbedRouterError):
        raise share
    return share


def distribute(embedded: Embedded, members: Sequence[Member], error: EmbedRouterError | None) -> None:
    """Give the calls that still wait their shares.

    Each pays for its texts; a later one with an equal text pays nothing for it. The first counts the requests, and pays
    what is left: for answers that were of no use, and for texts of callers who left.
    """
    waiting = [member for member in members if member.result.set_running_or_notify_cancel()]
    shares: list[dict[str, Found]] = []
    taken: set[str] = set()
    for member in waiting:
        known = {text: embedded.found[text] for text in member.texts if text in embedded.found}
        shares.append({text: found.again() if text in taken else found for text, found in known.items()})
        taken |= known.keys()
    for member, found, charges in zip(waiting, shares, _split_charges(embedded.charges, shares), strict=True):
        failed = error is not None and len(found) < len(member.texts)
        member.result.set_result(_copy(error) if failed and error else Embedded(found, charges))


def _copy(error: EmbedRouterError) -> EmbedRouterError:
    """Return an error for one caller: where it is raised adds to its traceback."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def _split_charges(charges: Sequence[Charge], shares: Sequence[dict[str, Found]]) -> list[list[Charge]]:
    """Split what was billed, known prices and unknown ones apart."""
    split: list[list[Charge]] = [[] for _ in shares]
    if not shares:
        return split
    for priced in (True, False):
        billed = [charge for charge in charges if (charge.amount is not None) is priced]
        tokens = sum(charge.tokens for charge in billed)
        amount = sum((charge.amount for charge in billed if charge.amount is not None), Decimal(0))
        left, rest = tokens, amount
        for found, own in zip(shares[1:], split[1:], strict=True):
            if part := min(_billed_tokens(found, priced), left):  # a part that stands in several texts was billed once
                share = (amount * part / tokens).quantize(UNIT, ROUND_DOWN)
                own.append(Charge(part, share if priced else None, requests=0))
                left, rest = left - part, rest - share
        if billed:
            split[0].append(Charge(left, rest if priced else None, len(billed)))
    return split


def _billed_tokens(found: dict[str, Found], priced: bool) -> int:
    """Return the tokens of what was paid for just now."""
    return sum(
        tokens
        for _, tokens, (candidate, cached, _) in found.values()
        if not cached and (candidate.price is not None) is priced
    )
