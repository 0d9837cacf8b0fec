"""Texts handed to a provider's batch endpoint: at half the price, once each, found again, and never lost."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

import embedrouter
from embedrouter import Budget, Model, RetryPolicy, Router
from embedrouter.batches import Batches, BatchJob
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    BudgetExceededError,
    ConfigError,
    InputRejectedError,
    InvalidInputError,
    RateLimitedError,
    UnavailableError,
)
from embedrouter.events import BatchCollected, BatchSubmitted, Event
from embedrouter.providers.openai_batches import OpenAIBatches
from embedrouter.redis import RedisBooks
from embedrouter.router import wiring_of
from embedrouter.spending import Account
from embedrouter.testing import NO_WAITING, FakeBackend
from embedrouter.types import dollars
from tests.emulator import Emulator, Fault, Limits, Received, count_tokens
from tests.hammer import MODEL, Process, text
from tests.ledgers import Place
from tests.virtual_time import VirtualTime

SMALL = MODEL.partition(":")[2]
TEXTS = [f"the ferry number {place} leaves at noon" for place in range(10)]
HALF = Decimal("0.01")
"""Of $0.02 per million tokens."""
MILLION = 1_000_000
ONE_TRY = RetryPolicy(attempts=1)

Build = Callable[..., Router]


@pytest.fixture(params=["file", pytest.param("redis", marks=pytest.mark.slow)])
def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the accounts and the records are."""
    if request.param == "file":
        return Place(tmp_path / "shared" / "ledger.db")
    return Place(address=request.getfixturevalue("redis_server").address)


@pytest.fixture
def build(emulator: Emulator, tmp_path: Path, accounts: Place) -> Iterator[Build]:
    """Build routers that share one cache and one ledger, as processes do."""
    with ExitStack() as stack:

        def router(model: dict[str, Any] | None = None, **settings: Any) -> Router:
            declared = {"base_url": emulator.openai_url, "api_key": "k", "dimensions": 8, **(model or {})}
            told = {"cache": tmp_path / "shared", "ledger": accounts.named, "retry": NO_WAITING, **settings}
            return stack.enter_context(Router([Model(MODEL, **declared)], **told))

        yield router


def tokens(*texts: str) -> int:
    return sum(count_tokens("openai", item) for item in texts)


def billed(emulator: Emulator) -> int:
    return emulator.billed_in_batches["openai", SMALL]


def submitted(emulator: Emulator) -> list[str]:
    """Return the texts of all batches, once for each time they were submitted."""
    return [item for line in emulator.batches.input_lines for item in line["body"]["input"]]


def account(router: Router) -> Account:
    return router.ledger.totals("model").get(MODEL, Account())


def set_aside(router: Router) -> Decimal:
    """Return what the budget counts, spent or not."""
    return router.ledger.left(Budget(total=MILLION))["total"].counted


def booked(router: Router) -> bool:
    """Say whether anything at all is on file."""
    return bool(router.ledger.requests())


def on(method: str, end: str, *faults: Fault | None) -> Callable[[Received], Fault | None]:
    """Let something happen to the requests to one place: the faults in turn, the last one for good."""
    left = list(faults)

    def rule(received: Received) -> Fault | None:
        if received.method != method or not received.path.endswith(end):
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    return rule


def asked(emulator: Emulator) -> list[tuple[str, str]]:
    return [(received.method, received.endpoint) for received in emulator.batches.received]


def reasons(job: BatchJob) -> dict[int, str]:
    return {failure.index: failure.reason for failure in job.poll().failures}


def containing(*wanted: str) -> Callable[[Any], bool]:
    return lambda line: line.texts[0] in wanted


# The way of a text


def test_what_a_batch_answered_is_in_the_cache(emulator: Emulator, build: Build, tmp_path: Path) -> None:
    """The whole purpose: half the money, and the same vectors to the last bit."""
    router = build(document_tier="high")
    with embedrouter.tag("corpus"):
        job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    status = job.wait()
    result = router.embed(TEXTS, input_type="document")
    direct = build(cache=tmp_path / "other").embed(TEXTS, input_type="document")

    assert (status.ended, status.texts, status.answered, status.failures) == (True, 10, 10, ())
    assert all(result.cached)
    assert result.vectors.tobytes() == direct.vectors.tobytes()
    assert {line["body"]["encoding_format"] for line in emulator.batches.input_lines} == {"base64"}
    assert emulator.calls == 1, "the other router's"
    assert billed(emulator) == tokens(*TEXTS)


def test_the_bill_is_half_to_the_last_digit(emulator: Emulator, build: Build) -> None:
    """What the ledger, the router and the estimate say is what the provider will ask for."""
    router = build(model={"tier": "medium"}, query_tier="medium", document_tier="medium")
    expected = router.estimate(TEXTS, input_type="document", batch=True)
    with embedrouter.tag("corpus"):
        job = router.submit_batch(TEXTS)
    before = account(router)
    emulator.batches.finish()
    job.poll()
    job.poll()
    (request,) = router.ledger.requests()
    row = request.state, request.input_type, request.tier, request.tag, request.texts, request.tokens

    cost = billed(emulator) * HALF / MILLION
    assert cost == expected.cost == Decimal(tokens(*TEXTS)) / 100 / MILLION
    assert (before.requests, before.cost) == (0, 0)
    assert row == ("settled", "document", "medium", "corpus", 10, billed(emulator))
    assert router.ledger.totals("tag")["corpus"] == Account(1, 10, billed(emulator), cost)
    assert (router.usage.tokens, router.usage.requests, router.usage.cost) == (billed(emulator), 1, cost)
    assert set_aside(router) == cost


def test_the_provider_s_count_is_booked(emulator: Emulator, build: Build) -> None:
    """Its bill counts, not our estimate; where it says nothing, the estimate stands."""
    router = build()
    emulator.batches.spoil_lines(containing(TEXTS[0]), Fault.reported_tokens(150))
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    job.poll()
    emulator.batches.spoil_lines(lambda line: True, Fault.no_usage())
    other = router.submit_batch(["one more"])
    emulator.batches.finish()
    other.poll()

    assert account(router).tokens == 150 + tokens(*TEXTS[1:], "one more")


def test_the_price_of_a_declared_model_is_halved(emulator: Emulator, build: Build) -> None:
    """A user's own prices are halved in batches, too."""
    router = build(model={"price": "0.04"})
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    job.poll()

    assert account(router).cost == billed(emulator) * Decimal("0.02") / MILLION


def test_free_tokens_are_used_up_first(emulator: Emulator, build: Build) -> None:
    """A job within the allowance fits any budget, and costs what lies over it."""
    free = tokens(*TEXTS) - 1
    router = build(model={"free_tokens": free}, budget=Budget(per_call=HALF / MILLION))
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    job.poll()

    assert account(router).cost == HALF / MILLION
    assert router.ledger.free_tokens(MODEL, free) == 0


