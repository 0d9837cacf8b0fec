"""Send small calls that arrive at the same time as one request.

A call that arrives while another call of its kind is in flight waits for further calls, and the calls share one look-up
and one request; otherwise the call is sent alone, at once.
"""

import copy
from collections.abc import Callable, Hashable, Sequence
from contextvars import copy_context
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal

from ..errors import BudgetExceededError, EmbedRouterError
from ..events import Events, RequestShared
from ..spending import UNIT, Charge
from ..types import Found
from ._call import Call, Embedded, Stage, TextsRejected, TextsTooLong, without
from ._micro_batcher import Batch, Member, MicroBatcher

FEW = 16
"""Maximum number of texts of a call that may join a batch."""


def kind_of(call: Call, texts: Sequence[str]) -> Hashable:
    """Return the key of calls that may be sent as one request; ``None`` for a call that is sent alone."""
    group = call.effects.group
    if group is None or len(texts) > FEW or call.first.local or call.first.limits.texts == 1:
        return None
    read = _context() if any(item.reads_context for item in (*call.candidates, *call.lower)) else None
    context = read, call.limiter
    return (group, call.rank, call.input_type, call.tag, context)


NO_MATTER = ("embedrouter_", "decimal_context")
"""How context variables begin that change no request of a user's."""


def _context() -> Hashable:
    """Return a key of the caller's context variables: calls that differ in any of these may send different requests.

    Those of this package, and the one in which the standard library keeps each thread's settings of ``decimal``, do not
    count.
    """
    context = copy_context().items()
    return frozenset((variable, id(value)) for variable, value in context if not variable.name.startswith(NO_MATTER))


class MicroBatch:
    """Send small calls together.

    Args:
        window: seconds that a batch stays open for further calls, while another call of their kind is in flight.
    """

    def __init__(self, window: float, clock: Callable[[], float], events: Events, following: Stage) -> None:
        self._window, self._clock, self._events, self._following = window, clock, events, following
        self._batcher = MicroBatcher()

    async def embed(self, call: Call, texts: Sequence[str]) -> Embedded:
        kind = kind_of(call, texts)
        if kind is None:
            return await self._following.embed(call, texts)
        entered = self._batcher.enter(kind, texts, call.deadline)
        if entered is None:
            try:
                embedded = await self._following.embed(call, texts)
            finally:
                left = self._batcher.leave(kind)
            if left is not None:
                left.context.copy().run(self._start, call, left, 0)
            return embedded
        batch, member = entered
        if batch.members[0] is member:
            self._start(call, batch, self._window)
        began = self._clock()
        embedded = await result(self._batcher, call, batch, member, began)
        if embedded.found and batch.members[0] is not member and self._events.wanted(RequestShared):
            number, seconds = len(embedded.found), self._clock() - began
            self._events.emit(RequestShared, **call.asks(), texts=number, by="micro-batch", seconds=seconds)
        if missing := without(texts, embedded.found):
            embedded.add(await self._following.embed(call, missing))
        return embedded

    def _start(self, call: Call, batch: Batch, window: float) -> None:
        """Send a batch after a window, in the background."""
        effects = call.effects.detached()
        batch.stop = effects.stop
        try:
            effects.start(self._send(replace(call, effects=effects), batch, window))
        except BaseException:  # Ctrl-C while its thread is started: no call may wait for it
            self._batcher.end(batch)
            raise

    async def _send(self, call: Call, batch: Batch, window: float) -> None:
        """Wait for further calls, seal the batch and send its texts, unless it was sent meanwhile."""
        members: list[Member] | None = None
        try:
            if window:
                await call.effects.sleep(window)
            if members := self._batcher.seal(batch):
                await self._embed_together(call, members)
        except Exception:  # noqa: BLE001 - a defect: each call meets it again, alone
            pass
        finally:
            if members is not None or not batch.sealed:
                self._batcher.end(batch)

    async def _embed_together(self, call: Call, members: Sequence[Member]) -> None:
        """Embed the texts of several calls as one request, and distribute the vectors."""
        deadlines = [member.deadline for member in members if member.deadline is not None]
        call = replace(call, deadline=max(deadlines) if len(deadlines) == len(members) else None)
        texts = list(dict.fromkeys(text for member in members for text in member.texts))
        answered, error = Embedded(), None

        def report(part: Embedded) -> None:
            answered.add(part)
            if not part.charges:  # from the cache: calls that lack no text need not wait for the request
                distribute(part, [member for member in members if not without(member.texts, part.found)], None)

        try:
            answered = await self._following.embed(replace(call, report=report), texts)
        except EmbedRouterError as failure:
            retried = isinstance(failure, TextsTooLong | BudgetExceededError)
            if not retried and (answered.charges or not isinstance(failure, TextsRejected)):
                error = failure  # of the others each call meets its own again, alone
        distribute(answered, [member for member in members if not member.result.done()], error)


