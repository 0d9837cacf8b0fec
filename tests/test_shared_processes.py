"""Real processes that share a Redis server: one pays for a text that all need, and all keep one limit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.emulator import Emulator, Sliding
from tests.hammer import Process
from tests.redis_server import RedisServer
from tests.side_by_side import until


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


LEASE = 4.0
"""Seconds after which claims of a killed process end here."""


def received(emulator: Emulator) -> Counter[str]:
    return Counter(text for request in emulator.received for text in request.texts)


def together(stack: ExitStack, task: str, settings: Sequence[dict[str, Any]]) -> list[Process]:
    """Start processes, and let them begin at once."""
    processes = [stack.enter_context(Process(task, **own)) for own in settings]
    for process in processes:
        process.ready()
    for process in processes:
        process.begin()
    return processes


@pytest.mark.slow
def test_eight_processes_that_need_the_same_texts_pay_for_each_once(emulator: Emulator, redis: RedisServer) -> None:
    """In both forms, each with all texts, in an order of its own."""
    emulator.latency = 0.3
    settings = [
        {
            "url": emulator.openai_url,
            "state": redis.address,
            "numbers": [*range(25 * number, 200), *range(25 * number)],
            "asynchronous": number % 2 == 0,
        }
        for number in range(8)
    ]
    with ExitStack() as stack:
        outcomes = [process.outcome() for process in together(stack, "share_texts", settings)]

    assert received(emulator) == Counter(dict.fromkeys(received(emulator), 1))
    assert len(received(emulator)) == 200
    assert sum(outcome["wrong"] for outcome in outcomes) == 0
    assert sum(outcome["cached"] for outcome in outcomes) == 7 * 200
    (billed,) = emulator.billed.values()
    assert sum(outcome["tokens"] for outcome in outcomes) == billed


@pytest.mark.slow
def test_when_a_process_with_claims_is_killed_another_takes_over(emulator: Emulator, redis: RedisServer) -> None:
    """Its claims end by themselves. What it had paid for and stored is not paid again."""
    emulator.latency = 1.0
    settings = {"url": emulator.openai_url, "state": redis.address, "numbers": [*range(200)], "lease": LEASE}
    with ExitStack() as stack:
        (killed,) = together(stack, "share_texts", [{**settings, "asynchronous": False}])
        until(lambda: emulator.calls > 10)
        waiting = together(stack, "share_texts", [{**settings, "asynchronous": form} for form in (True, False)])
        time.sleep(0.5)
        killed.kill()
        emulator.latency, began = 0.1, time.monotonic()
        outcomes = [process.outcome(within=LEASE + 30) for process in waiting]
        seconds = time.monotonic() - began

    assert seconds < LEASE + 10
    assert sum(outcome["wrong"] for outcome in outcomes) == 0
    assert len(received(emulator)) == 200
    in_flight = 8 * 10  # requests of ten texts that the killed one did not store
    assert sum(times - 1 for times in received(emulator).values()) <= in_flight


FACTOR, MINUTE = 6.0, 60 / 6.0
"""How many times as fast time passes, and the seconds of a minute."""


@pytest.mark.slow
def test_sixteen_processes_share_a_limit_and_provoke_no_429(emulator: Emulator, redis: RedisServer) -> None:
    """300,000 tokens a minute, of which at least 0.9 are used; one process is killed, and one comes later."""
    pace = Sliding(tokens=300_000, minute=MINUTE)
    emulator.pace = pace
    known = {"url": emulator.openai_url, "state": redis.address, "factor": FACTOR, "tokens": 300_000, "seconds": 300}
    settings = [{**known, "process": number, "calls": 1 + number % 4} for number in range(16)]

    def texts(begin: float = 0.0, end: float = float("inf")) -> Counter[int]:
        """Return how many texts each process has sent."""
        sent = (request for request in emulator.received if request.texts and begin <= request.at < end)
        return sum((Counter({int(item.texts[0].split()[-2]): len(item.texts)}) for item in sent), Counter())

    with ExitStack() as stack:
        processes = together(stack, "share_limits", settings[:15])
        until(lambda: len(texts()) == 15)
        together(stack, "share_limits", settings[15:])
        processes[0].kill()
        until(lambda: 15 in texts())
        time.sleep(MINUTE)  # in the first one some processes had not begun
        began = time.monotonic()
        time.sleep(MINUTE)
        end = time.monotonic()

    shares = [texts(began, end)[number] for number in range(1, 16)]
    assert pace.used(began, end) >= 0.9 * 300_000
    assert pace.provoked == 0
    assert min(shares) >= 0.5 * sum(shares) / len(shares), shares
