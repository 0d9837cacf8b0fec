"""Embed corpora through the providers' batch endpoints."""

from ._batches import Batches
from ._jobs import BatchJob
from ._records import BatchFailure, BatchRecord, BatchStatus

__all__ = ["BatchFailure", "BatchJob", "BatchRecord", "BatchStatus", "Batches"]