def test_what_was_embedded_as_query_serves_queries(emulator: Emulator, build: Build) -> None:
    """The input type is the caller's; OpenAI's models know no difference, so one vector serves both."""
    router = build()
    job = router.submit_batch(TEXTS, input_type="query")
    emulator.batches.finish()
    job.poll()

    assert all(router.embed(TEXTS, input_type="query").cached)
    assert all(router.embed(TEXTS, input_type="document").cached)
    with pytest.raises(ConfigError, match="input_type"):
        router.submit_batch(TEXTS, input_type="passage")  # type: ignore[arg-type]


def test_batches_are_told(emulator: Emulator, build: Build) -> None:
    """When they are submitted and collected, with what they cost."""
    emulator.batches.automatic = True
    seen: list[Event] = []
    router = build(on_event=seen.append)
    with embedrouter.tag("harbour"):
        batch = router.submit_batch(TEXTS, input_type="query")
    batch.wait(every=0.01)
    router.close()
    sent, collected = seen

    assert isinstance(sent, BatchSubmitted)
    assert isinstance(collected, BatchCollected)
    assert (sent.tag, sent.input_type) == (collected.tag, collected.input_type) == ("harbour", "query")
    assert (sent.texts, collected.texts, collected.failed) == (len(TEXTS), len(TEXTS), 0)
    assert collected.tokens == billed(emulator)
    assert collected.cost == router.usage.cost


def test_prompts_travel_in_batches(emulator: Emulator, build: Build) -> None:
    """Otherwise the cache would hold vectors of another space under this one's keys."""
    router = build(model={"prompts": {"query": "q: ", "document": "d: "}})
    documents, queries = router.submit_batch(["a"]), router.submit_batch(["a"], input_type="query")
    emulator.batches.finish()
    documents.poll()

    assert submitted(emulator) == ["d: a", "q: a"]
    assert router.embed(["a"], input_type="document").cached == (True,)
    assert router.embed(["a"], input_type="query").cached == (False,)
    assert queries.poll().ended


def test_it_works_beside_an_event_loop(emulator: Emulator, build: Build) -> None:
    """A blocking method runs in a thread of the program's own, too."""
    router = build()

    async def run() -> bool:
        job = await asyncio.to_thread(router.submit_batch, TEXTS)
        emulator.batches.finish()
        await asyncio.to_thread(job.wait)
        return all((await router.aembed(TEXTS, input_type="document")).cached)

    assert asyncio.run(run())


# In an event loop


@contextmanager
def turning() -> Iterator[None]:
    """Check that the running event loop goes on turning while something is awaited."""
    gaps: list[float] = []

    async def beat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - before)

    task = asyncio.create_task(beat())
    yield
    task.cancel()
    assert len(gaps) > 3


async def test_the_asynchronous_forms_do_what_the_others_do(emulator: Emulator, build: Build) -> None:
    """From the estimate to the cache, with the tag and the tier around the call, while the loop turns."""
    router = build()
    emulator.latency = 0.1
    estimate = await router.aestimate(TEXTS, input_type="document", batch=True)
    with turning(), embedrouter.tag("corpus"):
        job = await router.asubmit_batch([*TEXTS, TEXTS[0]])
    before = await job.apoll()
    emulator.batches.finish()
    with turning():
        status = await job.apoll()
    result = await router.aembed(TEXTS, input_type="document")
    await router.aclose()

    assert (before.ended, before.texts, before.answered) == (False, 10, 0)
    assert (status.ended, status.answered, status.failures) == (True, 10, ())
    assert all(result.cached)
    assert sorted(submitted(emulator)) == sorted(TEXTS)
    assert router.ledger.totals("tag")["corpus"].cost == estimate.cost == billed(emulator) * HALF / MILLION
    assert (estimate.texts, estimate.unique, estimate.tokens) == (10, 10, tokens(*TEXTS))


async def test_what_is_wrong_is_an_error_of_the_asynchronous_form_too(emulator: Emulator, build: Build) -> None:
    """With positions, and before anything is sent."""
    router = build(budget=Budget(total=HALF / MILLION))
    with pytest.raises(InvalidInputError) as caught:
        await router.asubmit_batch(["good", ""])
    with pytest.raises(ConfigError, match="input_type"):
        await router.asubmit_batch(TEXTS, input_type="passage")  # type: ignore[arg-type]
    with pytest.raises(BudgetExceededError):
        await router.asubmit_batch(TEXTS)

    assert caught.value.indices == (1,)
    assert not emulator.batches.received


async def test_a_poll_that_fails_in_an_event_loop_loses_nothing(emulator: Emulator, build: Build) -> None:
    """The next one goes on."""
    router = build(retry=ONE_TRY)
    job = await router.asubmit_batch(TEXTS)
    emulator.batches.finish()
    emulator.fault_for = on("GET", "", Fault.unavailable())
    with pytest.raises(UnavailableError):
        await job.apoll()
    emulator.fault_for = None

    assert (await job.apoll()).answered == 10


# What is not submitted


def test_cached_texts_and_duplicates_are_not_submitted(emulator: Emulator, build: Build) -> None:
    """Nothing is paid twice, at any price."""
    router = build()
    router.embed(TEXTS[:4], input_type="document")
    job = router.submit_batch([*TEXTS, *TEXTS, TEXTS[9]])

    assert sorted(submitted(emulator)) == TEXTS[4:]
    assert job.poll().texts == 6


def test_nothing_to_do_is_a_job_that_has_ended(emulator: Emulator, build: Build) -> None:
    """A nightly job on an unchanged corpus is no error, and sends no request."""
    router = build()
    router.embed(TEXTS, input_type="document")
    for texts in (TEXTS, []):
        job = router.submit_batch(texts)
        assert (job.ids, job.records, job.poll().ended, job.wait().texts) == ((), [], True, 0)
        job.cancel()

    assert repr(job) == "BatchJob(nothing to do)"
    assert not emulator.batches.received
    assert router.batches() == []


def test_texts_under_way_are_not_submitted_again(emulator: Emulator, build: Build) -> None:
    """A second call waits for the first one's batch, in this router or another."""
    first = build().submit_batch(TEXTS[:6])
    second = build().submit_batch(TEXTS)
    third = build().submit_batch(TEXTS[:3])
    emulator.batches.finish()

    assert sorted(submitted(emulator)) == TEXTS
    assert (len(first.ids), second.ids[0], third.ids) == (1, first.ids[0], first.ids)
    assert len(second.ids) == 2
    assert second.wait().answered == 10
    assert all(build().embed(TEXTS, input_type="document").cached)
    assert first.poll().answered == third.poll().answered == 6


