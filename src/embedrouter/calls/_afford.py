"""Check the budget before the first request, and pack texts into concurrent requests.

A call whose cost exceeds the budget is refused as a whole, before any money is spent.
"""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from ..errors import BudgetExceededError
from ..events import BudgetRefused, Events
from ..spending import Budget, Ledger, cost
from ..types import Candidate
from ._call import Call, Degradation, Embedded, SizedText, TextsRejected, input_limit
from ._pack import pack_texts
from ._send import Send


class Afford:
    """Check the budget, and send texts in concurrent requests."""

    def __init__(
        self, ledger: Ledger, budget: Budget, degradation: Degradation, events: Events, following: Send
    ) -> None:
        self._ledger, self._budget = ledger, budget
        self._degradation, self._events, self._following = degradation, events, following

    async def embed(self, call: Call, texts: Sequence[SizedText], *, may_shorten: bool) -> Embedded:
        embedded = Embedded()
        if not texts:
            return embedded
        requests = pack_requests(texts, call.first)
        if len(requests) > 1 or self._budget.caps_calls:  # the reservation checks a single request
            amount = await self.cost(call, sum(item.tokens for item in texts))
            refusal = await call.effects.run_blocking(self._ledger.refusal, self._budget, amount, call.tag)
            if refusal is not None:
                self._events.emit(BudgetRefused, **call.about(call.first), cost=amount, reason=refusal)
                unaffordable = BudgetExceededError(f"{call.first.name} was not called: {refusal}", tag=refusal.tag)
                if not self._degradation.allows(call.input_type, unaffordable):
                    raise unaffordable
                call = replace(call, unaffordable=unaffordable)
        parts: list[Embedded] = []

        async def send(request: Sequence[SizedText]) -> None:
            parts.append(await self._following.embed(call, request, may_shorten=may_shorten))

        try:
            await call.effects.run_concurrently([send(request) for request in requests], call.first.concurrency)
        except TextsRejected as error:  # too many refusals; earlier answers are in the cache
            raise TextsRejected(error.reasons, others_embedded=any(part.charges for part in parts)) from error
        for part in parts:
            embedded.add(part)
        return embedded

    async def cost(self, call: Call, tokens: int) -> Decimal | None:
        """Return the cost of tokens in US dollars; ``None`` where the price is unknown."""
        model, free = call.first, 0
        if model.free_tokens:
            free = await call.effects.run_blocking(self._ledger.free_tokens, model.name, model.free_tokens)
        return cost(max(0, tokens - free), model.price)


def pack_requests(texts: Sequence[SizedText], candidate: Candidate) -> list[list[SizedText]]:
    """Pack texts into requests. A text that may be too long is sent alone, so that its refusal affects no other."""
    limit = input_limit(candidate)
    safe = [item for item in texts if item.tokens <= limit]
    if candidate.local:  # texts of equal length need no padding
        safe.sort(key=lambda item: len(item.text))
    doubtful = [[item] for item in texts if item.tokens > limit]
    return pack_texts(safe, candidate) + doubtful
