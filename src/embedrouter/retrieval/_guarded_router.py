"""Guarded routers: what both adapters do with texts. The store's guard is checked, the router embeds, lists come back.

The guard uses files, so the asynchronous form runs it in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._process import in_thread
from ..models import rank
from ..router import Router, wiring_of
from ..tiered import TieredRouter, require_single_space
from ..types import InputType
from ._index_guard import FOLDER, IndexGuard


class GuardedRouter:
    """Embed for one vector store.

    Args:
        router: the one router in front of the store.
        index: the name of the store, whose space is then guarded; ``None`` for no guard.

    Raises:
        ConfigError: ``router`` gives several spaces, or is no router.
        SpaceMismatchError: the store is recorded in another space.
    """

    def __init__(self, router: Router | TieredRouter, index: str | None) -> None:
        self.router = require_single_space(router)
        self._guard = (
            None if index is None else IndexGuard(wiring_of(self.router).folder / FOLDER, index, self.router.space)
        )

    def require_tiers(self, *tiers: str | None) -> None:
        """Refuse tiers that the router does not know.

        Raises:
            ValueError: a tier is unknown; the message lists the known tiers.
        """
        for tier in tiers:
            if tier is not None:
                rank(tier, self.router.tiers)

    def embed(self, texts: Sequence[str], input_type: InputType, tier: str | None) -> list[list[float]]:
        """Return one list of floats per text; see ``Router.embed`` for the errors."""
        if self._guard is not None:
            self._guard.check()
        result = self.router.embed(texts, input_type=input_type, tier=tier)
        if self._guard is not None and input_type == "document" and texts:
            self._guard.record()
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors

    async def aembed(self, texts: Sequence[str], input_type: InputType, tier: str | None) -> list[list[float]]:
        """Do what ``embed`` does without blocking the event loop."""
        if self._guard is not None:
            await in_thread(self._guard.check)
        result = await self.router.aembed(texts, input_type=input_type, tier=tier)
        if self._guard is not None and input_type == "document" and texts:
            await in_thread(self._guard.record)
        vectors: list[list[float]] = result.vectors.tolist()
        return vectors
