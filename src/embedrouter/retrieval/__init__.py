"""What keeps retrieval right over several tiers and stores: cascades and guards of indexes."""

from ._cascade import DEPTH, Cascade, gap
from ._index_guard import FOLDER, IndexGuard, forget, guard, guarded, recorded

__all__ = [
    "DEPTH",
    "FOLDER",
    "Cascade",
    "IndexGuard",
    "forget",
    "gap",
    "guard",
    "guarded",
    "recorded",
]
