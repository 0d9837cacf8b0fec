"""Remember what a model's answers and refusals have told, for the process."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..events import Events, LimitLearned
from ..types import Candidate


class Learned:
    """The learned limits of each candidate. Without a lock: each entry is replaced as a whole.

    Attributes:
        useful: the candidates, by index, that have given a usable vector.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.useful: set[int] = set()
        self._texts: dict[int, int] = {}
        self._input_tokens: dict[int, int] = {}

    def texts(self, candidate: Candidate, number: int) -> None:
        """Record how many texts one request may have."""
        if number < self._texts.get(candidate.index, candidate.limits.texts):
            self._texts[candidate.index] = number
            self._tell(candidate, number, "texts in one request", "batch_size")

    def input_tokens(self, candidate: Candidate, number: int) -> None:
        """Record how many tokens one text may have, where no limit is declared."""
        if candidate.limits.input_tokens is None and self._input_tokens.get(candidate.index) != number:
            self._input_tokens[candidate.index] = number
            self._tell(candidate, number, "tokens in one text", "max_input_tokens")

    def _tell(
        self,
        candidate: Candidate,
        limit: int,
        what: Literal["texts in one request", "tokens in one text"],
        setting: Literal["batch_size", "max_input_tokens"],
    ) -> None:
        name, tier = candidate.name, candidate.tier
        self._events.emit(LimitLearned, model=name, tier=tier, limit=limit, what=what, setting=setting)

    def apply(self, candidate: Candidate) -> Candidate:
        """Return the candidate with what was learned."""
        index, limits = candidate.index, candidate.limits
        if index not in self._texts and index not in self._input_tokens:
            return candidate
        return replace(
            candidate,
            limits=replace(
                limits,
                texts=min(limits.texts, self._texts.get(index, limits.texts)),
                input_tokens=limits.input_tokens or self._input_tokens.get(index),
            ),
        )