async def result(batcher: MicroBatcher, call: Call, batch: Batch, member: Member, now: float) -> Embedded:
    """Wait for the result of a call. The call itself embeds the texts that are missing in the result."""
    try:
        await call.effects.wait_for([member.result], None if call.deadline is None else call.seconds_left(now))
    finally:
        if not member.result.done():  # the call's time is up, or the call was stopped
            batcher.remove(batch, member)
    if member.result.cancelled():
        return Embedded()
    share = member.result.result()
    if isinstance(share, EmbedRouterError):
        raise share
    return share


def distribute(embedded: Embedded, members: Sequence[Member], error: EmbedRouterError | None) -> None:
    """Distribute vectors, charges and errors to the waiting calls.

    Each call is charged for its texts; for equal texts the first call alone. The first call also counts the requests
    and is charged the remainder: invalid answers, and texts of calls that no longer wait.
    """
    waiting = [member for member in members if member.result.set_running_or_notify_cancel()]
    shares: list[dict[str, Found]] = []
    taken: set[str] = set()
    for member in waiting:
        known = {text: embedded.found[text] for text in member.texts if text in embedded.found}
        shares.append({text: found.again() if text in taken else found for text, found in known.items()})
        taken |= known.keys()
    for member, found, charges in zip(waiting, shares, _split_charges(embedded.charges, shares), strict=True):
        failed = _failure(error, without(member.texts, found), others_embedded=bool(found))
        member.result.set_result(failed or Embedded(found, charges))


def _failure(
    error: EmbedRouterError | None, missing: Sequence[str], *, others_embedded: bool
) -> EmbedRouterError | None:
    """Return the error of one caller, who lacks some texts; a refusal concerns only those who gave such a text."""
    if not isinstance(error, TextsRejected):
        return _copy(error) if error is not None and missing else None
    own = {text: error.reasons[text] for text in missing if text in error.reasons}
    return TextsRejected(own, others_embedded=others_embedded) if own else None


def _copy(error: EmbedRouterError) -> EmbedRouterError:
    """Copy an error for one caller, because each ``raise`` adds to the error's traceback."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own


def _split_charges(charges: Sequence[Charge], shares: Sequence[dict[str, Found]]) -> list[list[Charge]]:
    """Split charges among calls, with known and unknown prices apart."""
    split: list[list[Charge]] = [[] for _ in shares]
    if not shares:
        return split
    for priced in (True, False):
        billed = [charge for charge in charges if (charge.amount is not None) is priced]
        tokens = sum(charge.tokens for charge in billed)
        amount = sum((charge.amount for charge in billed if charge.amount is not None), Decimal(0))
        left, rest = tokens, amount
        for found, own in zip(shares[1:], split[1:], strict=True):
            if part := min(_billed_tokens(found, priced), left):  # a part that several texts contain was billed once
                share = (amount * part / tokens).quantize(UNIT, ROUND_DOWN)
                own.append(Charge(part, share if priced else None, requests=0))
                left, rest = left - part, rest - share
        if billed:
            split[0].append(Charge(left, rest if priced else None, len(billed)))
    return split


def _billed_tokens(found: dict[str, Found], priced: bool) -> int:
    """Return the billed tokens of the vectors that were not cached."""
    return sum(
        tokens
        for _, tokens, (candidate, cached, _) in found.values()
        if not cached and (candidate.price is not None) is priced
    )
