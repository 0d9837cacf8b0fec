"""Events: what operators and tracing see of calls that succeed, wait and fail."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Budget, RetryPolicy, Router, events, tag
from embedrouter.doctor import ProbeRecords, check_models
from embedrouter.errors import (
    BudgetExceededError,
    CacheWarning,
    ConfigError,
    DegradedWarning,
    EmbedRouterError,
    InputRejectedError,
    RequestTimeoutError,
    UnavailableError,
)
from embedrouter.events import Event
from embedrouter.langchain import RouterEmbeddings
from embedrouter.models import Catalogue
from embedrouter.redis import RedisState
from embedrouter.router import wiring_of
from embedrouter.testing import FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType, Vectors
from tests.either import embed
from tests.side_by_side import at_once, until

ROOT = Path(__file__).parents[1]
KINDS: dict[str, type[Event]] = {
    name: getattr(events, name) for name in events.__all__ if issubclass(getattr(events, name), Event)
}
ONCE = RetryPolicy(attempts=1)
DOWN = UnavailableError("down", status=503, retryable=True)


class Scene:
    """One router whose time passes only in its waits, in one form; ``seen`` is what ``on_event`` has received."""

    def __init__(self, asynchronous: bool, folder: Path) -> None:
        self.asynchronous, self.folder = asynchronous, folder
        self.now = 0.0
        self.seen: list[Event] = []
        self.routers: list[Router] = []

    def router(self, *models: Any, **settings: Any) -> Router:
        given: dict[str, Any] = {"cache": None, "ledger": ":memory:", "retry": ONCE, "on_event": self.seen.append}
        time = {"clock": lambda: self.now, "sleep": self.sleep, "random": lambda: 1.0}
        self.routers.append(Router(list(models), **{**given, **time, **settings}))
        return self.routers[-1]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, text: str = "a", input_type: InputType = "query", **asked: Any) -> None:
        """Embed a text with the last router; errors are raised to the caller, who is not looked at here."""
        with suppress(EmbedRouterError):
            embed(self.routers[-1], self.asynchronous, [text], input_type=input_type, **asked)


SCENES: dict[str, tuple[Callable[[Scene], None], str]] = {}
"""What is played, and the events that it has."""


def scene(expected: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def add(play: Callable[[Scene], None]) -> Callable[[Scene], None]:
        SCENES[play.__name__] = play, expected
        return play

    return add


@scene("RequestSent RequestAnswered CallBilled CallEnded")
def answered_and_then_cached(scene: Scene) -> None:
    scene.router(FakeBackend().model(price="1"), cache=MemoryCache())
    with tag("nightly"):
        scene.ask()
        scene.ask()


@scene("RequestSent RequestFailed RequestRetried RequestSent RequestAnswered CallBilled")
def retried(scene: Scene) -> None:
    scene.router(FakeBackend(outcomes=[DOWN]).model(), retry=RetryPolicy(attempts=2))
    scene.ask()


@scene("RequestSent RequestFailed FailedOver RequestSent RequestAnswered CallBilled")
def failed_over(scene: Scene) -> None:
    scene.router(FakeBackend(outcomes=[DOWN]).model("fake:a", price="1"), FakeBackend().model("fake:b", price="2"))
    scene.ask()


@scene("RequestSent RequestFailed FailedOver RequestSent RequestAnswered Degraded CallBilled")
def degraded(scene: Scene) -> None:
    models = FakeBackend(outcomes=[DOWN]).model("fake:a"), FakeBackend().model("fake:b", tier="low")
    scene.router(*models, when_unavailable="degrade")
    with pytest.warns(DegradedWarning):
        scene.ask()


@scene(
    " ".join(["RequestSent RequestFailed CallEnded"] * 7)
    + " RequestSent RequestFailed CircuitOpened CallEnded CallEnded"
    + " RequestSent CircuitClosed RequestAnswered CallBilled"
)
def circuit(scene: Scene) -> None:
    """Beside the eight failures: one call while the circuit is open, one afterwards."""
    scene.router(FakeBackend(outcomes=[DOWN] * 8).model(), retry=RetryPolicy(attempts=1, timeout=5))
    for _ in range(9):
        scene.ask()
    scene.now += 10
    scene.ask()


@scene(
    " ".join(["RequestSent RequestFailed CallEnded"] * 7)
    + " RequestSent RequestFailed CircuitOpened CallEnded RequestSent RequestFailed CircuitOpened CallEnded"
    + " LimitWaited RequestSent CircuitClosed RequestAnswered CallBilled"
)
def circuit_opened_again(scene: Scene) -> None:
    """And waited for."""
    scene.router(FakeBackend(outcomes=[DOWN] * 9).model(), retry=RetryPolicy(attempts=1))
    for _ in range(8):
        scene.ask()
    scene.now += 10
    scene.ask()
    scene.ask()


@scene("RequestSent RequestAnswered CallBilled LimitWaited RequestSent RequestAnswered CallBilled")
def rate_limit(scene: Scene) -> None:
    scene.router(FakeBackend().model(requests_per_minute=1))
    scene.ask("a")
    scene.ask("b")


@scene("BudgetRefused CallEnded BudgetRefused CallEnded")
def budget(scene: Scene) -> None:
    """By the reservation of a request, and by the check of a whole call."""
    scene.router(FakeBackend().model(price="1"), budget=Budget(total="0.0000001"))
    scene.ask()
    scene.router(FakeBackend().model(price="1"), budget=Budget(per_call="0.0000001"))
    scene.ask()


class Defective(FakeBackend):
    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        raise ZeroDivisionError


@scene(
    " ".join(["RequestSent RequestFailed SpendingUnconfirmed CallEnded"] * 2) + " RequestSent RequestFailed CallEnded"
)
def unconfirmed(scene: Scene) -> None:
    """A time-out, a defect of a backend, and a defect that shows when the answer is looked at."""
    scene.router(FakeBackend(outcomes=[RequestTimeoutError("late", perhaps_billed=True)]).model(price="1"))
    scene.ask()
    scene.router(Defective().model(price="1"))
    with pytest.raises(ZeroDivisionError):
        scene.ask()
    scene.router(FakeBackend(outcomes=[Answer("no array", 1)]).model(price="1"))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        scene.ask()


def vectors(count: int = 1, dimensions: int = 8) -> Vectors:
    return np.ones((count, dimensions), np.float32)


@scene("RequestSent BillImplausible RequestAnswered CallBilled RequestSent RequestAnswered CallBilled")
def implausible_bill(scene: Scene) -> None:
    scene.router(FakeBackend(outcomes=[Answer(vectors(), 10**9)] * 2).model(price="1"))
    scene.ask("a")
    scene.ask("b")


@scene("RequestSent RequestAnswered CallBilled RequestSent RequestFailed ModelChanged CallBilled")
def model_renamed(scene: Scene) -> None:
    outcomes = [Answer(vectors(), 1, model=name) for name in ("nomic-embed-text", "all-minilm")]
    scene.router(FakeBackend(outcomes=outcomes).model())
    scene.ask("a")
    scene.ask("b")


@scene("RequestSent RequestFailed ModelChanged CallBilled")
def other_dimensions(scene: Scene) -> None:
    scene.router(FakeBackend(outcomes=[Answer(vectors(dimensions=4), 1)]).model())
    scene.ask()


class Drifting(FakeBackend):
    """Gives other vectors under the same name."""

    drift = ""

    def vector(self, text: str, input_type: InputType) -> Vectors:
        return super().vector(self.drift + text, input_type)


@scene(" ".join(["RequestSent RequestAnswered CallBilled"] * 4) + " ModelChanged ModelChanged")
def vectors_changed(scene: Scene) -> None:
    """Seen by ``embedrouter doctor``, for both input types; its calls have one form."""
    model = Drifting()
    router = scene.router(model.model())
    for drift in ("", "x"):
        model.drift = drift
        list(check_models(router, ProbeRecords(scene.folder), cards=Catalogue({}, {}, {}), today=date(2026, 1, 1)))


@scene("IndexUnrecorded RequestSent RequestAnswered CallBilled RequestSent RequestAnswered CallBilled")
def index_unrecorded(scene: Scene) -> None:
    """Said once; the adapter has both forms."""
    router = scene.router(FakeBackend().model())
    embedder = RouterEmbeddings(router, index="old")
    for text in ("a", "b"):
        asyncio.run(embedder.aembed_query(text)) if scene.asynchronous else embedder.embed_query(text)


class Picky(FakeBackend):
    """Takes one text in a request, and says so."""

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if len(texts) > 1:
            raise InputRejectedError("too many", status=400, batch_size=1)
        return super().embed(texts, input_type, timeout=timeout)


@scene("RequestSent RequestFailed LimitLearned RequestSent RequestAnswered RequestSent RequestAnswered CallBilled")
def limit_learned(scene: Scene) -> None:
    router = scene.router(Picky().model())
    embed(router, scene.asynchronous, ["a", "b"], input_type="document")


@scene("SharedStateFailed RequestSent RequestAnswered CallBilled RequestSent RequestAnswered CallBilled")
def shared_state_failed(scene: Scene) -> None:
    """No server is there; it is said once."""
    scene.router(FakeBackend().model(), cache=None, state=RedisState("redis://127.0.0.1:1"))
    scene.ask("a")
    scene.ask("b")


@scene(
    "LedgerFailed RequestSent RequestAnswered CallBilled RequestSent RequestAnswered CallBilled"
    " LedgerFailed CallEnded CallEnded"
)
def ledger_failed(scene: Scene) -> None:
    """Without a budget, and under one, where calls are refused."""
    scene.router(FakeBackend().model(price="1"), ledger=scene.folder)
    scene.ask("a")
    scene.ask("b")
    scene.router(FakeBackend().model(price="1"), ledger=scene.folder, budget=Budget(total="1"))
    scene.ask("a")
    scene.ask("b")


class Flapping(MemoryCache):
    """A store that fails while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        if self.broken:
            raise OSError("no route to the store")
        return dict(super().get_many(keys))


