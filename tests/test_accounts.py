"""Accounts that hold when locks, clocks, bills and processes misbehave."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from embedrouter import Budget, Model, Router
from embedrouter.errors import BudgetExceededError
from embedrouter.models import plausible_count
from embedrouter.spending import Ledger
from embedrouter.spending import _ledger as ledger_module
from embedrouter.testing import FakeBackend
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.emulator import Emulator, Fault
from tests.hammer import a_program, spending

# Savings at the end of a process


@pytest.mark.parametrize("kind", ["fork", "forkserver", "spawn", "pool", "executor", "daemon thread", "exit"])
def test_a_process_that_pays_nothing_writes_its_savings(tmp_path: Path, kind: str, asynchronous: bool) -> None:
    """Workers skip ``atexit`` or are ended by a signal, and a thread may still be inside a call."""
    with Router([FakeBackend().model(price="1")], cache=tmp_path) as router:
        router.embed(["a b c"], input_type="document")
    a_program("warm_workers", folder=str(tmp_path), kind=kind, asynchronous=asynchronous)
    with closing(Ledger(tmp_path / "ledger.db")) as ledger:
        (account,) = ledger.totals("model").values()

    assert account.requests == 1
    assert account.saved_texts >= {"pool": 4, "executor": 4}.get(kind, 1)
    assert account.saved == account.saved_texts * Decimal("0.000003")


# Locks that pass


@contextmanager
def locked(file: Path, how: str) -> Iterator[None]:
    """Hold a file's write lock, in the way of a backup, of a shell that was left open, or of a file in another mode."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute(how)
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("opened", [False, True])
def test_a_router_goes_back_to_a_ledger_that_was_locked(
    tmp_path: Path, how: str, opened: bool, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the lock was there when the file was opened or came later; without a budget no call waits for long."""
    monkeypatch.setattr(ledger_module, "PATIENCE", 0.2)
    monkeypatch.setattr(ledger_module, "FLUSH_INTERVAL", 0.5)
    file = tmp_path / "ledger.db"
    router = Router([FakeBackend().model(price="1")], cache=None, ledger=file)
    if opened:
        embed(router, asynchronous, ["first text"], input_type="document")
    with locked(file, how):
        began = time.monotonic()
        for number in range(5):
            embed(router, asynchronous, [f"text {number}"], input_type="document")
        took = time.monotonic() - began
    time.sleep(0.6)
    embed(router, asynchronous, ["last text"], input_type="document")
    with closing(Ledger(file)) as other:
        booked = other.totals("model")
    router.close()

    assert took < 5
    assert {name: (account.requests, account.tokens) for name, account in booked.items()} == {
        "fake:model": (6 + opened, 2 * (6 + opened))
    }


def test_a_process_that_ends_while_the_ledger_is_locked_waits_for_it(tmp_path: Path) -> None:
    """A bill that is not written then is lost."""
    file = tmp_path / "ledger.db"
    a_program("book", file=str(file), amounts=["0.01"])
    inside = threading.Event()

    def hold() -> None:
        with locked(file, "BEGIN IMMEDIATE"):
            inside.set()
            time.sleep(4)

    holding = threading.Thread(target=hold)
    holding.start()
    inside.wait(10)
    a_program("book_and_leave", file=str(file), amounts=["0.25", "0.50"], quietly=True)
    holding.join()
    with closing(Ledger(file)) as ledger:
        totals = ledger.totals("day")

    assert sum(account.cost for account in totals.values()) == Decimal("0.76")


# Clocks that are set back


class Clock:
    """Seconds since 1970 that pass when told to."""

    def __init__(self, day: str) -> None:
        self.set(day)

    def set(self, day: str, hour: int = 12) -> None:
        self.now = datetime.fromisoformat(f"{day}T{hour:02}:00:00+00:00").timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("cap", "spent_on", "set_back_to", "later"),
    [
        ("per_day", "2026-11-30", "2026-11-29", "2026-12-01"),
        ("per_day", "2026-12-01", "2026-11-30", "2026-12-02"),
        ("per_day", "2027-01-01", "1970-01-01", "2027-01-02"),
        ("per_month", "2026-12-01", "2026-11-30", "2027-01-01"),
        ("per_month", "2027-01-31", "2026-12-31", "2027-02-01"),
    ],
)
@pytest.mark.parametrize("reopened", [False, True])
def test_no_window_comes_back_when_the_clock_is_set_back(
    tmp_path: Path, cap: str, spent_on: str, set_back_to: str, later: str, reopened: bool
) -> None:
    """The day before was used up too; nothing goes through until a new window begins, in any process."""
    file, clock = tmp_path / "ledger.db", Clock(set_back_to)
    budget = Budget(**{cap: "1.00"})  # type: ignore[arg-type]
    ledger = Ledger(file, now=clock)

    def through() -> int:
        return sum(isinstance(ledger.reserve(budget, spending("0.50")), int) for _ in range(3))

    counts = [through()]
    for day in (spent_on, set_back_to, spent_on, later):
        clock.set(day)
        if reopened:
            ledger.close()
            ledger = Ledger(file, now=clock)
        counts.append(through())
    ledger.close()

    assert counts == [2, 2, 0, 0, 2]


@pytest.mark.parametrize("cap", ["per_day", "per_month"])
def test_what_is_spent_under_a_clock_that_is_behind_counts_in_the_current_window(tmp_path: Path, cap: str) -> None:
    """Or it would count in a window that nothing is held against."""
    ahead, behind = (Ledger(tmp_path / "ledger.db", now=Clock(day)) for day in ("2026-12-01", "2026-11-30"))
    budget = Budget(**{cap: "1.00"})  # type: ignore[arg-type]
    outcomes = [one.reserve(budget, spending("0.40")) for one in (ahead, behind, ahead, behind)]
    refusal = behind.refusal(budget, Decimal("0.40"))
    for one in (ahead, behind):
        one.close()

    assert [isinstance(outcome, int) for outcome in outcomes] == [True, True, False, False]
    assert "latest day in the ledger" in str(outcomes[3])
    assert "latest day in the ledger" not in str(outcomes[2])
    assert refusal == outcomes[3]


def test_a_router_counts_in_the_window_of_the_latest_day(tmp_path: Path, asynchronous: bool) -> None:
    """Another machine, or this one before its clock was corrected, spent on a day that has not come here."""
    tomorrow = Clock((datetime.now(UTC) + timedelta(days=1)).date().isoformat())
    with closing(Ledger(tmp_path / "ledger.db", now=tomorrow)) as other:
        other.reserve(Budget(), spending("0.9999995"))
    router = Router([FakeBackend().model(price="1")], cache=tmp_path, budget=Budget(per_day="1"))
    with pytest.raises(BudgetExceededError, match="latest day in the ledger"):
        embed(router, asynchronous, ["one"], input_type="document")
    router.close()


def test_a_booking_that_waited_over_midnight_belongs_to_its_day(tmp_path: Path) -> None:
    """Others have gone on to the next day in the file."""
    file, clock = tmp_path / "ledger.db", Clock("2026-11-30")
    late = Ledger(file, now=clock, busy_timeout=0.1)
    late.settle(_reserved(late, "0.10"), 10, Decimal("0.10"))
    with locked(file, "BEGIN IMMEDIATE"):
        late.settle(_reserved(late, "0.25"), 10, Decimal("0.25"))
    with closing(Ledger(file, now=Clock("2026-12-01"))) as other:
        other.settle(_reserved(other, "0.50"), 10, Decimal("0.50"))
    late.close()
    with closing(Ledger(file, now=clock)) as ledger:
        costs = {day: account.cost for day, account in ledger.totals("day").items()}

    assert costs == {"2026-11-30": Decimal("0.35"), "2026-12-01": Decimal("0.50")}


def _reserved(ledger: Ledger, amount: str) -> int:
    reservation = ledger.reserve(Budget(), spending(amount))
    assert isinstance(reservation, int)
    return reservation


# Bills that cannot be true


class Billing(FakeBackend):
    """Reports a given number as the billed tokens."""

    def __init__(self, reported: Any) -> None:
        super().__init__()
        self.reported = reported

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        return replace(super().embed(texts, input_type, timeout=timeout), tokens=self.reported)


SENSELESS = [0, -1, -3.5, 2.5, 999_999_999, 10**12, 10**400, 5_000, float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("reported", SENSELESS, ids=lambda number: f"{number}"[:12])
def test_a_bill_that_cannot_be_true_is_booked_as_estimated_marked_and_logged(
    tmp_path: Path, reported: Any, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It would close the budget, or hide what was spent; the vectors are right, and kept."""
    budget = Budget(total="0.000010")
    router = Router([Billing(reported).model(price="1")], cache=tmp_path, budget=budget)
    for text in ("one two three", "four five six"):
        result = embed(router, asynchronous, [text], input_type="document")
        assert result.usage.tokens == 3
    warm = embed(router, asynchronous, ["one two three"], input_type="document")
    totals = router.ledger.totals("model")["fake:model"]
    marked = router.ledger.implausible_bills()
    router.close()

    assert (totals.requests, totals.tokens, totals.cost) == (2, 6, Decimal("0.000006"))
    assert warm.usage.saved == Decimal("0.000003")
    assert [(bill.texts, bill.tokens, bill.amount) for bill in marked] == [(1, 3, Decimal("0.000003"))] * 2
    logged = [record.getMessage() for record in caplog.records if "billed tokens" in record.getMessage()]
    assert len(logged) == 1
    assert marked[0].reported in logged[0]
    assert "one two three" not in logged[0]


@pytest.mark.parametrize("reported", [3, 1, 30, 200, "3", None, True])
def test_a_bill_that_can_be_true_is_not_marked(tmp_path: Path, reported: Any, asynchronous: bool) -> None:
    """Servers add words to each text and count in their own way; some report no number."""
    router = Router([Billing(reported).model(price="1")], cache=tmp_path)
    embed(router, asynchronous, ["one two three"], input_type="document")
    totals = router.ledger.totals("model")["fake:model"]
    marked = router.ledger.implausible_bills()
    router.close()

    assert totals.tokens == (reported if type(reported) is int else 3)
    assert marked == []


@pytest.mark.parametrize("name", ["openai:text-embedding-3-small", "cohere:embed-v4.0", "voyage:voyage-4"])
@pytest.mark.parametrize("reported", [0, 777_777_777, -4])
def test_no_provider_can_close_a_budget_with_one_bill(
    name: str, reported: int, emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """Whichever field the number is in."""
    emulator.script(*[Fault.reported_tokens(reported)] * 2)
    url = getattr(emulator, f"{name.partition(':')[0]}_url")
    router = Router([Model(name, base_url=url, api_key="k")], cache=tmp_path, budget=Budget(total="0.01"))
    for text in ("one two three", "four five six"):
        embed(router, asynchronous, [text], input_type="document")
    totals = router.ledger.totals("model")[name]
    marked = router.ledger.implausible_bills()
    router.close()

    assert totals.requests == 2
    assert 6 <= totals.tokens < 50
    assert [bill.reported for bill in marked] == [f"{reported}"] * 2


def test_a_small_request_costs_no_more_than_the_texts_of_a_large_bill() -> None:
    """A bill in proportion to its texts is believed, however large."""
    assert plausible_count(120_000, 150_000, 500) == (120_000, None)
    assert plausible_count(4_000, 150_000, 500) == (4_000, None), "a server that cuts long texts"
    assert plausible_count(2_999, 150_000, 500) == (None, "2999")
    assert plausible_count(1_600_000, 150_000, 500) == (1_600_000, None)
    assert plausible_count(1_600_001, 150_000, 500) == (None, "1600001")
