"""Limits that workers share: the promises of ``ModelLimits``, kept by many processes together.

The scripts run on a real Redis server and are given a virtual time (``tests/shared_limits.py``). Then real processes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter.limits import MINUTE, Held, Ticket
from embedrouter.redis._limits import PATIENCE, RedisLimits
from embedrouter.redis._server import Server
from tests.emulator import Aligned, Bucket, Pace, Sliding
from tests.properties import examples
from tests.redis_server import PROGRAMS, RedisServer
from tests.shared_limits import Crew, Worker

LEASE = 30.0
_names = count()


@pytest.fixture(scope="module", params=PROGRAMS or ["redis-server"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with RedisServer(tmp_path_factory.mktemp("redis"), program=request.param) as program:
        server = Server(program.address, "test")
        yield server
        server.close()


class Limits:
    """The shared limits of one model, at the time ``now``."""

    def __init__(self, server: Server, **limits: Any) -> None:
        self.now = 1_764_544_800.0
        quotas = tuple((limits.get(name), MINUTE) for name in ("requests", "texts", "tokens"))
        name, concurrency = f"model {next(_names)}", limits.get("concurrency")
        self.limits = RedisLimits(server, name, quotas, concurrency, clock=lambda: self.now)
        self._numbers = count()

    def ticket(self, tokens: int = 1, worker: str = "a", texts: int = 1) -> Ticket:
        return Ticket(f"{worker} {next(self._numbers)}", worker, texts, tokens, LEASE)

    def admitted(self, tokens: int = 1, worker: str = "a", texts: int = 1) -> Ticket:
        ticket = self.ticket(tokens, worker, texts)
        assert self.limits.admit(ticket) is None
        return ticket

    def held(self, ticket: Ticket) -> Held:
        held = self.limits.admit(ticket)
        assert held is not None
        return held

    def patiently(self, ticket: Ticket) -> float:
        """Ask until the ticket is admitted, and return the seconds."""
        began = self.now
        while (held := self.limits.admit(ticket)) is not None:
            self.now += held.seconds
        return self.now - began


# One ticket after the other


@examples(30)
@given(
    gaps=st.lists(st.one_of(st.just(0.0), st.floats(0, 100)), max_size=40),
    sizes=st.lists(st.integers(1, 100), min_size=40, max_size=40),
    bills=st.lists(st.integers(0, 100), min_size=40, max_size=40),
    workers=st.lists(st.sampled_from("abc"), min_size=40, max_size=40),
    requests=st.one_of(st.none(), st.integers(1, 12)),
    tokens=st.one_of(st.none(), st.integers(100, 400)),
)
def test_no_window_of_a_minute_ever_holds_more_than_the_limits(
    server: Server,
    gaps: list[float],
    sizes: list[int],
    bills: list[int],
    workers: list[str],
    requests: int | None,
    tokens: int | None,
) -> None:
    """The promise of the limits in one process."""
    limits, window = Limits(server, requests=requests, tokens=tokens), Sliding(requests=requests, tokens=tokens)
    for gap, size, bill, worker in zip(gaps, sizes, bills, workers, strict=False):
        limits.now += gap
        ticket, billed = limits.ticket(size, worker), min(size, bill)
        limits.patiently(ticket)
        limits.limits.end(ticket, "answered", billed)
        assert window.take(billed, limits.now)


def test_a_worker_alone_may_use_a_whole_limit_at_once(server: Server) -> None:
    """As without shared limits: a job of less than a minute's tokens does not wait."""
    limits = Limits(server, tokens=1000)
    tickets = [limits.admitted(100) for _ in range(10)]
    for ticket in tickets:
        limits.limits.end(ticket, "answered", 100)

    assert limits.patiently(limits.ticket(1)) == pytest.approx(MINUTE, abs=0.3)


def test_of_two_workers_each_has_its_share_although_one_asked_first_for_all(server: Server) -> None:
    """The one that comes later is not behind all that waits."""
    limits = Limits(server, tokens=1000)
    limits.limits.end(limits.admitted(1000, "a"), "answered", 1000)
    waiting = [limits.ticket(100, "a") for _ in range(20)]
    for ticket in waiting:
        limits.held(ticket)
    late = [limits.ticket(100, "b") for _ in range(3)]
    for ticket in late:
        limits.held(ticket)
    order: list[Ticket] = []
    while len(order) < 6:
        limits.now += 0.5
        order += [ticket for ticket in (*waiting, *late) if ticket not in order and limits.limits.admit(ticket) is None]

    assert sum(ticket.worker == "b" for ticket in order) == 3


