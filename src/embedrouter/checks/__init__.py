"""Checks of vectors: whether the models of a router agree, and whether stored vectors come from its models."""

from ._agreement import check_agreement
from ._check import MATCH, NEAR, VectorCheck
from ._stored import Subject, check_stored