@pytest.mark.slow
def test_processes_at_the_same_moment_submit_each_text_once(
    emulator: Emulator, build: Build, tmp_path: Path, accounts: Place
) -> None:
    """Two machines' nightly jobs may start with the same minute."""
    settings = process(emulator, tmp_path, accounts, texts=30)
    with ExitStack() as stack:
        crew = [stack.enter_context(Process("submit", first=first, **settings)) for first in (0, 0, 15)]
        for child in crew:
            child.ready()
        for child in crew:
            child.begin()
        for child in crew:
            child.outcome()
    emulator.batches.finish()
    router = build()
    states = [job.poll() for job in router.batches()]

    assert Counter(submitted(emulator)) == {text(number, 5): 1 for number in range(45)}
    assert sum(status.answered for status in states) == 45
    assert account(router).cost == billed(emulator) * HALF / MILLION == set_aside(router)


def test_no_other_call_comes_between_the_look_and_the_claim(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a text is under way is asked and answered in one step, or both would submit it."""
    jobs: list[BatchJob] = []
    second = build()
    kind = type(Batches(wiring_of(second)).records)
    under_way = kind.under_way
    thread = threading.Thread(target=lambda: jobs.append(second.submit_batch(TEXTS)))

    def slow(*told: Any) -> tuple[dict[bytes, str], int]:
        found = under_way(*told)
        monkeypatch.setattr(kind, "under_way", under_way)
        thread.start()
        thread.join(0.3)
        return found

    monkeypatch.setattr(kind, "under_way", slow)
    first = build().submit_batch(TEXTS)
    thread.join()

    assert jobs[0].ids == first.ids


def process(emulator: Emulator, folder: Path, accounts: Place, **settings: Any) -> dict[str, Any]:
    """Return what a task in another process is told."""
    common = {"url": emulator.openai_url, "folder": str(folder / "shared"), "price": "0.02", "cap": "1", "timeout": 30}
    return {**common, "ledger": accounts.named, "words": 5, **settings}


# Restarts


@pytest.mark.slow
def test_a_new_process_finds_the_job_and_collects_it(
    emulator: Emulator, build: Build, tmp_path: Path, accounts: Place
) -> None:
    """A batch takes a day; laptops are closed meanwhile."""
    Process.run("submit", first=0, **process(emulator, tmp_path, accounts, texts=12))
    router = build()
    (job,) = router.batches()
    (record,) = job.records
    waiting = job.poll()
    emulator.batches.finish()
    status = job.poll()

    assert (waiting.ended, waiting.texts, waiting.answered) == (False, 12, 0)
    assert (record.provider_id, record.texts, record.model) == (emulator.batches.ids[0], 12, MODEL)
    assert status.answered == 12
    assert all(router.embed([text(n, 5) for n in range(12)], input_type="document").cached)
    assert router.batches() == []
    assert [job.ids for job in router.batches(ended=True)] == [job.ids]


@pytest.mark.slow
def test_a_process_killed_before_it_heard_of_its_batch(
    emulator: Emulator, build: Build, tmp_path: Path, accounts: Place
) -> None:
    """Between the submission and its answer lies the only moment in which money could be spent unseen."""
    emulator.fault_for = on("POST", "/batches", Fault.lost().after(60), None)
    with Process("submit", first=0, **process(emulator, tmp_path, accounts, texts=5)) as child:
        child.ready()
        child.begin()
        deadline = time.monotonic() + 30
        while not emulator.batches.ids and time.monotonic() < deadline:
            time.sleep(0.01)
        child.kill()
    router = build()
    (job,) = router.batches()
    unnamed = job.records[0].provider_id
    again = router.submit_batch([text(n, 5) for n in range(5)])
    emulator.batches.finish()
    status = job.poll()

    assert unnamed is None
    assert again.ids == job.ids
    assert job.records[0].provider_id == emulator.batches.ids[0]
    assert len(emulator.batches.ids) == 1
    assert (status.ended, status.answered) == (True, 5)
    assert account(router).cost == billed(emulator) * HALF / MILLION


@pytest.mark.slow
def test_a_process_killed_while_it_collects(emulator: Emulator, build: Build, tmp_path: Path, accounts: Place) -> None:
    """What it had read is kept, the rest is read again, and all is booked once."""
    texts = [f"text {number}" for number in range(1100)]
    job = build().submit_batch(texts)
    emulator.batches.finish()
    with Process("die_collecting", **process(emulator, tmp_path, accounts)) as child:
        child.ready()
        child.begin()
        child.killed()
    router = build()
    kept = router.estimate(texts, input_type="document").cached
    found = account(router)
    job.poll()

    assert kept == 1000, "two pages of 500"
    assert found.requests == 0
    assert account(router) == Account(1, len(texts), billed(emulator), billed(emulator) * HALF / MILLION)
    assert router.estimate(texts, input_type="document").cached == len(texts)


@pytest.mark.slow
def test_two_processes_that_collect_at_once_book_once(
    emulator: Emulator, build: Build, tmp_path: Path, accounts: Place
) -> None:
    """Every team member may wait for the same batch."""
    router = build()
    jobs = [router.submit_batch(TEXTS[:5]), router.submit_batch(TEXTS[5:])]
    emulator.batches.finish()
    with ExitStack() as stack:
        crew = [stack.enter_context(Process("collect", **process(emulator, tmp_path, accounts))) for _ in range(2)]
        for child in crew:
            child.ready()
        for child in crew:
            child.begin()
        stories = [child.outcome() for child in crew]

    assert all(story["ended"] for story in stories)
    assert sum(story["tokens"] for story in stories) == billed(emulator)
    assert account(router) == Account(2, 10, billed(emulator), billed(emulator) * HALF / MILLION)
    assert [job.poll().answered for job in jobs] == [5, 5]


def test_threads_that_collect_at_once_book_once(emulator: Emulator, build: Build) -> None:
    """And the router counts it once."""
    router = build()
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    crew = [threading.Thread(target=job.poll) for _ in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()

    assert (router.usage.requests, router.usage.tokens) == (1, billed(emulator))
    assert account(router).requests == 1


def test_a_batch_that_another_router_has_just_collected(
    emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at a batch and its collection another process may be done with it."""
    mine, other = build(), build()
    job = mine.submit_batch(TEXTS)
    emulator.batches.finish()
    retrieve = OpenAIBatches.retrieve

    def slow(*told: Any, **named: Any) -> Any:
        progress = retrieve(*told, **named)
        monkeypatch.setattr(OpenAIBatches, "retrieve", retrieve)
        other.batches()[0].poll()
        return progress

    monkeypatch.setattr(OpenAIBatches, "retrieve", slow)
    status = job.poll()

    assert (status.ended, status.answered) == (True, 10)
    assert (mine.usage.requests, other.usage.requests) == (0, 1)


# Partial failures


@pytest.mark.parametrize(
    ("status", "reason"), [(400, "400"), (429, "429 rate_limit_exceeded"), (500, "500"), (401, "401 invalid_api_key")]
)
def test_refused_texts_are_listed(emulator: Emulator, build: Build, status: int, reason: str) -> None:
    """The others are kept, only they are paid, and the next submission is of the refused ones."""
    router = build()
    router.embed([TEXTS[0]], input_type="document")
    emulator.batches.fail_lines(containing(TEXTS[3], TEXTS[7]), status, once=True)
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    failed = reasons(job)
    first = account(router)
    again = router.submit_batch(TEXTS)
    emulator.batches.finish()

    good = [item for item in TEXTS[1:] if item not in (TEXTS[3], TEXTS[7])]
    assert failed == {3: reason, 7: reason}
    assert first.tokens == tokens(TEXTS[0], *good)
    assert sorted(submitted(emulator)[9:]) == [TEXTS[3], TEXTS[7]]
    assert (again.poll().answered, again.poll().failures) == (2, ())
    assert reasons(job) == failed, "what is on file of a batch stays"
    assert billed(emulator) == tokens(*TEXTS[1:])
    assert account(router).cost == (tokens(TEXTS[0]) * 2 * HALF + billed(emulator) * HALF) / MILLION


def test_failures_are_where_a_text_first_stands(emulator: Emulator, build: Build) -> None:
    """Of duplicates the first: one failure for one text."""
    emulator.batches.fail_lines(containing("b", "c"))
    job = build().submit_batch(["a", "b", "a", "b", "c"])
    emulator.batches.finish()

    assert reasons(job) == {1: "500", 4: "500"}


def test_a_batch_in_which_all_fails_costs_nothing(emulator: Emulator, build: Build) -> None:
    """It has no output file, and what was set aside is free again."""
    router = build()
    emulator.batches.fail_lines(lambda line: True, 429)
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    status = job.poll()

    assert (status.ended, status.answered, len(status.failures)) == (True, 0, 10)
    assert (set_aside(router), router.usage.cost) == (0, 0)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.nan(), "not finite"),
        (Fault.zeros(), "all zeros"),
        (Fault.wrong_dimensions(7), "of 7 dimensions came, not of 8: declare"),
        (Fault.wrong_count(-1), r"shape \(0, 0\)"),
        (Fault.wrong_count(1), r"shape \(2, 8\)"),
    ],
)
def test_spoilt_vectors_are_paid_and_not_kept(emulator: Emulator, build: Build, fault: Fault, reason: str) -> None:
    """A wrong vector in the cache would be wrong for good."""
    router = build()
    emulator.batches.spoil_lines(containing(TEXTS[2]), fault)
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    status = job.poll()
    cached = router.estimate(TEXTS, input_type="document").cached
    emulator.batches.spoil_lines((), None)
    router.submit_batch(TEXTS)

    assert (status.answered, [failure.index for failure in status.failures]) == (9, [2])
    assert re.search(reason, status.failures[0].reason)
    assert cached == 9
    assert account(router).tokens == billed(emulator) == tokens(*TEXTS)
    assert submitted(emulator)[10:] == [TEXTS[2]]


