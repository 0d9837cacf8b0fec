"""``Cascade``: which share of the queries asks the better tier, too."""

from .retrieval import Cascade, gap

__all__ = ["Cascade", "gap"]