def test_a_question_that_is_repeated_takes_nothing_more(server: Server) -> None:
    """A command may be carried out although its answer never came, and is then sent again."""
    limits = Limits(server, requests=2, tokens=100)
    first = limits.admitted(60)
    for _ in range(3):
        assert limits.limits.admit(first) is None
    second = limits.admitted(40)
    for _ in range(3):
        limits.limits.end(first, "answered", 10)
        limits.limits.end(second, "unsent")

    limits.admitted(90)
    assert limits.held(limits.ticket(1)).reason == "rate limit"


def test_a_request_of_a_killed_worker_counts_until_its_minute_is_over(server: Server) -> None:
    """Its provider may have counted it; its slot is free when its lease has ended."""
    limits = Limits(server, tokens=100, concurrency=1)
    limits.admitted(100)
    assert limits.held(limits.ticket(1, "b")).reason in ("concurrency limit", "rate limit")
    seconds = limits.patiently(limits.ticket(50, "c"))

    assert seconds == pytest.approx(LEASE + MINUTE, abs=5)


def test_a_killed_worker_that_waits_loses_its_place(server: Server) -> None:
    """The others do not leave room for it for ever."""
    limits = Limits(server, tokens=100)
    limits.limits.end(limits.admitted(100), "answered", 100)
    limits.held(limits.ticket(100, "killed"))
    limits.now += MINUTE - 10
    alive = limits.ticket(100, "b")

    assert limits.patiently(alive) < 10 + PATIENCE


def test_a_ticket_that_is_given_back_while_it_waits_leaves_no_trace(server: Server) -> None:
    """Its call was stopped, or had no time left."""
    limits = Limits(server, tokens=100)
    limits.limits.end(limits.admitted(60), "answered", 60)
    stopped = limits.ticket(100, "a")
    limits.held(stopped)
    assert isinstance(limits.limits.admit(other := limits.ticket(40, "a")), Held)
    limits.limits.end(stopped, "unsent")

    assert limits.limits.admit(other) is None


def test_slots_are_shared_in_turn(server: Server) -> None:
    """``max_concurrency`` of all workers together."""
    limits = Limits(server, concurrency=2)
    first, second = limits.admitted(worker="a"), limits.admitted(worker="a")
    waiting = limits.ticket(worker="b")
    assert limits.held(waiting).reason == "concurrency limit"
    limits.limits.end(first, "failed")
    assert limits.limits.admit(waiting) is None
    limits.limits.end(second, "unsent")

    limits.admitted(worker="c")
    assert limits.held(limits.ticket(worker="a")).reason == "concurrency limit"


def test_after_a_429_of_one_worker_all_wait_and_one_finds_out(server: Server) -> None:
    """Without that, a hundred workers go on refusing each other the minute."""
    limits = Limits(server)
    first, late = limits.admitted(worker="a"), limits.admitted(worker="b")
    limits.limits.end(first, "refused", hold=7.0)
    limits.limits.end(late, "refused", hold=5.0)
    waiting = [limits.ticket(worker=worker) for worker in "abc"]
    assert [limits.held(ticket) for ticket in waiting] == [Held(7.0, "HTTP 429", 1)] * 3
    limits.now += 7.0
    assert limits.limits.admit(waiting[0]) is None
    assert limits.held(waiting[1]).reason == "HTTP 429"
    limits.limits.end(waiting[0], "refused", hold=9.0)
    assert limits.held(waiting[1]) == Held(9.0, "HTTP 429", 2)
    limits.now += 9.0
    assert limits.limits.admit(waiting[1]) is None
    limits.limits.end(waiting[1], "answered")

    assert limits.limits.admit(waiting[2]) is None


