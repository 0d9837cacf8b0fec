"""Accounts on a Redis server that goes away, is slow or full, forgets, asks for a password, or repeats itself."""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis

from embedrouter import Budget, Router
from embedrouter.doctor import check_ledger
from embedrouter.errors import BudgetExceededError, ConfigError, LedgerError
from embedrouter.events import Event, LedgerFailed
from embedrouter.redis import RedisBooks, RedisState
from embedrouter.spending import Account, Ledger
from embedrouter.spending import _keeping as ledger_module
from embedrouter.testing import FakeBackend
from tests.command_line import run
from tests.either import embed
from tests.hammer import MODEL, spending
from tests.ledgers import Place
from tests.redis_server import RedisServer

A_DOLLAR = Budget(total="1.00")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, which keeps what it has when it is stopped."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always") as started:
        yield started


def reserved(ledger: Ledger, amount: str = "0.10", budget: Budget = A_DOLLAR, **told: Any) -> int:
    outcome = ledger.reserve(budget, spending(amount, **told))
    assert isinstance(outcome, int), outcome
    return outcome


def on(server: RedisServer, options: str = "", **settings: Any) -> Ledger:
    return Ledger(books=RedisState(server.address + options).books(), **settings)


@contextmanager
def routers(*built: Router) -> Iterator[None]:
    with ExitStack() as stack:
        for router in built:
            stack.enter_context(router)
        yield


# The settings


def test_an_address_is_taken_as_the_state_and_as_the_ledger(redis_server: RedisServer, asynchronous: bool) -> None:
    """Routers with one address share one budget, and so do their copies in other processes."""
    address = f"{redis_server.address}?prefix=settings-{asynchronous}"
    told: dict[str, Any] = {"cache": None, "budget": Budget(total="0.000007")}
    first = Router([FakeBackend().model(price="1")], state=address, **told)
    second = Router([FakeBackend().model(price="1")], ledger=address, **told)
    copy: Router = pickle.loads(pickle.dumps(second))
    with routers(first, second, copy):
        embed(first, asynchronous, ["a b c"], input_type="document")
        embed(second, asynchronous, ["d e f"], input_type="document")
        embed(copy, asynchronous, ["g"], input_type="document")
        for router in (first, second, copy):
            with pytest.raises(BudgetExceededError, match=r"\$0\.000007 are spent or set aside"):
                embed(router, asynchronous, ["h"], input_type="document")
        totals = [router.ledger.totals("model") for router in (first, second, copy)]
        places = {router.ledger.place for router in (first, second, copy)}

    assert totals == [{"fake:model": Account(3, 3, 7, Decimal("0.000007"))}] * 3
    assert places == {redis_server.address}


def test_a_file_is_taken_beside_a_state(redis_server: RedisServer, tmp_path: Path) -> None:
    """Who names a ledger means it."""
    with Router([FakeBackend().model()], state=redis_server.address, ledger=tmp_path / "own.db", cache=None) as router:
        assert router.ledger.file == tmp_path / "own.db"


def test_a_setting_of_the_ledgers_failures_has_two_values() -> None:
    with pytest.raises(ConfigError, match="when_ledger_fails must be 'closed' or 'open'"):
        Router([FakeBackend().model()], when_ledger_fails="ajar")  # type: ignore[arg-type]


# Repeated commands


