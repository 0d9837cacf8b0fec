"""What one router was billed and avoided since it was built.

It stands beside the router and knows nothing of it: a router that nobody closed must not have to wait for the garbage
collector, which may come at any moment, in the middle of another ledger's transaction too.
"""

from __future__ import annotations

import threading
from decimal import Decimal

from .job import Job
from .ledger import Ledger
from .prices import cost
from .types import Usage

__all__ = ["Totals"]


class Totals:
    """Adds up calls, and hands what they saved to the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self.usage = Usage()

    def add(self, usage: Usage) -> None:
        """Add what something was billed."""
        with self._lock:
            self.usage += usage

    def book(self, job: Job) -> None:
        """Add a call, however it ended."""
        self.add(job.usage())
        for candidate, texts, tokens in job.savings:
            saved = cost(tokens, candidate.price) or Decimal(0)
            self._ledger.save(candidate.name, job.tag, texts, tokens, saved)
