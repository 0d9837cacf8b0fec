"""What the emulator remembers: who asked for what, how many at once, and what it would bill.

Written by the handler threads, read by the test. One lock, held for arithmetic only; every read returns a copy.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.emulator.exchange import Job, Received, Refused, Request, Sketch
from tests.emulator.models import ProviderName


@dataclass(slots=True)
class _Pages:
    received: list[Received] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    billed: Counter[tuple[str, str]] = field(default_factory=Counter)
    billed_in_batches: Counter[tuple[str, str]] = field(default_factory=Counter)
    peak: int = 0


class Journal:
    """The memory of one emulator."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages = _Pages()
        self._in_flight = 0

    def arrive(self, provider: ProviderName, request: Request, sketch: Sketch) -> Received:
        """Write down a request and count it as in flight until `leave`."""
        fields = request.fields() or {}
        with self._lock:
            self._in_flight += 1
            self._pages.peak = max(self._pages.peak, self._in_flight)
            received = Received(
                provider=provider,
                model=sketch.model,
                texts=sketch.texts,
                input_type=sketch.input_type,
                dimensions=sketch.dimensions,
                headers=request.public_headers,
                at=time.monotonic(),
                in_flight=self._in_flight,
                deployment=sketch.deployment,
                fields=fields,
                endpoint=sketch.endpoint,
                method=request.method,
                path=request.path,
            )
            self._pages.received.append(received)
        return received

    def leave(self) -> None:
        """Count one request less in flight; called before its answer is sent, so that a client cannot outrun it."""
        with self._lock:
            self._in_flight -= 1

    def refuse(self, refused: Refused) -> None:
        with self._lock:
            self._pages.refused.append(refused)

    def bill(self, provider: ProviderName, job: Job, *, batch: bool = False) -> None:
        """Add the job's tokens; those of a batch go to an account of their own, because they cost half."""
        with self._lock:
            account = self._pages.billed_in_batches if batch else self._pages.billed
            account[provider, job.model.name] += job.tokens

    def forget(self) -> None:
        """Start over; requests in flight stay in flight."""
        with self._lock:
            self._pages = _Pages(peak=self._in_flight)

    @property
    def received(self) -> tuple[Received, ...]:
        with self._lock:
            return tuple(self._pages.received)

    @property
    def refused(self) -> tuple[Refused, ...]:
        with self._lock:
            return tuple(self._pages.refused)

    @property
    def billed(self) -> Counter[tuple[str, str]]:
        with self._lock:
            return self._pages.billed.copy()

    @property
    def billed_in_batches(self) -> Counter[tuple[str, str]]:
        with self._lock:
            return self._pages.billed_in_batches.copy()

    @property
    def peak(self) -> int:
        with self._lock:
            return self._pages.peak
