"""The ledger: what was spent, set aside and saved, for threads, processes and restarts."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import sqlite3
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode

import embedrouter
from embedrouter import Budget, Model, RetryPolicy, Router
from embedrouter._sqlite import sqlite_error
from embedrouter.errors import (
    AuthenticationError,
    BackendError,
    BudgetExceededError,
    ConfigError,
    InputRejectedError,
    NoModelAvailableError,
)
from embedrouter.llama_index import RouterEmbedding
from embedrouter.models import _catalogue as catalogue
from embedrouter.models import load_catalogue
from embedrouter.spending import Account, Ledger
from embedrouter.spending import _keeping as ledger_module
from embedrouter.spending._bookings import GRACE
from embedrouter.spending._keeping import FLUSH_INTERVAL
from embedrouter.testing import NO_WAITING, FakeBackend, MemoryCache
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.emulator import Emulator, Fault
from tests.hammer import MODEL, Process, a_program, spending
from tests.ledgers import PLACES, Place
from tests.properties import examples
from tests.recordings import FOLDER, Exchange, Fate, exchanges, replayed, success
from tests.redis_server import RedisServer

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
"""On the last day of a month."""
HOUR = 3600.0
NO_CAP = Budget()


class Clock:
    """Seconds since 1970 that pass when told to."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "money" / "ledger.db"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try what holds of a ledger in each place; a test that asks for the file is about the file."""
    if "where" in metafunc.fixturenames:
        is_about_file = "file" in inspect.signature(metafunc.function).parameters
        metafunc.parametrize("where", PLACES[:1] if is_about_file else PLACES)


@pytest.fixture
def place(where: str, file: Path, request: pytest.FixtureRequest) -> Place:
    return Place(file) if where == "file" else Place(address=request.getfixturevalue("redis_server").address)


@pytest.fixture
def ledger(place: Place, clock: Clock) -> Iterator[Ledger]:
    opened = place.open(now=clock)
    yield opened
    opened.close()


def capped(cap: str, amount: str) -> Budget:
    settings: dict[str, Any] = {cap: amount}
    return Budget(**settings)


def reserved(ledger: Ledger, amount: str | Decimal | None = "0.01", budget: Budget = NO_CAP, **told: Any) -> int:
    """Set money aside that is there."""
    reservation = ledger.reserve(budget, spending(amount, **told))
    assert isinstance(reservation, int), reservation
    return reservation


def paid(ledger: Ledger, amount: str | Decimal | None = "0.01", tokens: int = 100, **told: Any) -> None:
    """Book a request that cost what was estimated."""
    billed = None if amount is None else Decimal(amount)
    ledger.settle(reserved(ledger, amount, tokens=tokens, **told), tokens, billed)


def small(emulator: Emulator, **declared: object) -> Model:
    told = {"base_url": emulator.openai_url, "api_key": "k", "dimensions": 8, **declared}
    return Model(MODEL, **told)  # type: ignore[arg-type]


# What it keeps


def test_a_ledger_survives_a_restart(place: Place, clock: Clock) -> None:
    """Yesterday's spending counts against a total, also if its process was stopped since."""
    first = place.open(now=clock)
    paid(first, "0.40", tokens=700)
    before = first.totals("day")
    first.close()
    second = place.open(now=clock)

    assert second.totals("day") == before == {"2026-11-30": Account(1, 1, 700, Decimal("0.40"))}
    assert isinstance(second.reserve(Budget(total="0.50"), spending("0.11")), str)
    second.close()


def test_a_ledger_that_was_never_closed_is_complete(place: Place, clock: Clock) -> None:
    """Programs end without saying so."""
    left = place.open(now=clock)
    paid(left, "0.40")
    reader = place.open(now=clock)

    assert reader.totals("day")["2026-11-30"].cost == Decimal("0.40")
    reader.close()
    left.close()


def test_spending_is_summed_up_by_day_month_model_and_tag(ledger: Ledger, clock: Clock) -> None:
    """The questions of the user who gets the bill."""
    paid(ledger, "0.01", tokens=10, model="a:1", tag="ingest")
    paid(ledger, "0.02", tokens=20, model="b:2", tag="ingest", texts=3)
    clock.now += 24 * HOUR
    paid(ledger, "0.04", tokens=40, model="a:1")

    two = Account(1, 3, 20, Decimal("0.02"))
    three = Account(1, 1, 40, Decimal("0.04"))
    both = Account(2, 4, 30, Decimal("0.03"))
    assert ledger.totals("day") == {"2026-11-30": both, "2026-12-01": three}
    assert ledger.totals("month") == {"2026-11": both, "2026-12": three}
    assert ledger.totals("model") == {"a:1": Account(2, 2, 50, Decimal("0.05")), "b:2": two}
    assert ledger.totals("tag") == {"": three, "ingest": both}


def test_the_innermost_tag_counts(tmp_path: Path, asynchronous: bool) -> None:
    """And after an inner block the outer one again, also for what was saved."""
    router = Router([FakeBackend().model(price="1")], cache=tmp_path)
    with embedrouter.tag("outer"):
        embed(router, asynchronous, ["a"], input_type="document")
        with embedrouter.tag("inner"):
            embed(router, asynchronous, ["a b", "a"], input_type="document")
        embed(router, asynchronous, ["a b c"], input_type="document")
    embed(router, asynchronous, ["a b c d"], input_type="document")
    totals = router.ledger.totals("tag")
    router.close()

    assert {tag: account.tokens for tag, account in totals.items()} == {"": 4, "inner": 2, "outer": 1 + 3}
    assert {tag: account.saved_tokens for tag, account in totals.items()} == {"": 0, "inner": 1, "outer": 0}


def test_a_tag_reaches_requests_that_are_made_side_by_side(tmp_path: Path, asynchronous: bool) -> None:
    """The threads and tasks that make them are not the caller's."""
    router = Router([FakeBackend().model(price="1", batch_size=1, max_concurrency=4)], cache=tmp_path)
    with embedrouter.tag("wide"):
        embed(router, asynchronous, [f"text {number}" for number in range(20)], input_type="document")
    totals = router.ledger.totals("tag")
    router.close()

    assert {tag: account.requests for tag, account in totals.items()} == {"wide": 20}


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_tag_needs_a_name(name: object) -> None:
    """An empty one would be the same as none."""
    with pytest.raises(ConfigError, match="needs a name"):
        embedrouter.tag(name)  # type: ignore[arg-type]


def test_texts_are_nowhere_in_the_files(tmp_path: Path, asynchronous: bool) -> None:
    """Accounts are shown to people who may not read the documents."""
    router = Router([FakeBackend().model(price="1")], cache=MemoryCache(), ledger=tmp_path / "own" / "ledger.db")
    with embedrouter.tag("visible-tag"):
        embed(router, asynchronous, ["confidential zebra", "confidential zebra"], input_type="document")
    stored = b"".join(item.read_bytes() for item in (tmp_path / "own").iterdir())
    router.close()
    stored += b"".join(item.read_bytes() for item in (tmp_path / "own").iterdir())

    assert b"visible-tag" in stored
    assert b"confidential" not in stored
    assert b"zebra" not in stored


def test_the_folder_is_for_its_owner_alone(ledger: Ledger, file: Path) -> None:
    """What money is spent on is the user's business alone."""
    assert not file.parent.exists(), "nothing is made before something is booked"
    paid(ledger)

    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_without_a_file_accounts_are_kept_in_memory() -> None:
    """For as long as the object lives, closed or not."""
    ledger = Ledger()
    paid(ledger, "0.25")
    ledger.close()
    paid(ledger, "0.25")

    assert sum(account.cost for account in ledger.totals("day").values()) == Decimal("0.50")
    ledger.close()


# What was saved


def test_savings_wait_in_memory_for_the_next_paid_request(ledger: Ledger, file: Path, clock: Clock) -> None:
    """A cache hit that wrote to a file would be slower than it need be."""
    paid(ledger, "0.01")
    other = Ledger(file, now=clock)
    ledger.save(MODEL, "", 2, 30, Decimal("0.003"))
    before = other.totals("model")[MODEL].saved
    paid(ledger, "0.01")
    after = other.totals("model")[MODEL]
    other.close()

    assert before == 0
    assert (after.saved_texts, after.saved_tokens, after.saved) == (2, 30, Decimal("0.003"))