@pytest.mark.parametrize("fault", [Fault.floats(), Fault.shuffled()])
def test_harmless_oddities_are_understood(emulator: Emulator, build: Build, fault: Fault) -> None:
    """Lists of numbers are vectors too."""
    router = build()
    emulator.batches.spoil_lines(lambda line: True, fault)
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()

    assert job.poll().answered == 10


def test_an_answer_that_cannot_be_read_does_not_hold_up_the_others(emulator: Emulator, build: Build) -> None:
    """It was billed, so the provider counts it; waiting for it would never end."""
    router = build()
    job = router.submit_batch(TEXTS[:2])
    emulator.batches.finish()
    lines = output(emulator, job)
    lines[0]["response"]["body"]["data"][0]["embedding"] = "no base64!"
    emulator.fault_for = on("GET", "/content", as_file(*lines))
    status = job.poll()

    assert (status.ended, status.answered, len(status.failures)) == (True, 1, 1)
    assert account(router).tokens == tokens(*TEXTS[:2])


def output(emulator: Emulator, job: BatchJob) -> list[dict[str, Any]]:
    """Return the lines of a batch's answers as the provider writes them."""
    with openai.OpenAI(api_key="k", base_url=emulator.openai_url) as client:
        found = client.batches.retrieve(job.records[0].provider_id or "")
        files = [file for file in (found.output_file_id, found.error_file_id) if file]
        return [json.loads(line) for file in files for line in client.files.content(file).iter_lines()]


def as_file(*lines: object) -> Fault:
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return Fault.status(200, body=content, headers={"content-type": "application/octet-stream"})


def test_lines_end_at_line_feeds_alone(emulator: Emulator, build: Build) -> None:
    """JSON may hold other characters that end a line, which a provider's error may quote."""
    router = build()
    emulator.batches.fail_lines(lambda line: True)
    job = router.submit_batch(["one\u2028two"])
    emulator.batches.finish()
    lines = output(emulator, job)
    lines[0]["response"]["body"]["error"]["message"] = "refused: one\u2028two\x85three"
    emulator.fault_for = on("GET", "/content", as_file(*lines))

    assert reasons(job) == {0: "500"}


def test_foreign_answers_are_ignored(emulator: Emulator, build: Build) -> None:
    """Only what was asked for is kept and booked."""
    router = build()
    job = router.submit_batch(TEXTS[:2])
    emulator.batches.finish()
    lines = output(emulator, job)
    emulator.fault_for = on("GET", "/content", as_file(*lines, {**lines[0], "custom_id": "00" * 20}))

    assert job.poll().answered == 2
    assert account(router).tokens == tokens(*TEXTS[:2])


def test_an_expired_batch_keeps_what_was_answered(emulator: Emulator, build: Build) -> None:
    """Rule 4: a run stopped at 60 % pays for the other 40 % only."""
    router = build()
    job = router.submit_batch(TEXTS)
    emulator.batches.expire(share=0.6)
    failed = reasons(job)
    router.submit_batch(TEXTS)

    assert failed == dict.fromkeys(range(6, 10), "batch_expired")
    assert account(router).tokens == billed(emulator) == tokens(*TEXTS[:6])
    assert set_aside(router) == (tokens(*TEXTS[:6]) + tokens(*TEXTS[6:])) * HALF / MILLION
    assert submitted(emulator)[10:] == TEXTS[6:]


def test_a_cancelled_batch_keeps_what_was_answered(emulator: Emulator, build: Build) -> None:
    """And pays for that alone."""
    router = build()
    job = router.submit_batch(TEXTS)
    emulator.batches.progress(share=0.5)
    before = job.poll()
    job.cancel()
    during = job.poll()
    emulator.batches.finish()

    assert (before.answered, before.ended, during.ended) == (5, False, False)
    assert reasons(job) == dict.fromkeys(range(5, 10), "batch_cancelled")
    assert router.embed(TEXTS[:5], input_type="document").cached == (True,) * 5
    assert set_aside(router) == tokens(*TEXTS[:5]) * HALF / MILLION


