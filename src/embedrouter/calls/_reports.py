"""What a router says of itself: usage, health, and what is left of its budget."""

from .._process import in_thread
from ..limits import ModelHealth
from ..models.agreement import unique_names
from ..spending import CapLeft
from ..types import Table, Usage
from ._calls import Calls
from ._wiring import Wiring


class Reports:
    """The reports of a router, which is built of the two parts below."""

    _wiring: Wiring
    _calls: Calls

    @property
    def usage(self) -> Usage:
        """Tokens, requests and money spent and saved since the router was built, failed calls included."""
        return self._wiring.totals.usage

    def health(self) -> Table[str, ModelHealth]:
        """Return the health of each model in this process: its circuit is closed, open or half-open.

        The keys are the models' names, with the position where a model is declared several times.
        """
        names = unique_names([candidate.name for candidate in self._wiring.candidates])
        return Table(zip(names, self._calls.health(), strict=True))

    def budget_left(self) -> Table[str, CapLeft]:
        """Return what is left of each cap of the budget, and when its window ends.

        The keys are the names of the caps, those of a tag as ``"per_day of team-a"``; without caps the table is empty.

        Raises:
            LedgerError: the ledger's file failed.
        """
        return self._wiring.ledger.left(self._wiring.budget)

    async def abudget_left(self) -> Table[str, CapLeft]:
        """Do what ``budget_left`` does without blocking the event loop."""
        return await in_thread(self.budget_left)