def test_savings_are_due_after_a_few_seconds(ledger: Ledger, file: Path, clock: Clock) -> None:
    """A warm server shall not lose hours of them; the caller has a thread for it, and is asked once."""
    paid(ledger, "0.01")
    due = [ledger.flush_due()]
    for _ in range(3):
        clock.now += FLUSH_INTERVAL / 2
        ledger.save(MODEL, "", 1, 10, Decimal("0.001"))
        due.append(ledger.flush_due())
    due.append(ledger.flush_due())
    other = Ledger(file, now=clock)
    before = other.totals("model")[MODEL].saved_texts
    ledger.flush()
    after = other.totals("model")[MODEL].saved_texts
    other.close()

    assert due == [False, False, False, True, False]
    assert (before, after) == (0, 3)


def test_saving_waits_for_nothing(ledger: Ledger, file: Path) -> None:
    """Each warm call of an event loop saves: while another process holds the file, and while a thread waits for it."""
    paid(ledger)
    with ThreadPoolExecutor(1) as other, closing(sqlite3.connect(file, isolation_level=None)) as process:
        process.execute("BEGIN IMMEDIATE")
        waiting = other.submit(paid, ledger)
        wait([waiting], 0.1)
        began = time.monotonic()
        for _ in range(100):
            ledger.save(MODEL, "", 1, 10, Decimal("0.001"))
            ledger.flush_due()
        took = time.monotonic() - began
        still_waiting = not waiting.done()
        process.execute("COMMIT")

    assert still_waiting
    assert took < 0.1
    assert ledger.totals("model")[MODEL].saved_texts == 100


@pytest.mark.slow
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_process_that_only_saves_loses_nothing(file: Path, forgotten: bool) -> None:
    """It pays for nothing and closes nothing, and perhaps its ledger is garbage long before it ends."""
    a_program("save", file=str(file), times=3, forgotten=forgotten)
    ledger = Ledger(file)
    saved = ledger.totals("tag")
    ledger.close()

    assert saved == {"warm": Account(saved_texts=3, saved_tokens=30, saved=Decimal("0.03"))}


def test_savings_of_a_forgotten_ledger_are_written_with_the_next(file: Path) -> None:
    """A server that builds a router for each request runs for months."""
    Ledger(file).save(MODEL, "", 1, 10, Decimal("0.001"))
    gc.collect()
    made_by_the_collector = file.exists()
    ledger = Ledger(file)
    ledger.flush()
    saved = ledger.totals("model")
    ledger.close()

    assert not made_by_the_collector, "the collector may come in an event loop"
    assert saved[MODEL].saved_texts == 1


def test_savings_are_written_when_the_ledger_is_closed(file: Path, clock: Clock) -> None:
    """Also those of a process that paid for nothing."""
    ledger = Ledger(file, now=clock)
    ledger.save(MODEL, "t", 1, 10, Decimal("0.001"))
    assert not file.exists()
    ledger.close()
    left = [item.name for item in file.parent.iterdir()]
    again = Ledger(file, now=clock)

    assert left == ["ledger.db"], "SQLite takes its log away when the last one closes the file"
    saved = Account(saved_texts=1, saved_tokens=10, saved=Decimal("0.001"))
    assert again.totals("tag") == {"t": saved}
    again.close()


def test_own_totals_include_what_is_not_written_yet(ledger: Ledger) -> None:
    """The ledger that saved gives the whole answer."""
    ledger.save(MODEL, "", 1, 10, Decimal("0.001"))

    assert ledger.totals("model")[MODEL].saved == Decimal("0.001")


def test_savings_belong_to_the_day_on_which_they_were_made(ledger: Ledger, clock: Clock) -> None:
    """Whenever they are written."""
    clock.now += 12 * HOUR - 1
    ledger.save(MODEL, "", 1, 10, Decimal("0.001"))
    clock.now += 2
    ledger.save(MODEL, "", 1, 10, Decimal("0.001"))

    assert {day: account.saved_texts for day, account in ledger.totals("day").items()} == {
        "2026-11-30": 1,
        "2026-12-01": 1,
    }


def test_a_warm_query_writes_nothing(tmp_path: Path, asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit, no byte, no new file: it costs a lookup."""
    router = Router([FakeBackend().model(price="1")], cache=tmp_path, budget=Budget(per_day="1"))
    monkeypatch.setattr(ledger_module, "FLUSH_INTERVAL", HOUR)
    embed(router, asynchronous, ["a", "b c"], input_type="query")
    watch = sqlite3.connect(tmp_path / "ledger.db")
    before = (watch.execute("PRAGMA data_version").fetchone(), _state(tmp_path))
    for _ in range(20):
        if asynchronous:
            asyncio.run(router.aembed(["b c", "a"], input_type="query"))
        else:
            router.embed(["b c", "a"], input_type="query")
    after = (watch.execute("PRAGMA data_version").fetchone(), _state(tmp_path))
    watch.close()
    (saved,) = router.ledger.totals("model").values()
    router.close()

    assert after == before
    assert (saved.saved_texts, saved.saved_tokens) == (40, 60)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of the ledger's files; the index of the log is memory that readers share."""
    files = (item for item in folder.glob("ledger.db*") if not item.name.endswith("-shm"))
    return {item.name: (item.stat().st_size, item.stat().st_mtime_ns) for item in files}


@pytest.mark.slow
def test_a_forked_child_saves_for_itself(file: Path) -> None:
    """Servers fork their workers, perhaps while a thread is inside the ledger; and nothing may count twice."""
    story = Process.run("fork", file=str(file))
    ledger = Ledger(file)
    saved = {tag: account.saved_texts for tag, account in ledger.totals("tag").items()}
    ledger.close()

    assert story["child"] == 0
    assert saved == {"parent": 1, "child": 2}


@pytest.mark.slow
def test_a_forked_child_spends_in_the_file_while_its_parent_goes_on(file: Path) -> None:
    """SQLite must not be carried over a fork: a parent that closes could take the child's bookings with it."""
    story = Process.run("inherit", file=str(file))
    ledger = Ledger(file)
    cost = sum(account.cost for account in ledger.totals("day").values())
    ledger.close()

    assert story["child"] == 0
    assert cost == Decimal("0.07")


def test_a_file_of_another_version_is_left_alone(file: Path) -> None:
    """A budget refuses to guess what is in it; without one, accounts are kept in memory."""
    with closing(Ledger(file)) as ledger:
        paid(ledger)
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="another version of embedrouter wrote it: 99"):
        Ledger(file, required=True).totals("day")

    assert Ledger(file).totals("day") == {}


@pytest.mark.parametrize("tables", [1, 2])
def test_a_database_of_others_is_no_ledger(file: Path, tables: int) -> None:
    """Its tables stay as they are."""
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as database:
        for number in range(tables):
            database.execute(f"CREATE TABLE other{number} (id INTEGER)")
    with pytest.raises(ConfigError, match="another version of embedrouter wrote it: 0"):
        Ledger(file, required=True).totals("day")
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (tables,)