def test_a_batch_cancelled_before_it_began_costs_nothing(emulator: Emulator, build: Build) -> None:
    """It has no files at all."""
    router = build()
    job = router.submit_batch(TEXTS)
    job.cancel()
    emulator.batches.finish()

    assert reasons(job) == dict.fromkeys(range(10), "not answered")
    assert set_aside(router) == 0


def test_a_missing_package_is_named_when_a_batch_is_cancelled(
    emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process that was installed without it."""
    router = build()
    job = router.submit_batch(TEXTS)
    router.close()
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'embedrouter\[openai\]'"):
        job.cancel()


def test_cancelling_what_is_over_harms_nothing(
    emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several batches one may be done already; the others are to stop all the same."""
    monkeypatch.setattr(OpenAIBatches, "max_texts", 5)
    router = build()
    job = router.submit_batch(TEXTS)
    emulator.batches.finish(emulator.batches.ids[0])
    job.cancel()
    emulator.batches.finish()
    status = job.poll()
    job.cancel()

    assert (status.ended, status.answered, {failure.index for failure in status.failures}) == (
        True,
        5,
        set(range(5, 10)),
    )
    assert [received.path.rsplit("/", 1)[1] for received in emulator.batches.received].count("cancel") == 2


def test_a_batch_that_the_provider_refuses_costs_nothing(emulator: Emulator, build: Build) -> None:
    """Validation happens later than submission; every text is listed, and its money is free again."""
    router = build()
    emulator.batches.limits = Limits(requests=3)
    job = router.submit_batch(TEXTS)
    aside = set_aside(router)
    emulator.batches.finish()
    failed = reasons(job)

    assert aside == tokens(*TEXTS) * HALF / MILLION
    assert failed == dict.fromkeys(range(10), "the batch was refused (too_many_tasks)")
    assert (set_aside(router), account(router), router.usage.requests) == (0, Account(), 0)
    assert len(router.batches(ended=True)) == 1
    assert router.batches() == []


# When the provider cannot be reached


@pytest.mark.parametrize("place", ["/files", "/batches"])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.status(401), AuthenticationError),
        (Fault.status(400), InputRejectedError),
        (Fault.status(500), UnavailableError),
        (Fault.rate_limited(), RateLimitedError),
        (Fault.insufficient_quota(), RateLimitedError),
    ],
)
def test_a_submission_that_is_refused_leaves_nothing(
    emulator: Emulator, build: Build, place: str, fault: Fault, error: type[Exception]
) -> None:
    """Nothing is on file and nothing is set aside: the texts can be submitted again at once."""
    router = build()
    emulator.fault_for = on("POST", place, fault)
    with pytest.raises(error):
        router.submit_batch(TEXTS)
    left = (router.batches(), set_aside(router), booked(router), emulator.batches.ids)
    emulator.fault_for = None
    router.submit_batch(TEXTS)

    assert left == ([], 0, False, ())
    assert len(submitted(emulator)) == 10


@pytest.mark.parametrize("fault", [Fault.lost(), Fault.reset(), Fault.html(), Fault.half_body()])
def test_an_upload_whose_answer_is_lost_leaves_nothing(emulator: Emulator, build: Build, fault: Fault) -> None:
    """A file that no batch names costs nothing."""
    router = build(retry=ONE_TRY)
    emulator.fault_for = on("POST", "/files", fault)
    with pytest.raises(BackendError):
        router.submit_batch(TEXTS)

    assert (router.batches(), set_aside(router)) == ([], 0)


@pytest.mark.parametrize("fault", [Fault.status(500), Fault.rate_limited(0.01)])
def test_passing_failures_are_tried_again(emulator: Emulator, build: Build, fault: Fault) -> None:
    """At each of the steps, as the retry policy says."""
    router = build()
    emulator.script(fault, None, fault, fault, None)
    job = router.submit_batch(TEXTS)
    emulator.script(fault, None, fault, fault)
    waiting = job.poll()
    emulator.batches.finish()
    emulator.fault_for = on("GET", "/content", fault, None)
    status = job.poll()

    assert not emulator.unplayed
    assert not waiting.ended
    assert status.answered == 10
    assert len(emulator.batches.ids) == 1
    assert account(router).requests == 1


@pytest.mark.parametrize("fault", [Fault.lost(), Fault.half_body()])
def test_a_batch_whose_answer_is_lost_is_found(emulator: Emulator, build: Build, fault: Fault) -> None:
    """Submitting again would pay twice, giving up would lose it: so it is looked for by its mark."""
    router = build()
    emulator.fault_for = on("POST", "/batches", fault)
    for number in range(3):  # older ones, to look among
        router.submit_batch([f"another {number}"])
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()

    assert len(emulator.batches.ids) == 4
    assert job.records[0].provider_id == emulator.batches.ids[3]
    assert job.poll().answered == 10


def test_a_batch_that_a_gateway_made_a_secret_of_is_found(
    emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway's 502 does not say that the provider did nothing: before a second try it is looked."""
    router = build()
    submit = OpenAIBatches.submit

    def behind_a_gateway(*told: Any, **named: Any) -> str:
        submit(*told, **named)
        raise UnavailableError("HTTP 502: Bad Gateway", status=502)

    monkeypatch.setattr(OpenAIBatches, "submit", behind_a_gateway)
    job = router.submit_batch(TEXTS)

    assert len(emulator.batches.ids) == 1
    assert job.records[0].provider_id == emulator.batches.ids[0]


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.html()])
def test_a_batch_that_may_have_been_submitted_stays_on_file(emulator: Emulator, build: Build, fault: Fault) -> None:
    """It may turn up yet, so its money stays aside; after an hour it will not, and the texts are free again."""
    router = build()
    emulator.fault_for = on("POST", "/batches", fault)
    with pytest.raises(BackendError):
        router.submit_batch(TEXTS)
    emulator.fault_for = None
    (job,) = router.batches()
    status = job.poll()
    aside = set_aside(router)
    again = router.submit_batch(TEXTS)
    grow_older(router, hours=1)
    ended = job.poll()
    router.submit_batch(TEXTS)

    assert [received.path for received in emulator.batches.received].count("/v1/batches") >= 2
    assert (status.ended, status.texts, status.answered) == (False, 10, 0)
    assert aside == tokens(*TEXTS) * HALF / MILLION
    assert again.ids == job.ids
    assert ended.ended
    assert {failure.reason for failure in ended.failures} == {"the batch never reached the provider"}
    assert set_aside(router) == aside, "of the second submission alone"
    assert len(submitted(emulator)) == 10


def grow_older(router: Router, *, hours: int) -> None:
    """Let the records of batches be as if they had been written so many hours ago."""
    if router.ledger.file is None:
        books = router.ledger.books
        assert isinstance(books, RedisBooks)
        for reference, content in books.server.client.hgetall(books.key("batches")).items():
            record = json.loads(content)
            older = {**record, "at": repr(float(record["at"]) - hours * 3600 - 1)}
            books.server.client.hset(books.key("batches"), reference, json.dumps(older))
        return
    with router.ledger.transaction() as database:
        database.execute("UPDATE batches SET at = at - ?", (hours * 3600 + 1,))