@scene(" ".join(["CacheFailed RequestSent RequestAnswered CallBilled", "RequestSent RequestAnswered CallBilled"] * 2))
def cache_failed(scene: Scene) -> None:
    """It fails twice, works, and fails again."""
    store = Flapping()
    scene.router(FakeBackend().model(), cache=store)
    for number, broken in enumerate([True, False, True]):
        store.broken = broken
        if broken:
            with pytest.warns(CacheWarning):
                scene.ask(f"a{number}")
        else:
            scene.ask(f"a{number}")
    scene.ask("a3")


@scene("RequestSent RequestAnswered CallBilled CacheRowsDamaged RequestSent RequestAnswered CallBilled")
def damaged_rows(scene: Scene) -> None:
    store = MemoryCache()
    scene.router(FakeBackend().model(), cache=store)
    scene.ask(input_type="document")
    store.rows = {key: row[:-1] + b"?" for key, row in store.rows.items()}
    scene.ask(input_type="document")


def play(name: str, asynchronous: bool, folder: Path) -> list[Event]:
    found = Scene(asynchronous, folder)
    SCENES[name][0](found)
    for router in found.routers:
        router.close()
    return found.seen


@pytest.mark.parametrize("name", SCENES)
def test_both_forms_report_the_same_events_in_the_same_order_and_log_each_once(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On ``on_event`` and, at DEBUG, in the log."""
    caplog.set_level(logging.DEBUG, "embedrouter")
    told: list[list[Event]] = []
    for asynchronous in (False, True):
        caplog.clear()
        (folder := tmp_path / str(asynchronous)).mkdir()
        told.append(play(name, asynchronous, folder))
        logged = [(record.levelno, record.name, record.getMessage()) for record in caplog.records]

        assert [type(event).__name__ for event in told[-1]] == SCENES[name][1].split()
        assert [line for line in logged if line[1] != "asyncio"] == [
            (event.level, event.logger.name, str(event)) for event in told[-1]
        ]
    assert [in_any_folder(event) for event in told[0]] == [in_any_folder(event) for event in told[1]]


def in_any_folder(event: Event) -> Event:
    return dataclasses.replace(event, file="") if isinstance(event, events.LedgerFailed) else event


def test_every_kind_is_played() -> None:
    """The others have tests of their own: the end of a process, a call that waits for another, and batches."""
    played = {name for _, expected in SCENES.values() for name in expected.split()}

    assert played == set(KINDS) - {"Event", "BookingsLost", "RequestShared", "BatchSubmitted", "BatchCollected"}


class Lines(logging.Handler):
    """Writes records as JSON formatters do: with all that a record has beside the usual attributes."""

    usual = frozenset(vars(logging.makeLogRecord({})))

    def __init__(self) -> None:
        super().__init__()
        self.extras: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name, value in vars(record).items() if name not in self.usual}
        self.extras.append(json.loads(json.dumps({**extra, "message": record.getMessage()})))


def plain(value: object) -> object:
    """Return a fact as JSON has it."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def test_the_log_has_the_fields_of_each_event(tmp_path: Path) -> None:
    """Under prefixed names, as numbers and strings that every formatter can write."""
    logger, lines = logging.getLogger("embedrouter"), Lines()
    logger.addHandler(lines)
    logger.setLevel(logging.DEBUG)
    try:
        told = [event for name in SCENES for event in play(name, False, tmp_path)]
    finally:
        logger.removeHandler(lines)
        logger.setLevel(logging.NOTSET)

    assert len(lines.extras) == len(told) > 90
    for extra, event in zip(lines.extras, told, strict=True):
        facts = {name: plain(value) for name, value in event.facts().items()}
        named = {f"embedrouter_{name}": value for name, value in facts.items()}
        own = {"embedrouter_event": type(event).__name__, "embedrouter_left_out": 0, "message": str(event)}
        assert extra == named | own


def test_events_say_what_they_are_about(asynchronous: bool, tmp_path: Path) -> None:
    """Model, tier, input type and tag; the number of the call; money and tokens."""
    sent, answered, first, second = play("answered_and_then_cached", asynchronous, tmp_path)

    assert isinstance(answered, events.RequestAnswered)
    assert isinstance(first, events.CallEnded)
    assert isinstance(second, events.CallEnded)
    assert (answered.model, answered.tier) == ("fake:model", "high")
    assert (answered.input_type, answered.tag) == ("query", "nightly")
    assert sent.call == answered.call == first.call != second.call
    assert answered.cost == first.cost == Decimal("0.000001") == second.saved
    assert (first.cached, second.cached, second.requests, second.cost) == (0, 1, 0, 0)
    assert abs(sent.time - time.time()) < 60


class Meeting(FakeBackend):
    """Answers when a second call has asked for a text."""

    def __init__(self, second: Callable[[], object]) -> None:
        super().__init__()
        self.second = second

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.second()
        return super().embed(texts, input_type, timeout=timeout)


def test_a_call_that_waits_for_another_one_is_told() -> None:
    """It has a number of its own, and costs nothing."""
    seen: list[Event] = []
    others: list[threading.Thread] = []

    def second() -> None:
        others.append(threading.Thread(target=lambda: router.embed(["a"], input_type="query")))
        others[0].start()
        time.sleep(0.2)  # until it waits

    router = Router(
        [Meeting(second).model()], cache=None, ledger=":memory:", on_event=seen.append, micro_batch_window=0
    )
    router.embed(["a"], input_type="query")
    others[0].join()
    router.close()
    (shared,) = [event for event in seen if isinstance(event, events.RequestShared)]
    ended = {event.call: event for event in seen if isinstance(event, events.CallEnded)}

    assert (shared.by, shared.texts, ended[shared.call].cost, len(ended)) == ("single flight", 1, 0, 2)
    assert shared.seconds > 0.05


def test_a_wait_for_a_place_is_told(asynchronous: bool) -> None:
    """Of two calls to a model that takes one request at a time, one has waited."""
    seen: list[Event] = []
    let = threading.Event()

    class Slow(FakeBackend):
        def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            let.wait(10)
            return super().embed(texts, input_type, timeout=timeout)

        async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
            await asyncio.sleep(0.05)
            return await super().aembed(texts, input_type, timeout=timeout)

    backend = Slow()
    router = Router(
        [backend.model(max_concurrency=1)], cache=None, ledger=":memory:", on_event=seen.append, micro_batch_window=0
    )
    if asynchronous:
        let.set()

        async def both() -> None:
            await asyncio.gather(*(router.aembed([text], input_type="query") for text in "ab"))
            await router.aclose()

        asyncio.run(both())
    else:
        threading.Timer(0.1, let.set).start()
        at_once([partial(router.embed, [text], input_type="query") for text in "ab"])
        router.close()
    waits = [event for event in seen if isinstance(event, events.LimitWaited)]

    assert [event.limit for event in waits] == ["concurrency limit"]
    assert waits[0].seconds > 0.02


# An outage, and a storm


def test_an_outage_is_told_once_and_a_storm_logs_a_few_lines(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """300 calls against a model that is down, with a second model that answers."""
    caplog.set_level(logging.INFO, "embedrouter")
    seen: list[Event] = []
    alone = threading.Lock()

    def receive(event: Event) -> None:
        assert alone.acquire(blocking=False), "one event at a time"
        seen.append(event)
        alone.release()

    down, up = FakeBackend(outcomes=[DOWN] * 1000), FakeBackend()
    router = Router(
        [down.model("fake:a", price="1"), up.model("fake:b", price="2")],
        cache=None,
        ledger=":memory:",
        retry=RetryPolicy(attempts=2, initial_wait=0, max_wait=0),
        on_event=receive,
    )
    if asynchronous:

        async def storm() -> None:
            await asyncio.gather(*(router.aembed([f"a{number}"], input_type="document") for number in range(300)))
            await router.aclose()

        asyncio.run(storm())
    else:
        for number in range(300):
            router.embed([f"a{number}"], input_type="document")
        router.close()
    kinds = [type(event).__name__ for event in seen]
    levels = [record.levelno for record in caplog.records if record.name.startswith("embedrouter")]

    assert kinds.count("CallBilled") == 300
    assert kinds.count("CircuitOpened") == 1 == levels.count(logging.WARNING)
    assert len(levels) <= 45
    assert caplog.records[-1].getMessage() == "fake:b: 290 more calls: 290 texts, $0.00058"


def test_a_storm_of_refusals_logs_a_few_lines(asynchronous: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Of the budget; ``on_event`` receives each."""
    seen: list[Event] = []
    router = Router(
        [FakeBackend().model(price="1")],
        cache=None,
        ledger=":memory:",
        budget=Budget(total="0.0000001"),
        on_event=seen.append,
    )

    async def storm() -> None:
        asked = (router.aembed([f"a{number}"], input_type="document") for number in range(300))
        await asyncio.gather(*asked, return_exceptions=True)
        await router.aclose()

    if asynchronous:
        asyncio.run(storm())
    for number in range(300 if not asynchronous else 0):
        with pytest.raises(BudgetExceededError):
            router.embed([f"a{number}"], input_type="document")
    router.close()

    assert sum(isinstance(event, events.BudgetRefused) for event in seen) >= 300
    assert len([record for record in caplog.records if record.name == "embedrouter.spending"]) == 10


def test_what_was_left_out_of_the_log_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """In the first line of the next minute; each model has lines of its own, and DEBUG has all."""
    now = 0.0
    caplog.set_level(logging.DEBUG, "embedrouter")
    router = Router([FakeBackend().model()], cache=None, ledger=":memory:", clock=lambda: now)
    reported = wiring_of(router).events
    for minute in range(2):
        now = 60.0 * minute
        for _ in range(25):
            reported.report(events.CircuitClosed(model="fake:a"))
            reported.report(events.CallEnded(texts=1, seconds=0))
        reported.report(events.CircuitClosed(model="fake:b"))
    lines = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    left_out = [number for record in caplog.records if (number := vars(record)["embedrouter_left_out"])]

    assert lines == ["fake:a answers again"] * 10 + ["fake:b answers again"] + [
        "fake:a answers again (15 more of these were left out)",
        *["fake:a answers again"] * 9,
        "fake:b answers again",
    ]
    assert left_out == [15]
    assert len(caplog.records) == len(lines) + 50


# on_event


def test_a_call_returns_after_its_events_were_received(asynchronous: bool) -> None:
    """So that a program need not wait for them."""
    seen: list[Event] = []
    router = Router([FakeBackend().model()], cache=None, ledger=":memory:", on_event=seen.append)
    numbers = []

    async def ask(text: str) -> None:
        await router.aembed([text], input_type="query")
        numbers.append(len(seen))

    for text in "abc":
        if asynchronous:
            asyncio.run(ask(text))
        else:
            router.embed([text], input_type="query")
            numbers.append(len(seen))
    router.close()

    assert numbers == [3, 6, 9]


def test_on_event_may_raise(asynchronous: bool, caplog: pytest.LogCaptureFixture) -> None:
    """No call notices, and the log says so once."""

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    router = Router([FakeBackend().model()], cache=None, ledger=":memory:", on_event=broken)
    for text in "abc":
        embed(router, asynchronous, [text], input_type="query")
    router.close()
    (record,) = caplog.records

    assert (record.name, record.levelname) == ("embedrouter.events", "ERROR")
    assert record.exc_info
    assert "ZeroDivisionError" in record.getMessage()


async def longest_block(router: Router, texts: Sequence[str]) -> float:
    """Return for how many seconds the event loop did nothing else, while texts were embedded one by one."""
    late, before = 0.0, time.monotonic()

    async def beat() -> None:
        nonlocal late, before
        while True:
            late, before = max(late, time.monotonic() - before), time.monotonic()
            await asyncio.sleep(0.005)

    beating = asyncio.create_task(beat())
    for text in texts:
        await router.aembed([text], input_type="query")
    beating.cancel()
    return late


def test_on_event_that_never_returns_holds_no_call_up(asynchronous: bool) -> None:
    """And blocks no event loop: one call waits for a quarter of a second, further calls for nothing."""
    end = threading.Event()
    router = Router([FakeBackend().model()], cache=None, ledger=":memory:", on_event=lambda _: end.wait(30))
    began = time.monotonic()
    texts = [f"a{number}" for number in range(30)]
    if asynchronous:
        assert asyncio.run(longest_block(router, texts)) < 0.5
    else:
        for text in texts:
            router.embed([text], input_type="query")
    took = time.monotonic() - began
    end.set()
    router.close()

    assert took < 2


def test_too_many_events_for_on_event_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """Memory stays bounded, and the log says so once."""
    end = threading.Event()
    received: list[Event] = []

    def slow(event: Event) -> None:
        end.wait(30)
        received.append(event)

    router = Router([FakeBackend().model()], cache=None, ledger=":memory:", on_event=slow)
    reported = wiring_of(router).events
    for _ in range(11_000):
        reported.report(events.CallEnded(texts=1, seconds=0))
    end.set()
    until(lambda: len(received) >= 10_000)
    router.close()

    assert 10_000 <= len(received) <= 10_001
    assert ["too slow" in record.getMessage() for record in caplog.records] == [True]


current: ContextVar[str] = ContextVar("current", default="")


def test_on_event_has_the_context_of_the_call(asynchronous: bool) -> None:
    """So that tracing finds the span that is open."""
    spans: list[str] = []
    settings: dict[str, Any] = {"cache": None, "ledger": ":memory:"}
    router = Router([FakeBackend().model()], **settings, on_event=lambda _: spans.append(current.get()))
    token = current.set("question 7")
    embed(router, asynchronous, ["a"], input_type="query")
    current.reset(token)
    router.close()

    assert spans == ["question 7"] * 3


def test_on_event_may_use_the_router(asynchronous: bool) -> None:
    """Its own calls are told afterwards; it may close the router, too."""
    seen: list[str] = []

    def receive(event: Event) -> None:
        seen.append(type(event).__name__)
        if len(seen) == 1:
            router.embed(["b"], input_type="query")
            router.close()

    router = Router([FakeBackend().model()], cache=None, ledger=":memory:", on_event=receive)
    began = time.monotonic()
    embed(router, asynchronous, ["a"], input_type="query")
    router.close()

    assert time.monotonic() - began < 2
    assert sorted(seen) == sorted(["RequestSent", "RequestAnswered", "CallBilled"] * 2)


def ignore(event: Event) -> None:
    """Be a function of a module."""


def test_a_pickle_keeps_a_function_of_a_module_alone() -> None:
    """Another may hold anything, a key too."""

    def kept(on_event: Callable[[Event], object]) -> object:
        made = Router(["openai:text-embedding-3-small"], cache=None, ledger=":memory:", on_event=on_event)
        return pickle.loads(pickle.dumps(made)).__reduce__()[0].keywords["on_event"]

    assert kept(ignore) is ignore
    others: list[Callable[[Event], object]] = [lambda _: None, list[Event]().append, partial(ignore)]
    assert [kept(other) for other in others] == [None] * 3


@pytest.mark.parametrize("wrong", ["print", 3, asyncio.sleep])
def test_on_event_is_a_function(wrong: Any) -> None:
    """No coroutine function: it would never run."""
    with pytest.raises(ConfigError, match="on_event must be a function"):
        Router(["openai:text-embedding-3-small"], on_event=wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_its_own_events() -> None:
    """Also where the parent's are waiting at the moment of the fork."""
    seen: list[Event] = []
    end = threading.Event()
    end.set()

    def receive(event: Event) -> None:
        end.wait(10)
        seen.append(event)

    router = Router([FakeBackend().model()], cache=None, ledger=":memory:", on_event=receive)
    router.embed(["a"], input_type="query")
    before = len(seen)
    end.clear()
    router.embed(["b"], input_type="query")
    child = os.fork()
    if not child:
        signal.alarm(10)
        end.set()
        router.embed(["c"], input_type="query")
        os._exit(len(seen) - before)
    told = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end.set()
    until(lambda: len(seen) == 6)
    router.close()

    assert told == before == 3


def test_a_handler_that_raises_breaks_no_call(asynchronous: bool) -> None:
    """What was answered is paid for."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError

    logger, handler = logging.getLogger("embedrouter"), Broken()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        router = Router([FakeBackend().model()], cache=None, ledger=":memory:")
        assert len(embed(router, asynchronous, ["a"], input_type="query")) == 1
        router.close()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def test_bookings_that_are_lost_are_told_at_the_end(tmp_path: Path) -> None:
    """Of the process: to the log, and to ``on_event``."""
    program = (
        "import sys; from embedrouter import Router; from embedrouter.testing import FakeBackend\n"
        "router = Router([FakeBackend().model()], cache=None, ledger=sys.argv[1],"
        " on_event=lambda event: print(type(event).__name__))\n"
        "router.embed(['a'], input_type='query')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)

    assert "bookings are lost" in done.stderr
    assert done.stdout.split() == ["LedgerFailed", "RequestSent", "RequestAnswered", "CallBilled", "BookingsLost"]


def test_what_a_terminal_obeys_is_shown_escaped() -> None:
    """A server gives its model any name."""
    event = events.ModelChanged(model="fake:model", what="name", was="a", now="b\x1b[2J\n")

    assert str(event).isprintable()
    assert r"b\x1b[2J\n" in str(event)


# The page


def test_the_page_lists_the_events_as_they_are() -> None:
    """Name, level and logger of each, in the order of the module; and the fields."""
    page = (ROOT / "docs/events.md").read_text("utf-8")
    rows = [
        (name, level, logger, fields.strip())
        for logger, table in re.findall(r"^### [^\n]*: `embedrouter\.(\w+)`\n(.*?)(?=^#)", page, re.M | re.S)
        for name, level, fields in re.findall(r"^\| `(\w+)` ([A-Z]+) \| .* \|(.*) \|$", table, re.M)
    ]
    base = {item.name for item in dataclasses.fields(Event)}
    wanted = [
        (
            name,
            logging.getLevelName(kind.level),
            kind.logger.name.removeprefix("embedrouter."),
            ", ".join(f"`{item.name}`" for item in dataclasses.fields(kind) if item.name not in base),
        )
        for name, kind in KINDS.items()
        if kind is not Event
    ]

    assert sorted(rows) == sorted(wanted)


def test_every_kind_is_a_frozen_value_that_says_when_it_happens() -> None:
    """And its message names fields that it has."""
    for kind in KINDS.values():
        assert kind.__doc__
        assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert "__slots__" in vars(kind)
        names = {item.name for item in dataclasses.fields(kind)}
        assert set(re.findall(r"%\((\w+)\)", kind.message)) <= names | {"figures"}


def test_events_travel() -> None:
    """To another process, as spans do."""
    event = events.CallEnded(model="fake:model", texts=1, seconds=0.5, error="UnavailableError")

    assert pickle.loads(pickle.dumps(event)) == event == dataclasses.replace(event, time=0, call=7)
    assert event != dataclasses.replace(event, texts=2)
