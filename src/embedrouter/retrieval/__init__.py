"""What keeps retrieval right over several stores and tiers: guards of indexes, tiered stores, cascades.

``calibration`` measures a cascade.
"""

from ._cascade import DEPTH, Cascade, gap
from ._index_guard import FOLDER, GuardedRouter, IndexGuard, forget, recorded
from ._tiered_stores import Framework, Search, TieredStores, overrides, tiered_router

__all__ = [
    "DEPTH",
    "FOLDER",
    "Cascade",
    "Framework",
    "GuardedRouter",
    "IndexGuard",
    "Search",
    "TieredStores",
    "forget",
    "gap",
    "overrides",
    "recorded",
    "tiered_router",
]
