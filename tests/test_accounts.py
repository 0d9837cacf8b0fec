"""Accounts that hold when locks, clocks, bills and processes misbehave."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from embedrouter import Router
from embedrouter.spending import Ledger
from embedrouter.spending import _ledger as ledger_module
from embedrouter.testing import FakeBackend
from tests.either import embed
from tests.hammer import a_program

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