class Repeating(redis.Redis):
    """A client whose every answer is lost once, so that every script is carried out twice."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


def test_a_script_that_is_carried_out_twice_counts_once(redis_server: RedisServer) -> None:
    """redis-py sends a command again where the connection was lost before its answer came."""
    told: dict[str, Any] = {"prefix": "repeating"}
    client = Repeating(port=redis_server.port)
    repeated = Ledger(books=RedisState(client, **told).books())
    with closing(repeated), closing(on(redis_server, "?prefix=once")) as plain:
        for ledger in (repeated, plain):
            settled = reserved(ledger, "0.20", tokens=100, exact=True, free_tokens=30)
            ledger.settle(settled, 90, Decimal("0.18"))
            released, lost, confirmed = reserved(ledger), reserved(ledger, "0.05"), reserved(ledger, "0.03")
            ledger.release(released)
            for number in (lost, confirmed):
                ledger.mark_unconfirmed(number)
            ledger.confirm(confirmed)
            ledger.release(lost)
            ledger.mark_unconfirmed(reserved(ledger, "0.07"))
            ledger.save(MODEL, "t", 3, 30, Decimal("0.03"))
            ledger.flush()
        shown = [
            (
                ledger.totals("tag"),
                ledger.left(A_DOLLAR)["total"].left,
                [item.amount for item in ledger.unconfirmed()],
                ledger.free_tokens(MODEL, 50),
                ledger.learned(MODEL, "document", exact=True),
                sorted((item.state, item.tokens) for item in ledger.requests()),
            )
            for ledger in (repeated, plain)
        ]
    client.close()

    assert shown[0] == shown[1]
    assert shown[0][1] == Decimal("1.00") - Decimal("0.18") * 60 / 90 - Decimal("0.03") - Decimal("0.07")


class Deaf(redis.Redis):
    """A client that does not hear the answers while ``deaf``."""

    deaf = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if self.deaf:
            raise redis.TimeoutError("Timeout reading from socket")
        return answer


def test_a_reservation_whose_answer_was_lost_is_given_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be on the server, and its request was not sent: it must not use up the budget for ever."""
    monkeypatch.setattr(ledger_module, "FLUSH_INTERVAL", -1)
    client = Deaf(port=redis_server.port)
    with closing(Ledger(books=RedisState(client, prefix="deaf").books(), required=True)) as ledger:
        reserved(ledger, "0.10")
        client.deaf = True
        with pytest.raises(LedgerError, match="Timeout reading"):
            ledger.reserve(A_DOLLAR, spending("0.90"))
        ledger.save(MODEL, "", 1, 10, Decimal("0.01"))
        ledger.flush()
        client.deaf = False
        ledger.flush()
        left, saved = ledger.left(A_DOLLAR)["total"].left, ledger.totals("model")[MODEL].saved_texts
    client.close()

    assert (left, saved) == (Decimal("0.90"), 1)


# Exactness


@pytest.mark.parametrize("cap", ["9007.199254740993", "9223372.036854775807"])
def test_a_cap_is_exact_beyond_the_numbers_of_lua(redis_server: RedisServer, cap: str) -> None:
    """A double is exact to $9,007.199254740992 in units of 10^-12 dollars; the last unit still counts."""
    unit = Decimal("1E-12")
    budget = Budget(total=cap, tags={"t": Budget(per_month=cap)})
    with closing(on(redis_server, f"?prefix=exact-{cap}")) as ledger:
        first = reserved(ledger, str(Decimal(cap) - unit), budget, tag="t")
        fits = ledger.reserve(budget, spending(unit, tag="t"))
        over = ledger.reserve(budget, spending(unit, tag="t"))
        ledger.settle(first, 100, Decimal(cap) - 2 * unit)
        again = [ledger.reserve(budget, spending(unit, tag="t")) for _ in range(2)]
        counted = ledger.left(budget)["total"].counted

    assert isinstance(fits, int)
    assert isinstance(over, str)
    assert [isinstance(outcome, int) for outcome in again] == [True, False]
    assert counted == Decimal(cap)


def test_names_are_kept_as_they_are(redis_server: RedisServer) -> None:
    """Tags and models of any characters, also such as separate fields."""
    tags = ["a|b", 'say "x"', "ümläut", "新しい", "%7C", "line\nbreak", " ", "{}"]
    with closing(on(redis_server, "?prefix=names")) as ledger:
        for tag in tags:
            ledger.settle(reserved(ledger, "0.01", tag=tag, model=f"openai:{tag}", exact=False), 100, Decimal("0.01"))
            ledger.save(f"openai:{tag}", tag, 1, 1, Decimal(0))
            ledger.flush()
        found = [set(ledger.totals("tag")), {item.tag for item in ledger.requests()}]
        learned = [ledger.learned(f"openai:{tag}", "document", exact=False).requests for tag in tags]
        refused = ledger.reserve(Budget(tags={"a|b": Budget(total="0.01")}), spending("0.01", tag="a|b"))

    assert found == [set(tags)] * 2
    assert learned == [1] * len(tags)
    assert isinstance(refused, str)


@pytest.mark.parametrize("seconds", [0, 951_782_400, 1_709_164_800, 1_735_689_599, 4_107_542_399, 1_796_040_000])
def test_a_day_is_the_one_of_the_calendar(redis_server: RedisServer, seconds: int) -> None:
    """Leap days, ends of years: Redis has no calendar, so the script has one."""
    place = Place(address=redis_server.address)
    with closing(place.open(now=lambda: float(seconds))) as ledger:
        ledger.settle(reserved(ledger), 100, Decimal("0.10"))
        days = list(ledger.totals("day"))

    assert days == [time.strftime("%Y-%m-%d", time.gmtime(seconds))]


