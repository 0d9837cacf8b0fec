"""Reserving and settling the money of requests, by 16 processes that share the accounts.

Between the two a request is under way, for 50 ms on the average; and once more without any pause, where the processes
wait for each other and for the processors. Redis is on loopback; the file is SQLite's, for comparison.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

import pytest

from tests.hammer import Process
from tests.redis_server import RedisServer

CLIENTS = 16
TIMES = 300


@pytest.mark.parametrize("pause", [0.05, 0.0])
def test_reserving_and_settling(tmp_path: Path, pause: float) -> None:
    with RedisServer(tmp_path, "--appendonly", "yes") as server:
        for place in (server.address, str(tmp_path / "ledger.db")):
            with ExitStack() as stack:
                told = {"file": place, "times": TIMES, "pause": pause}
                crew = [stack.enter_context(Process("pay", **told)) for _ in range(CLIENTS)]
                for process in crew:
                    process.ready()
                for process in crew:
                    process.begin()
                stories = [process.outcome(within=300) for process in crew]
            for name in ("reserving", "settling"):
                taken = [value for story in stories for value in story[name]]
                p99 = quantiles(taken, n=100)[98]
                where = place.partition(":")[0] if "://" in place else "file"
                print(
                    f"\n{name:9} on {where:5}, {CLIENTS} processes, {1000 * pause:.0f} ms between: "
                    f"{median(taken):.2f} ms (p50), {p99:.2f} ms (p99)",
                    end="",
                )
    print()
