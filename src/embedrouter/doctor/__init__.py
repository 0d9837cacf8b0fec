"""Checks of models, cache, ledger and installation, as findings that say what to do next.

``check_models`` embeds the probe texts with each model and compares the vectors with those of an earlier day
(``ProbeRecords``) and with those of the router's other models. ``check_cache`` and ``check_ledger`` examine files,
``check_budget`` says what is left, ``check_retirement`` which models in use will end, ``installed`` compares package
versions. No check prints, and a failure becomes a finding, so that the other checks go on.
"""

from ._drift import PROBE_FOLDER, ProbeRecords
from ._finding import Finding
from ._installation import installed
from ._model_checks import check_models
from ._retirement import RECENT, check_retirement, recent_models
from ._storage import check_budget, check_cache, check_caches, check_ledger

__all__ = [
    "PROBE_FOLDER",
    "RECENT",
    "Finding",
    "ProbeRecords",
    "check_budget",
    "check_cache",
    "check_caches",
    "check_ledger",
    "check_models",
    "check_retirement",
    "installed",
    "recent_models",
]
