"""Accounts that hold when locks, clocks, bills and processes misbehave."""

from __future__ import annotations

import csv
import json
import socket
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from pyarrow import parquet

from embedrouter import Budget, Model, RetryPolicy, Router
from embedrouter.errors import BudgetExceededError, ConfigError, NoModelAvailableError, RequestTimeoutError
from embedrouter.models import plausible_count
from embedrouter.spending import Account, Ledger
from embedrouter.spending import _keeping as ledger_module
from embedrouter.testing import FakeBackend
from embedrouter.types import Answer, InputType
from tests.command_line import Ended, run
from tests.either import embed
from tests.emulator import Emulator, Fault
from tests.hammer import MODEL, a_program, spending

ONCE = RetryPolicy(attempts=1, cooldown=0)

# Savings at the end of a process


MORE_KINDS = ("forkserver", "spawn", "pool", "executor", "exit")


@pytest.mark.parametrize(
    "kind",
    ["fork", "daemon thread", *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE_KINDS)],
)
@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def _reserved(ledger: Ledger, amount: str, **told: Any) -> int:
    reservation = ledger.reserve(Budget(), spending(amount, **told))
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
    assert plausible_count(2_000_000, 150_000, 500) == (2_000_000, None)
    assert plausible_count(2_000_001, 150_000, 500) == (None, "2000001")


# Requests without an answer


def lose(ledger: Ledger, amount: str | None = "0.10", **told: Any) -> None:
    """Book a request that was sent and never answered."""
    reservation = ledger.reserve(Budget(), spending(amount, **told))
    assert isinstance(reservation, int)
    ledger.mark_unconfirmed(reservation)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db", now=Clock("2025-11-30"))) as opened:
        yield opened


def test_an_outage_does_not_close_a_total_for_ever(tmp_path: Path, asynchronous: bool) -> None:
    """The refusal says what is unconfirmed and what to do; released, it counts no longer."""
    fake = FakeBackend(outcomes=[RequestTimeoutError("no answer")] * 7)
    budget = Budget(total="0.000015")
    router = Router([fake.model(price="1")], cache=None, ledger=tmp_path / "l.db", budget=budget, retry=ONCE)
    for number in range(7):
        with pytest.raises(NoModelAvailableError):
            embed(router, asynchronous, [f"lost {number}"], input_type="document")
    with pytest.raises(BudgetExceededError, match=r"\$0\.000014 of them are unconfirmed: .*embedrouter ledger show"):
        embed(router, asynchronous, ["one more"], input_type="document")
    billed, *others = router.ledger.unconfirmed()
    confirmed = router.ledger.confirm(billed.number)
    released = [router.ledger.release(others[0].number), router.ledger.release(older_than=timedelta())]
    again = [router.ledger.release(others[0].number), router.ledger.confirm(billed.number)]
    embed(router, asynchronous, ["one more"], input_type="document")
    totals = router.ledger.totals("model")["fake:model"]
    router.close()

    assert (confirmed, released, again) == (1, [1, 5], [0, 0])
    assert (totals.requests, totals.cost, totals.unconfirmed) == (2, Decimal("0.000004"), 0)


@pytest.mark.parametrize(("cap", "later"), [("per_day", "2025-12-01"), ("per_month", "2025-12-01")])
def test_a_window_forgets_what_was_unconfirmed_in_another(ledger: Ledger, tmp_path: Path, cap: str, later: str) -> None:
    """A total does not."""
    budget = Budget(**{cap: "1.00"})  # type: ignore[arg-type]
    lose(ledger, "0.90")
    late = Ledger(tmp_path / "ledger.db", now=Clock(later))
    refused = ledger.refusal(budget, Decimal("0.50")), late.refusal(Budget(total="1.00"), Decimal("0.50"))
    free = late.refusal(budget, Decimal("0.50"))
    late.close()

    assert all("$0.90 of them are unconfirmed" in str(refusal) for refusal in refused)
    assert free is None


def test_requests_are_released_and_confirmed_by_age(ledger: Ledger, tmp_path: Path) -> None:
    """Those in flight are left alone, whatever is asked."""
    lose(ledger, "0.10")
    with closing(Ledger(tmp_path / "ledger.db", now=Clock("2025-12-03"))) as late:
        lose(late, "0.20")
        in_flight = late.reserve(Budget(), spending("0.40"))
        assert isinstance(in_flight, int)
        counts = [late.release(older_than=timedelta(days=4)), late.release(older_than=timedelta(days=2))]
        counts += [late.confirm(in_flight), late.confirm(older_than=timedelta(seconds=-1))]
        late.settle(in_flight, 100, Decimal("0.40"))
        totals = late.totals("day")
        left = late.unconfirmed()

    assert counts == [0, 1, 0, 1]
    assert (totals, left) == ({"2025-12-03": Account(2, 2, 200, Decimal("0.60"))}, [])