def test_a_batch_that_turns_up_late_is_collected(emulator: Emulator, build: Build) -> None:
    """Also where the look for it failed at first."""
    router = build()

    def rule(received: Received) -> Fault | None:
        if (received.method, received.path) == ("POST", "/v1/batches"):
            return Fault.lost()
        return Fault.status(500) if (received.method, received.path) == ("GET", "/v1/batches") else None

    emulator.fault_for = rule
    with pytest.raises(UnavailableError):
        router.submit_batch(TEXTS)
    (job,) = router.batches()
    with pytest.raises(UnavailableError):
        job.poll()
    emulator.fault_for = None
    router.submit_batch(["a later one"])
    emulator.batches.finish()

    assert job.poll().answered == 10
    assert job.records[0].provider_id == emulator.batches.ids[0]
    assert len(emulator.batches.ids) == 2


def test_a_lost_batch_can_be_cancelled(emulator: Emulator, build: Build) -> None:
    """By its mark; and one that is nowhere needs nothing."""
    router = build(retry=ONE_TRY)
    emulator.fault_for = on("POST", "/batches", Fault.reset())
    with pytest.raises(UnavailableError):
        router.submit_batch(TEXTS)
    (job,) = router.batches()
    job.cancel()

    assert not emulator.batches.ids


def test_a_submission_under_way_elsewhere_that_fails(emulator: Emulator, build: Build) -> None:
    """The call that relied on it gets an error, and its texts can be submitted."""
    jobs: list[BatchJob] = []

    def rule(received: Received) -> Fault | None:
        if received.path != "/v1/files":
            return None
        jobs.append(build().submit_batch(TEXTS))
        return Fault.status(400)

    emulator.fault_for = rule
    with pytest.raises(InputRejectedError):
        build().submit_batch(TEXTS)

    with pytest.raises(UnavailableError, match="never submitted"):
        jobs[0].poll()


@pytest.mark.parametrize(
    "fault", [Fault.html(), Fault.status(200, body="{", headers={"content-type": "application/json"})]
)
def test_web_pages_are_no_answers(emulator: Emulator, build: Build, fault: Fault) -> None:
    """A captive portal is an outage, told as one; the next look goes on."""
    router = build(retry=ONE_TRY)
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    for place in ("", "/content"):
        emulator.fault_for = on("GET", place, fault)
        with pytest.raises(BadResponseError):
            job.poll()
    emulator.fault_for = None

    assert job.poll().answered == 10


def test_a_download_that_breaks_off_is_made_again(emulator: Emulator, build: Build) -> None:
    """Pages that were read are in the cache, nothing is booked before all is read, and then once."""
    router = build(retry=ONE_TRY)
    texts = [f"text {number}" for number in range(1_200)]
    job = router.submit_batch(texts)
    emulator.batches.finish()
    emulator.fault_for = on("GET", "/content", Fault.half_body())
    with pytest.raises(UnavailableError):
        job.poll()
    kept = router.estimate(texts, input_type="document").cached
    emulator.fault_for = None

    assert 0 < kept < len(texts)
    assert (account(router).requests, len(router.batches())) == (0, 1)
    assert job.poll().answered == len(texts)
    assert account(router).tokens == billed(emulator)


def test_fewer_answers_than_the_provider_counts(emulator: Emulator, build: Build) -> None:
    """A file that is not whole would lose what was paid: so the batch is not closed over it."""
    router = build(retry=ONE_TRY)
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    emulator.fault_for = on("GET", "/content", as_file(*output(emulator, job)[:4]))
    with pytest.raises(UnavailableError, match="4 answers of the batch could be read, the provider counts 10"):
        job.poll()
    kept = router.estimate(TEXTS, input_type="document").cached
    aside = set_aside(router)
    emulator.fault_for = None

    assert (kept, aside) == (4, tokens(*TEXTS) * HALF / MILLION)
    assert job.poll().answered == 10


def test_a_line_cut_in_two_is_read_again(emulator: Emulator, build: Build) -> None:
    """Half a line is no answer and no refusal."""
    router = build(retry=ONE_TRY)
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    whole = as_file(*output(emulator, job))
    emulator.fault_for = on("GET", "/content", replace(whole, body=(whole.body or b"")[:-40]))
    with pytest.raises(BadResponseError, match="cannot be understood"):
        job.poll()
    emulator.fault_for = None

    assert job.poll().answered == 10


# Money


def test_the_money_is_set_aside_before_anything_is_sent(emulator: Emulator, build: Build) -> None:
    """At half price; a budget that suffices for that is enough."""
    price = tokens(*TEXTS) * HALF / MILLION
    seen: list[Decimal] = []
    router = build(budget=Budget(per_call=price, total=price))
    emulator.fault_for = lambda received: seen.append(set_aside(router))
    router.submit_batch(TEXTS)

    assert seen == [price, price]


@pytest.mark.parametrize("cap", ["per_call", "per_day", "per_month", "total"])
def test_a_batch_over_the_budget_is_not_submitted(emulator: Emulator, build: Build, cap: str) -> None:
    """Refuse before spending: the provider hears nothing, and nothing stays on file."""
    price = tokens(*TEXTS) * HALF / MILLION
    capped: dict[str, Any] = {cap: price - Decimal("0.000000001")}
    router = build(budget=Budget(**capped))
    with pytest.raises(BudgetExceededError, match=rf"No batch was submitted.*{cap}"):
        router.submit_batch(TEXTS)

    assert not emulator.batches.received
    assert (router.batches(), set_aside(router), booked(router)) == ([], 0, False)


def test_money_of_a_batch_under_way_is_not_spent_again(emulator: Emulator, build: Build) -> None:
    """A day is long, and others share the budget; what was not needed is free again afterwards."""
    price = tokens(*TEXTS) * HALF / MILLION
    budget = Budget(total=price * 3 / 2)
    job = build(budget=budget).submit_batch(TEXTS)
    other = build(budget=budget)
    more = [f"{item} again" for item in TEXTS[:4]]
    with pytest.raises(BudgetExceededError, match=re.escape(f"{dollars(price)} are spent or set aside")):
        other.embed(more, input_type="document")
    with pytest.raises(BudgetExceededError, match="No batch was submitted"):
        other.submit_batch([f"{item} again" for item in TEXTS])
    emulator.batches.expire(share=0.1)
    job.poll()

    assert emulator.calls == 0
    assert other.embed(more, input_type="document").usage.cost == tokens(*more) * 2 * HALF / MILLION


