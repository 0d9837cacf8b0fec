"""What a ledger can be asked: a period, a tag, single requests, what is left of a budget, what others would cost."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedrouter
from embedrouter import Account, Budget, CapLeft, Router, TieredRouter
from embedrouter.cli._accounts import WELL_KNOWN, account_rows
from embedrouter.errors import ConfigError
from embedrouter.models import load_catalogue
from embedrouter.spending import Learned, Ledger
from embedrouter.testing import FakeBackend
from tests.command_line import run
from tests.hammer import spending
from tests.properties import examples
from tests.test_accounts import Clock

SMALL = "openai:text-embedding-3-small"


def book(ledger: Ledger, amount: str | None, tokens: int = 100, **told: Any) -> None:
    """Book a request as it was estimated."""
    reservation = ledger.reserve(Budget(), spending(amount, tokens=tokens, **told))
    assert isinstance(reservation, int)
    ledger.settle(reservation, tokens, None if amount is None else Decimal(amount))


@pytest.fixture
def clock() -> Clock:
    return Clock("2026-03-01")


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """Three months of two projects, a local model and one of unknown price."""
    with closing(Ledger(tmp_path / "ledger.db", now=clock, keep_detail_days=400)) as opened:
        for day, tag, amount, model in (
            ("2026-02-28", "x", "0.10", SMALL),
            ("2026-03-01", "x", "0.20", SMALL),
            ("2026-03-31", "x", "0.30", SMALL),
            ("2026-03-31", "y", "0.40", SMALL),
            ("2026-04-01", "y", None, "other:model"),
            ("2026-04-01", "y", "0", "local:model"),
            ("2026-04-02", "", "5.00", SMALL),
        ):
            clock.set(day)
            book(opened, amount, tag=tag, model=model, texts=5, pieces=2)
            opened.save(model, tag, 1, 50, Decimal(amount or 0) / 2)
        opened.flush()
        yield opened


# In a program


@pytest.mark.parametrize(
    ("asked", "cost"),
    [
        ({}, "6.00"),
        ({"tag": "x"}, "0.60"),
        ({"tag": ""}, "5.00"),
        ({"since": "2026-03", "until": "2026-03", "tag": "x"}, "0.50"),
        ({"since": "2026-03-01", "until": "2026-03-31"}, "0.90"),
        ({"since": date(2026, 3, 2), "until": datetime(2026, 4, 1, 23, tzinfo=UTC)}, "0.70"),
        ({"until": "2026-02"}, "0.10"),
        ({"since": "2027"}, "0"),
        ({"until": datetime(2026, 3, 1, 1, tzinfo=UTC).astimezone()}, "0.30"),
    ],
    ids=str,
)
def test_totals_and_requests_of_a_period_and_a_tag(ledger: Ledger, asked: dict[str, Any], cost: str) -> None:
    """Project x in March; days are UTC, and the last one counts."""
    tables = [ledger.totals(by, **asked) for by in ("day", "month", "model", "tag")]
    requests = ledger.requests(None, **asked)

    assert {sum(table.values(), Account()).cost for table in tables} == {Decimal(cost)}
    assert sum((request.amount or Decimal(0) for request in requests), Decimal(0)) == Decimal(cost)
    assert sum(account.saved for account in tables[0].values()) == Decimal(cost) / 2


def test_a_table_shows_an_unknown_cost_as_unknown(ledger: Ledger) -> None:
    """And what was free as free."""
    shown = [line.split() for line in repr(ledger.totals("model")).splitlines()]

    assert shown[1][0:5] == ["local:model", "1", "3", "100", "$0.00"]
    assert shown[3][0:5] == ["other:model", "1", "3", "100", "unknown"]


@pytest.mark.parametrize("day", ["March", "2026-13", "2026-02-30", "2026-3-1", 20260301, "", "2026-03-01T00:00"])
def test_what_is_no_day_is_refused(ledger: Ledger, day: Any) -> None:
    with pytest.raises(ConfigError, match="no day such as '2026-03-01', and no month such as"):
        ledger.totals("day", since=day)
    with pytest.raises(ConfigError, match="Write the earlier day as since"):
        ledger.requests(since="2026-03", until="2026-02")


def test_single_requests_come_latest_first_with_their_states(ledger: Ledger) -> None:
    lost = ledger.reserve(Budget(), spending("0.07", tokens=70, texts=3))
    ledger.mark_unconfirmed(int(lost))
    given_back = ledger.reserve(Budget(), spending("0.08"))
    ledger.mark_unconfirmed(int(given_back))
    ledger.release(int(given_back))
    ledger.reserve(Budget(), spending(None, tokens=9))
    last, *others = ledger.requests(4)

    assert (last.state, last.amount, last.tokens, last.estimate) == ("reserved", None, 9, 9)
    assert [item.state for item in others] == ["released", "unconfirmed", "settled"]
    assert (others[-1].texts, others[-1].pieces, others[-1].amount) == (3, 2, Decimal("5.00"))
    assert others[-1].at == datetime(2026, 4, 2, 12, tzinfo=UTC)


def test_the_estimate_of_a_request_stays_beside_its_bill(ledger: Ledger) -> None:
    reservation = ledger.reserve(Budget(), spending("1.00", tokens=100, exact=False))
    ledger.settle(int(reservation), 60, Decimal("0.60"))

    assert (ledger.requests(1)[0].tokens, ledger.requests(1)[0].estimate) == (60, 100)


def test_a_bill_over_its_estimate_is_forgotten_after_many_that_are_not(ledger: Ledger) -> None:
    """Otherwise no estimate of the model would be "at most" for as long as the ledger lives."""

    def bill(tokens: int) -> None:
        reservation = ledger.reserve(Budget(), spending("1.00", tokens=100, exact=False))
        ledger.settle(int(reservation), tokens, Decimal("1.00"))

    def learned() -> Learned:
        found = ledger.requests(1)[0]
        return ledger.learned(found.model, "document", exact=False)

    bill(120)
    for _ in range(150):
        bill(60)
    remembered = learned()
    for _ in range(100):
        bill(60)

    assert (remembered.requests, remembered.exceeded) == (151, 1)
    assert (learned().exceeded, learned().likely(1000, 0.6)) == (0, pytest.approx(600, abs=5))
    for _ in range(300):
        bill(90)
    assert learned().requests <= 200
    assert learned().likely(1000, 0.6) > 800  # what is billed now counts more than what was


def test_a_tiered_router_tells_what_is_left_of_the_caps_of_each_tier(tmp_path: Path, asynchronous: bool) -> None:
    """A ledger that both share, and a budget of each: the same spending is counted against both."""
    own = Budget(per_day="3", tags={"a": Budget(per_month="1")})
    low, high = (
        Router([FakeBackend(space=tier).model(price="1")], cache=None, ledger=tmp_path / "l.db", budget=budget)
        for tier, budget in (("low", own), ("high", Budget(total="5")))
    )
    with TieredRouter({"low": low, "high": high}) as router:
        router.embed(["one two"], input_type="document", tier="low")
        left = asyncio.run(router.abudget_left()) if asynchronous else router.budget_left()

    assert list(left) == ["low: per_day", "low: per_month of a", "high: total"]
    assert left["low: per_day"].counted == left["high: total"].counted == Decimal("0.000002")
    assert "high: total" in repr(left)


def test_what_is_left_of_each_cap_and_when_it_resets(tmp_path: Path, asynchronous: bool) -> None:
    """In both forms; without a budget there is nothing to tell, and no file is made."""
    budget = Budget(per_call="1", per_month="50", tags={"team-a": Budget(per_day="0.000002"), "team-b": "0.50/day"})
    with Router([FakeBackend().model(price="1")], cache=None, ledger=tmp_path / "l.db", budget=budget) as router:
        untouched = router.budget_left()
        made = (tmp_path / "l.db").exists()
        with embedrouter.tag("team-a"):
            router.embed(["one two"], input_type="document")
        left = asyncio.run(router.abudget_left()) if asynchronous else router.budget_left()
    with Router([FakeBackend().model(price="1")], cache=None, ledger=":memory:") as router:
        assert router.budget_left() == {}

    assert not made
    assert untouched["per_month"].left == Decimal(50)
    assert list(left) == ["per_call", "per_month", "per_day of team-a", "per_day of team-b"]
    month, day = left["per_month"], left["per_day of team-a"]
    assert (month.tag, month.cap, month.counted, month.left) == (
        "",
        "per_month",
        Decimal("0.000002"),
        Decimal("49.999998"),
    )
    assert (day.tag, day.left) == ("team-a", 0)
    assert day.resets_at is not None
    assert day.resets_at.hour == day.resets_at.minute == 0
    assert timedelta(0) < (day.resets_in or timedelta(0)) <= timedelta(days=1)
    assert (left["per_call"].resets_at, left["per_call"].left) == (None, Decimal(1))


def test_windows_reset_at_the_ends_of_the_ledgers_days(ledger: Ledger, clock: Clock) -> None:
    """Also where the clock is behind the latest day in the ledger."""
    budget = Budget(per_day="1", per_month="6", total="9")
    clock.set("2026-03-31", hour=18)
    left = ledger.left(budget)
    clock.set("2026-12-31", hour=18)
    later = ledger.left(budget)

    assert left["per_day"] == CapLeft(
        tag="",
        cap="per_day",
        limit=Decimal(1),
        counted=Decimal(5),
        left=Decimal(0),
        resets_at=datetime(2026, 4, 3, tzinfo=UTC),
        resets_in=timedelta(days=2, hours=6),
    )
    assert (left["per_month"].left, left["per_month"].resets_at) == (Decimal(1), datetime(2026, 5, 1, tzinfo=UTC))
    assert (left["total"].left, left["total"].resets_at) == (Decimal(3), None)
    assert (later["per_month"].left, later["per_month"].resets_in) == (Decimal(6), timedelta(hours=6))


# The columns


ACCOUNTS = st.builds(
    lambda paid, free, unpriced, cost, saved, saved_free: Account(
        requests=1,
        texts=paid,
        pieces=free,
        tokens=paid + free + unpriced,
        cost=Decimal(cost) / 1000 if paid else Decimal(0),
        free_tokens=free,
        unpriced_tokens=unpriced,
        saved_tokens=saved + saved_free,
        saved_free_tokens=saved_free,
    ),
    *[st.sampled_from([0, 0, 7, 900])] * 6,
)


@examples(60)
@given(st.lists(ACCOUNTS, min_size=1, max_size=6))
def test_every_column_adds_up_as_it_is_shown(accounts: list[Account]) -> None:
    """What is counted in different ways is never in one column; unknown amounts are no zeros."""
    rows = account_rows(
        "tag", [*((f"{n}", account) for n, account in enumerate(accounts)), ("", sum(accounts, Account()))]
    )
    for column in list(rows[0])[1:]:
        known: list[Any] = [row[column] for row in rows[:-1] if row[column] is not None]
        if rows[-1][column] is None:  # nothing of it is known: $0 beside an unknown amount is no total
            assert not sum(known)
        else:
            assert rows[-1][column] == sum(known)
    for account, row in zip(accounts, rows, strict=False):
        assert (row["cost"] is None) == (0 < account.unpriced_tokens == account.tokens)
        columns = ("tokens", "paid tokens", "free tokens", "unpriced tokens")
        shown: list[Any] = [row.get(name, 0) for name in columns]
        assert sum(shown) == account.tokens


def test_texts_that_are_sent_in_pieces_are_counted_apart(tmp_path: Path) -> None:
    """Two files of which one is long are one text and its pieces, and not five files."""
    model = FakeBackend().model(price="1", max_input_tokens=10)
    with Router([model], cache=tmp_path, on_too_long="mean") as router:
        router.embed(["a short text", " ".join(map(str, range(40)))], input_type="document")
        (account,) = router.ledger.totals("model").values()
        router.embed(["a short text", " ".join(map(str, range(40)))], input_type="document")
        (again,) = router.ledger.totals("model").values()

    assert (account.texts, account.pieces) == (1, 5)
    assert (again.saved_texts, again.saved_tokens) == (2, account.tokens)


# On the command line


def stats(folder: Path, *arguments: object) -> str:
    done = run("stats", "--cache", folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def facts(folder: Path, *arguments: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(stats(folder, *arguments, "--json"))
    return told


@pytest.mark.usefixtures("ledger")
def test_stats_of_a_project_in_march(tmp_path: Path) -> None:
    found = facts(tmp_path, "--tag", "x", "--since", "2026-03", "--until", "2026-03", "--by", "month")

    assert found["total"]["cost"] == "0.5"
    assert list(found["rows"]) == ["2026-03"]
    assert "Nothing of this is booked" in stats(tmp_path, "--since", "2027")
    assert "is no day" in run("stats", "--cache", tmp_path / "none", "--since", "March").stderr


@pytest.mark.usefixtures("ledger")
def test_the_dearest_come_first_and_unknown_is_not_zero(tmp_path: Path) -> None:
    lines = [line.split() for line in stats(tmp_path, "--by", "model").splitlines() if ":" in line]
    tags = list(facts(tmp_path, "--by", "tag")["rows"])

    assert tags == ["", "x", "y"]
    assert [line[0] for line in lines[:3]] == [SMALL, "other:model", "local:model"]
    assert "unknown" in lines[1]
    assert "$0.00" in lines[2]
    assert "unknown" not in lines[2]


@pytest.mark.usefixtures("ledger")
def test_this_project_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its figures are not those of a demo or of others."""
    monkeypatch.setenv("EMBEDROUTER_TAG", "x")
    by_day, by_tag, found = stats(tmp_path), stats(tmp_path, "--by", "tag"), facts(tmp_path)
    monkeypatch.setenv("EMBEDROUTER_TAG", "nothing-yet")
    none = stats(tmp_path)

    assert by_day.startswith("The project x\n")
    assert by_day.index("\nAll\n") < by_day.rindex("total")
    assert "$0.60" in by_day[: by_day.index("\nAll\n")]
    assert by_tag.startswith("The project x: 3 requests, 300 tokens, $0.60; saved $0.30\n")
    assert found["project"]["tag"] == "x"
    assert set(found["project"]["rows"]) == {"2026-02-28", "2026-03-01", "2026-03-31"}
    assert "The project" not in none


