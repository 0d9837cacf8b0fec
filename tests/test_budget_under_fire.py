"""A budget that many processes share, while everything fails that can fail.

Several processes with eight threads or tasks each embed through one cache folder, one ledger and one cap, against a
provider that limits, fails, resets, loses answers that it billed, and answers too late. Some of the processes are
killed. What the provider bills must stay within the cap, and the ledger must know every token of it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Model, Router
from embedrouter.spending import Ledger
from tests.emulator import Emulator, Fault, Received
from tests.hammer import MODEL, Process, text
from tests.ledgers import Place
from tests.redis_server import RedisServer

PRICE = Decimal(5)
"""US dollars per million tokens."""
CAP = Decimal("1.00")
TEAM, TEAM_CAP = "team-0", Decimal("0.35")
"""Every second process books under a tag that has a cap of its own."""
WORDS = 250
TEXTS = 2000
"""All of them would cost two and a half times the cap."""
WORKERS = 8
TIMEOUT = 1.0
"""Seconds; of an attempt."""
LONG = 3600.0
"""Seconds after which nothing is in flight any more."""

FAULTS: list[tuple[float, Fault]] = [
    (0.06, Fault.rate_limited(retry_after=0.02)),
    (0.05, Fault.status(500)),
    (0.04, Fault.reset()),
    (0.04, Fault.lost()),
    (0.03, Fault.slow(TIMEOUT * 1.6)),
    (0.02, Fault.half_body()),
    (0.01, Fault.wrong_dimensions(4)),
    (0.01, Fault.no_usage()),
]
"""How often each happens."""


class Fire:
    """Chooses faults by the texts of a request and by how often they came, in any order of arrival."""

    def __init__(self, seed: int) -> None:
        self.chosen: Counter[str] = Counter()
        self._seed = seed
        self._seen: Counter[tuple[str, ...]] = Counter()

    def __call__(self, received: Received) -> Fault | None:
        key = tuple(item[:12] for item in received.texts)
        self._seen[key] += 1
        chance = random.Random(f"{self._seed}/{key}/{self._seen[key]}").random()
        for share, fault in FAULTS:
            chance -= share
            if chance < 0:
                self.chosen[f"{fault.kind} {fault.code}"] += 1
                return fault
        return None


def settings_for(emulator: Emulator, folder: Path, **other: Any) -> dict[str, Any]:
    common = {"url": emulator.openai_url, "folder": str(folder), "price": str(PRICE), "words": WORDS}
    return {**common, "timeout": TIMEOUT, "cap": str(CAP), "texts": TEXTS, **other}


@pytest.fixture
def exact() -> None:
    """Skip where texts are not counted as they are billed."""
    with Router([Model(MODEL, api_key="k")], cache=None) as router:
        if not router.estimate(["a text"], input_type="document").exact:
            pytest.skip("tiktoken's vocabulary is not on this machine, so estimates are not the bill")


@pytest.mark.usefixtures("exact")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed", "processes", "killed"), [("threads", 3, 3, 1), ("threads", 1, 8, 3), ("tasks", 2, 8, 3)]
)
def test_processes_under_fire_stay_within_the_cap(
    kind: str, seed: int, processes: int, killed: int, emulator: Emulator, tmp_path: Path
) -> None:
    """The tokens are counted exactly, so the error of the estimate is 0 and not a token over the cap may be billed."""
    play(kind, seed, processes, killed, emulator, tmp_path, Place(tmp_path / "ledger.db"))


@pytest.mark.slow
@pytest.mark.usefixtures("exact")
def test_sixteen_processes_stay_within_a_dollar_on_redis(
    emulator: Emulator, tmp_path: Path, redis_server: RedisServer
) -> None:
    """Each with a cache of its own, as on sixteen machines; six of them are killed."""
    play("threads", 4, 16, 6, emulator, tmp_path, Place(address=redis_server.address), workers=3, own_caches=True)


def play(
    kind: str,
    seed: int,
    processes: int,
    killed: int,
    emulator: Emulator,
    tmp_path: Path,
    place: Place,
    *,
    workers: int = WORKERS,
    own_caches: bool = False,
) -> None:
    """Let processes embed until the money is gone, kill some, and compare the bill with the ledger."""
    fire = emulator.fault_for = Fire(seed)
    emulator.latency = 0.02
    began = time.monotonic()
    of_process = {"workers": workers, "seed": seed, "tags": {TEAM: str(TEAM_CAP)}, "ledger": place.named}
    folders = [tmp_path / str(number) if own_caches else tmp_path for number in range(processes)]
    with ExitStack() as stack:
        crew = [
            stack.enter_context(
                Process(
                    kind,
                    **settings_for(emulator, folders[number], **of_process, process=number, tag=f"team-{number % 2}"),
                )
            )
            for number in range(processes)
        ]
        for process in crew:
            process.ready()
        for process in crew:
            process.begin()
        for number in range(killed):
            _wait_for(emulator, 120 // killed * (number + 1), crew[killed:])
            crew[number].kill()
        stories = [process.outcome(within=90) for process in crew[killed:]]

    billed = sum(emulator.billed.values())
    ledger = place.open(now=lambda: time.time() + LONG)
    (account,) = ledger.totals("model").values()
    team = ledger.totals("tag")[TEAM]
    unconfirmed = ledger.unconfirmed()
    ledger.close()
    doubtful = sum(item.tokens for item in unconfirmed)
    print(f"{kind}: {time.monotonic() - began:.1f} s, {emulator.calls} requests, {billed} tokens billed")
    print(f"ledger: {account}")
    print(f"unconfirmed: {len(unconfirmed)} requests of {doubtful} tokens")
    print(f"faults: {dict(fire.chosen)}")
    print(*stories, sep="\n")

    assert not [problem for story in stories for problem in story["problems"]]
    assert all(story["refused"] for story in stories), "everybody met the cap"
    assert not [item for item in emulator.refused if item.received.texts], "a killed process may tear a request in two"
    assert billed * PRICE / 1_000_000 <= CAP
    assert account.tokens <= billed <= account.tokens + doubtful
    assert account.cost == account.tokens * PRICE / 1_000_000
    assert account.unconfirmed == doubtful * PRICE / 1_000_000
    assert account.cost + account.unconfirmed <= CAP
    assert account.cost + account.unconfirmed > CAP * 9 / 10, "the cap was reached"
    assert TEAM_CAP * 8 / 10 < team.cost + team.unconfirmed <= TEAM_CAP
    certain = sum(fire.chosen[kind] for kind in ("lost 200", "half 200", "slow 200"))
    assert len(unconfirmed) >= certain, "every answer that was billed and never came is listed"


def _wait_for(emulator: Emulator, calls: int, crew: list[Process]) -> None:
    """Wait until the provider got so many requests, while all of these processes run."""
    deadline = time.monotonic() + 60
    while emulator.calls < calls:
        assert time.monotonic() < deadline, f"{emulator.calls} requests came"
        assert all(process.running for process in crew), "a process ended early"
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.usefixtures("exact")
def test_a_job_killed_at_60_percent_pays_for_the_rest_only(emulator: Emulator, tmp_path: Path) -> None:
    """What was answered is in the cache; at most the requests that were in flight are paid twice."""
    texts, batch, width = 200, 4, 3
    words = 20
    emulator.latency = 0.03
    settings = settings_for(
        emulator, tmp_path, texts=texts, words=words, batch_size=batch, max_concurrency=width, timeout=30.0
    )
    with Router([Model(MODEL, api_key="k")], cache=None) as router:
        every = [text(number, words) for number in range(texts)]
        whole = router.estimate(every, input_type="document").tokens
        largest = max(router.estimate([item], input_type="document").tokens for item in every) * batch
    with Process("job", **settings) as killed:
        killed.ready()
        killed.begin()
        deadline = time.monotonic() + 60
        while sum(emulator.billed.values()) < whole * 0.6:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        killed.kill()
    first = sum(emulator.billed.values())
    again = Process.run("job", **settings)
    second = sum(emulator.billed.values()) - first
    twice = Counter(item for received in emulator.received for item in received.texts)
    ledger = Ledger(tmp_path / "ledger.db", now=lambda: time.time() + LONG)
    (account,) = ledger.totals("model").values()
    doubtful = sum(item.tokens for item in ledger.unconfirmed())
    ledger.close()

    assert whole * 0.6 <= first < whole * 0.6 + (width + 1) * largest, "it was killed in the middle"
    assert whole <= first + second <= whole + width * largest
    assert set(twice) == set(every)
    assert sum(times - 1 for times in twice.values()) <= width * batch
    assert again["cached"] >= texts * 0.6 - width * batch
    assert again["tokens"] == second
    assert account.tokens <= first + second <= account.tokens + doubtful
    assert doubtful <= width * largest