def test_the_clock_of_a_worker_opens_no_window(redis_server: RedisServer) -> None:
    """Time is the server's: a machine whose clock is a year ahead spends from today's money, as all others."""
    budget = Budget(per_day="1.00")
    books = RedisState(redis_server.address, prefix="clock").books()
    with closing(Ledger(books=books, now=lambda: time.time() + 400 * 86_400)) as ahead:
        first = reserved(ahead, "0.90", budget)
        ahead.settle(first, 100, Decimal("0.90"))
        with closing(on(redis_server, "?prefix=clock")) as right:
            refused = right.reserve(budget, spending("0.20"))

    assert isinstance(refused, str)
    assert "$0.90 are spent" in refused


# Servers that fail


@pytest.mark.parametrize("how", ["gone", "suspended", "full"])
def test_a_budget_fails_closed_and_goes_on_when_the_server_is_back(
    how: str, server: RedisServer, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request goes out that cannot be counted; what is answered from the cache is."""
    monkeypatch.setattr(ledger_module, "FLUSH_INTERVAL", 0.05)
    told: list[Event] = []
    backend = FakeBackend()
    settings = f"?socket_timeout=0.3&prefix={how}"
    router = Router(
        [backend.model(price="1")], cache=None, ledger=server.address + settings, budget="1/day", on_event=told.append
    )
    with router:
        embed(router, asynchronous, ["before"], input_type="document")
        with failing(server, how), pytest.raises(LedgerError, match=r"no budget can hold\. Start the server"):
            embed(router, asynchronous, ["during"], input_type="document")
        calls = len(backend.calls)
        time.sleep(0.1)
        embed(router, asynchronous, ["after that"], input_type="document")
        totals = router.ledger.totals("model")["fake:model"]
        unconfirmed = router.ledger.unconfirmed()

    assert calls == 1
    assert (totals.requests, totals.tokens) == (2, 3)
    assert unconfirmed == []
    failed = [event for event in told if isinstance(event, LedgerFailed)]
    assert [event.consequence for event in failed] == ["nothing is spent, and what is booked waits in memory"]
    assert "prefix" not in failed[0].file


@pytest.mark.parametrize(
    ("how", "budget"),
    [
        ("gone", None),
        ("suspended", "1/day"),
        pytest.param("gone", "1/day", marks=pytest.mark.slow),
        pytest.param("suspended", None, marks=pytest.mark.slow),
        pytest.param("full", None, marks=pytest.mark.slow),
        pytest.param("full", "1/day", marks=pytest.mark.slow),
    ],
)
def test_what_goes_out_meanwhile_is_booked_later(
    how: str, budget: str | None, server: RedisServer, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a budget, or where the user prefers answers: no call waits for long, and nothing is lost."""
    monkeypatch.setattr(ledger_module, "FLUSH_INTERVAL", 0.5)
    told: list[Event] = []
    settings: dict[str, Any] = {"when_ledger_fails": "open", "budget": budget} if budget else {}
    router = Router(
        [FakeBackend().model(price="1")],
        cache=None,
        ledger=f"{server.address}?socket_timeout=0.3",
        on_event=told.append,
        **settings,
    )
    with router:
        embed(router, asynchronous, ["before"], input_type="document")
        with failing(server, how):
            began = time.monotonic()
            for number in range(5):  # and not closed in between, which would try again each time
                texts = [f"during {number}"]
                if asynchronous:
                    asyncio.run(router.aembed(texts, input_type="document"))
                else:
                    router.embed(texts, input_type="document")
            took = time.monotonic() - began
        time.sleep(0.6)
        embed(router, asynchronous, ["after that"], input_type="document")
        router.ledger.flush()
        totals = router.ledger.totals("model")["fake:model"]
        unconfirmed = router.ledger.unconfirmed()

    assert took < 3
    assert (totals.requests, totals.tokens) == (7, 1 + 10 + 2)
    assert unconfirmed == []
    consequence = "no budget is checked, and what is booked waits in memory"
    expected = consequence if budget else "what is booked waits in memory"
    assert {event.consequence for event in told if isinstance(event, LedgerFailed)} == {expected}


@contextmanager
def failing(server: RedisServer, how: str) -> Iterator[None]:
    """Let a server fail for a while."""
    if how == "gone":
        server.stop()
        yield
        server.start()
    elif how == "suspended":
        server.suspend()
        yield
        server.resume()
    else:
        with redis.Redis(port=server.port) as client:
            client.config_set("maxmemory", 1)
            yield
            client.config_set("maxmemory", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_budget_survives_a_restart_of_a_server_that_keeps_what_it_has(server: RedisServer, number: int) -> None:
    """An append-only file that is written with each command, also where the server is killed."""
    with closing(on(server, required=True)) as ledger:
        ledger.settle(reserved(ledger, "0.60"), 100, Decimal("0.60"))
        waiting = reserved(ledger, "0.30")
        server.stop(number)
        server.start()
        refused = ledger.reserve(A_DOLLAR, spending("0.20"))
        ledger.settle(waiting, 100, Decimal("0.25"))
        cost = ledger.totals("model")[MODEL].cost

    assert "$0.90 are spent or set aside" in str(refused)
    assert cost == Decimal("0.85")


def test_a_bill_is_kept_in_memory_while_the_server_is_away(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was paid for, so its caller gets it; the money stays set aside until the bill is written."""
    monkeypatch.setattr(ledger_module, "FLUSH_INTERVAL", -1)
    with closing(on(server, required=True)) as ledger:
        number = reserved(ledger, "0.60")
        server.stop()
        amount = ledger.settle(number, 90, Decimal("0.54"))
        server.start()
        before = ledger.left(A_DOLLAR)["total"].left
        ledger.flush()
        after = ledger.left(A_DOLLAR)["total"].left

    assert (amount, before, after) == (Decimal("0.54"), Decimal("0.40"), Decimal("0.46"))


@pytest.mark.parametrize(
    "rule", ["+@all", "+@all -evalsha -eval", "~other:* +@all", "~* +@all -hincrby", "~* +@all -zadd"]
)
def test_a_user_without_the_rights_spends_nothing(server: RedisServer, rule: str) -> None:
    """All rights are tried before the first booking, or a script would stop half way."""
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">secret", *rule.split())
    address = server.address.replace("redis://", "redis://worker:secret@")
    with closing(Ledger(books=RedisState(address).books(), required=True)) as ledger:
        with pytest.raises(LedgerError, match=r"no budget can hold.*the rights of its user") as error:
            ledger.reserve(A_DOLLAR, spending("0.10"))
        assert "secret" not in str(error.value)
    with redis.Redis(port=server.port) as client, closing(on(server)) as right:
        assert client.keys("*requests") == []
        assert right.totals("model") == {}


def test_a_user_with_the_documented_rights_can_do_everything(server: RedisServer) -> None:
    """Those of docs/budgets.md, on the keys of one prefix."""
    rights = "on >secret ~embedrouter:* +eval +evalsha +script|load +@hash +@sortedset +get +incr +time +ping +hello"
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "worker", *rights.split())
    address = server.address.replace("redis://", "redis://worker:secret@")
    with closing(Ledger(books=RedisState(address).books(), required=True)) as ledger:
        ledger.settle(reserved(ledger), 100, Decimal("0.10"))
        ledger.save(MODEL, "", 1, 1, Decimal(0))
        ledger.mark_unconfirmed(reserved(ledger))
        ledger.flush()
        assert ledger.compact() == 1
        assert ledger.totals("model")[MODEL].requests == 1
        assert ledger.left(A_DOLLAR)["total"].left == Decimal("0.80")
        assert len(ledger.requests()) == 1


def test_a_wrong_password_is_told_and_not_shown(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as client:
        client.config_set("requirepass", "right")
    address = server.address.replace("redis://", "redis://:wrong@")
    router = Router([FakeBackend().model(price="1")], cache=None, ledger=address, budget="1/day")
    with router, pytest.raises(LedgerError, match="password") as error:
        router.embed(["a"], input_type="document")

    assert "wrong" not in str(error.value)
    assert "wrong" not in repr(router)
    assert "wrong" not in router.ledger.place


def test_accounts_of_another_version_are_left_alone(redis_server: RedisServer) -> None:
    """Neither read nor changed."""
    state = RedisState(redis_server.address, prefix="later")
    books = RedisBooks(state.server)
    state.server.client.hset(books.key("meta"), "version", "99")
    with closing(Ledger(books=books, required=True)) as ledger:
        for ask in (lambda: ledger.reserve(A_DOLLAR, spending("0.10")), lambda: ledger.totals("day")):
            with pytest.raises(ConfigError, match="Another version of embedrouter keeps its ledger"):
                ask()
        assert list(state.server.client.scan_iter("later:*")) == [books.key("meta")]


# Closing


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("cluster", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_closing_one_router_leaves_the_commands_of_others_alone(tmp_path: Path, cluster: bool) -> None:
    """Routers share a state: closing one cut the connections that others were using, whose calls raised ValueError."""
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(tmp_path, *(("--cluster-enabled", "yes") if cluster else ())))
        witness = stack.enter_context(redis.Redis(port=server.port))
        if cluster:
            form_cluster(witness)
        state = RedisState(f"{server.address}?cluster={str(cluster).lower()}")
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waiting = pool.submit(state.server.client.blpop, "answers", 10)
        until(lambda: any(connection["cmd"] == "blpop" for connection in witness.client_list()))
        with Router([FakeBackend().model(price="1")], state=state, cache=None) as other:
            other.embed(["a"], input_type="document")
        witness.rpush("answers", "late")
        assert waiting.result() == (b"answers", b"late")
        state.close()
        until(lambda: len(witness.client_list()) == 1)  # the server takes a moment to notice that they are closed


# Other kinds of servers


def form_cluster(client: redis.Redis) -> None:
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: b"cluster_state:ok" in (client.execute_command("CLUSTER", "INFO") or b""))


@pytest.mark.slow
def test_a_cluster_takes_the_scripts(tmp_path: Path) -> None:
    """All keys that one script touches are on one node."""
    with RedisServer(tmp_path, "--cluster-enabled", "yes") as node:
        with redis.Redis(port=node.port) as client:
            form_cluster(client)
        with closing(on(node, "?cluster=true", required=True)) as ledger:
            ledger.settle(reserved(ledger), 100, Decimal("0.10"))
            ledger.mark_unconfirmed(reserved(ledger))
            ledger.save(MODEL, "", 1, 1, Decimal(0))
            ledger.flush()
            assert len(ledger.requests()) == 2
            assert ledger.left(A_DOLLAR)["total"].left == Decimal("0.80")


@pytest.mark.slow
def test_a_budget_holds_over_a_failover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentinel makes the replica the master; the router finds it by itself, with what it had been told."""
    monkeypatch.setattr(ledger_module, "FLUSH_INTERVAL", 0.1)
    with ExitStack() as stack:
        folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
        for folder in folders:
            folder.mkdir()
        master = stack.enter_context(RedisServer(folders[0], "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(RedisServer(folders[1], "--replicaof", f"127.0.0.1 {master.port}"))
        watcher = stack.enter_context(Sentinel(folders[2], master.port))
        found: Any = redis.Sentinel([("127.0.0.1", watcher.port)], socket_timeout=1)
        client = found.master_for("books", socket_timeout=1)
        stack.callback(client.close)
        wait_until(lambda: bool(found.discover_slaves("books")))
        ledger = stack.enter_context(closing(Ledger(books=RedisState(client).books(), required=True)))
        number = reserved(ledger, "0.60")
        wait_until(lambda: client.wait(1, 100) == 1)
        master.stop(signal.SIGKILL)
        wait_until(lambda: found.discover_master("books")[1] == replica.port)
        wait_until(lambda: ledger.settle(number, 100, Decimal("0.55")) is not None and written(ledger))
        refused = ledger.reserve(A_DOLLAR, spending("0.50"))

    assert "$0.55 are spent" in str(refused)


class Sentinel(RedisServer):
    """A Sentinel that watches one master; its settings are in a file, which it writes to."""

    def __init__(self, folder: Path, master: int) -> None:
        settings = folder / "sentinel.conf"
        super().__init__(folder, program="redis-server")
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor books 127.0.0.1 {master} 1\n"
            "sentinel down-after-milliseconds books 400\nsentinel failover-timeout books 3000\n"
        )
        self._arguments = [shutil.which("redis-server") or "", str(settings), "--sentinel"]

    def start(self) -> None:
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: redis.Redis(port=self.port).ping())


def wait_until(is_so: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if is_so():
                return
        except redis.RedisError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)


def written(ledger: Ledger) -> bool:
    """Say whether the server has all bookings."""
    ledger.flush()
    try:
        return ledger.totals("model")[MODEL].requests == 1
    except (LedgerError, KeyError):
        return False


# The command line, and the doctor


def test_commands_take_an_address(redis_server: RedisServer, tmp_path: Path) -> None:
    """They show, correct and export what is on the server as what is in a file."""
    place, clock = Place(address=redis_server.address), time.time
    with closing(place.open(now=lambda: clock() - 3 * 86_400)) as ledger:
        ledger.settle(reserved(ledger, "0.60", tag="t"), 100, Decimal("0.60"))
        for amount in ("0.10", "0.20", "0.03"):
            ledger.mark_unconfirmed(reserved(ledger, amount))
        numbers = {str(item.amount.normalize()): item.number for item in ledger.unconfirmed() if item.amount}
    named = ["--ledger", place.named]
    shown = json.loads(run("ledger", "show", *named, "--json").stdout)
    unknown = run("ledger", "confirm", "77", *named)
    confirmed = json.loads(run("ledger", "confirm", str(numbers["0.1"]), *named, "--json").stdout)
    released = json.loads(run("ledger", "release", "--older-than", "1", *named, "--json").stdout)
    exported = run("ledger", "export", *named).stdout
    compacted = json.loads(run("ledger", "compact", "--older-than", "1", *named, "--json").stdout)
    config = tmp_path / "embedrouter.toml"
    config.write_text(
        f'state = "{place.named}"\ncache = false\nbudget = "5/month"\nwhen_ledger_fails = "open"\n'
        '[[models]]\nmodel = "openai:text-embedding-3-small"\napi_key_env = "KEY"\n'
    )
    stats = json.loads(run("stats", "--by", "tag", "--config", str(config), "--json").stdout)

    assert shown["ledger"] == redis_server.address
    assert (Decimal(shown["total"]["cost"]), len(shown["unconfirmed"])) == (Decimal("0.60"), 3)
    assert "No unconfirmed request has the number 77, and nothing was changed" in unknown.stderr
    assert [item["number"] for item in confirmed["confirmed"]] == [numbers["0.1"]]
    assert {item["number"] for item in released["released"]} == {numbers["0.2"], numbers["0.03"]}
    assert "0.6," in exported
    assert compacted["removed"] == 4
    assert {tag: Decimal(row["cost"]) for tag, row in stats["rows"].items()} == {
        "": Decimal("0.10"),
        "t": Decimal("0.60"),
    }
    assert [Decimal(cap["counted"]) for cap in stats["budget"]] == [Decimal("0.70")]


def test_a_command_says_that_the_server_is_away(tmp_path: Path) -> None:
    shown = run("ledger", "show", "--ledger", "redis://:hidden@127.0.0.1:9/0")

    assert shown.returncode == 1
    assert "redis://127.0.0.1:9/0 cannot be read as a ledger" in shown.stderr
    assert "Start the server" in shown.stderr
    assert "hidden" not in shown.stderr


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"appendonly": "yes"}, {}),
        ({}, {"on disk": "has forgotten all: budgets begin anew"}),
        ({"save": "3600 1"}, {"on disk": "has forgotten what came after its last snapshot"}),
        (
            {"appendonly": "yes", "maxmemory-policy": "allkeys-lru"},
            {"eviction": "a full server removes keys (allkeys-lru), perhaps the accounts"},
        ),
    ],
    ids=["safe", "memory", "snapshots", "evicting"],
)
def test_the_doctor_warns_of_a_server_that_may_forget(
    settings: dict[str, str], wrong: dict[str, str], tmp_path: Path
) -> None:
    with RedisServer(tmp_path) as server:
        with redis.Redis(port=server.port) as client:
            for name, value in settings.items():
                client.config_set(name, value)
        with closing(on(server)) as ledger:
            ledger.settle(reserved(ledger, "0.60"), 100, Decimal("0.60"))
            findings = check_ledger(ledger)

    assert findings[0].story.startswith(f"{server.address}, ")
    assert "$0.60 spent" in findings[0].story
    told = {finding.check: finding.story for finding in findings if finding.level == "warning"}
    assert told.keys() == wrong.keys()
    assert all(story in told[name] for name, story in wrong.items())


def test_the_doctor_tells_of_a_server_that_is_away() -> None:
    with closing(Ledger(books=RedisState("redis://127.0.0.1:9/0").books())) as ledger:
        (finding,) = check_ledger(ledger)

    assert (finding.level, finding.check) == ("problem", "server")
    assert "Start the server" in (finding.advice or "")
