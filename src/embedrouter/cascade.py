"""Choose the share of queries that a better store is searched for as well: ``Cascade`` for a ``TieredRetriever``."""

from .retrieval import Cascade, gap

__all__ = ["Cascade", "gap"]
