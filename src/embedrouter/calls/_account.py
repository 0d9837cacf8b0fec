"""What is told of one call: how it begins, what it was billed, what each model has answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ..events import CallBegan, CallBilled, CallEnded, Share
from ..spending import Charge, Saving, usage_of
from ..types import EmbeddingResult, Usage
from ._call import Call, Embedded
from ._question import Question
from ._wiring import Wiring


class CallAccount:
    """The account of one call, which is kept only where events of calls are wanted."""

    def __init__(self, wiring: Wiring, question: Question) -> None:
        self._wiring, self._question = wiring, question
        self._began = wiring.clock()
        self._charges: list[Charge] = []
        self.avoided: Sequence[Saving] = ()

    def begin(self) -> CallBegan:
        """Return what is told before the call: of the model that would be called first."""
        first = self._wiring.first(self._question.rank)
        return CallBegan(
            model=first.name,
            tier=self._wiring.tiers[self._question.rank],
            input_type=self._question.input_type,
            tag=self._question.tag,
            texts=len(self._question.texts),
            dimensions=first.dimensions,
        )

    def attached(self, call: Call) -> Call:
        """Return a call that reports its charges here, too: they are known also where the call fails."""

        def report(part: Embedded) -> None:
            self._charges += part.charges
            call.report(part)

        return replace(call, report=report)

    def failed(self, error: BaseException) -> CallEnded:
        """Return the event of a call that has raised an error."""
        return self._event(usage_of(self._charges), error=type(error).__name__)

    def ended(self, result: EmbeddingResult) -> CallEnded:
        """Return the event of a call that has returned."""
        texts, saved = Counter(result.models), {item.candidate.name: item.amount for item in self.avoided}
        cached = Counter(model for model, hit in zip(result.models, result.cached, strict=True) if hit)
        tiers = {item.name: item.tier for item in reversed(self._wiring.candidates)}
        shares = tuple(
            Share(name, tiers[name], texts[name], cached[name], saved.get(name, Decimal(0))) for name in texts
        )
        return self._event(
            result.usage,
            model=shares[0].model if len(shares) == 1 else "",
            cached=sum(result.cached),
            by_model=shares,
            degraded=sum(result.degraded),
        )

    def _event(self, usage: Usage, **answered: Any) -> CallEnded:
        """Return the event of the end: what was billed, and further fields."""
        kind = CallBilled if usage.cost or usage.unpriced_tokens else CallEnded
        return kind(
            tier=self._wiring.tiers[self._question.rank],
            input_type=self._question.input_type,
            tag=self._question.tag,
            texts=len(self._question.texts),
            requests=usage.requests,
            tokens=usage.tokens,
            cost=usage.cost,
            saved=usage.saved,
            unpriced_tokens=usage.unpriced_tokens,
            seconds=self._wiring.clock() - self._began,
            **answered,
        )
