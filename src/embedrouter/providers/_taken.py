"""Remember, for the process, which fields of a request a server does not take, and which servers have answered.

Gateways pass requests on to servers that refuse numbers as base64, or a number of dimensions. None says so beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Taken:
    """What a server takes of a model's requests."""

    refused_formats: int = 0
    """Formats of numbers that are refused, of the backend's list."""
    dimensions: bool = True


ALL = Taken()

dialect: dict[tuple[str, ...], Taken] = {}
"""By model, deployment and address. Without a lock: each entry is replaced as a whole."""

reached: set[tuple[str, str]] = set()
"""Providers and addresses that have answered this process. Where one has not, its address may be wrong."""