def test_a_booking_that_is_repeated_meets_no_other_request(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit is in the file and is told to have failed; before it is repeated another process sets money aside."""
    telling = True

    class Untold(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            cursor = super().execute(sql, parameters)
            if sql == "COMMIT" and not telling:
                raise sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")
            return cursor

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Untold))
    with closing(Ledger(file, now=clock)) as one, closing(Ledger(file, now=clock)) as other:
        first = reserved(one)
        telling = False
        one.release(first)
        telling = True
        second = reserved(other)
        other.mark_unconfirmed(second)
        clock.now += 10
        one.flush()

        assert second != first
        assert [item.number for item in other.unconfirmed()] == [second]


VERSION_1 = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,          -- seconds since 1970
    day TEXT NOT NULL,         -- UTC
    state TEXT NOT NULL,       -- reserved, settled, unconfirmed
    model TEXT NOT NULL,
    input_type TEXT NOT NULL,
    tier TEXT NOT NULL,
    tag TEXT NOT NULL,
    texts INTEGER NOT NULL,
    tokens INTEGER NOT NULL,   -- as billed; until settled, as estimated
    amount INTEGER,            -- 10^-12 US dollars; NULL where the price is unknown
    attempt INTEGER NOT NULL,
    until REAL NOT NULL,       -- when a reservation becomes unconfirmed
    free INTEGER NOT NULL      -- tokens among them that cost nothing
);
CREATE TABLE IF NOT EXISTS days (day TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS allowances (model TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS savings (
    day TEXT NOT NULL, model TEXT NOT NULL, tag TEXT NOT NULL,
    texts INTEGER NOT NULL, tokens INTEGER NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (day, model, tag)
) WITHOUT ROWID;
INSERT INTO requests VALUES
    (1, 1795953600.0, '2026-11-29', 'settled', 'a:1', 'document', 'high', 't', 2, 30, 250000000000, 1, 0, 10),
    (2, 1796040000.0, '2026-11-30', 'settled', 'a:1', 'query', 'low', '', 1, 7, NULL, 1, 0, 0),
    (3, 1796040000.0, '2026-11-30', 'unconfirmed', 'a:1', 'query', 'low', '', 1, 8, 100000000000, 1, 0, 0),
    (4, 1796040000.0, '2026-11-30', 'reserved', 'a:1', 'query', 'low', '', 1, 9, 200000000000, 1, 1796041000, 0);
INSERT INTO days VALUES ('2026-11-29', 250000000000), ('2026-11-30', 300000000000);
INSERT INTO allowances VALUES ('a:1', 10);
INSERT INTO savings VALUES ('2026-11-30', 'a:1', 't', 5, 50, 40000000000);
PRAGMA user_version = 1;
"""
"""A ledger as the first version of its tables kept it."""


VERSION_2 = """
CREATE TABLE totals (
    day TEXT NOT NULL, model TEXT NOT NULL, tier TEXT NOT NULL, input_type TEXT NOT NULL, tag TEXT NOT NULL,
    requests INTEGER NOT NULL, texts INTEGER NOT NULL, tokens INTEGER NOT NULL,
    amount INTEGER NOT NULL,   -- where the price is known
    unpriced_tokens INTEGER NOT NULL,
    PRIMARY KEY (day, model, tier, input_type, tag)
) WITHOUT ROWID;
CREATE INDEX settled_requests ON requests (at) WHERE state = 'settled';
CREATE INDEX open_requests ON requests (until) WHERE state != 'settled';
INSERT INTO totals VALUES
    ('2026-11-29', 'a:1', 'high', 'document', 't', 1, 2, 30, 250000000000, 0),
    ('2026-11-30', 'a:1', 'low', 'query', '', 1, 1, 7, 0, 7);
PRAGMA user_version = 2;
"""
"""What the second version of the tables added."""
VERSION_3 = """
ALTER TABLE requests ADD COLUMN bill TEXT;
CREATE TABLE numbers (last INTEGER NOT NULL);
INSERT INTO numbers VALUES (4);
PRAGMA user_version = 3;
"""
"""What the third version of the tables added."""


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_ledger_of_an_earlier_version_is_brought_to_the_present_one(file: Path, clock: Clock, version: int) -> None:
    """Nothing that it shows or counts changes, its reservations can be settled, and its tags can be capped."""
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as database:
        for script in (VERSION_1, VERSION_2, VERSION_3)[:version]:
            database.executescript(script)
    with closing(Ledger(file, now=clock, required=True)) as ledger:
        totals = ledger.totals("day")
        doubtful = ledger.unconfirmed()
        free = ledger.free_tokens("a:1", 25)
        refused = ledger.reserve(Budget(total="0.55"), spending("0.01"))
        of_tag = ledger.reserve(Budget(tags={"t": Budget(total="0.30")}), spending("0.06", tag="t"))
        ledger.settle(4, 9, Decimal("0.15"))
        requests = ledger.requests()
    with closing(Ledger(file, now=clock, required=True)) as ledger:
        later = ledger.totals("day")["2026-11-30"]
        learned = ledger.learned("a:1", "query", exact=False)
    with closing(sqlite3.connect(file)) as database:
        (now,) = database.execute("PRAGMA user_version").fetchone()

    assert now == 4
    assert totals == {
        "2026-11-29": Account(1, 2, 30, Decimal("0.25"), free_tokens=10 if version == 1 else 0),
        "2026-11-30": Account(1, 1, 7, Decimal(0), 7, Decimal("0.10"), 5, 50, Decimal("0.04")),
    }
    assert [item.tokens for item in doubtful] == [8]
    assert free == 15
    assert "$0.55 are spent or set aside" in str(refused)
    assert "$0.25 are spent or set aside under the tag 't'" in str(of_tag)
    assert (later.requests, later.cost, later.unconfirmed) == (2, Decimal("0.15"), Decimal("0.10"))
    assert {item.number: (item.state, item.estimate) for item in requests} == {
        1: ("settled", None),
        2: ("settled", None),
        3: ("unconfirmed", None),
        4: ("settled", None),
    }
    assert learned.requests == 0, "what was estimated is not known"


# Detail, and what stays of it


AMOUNTS = st.integers(0, 10**12).map(lambda units: Decimal(units).scaleb(-12))
FATES = st.sampled_from(["settle", "mark_unconfirmed", "release", "leave"])
TRAFFIC = st.lists(
    st.tuples(
        st.sampled_from(["a:1", "b:2"]),
        st.sampled_from(["query", "document"]),
        st.sampled_from(["", "t"]),
        st.one_of(st.none(), AMOUNTS),
        FATES,
        st.integers(0, 5),
    ),
    max_size=25,
)


@examples(60)
@given(TRAFFIC, st.integers(0, 9))
def test_folding_changes_nothing_that_is_shown(traffic: list[tuple[Any, ...]], days: int) -> None:
    """By day, month, model and tag, whenever detail is removed; what may have been billed keeps its detail."""
    with tempfile.TemporaryDirectory() as folder:
        _fold(Place(Path(folder) / "ledger.db"), Place(Path(folder) / "kept.db"), traffic, days)


@examples(20)
@given(TRAFFIC, st.integers(0, 9))
def test_folding_on_redis_changes_nothing_that_is_shown(
    redis_server: RedisServer, traffic: list[tuple[Any, ...]], days: int
) -> None:
    """All that is shown is what the ledger in a file shows, of which no detail is removed."""
    with tempfile.TemporaryDirectory() as folder:
        _fold(Place(address=redis_server.address), Place(Path(folder) / "kept.db"), traffic, days)


def _fold(place: Place, complete: Place, traffic: list[tuple[Any, ...]], days: int) -> None:
    clock = Clock()
    kept = complete.open(now=clock, keep_detail_days=1000)
    for model, input_type, tag, amount, fate, pause in traffic:
        folding = place.open(now=clock, keep_detail_days=days)  # each folds with its first booking
        for ledger in (kept, folding):
            reservation = reserved(ledger, amount, model=model, input_type=input_type, tag=tag, tokens=10, exact=True)
            if fate == "settle":
                ledger.settle(reservation, 9, amount)
            elif fate != "leave":
                getattr(ledger, fate)(reservation)
            ledger.save(model, tag, 1, 5, Decimal("0.01"))
        folding.close()
        clock.now += pause * 24 * HOUR
    with closing(place.open(now=clock, keep_detail_days=0)) as last:
        last.release(0)  # a booking of nothing, which folds
        shown = _shown(last)
    with closing(kept):
        assert shown == _shown(kept)
    fates = [fate for *_, fate, _ in traffic]
    left = place.requests()
    may_be_billed = fates.count("mark_unconfirmed") + fates.count("leave")
    assert left.get("unconfirmed", 0) + left.get("reserved", 0) == may_be_billed


def _shown(ledger: Ledger) -> list[object]:
    caps = [ledger.refusal(capped(cap, "0.5"), Decimal("0.1")) for cap in ("per_day", "per_month", "total")]
    of_tag = Budget(tags={"t": Budget(per_day="0.5", per_month="0.9", total="1.5")})
    caps.append(ledger.refusal(of_tag, Decimal("0.1"), "t"))
    accounts = [ledger.totals(by) for by in ("day", "month", "model", "tag")]
    learned = [ledger.learned(model, kind, exact=True) for model in ("a:1", "b:2") for kind in ("query", "document")]
    unconfirmed = sorted(ledger.unconfirmed(), key=lambda row: (row.at, row.model, row.tag, str(row.amount)))
    return [accounts, unconfirmed, caps, ledger.left(Budget(per_day="1", total="2")), learned]


@pytest.mark.slow
def test_a_file_stops_growing_with_the_traffic(file: Path, clock: Clock) -> None:
    """Detail is kept for some days, and its room is used again."""
    sizes, details = [], []
    ledger = Ledger(file, now=clock, keep_detail_days=2)
    for _ in range(8):
        for _ in range(500):
            paid(ledger, tag="t")
        clock.now += 24 * HOUR
        ledger.close()
        sizes.append(file.stat().st_size)
        details.append(Place(file).requests()["settled"])
    totals = ledger.totals("model")[MODEL]
    ledger.close()

    assert max(details) <= 4 * 500
    assert sizes[-1] == sizes[4]
    assert (totals.requests, totals.cost) == (8 * 500, 8 * 500 * Decimal("0.01"))


# Free tokens


def test_free_tokens_cost_nothing_until_they_are_used_up(ledger: Ledger) -> None:
    """The request that uses the last of them pays for its other tokens."""
    told: dict[str, Any] = {"tokens": 100, "free_tokens": 150}
    costs = [ledger.settle(reserved(ledger, "1.00", **told), 100, Decimal("1.00")) for _ in range(3)]

    assert costs == [0, Decimal("0.50"), 1]
    assert ledger.free_tokens(MODEL, 150) == 0
    assert [account.cost for account in ledger.totals("day").values()] == [Decimal("1.50")]


def test_free_tokens_that_were_not_billed_are_there_again(ledger: Ledger) -> None:
    """A refused request gives them back, an estimate that was too high the rest; a lost request keeps them."""
    told: dict[str, Any] = {"tokens": 100, "free_tokens": 150}
    ledger.release(reserved(ledger, "1.00", **told))
    after_refusal = ledger.free_tokens(MODEL, 150)
    ledger.settle(reserved(ledger, "1.00", **told), 60, Decimal("0.60"))
    after_bill = ledger.free_tokens(MODEL, 150)
    ledger.mark_unconfirmed(reserved(ledger, "1.00", **told))

    assert (after_refusal, after_bill, ledger.free_tokens(MODEL, 150)) == (150, 90, 0)
    assert [item.amount for item in ledger.unconfirmed()] == [Decimal("0.10")]


def test_requests_in_flight_do_not_take_the_same_free_tokens(ledger: Ledger) -> None:
    """They are set aside with the money, so a cap holds."""
    budget = Budget(total="0.60")
    reserved(ledger, "1.00", budget, tokens=100, free_tokens=150)
    reserved(ledger, "1.00", budget, tokens=100, free_tokens=150)

    assert "$0.50 are spent or set aside" in str(ledger.reserve(budget, spending("1.00", tokens=100, free_tokens=150)))


def test_a_router_counts_free_tokens_before_and_after(asynchronous: bool, file: Path) -> None:
    """Estimate, result, ledger: all speak of the same money."""
    model = Model("own:model", price="1", free_tokens=3, space="own", dimensions=8, backend=FakeBackend())
    with Router([model], cache=None, ledger=file) as router:
        estimated = [router.estimate(texts, input_type="document").cost for texts in (["a"], ["a " * 9])]
        results = [embed(router, asynchronous, [f"text {number}"], input_type="document") for number in range(3)]
        booked = router.ledger.totals("model")["own:model"]

    assert estimated[0] == 0
    assert estimated[1] is not None
    assert estimated[1] > 0
    assert results[0].usage.cost == 0
    assert booked.cost == sum(result.usage.cost for result in results)
    assert booked.cost == Decimal(booked.tokens - 3) / 1_000_000


def test_regional_prices_and_free_tokens_come_from_the_configuration(tmp_path: Path) -> None:
    """Azure asks more in some regions: the declared price is over the catalogue's."""
    (tmp_path / "embedrouter.toml").write_text(
        """
        cache = "cache"
        [[models]]
        model = "azure_openai:text-embedding-3-small"
        base_url = "https://r.openai.azure.com"
        api_version = "2024-10-21"
        price = "0.022"
        free_tokens = 10
        """
    )
    with Router.from_config(tmp_path / "embedrouter.toml") as router:
        estimate = router.estimate([" word" * 60], input_type="document")

    assert estimate.cost == Decimal("0.022") * (estimate.tokens - 10) / 1_000_000


# Reserve, settle, release, mark unconfirmed


def test_what_is_set_aside_counts_until_it_is_settled(ledger: Ledger) -> None:
    """Or two requests at once would each see the whole of the money."""
    budget = Budget(total="1.00")
    first = reserved(ledger, "0.60", budget)
    refused = ledger.reserve(budget, spending("0.41"))
    ledger.settle(first, 50, Decimal("0.10"))

    assert isinstance(refused, str)
    assert "$0.60 are spent or set aside; $0.41 more would pass total=$1.00" in refused
    assert "Raise total" in refused
    assert isinstance(ledger.reserve(budget, spending("0.90")), int)


def test_a_released_request_leaves_no_trace(ledger: Ledger) -> None:
    """It was refused, and cost nothing."""
    ledger.release(reserved(ledger, "0.60"))

    assert ledger.totals("day") == {}
    assert isinstance(ledger.reserve(Budget(total="1.00"), spending("1.00")), int)


def test_a_request_that_never_came_back_still_counts_and_is_listed(ledger: Ledger, clock: Clock) -> None:
    """It may have been billed."""
    ledger.mark_unconfirmed(reserved(ledger, "0.60", tokens=9, texts=2, tag="t", model="a:1"))
    (item,) = ledger.unconfirmed()
    (account,) = ledger.totals("day").values()

    assert (item.at, item.model, item.tag) == (datetime.fromtimestamp(clock.now, UTC), "a:1", "t")
    assert (item.texts, item.tokens, item.amount) == (2, 9, Decimal("0.60"))
    assert account == Account(unconfirmed=Decimal("0.60"))
    assert isinstance(ledger.reserve(Budget(total="1.00"), spending("0.41")), str)


def test_a_reservation_that_is_never_settled_becomes_unconfirmed(ledger: Ledger, clock: Clock) -> None:
    """Its process is gone; a moment before its time it is in flight."""
    reserved(ledger, "0.60", timeout=30.0)
    clock.now += 30 + GRACE
    in_flight = (ledger.unconfirmed(), ledger.totals("day")["2026-11-30"].unconfirmed)
    clock.now += 1

    assert in_flight == ([], 0)
    assert [item.amount for item in ledger.unconfirmed()] == [Decimal("0.60")]
    assert ledger.totals("day")["2026-11-30"].unconfirmed == Decimal("0.60")
    assert isinstance(ledger.reserve(Budget(total="1.00"), spending("0.41")), str)


def test_a_late_answer_confirms_what_was_unconfirmed(ledger: Ledger, clock: Clock) -> None:
    """A process that was asleep for an hour still books its bill."""
    late = reserved(ledger, "0.60", timeout=30.0)
    clock.now += HOUR
    ledger.settle(late, 50, Decimal("0.50"))

    assert ledger.unconfirmed() == []
    assert ledger.totals("day") == {"2026-11-30": Account(1, 1, 50, Decimal("0.50"))}


def test_a_bill_over_the_estimate_is_booked_in_full(ledger: Ledger) -> None:
    """The cap may be passed by the error of an estimate; the accounts may not hide it."""
    budget = Budget(total="1.00")
    ledger.settle(reserved(ledger, "0.90", budget), 900, Decimal("1.20"))

    assert ledger.totals("day")["2026-11-30"].cost == Decimal("1.20")
    assert isinstance(ledger.reserve(budget, spending("0.000001")), str)


def test_what_costs_nothing_is_never_refused(ledger: Ledger) -> None:
    """A local model works when the money is gone."""
    paid(ledger, "1.00")

    assert isinstance(ledger.reserve(Budget(total="1.00"), spending("0")), int)
    assert ledger.refusal(Budget(per_call="0", total="0"), Decimal(0)) is None


def test_an_unknown_price_is_refused_under_a_cap(ledger: Ledger) -> None:
    """Whether it fits is unknown. Without a cap its tokens are counted, apart from the cost."""
    for cap in ("per_call", "per_day", "per_month", "total"):
        refusal = ledger.refusal(capped(cap, "5"), None)
        assert refusal is not None
        assert "price is unknown" in refusal
        assert isinstance(ledger.reserve(capped(cap, "5"), spending(None)), str)
    paid(ledger, None, tokens=70)

    assert ledger.totals("model") == {MODEL: Account(1, 1, 70, Decimal(0), unpriced_tokens=70)}


def test_per_call_caps_whole_calls_not_requests(ledger: Ledger) -> None:
    """A call of many requests is refused as a whole, before the first."""
    budget = Budget(per_call="0.10")

    assert "over per_call=$0.10" in (ledger.refusal(budget, Decimal("0.11")) or "")
    assert ledger.refusal(budget, Decimal("0.10")) is None
    assert isinstance(ledger.reserve(budget, spending("0.11")), int)


# Windows


def test_days_and_months_are_those_of_utc(ledger: Ledger, clock: Clock) -> None:
    """In every time zone of the machine: two machines share a ledger."""
    daily, monthly, whole = Budget(per_day="1"), Budget(per_month="1"), Budget(total="1")
    clock.now = datetime(2026, 11, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    paid(ledger, "1")
    free = {}
    for at in (clock.now, clock.now + 1, clock.now + 1 + 24 * HOUR):
        clock.now = at
        free[datetime.fromtimestamp(at, UTC).date().isoformat()] = [
            ledger.refusal(budget, Decimal("0.5")) is None for budget in (daily, monthly, whole)
        ]

    assert free == {
        "2026-11-29": [False, False, False],
        "2026-11-30": [True, False, False],
        "2026-12-01": [True, True, False],
    }


def test_a_request_over_midnight_belongs_to_the_day_it_was_made(ledger: Ledger, clock: Clock) -> None:
    """Or yesterday would keep the estimate and today would pay the bill."""
    clock.now += 12 * HOUR - 1
    late = reserved(ledger, "0.90")
    clock.now += 2
    ledger.settle(late, 10, Decimal("0.40"))

    assert {day: account.cost for day, account in ledger.totals("day").items()} == {"2026-11-30": Decimal("0.40")}
    assert ledger.refusal(Budget(per_day="1"), Decimal(1)) is None
    clock.now -= 2
    assert ledger.refusal(Budget(per_day="1"), Decimal("0.60")) is None
    assert ledger.refusal(Budget(per_day="1"), Decimal("0.61")) is not None


# Exactness


CAPS = {"per_day": Decimal("2"), "per_month": Decimal("3"), "total": Decimal("5")}
CAPPED = Budget(**CAPS)  # type: ignore[arg-type]
STEPS = st.one_of(
    st.tuples(st.just("reserve"), st.integers(0, 2), AMOUNTS),
    st.tuples(st.just("settle"), st.integers(0, 50), AMOUNTS),
    st.tuples(st.just("release"), st.integers(0, 50), st.none()),
    st.tuples(st.just("mark_unconfirmed"), st.integers(0, 50), st.none()),
    st.tuples(st.just("wait"), st.integers(0, 40), st.none()),
)


@dataclass
class Booked:
    """A request as plain Python remembers it."""

    ledger: int
    day: str
    amount: Decimal
    state: str = "reserved"


@dataclass
class Books:
    """What a ledger should say, by adding up."""

    booked: dict[int, Booked] = field(default_factory=dict)

    def counted(self, window: str, day: str) -> Decimal:
        length = {"per_day": 10, "per_month": 7, "total": 0}[window]
        return sum((item.amount for item in self.booked.values() if item.day[:length] == day[:length]), Decimal(0))

    def pick(self, place: int) -> int | None:
        """Return one of the requests in flight."""
        waiting = [key for key, item in self.booked.items() if item.state == "reserved"]
        return waiting[place % len(waiting)] if waiting else None


@examples(60)
@given(st.lists(STEPS, max_size=40))
def test_money_is_exact_in_any_sequence(steps: list[tuple[str, int, Decimal | None]]) -> None:
    """Several ledgers on one file against addition: every sum to the last digit, no reservation over a cap."""
    with tempfile.TemporaryDirectory() as folder:
        _play(Place(Path(folder) / "ledger.db"), steps)


@examples(40)
@given(st.lists(STEPS, max_size=40))
def test_money_on_redis_is_exact_in_any_sequence(
    redis_server: RedisServer, steps: list[tuple[str, int, Decimal | None]]
) -> None:
    """Several ledgers on one server against addition: every sum to the last digit, no reservation over a cap."""
    _play(Place(address=redis_server.address), steps)


def _play(place: Place, steps: list[tuple[str, int, Decimal | None]]) -> None:
    clock, books = Clock(), Books()
    ledgers = [place.open(now=clock) for _ in range(3)]
    for action, number, amount in steps:
        day = datetime.fromtimestamp(clock.now, UTC).date().isoformat()
        if action == "wait":
            clock.now += number * HOUR
        elif action == "reserve":
            assert amount is not None
            fits = all(books.counted(name, day) + amount <= cap for name, cap in CAPS.items())
            outcome = ledgers[number].reserve(CAPPED, spending(amount))
            assert isinstance(outcome, int) is (fits or amount == 0), outcome
            if isinstance(outcome, int):
                books.booked[outcome] = Booked(number, day, amount)
        elif (key := books.pick(number)) is not None:
            item = books.booked[key]
            if action == "settle":
                assert amount is not None
                ledgers[item.ledger].settle(key, 1, amount)
                item.amount, item.state = amount, "settled"
            elif action == "release":
                ledgers[item.ledger].release(key)
                del books.booked[key]
            else:
                ledgers[item.ledger].mark_unconfirmed(key)
                item.state = "unconfirmed"
    clock.now += HOUR  # what is in flight is lost by now
    for ledger in ledgers:
        _agrees(ledger, books)
        ledger.close()
    days = place.days()
    for day in {*days, *(item.day for item in books.booked.values())}:
        assert days.get(day, 0) == books.counted("per_day", day)


def _agrees(ledger: Ledger, books: Books) -> None:
    expected: dict[str, Account] = {}
    for item in books.booked.values():
        account = expected.get(item.day, Account())
        if item.state == "settled":
            account = replace(
                account,
                requests=account.requests + 1,
                texts=account.texts + 1,
                tokens=account.tokens + 1,
                cost=account.cost + item.amount,
                free_tokens=account.free_tokens + (item.amount == 0),
            )
        else:
            account = replace(account, unconfirmed=account.unconfirmed + item.amount)
        expected[item.day] = account
    assert ledger.totals("day") == expected
    assert sorted(item.amount or 0 for item in ledger.unconfirmed()) == sorted(
        item.amount for item in books.booked.values() if item.state != "settled"
    )


def test_a_thousand_amounts_of_no_round_number_add_up(ledger: Ledger) -> None:
    """Floats would be off by now."""
    for tokens in range(1000):
        paid(ledger, tokens * Decimal("0.000001") / 1_000_000, tokens=tokens)

    assert ledger.totals("day")["2026-11-30"].cost == Decimal("499500E-12")


# Threads and processes


def test_threads_that_share_a_ledger_stay_within_the_cap(ledger: Ledger) -> None:
    """Each asks and sets aside in one step."""
    outcomes: list[int | str] = []

    def work() -> None:
        outcomes.extend(ledger.reserve(Budget(total="1.00"), spending("0.01")) for _ in range(30))

    crew = [threading.Thread(target=work) for _ in range(8)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()

    assert sum(isinstance(outcome, int) for outcome in outcomes) == 100


@pytest.mark.slow
def test_processes_that_share_a_file_stay_within_the_cap(file: Path) -> None:
    """Also when they make the file at the same moment."""
    with ExitStack() as stack:
        crew = [
            stack.enter_context(Process("reserve", file=str(file), amount="0.01", total="1.00", times=60))
            for _ in range(6)
        ]
        for process in crew:
            process.ready()
        for process in crew:
            process.begin()
        accepted = [process.outcome()["accepted"] for process in crew]

    assert sum(accepted) == 100


@pytest.mark.slow
def test_two_processes_see_each_others_spending(ledger: Ledger, file: Path) -> None:
    """The cap is for all of them."""
    paid(ledger, "0.10", tag="here")
    Process.run("book", file=str(file), amounts=["0.25", "0.25"], tag="there")

    assert {tag: account.cost for tag, account in ledger.totals("tag").items()} == {
        "here": Decimal("0.10"),
        "there": Decimal("0.50"),
    }
    assert "$0.60 are spent" in str(ledger.refusal(Budget(total="1"), Decimal("0.41")))


@pytest.mark.slow
def test_a_killed_process_leaves_its_request_unconfirmed(file: Path) -> None:
    """It will never be settled, and the provider may have billed it."""
    with Process("die", file=str(file), amount="0.60", timeout=20.0) as process:
        process.ready()
        process.begin()
        process.killed()
    clock = Clock(datetime.now(UTC).timestamp())
    ledger = Ledger(file, now=clock)
    at_once = (ledger.unconfirmed(), ledger.reserve(Budget(total="1.00"), spending("0.41")))
    clock.now += 20 + GRACE
    later = ledger.unconfirmed()
    ledger.close()

    assert at_once[0] == []
    assert isinstance(at_once[1], str)
    assert [item.amount for item in later] == [Decimal("0.60")]


@pytest.mark.slow
def test_a_ledger_is_read_while_another_process_writes(ledger: Ledger, file: Path) -> None:
    """Every answer is a whole one: as much money as requests."""
    paid(ledger, "0.01")
    seen: list[Account] = []
    with Process("book", file=str(file), amounts=["0.01"] * 300) as process:
        process.ready()
        process.begin()
        while process.running:
            seen.append(ledger.totals("model")[MODEL])
        process.outcome()
    last = ledger.totals("model")[MODEL]

    assert last.requests == 301
    assert len(seen) > 1
    assert [account.requests for account in seen] == sorted(account.requests for account in seen)
    assert all(account.cost == account.requests * Decimal("0.01") for account in [*seen, last])


def test_reading_waits_for_no_writer(ledger: Ledger, file: Path, clock: Clock) -> None:
    """A service that pays all the time holds up no ``stats``; and ``stats`` holds up no service: it takes no lock."""
    budget = Budget(total="1.00")
    paid(ledger, "0.60", tokens=70)
    reserved(ledger, "0.10", tokens=100, free_tokens=100)
    late = Ledger(file, now=clock)
    with closing(sqlite3.connect(file, isolation_level=None)) as process:
        process.execute("BEGIN IMMEDIATE")
        process.execute("DELETE FROM requests")
        began = time.monotonic()
        seen = [
            (
                one.totals("model")[MODEL].cost,
                one.unconfirmed(),
                one.free_tokens(MODEL, 130),
                one.refusal(budget, Decimal("0.41")) is None,
                one.refusal(budget, Decimal("0.40")) is None,
                one.is_persistent,
            )
            for one in (ledger, late)
        ]
        took = time.monotonic() - began
        process.execute("ROLLBACK")
    late.close()

    assert seen == [(Decimal("0.60"), [], 30, False, True, True)] * 2
    assert took < 1


def test_a_ledger_works_where_sqlite_keeps_no_log(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that share no memory."""
    connect = sqlite3.connect

    def without_shared_memory(place: Path, **settings: Any) -> sqlite3.Connection:
        return connect(f"file:{place}?vfs=unix-dotfile", uri=True, **settings)

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    with closing(Ledger(file)) as ledger:
        paid(ledger, "0.25")

        assert ledger.is_persistent
        assert ledger.totals("model")[MODEL].cost == Decimal("0.25")


def test_the_log_begins_anew_where_only_savings_are_written(ledger: Ledger, file: Path) -> None:
    """A service that answers from its cache pays for nothing, and runs for months."""
    largest = 0
    for _ in range(1500):  # each writes two pages or three
        ledger.save(MODEL, "", 1, 10, Decimal("0.01"))
        ledger.flush()
        largest = max(largest, Path(f"{file}-wal").stat().st_size)

    assert largest < 1100 * 4200, "SQLite moves its log into the file after 1,000 pages"
    assert ledger.totals("model")[MODEL].saved_texts == 1500


# In an event loop


async def test_an_event_loop_goes_on_while_another_process_holds_the_ledger(tmp_path: Path) -> None:
    """The call that needs it waits in a thread."""
    router = Router([FakeBackend().model(price="1")], cache=tmp_path, budget=Budget(total="1"))
    await router.aembed(["first"], input_type="query")
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as process:
        process.execute("BEGIN IMMEDIATE")
        call = asyncio.create_task(router.aembed(["second"], input_type="query"))
        for _ in range(20):
            await asyncio.sleep(0.01)
        waiting = not call.done()
        process.execute("COMMIT")
    result = await call
    await router.aclose()

    assert waiting
    assert result.usage.requests == 1


# Through a router


def test_a_router_books_what_was_billed(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """Tokens as the provider counts them, at the catalogue's price."""
    router = Router([small(emulator)], cache=tmp_path)
    embed(router, asynchronous, ["one two three", "four"], input_type="document")
    (account,) = router.ledger.totals("model").values()
    router.close()

    billed = sum(emulator.billed.values())
    assert account == Account(1, 2, billed, billed * Decimal("0.02") / 1_000_000)
    assert router.usage.cost == account.cost


def test_the_ledger_lies_beside_the_cache_or_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers share a ledger by naming the same path."""
    model = FakeBackend().model(price="1")
    named = Router([model], cache=tmp_path / "cache", ledger=tmp_path / "own.db")
    twin = Router([model], cache=None, ledger=str(tmp_path / "own.db"))
    beside = Router([model], cache=tmp_path / "cache")
    alone = Router([model], cache=None)
    named.embed(["a b"], input_type="document")

    assert beside.ledger.file == tmp_path / "cache" / "ledger.db"
    assert alone.ledger.file == tmp_path / "user-data" / "embedrouter" / "ledger.db"
    assert named.ledger.file == tmp_path / "own.db"
    assert twin.ledger.totals("model")["fake:model"].tokens == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Router([model], cache=None, ledger="~/own.db").ledger.file == tmp_path / "own.db"
    for router in (named, twin):
        router.close()


def test_a_configuration_names_a_ledger_from_its_own_folder(tmp_path: Path) -> None:
    """As it does a cache."""
    config = tmp_path / "embedrouter.toml"
    config.write_text('ledger = "accounts/money.db"\ncache = false\n[[models]]\nmodel = "voyage:voyage-4"\n')

    assert Router.from_config(config).ledger.file == tmp_path / "accounts" / "money.db"


def test_a_pickled_router_keeps_its_books_in_the_same_file(tmp_path: Path) -> None:
    """Workers spend from one purse."""
    router = Router(
        [FakeBackend().model(price="1")], cache=None, ledger=tmp_path / "own.db", budget=Budget(total="0.000005")
    )
    router.embed(["a b c"], input_type="document")
    copy: Router = pickle.loads(pickle.dumps(router))
    copy.embed(["d e"], input_type="document")

    assert copy.ledger.file == router.ledger.file
    assert router.ledger.totals("model")["fake:model"].tokens == 5
    for one in (router, copy):
        with pytest.raises(BudgetExceededError, match=r"\$0\.000005 are spent"):
            one.embed(["f"], input_type="document")
        one.close()


def test_routers_of_one_file_share_a_cap(tmp_path: Path, asynchronous: bool) -> None:
    """What another router spent is gone."""
    budget = Budget(per_day="0.000003")
    routers = [Router([FakeBackend().model(price="1")], cache=tmp_path, budget=budget) for _ in range(2)]
    embed(routers[0], asynchronous, ["a b"], input_type="document")
    with pytest.raises(BudgetExceededError, match="per_day"):
        embed(routers[1], asynchronous, ["c d"], input_type="document")
    embed(routers[1], asynchronous, ["c"], input_type="document")
    for router in routers:
        router.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai:text-embedding-3-small", "cohere:embed-v4.0", "voyage:voyage-4"])
@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")  # of voyageai's own logging
@pytest.mark.parametrize("fault", [Fault.lost(), Fault.half_body(), Fault.slow(1.0)], ids=lambda fault: fault.kind)
def test_an_answer_that_was_billed_and_lost_is_listed(
    name: str, fault: Fault, emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """With every provider, in both forms: the connection failed after the money was gone."""
    url = getattr(emulator, f"{name.partition(':')[0]}_url")
    model = Model(name, base_url=url, api_key="k", timeout=0.4)
    emulator.script(fault)
    router = Router([model], cache=tmp_path, retry=NO_WAITING)
    embed(router, asynchronous, ["one two three"], input_type="document")
    (account,) = router.ledger.totals("model").values()
    doubtful = router.ledger.unconfirmed()
    router.close()

    billed = sum(emulator.billed.values())
    assert account.tokens == billed / 2
    assert len(doubtful) == 1
    assert doubtful[0].tokens >= billed / 2
    assert account.unconfirmed == doubtful[0].amount


@pytest.mark.parametrize("name", ["openai:text-embedding-3-small", "cohere:embed-v4.0", "voyage:voyage-4"])
@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_request_that_the_provider_refused_costs_nothing(
    name: str, code: int, emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """An error status says that nothing was computed."""
    url = getattr(emulator, f"{name.partition(':')[0]}_url")
    emulator.script(Fault.status(code))
    router = Router([Model(name, base_url=url, api_key="k")], cache=tmp_path, retry=NO_WAITING)
    embed(router, asynchronous, ["one two three"], input_type="document")
    (account,) = router.ledger.totals("model").values()
    doubtful = router.ledger.unconfirmed()
    router.close()

    assert (account.tokens, doubtful) == (sum(emulator.billed.values()), [])


@pytest.mark.parametrize("name", ["openai:text-embedding-3-small", "cohere:embed-v4.0", "voyage:voyage-4"])
def test_a_provider_that_was_never_reached_costs_nothing(name: str, tmp_path: Path, asynchronous: bool) -> None:
    """Or a day without network would use up the budget."""
    model = Model(name, base_url="http://127.0.0.1:9", api_key="k")
    router = Router([model], cache=tmp_path, retry=RetryPolicy(attempts=3, initial_wait=0))
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, ["one two three"], input_type="document")
    totals = router.ledger.totals("model")
    router.close()

    assert totals == {}


def test_what_the_caller_was_handling_says_nothing_of_a_request(emulator: Emulator, tmp_path: Path) -> None:
    """Python hangs the caller's exception onto ours: an unreachable database is not an unreachable provider."""
    emulator.script(Fault.lost())
    router = Router([small(emulator)], cache=tmp_path, retry=RetryPolicy(attempts=1))
    try:
        raise ConnectionRefusedError("the database is down, so embed again")
    except ConnectionRefusedError:
        with pytest.raises(NoModelAvailableError):
            router.embed(["one two three"], input_type="document")
    doubtful = router.ledger.unconfirmed()
    router.close()

    assert sum(item.tokens for item in doubtful) == sum(emulator.billed.values()) == 3


def test_a_wrong_answer_is_paid_for_all_the_same(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """It was computed. It may be right at the second time, and is not asked for a third time."""
    router = Router([small(emulator)], cache=tmp_path, retry=NO_WAITING)
    emulator.script(Fault.nan())
    embed(router, asynchronous, ["one two three"], input_type="document")
    emulator.script(Fault.nan(), Fault.zeros())
    with pytest.raises(InputRejectedError, match="all zeros"):
        embed(router, asynchronous, ["four five"], input_type="document")
    (account,) = router.ledger.totals("model").values()
    router.close()

    assert (account.requests, account.tokens) == (4, 10)
    assert sum(emulator.billed.values()) == 10


def test_vectors_of_another_length_are_paid_for_once(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """They would come again, and cost again."""
    emulator.fault_for = lambda _: Fault.wrong_dimensions(16)
    router = Router([small(emulator)], cache=tmp_path, retry=NO_WAITING)
    with pytest.raises(NoModelAvailableError, match=r"of 16 dimensions came, not of \d+: declare"):
        embed(router, asynchronous, ["one two three"], input_type="document")
    (account,) = router.ledger.totals("model").values()
    router.close()

    assert (account.requests, account.tokens) == (1, 3)
    assert sum(emulator.billed.values()) == 3


def test_an_answer_that_cannot_be_read_may_have_been_billed(
    emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """A 200 was computed; what it cost stands in what cannot be read, so the estimate stays counted."""
    emulator.script(Fault.status(200, body={"data": [{"index": 0, "embedding": "?"}], "usage": {"prompt_tokens": 3}}))
    router = Router([small(emulator)], cache=tmp_path, retry=RetryPolicy(attempts=1))
    with pytest.raises(NoModelAvailableError):
        embed(router, asynchronous, ["one two three"], input_type="document")
    doubtful = router.ledger.unconfirmed()
    router.close()

    assert [item.texts for item in doubtful] == [1]


class Failing(FakeBackend):
    """Refuses the text "bad" once another request has set its money aside."""

    def __init__(self) -> None:
        super().__init__()
        self.other = threading.Event()

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        if "bad" in texts:
            self.other.wait(10)
            raise AuthenticationError("wrong key")
        return super().embed(texts, input_type, timeout=timeout)


def test_a_request_that_was_called_off_before_it_went_out_is_not_suspected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one request fails its siblings stop; the money of those that were never sent is free again."""
    backend = Failing()
    router = Router([backend.model(price="1", batch_size=1, max_concurrency=2)], cache=tmp_path)
    reserve = router.ledger.reserve
    first = threading.Event()

    def slowly(*asked: object) -> int | str:
        outcome = reserve(*asked)  # type: ignore[arg-type]
        if first.is_set():
            backend.other.set()
            threading.Event().wait(0.3)  # the other request has failed by now
        first.set()
        return outcome

    monkeypatch.setattr(router.ledger, "reserve", slowly)
    with pytest.raises(BackendError, match="wrong key"):
        router.embed(["bad", "good"], input_type="document")
    sent = [call.texts for call in backend.calls]
    totals = router.ledger.totals("model")
    doubtful = router.ledger.unconfirmed()
    router.close()

    assert doubtful == []
    assert sum(account.requests for account in totals.values()) == len(sent)


async def test_a_request_that_was_cancelled_before_it_went_out_is_not_suspected(tmp_path: Path) -> None:
    """A call that waits for one of the places in flight has sent nothing."""
    backend = Waiting()
    router = Router([backend.model(price="1", max_concurrency=1)], cache=tmp_path)
    sent = asyncio.create_task(router.aembed(["sent"], input_type="document"))
    await backend.begun.wait()
    waiting = asyncio.create_task(router.aembed(["still waiting"], input_type="document"))
    await asyncio.sleep(0.2)
    waiting.cancel()
    backend.go_on.set()
    await asyncio.wait([sent, waiting])
    doubtful = router.ledger.unconfirmed()
    await router.aclose()

    assert [call.texts for call in backend.calls] == [("sent",)]
    assert doubtful == []


class Waiting(FakeBackend):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        self.begun.set()
        await self.go_on.wait()
        return self.embed(texts, input_type, timeout=timeout)


async def test_a_request_that_was_cancelled_in_flight_is_finished_kept_and_booked(tmp_path: Path) -> None:
    """It is paid for: the caller goes on at once, the answer is kept behind its back."""
    backend = Waiting()
    router = Router([backend.model(price="1")], cache=tmp_path)
    sent = asyncio.create_task(router.aembed(["on its way"], input_type="document"))
    await backend.begun.wait()
    sent.cancel()
    await asyncio.wait([sent])
    backend.go_on.set()
    await router.aclose()

    assert sent.cancelled()
    assert router.estimate(["on its way"], input_type="document").cached == 1
    assert router.usage.requests == 1
    assert [account.tokens for account in router.ledger.totals("day").values()] == [3]
    assert router.ledger.unconfirmed() == []


def test_a_request_in_flight_when_the_event_loop_ends_is_suspected(tmp_path: Path) -> None:
    """No caller is left to learn what it was billed."""
    backend: list[Waiting] = []

    async def leave() -> Router:
        backend.append(Waiting())
        router = Router([backend[0].model(price="1")], cache=tmp_path)
        sent = asyncio.create_task(router.aembed(["on its way"], input_type="document"))
        await backend[0].begun.wait()
        sent.cancel()
        await asyncio.wait([sent])
        return router

    router = asyncio.run(leave())

    assert [item.tokens for item in router.ledger.unconfirmed()] == [3]
    router.close()


# What goes wrong elsewhere


def test_a_cached_repeat_counts_nothing(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """Elsewhere a repeat from the cache doubles the count (H18)."""
    router = Router([small(emulator)], cache=tmp_path)
    embed(router, asynchronous, ["one two three"], input_type="document")
    (before,) = router.ledger.totals("model").values()
    embed(router, asynchronous, ["one two three"], input_type="document")
    (after,) = router.ledger.totals("model").values()
    router.close()

    assert replace(after, saved_texts=0, saved_tokens=0, saved=Decimal(0)) == before
    assert (after.saved_texts, after.saved_tokens, after.saved) == (1, before.tokens, before.cost)


def test_a_token_budget_fires_for_embeddings(emulator: Emulator, tmp_path: Path, asynchronous: bool) -> None:
    """Elsewhere it never does (H18)."""
    five_tokens = Budget(total=5 * Decimal("0.02") / 1_000_000)
    router = Router([small(emulator)], cache=tmp_path, budget=five_tokens)
    embed(router, asynchronous, ["one two three"], input_type="document")
    with pytest.raises(BudgetExceededError, match="total"):
        embed(router, asynchronous, ["four five six"], input_type="document")
    router.close()

    assert emulator.calls == 1


def test_one_more_node_embeds_one_more_node(emulator: Emulator, tmp_path: Path) -> None:
    """Elsewhere one more node embeds all of them again, and so do a new key and another batch size (H19)."""
    nodes = [TextNode(text=f"node number {number}") for number in range(5)]
    tokens = []
    for count, declared in ((4, {}), (5, {}), (5, {"api_key": "rotated"}), (5, {"batch_size": 2})):
        with Router([small(emulator, **declared)], cache=tmp_path) as router:
            IngestionPipeline(transformations=[RouterEmbedding(router=router)]).run(nodes=nodes[:count])
            tokens.append(router.ledger.totals("model")[MODEL].tokens)

    sent = [text for received in emulator.received for text in received.texts]
    assert len(sent) == len(set(sent)) == 5
    assert tokens == [16, 20, 20, 20]


def test_a_call_over_the_budget_is_refused_before_it_is_made(
    emulator: Emulator, tmp_path: Path, asynchronous: bool
) -> None:
    """Elsewhere a call of 0.02 passes a budget of 0.015 and the next one is refused (H29)."""
    router = Router([small(emulator, price="5")], cache=tmp_path, budget=Budget(total="0.015"))
    with pytest.raises(BudgetExceededError, match=r"\$0\.02\d* more would pass total=\$0\.015"):
        embed(router, asynchronous, ["word " * 4000], input_type="document")
    (calls, spent) = (emulator.calls, router.ledger.totals("model"))
    embed(router, asynchronous, ["word " * 2000], input_type="document")
    router.close()

    assert (calls, spent) == (0, {})
    assert emulator.calls == 1


def _price_sheet() -> dict[str, Decimal | None]:
    """Return the prices of the catalogue's file, read without the package's code."""
    folder = Path(catalogue.__file__).parent
    rows = tomllib.loads((folder / "catalogue.toml").read_text("utf-8"))["models"]
    servers = tomllib.loads((folder / "servers.toml").read_text("utf-8"))["servers"]
    usual = {server["name"]: server.get("price") for server in servers}
    prices = {row["model"]: row.get("price", usual.get(row["model"].partition(":")[0])) for row in rows}
    return {model: None if price is None else Decimal(price) for model, price in prices.items()}


SERVED = ("hub", "ollama", "together", "fireworks", "deepinfra", "nvidia", "jina", "databricks")
"""Providers whose many rows are of one kind: one after the other they are slow."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name.partition(":")[0] in SERVED else name
        for name in sorted(_price_sheet())
    ],
)
def test_every_model_costs_its_own_price(name: str, tmp_path: Path) -> None:
    """Elsewhere a model whose name begins with another's is billed at the other's price (H35)."""
    fake = FakeBackend(dimensions=load_catalogue()[name].dimensions)
    price = _price_sheet()[name]
    with Router([Model(name, backend=fake)], cache=tmp_path) as router:
        router.embed(["one two three"], input_type="document")
        account = router.ledger.totals("model")[name]

    if price is None:
        assert (account.cost, account.unpriced_tokens) == (0, 3)
    else:
        assert (account.cost, account.unpriced_tokens) == (3 * price / 1_000_000, 0)


def test_prices_go_by_the_whole_name() -> None:
    """The pair that was billed at a third of its price elsewhere, and a family that had none (H35)."""
    prices = {
        name.partition(":")[2]: card.price for name, card in load_catalogue().items() if name.startswith("voyage:")
    }

    assert prices["voyage-3-large"] == Decimal("0.18")
    assert prices["voyage-3"] == Decimal("0.06")
    assert prices["voyage-3-lite"] == Decimal("0.02")
    assert [prices[name] for name in ("voyage-4-large", "voyage-4", "voyage-4-lite")] == [
        Decimal("0.12"),
        Decimal("0.06"),
        Decimal("0.02"),
    ]


# Bills of real providers


RECORDED = [exchange for exchange in exchanges() if exchange.fate is Fate.VECTORS]


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"there are no recordings in {FOLDER}")
@pytest.mark.parametrize("exchange", RECORDED, ids=str)
def test_a_recorded_bill_is_booked_to_the_last_digit(exchange: Exchange, tmp_path: Path) -> None:
    """What the provider said it billed, times the price of the model that was asked. One recorded answer of Voyage says
    0 tokens: there the estimate is booked, and marked.
    """
    recording = success(exchange)
    if len(set(recording.texts)) < len(recording.texts):
        pytest.skip("a router sends equal texts once, so it would not ask for this recording")
    price = _price_sheet().get(recording.model.name)
    router = Router([recording.model], cache=None, ledger=tmp_path / "ledger.db", retry=RetryPolicy(attempts=1))
    tokens = recording.tokens or router.estimate(recording.texts, input_type=recording.input_type).tokens
    with replayed(recording):
        router.embed(recording.texts, input_type=recording.input_type)
    totals = router.ledger.totals("model")
    marked = [bill.reported for bill in router.ledger.implausible_bills()]
    router.close()

    assert marked == ([] if recording.tokens else ["0"])
    known = price is not None
    assert totals == {
        recording.model.name: Account(
            requests=1,
            texts=len(recording.texts),
            tokens=tokens,
            cost=tokens * price / 1_000_000 if price is not None else Decimal(0),
            unpriced_tokens=0 if known else tokens,
        )
    }
