"""What one router was billed and avoided since it was built.

It stands beside the router and knows nothing of it: a router that nobody closed must not have to wait for the garbage
collector, which may come at any moment, in the middle of another ledger's transaction too.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

from .._process import threads
from ..spending import Ledger
from ..types import Usage
from ._job import Job, Saving

__all__ = ["Totals"]


class Totals:
    """Adds up calls, and hands what they saved to the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._usage = Usage()
        self._saved = Decimal(0)

    @property
    def usage(self) -> Usage:
        """What was billed and avoided so far."""
        with self._lock:
            return replace(self._usage, saved=self._saved)

    def add(self, usage: Usage) -> None:
        """Add what something was billed."""
        with self._lock:
            self._usage += usage

    def book(self, job: Job) -> None:
        """Add a call, however it ended."""
        if job.charges:
            self.add(job.usage())
        for saving in job.savings:
            self.save(saving, job.tag)

    def save(self, saving: Saving, tag: str) -> None:
        """Add what was not paid for."""
        with self._lock:
            self._saved += saving.amount
        self._ledger.save(saving.candidate.name, tag, saving.texts, saving.tokens, saving.amount)
        if self._ledger.flush_due():
            with suppress(RuntimeError):  # the system has no more threads; the next booking writes them
                threads.submit(self._ledger.flush)
