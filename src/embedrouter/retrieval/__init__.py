"""Retrieval over several tiers and stores: cascades, their calibration, and guards of indexes."""

from ._calibration import Calibration, Point, TierVectors, calibrate, measure, ndcg, nearest_documents, overlap
from ._cascade import DEPTH, Cascade, gap
from ._index_guard import FOLDER, IndexGuard, forget, guard, guarded, recorded

__all__ = [
    "DEPTH",
    "FOLDER",
    "Calibration",
    "Cascade",
    "IndexGuard",
    "Point",
    "TierVectors",
    "calibrate",
    "forget",
    "gap",
    "guard",
    "guarded",
    "measure",
    "ndcg",
    "nearest_documents",
    "overlap",
    "recorded",
]
