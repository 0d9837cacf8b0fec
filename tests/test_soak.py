"""A soak: under full load and failures, nothing grows.

Memory, threads, sockets and file descriptors are looked at whenever everything is closed, and the second half of the
time is held against the first. ``EMBEDROUTER_SOAK`` is the number of seconds.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import re
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedrouter import Budget, Model, RetryPolicy, Router
from embedrouter._process import threads
from embedrouter.errors import EmbedRouterError
from tests.emulator import Emulator, Fault, Received

SECONDS = float(os.environ.get("EMBEDROUTER_SOAK", "14"))
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
FOLDERS = Path("/proc/self")

FAULTS = [
    Fault.rate_limited(retry_after=0.001), Fault.status(500), Fault.unavailable(), Fault.reset(), Fault.lost(),
    Fault.half_body(), Fault.html(), Fault.wrong_count(), Fault.wrong_dimensions(), Fault.nan(), Fault.zeros(),
    Fault.no_usage(), Fault.floats(), Fault.status(404), Fault.slow(0.3),
]  # fmt: skip
TIMEOUT = 0.2

BLOCKS, BYTES = 8, 800
"""For each request: what a gate remembers of it for a minute, and a little."""


@dataclass(frozen=True)
class Sight:
    """What the process holds when everything is closed."""

    requests: int
    blocks: int
    """Pieces of memory that Python objects take."""
    resident: int
    """Bytes, as the system sees them."""
    threads: int
    descriptors: int


POOL = "embedrouter"
"""The name of a thread of the pool."""


IDLE = 0.1
"""Seconds after which a thread of the pool ends, in place of half a minute."""


def _quiet() -> None:
    """Wait for the provider's threads, one for each connection, to see that it was closed, and for ours to end."""
    deadline = time.monotonic() + 5
    gc.collect()
    while time.monotonic() < deadline and any(
        "process_request" in thread.name or thread.name == POOL for thread in threading.enumerate()
    ):
        time.sleep(0.005)
        gc.collect()  # Voyage's SDK keeps a session for each thread, which is garbage when that has ended


def look(requests: int) -> Sight:
    gc.collect()
    return Sight(
        requests=requests,
        blocks=sys.getallocatedblocks(),
        resident=int((FOLDERS / "statm").read_text().split()[1]) * PAGE,
        threads=threading.active_count(),
        descriptors=len(list((FOLDERS / "fd").iterdir())),
    )


FAMILIES = (
    ("openai:text-embedding-3-small", "azure_openai:text-embedding-3-small"),
    ("voyage:voyage-4-lite", "voyage:voyage-4"),
    ("cohere:embed-v5.0-fast", "cohere:embed-v5.0-pro"),
)


class Load:
    """Cycles of calls of which many fail, each with a router and event loops of its own, and with lasting routers."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self._emulator, self._folder = emulator, folder
        self._chance = random.Random(7)
        self._lock = threading.Lock()
        self._number = self.cycles = self.requests = 0
        self.outcomes: Counter[str] = Counter()
        self._lasting = [self._router(family, f"lasting {place}") for place, family in enumerate(FAMILIES)]

    def _router(self, family: tuple[str, ...], name: str) -> Router:
        models = [
            Model(
                model,
                base_url=getattr(self._emulator, f"{re.split('[:_]', model)[0]}_url"),
                api_key="k",
                api_version="2024-10-21" if model.startswith("azure") else None,
                dimensions=256,
                timeout=TIMEOUT,
                batch_size=4,
            )
            for model in family
        ]
        return Router(
            models,
            cache=self._folder / name,
            budget=Budget(total="1000"),
            retry=RetryPolicy(attempts=2, initial_wait=0.001, max_wait=0.002, cooldown=0.02),
        )

    def _fail(self, received: Received) -> Fault | None:
        with self._lock:
            self.requests += 1
            return self._chance.choice(FAULTS) if self._chance.random() < 0.5 else None

    def _texts(self) -> list[str]:
        """Return new texts, some that were asked for before, and duplicates."""
        with self._lock:
            self._number += 20
            return [f"text {self._number + shift - shift % 2}" for shift in range(-20, 20)]

    def cycle(self) -> None:
        """Embed in threads and in tasks of an event loop, with a new router and the lasting one; close both."""
        self._emulator.fault_for = self._fail
        place = self.cycles % len(FAMILIES)
        self.cycles += 1
        router, lasting = self._router(FAMILIES[place], f"new {place}"), self._lasting[place]
        crew = [threading.Thread(target=self._calls, args=(item,)) for item in (router, lasting) for _ in "ab"]
        for thread in crew:
            thread.start()
        asyncio.run(self._tasks(router, crew))
        asyncio.run(self._tasks(lasting, []))
        router.close()
        lasting.close()
        _quiet()

    def _calls(self, router: Router) -> None:
        for _ in range(3):
            try:
                router.embed(self._texts(), input_type="document")
                self.outcomes["answered"] += 1
            except EmbedRouterError as error:
                self.outcomes[type(error).__name__] += 1

    async def _tasks(self, router: Router, others: list[threading.Thread]) -> None:
        async def call() -> None:
            try:
                await router.aembed(self._texts(), input_type="query")
                self.outcomes["answered"] += 1
            except EmbedRouterError as error:
                self.outcomes[type(error).__name__] += 1

        tasks = [asyncio.create_task(call()) for _ in range(6)]
        await asyncio.sleep(0.03)
        tasks[0].cancel()
        self.outcomes["cancelled"] += 1
        await asyncio.gather(*tasks, return_exceptions=True)
        for thread in others:
            await asyncio.to_thread(thread.join)
        await router.aclose()


@pytest.mark.slow
@pytest.mark.skipif(not FOLDERS.is_dir(), reason="this system does not say what a process holds")
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")  # Voyage's SDK logs half an answer with it
def test_under_load_and_failures_nothing_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that embeds for weeks must not run out of memory, threads or file descriptors."""
    monkeypatch.setattr(threads, "idle", IDLE)
    sights: list[Sight] = []
    with Emulator() as emulator:
        load = Load(emulator, tmp_path)
        for _ in FAMILIES:  # imports
            load.cycle()
        logging.disable()  # pytest keeps every record
        try:
            began = time.monotonic()
            while time.monotonic() - began < SECONDS or len(sights) < 4 * len(FAMILIES):
                emulator.reset()
                load.cycle()
                sights.append(look(load.requests))
        finally:
            logging.disable(logging.NOTSET)
    sights = sights[len(sights) // 5 :]
    first, second = sights[: len(sights) // 2], sights[len(sights) // 2 :]
    print(f"{load.cycles} cycles, {load.requests} requests, {dict(load.outcomes)}", sights[0], sights[-1], sep="\n")

    def middle(half: list[Sight], what: str) -> float:
        return float(statistics.median(getattr(sight, what) for sight in half))

    requests = middle(second, "requests") - middle(first, "requests")
    assert middle(second, "blocks") - middle(first, "blocks") < BLOCKS * requests
    assert middle(second, "resident") - middle(first, "resident") < BYTES * requests + 6_000_000
    assert middle(second, "threads") == middle(first, "threads")
    assert max(sight.threads for sight in second) <= max(sight.threads for sight in first) + 1
    assert middle(second, "descriptors") == middle(first, "descriptors")
    assert max(sight.descriptors for sight in second) <= max(sight.descriptors for sight in first) + 2
