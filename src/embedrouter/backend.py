"""The code that calls one model: one request in, an ``Answer`` out, synchronously and asynchronously.

A backend does no retrying, no caching and no batching. It translates the failures of whatever it calls into the errors
of ``embedrouter.errors``, and checks nothing that the flow checks anyway.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

from . import tokens
from .types import Answer, InputType, TokenCounts

__all__ = ["Backend"]


class Backend(ABC):
    """Calls one model. Subclass it to bring a provider of your own: ``Model(…, backend=MyBackend())``.

    ``embed`` may be called from several threads at once, ``aembed`` from several tasks and event loops.
    """

    @abstractmethod
    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Make one request.

        Args:
            texts: non-empty strings, within the model's limits as far as they are known.
            timeout: seconds for this attempt.

        Returns:
            One vector per text, in the order of the texts.

        Raises:
            BackendError: the request failed; its subclass and ``retryable`` decide what happens next.
        """

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Make one request without blocking the event loop; by default ``embed`` in a thread."""
        return await asyncio.to_thread(self.embed, texts, input_type, timeout=timeout)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count the tokens of each text, its prompt included; by default an upper estimate."""
        return TokenCounts([tokens.estimate(text) for text in texts], exact=False)

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Release what is held; the next call opens it again."""

    async def aclose(self) -> None:
        """Release what is held, and what belongs to the running event loop."""
        self.close()
