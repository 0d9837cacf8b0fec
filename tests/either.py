"""One call in either form, for tests that hold for both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from embedrouter import EmbeddingResult, Router, TieredRouter

__all__ = ["embed"]


def embed(router: Router | TieredRouter, asynchronous: bool, texts: Iterable[str], **asked: Any) -> EmbeddingResult:
    """Embed synchronously, or asynchronously in an event loop of its own, and close what belongs to that loop."""
    if not asynchronous:
        return router.embed(texts, **asked)

    async def call() -> EmbeddingResult:
        try:
            return await router.aembed(texts, **asked)
        finally:
            await router.aclose()

    return asyncio.run(call())
