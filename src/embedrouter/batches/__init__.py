"""Corpora through the providers' batch endpoints."""

from ._jobs import Batches, BatchJob
from ._records import BatchRecord

__all__ = [
    "BatchJob",
    "BatchRecord",
    "Batches",
]
