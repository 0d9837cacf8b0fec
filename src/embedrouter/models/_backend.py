"""The code that calls one model: one request in, an ``Answer`` out, synchronously and asynchronously.

A provider may offer a cheaper and slower way besides: a ``BatchEndpoint`` takes many texts at once and has hours.

A backend does no retrying, no caching and no batching. It translates errors of the libraries it calls into those of
``embedrouter.errors``, and does not repeat the checks that follow each answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from .._process import in_thread
from ..types import Answer, BatchProgress, InputType, TokenCounts
from . import _tokens as tokens


class Backend(ABC):
    """Calls one model. Subclass it to bring a provider of your own: ``Model(…, backend=MyBackend())``.

    ``embed`` may be called from several threads at once, ``aembed`` from several tasks and event loops. Small calls at
    the same time are one request, made in a copy of one caller's context: what depends on a context variable, such as a
    tenant's key, needs ``micro_batch_window=0``.
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

        def embed() -> Answer:  # copies in the thread, whose next request may use the same buffer
            return own_answer(self.embed(texts, input_type, timeout=timeout))

        return await in_thread(embed)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count the tokens of each text, its prompt included; by default an upper estimate.

        A tokenizer may be loaded at the first call. Later calls must not wait: few texts are counted in the event loop.
        """
        return TokenCounts([tokens.estimate(text) for text in texts], exact=False)

    @property
    def batches(self) -> BatchEndpoint | None:
        """The provider's batch endpoint, if it has one."""
        return None

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Release connections and models; the next call opens them again."""

    async def aclose(self) -> None:
        """Do what ``close`` does, for the running event loop's connections too."""
        self.close()


def own_answer(answer: Answer) -> Answer:
    """Return an answer with an array of its own: a backend may keep the one that it returned, and change it."""
    if isinstance(answer, Answer) and isinstance(answer.vectors, np.ndarray):  # the check of answers refuses the rest
        return replace(answer, vectors=np.array(answer.vectors, order="C"))
    return answer


def own_counts(counts: TokenCounts) -> TokenCounts:
    """Return counts with a list of their own."""
    return replace(counts, tokens=list(counts.tokens))


class BatchEndpoint(ABC):
    """Takes many texts at once, answers within hours, and asks less for it.

    Every method makes one request and raises ``BackendError`` when it fails. The caller names each text, and gives each
    batch a client reference by which it can be found when the answer to ``submit`` was lost.
    """

    window: float = 86_400.0
    """Seconds in which the provider completes a batch, or gives up."""
    max_texts: int
    """Texts in one batch."""
    max_bytes: int
    """Bytes of one batch, ``bytes_per_text`` included."""
    bytes_per_text: int
    """Bytes of one text's request besides the text."""

    @abstractmethod
    def upload(self, texts: Mapping[str, str], input_type: InputType, *, timeout: float) -> str:
        """Upload texts by name, which costs nothing yet. Return the provider's id of the file."""

    @abstractmethod
    def submit(self, file: str, reference: str, input_type: InputType, *, timeout: float) -> str:
        """Have an uploaded file embedded, as texts of the input type. Return the provider's id of the batch."""

    @abstractmethod
    def find(self, reference: str, *, timeout: float) -> str | None:
        """Return the provider's id of the batch with a client reference; ``None`` where there is none."""

    @abstractmethod
    def retrieve(self, batch: str, *, timeout: float) -> BatchProgress:
        """Return the progress of a batch."""

    @abstractmethod
    def results(self, batch: str, *, timeout: float) -> Iterator[tuple[str, Answer | str]]:
        """Yield the name and the result of each text that was tried: its vector (1, dimensions), or why it has none.

        Names that no text has are ignored.
        """

    @abstractmethod
    def cancel(self, batch: str, *, timeout: float) -> None:
        """Ask the provider to stop. What is answered already is billed."""
