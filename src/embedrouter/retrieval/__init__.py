"""What keeps retrieval right over several stores and tiers: guards of indexes, tiered stores, cascades, calibration."""

from ._calibration import Calibration, Point, TierVectors, calibrate, measure, ndcg, nearest_documents, overlap
from ._cascade import DEPTH, Cascade, gap
from ._guarded_router import GuardedRouter
from ._index_guard import FOLDER, IndexGuard, forget, recorded
from ._tiered_stores import Framework, Search, TieredStores, overrides, tiered_router

__all__ = [
    "DEPTH",
    "FOLDER",
    "Calibration",
    "Cascade",
    "Framework",
    "GuardedRouter",
    "IndexGuard",
    "Point",
    "Search",
    "TierVectors",
    "TieredStores",
    "calibrate",
    "forget",
    "gap",
    "measure",
    "ndcg",
    "nearest_documents",
    "overlap",
    "overrides",
    "recorded",
    "tiered_router",
]