def test_a_late_answer_of_a_released_request_is_booked(ledger: Ledger) -> None:
    """A process that slept for hours brings its bill after all; of a confirmed request it is booked already."""
    reservations = [ledger.reserve(Budget(), spending("0.10", tokens=100, free_tokens=50)) for _ in range(2)]
    for reservation, change in zip(reservations, (ledger.release, ledger.confirm), strict=True):
        assert isinstance(reservation, int)
        ledger.mark_unconfirmed(reservation)
        change(reservation)
    for reservation in reservations:
        assert isinstance(reservation, int)
        ledger.settle(reservation, 80, Decimal("0.08"))
    spent = sum(account.cost for account in ledger.totals("day").values())

    assert spent == Decimal("0.18")
    assert "$0.18 are spent" in str(ledger.refusal(Budget(total="0.2"), Decimal("0.1")))
    assert ledger.free_tokens(MODEL, 50) == 50


def test_free_tokens_of_a_released_request_are_free_again(ledger: Ledger) -> None:
    """Those of a confirmed one are used."""
    for change in (ledger.release, ledger.confirm):
        lose(ledger, "0.10", tokens=100, free_tokens=150)
        change(older_than=timedelta(seconds=-1))

    assert ledger.free_tokens(MODEL, 150) == 50


@pytest.mark.parametrize("told", [{}, {"number": 1, "older_than": timedelta()}])
def test_requests_are_named_in_one_way(ledger: Ledger, told: dict[str, Any]) -> None:
    """Neither nothing nor both."""
    for change in (ledger.release, ledger.confirm):
        with pytest.raises(ConfigError, match="Name one request"):
            change(**told)


