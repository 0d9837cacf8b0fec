"""Budgets of tags: caps that count what is booked under one name, beside those of everything."""

from __future__ import annotations

import pickle
import sqlite3
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import embedrouter
from embedrouter import Budget, Router
from embedrouter.config import given
from embedrouter.description import describe
from embedrouter.errors import BudgetExceededError, ConfigError, DegradedWarning
from embedrouter.events import BudgetRefused
from embedrouter.router import settings_of
from embedrouter.spending import Ledger
from embedrouter.testing import FakeBackend
from tests.either import embed
from tests.hammer import Process, spending
from tests.test_accounts import Clock

TEAMS = Budget(per_month="50", tags={"team-a": Budget(per_day="2"), "team-b": "0.50/day, 0.10/call"})


@pytest.fixture
def clock() -> Clock:
    return Clock("2026-11-30")


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db", now=clock)) as opened:
        yield opened


def take(ledger: Ledger, budget: Budget, amount: str, tag: str = "") -> int | str:
    """Set money aside under a tag."""
    return ledger.reserve(budget, spending(amount, tag=tag))


# The settings


def test_a_budget_of_tags_is_written_as_in_python_as_a_text_and_in_toml() -> None:
    """What a budget's text is understood as elsewhere is understood here, and what is described is read again."""
    as_tables = {"per_month": "50", "tags": {"team-a": {"per_day": "2"}, "team-b": "0.50/day, 0.10/call"}}
    models = {"models": ["openai:text-embedding-3-small"]}
    read = given({**models, "budget": as_tables}).router()["budget"]
    router = Router(["openai:text-embedding-3-small"], budget=TEAMS, cache=None, ledger=":memory:")
    described = describe(settings_of(router), {})

    assert read == TEAMS == pickle.loads(pickle.dumps(TEAMS))
    assert hash(read) == hash(TEAMS)
    assert TEAMS.tags["team-b"] == Budget(per_day="0.50", per_call="0.10")
    assert described["budget"]["tags"] == {
        "team-a": {"per_day": "2"},
        "team-b": {"per_call": "0.10", "per_day": "0.50"},
    }
    assert given(described).router()["budget"] == TEAMS


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"a": "5"}, r"tags\['a'\]: .*budget=\"5/day\""),
        ({"a": 5}, r"tags\['a'\]: .*budget=\"5/day\""),
        ({"a": {"per_day": "5"}}, r"tags\['a'\]: .*Budget\(per_day='5'\)"),
        ({"a": None}, r"tags\['a'\] is no budget. Write Budget\(per_day"),
        ({"": "5/day"}, "the name of a tag is a text"),
        ({7: "5/day"}, "the name of a tag is a text"),
        (["a"], "a mapping of names to budgets, such as Budget"),
        ({"a": Budget(tags={"b": "1/day"})}, r"tags\['a'\] has tags of its own. Put these beside it"),
    ],
)
def test_wrong_budgets_of_tags_are_answered_with_the_line_to_write(tags: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Budget(per_day="5", tags=tags)


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"a": {"per_week": "5"}}, r"budget\.tags\.a\.per_week.*per_day"),
        ({"a": 5}, r'Write "5/day", or a table \[budget\.tags\.NAME\]'),
        ("a", r"a table \[budget\.tags\]"),
        ({"a": {"tags": {"b": "1/day"}}}, "tags of its own"),
        ({"a": {"per_day": 0.5}}, '"0.5"'),
    ],
)
def test_wrong_tables_of_tags_are_answered_with_the_line_to_write(tags: Any, says: str) -> None:
    content = {"models": ["openai:text-embedding-3-small"], "budget": {"tags": tags}}
    with pytest.raises(ConfigError, match=says):
        given(content).router()


# The caps


def test_a_cap_of_a_tag_counts_the_spending_of_the_tag_alone(ledger: Ledger) -> None:
    """And the outer cap everything, whatever it is booked under."""
    budget = Budget(total="1.00", tags={"a": Budget(total="0.30"), "b": "0.50/day"})
    amounts = ["0.20", "0.20", "0.10", "0.30", "0.30", "0.20", "0.15"]
    tags = ["a", "a", "a", "b", "b", "", ""]
    outcomes = [take(ledger, budget, amount, tag) for amount, tag in zip(amounts, tags, strict=True)]
    ledger.settle(int(outcomes[0]), 100, Decimal("0.05"))
    again = [take(ledger, budget, "0.15", "a"), take(ledger, budget, "0.05", "a"), take(ledger, budget, "0.15", "")]

    assert [isinstance(outcome, int) for outcome in outcomes] == [True, False, True, True, False, True, True]
    assert "under the tag 'a'; $0.20 more would pass total=$0.30. Raise total of the tag 'a'." in str(outcomes[1])
    assert "under the tag 'b'; $0.30 more would pass per_day=$0.50. Raise per_day of the tag 'b', or" in str(
        outcomes[4]
    )
    assert [isinstance(outcome, int) for outcome in again] == [True, False, False]


