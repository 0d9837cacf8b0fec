"""How fast a model answers: measured on the requests of a comparison, and remembered beside the cache.

A comparison whose vectors are all in the cache makes no request. It reports what the run measured that made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import read_record, write_again
from ..types import EmbeddingResult, InputType
from ._findings import Speed

FOLDER = "speed"
"""Inside the cache's folder."""
ASKED_ALONE = 40
"""Queries of each model that are embedded one at a time, so that each shows its latency."""
ENOUGH = 10
"""Queries of which a median and a 95th percentile are told."""


@dataclass(slots=True)
class Measurements:
    """The speed of one model, from calls that made requests.

    The first such call of a process is left out: a model is loaded then, or a connection opened.

    Args:
        path: the file that remembers the speed; ``None`` remembers nothing.
    """

    path: Path | None
    texts: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    began: bool = False

    def add(self, result: EmbeddingResult, input_type: InputType, seconds: float) -> None:
        """Add a call."""
        if not result.usage.requests:
            return
        if self.began and input_type == "document":
            self.texts += result.cached.count(False)
            self.seconds += seconds
        elif self.began and len(result) == 1:
            self.latencies.append(seconds)
        self.began = True

    def result(self) -> Known:
        """Return what this run has measured, and of the rest what an earlier run had; remember it."""
        now = datetime.now(UTC)
        own = Known(
            (self.texts / self.seconds, now) if self.seconds else None,
            (self.latencies, now) if len(self.latencies) >= ENOUGH else None,
        )
        if self.path is None or (own.documents and own.queries):
            known = own
        else:
            earlier = _read(self.path)
            known = Known(own.documents or earlier.documents, own.queries or earlier.queries)
        if self.path is not None and (own.documents or own.queries):
            with suppress(OSError):  # a folder that cannot be written keeps no speed
                write_again(self.path, known.record())
        return known


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model's speed, and since when."""

    documents: tuple[float, datetime] | None
    """A second."""
    queries: tuple[Sequence[float], datetime] | None
    """Seconds of each query that was embedded alone."""

    def speed(self) -> Speed | None:
        """Return the figures for a report."""
        latencies = [] if self.queries is None else self.queries[0]
        return _speed(self, self, np.asarray(latencies), np.ones(len(latencies)), self.documents and self.documents[0])

    def then(self, other: Known, share: float) -> Speed | None:
        """Return the speed of a cascade: all queries wait for this model, a share of them for the other as well."""
        rate = None
        if self.documents and other.documents:
            rate = 1 / (1 / self.documents[0] + 1 / other.documents[0])
        seconds, weights = np.empty(0), np.empty(0)
        if self.queries and other.queries:
            first, second = np.asarray(self.queries[0]), np.asarray(other.queries[0])
            both = (first[:, None] + second).ravel()
            seconds = np.concatenate([first, both])
            weights = np.concatenate(
                [np.full(len(first), (1 - share) / len(first)), np.full(len(both), share / len(both))]
            )
        return _speed(self, other, seconds, weights, rate)

    def record(self) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for name, part in (("documents", self.documents), ("queries", self.queries)):
            if part is not None:
                content[name] = {"value": part[0], "at": part[1].isoformat()}
        return content


NOTHING = Known(None, None)


def speed_file(folder: Path | None, model: str, fingerprint: str, address: str) -> Path | None:
    """Return the file of a model's speed at one address."""
    if folder is None:
        return None
    name = blake2b("\0".join((model, fingerprint, address)).encode(), digest_size=16).hexdigest()
    return folder / FOLDER / f"{name}.json"


def _read(path: Path) -> Known:
    """Return what is remembered; a damaged record is none."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = read_record(path)
        parts = {name: (part["value"], datetime.fromisoformat(part["at"])) for name, part in content.items()}
        documents, queries = parts.get("documents"), parts.get("queries")
        return Known(
            documents and (float(documents[0]), documents[1]),
            queries and ([float(seconds) for seconds in queries[0]], queries[1]),
        )
    return NOTHING


def _speed(one: Known, other: Known, seconds: Any, weights: Any, rate: float | None) -> Speed | None:
    if rate is None and not len(seconds):
        return None
    parts = (one.documents, other.documents, one.queries, other.queries)
    at = min(part[1] for part in parts if part is not None)
    median, slow = (_quantile(seconds, weights, part) for part in (0.5, 0.95)) if len(seconds) else (None, None)
    return Speed(rate, median, slow, at)


def _quantile(seconds: Any, weights: Any, part: float) -> float:
    """Return the smallest number that at least a part of the weight is not above."""
    order = np.argsort(seconds)
    reached = np.cumsum(weights[order])
    return float(seconds[order][np.searchsorted(reached, part * reached[-1] - 1e-9)])