class Refusing(FakeBackend):
    """A backend of the user's whose client cannot connect."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        raise self.error


def of_urllib() -> Exception:
    try:
        urllib.request.urlopen("http://127.0.0.1:9", timeout=5)
    except OSError as error:
        return error
    raise AssertionError


def of_httpx() -> Exception:
    try:
        httpx.get("http://127.0.0.1:9")
    except httpx.HTTPError as error:
        return error
    raise AssertionError


def of_requests() -> Exception:
    try:
        requests.get("http://127.0.0.1:9", timeout=5)
    except requests.RequestException as error:
        return error
    raise AssertionError


NOT_CONNECTED = [of_urllib, of_httpx, of_requests, lambda: ConnectionRefusedError(111, "refused"), socket.gaierror]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("failure", NOT_CONNECTED)
def test_a_connection_that_was_refused_costs_nothing_with_a_client_of_the_users(
    tmp_path: Path, failure: Callable[[], Exception], wrapped: bool, asynchronous: bool
) -> None:
    """Not a byte was sent, whichever library says so."""
    error = failure()
    backend = Refusing(error)

    def fail(texts: list[str]) -> list[list[float]]:
        raise error

    model = (
        Model.wrap(fail, name="own:model", space="own", dimensions=8, price="1")
        if wrapped
        else backend.model(price="1")
    )
    router = Router([model], cache=None, ledger=tmp_path / "l.db", retry=ONCE)
    with pytest.raises((type(error), NoModelAvailableError)):
        embed(router, asynchronous, ["one two"], input_type="document")
    totals, doubtful = router.ledger.totals("model"), router.ledger.unconfirmed()
    router.close()

    assert (totals, doubtful) == ({}, [])


# The commands


def call(*arguments: object) -> Ended:
    return run("ledger", *arguments)


def test_the_commands_show_confirm_and_release(ledger: Ledger, tmp_path: Path) -> None:
    """By number, or all that are old; a wrong number changes nothing."""
    file = tmp_path / "ledger.db"
    for amount in ("0.10", "0.20", "0.40"):
        lose(ledger, amount, tag="ingest")
    ledger.settle(_reserved(ledger, "0.01"), 100, Decimal("0.01"), "999999999")
    numbers = [request.number for request in ledger.unconfirmed()]
    told = json.loads(call("show", "--ledger", file, "--json").stdout)
    shown = call("show", "--cache", tmp_path).stdout
    wrong = call("release", numbers[0], 77, "--ledger", file)
    unchanged = len(ledger.unconfirmed())
    confirmed = call("confirm", numbers[0], "--ledger", file)
    old = call("release", "--older-than", 0, "--ledger", file)
    totals = ledger.totals("tag")
    nothing = call("release", "--ledger", file)

    assert [request["number"] for request in told["unconfirmed"]] == numbers
    assert [bill["reported"] for bill in told["implausible_bills"]] == ["999999999"]
    assert "ingest" in shown
    assert "999999999" in shown
    assert (wrong.returncode, unchanged) == (1, 3)
    assert "No unconfirmed request has the number 77" in wrong.stderr
    assert confirmed.stdout.startswith("1 requests were confirmed")
    assert old.stdout.startswith("2 requests were released")
    assert totals["ingest"] == Account(1, 1, 100, Decimal("0.10"))
    assert nothing.returncode == 2


def test_a_request_with_a_number_below_zero_can_be_named(ledger: Ledger, tmp_path: Path) -> None:
    """Requests that were booked while the file was locked have one."""
    file = tmp_path / "ledger.db"
    with closing(Ledger(file, now=Clock("2025-11-30"), busy_timeout=0.1)) as locked_out:
        lose(locked_out, "0.10")
        with locked(file, "BEGIN IMMEDIATE"):
            lose(locked_out, "0.20")
    number = min(request.number for request in ledger.unconfirmed())
    done = call("release", number, "--ledger", file)

    assert number < 0
    assert done.returncode == 0, done.stderr
    assert [request.amount for request in ledger.unconfirmed()] == [Decimal("0.10")]


def test_compacting_keeps_the_sums_and_makes_the_file_smaller(ledger: Ledger, tmp_path: Path) -> None:
    """While another has it open; what is unconfirmed keeps its detail."""
    file = tmp_path / "ledger.db"
    for number in range(1500):
        ledger.settle(_reserved(ledger, "0.01"), 100, Decimal("0.01"))
        if number % 500 == 0:
            lose(ledger, "0.10")
    ledger.release(ledger.unconfirmed()[0].number)
    before = ledger.totals("day"), ledger.unconfirmed()
    young = json.loads(call("compact", "--older-than", 10_000, "--ledger", file, "--json").stdout)
    done = json.loads(call("compact", "--older-than", 0, "--ledger", file, "--json").stdout)

    assert (ledger.totals("day"), ledger.unconfirmed()) == before
    assert (young["removed"], done["removed"]) == (0, 1501)
    assert done["bytes"] < done["bytes_before"] / 2


def test_accounts_are_exported_exactly(ledger: Ledger, tmp_path: Path) -> None:
    """To a spreadsheet, which must compute no tag, and to a data frame."""
    file = tmp_path / "ledger.db"
    ledger.settle(_reserved(ledger, "0.000000000001"), 100, Decimal("0.000000000001"))
    ledger.settle(_reserved(ledger, "0.10", tag="=1+1"), 100, Decimal("0.10"))
    ledger.save(MODEL, "=1+1", 2, 30, Decimal("0.003"))
    lose(ledger, "0.20", tag="=1+1")
    printed = call("export", "--csv", "--ledger", file).stdout
    written = [call("export", tmp_path / name, "--ledger", file) for name in ("a.csv", "a.parquet", "a.csv", "a.txt")]
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text("utf-8").splitlines()))
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()

    assert [done.returncode for done in written] == [0, 0, 1, 2]
    assert list(csv.DictReader(printed.splitlines())) == rows
    assert [(row["day"], row["tag"], row["cost"], row["unconfirmed"], row["saved"]) for row in rows] == [
        ("2025-11-30", "", "0.000000000001", "0", "0"),
        ("2025-11-30", "'=1+1", "0.1", "0.2", "0.003"),
    ]
    assert [(row["tag"], row["cost"], row["saved_tokens"]) for row in table] == [
        ("", Decimal("0.000000000001"), 0),
        ("=1+1", Decimal("0.10"), 30),
    ]


@pytest.mark.parametrize("command", ["confirm 1", "release 1", "compact", "export --csv"])
def test_a_command_makes_no_ledger_and_takes_no_other_file(tmp_path: Path, command: str) -> None:
    """A wrong path is told."""
    file = tmp_path / "ledger.db"
    missing = run("ledger", *command.split(), "--ledger", file)
    made = file.exists()
    file.write_bytes(b"no database" * 1000)
    foreign = run("ledger", *command.split(), "--ledger", file)

    assert (missing.returncode, foreign.returncode, made) == (1, 1, False)
    assert "nothing is booked yet" in missing.stderr
    assert "cannot be read as a ledger" in foreign.stderr
