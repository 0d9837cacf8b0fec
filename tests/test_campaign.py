"""A campaign of faults: providers fail in every way, calls come in every form, and the promises hold.

An episode is a router, a provider on a loopback socket that fails in every way it knows, and a few dozen calls through
the makers' own SDKs: from threads, tasks or both, some of them cancelled, some in a hurry, some short of money. What
happens to a request depends on the seed, its texts and how often they came, and on nothing else. A failure shows the
episode, its calls and what happened to each request. ``EMBEDROUTER_CAMPAIGN_SEED`` plays another campaign,
``EMBEDROUTER_CAMPAIGN_EPISODES`` a longer one.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pytest

from embedrouter import Budget, EmbeddingResult, Model, RetryPolicy, Router
from embedrouter.errors import BudgetExceededError, CacheWarning, EmbedRouterError, LedgerError
from embedrouter.spending import Ledger
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import InputType
from tests.emulator import Emulator, Fault, Received, count_tokens, vector

SEED = int(os.environ.get("EMBEDROUTER_CAMPAIGN_SEED", "20261121"))
EPISODES = int(os.environ.get("EMBEDROUTER_CAMPAIGN_EPISODES", "5"))
"""Of each form and family; the first plays every fault."""


TIMEOUT = 0.5
"""Seconds; of an attempt."""
LATE = 1.5
LONG = 3600.0
"""Seconds after which nothing is in flight any more."""

Verdict = Literal["sound", "wrong", "lost", "refused"]
"""Of an outcome: a good answer, an answer that is billed and useless, no answer that can be read, an error status."""

FAULTS: dict[str, tuple[int, Fault | None, Verdict]] = {
    "good": (500, None, "sound"),
    "good, a little later": (30, Fault.slow(0.03), "sound"),
    "shuffled": (40, Fault.shuffled(), "sound"),
    "numbers as lists": (40, Fault.floats(), "sound"),
    "no usage": (25, Fault.no_usage(), "sound"),
    "usage of 0": (6, Fault.reported_tokens(0), "sound"),
    "usage below 0": (6, Fault.reported_tokens(-7), "sound"),
    "usage beyond reason": (6, Fault.reported_tokens(10**30), "sound"),
    "too few": (12, Fault.wrong_count(-1), "wrong"),
    "too many": (12, Fault.wrong_count(2), "wrong"),
    "none at all": (8, Fault.wrong_count(-1000), "wrong"),
    "wrong dimensions": (12, Fault.wrong_dimensions(7), "wrong"),
    "NaN": (12, Fault.nan(), "wrong"),
    "zeros": (12, Fault.zeros(), "wrong"),
    "reset": (15, Fault.reset(), "lost"),
    "lost": (20, Fault.lost(), "lost"),
    "half": (15, Fault.half_body(), "lost"),
    "too late": (6, Fault.slow(LATE), "lost"),
    "web page": (15, Fault.html(), "lost"),
    "an empty object": (5, Fault.status(200, body="{}"), "lost"),
    "a list": (5, Fault.status(200, body="[1]"), "lost"),
    "a string": (5, Fault.status(200, body='"data"'), "lost"),
    "nothing": (5, Fault.status(200, body=""), "lost"),
    "429": (20, Fault.rate_limited(), "refused"),
    "429 and seconds": (20, Fault.rate_limited(retry_after=0.01), "refused"),
    "429 and milliseconds": (10, Fault.status(429, retry_after="0", retry_after_ms=15), "refused"),
    "429 and a date": (10, Fault.rate_limited("Wed, 21 Oct 2015 07:28:00 GMT"), "refused"),
    "429 and a date that is none": (5, Fault.rate_limited("Wed, 21 Oct 99999999999 07:28:00 GMT"), "refused"),
    "429 in plain text": (5, Fault.status(429, body="slow down"), "refused"),
    "out of money": (4, Fault.insufficient_quota(), "refused"),
    "request too large": (12, Fault.request_too_large(), "refused"),
    "400": (3, Fault.status(400), "refused"),
    "401": (2, Fault.status(401), "refused"),
    "404": (3, Fault.status(404), "refused"),
    "408": (6, Fault.status(408, body="upstream request timeout"), "lost"),
    "409": (6, Fault.status(409, body="conflict"), "refused"),
    "413": (3, Fault.status(413, body="too large"), "refused"),
    "500": (12, Fault.status(500), "refused"),
    "502": (8, Fault.unavailable(502), "refused"),
    "503": (10, Fault.unavailable(), "refused"),
    "503, slowly": (6, Fault.unavailable().after(0.05), "refused"),
    "504": (6, Fault.unavailable(504), "lost"),
    "529": (6, Fault.status(529, body={"detail": "overloaded"}), "refused"),
}  # fmt: skip
"""How often each happens, and what it is worth."""

FAMILIES: dict[str, tuple[int, tuple[str, ...]]] = {
    "one model, two places": (16, ("openai:text-embedding-3-small", "azure_openai:text-embedding-3-small")),
    "Voyage's family": (256, ("voyage:voyage-4-lite", "voyage:voyage-4", "voyage:voyage-4-large")),
    "Cohere's family": (256, ("cohere:embed-v5.0-fast", "cohere:embed-v5.0-pro")),
}
"""Dimensions, and the models from the cheapest to the dearest."""
FORMS = ("sync", "threads", "async", "tasks", "both")
WORKERS = {"sync": 1, "threads": 5, "async": 1, "tasks": 6, "both": 4}

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mats",
    "7",
    "3.14",
    "naïve",
    "Füße",
    "猫は座る",
    "🎉",
    "x=y;",
    "<|endoftext|>",
    "—",
]


@dataclass(frozen=True)
class Asked:
    """One call."""

    texts: tuple[str, ...]
    input_type: InputType
    timeout: float | None
    cancel: float | None
    """Seconds after which its task is cancelled."""


@dataclass(frozen=True)
class Episode:
    """All that is decided beforehand, by the seed alone."""

    name: str
    form: str
    dimensions: int
    models: tuple[str, ...]
    retry: RetryPolicy
    batch: int
    width: int
    on_disk: bool
    cap: Decimal | None
    storm: str | None
    """A model that fails at every request."""
    script: dict[str, str]
    """What happens to texts when they are sent for the first time."""
    calls: tuple[tuple[Asked, ...], ...]
    """Of each worker."""

    @property
    def window(self) -> float:
        """How long calls of few texts wait for each other: not at all in every second episode."""
        return 0.01 * (int(self.name[-1]) % 2)

    def may_send(self, texts: Sequence[str], asked: Asked) -> bool:
        """Return whether a call may have been behind a request of these texts."""
        if self.window:
            return not set(texts).isdisjoint(asked.texts)
        return set(texts) <= set(asked.texts)


@dataclass
class Story:
    """What happened, for the checks and for the reader of a failure."""

    events: list[tuple[Received, str]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def compose(family: str, form: str, number: int) -> Episode:
    name = f"{SEED}/{family}/{form}/{number}"
    chance = random.Random(name)
    dimensions, models = FAMILIES[family]
    scripted = number == 0  # every fault at least once
    pool = [f"{what} {index}" for index, what in enumerate(FAULTS)]
    if not scripted:
        pool = [_text(chance, index) for index in range(chance.randint(15, 120))]
    workers = range(WORKERS[form])
    calls = tuple(tuple(_asked(chance, pool, form) for _ in range(30 // len(workers))) for _ in workers)
    if scripted:
        alone = [Asked((text,), "document", None, None) for text in pool]
        calls = tuple((*crew, *alone[worker :: len(workers)]) for worker, crew in enumerate(calls))
    whole = sum(map(len, pool)) * Decimal(2) / 1_000_000
    return Episode(
        name=name,
        form=form,
        dimensions=dimensions,
        models=models,
        retry=RetryPolicy(
            attempts=chance.choice((1, 2, 3, 5)),
            timeout=6,
            initial_wait=0.002,
            max_wait=0.01,
            cooldown=0 if scripted else chance.choice((0, 0, 0.03)),
        ),
        batch=1 if scripted else chance.choice((1, 2, 3, 5, 8)),
        width=chance.choice((1, 3, 6)),
        on_disk=chance.random() < 0.5,
        cap=None if scripted else chance.choice((None, Decimal(1), round(whole * chance.randint(1, 20) / 20, 6))),
        storm=None if scripted else chance.choice((None, None, *models)),
        script=dict(zip(pool, FAULTS, strict=True)) if scripted else {},
        calls=calls,
    )


def _text(chance: random.Random, index: int) -> str:
    if chance.random() < 0.05:
        return chance.choice((" ", "\n", "\u2028", "a", '"', "\\", "\x00"))
    return f"{' '.join(chance.choices(WORDS, k=chance.randint(1, 9)))} {index}"


def _asked(chance: random.Random, pool: Sequence[str], form: str) -> Asked:
    cancelled = form in ("tasks", "both", "async") and chance.random() < 0.25
    return Asked(
        texts=tuple(chance.choices(pool, k=chance.choice((1, 2, 5, 12, 30)))),
        input_type=chance.choice(("document", "document", "query")),
        timeout=chance.uniform(0.02, 0.6) if chance.random() < 0.15 else None,
        cancel=chance.uniform(0, 0.12) if cancelled else None,
    )


class Fire:
    """Chooses what happens to a request by its texts and how often they came, in any order of arrival."""

    def __init__(self, episode: Episode, story: Story) -> None:
        self._episode, self._story = episode, story
        self._lock = threading.Lock()
        self._seen: Counter[object] = Counter()

    def __call__(self, received: Received) -> Fault | None:
        request = (received.provider, received.model, received.input_type, received.texts)
        with self._lock:
            self._seen[request] += 1
            chance = random.Random(f"{self._episode.name}/{request}/{self._seen[request]}")
            name = chance.choices(list(FAULTS), [weight for weight, _, _ in FAULTS.values()])[0]
            if _model(received) == self._episode.storm and chance.random() < 0.9:
                name = chance.choice(("503", "lost", "429", "NaN", "reset"))
            if self._seen[request] == 1:
                name = self._episode.script.get(received.texts[0], name)
            if received.provider == "cohere" and name == "shuffled":  # its answers carry no index
                name = "numbers as lists"
            self._story.events.append((received, name))
        return FAULTS[name][1]


def _model(received: Received) -> str:
    provider = "azure_openai" if received.provider == "azure" else received.provider
    return f"{provider}:{received.model}"


def _kind(received: Received) -> InputType:
    return "query" if received.input_type in ("query", "search_query") else "document"


def declare(episode: Episode, emulator: Emulator) -> list[Model]:
    urls = {
        "openai": emulator.openai_url,
        "azure_openai": emulator.azure_url,
        "voyage": emulator.voyage_url,
        "cohere": emulator.cohere_url,
    }
    return [
        Model(
            name,
            base_url=urls[name.partition(":")[0]],
            api_key="k",
            api_version="2024-10-21" if name.startswith("azure") else None,
            dimensions=episode.dimensions,
            price=str(place),
            timeout=TIMEOUT,
            batch_size=episode.batch,
            max_concurrency=episode.width,
        )
        for place, name in enumerate(episode.models, 1)
    ]


# Playing an episode

Events: TypeAlias = list[tuple[Received, str]]
TINY = Decimal("0.000001")
"""US dollars, less than any request costs."""


def play(episode: Episode, router: Router, story: Story) -> None:
    """Make all calls, and close what was opened."""
    if episode.form in ("async", "tasks"):
        asyncio.run(_loop(episode.calls, router, story, None))
    elif episode.form == "sync":
        _calls(episode.calls[0], router, story)
    else:
        together = threading.Barrier(2)
        work: list[Any] = [(_calls, (calls, router, story)) for calls in episode.calls]
        if episode.form == "both":
            half = len(episode.calls) // 2
            loops = [episode.calls[:1], episode.calls[1:half]]
            work[:half] = [(asyncio.run, (_loop(calls, router, story, together),)) for calls in loops]
        crew = [threading.Thread(target=target, args=arguments) for target, arguments in work]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    router.close()


def _calls(calls: Sequence[Asked], router: Router, story: Story) -> None:
    for asked in calls:
        with _watched(asked, story) as said:
            said.append(router.embed(asked.texts, input_type=asked.input_type, timeout=asked.timeout))


async def _loop(
    crew: Sequence[Sequence[Asked]], router: Router, story: Story, together: threading.Barrier | None
) -> None:
    async def work(calls: Sequence[Asked]) -> None:
        for asked in calls:
            with _watched(asked, story) as said:
                task = asyncio.create_task(
                    router.aembed(asked.texts, input_type=asked.input_type, timeout=asked.timeout)
                )
                if asked.cancel is not None:
                    asyncio.get_running_loop().call_later(asked.cancel, task.cancel)
                said.append(await task)

    async with asyncio.TaskGroup() as group:
        for calls in crew:
            group.create_task(work(calls))
    if together is not None:
        await asyncio.to_thread(together.wait, 60)
    await router.aclose()


@contextmanager
def _watched(asked: Asked, story: Story) -> Iterator[list[EmbeddingResult]]:
    """Note how a call ends: with the right vectors, with an error of ours, or as it was told to."""
    said: list[EmbeddingResult] = []
    try:
        yield said
        (result,) = said
        _compare(asked, result)
        story.outcomes["answered"] += 1
    except EmbedRouterError as error:
        story.outcomes[type(error).__name__] += 1
    except asyncio.CancelledError:
        story.outcomes["cancelled"] += 1
        if asked.cancel is None:
            story.problems.append(f"{asked} was cancelled without being told to")
    except CacheWarning as warning:  # a call with little time waits for no busy machine's file
        story.outcomes["CacheWarning"] += 1
        if asked.timeout is None:
            story.problems.append(f"{asked} ended with {warning!r}")
    except BaseException as error:  # noqa: BLE001 - told at the end, with the whole story
        story.problems.append(f"{asked} ended with {error!r}")


def _compare(asked: Asked, result: EmbeddingResult) -> None:
    assert len(result) == len(asked.texts) == len(result.vectors)
    for text, model, row in zip(asked.texts, result.models, result.vectors, strict=True):
        expected = vector(model.partition(":")[2], result.space.dimensions, asked.input_type, text)
        assert np.array_equal(row, expected), f"{text!r} got the vector of another text"


# What must hold


@dataclass(frozen=True)
class Played:
    """What an episode left behind."""

    episode: Episode
    models: list[Model]
    router: Router
    cache: Path | MemoryCache
    ledger: Path
    emulator: Emulator
    story: Story

    def check(self) -> None:
        """Compare what the router keeps with what the provider knows, when nothing is under way any more."""
        assert not self.story.problems
        assert not self.emulator.refused, "a request broke a rule of its provider"
        later = Ledger(self.ledger, now=lambda: time.time() + LONG)
        doubtful = later.unconfirmed()
        later.close()
        assert doubtful == self.router.ledger.unconfirmed(), "money is still set aside"
        for model in self.models:
            events = [(received, what) for received, what in self.story.events if _model(received) == model.name]
            unconfirmed = [item.tokens for item in doubtful if item.model == model.name]
            self._check_bill(model, events, unconfirmed)
            self._check_cache(model, events, unconfirmed)
            self._check_attempts(events)
        self._check_money()
        self._check_that_it_goes_on()

    def _check_bill(self, model: Model, events: Events, unconfirmed: list[int]) -> None:
        """Hold what is booked against what was billed."""
        provider = "azure" if model.name.startswith("azure") else model.name.partition(":")[0]
        billed = self.emulator.billed[provider, model.name.partition(":")[2]]
        account = self.router.ledger.totals("model").get(model.name)
        booked = account.tokens if account else 0
        over = under = 0
        with Router([model], cache=None, ledger=":memory:") as alone:
            for received, what in events:
                bill = sum(count_tokens(provider, text) for text in received.texts)
                estimate = alone.estimate(received.texts, input_type="document").tokens
                assert estimate >= bill, "an estimate is an upper one"
                unbelievable = not bill or what in ("no usage", "usage of 0", "usage below 0", "usage beyond reason")
                told = estimate if unbelievable else bill
                over, under = over + max(0, told - bill), under + max(0, bill - told)
        assert billed - under <= booked + sum(unconfirmed), "the ledger knows less than was billed"
        assert booked <= billed + over, "the ledger knows more than was billed"
        lost = sum(FAULTS[what][2] == "lost" for _, what in events)
        assert len(unconfirmed) >= lost, "each answer that never came is listed"

    def _check_cache(self, model: Model, events: Events, unconfirmed: list[int]) -> None:
        """Find what was paid and sound, as a later router finds it that has this model alone."""
        accidents = len(unconfirmed) - sum(FAULTS[what][2] == "lost" for _, what in events)
        missing = []
        with Router([model], cache=self.cache, ledger=":memory:", cache_memory=0) as later:
            for received, what in events:
                kind = _kind(received)
                if FAULTS[what][2] != "sound":
                    continue
                if later.estimate(received.texts, input_type=kind).cached < len(set(received.texts)):
                    missing.append((received.texts, what))  # a busy machine was late for its answer
                    continue
                result = later.embed(received.texts, input_type=kind)
                assert all(result.cached)
                _compare(Asked(received.texts, kind, None, None), result)
        assert len(missing) <= accidents, f"paid, sound and not in the cache: {missing}"

    def _check_attempts(self, events: Events) -> None:
        """Count how often each request was made, except those that were told that the model is busy."""
        again = 2  # a model that is busy, or left alone in the middle of its tries, is asked again after the others
        sent = Counter(
            (received.input_type and _kind(received), received.texts)
            for received, what in events
            if not what.startswith(("429", "503"))
        )
        for (told_kind, texts), times in sent.items():
            callers = sum(
                told_kind in (None, asked.input_type) and self.episode.may_send(texts, asked)
                for calls in self.episode.calls
                for asked in calls
            )
            assert times <= self.episode.retry.attempts * again * callers, f"{texts} were sent {times} times"
        assert not any(len(set(texts)) < len(texts) for _, texts in sent), "a text stands twice in a request"

    def _check_money(self) -> None:
        """Compare what the caps count, what the ledger lists and what the router says."""
        ledger, usage = self.router.ledger, self.router.usage
        accounts = ledger.totals("model").values()
        spent = sum((account.cost + account.unconfirmed for account in accounts), Decimal(0))
        assert self.episode.cap is None or spent <= self.episode.cap
        assert ledger.refusal(Budget(total=spent + TINY), TINY) is None, "the caps count more than was spent"
        assert ledger.refusal(Budget(total=spent + TINY), 2 * TINY), "the caps count less than was spent"
        assert usage.tokens == sum(account.tokens for account in accounts)
        assert usage.requests == sum(account.requests for account in accounts)
        assert usage.cost == sum((account.cost for account in accounts), Decimal(0))

    def _check_that_it_goes_on(self) -> None:
        """Ask for everything again, from a provider that is well: nothing waits for a call that is gone."""
        self.emulator.fault_for = None
        every = sorted({text for calls in self.episode.calls for asked in calls for text in asked.texts})
        try:
            result = self.router.embed(every, input_type="document", timeout=30)
        except BudgetExceededError:
            assert self.episode.cap is not None
        else:
            _compare(Asked(tuple(every), "document", None, None), result)


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")  # Voyage's SDK logs half an answer with it
@pytest.mark.parametrize(
    ("family", "form", "numbers"),
    [(family, form, numbers) for family in FAMILIES for form in FORMS for numbers in (range(1), range(1, EPISODES))],
    ids=str,
)
@pytest.mark.slow
def test_under_all_faults_vectors_money_and_cache_are_right(
    family: str, form: str, numbers: range, tmp_path: Path
) -> None:
    """Vectors are those of their texts; what was paid and sound is kept; ledger and bill agree; nothing is left."""
    outcomes: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for number in numbers:
        episode, story = compose(family, form, number), Story()
        before = set(threading.enumerate())
        folder = tmp_path / str(number)
        cache = folder if episode.on_disk else MemoryCache()
        try:
            with Emulator() as emulator:
                emulator.fault_for = Fire(episode, story)
                models = declare(episode, emulator)
                router = Router(
                    models,
                    cache=cache,
                    ledger=folder / "ledger.db",
                    budget=Budget(total=episode.cap),
                    retry=episode.retry,
                    micro_batch_window=episode.window,
                )
                play(episode, router, story)
                Played(episode, models, router, cache, folder / "ledger.db", emulator, story).check()
                router.close()
            assert not _left(before), "threads were left behind"
        except AssertionError as error:
            events = "\n".join(f"  {_model(received)} {what}: {received.texts}" for received, what in story.events)
            asked = "\n".join(f"  {worker}: {call}" for worker, crew in enumerate(episode.calls) for call in crew)
            print(f"EMBEDROUTER_CAMPAIGN_SEED={SEED}, episode {episode}\ncalls:\n{asked}\nrequests:\n{events}")
            print(f"problems: {story.problems}")
            error.add_note(f"EMBEDROUTER_CAMPAIGN_SEED={SEED}, episode {episode.name}; its script is printed")
            raise
        outcomes.update(what for _, what in story.events)
        assert number > 0 or set(FAULTS) - set(outcomes) <= {"shuffled"}, "the script was played"
        calls.update(story.outcomes)
    print(f"{sum(calls.values())} calls: {dict(calls)}")
    print(f"{sum(outcomes.values())} requests: {dict(outcomes)}")


def _left(before: set[threading.Thread]) -> set[threading.Thread]:
    """Return the threads that there are more than before, those of the pool, which are used again, left aside."""
    deadline = time.monotonic() + 5
    while left := {thread for thread in set(threading.enumerate()) - before if thread.name != "embedrouter"}:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return left


# An event loop that ends in the middle, as asyncio.run does after Ctrl-C: it cancels every task there is


@pytest.mark.parametrize("steps", range(12))
async def test_a_task_that_is_cancelled_before_it_begins_lets_its_texts_go(steps: int) -> None:
    """Otherwise a later call for the same texts waits for one that is gone."""
    router = _router_of(FakeBackend())
    call = asyncio.create_task(router.aembed(["a"], input_type="query"))
    for _ in range(steps):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.gather(call, return_exceptions=True)

    assert len(await asyncio.wait_for(router.aembed(["a"], input_type="query"), 5)) == 1
    await router.aclose()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_money_set_aside_while_a_task_is_cancelled_is_given_back(times: int) -> None:
    """The ledger is asked in a thread, which goes on; the request is never made, and must not count as unconfirmed.

    At the end of a loop a task is cancelled by the loop, and by the group that the task belongs to.
    """
    fake = FakeBackend()
    router = _router_of(fake)
    begun, ended, reserve = threading.Event(), threading.Event(), router.ledger.reserve

    def slowly(*arguments: Any) -> Any:
        begun.set()
        time.sleep(0.1)
        try:
            return reserve(*arguments)
        finally:
            ended.set()

    router.ledger.reserve = slowly  # type: ignore[method-assign,assignment]
    call = asyncio.create_task(router.aembed(["a"], input_type="query"))
    await asyncio.to_thread(begun.wait, 5)
    for _ in range(times):
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)
    await asyncio.gather(call, return_exceptions=True)
    await router.aclose()
    await asyncio.to_thread(ended.wait, 5)

    assert not fake.calls
    assert not router.ledger.unconfirmed()
    refusal = await asyncio.to_thread(router.ledger.refusal, Budget(total=TINY), TINY)
    assert refusal is None, "money is still set aside"


async def test_a_ledger_that_fails_while_a_task_is_cancelled_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller has gone, and there is nothing to give back."""
    fake = FakeBackend()
    router = _router_of(fake)
    begun = threading.Event()

    def fail(*_: Any) -> Any:
        begun.set()
        time.sleep(0.1)
        raise LedgerError("gone")

    router.ledger.reserve = fail  # type: ignore[method-assign,assignment]
    call = asyncio.create_task(router.aembed(["a"], input_type="query"))
    await asyncio.to_thread(begun.wait, 5)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    (outcome,) = await asyncio.gather(call, return_exceptions=True)
    await router.aclose()

    assert isinstance(outcome, asyncio.CancelledError)
    assert not fake.calls
    assert not caplog.records


def _router_of(fake: FakeBackend) -> Router:
    return Router([fake.model(price="1")], cache=MemoryCache(), ledger=":memory:")
