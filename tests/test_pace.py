"""A limit a minute is used nearly in full, and never passed.

First the limits with a clock of their own, between workers and a provider that counts: minutes pass in milliseconds,
and the figures are the same each time. Then through a router and a socket, with minutes of a second. Three real minutes
are in ``tests/benchmarks/bench_pace.py``.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrouter import Model, RetryPolicy, Router
from embedrouter.calls import pack
from embedrouter.limits import MINUTE, Admission, ModelLimits
from embedrouter.models import load_catalogue, resolve
from embedrouter.types import Candidate, RateLimits
from tests.either import embed
from tests.emulator import Aligned, Bucket, Emulator, Pace, Sliding
from tests.properties import examples
from tests.virtual_time import FastTime

PACES: list[type[Pace]] = [Sliding, Aligned, Bucket]


def candidate(name: str = "openai:text-embedding-3-small", **settings: Any) -> Candidate:
    """Return what the router would make of a model."""
    model = Model(name, **settings)
    return resolve(model, load_catalogue()[name], dimensions=None, index=0, rank=0, local=False)


@dataclass
class Job:
    """Texts on their way to a provider that has a pace, in requests of the candidate's size."""

    candidate: Candidate
    pace: Pace
    texts: list[int]
    """Their estimated tokens."""
    ratio: float = 1.5
    """Of the estimates to the bills."""
    slowest: float = 0.15
    """Seconds that a request takes to its provider at most, and its answer back."""
    start: float = 0.0
    """Seconds that the first requests take besides, before they are sent: an SDK is imported."""
    splits: bool = False
    """Whether the beginning of a request may go out before the rest."""
    in_line: int = 0
    """Workers beyond the model's concurrency, which wait for a slot."""
    learns: bool = False
    """Whether the answers report the limits."""
    seed: int = 0
    now: float = 0.0
    largest: int = 0
    """The most texts in one request."""
    requests: deque[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        declared = self.candidate
        self.chance = random.Random(self.seed)
        self.limits = ModelLimits(
            concurrency=declared.concurrency,
            requests=declared.requests_per_minute,
            tokens=declared.tokens_per_minute,
            cooldown=10,
            lease=60,
        )
        parts = pack(self.texts, [0] * len(self.texts), declared.limits)
        self.requests = deque(self.texts[part] for part in parts)

    def run(self, minutes: int = 3) -> float:
        """Let so many minutes pass; return the share of the limit of tokens that was used."""
        order = itertools.count()
        workers = [(0.0, next(order), self._work()) for _ in range(self.candidate.concurrency + self.in_line)]
        while workers and workers[0][0] < 60 * minutes:
            self.now, _, worker = heapq.heappop(workers)
            seconds = next(worker, None)
            if seconds is not None:
                heapq.heappush(workers, (self.now + seconds, next(order), worker))
        return self.pace.used(0, 60 * minutes) / (minutes * (self.pace.tokens or 1))

    def _work(self) -> Generator[float, None, None]:
        """Do one request after the other; yield the seconds that pass."""
        while self.requests:
            request = self.requests.popleft()
            while request:
                admission = yield from self._admitted(request)
                sizes = list(itertools.accumulate(request))
                count = sum(size <= admission.tokens for size in sizes)
                part, request = request[:count], request[count:]
                self.largest = max(self.largest, len(part))
                yield self.chance.uniform(0.01, self.slowest) + (0.0 if self.pace.accepted else self.start)
                bill = sum(max(1, int(tokens / self.ratio)) for tokens in part)
                self.pace.take(bill, self.now)
                yield self.chance.uniform(0.01, self.slowest)
                said = RateLimits(self.pace.requests, tokens=self.pace.tokens) if self.learns else None
                self.limits.answered(admission, bill, said, self.now)

    def _admitted(self, request: list[int]) -> Generator[float, None, Admission]:
        slot = None
        while True:
            answer = self.limits.admit(sum(request), self.now, least=request[0] if self.splits else None, slot=slot)
            if isinstance(answer, Admission):
                return answer
            assert 0 < answer.seconds <= MINUTE
            slot = answer.slot
            yield answer.seconds if slot is None else 0.25  # a slot may become free at any moment


def texts(total: int, mean: int, seed: int = 0) -> list[int]:
    """Return sizes of texts that add up to about ``total`` tokens."""
    chance = random.Random(seed)
    return [max(1, int(mean * chance.uniform(0.5, 1.5))) for _ in range(total // mean)]


OPENAI = candidate(tokens_per_minute=1_000_000, requests_per_minute=3000)
SMALL = candidate(tokens_per_minute=200_000, requests_per_minute=500)
VOYAGE = candidate("voyage:voyage-4", tokens_per_minute=8_000_000, requests_per_minute=2000)
UNPAID = candidate("voyage:voyage-4", tokens_per_minute=10_000, requests_per_minute=3)
TRIAL = candidate("cohere:embed-v4.0", tokens_per_minute=100_000, requests_per_minute=20)
ANY_REQUESTS = candidate(tokens_per_minute=40_000)


@pytest.mark.parametrize("kind", PACES)
@pytest.mark.parametrize("splits", [False, True], ids=["whole", "in parts"])
@pytest.mark.parametrize("ratio", [1.0, 1.5])
@pytest.mark.parametrize("model", [OPENAI, SMALL, VOYAGE, ANY_REQUESTS], ids=["openai", "small", "voyage", "tokens"])
def test_three_minutes_use_nearly_all_of_a_limit_of_tokens(
    model: Candidate, ratio: float, splits: bool, kind: type[Pace]
) -> None:
    """Whether the estimates are right, or half as much again as the bills."""
    limit = model.tokens_per_minute or 0
    pace = kind(tokens=limit, requests=model.requests_per_minute)
    job = Job(model, pace, texts(5 * limit, limit // 1000), ratio=ratio, splits=splits)

    assert job.run() >= 0.95
    assert pace.provoked == 0


@pytest.mark.parametrize("kind", PACES)
@pytest.mark.parametrize(
    ("model", "ratio", "whole", "parts"),
    [(TRIAL, 1.0, 0.95, 0.98), (TRIAL, 1.5, 0.91, 0.98), (UNPAID, 1.0, 0.98, 0.98), (UNPAID, 1.5, 0.64, 0.82)],
    ids=["trial, exact", "trial", "unpaid, exact", "unpaid"],
)
def test_where_few_requests_are_allowed_estimates_cost_some_of_the_tokens(
    model: Candidate, ratio: float, whole: float, parts: float, kind: type[Pace]
) -> None:
    """A request holds no more than the limit as estimated; three a minute leave no second chance."""
    limit = model.tokens_per_minute or 0
    for splits, share in ((False, whole), (True, parts)):
        pace = kind(tokens=limit, requests=model.requests_per_minute)
        job = Job(model, pace, texts(5 * limit, limit // 200), ratio=ratio, splits=splits)

        assert job.run() >= share
        assert pace.provoked == 0


@pytest.mark.parametrize("kind", PACES)
def test_two_thousand_texts_a_minute_are_forty_requests_of_fifty(kind: type[Pace]) -> None:
    """Cohere counts inputs; short ones reach no limit of tokens."""
    model = candidate("cohere:embed-v4.0", requests_per_minute=40, batch_size=50)
    pace = kind(requests=40)
    job = Job(model, pace, texts(100_000, 10))
    job.run()

    assert (len(pace.accepted), job.largest, pace.provoked) == (3 * 40, 50, 0)


@pytest.mark.parametrize(("splits", "share"), [(False, 0.92), (True, 0.95)], ids=["whole", "in parts"])
def test_a_limit_that_answers_report_is_used_as_well(splits: bool, share: float) -> None:
    """Here it leaves room for what goes out before the first answer. The requests were packed before it was known."""
    pace = Sliding(tokens=3_000_000, requests=5000)
    job = Job(candidate(), pace, texts(15_000_000, 1000), splits=splits, learns=True)

    assert job.run() >= share
    assert pace.provoked == 0


@examples(150)
@given(
    kind=st.sampled_from(PACES),
    requests=st.none() | st.integers(1, 200),
    tokens=st.none() | st.integers(500, 20_000),
    mean=st.integers(5, 400),
    ratio=st.floats(1, 4),
    concurrency=st.integers(1, 20),
    slowest=st.floats(0.02, 55.0),
    in_line=st.sampled_from([0, 1, 10]),
    splits=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_limit_is_ever_passed(
    kind: type[Pace],
    requests: int | None,
    tokens: int | None,
    mean: int,
    ratio: float,
    concurrency: int,
    slowest: float,
    in_line: int,
    splits: bool,
    seed: int,
) -> None:
    """However the provider counts, however long the network takes, and however many callers wait for a slot."""
    model = candidate(tokens_per_minute=tokens, requests_per_minute=requests, max_concurrency=concurrency)
    pace = kind(tokens=tokens, requests=requests)
    sizes = [min(size, tokens or size) for size in texts(5 * (tokens or 4000), mean, seed)]
    Job(model, pace, sizes, ratio=ratio, slowest=slowest, in_line=in_line, splits=splits, seed=seed).run()

    assert pace.accepted
    assert pace.provoked == 0


@examples(60)
@given(
    kind=st.sampled_from(PACES),
    requests=st.none() | st.integers(80, 5000),
    tokens=st.integers(20_000, 1_000_000),
    texts_in_limit=st.integers(400, 1000),
    ratio=st.floats(1, 1.6),
    concurrency=st.integers(4, 20),
    splits=st.booleans(),
    seed=st.integers(0, 99),
)
def test_small_texts_and_enough_requests_use_nearly_all_of_any_limit(
    kind: type[Pace],
    requests: int | None,
    tokens: int,
    texts_in_limit: int,
    ratio: float,
    concurrency: int,
    splits: bool,
    seed: int,
) -> None:
    """At least 0.95, because a fortieth is the most that may stay free."""
    model = candidate(tokens_per_minute=tokens, requests_per_minute=requests, max_concurrency=concurrency)
    pace = kind(tokens=tokens, requests=requests)
    sizes = texts(int(3.2 * ratio * tokens), tokens // texts_in_limit, seed)

    assert Job(model, pace, sizes, ratio=ratio, splits=splits, seed=seed).run() >= 0.95
    assert pace.provoked == 0


@pytest.mark.parametrize("kind", PACES)
def test_requests_that_leave_late_at_first_are_not_forgotten_early(kind: type[Pace]) -> None:
    """On a busy machine the first took seven seconds, and the next minute's came too early for their provider."""
    pace = kind(tokens=200_000, requests=500)
    Job(SMALL, pace, texts(1_000_000, 200), ratio=1.0, start=7.0).run()

    assert pace.provoked == 0


# The size of a request


@pytest.mark.parametrize(
    ("declared", "tokens"),
    [
        ({}, 300_000),
        ({"requests_per_minute": 3}, 300_000),
        ({"tokens_per_minute": 100_000_000}, 300_000),
        ({"tokens_per_minute": 1_000_000}, 25_000),
        ({"tokens_per_minute": 1_000_000, "requests_per_minute": 3000}, 25_000),
        ({"tokens_per_minute": 1_000_000, "requests_per_minute": 20}, 100_000),
        ({"tokens_per_minute": 10_000, "requests_per_minute": 3}, 10_000),
        ({"tokens_per_minute": 10_000, "requests_per_minute": 1}, 10_000),
        ({"tokens_per_minute": 10, "requests_per_minute": 3000}, 1),
        ({"tokens_per_minute": 1_000_000, "max_request_tokens": 8000}, 8000),
    ],
)
def test_requests_are_small_enough_to_fill_the_limit(declared: dict[str, Any], tokens: int) -> None:
    """A request that does not fit waits whole, so a fortieth; where few are allowed, half of them must suffice."""
    assert candidate(**declared).limits.tokens == tokens


# Through a router and a socket: with minutes that last a second


@pytest.mark.slow
def test_long_calls_provoke_no_429() -> None:
    """Billed by the real vocabulary where it is at hand, estimated by us; one call for each way to count a minute."""
    with ThreadPoolExecutor(3) as pool:
        for outcome in [
            pool.submit(_call_for_minutes, kind, asynchronous)
            for kind, asynchronous in ((Sliding, True), (Aligned, False), (Bucket, False))
        ]:
            pace, tokens = outcome.result()
            assert pace.provoked == 0, pace
            assert pace.used(0, float("inf")) == tokens > 2 * 1200


def _call_for_minutes(kind: type[Pace], asynchronous: bool) -> tuple[Pace, int]:
    """Embed for more than two minutes; return what the provider counted, and what the router did."""
    fast = FastTime(40)
    pace = kind(tokens=1200, requests=90, minute=60 / 40)
    with Emulator() as emulator:
        model = Model(
            "openai:text-embedding-3-small",
            base_url=emulator.openai_url,
            api_key="k",
            dimensions=8,
            tokens_per_minute=1200,
            requests_per_minute=90,
        )
        with Router(
            [model],
            cache=None,
            ledger=":memory:",
            retry=RetryPolicy(attempts=1, timeout=60 * 40),
            clock=fast,
            sleep=fast.sleep,
        ) as router:
            router.embed(["first"], input_type="document")  # an SDK is imported: that takes minutes of this clock
            emulator.pace = pace
            documents = [f"Paragraph {number} of the administrative handbook." for number in range(320)]
            result = embed(router, asynchronous, documents, input_type="document")
    return pace, result.usage.tokens


@pytest.mark.parametrize("name", ["openai", "azure", "cohere", "voyage"])
def test_over_its_pace_the_emulator_refuses_and_says_what_is_left(name: str) -> None:
    """OpenAI says all of it in its headers, Azure what is left; the others say nothing."""
    pace = Sliding(requests=1, tokens=100)
    with Emulator(pace=pace) as emulator:
        path, body = {
            "openai": ("/embeddings", {"model": "text-embedding-3-small", "input": ["one"]}),
            "azure": ("/openai/v1/embeddings", {"model": "text-embedding-3-small", "input": ["one"]}),
            "cohere": ("/v2/embed", {"model": "embed-v4.0", "input_type": "search_query", "texts": ["one"]}),
            "voyage": ("/embeddings", {"model": "voyage-4", "input": ["one"]}),
        }[name]
        url = getattr(emulator, f"{name}_url")
        headers = {"authorization": "Bearer k", "api-key": "k"}
        answer, refusal = (httpx.post(url + path, json=body, headers=headers) for _ in range(2))

    def said(what: str) -> str | None:
        return answer.headers.get(f"x-ratelimit-{what}")

    assert (answer.status_code, refusal.status_code) == (200, 429)
    assert (pace.provoked, [refused.status for refused in emulator.refused]) == (1, [429])
    assert (said("limit-requests"), said("limit-tokens")) == (("1", "100") if name == "openai" else (None, None))
    assert said("remaining-requests") == ("0" if name in ("openai", "azure") else None)
