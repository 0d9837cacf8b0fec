"""What shells complete from the user's files: the tiers of the configuration, and the tags of the ledger."""

from pathlib import Path

from ..models import TIERS
from ._completion import quiet
from ._ledger import find_ledgers, open_ledger
from ._routers import find_config


@quiet
def known_tiers() -> list[str]:
    """Return the tiers of the configuration that a search finds."""
    config = find_config(None, None)
    tables = config.routers()
    if config.is_tiered:
        return list(tables)
    (settings,) = tables.values()
    return list(settings.get("tiers", TIERS))


@quiet
def known_tags() -> list[str]:
    """Return the tags of the ledger that a search finds."""
    found: set[str] = set()
    for file in find_ledgers(None, None):
        if isinstance(file, Path) and file.exists():  # a server may be far away
            with open_ledger(file) as ledger:
                found |= set(ledger.totals("tag"))
    return sorted(found - {""})
