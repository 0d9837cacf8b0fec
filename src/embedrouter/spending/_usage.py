"""What one router was billed and avoided since it was built.

``UsageTotals`` stands beside the router and has no reference to it: a router that was never closed must not have to
wait for the garbage collector, which may come at any moment, in the middle of another ledger's transaction too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from .._process import Lock, PerProcess
from ..types import Candidate, Usage
from ._ledger import Ledger
from ._prices import cost

NOTHING = Decimal(0)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one answered request was billed, or one call's share of it."""

    tokens: int
    amount: Decimal | None
    """US dollars; ``None`` where the price is unknown."""
    requests: int = 1
    """0 where another call counts the request."""


class Saving(NamedTuple):
    """What was not paid for."""

    candidate: Candidate
    texts: int
    tokens: int

    @property
    def amount(self) -> Decimal:
        """US dollars, as far as the price is known."""
        return cost(self.tokens, self.candidate.price) or NOTHING


def usage_of(charges: Iterable[Charge], savings: Iterable[Saving] = ()) -> Usage:
    """Add up what work was billed and avoided."""
    charges = list(charges)
    return Usage(
        tokens=sum(charge.tokens for charge in charges),
        requests=sum(charge.requests for charge in charges),
        cost=sum((charge.amount for charge in charges if charge.amount is not None), NOTHING),
        saved=sum((saving.amount for saving in savings), NOTHING),
        unpriced_tokens=sum(charge.tokens for charge in charges if charge.amount is None),
    )


class UsageTotals:
    """Adds up what calls were billed and avoided, and hands what they avoided to the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = PerProcess(Lock)
        self._usage = Usage()

    @property
    def usage(self) -> Usage:
        """What was billed and avoided so far."""
        return self._usage

    def add(self, usage: Usage) -> None:
        """Add what something was billed."""
        with self._lock.get():
            self._usage += usage

    def save(self, savings: Iterable[Saving], tag: str) -> None:
        """Add what a call avoided. Touches no file."""
        for saving in savings:
            self.add(Usage(saved=saving.amount))
            self._ledger.save(saving.candidate.name, tag, saving.texts, saving.tokens, saving.amount)