@pytest.mark.usefixtures("ledger")
def test_csv_has_the_sums_or_the_requests(tmp_path: Path) -> None:
    sums = list(csv.DictReader(io.StringIO(stats(tmp_path, "--by", "tag", "--csv"))))
    requests = list(csv.DictReader(io.StringIO(stats(tmp_path, "--requests", "3", "--csv"))))
    none = list(csv.reader(io.StringIO(stats(tmp_path, "--since", "2027", "--csv"))))

    assert sum(Decimal(row["cost"]) for row in sums) == 6
    assert [(row["time"], row["model"], row["cost"]) for row in requests] == [
        ("2026-04-02 12:00:00", SMALL, "5"),
        ("2026-04-01 12:00:00", "local:model", "0"),
        ("2026-04-01 12:00:00", "other:model", ""),
    ]
    assert none[0][:2] == ["day", "requests"]
    assert run("stats", "--cache", tmp_path, "--csv", "--json").returncode == 2


@pytest.mark.usefixtures("ledger")
def test_what_other_models_would_have_cost(tmp_path: Path) -> None:
    """Of the tokens that were billed, and of those that the cache has saved, too."""
    (large,) = facts(tmp_path, "--compare-with", "openai:text-embedding-3-large")["compared"]
    shown = stats(tmp_path, "--compare")
    unknown = run("stats", "--cache", tmp_path, "--compare-with", "openai:text-embedding-3-larg")

    assert Decimal(large["cost"]) == 700 * Decimal("0.13") / 1_000_000
    assert Decimal(large["without cache"]) == 1050 * Decimal("0.13") / 1_000_000
    assert "Tokenizers differ" in shown
    assert all(name in shown for name in WELL_KNOWN)
    assert all(load_catalogue()[name].price is not None for name in WELL_KNOWN)
    assert "Did you mean 'openai:text-embedding-3-large'?" in unknown.stderr