@pytest.mark.parametrize(
    ("cap", "later"), [("per_day", "2026-12-01"), ("per_month", "2026-12-01"), ("total", "")], ids=str
)
def test_a_window_of_a_tag_ends_as_the_outer_one(ledger: Ledger, clock: Clock, cap: str, later: str) -> None:
    """And does not come back when the clock is set back."""
    budget = Budget(tags={"a": Budget(**{cap: "1.00"})})  # type: ignore[arg-type]
    through = []
    for day in ("2026-11-30", later or "2027-11-30", "2026-11-30"):
        clock.set(day)
        through.append(sum(isinstance(take(ledger, budget, "0.50", "a"), int) for _ in range(3)))

    assert through == [2, 2 if later else 0, 0]


def test_money_of_a_tag_that_is_given_back_or_unconfirmed(ledger: Ledger) -> None:
    """The refusal names what is unconfirmed under the tag, and not what is under another."""
    budget = Budget(tags={"a": Budget(total="1.00")})
    given_back = take(ledger, budget, "0.90", "a")
    ledger.release(int(given_back))
    lost = take(ledger, budget, "0.90", "a")
    ledger.mark_unconfirmed(int(lost))
    ledger.mark_unconfirmed(int(take(ledger, budget, "7.00", "other")))
    refused = take(ledger, budget, "0.20", "a")
    ledger.release(int(lost))

    assert "$0.90 of them are unconfirmed" in str(refused)
    assert isinstance(take(ledger, budget, "1.00", "a"), int)


def test_free_models_and_cached_texts_work_under_a_used_up_tag(tmp_path: Path, asynchronous: bool) -> None:
    """Nothing is to be paid for them."""
    budget = Budget(tags={"a": Budget(total="0.000003")})
    paid = Router([FakeBackend().model(price="1")], cache=tmp_path, budget=budget)
    free = Router([FakeBackend().model("fake:free", price="0")], cache=tmp_path, budget=budget)
    with embedrouter.tag("a"):
        embed(paid, asynchronous, ["one two three"], input_type="document")
        cached = embed(paid, asynchronous, ["one two three"], input_type="document")
        local = embed(free, asynchronous, ["four"], input_type="document")
        with pytest.raises(BudgetExceededError, match="under the tag 'a'"):
            embed(paid, asynchronous, ["four"], input_type="document")
    outside = embed(paid, asynchronous, ["four"], input_type="document")
    paid.close()
    free.close()

    assert cached.cached == (True,)
    assert local.usage.requests == outside.usage.requests == 1


def test_who_is_over_is_told_by_error_and_event(tmp_path: Path, asynchronous: bool) -> None:
    """``BudgetExceededError.tag`` is the tag whose cap it is; a refusal by an outer cap names none."""
    events: list[Any] = []
    budget = Budget(total="0.000005", tags={"team-a": Budget(total="0.000002")})
    model = FakeBackend().model(price="1")
    with Router([model], cache=None, ledger=tmp_path / "l.db", budget=budget, on_event=events.append) as router:
        with embedrouter.tag("team-a"), pytest.raises(BudgetExceededError) as of_tag:
            embed(router, asynchronous, ["one two three"], input_type="document")
        with embedrouter.tag("team-b"), pytest.raises(BudgetExceededError) as of_all:
            embed(router, asynchronous, ["1 2 3 4 5 6"], input_type="document")
    told = [(event.tag, event.reason) for event in events if isinstance(event, BudgetRefused)]

    assert (of_tag.value.tag, of_all.value.tag) == ("team-a", "")
    assert "Raise total of the tag 'team-a'" in str(of_tag.value)
    assert pickle.loads(pickle.dumps(of_tag.value)).tag == "team-a"
    assert [tag for tag, _ in told] == ["team-a", "team-b"]
    assert "the tag 'team-a'" in told[0][1]
    assert "the tag" not in told[1][1]


