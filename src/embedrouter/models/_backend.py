"""The code that calls one model: one request in, an ``Answer`` out, synchronously and asynchronously.

A provider may offer a cheaper and slower way besides: a ``BatchEndpoint`` takes many texts at once and has a day.

A backend does no retrying, no caching and no batching. It translates the failures of whatever it calls into the errors
of ``embedrouter.errors``, and checks nothing that the flow checks anyway.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from ..types import Answer, BatchProgress, InputType, TokenCounts
from . import _tokens as tokens

__all__ = ["Backend", "BatchEndpoint"]


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
        """Count the tokens of each text, its prompt included; by default an upper estimate.

        It waits for nobody: after the first time, little is counted in the event loop itself.
        """
        return TokenCounts([tokens.estimate(text) for text in texts], exact=False)

    @property
    def batches(self) -> BatchEndpoint | None:
        """The provider's batch endpoint, if it has one."""
        return None

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Release what is held; the next call opens it again."""

    async def aclose(self) -> None:
        """Release what is held, and what belongs to the running event loop."""
        self.close()


class BatchEndpoint(ABC):
    """Takes many texts at once, answers within a day, and asks less for it.

    Every method makes one request and raises ``BackendError`` when it fails. Texts go by names that the caller chooses.
    """

    texts: int
    """In one batch, at most."""
    size: int
    """Bytes of one batch, at most, ``overhead`` included."""
    overhead: int
    """Bytes that a text takes besides itself, as JSON."""

    @abstractmethod
    def upload(self, texts: Mapping[str, str], input_type: InputType, *, timeout: float) -> str:
        """Hand texts over, by name; costs nothing yet. Return the provider's name for them."""

    @abstractmethod
    def submit(self, uploaded: str, mark: str, *, timeout: float) -> str:
        """Have what was uploaded embedded, and return the provider's name for the batch."""

    @abstractmethod
    def find(self, mark: str, *, timeout: float) -> str | None:
        """Return the name of the batch with ``mark``, if there is one."""

    @abstractmethod
    def look(self, batch: str, *, timeout: float) -> BatchProgress:
        """Return how far a batch is."""

    @abstractmethod
    def answers(self, batch: str, *, timeout: float) -> Iterator[tuple[str, Answer | str]]:
        """Return what became of each text that was tried, by name: its vector, of shape (1, dimensions), or why not."""

    @abstractmethod
    def cancel(self, batch: str, *, timeout: float) -> None:
        """Ask for no more answers. What is answered already is billed."""