def test_caps_of_a_configuration_are_shown_by_stats_and_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With those of tags; a cap that is used up is a warning of the doctor's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedrouter.toml").write_text(
        'models = ["wordllama:l2_supercat_256"]\ncache = "kept"\n[budget]\nper_month = "50"\n[budget.tags]\n'
        '"team-a" = "2/day"\n"team-b" = "0.10/call"\n'
    )
    with closing(Ledger(tmp_path / "kept" / "ledger.db")) as opened:
        book(opened, "2.00", tag="team-a")
    shown = run("stats", "--config", "embedrouter.toml", "--requests", "5").stdout
    told = json.loads(run("stats", "--config", "embedrouter.toml", "--json").stdout)["budget"]
    checked = run("doctor", "--config", "embedrouter.toml").stdout

    assert re.search(
        r"per_month +everything +\$50\.00 +\$2\.00 +\$48\.00 +20\d\d-\d\d-01 00:00 UTC, in [\d.]+ h", shown
    )
    assert re.search(r"per_day +tag team-a +\$2\.00 +\$2\.00 +\$0\.00 ", shown)
    assert re.search(r"per_call +tag team-b .* each call", shown)
    assert [cap["left"] for cap in told] == ["48", "0", "0.1"]
    assert re.search(r"ok +per_month: \$48\.00 of \$50\.00 are left, until 20\d\d-\d\d-01", checked)
    assert re.search(r"warning +per_day of team-a: \$0\.00 of \$2\.00 are left.*refused", checked)
