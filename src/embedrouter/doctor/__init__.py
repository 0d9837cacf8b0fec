"""Is everything well? The checks of ``embedrouter doctor``, as findings that say what to do next.

``models`` asks each model for the vectors of fixed texts and compares them with those of an earlier day (``records``);
``stores`` looks at the cache folder and the ledger, ``installation`` at Python and the packages. Nothing here prints,
and no check hides another: what fails becomes a finding.
"""

from __future__ import annotations

from .finding import Finding, Level
from .installation import installed
from .models import Checkup, check_models
from .stores import check_cache, check_ledger

__all__ = ["Checkup", "Finding", "Level", "check_cache", "check_ledger", "check_models", "installed"]