def test_a_limit_that_one_worker_was_told_counts_for_all(server: Server) -> None:
    """OpenAI and Voyage report them with each answer."""
    limits = Limits(server)
    limits.limits.end(limits.admitted(10), "answered", 10, reported=((2, MINUTE), (None, MINUTE), (100, MINUTE)))
    ticket = limits.ticket(91, "b")
    assert limits.held(ticket).reason == "rate limit"
    limits.limits.end(ticket, "unsent")
    limits.admitted(10, "b")

    assert limits.held(limits.ticket(1, "c")).reason == "rate limit"


def test_what_no_worker_uses_any_more_is_forgotten(server: Server) -> None:
    """The server's memory is for vectors."""
    limits = Limits(server, tokens=100)
    limits.limits.end(limits.admitted(10), "answered", 10)
    keys = [key for key in limits.limits._keys if server.client.exists(key)]

    assert len(keys) >= 4
    assert all(0 < server.client.ttl(key) <= 900 for key in keys)


# Many workers on a virtual clock


def sizes(seed: int, low: int, high: int) -> Iterator[int]:
    chance = random.Random(seed)
    return (chance.randint(low, high) for _ in repeat(None))


def crowd(number: int) -> list[Worker]:
    """Return workers of all kinds: small and large requests, one to eight at once, estimates up to half too high."""
    kinds = [(500, 2500), (10_000, 25_000), (200, 25_000), (5000, 5000)]
    return [
        Worker(
            sizes(place, *kinds[place % 4]),
            outstanding=(1, 4, 8, 2)[place // 4 % 4],
            ratio=(1.0, 1.5, 1.2)[place % 3],
        )
        for place in range(number)
    ]


def play(server: Server, pace: Pace, workers: Sequence[Worker], minutes: float, **settings: Any) -> Crew:
    crew = Crew(server, f"model {next(_names)}", pace, workers, **settings)
    crew.run(60 * minutes)
    crew.close()
    return crew


@pytest.mark.slow
def test_a_hundred_workers_use_a_limit_and_each_gets_its_share(server: Server) -> None:
    """One comes late, and one is killed. The first minute, in which all begin at once, does not count."""
    workers = crowd(100)
    workers[3].begins, workers[7].killed = 70.0, 80.0
    end = 150.0
    crew = play(server, Sliding(tokens=4_000_000), workers, end / 60)
    shares = [crew.share(worker, worker.begins or 30, end) * 99 for worker in workers if worker is not workers[7]]

    assert crew.used(0, end) >= 0.9
    assert min(shares) >= 0.5
    assert crew.pace.provoked * 1000 < len(crew.pace.accepted)


@pytest.mark.parametrize(
    "kind", [Sliding, pytest.param(Aligned, marks=pytest.mark.slow), pytest.param(Bucket, marks=pytest.mark.slow)]
)
def test_ten_workers_use_a_limit_and_each_gets_its_share(server: Server, kind: type[Pace]) -> None:
    """However the provider counts its minutes."""
    workers = crowd(10)
    crew = play(server, kind(tokens=600_000), workers, 2.5)

    assert crew.used(0, 150) >= 0.9
    assert min(crew.share(worker, 20, 150) * 10 for worker in workers) >= 0.5
    assert crew.pace.provoked == 0


def test_workers_that_are_told_no_limit_learn_it_from_each_other(server: Server) -> None:
    """Here the first answers report it, and some requests are out by then."""
    crew = play(server, Sliding(tokens=600_000), crowd(10), 2, declares=False)

    assert crew.used(60, 120) >= 0.9
    assert crew.pace.provoked * 100 <= len(crew.pace.accepted)


def test_a_worker_with_few_small_requests_does_not_wait_behind_those_with_many(server: Server) -> None:
    """The queries of a web server, beside six jobs that fill an index."""
    queries = Worker(sizes(1, 10, 20), outstanding=1, pause=lambda: 2.0, begins=30.0)
    crew = play(server, Sliding(tokens=600_000), [*crowd(6), queries], 2)

    assert len(queries.waits) > 25
    assert sorted(queries.waits)[len(queries.waits) // 2] < 1.5
    assert crew.used(0, 120) >= 0.9


def test_concurrency_is_kept_by_all_workers_together(server: Server) -> None:
    """A declared ``max_concurrency`` is the server's that runs the model."""
    crew = play(server, Sliding(tokens=10_000_000), crowd(4), 0.3, concurrency=3)

    assert crew.most_in_flight == 3
    assert len(crew.pace.accepted) > 80
