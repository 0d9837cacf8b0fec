"""Remember limits that a server's refusals have told, for the process."""

from __future__ import annotations

from dataclasses import replace

from .._display import logger
from ..types import Candidate


class Learned:
    """The learned limits of each candidate. Without a lock: each entry is replaced as a whole."""

    def __init__(self) -> None:
        self._texts: dict[int, int] = {}
        self._input_tokens: dict[int, int] = {}

    def texts(self, candidate: Candidate, number: int) -> None:
        """Record how many texts one request may have."""
        if number < self._texts.get(candidate.index, candidate.limits.texts):
            self._texts[candidate.index] = number
            logger.warning(
                "%s takes at most %d texts in one request; set Model(…, batch_size=%d)", candidate.name, number, number
            )

    def input_tokens(self, candidate: Candidate, number: int) -> None:
        """Record how many tokens one text may have, where no limit is declared."""
        if candidate.limits.input_tokens is None and self._input_tokens.get(candidate.index) != number:
            self._input_tokens[candidate.index] = number
            logger.warning(
                "%s takes at most %d tokens in one text; set Model(…, max_input_tokens=%d)",
                candidate.name,
                number,
                number,
            )

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