def test_a_model_of_unknown_price_is_refused(emulator: Emulator, build: Build) -> None:
    """A discount on an unknown price could not be held to a budget."""
    unknown: dict[str, Any] = {"name": "openai:another", "space": "another"}
    router = Router(
        [Model(**unknown, dimensions=8, base_url=emulator.openai_url, api_key="k")],
        ledger=None,
        budget=Budget(total="1"),
    )
    with router, pytest.raises(ConfigError, match="No batch endpoint is known of openai:another"):
        router.submit_batch(TEXTS)

    assert not emulator.batches.received


# More texts than a batch may hold


def test_large_jobs_are_split(emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, into batches that are one job."""
    monkeypatch.setattr(OpenAIBatches, "max_texts", 4)
    router = build()
    emulator.batches.fail_lines(containing(TEXTS[5]))
    job = router.submit_batch(TEXTS)
    emulator.batches.finish(emulator.batches.ids[0])
    half = job.poll()
    emulator.batches.finish()
    status = job.poll()

    assert [record.texts for record in job.records] == [4, 4, 2]
    assert (half.ended, half.texts, half.answered) == (False, 10, 4)
    assert (status.ended, status.texts, status.answered, [item.index for item in status.failures]) == (True, 10, 9, [5])
    assert account(router) == Account(3, 10, billed(emulator), billed(emulator) * HALF / MILLION)


def test_large_texts_are_split_by_size(emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is larger than the limit, however long the texts become as JSON."""
    monkeypatch.setattr(OpenAIBatches, "max_bytes", 6000)
    emulator.batches.limits = Limits(bytes=6000)
    texts = [f'{place} "quoted"\n\t\x07 größer {"漢字" * 250}' for place in range(20)]
    router = build()
    job = router.submit_batch(texts)
    emulator.batches.finish()

    assert len(job.ids) > 2
    assert job.poll().answered == 20
    assert sorted(submitted(emulator)) == sorted(texts)


def test_the_money_for_all_parts_or_for_none(emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a corpus is of no use to anybody."""
    monkeypatch.setattr(OpenAIBatches, "max_texts", 4)
    for cap in ("per_call", "total"):
        capped: dict[str, Any] = {cap: tokens(*TEXTS[:9]) * HALF / MILLION}
        router = build(budget=Budget(**capped))
        with pytest.raises(BudgetExceededError, match=cap):
            router.submit_batch(TEXTS)

    assert not emulator.batches.received
    assert (router.batches(), set_aside(router), booked(router)) == ([], 0, False)


def test_a_part_that_cannot_be_submitted_ends_the_submission(
    emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went before is on file, what comes after is free to be submitted again."""
    monkeypatch.setattr(OpenAIBatches, "max_texts", 3)
    router = build()
    emulator.fault_for = on("POST", "/files", None, Fault.status(400))
    with pytest.raises(InputRejectedError):
        router.submit_batch(TEXTS)
    (job,) = router.batches()
    aside = set_aside(router)
    emulator.fault_for = None
    again = router.submit_batch(TEXTS)

    assert job.records[0].texts == 3
    assert aside == tokens(*TEXTS[:3]) * HALF / MILLION
    assert again.ids[0] == job.ids[0]
    assert sorted(submitted(emulator)) == TEXTS


def test_a_stopped_submission_leaves_nothing_half_done(
    emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C during an upload: nothing was asked for, so nothing is set aside."""
    router = build()

    def stop(*told: Any, **named: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(OpenAIBatches, "upload", stop)
    with pytest.raises(KeyboardInterrupt):
        router.submit_batch(TEXTS)

    assert (router.batches(), set_aside(router)) == ([], 0)


@pytest.mark.slow
def test_ten_thousand_texts_take_seconds(emulator: Emulator, build: Build) -> None:
    """A corpus is large, and the ledger is locked while its records are written."""
    texts = [f"text {place}" for place in range(10_000)]
    router = build()
    began = time.monotonic()
    job = router.submit_batch(texts)
    taken = time.monotonic() - began
    emulator.batches.finish()

    assert taken < 5
    assert job.poll().answered == 10_000


# Texts over the model's limit

LONG = " ".join(f"word{place}" for place in range(5000))


def test_texts_that_are_too_long_are_refused_before_anything_is_sent(emulator: Emulator, build: Build) -> None:
    """The default: the message names the policy."""
    with pytest.raises(InvalidInputError, match="on_too_long='truncate'") as caught:
        build().submit_batch(["short", LONG])

    assert caught.value.indices == (1,)
    assert not emulator.batches.received


@pytest.mark.parametrize("policy", ["truncate", "mean"])
def test_parts_travel_in_the_batch(emulator: Emulator, build: Build, tmp_path: Path, policy: Any) -> None:
    """The whole text is put together from them later, for nothing, and as a direct call would."""
    router = build(on_too_long=policy)
    job = router.submit_batch(["short", LONG])
    emulator.batches.finish()
    job.poll()
    result = router.embed(["short", LONG], input_type="document")
    called = emulator.calls
    again = router.submit_batch(["short", LONG])
    direct = build(on_too_long=policy, cache=tmp_path / "other").embed(["short", LONG], input_type="document")

    assert (called, len(submitted(emulator))) == (0, {"truncate": 2, "mean": 3}[policy])
    assert (result.usage.cost, result.usage.requests, result.shortened) == (0, 0, (False, True))
    assert np.array_equal(result.vectors, direct.vectors)
    assert again.ids == ()


def test_a_part_that_fails_is_listed_at_its_text(emulator: Emulator, build: Build) -> None:
    """Parts are nothing that the caller knows of."""
    router = build(on_too_long="mean")
    emulator.batches.fail_lines(lambda line: line.texts[0] != "short")
    job = router.submit_batch(["short", LONG])
    emulator.batches.finish()

    assert set(reasons(job)) == {1}


# What is refused


def refused(router: Router, message: str, **asked: Any) -> None:
    with router, pytest.raises(ConfigError, match=message):
        router.submit_batch(TEXTS, **asked)


def test_a_router_without_a_cache_or_a_ledger_has_no_batches(emulator: Emulator, build: Build, tmp_path: Path) -> None:
    """Its batches would be paid and lost."""
    refused(build(cache=None, ledger=tmp_path / "ledger.db"), "cache=")
    refused(build(ledger=":memory:"), "ledger=")
    refused(build(ledger=":memory:", budget=Budget(total="1")), "ledger=")
    (tmp_path / "no-folder").write_text("")
    refused(build(ledger=tmp_path / "no-folder" / "ledger.db"), "ledger=")

    assert not emulator.batches.received


def test_models_without_a_batch_endpoint(emulator: Emulator, tmp_path: Path) -> None:
    """What is of another provider, or what a provider's endpoint does not take, is embedded directly."""
    key: dict[str, Any] = {"api_key": "k", "dimensions": 1024}
    azure = Model("azure_openai:text-embedding-3-small", base_url=emulator.azure_url, api_version="2024-10-21", **key)
    others = [
        Model("voyage:voyage-law-2", base_url=emulator.voyage_url, **key),
        azure,
        FakeBackend().model(price="1"),
    ]
    for model in others:
        refused(Router([model], cache=tmp_path), "No batch endpoint is known of")
    own = Model(MODEL, base_url=emulator.openai_url, api_key="k", dimensions=1024, tier="low")
    both = Router([own, replace(azure, tier="high")], cache=tmp_path)
    refused(both, f"No batch endpoint is known of {azure.name}", tier="high")
    with both:
        job = both.submit_batch(TEXTS, tier="low")

    assert job.records[0].model == MODEL
    assert emulator.calls == 0


def test_texts_that_no_provider_accepts_are_refused_first(emulator: Emulator, build: Build) -> None:
    """One of them would fail the whole file a minute later."""
    with pytest.raises(InvalidInputError) as caught:
        build().submit_batch(["good", "", "\ud800"])

    assert caught.value.indices == (1, 2)
    assert not emulator.batches.received


def test_a_router_of_another_model_does_not_see_a_batch(emulator: Emulator, build: Build, accounts: Place) -> None:
    """Its vectors are of another space, or of another length."""
    job = build().submit_batch(TEXTS)
    wider = build(model={"dimensions": 16})
    larger = Router(
        [Model("openai:text-embedding-3-large", dimensions=8, base_url=emulator.openai_url, api_key="k")],
        cache=wider.cache.store,
        ledger=accounts.named,
    )
    same = build(model={"tier": "low", "api_key": "another"})

    assert (wider.batches(), larger.batches()) == ([], [])
    assert [found.ids for found in same.batches()] == [job.ids]
    assert wider.submit_batch(TEXTS).ids != job.ids
    for router in (wider, larger):
        with router, pytest.raises(ConfigError, match="is not a model of this router"):
            BatchJob(Batches(wiring_of(router)), job.ids).poll()
    assert len(submitted(emulator)) == 20


def test_a_missing_key_leaves_nothing(emulator: Emulator, build: Build) -> None:
    """Where nothing can be sent, nothing is set aside."""
    router = build(model={"api_key": None})
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        router.submit_batch(TEXTS)

    assert (router.batches(), set_aside(router)) == ([], 0)


# Privacy


def test_texts_and_keys_are_nowhere_on_disk(emulator: Emulator, build: Build, tmp_path: Path, accounts: Place) -> None:
    """The record of a batch is shown to people who may not read the documents, also where an error quotes them."""
    texts = ["confidential zebra", "confidential okapi in the file"]
    router = build(model={"api_key": "sk-0123456789abcdef"})
    emulator.batches.fail_lines(containing(texts[0]), 400)
    job = router.submit_batch(texts)
    emulator.batches.finish()
    lines = output(emulator, job)
    for line in lines:
        if line["response"]["status_code"] == 400:
            line["response"]["body"]["error"]["message"] = f"Cannot embed {texts[0]!r} with sk-0123456789abcdef."
    emulator.fault_for = on("GET", "/content", as_file(*lines))
    status = job.poll()
    emulator.fault_for = None
    refused_job = router.submit_batch(["confidential zebra"])
    quoting = {"code": "invalid_json_line", "message": "In the line 'confidential zebra'", "param": None, "line": 1}
    batch = {"id": "b", "object": "batch", "status": "failed", "errors": {"object": "list", "data": [quoting] * 2}}
    found = refused_job.records[0].provider_id or ""
    emulator.fault_for = on("GET", found, Fault.status(200, body=batch, headers={"content-type": "application/json"}))
    failed = reasons(refused_job)
    stored = b"".join(item.read_bytes() for item in tmp_path.rglob("*") if item.is_file())
    router.close()
    stored += b"".join(item.read_bytes() for item in tmp_path.rglob("*") if item.is_file()) + accounts.content()

    assert failed == {0: "the batch was refused (invalid_json_line)"}
    assert job.ids[0].encode() in stored
    for secret in ("confidential", "zebra", "okapi", "0123456789abcdef"):
        assert secret.encode() not in stored
        assert secret not in repr((job, job.records, status, failed))


@pytest.mark.parametrize("place", ["/files", "/batches"])
def test_errors_quote_neither_texts_nor_keys(emulator: Emulator, build: Build, place: str) -> None:
    """They end up in logs."""
    quoted = TEXTS[3] if place == "/files" else "nothing"
    body = {"error": {"message": f"No: {quoted} from sk-0123456789abcdef", "type": "x", "code": None}}
    emulator.fault_for = on("POST", place, Fault.status(400, body=body, headers={"content-type": "application/json"}))
    with pytest.raises(InputRejectedError) as caught:
        build(model={"api_key": "sk-0123456789abcdef"}).submit_batch(TEXTS)

    assert "ferry" not in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)


# Waiting


def test_waiting_looks_now_and_then(emulator: Emulator, build: Build) -> None:
    """As often as the caller says, until the end."""
    emulator.batches.automatic = True
    time = VirtualTime()
    status = build(clock=time, sleep=time.sleep).submit_batch(TEXTS).wait(every=7)

    assert (status.ended, status.answered) == (True, 10)
    assert time.sleeps == [7, 7]


def test_waiting_ends_with_its_time(emulator: Emulator, build: Build) -> None:
    """With the status as it is, after a last look; not at all with no time."""
    time = VirtualTime()
    job = build(clock=time, sleep=time.sleep).submit_batch(TEXTS)
    at_once = job.wait(timeout=0)
    nothing = list(time.sleeps)
    later = job.wait(every=40, timeout=100)

    assert (at_once.ended, later.ended) == (False, False)
    assert nothing == []
    assert time.sleeps == [40, 40, 20]


def test_waiting_without_a_pause_goes_on_to_the_end(emulator: Emulator, build: Build) -> None:
    """Tests wait like that."""
    emulator.batches.automatic = True
    time = VirtualTime()

    assert build(clock=time, sleep=time.sleep).submit_batch(TEXTS).wait(every=0).ended
    assert time.sleeps == [0, 0]


def test_waiting_sends_no_request_about_what_has_ended(emulator: Emulator, build: Build) -> None:
    """What is on file is enough, also years later."""
    router = build()
    emulator.batches.fail_lines(containing(TEXTS[1]))
    job = router.submit_batch(TEXTS)
    emulator.batches.finish()
    first = job.wait()
    heard = len(emulator.batches.received)
    (found,) = router.batches(ended=True)

    assert job.wait() == found.wait() == first
    assert len(emulator.batches.received) == heard


def test_a_batch_is_not_over_while_the_cache_cannot_keep_it(
    emulator: Emulator, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers are paid for: they stay at the provider until there is a place for them."""
    router = build()
    job = router.submit_batch(["one", "two"])
    emulator.batches.finish()
    with monkeypatch.context() as patch:
        patch.setattr(router.cache, "write", lambda entries: False)
        with pytest.raises(ConfigError, match="poll again"):
            job.poll()
    status = job.poll()

    assert status.answered == 2
    assert router.embed(["one", "two"], input_type="document").cached == (True, True)
