"""Embed texts in one of several processes: one router, one tier, one tag."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from ..router import Router
from ..spending import tag as booked_under
from ..types import EmbeddingResult, InputType


@dataclass(frozen=True, slots=True)
class Worker:
    """The router of one process, and how texts are embedded.

    A worker is pickled as its router is, without keys: in another process these are read from the environment there.
    """

    router: Router
    input_type: InputType
    tier: str | None = None
    tag: str = ""
    """What the spending is booked under; by default the project of the process's working directory."""

    def embed(self, texts: list[str]) -> EmbeddingResult:
        """Embed texts, and write what is saved to the ledger, because the process may be killed at any time.

        Raises:
            EmbedRouterError: an error of ``Router.embed``.
        """
        with booked_under(self.tag) if self.tag else nullcontext():
            result = self.router.embed(texts, input_type=self.input_type, tier=self.tier)
        self.router.ledger.flush()
        return result
