"""What keeps retrieval right over several stores and tiers.

``index_guard`` holds a vector store to one space, ``tiered_stores`` chooses among stores, a ``Cascade`` asks the better
one too, and ``calibration`` measures a cascade.
"""

from ._cascade import DEPTH, Cascade, gap

__all__ = ["DEPTH", "Cascade", "gap"]
