"""Follow a submitted batch: poll, wait, cancel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .._process import in_thread
from ..calls import Progress, ShowProgress
from ..errors import EmbedRouterError
from ._batches import Batches
from ._records import BatchRecord, BatchStatus

WAITING = "waiting"
"""What the bar of a wait begins with."""


class BatchJob:
    """Texts that a provider embeds within hours, in one batch or several.

    A text that an earlier call has submitted stays in the earlier batch, which becomes part of this job. Failures in
    such a batch have their positions in the texts of the earlier call.

    Attributes:
        ids: the names of the batches in the ledger.
    """

    def __init__(self, batches: Batches, ids: Sequence[str]) -> None:
        self._batches = batches
        self.ids = tuple(ids)

    @property
    def records(self) -> list[BatchRecord]:
        """The record of each batch."""
        return [self._batches.records.get(reference) for reference in self.ids]

    def poll(self) -> BatchStatus:
        """Return the progress, and collect the answers of ended batches into the cache.

        Raises:
            BackendError: the provider cannot be reached. No answer is lost: poll again.
        """
        parts: list[BatchStatus] = []
        errors: list[EmbedRouterError] = []
        for reference in self.ids:
            try:
                parts.append(self._batches.poll(reference))
            except EmbedRouterError as error:  # raised below, after the other batches are collected
                errors.append(error)
        if errors:
            raise errors[0]
        return BatchStatus(
            ended=all(part.ended for part in parts),
            texts=sum(part.texts for part in parts),
            answered=sum(part.answered for part in parts),
            failures=tuple(failure for part in parts for failure in part.failures),
        )

    async def apoll(self) -> BatchStatus:
        """Do what ``poll`` does without blocking the event loop."""
        return await in_thread(self.poll)

    def wait(
        self, *, every: float = 60.0, timeout: float | None = None, show_progress: ShowProgress = False
    ) -> BatchStatus:
        """Poll until every batch has ended.

        Args:
            every: seconds between two polls.
            timeout: seconds after which the status is returned, even if a batch is in progress.
            show_progress: whether a bar shows the answered texts, money and time; ``"auto"`` shows one where the wait
                lasts longer than two seconds and there is a terminal or a notebook.
        """
        deadline, before = self._deadline(timeout), self._batches.usage
        with Progress(show_progress, self._texts, WAITING) as progress:
            while True:
                status = self.poll()
                progress.reach(status.answered, self._batches.since(before))
                left = deadline - self._batches.clock()
                if status.ended or left <= 0:
                    return status
                self._batches.sleep(min(every, left))

    async def wait_async(
        self, *, every: float = 60.0, timeout: float | None = None, show_progress: ShowProgress = False
    ) -> BatchStatus:
        """Do what ``wait`` does without blocking the event loop."""
        deadline, before = self._deadline(timeout), self._batches.usage
        texts = await in_thread(lambda: self._texts) if show_progress else 0
        async with Progress(show_progress, texts, WAITING) as progress:
            while True:
                status = await self.apoll()
                progress.reach(status.answered, self._batches.since(before))
                left = deadline - self._batches.clock()
                if status.ended or left <= 0:
                    return status
                await self._batches.asleep(min(every, left))

    def _deadline(self, timeout: float | None) -> float:
        return math.inf if timeout is None else self._batches.clock() + timeout

    @property
    def _texts(self) -> int:
        return sum(record.texts for record in self.records)

    def forget(self) -> None:
        """Give up batches that cannot be collected, because their answers have expired or their API key is gone.

        The reservations of such batches stay counted as unconfirmed spending; the texts can be submitted again.
        """
        for reference in self.ids:
            self._batches.forget(reference)

    def cancel(self) -> None:
        """Ask the provider to stop. Texts that are answered by then are billed, and collected by ``poll``."""
        for reference in self.ids:
            self._batches.cancel(reference)

    def __repr__(self) -> str:
        return f"BatchJob({', '.join(self.ids) or 'nothing to do'})"