def test_per_call_of_a_tag_caps_its_calls_alone(tmp_path: Path, asynchronous: bool) -> None:
    budget = Budget(per_call="0.000009", tags={"a": "0.000004/call"})
    with Router([FakeBackend().model(price="1")], cache=tmp_path, budget=budget) as router:
        embed(router, asynchronous, ["1 2 3 4 5"], input_type="document")
        with embedrouter.tag("a"):
            with pytest.raises(BudgetExceededError, match=r"under the tag 'a', over per_call=.*Send fewer"):
                embed(router, asynchronous, ["5 4 3 2 1"], input_type="document")
            embed(router, asynchronous, ["5 4 3 2"], input_type="document")


@pytest.mark.parametrize(
    ("outer", "of_tag", "degrades"),
    [
        (None, None, (False, False)),
        ("degrade", None, (True, True)),
        ("degrade", "raise", (True, False)),
        (None, "degrade", (False, True)),
        ("raise", "degrade", (False, True)),
    ],
)
def test_a_tag_says_itself_what_happens_when_it_is_over(
    tmp_path: Path, outer: Any, of_tag: Any, degrades: tuple[bool, bool], asynchronous: bool
) -> None:
    """By default what the outer budget says; the outer cap follows the outer budget."""
    own = Budget(total="0.000003", when_exceeded=of_tag)
    budget = Budget(per_day="0.000006", when_exceeded=outer, tags={"a": own})
    dear = FakeBackend().model("fake:dear", space="s", price="1", tier="high")
    cheap = FakeBackend().model("fake:cheap", space="s", price="0", tier="low")
    with Router([dear, cheap], cache=None, ledger=tmp_path / "l.db", budget=budget) as router:

        def degraded(tag: str, text: str) -> bool:
            try:
                with embedrouter.tag(tag), warnings.catch_warnings():
                    warnings.simplefilter("ignore", DegradedWarning)
                    return embed(router, asynchronous, [text], input_type="query").degraded == (True,)
            except BudgetExceededError as error:
                return error.tag not in ("", tag)

        with embedrouter.tag("a"):
            embed(router, asynchronous, ["1 2 3"], input_type="query")

        assert (degraded("b", "1 2 3 4"), degraded("a", "4 5")) == degrades


# One file, many threads and processes


def test_threads_that_share_a_ledger_stay_within_the_caps_of_their_tags(ledger: Ledger) -> None:
    """Each reservation is checked and made in one transaction."""
    budget = Budget(total="1.00", tags={"a": Budget(total="0.33"), "b": "0.21/day"})
    tags = ["a", "b", "c"] * 70
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda tag: take(ledger, budget, "0.01", tag), tags))
    through = {
        tag: sum(isinstance(o, int) for o, own in zip(outcomes, tags, strict=True) if own == tag) for tag in "abc"
    }

    assert (through["a"], through["b"]) == (33, 21)
    assert through["c"] == 100 - 33 - 21


@pytest.mark.slow
def test_processes_that_share_a_file_stay_within_the_caps_of_their_tags(tmp_path: Path) -> None:
    """And what the tags leave of the outer cap is there for all others."""
    settings = {"file": str(tmp_path / "ledger.db"), "amount": "0.01", "total": "1.00", "times": 60}
    with ExitStack() as stack:
        crew = [
            stack.enter_context(Process("reserve", **settings, tag=tag, tags={"a": "0.40", "b": "0.25"}))
            for tag in ("a", "a", "b", "c")
        ]
        for process in crew:
            process.ready()
        for process in crew:
            process.begin()
        first, second, third, fourth = (process.outcome()["accepted"] for process in crew)

    assert first + second <= 40
    assert third <= 25
    assert first + second + third + fourth == 100


# The file


def test_a_check_of_a_tag_reads_the_days_of_the_tag_alone(ledger: Ledger, tmp_path: Path) -> None:
    """However many requests and other tags there are."""
    take(ledger, Budget(), "0.01", "a")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        query = "SELECT SUM(amount) FROM tag_days WHERE tag = 'a' AND day BETWEEN '2026-11-01' AND '2026-11-31'"
        (plan,) = [row[-1] for row in database.execute(f"EXPLAIN QUERY PLAN {query}")]

    assert plan == "SEARCH tag_days USING PRIMARY KEY (tag=? AND day>? AND day<?)"
