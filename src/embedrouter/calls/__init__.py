"""What happens to the texts of one call."""

from ._driver import Driver
from ._effects import Flow
from ._job import Item, Job, Rules
from ._plan import listed, pack
from ._request import fault
from ._totals import Totals

__all__ = [
    "Driver",
    "Flow",
    "Item",
    "Job",
    "Rules",
    "Totals",
    "fault",
    "listed",
    "pack",
]
