"""A batch as its submitter sees it: how far it is, and waiting for its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._process import in_thread
from ..errors import EmbedRouterError
from ._records import BatchFailure, BatchRecord

if TYPE_CHECKING:
    from ._batches import Batches

__all__ = ["BatchJob", "BatchStatus"]


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a job is."""

    ended: bool
    """Nothing more will come: what was answered is in the cache."""
    texts: int
    """Texts in its batches."""
    answered: int
    failures: tuple[BatchFailure, ...]
    """Texts without a vector; submitting them again, or ``embed``, gives them another try."""


class BatchJob:
    """Texts that a provider embeds within a day, in one batch or several.

    Texts that were under way already are in a batch of another call: that batch is part of this job too, and positions
    of failures in it are those in the texts of that other call.

    Attributes:
        ids: names the batches on this side.
    """

    def __init__(self, batches: Batches, ids: Sequence[str]) -> None:
        self._batches = batches
        self.ids = tuple(ids)

    @property
    def records(self) -> list[BatchRecord]:
        """What is on file of each batch."""
        return [self._batches.record(reference) for reference in self.ids]

    def poll(self) -> BatchStatus:
        """Ask the provider how far it is, and collect into the cache what has ended.

        Raises:
            BackendError: the provider cannot be asked; nothing is lost, ask again.
        """
        parts: list[BatchStatus] = []
        errors: list[EmbedRouterError] = []
        for reference in self.ids:
            try:
                parts.append(self._batches.poll(reference))
            except EmbedRouterError as error:  # the others are collected all the same
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

    def wait(self, *, every: float = 60.0, timeout: float | None = None) -> BatchStatus:
        """Poll until all has ended.

        Args:
            every: seconds from one look to the next.
            timeout: seconds after which the status is returned as it is, ended or not.
        """
        clock = self._batches.clock
        deadline = None if timeout is None else clock() + timeout
        while True:
            status = self.poll()
            left = math.inf if deadline is None else deadline - clock()
            if status.ended or left <= 0:
                return status
            self._batches.sleep(min(every, left))

    def forget(self) -> None:
        """Give up batches that cannot be collected: their answers have expired, or their key is gone.

        What they may have cost stays counted as unconfirmed spending, and their texts can be submitted again.
        """
        for reference in self.ids:
            self._batches.forget(reference)

    def cancel(self) -> None:
        """Ask the provider to stop. What is answered until then is billed, and collected when ``poll`` sees the end."""
        for reference in self.ids:
            self._batches.cancel(reference)

    def __repr__(self) -> str:
        return f"BatchJob({', '.join(self.ids) or 'nothing to do'})"
