"""Embed corpora through the providers' batch endpoints."""

from ._batches import Batches
from ._jobs import BatchJob, BatchStatus
from ._records import BatchFailure, BatchRecord

__all__ = ["BatchFailure", "BatchJob", "BatchRecord", "BatchStatus", "Batches"]
