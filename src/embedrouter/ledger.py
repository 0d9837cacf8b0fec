"""The ledger: what was spent, set aside and saved, in one SQLite file that threads and processes share.

Money is set aside before a request and settled with the provider's own bill after it. Each is one transaction that
takes the write lock first, so that a budget holds for everybody who shares the file. A request that went out and never
came back (a timeout, a reset, a killed process) may have been billed: its reservation stays counted, at its estimate,
as *unconfirmed*. So a cap can be passed by no more than the error of the estimate of each request in flight.

Amounts are whole numbers of 10^-12 US dollars, so that sums are exact: prices have at most six decimals per million
tokens. What the cache and the removal of duplicates saved is summed in memory and written with the next paid request,
every few seconds, and when the ledger is closed. Texts are never stored.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

from .budget import Budget
from .errors import ConfigError, EmbedRouterError
from .types import Spending, dollars

__all__ = ["Account", "Ledger", "Unconfirmed"]

logger = logging.getLogger("embedrouter")

UNIT = Decimal(10) ** -12
"""US dollars."""
BUSY = 30.0
"""Seconds to wait for another process's transaction."""
FLUSH = 5.0
"""Seconds that savings may stay in memory."""
GRACE = 60.0
"""Seconds after its time limit when a reservation that nobody settled counts as unconfirmed."""

VERSION = 1
"""Of the tables below; changes with them."""
SCHEMA = """
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
CREATE INDEX IF NOT EXISTS unsettled ON requests (state) WHERE state != 'settled';
CREATE TABLE IF NOT EXISTS days (day TEXT PRIMARY KEY, amount INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS allowances (model TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS savings (
    day TEXT NOT NULL, model TEXT NOT NULL, tag TEXT NOT NULL,
    texts INTEGER NOT NULL, tokens INTEGER NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (day, model, tag)
) WITHOUT ROWID;
"""

WINDOWS = {"per_day": "WHERE day = :day", "per_month": "WHERE substr(day, 1, 7) = substr(:day, 1, 7)", "total": ""}
"""Which days each cap counts."""

Savings: TypeAlias = dict[tuple[str, str, str], tuple[int, int, int]]
"""Texts, tokens and amount by day, model and tag."""

GROUPS = {"day": "day", "month": "substr(day, 1, 7)", "model": "model", "tag": "tag"}


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent and saved under one heading. Money is US dollars."""

    requests: int = 0
    texts: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)
    """As billed, where the price is known."""
    unpriced_tokens: int = 0
    unconfirmed: Decimal = Decimal(0)
    """Estimates of requests that may have been billed; not in ``cost``."""
    saved_texts: int = 0
    saved_tokens: int = 0
    saved: Decimal = Decimal(0)

    def __str__(self) -> str:
        """Return it for people; money without exponents."""
        unknown = f", {self.unpriced_tokens} tokens of unknown price" if self.unpriced_tokens else ""
        lost = f", {dollars(self.unconfirmed)} unconfirmed" if self.unconfirmed else ""
        return (
            f"{self.requests} requests, {self.tokens} tokens, {dollars(self.cost)}{unknown}{lost}; "
            f"saved {dollars(self.saved)}"
        )


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A request that went out and never came back."""

    at: datetime
    model: str
    tag: str
    texts: int
    tokens: int
    amount: Decimal | None


class Ledger:
    """Keeps accounts in a file that is made when something is first booked.

    Args:
        file: the same file is the same ledger; ``None`` keeps accounts in memory, for this object alone.
        required: whether a budget depends on it. Otherwise a file that cannot be opened is no reason to fail: accounts
            are then kept in memory, and a warning is logged.
        now: seconds since 1970.
    """

    def __init__(
        self, file: Path | None = None, *, required: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        self.file = file
        self._required = required
        self._now = now
        self._start()
        _ledgers.add(self)

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._savings: Savings = {}
        self._written = self._now()

    # Money before and after a request

    def refusal(self, budget: Budget, amount: Decimal | None) -> str | None:
        """Say why a whole call that costs ``amount`` does not fit the budget, or return ``None``."""
        if amount == 0 or not budget.caps:
            return None
        with self.transaction() as database:
            return self._exceeded(database, budget, amount, whole_call=True)

    def reserve(self, budget: Budget, spending: Spending) -> int | str:
        """Set the cost of one request aside and return the reservation, or say why it does not fit."""
        with self.transaction() as database:
            free = min(self.free_tokens(spending.model, spending.free_tokens), spending.tokens)
            amount = _after(spending.amount, spending.tokens, free)
            if amount != 0 and budget.caps:
                refusal = self._exceeded(database, budget, amount, whole_call=False)
                if refusal is not None:
                    return refusal
            now, units = self._now(), _units(amount)
            self._add(database, _day(now), units)
            self._use(database, spending.model, free)
            row = (
                now, _day(now), spending.model, spending.input_type, spending.tier, spending.tag, spending.texts,
                spending.tokens, units, spending.attempt, now + spending.timeout + GRACE, free,
            )  # fmt: skip
            cursor = database.execute(
                "INSERT INTO requests"
                " (at, day, state, model, input_type, tier, tag, texts, tokens, amount, attempt, until, free)"
                " VALUES (?, ?, 'reserved', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def settle(self, reservation: int, tokens: int, amount: Decimal | None) -> Decimal | None:
        """Book what a request was billed in place of what was set aside; return it without what was free."""
        with self.transaction() as database:
            (free,) = database.execute("SELECT free FROM requests WHERE id = ?", (reservation,)).fetchone()
            free = min(free, tokens)
            amount = _after(amount, tokens, free)
            self._replace(database, reservation, _units(amount), free)
            database.execute(
                "UPDATE requests SET state = 'settled', tokens = ?, amount = ?, free = ? WHERE id = ?",
                (tokens, _units(amount), free, reservation),
            )
            self._write_savings(database)
        return amount

    def release(self, reservation: int) -> None:
        """Forget a request that was refused and cost nothing."""
        with self.transaction() as database:
            self._replace(database, reservation, 0, 0)
            database.execute("DELETE FROM requests WHERE id = ?", (reservation,))

    def suspect(self, reservation: int) -> None:
        """Keep counting a request that went out and never came back: it may have been billed."""
        with self.transaction() as database:
            database.execute("UPDATE requests SET state = 'unconfirmed' WHERE id = ?", (reservation,))

    def save(self, model: str, tag: str, texts: int, tokens: int, amount: Decimal) -> None:
        """Add to what was not paid for. Usually writes nothing."""
        with self._lock:
            key = (_day(self._now()), model, tag)
            before = self._savings.get(key, (0, 0, 0))
            self._savings[key] = (before[0] + texts, before[1] + tokens, before[2] + (_units(amount) or 0))
            due = self._now() - self._written > FLUSH
        if due:
            self.flush()

    def flush(self) -> None:
        """Write savings that are still in memory."""
        with self._lock:
            if self._savings:
                with self.transaction() as database:
                    self._write_savings(database)

    def close(self) -> None:
        """Write what is in memory and close the file; the next call opens it again."""
        with self._lock:
            self.flush()
            self._shut()

    # Reading

    @property
    def lasting(self) -> bool:
        """Whether accounts are in a file, and not in memory."""
        with self.transaction():
            return self._in_file

    def free_tokens(self, model: str, allowance: int) -> int:
        """Return how many of a model's free tokens are left."""
        if not allowance:
            return 0
        with self.transaction() as database:
            row = database.execute("SELECT used FROM allowances WHERE model = ?", (model,)).fetchone()
        return max(0, allowance - (row[0] if row else 0))

    def totals(self, by: Literal["day", "month", "model", "tag"]) -> dict[str, Account]:
        """Return what was spent and saved, by day, month, model or tag, in their order."""
        self.flush()
        group = GROUPS[by]
        with self.transaction() as database:
            spent = database.execute(
                f"SELECT {group}, COUNT(*) FILTER (WHERE state = 'settled'),"
                " COALESCE(SUM(texts) FILTER (WHERE state = 'settled'), 0),"
                " COALESCE(SUM(tokens) FILTER (WHERE state = 'settled'), 0),"
                " COALESCE(SUM(amount) FILTER (WHERE state = 'settled'), 0),"
                " COALESCE(SUM(tokens) FILTER (WHERE state = 'settled' AND amount IS NULL), 0),"
                " COALESCE(SUM(amount) FILTER (WHERE state = 'unconfirmed' OR (state = 'reserved' AND until < ?)), 0)"
                f" FROM requests GROUP BY {group}",
                (self._now(),),
            ).fetchall()
            saved = database.execute(
                f"SELECT {group}, SUM(texts), SUM(tokens), SUM(amount) FROM savings GROUP BY {group}"
            ).fetchall()
        accounts: dict[str, dict[str, Any]] = {}
        for name, requests, texts, tokens, amount, unpriced, unconfirmed in spent:
            accounts[name] = {
                "requests": requests,
                "texts": texts,
                "tokens": tokens,
                "cost": amount * UNIT,
                "unpriced_tokens": unpriced,
                "unconfirmed": unconfirmed * UNIT,
            }
        for name, texts, tokens, amount in saved:
            accounts.setdefault(name, {}).update(saved_texts=texts, saved_tokens=tokens, saved=amount * UNIT)
        return {name: Account(**accounts[name]) for name in sorted(accounts)}

    def unconfirmed(self) -> list[Unconfirmed]:
        """Return the requests that may have been billed, oldest first."""
        with self.transaction() as database:
            rows = database.execute(
                "SELECT at, model, tag, texts, tokens, amount FROM requests"
                " WHERE state = 'unconfirmed' OR (state = 'reserved' AND until < ?) ORDER BY at",
                (self._now(),),
            ).fetchall()
        return [
            Unconfirmed(datetime.fromtimestamp(at, UTC), model, tag, texts, tokens, None if n is None else n * UNIT)
            for at, model, tag, texts, tokens, n in rows
        ]

    # The file

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the file's write lock, and commit unless something is raised; for what must change with the accounts."""
        with self._lock:
            database = self._database or self._open()
            if database.in_transaction:  # one inside another
                yield database
                return
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def _shut(self) -> None:
        """Close the file; accounts that are kept in memory stay."""
        if self._database is not None and self._in_file:
            self._finalizer.detach()
            self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        self._in_file = self.file is not None
        try:
            database = _connect(self.file)
        except (OSError, sqlite3.Error) as error:
            story = f"the ledger {self.file} cannot be opened ({error})"
            if self._required:
                raise ConfigError(f"{story}, so no budget can hold. Name another file: ledger=….") from error
            logger.warning("%s; spending is counted in memory until this process ends", story)
            database = _connect(None)
            self._in_file = False
        self._finalizer = weakref.finalize(self, _finish, database, self._savings, os.getpid())
        self._database = database
        return database

    def _add(self, database: sqlite3.Connection, day: str, units: int | None) -> None:
        if units:
            database.execute(
                "INSERT INTO days VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET amount = amount + excluded.amount",
                (day, units),
            )

    def _use(self, database: sqlite3.Connection, model: str, free: int) -> None:
        if free:
            database.execute(
                "INSERT INTO allowances VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET used = used + excluded.used",
                (model, free),
            )

    def _replace(self, database: sqlite3.Connection, reservation: int, units: int | None, free: int) -> None:
        day, model, amount, freed = database.execute(
            "SELECT day, model, amount, free FROM requests WHERE id = ?", (reservation,)
        ).fetchone()
        self._add(database, day, (units or 0) - (amount or 0))
        self._use(database, model, free - freed)

    def _write_savings(self, database: sqlite3.Connection) -> None:
        _write(database, self._savings)
        self._written = self._now()

    def _exceeded(
        self, database: sqlite3.Connection, budget: Budget, amount: Decimal | None, *, whole_call: bool
    ) -> str | None:
        if amount is None:
            return "its price is unknown, so no budget can hold. Set Model(…, price=…), US dollars per million tokens."
        for name, cap in budget.caps.items():
            if name == "per_call":
                if whole_call and amount > cap:
                    return (
                        f"the call would cost about {dollars(amount)}, over per_call={dollars(cap)}. "
                        "Send fewer texts or raise per_call."
                    )
                continue
            (units,) = database.execute(
                f"SELECT COALESCE(SUM(amount), 0) FROM days {WINDOWS[name]}", {"day": _day(self._now())}
            ).fetchone()
            counted = units * UNIT
            if counted + amount > cap:
                return (
                    f"{dollars(counted)} are spent or set aside; {dollars(amount)} more would pass "
                    f"{name}={dollars(cap)}. Raise {name}, or wait for the next window."
                )
        return None


def _connect(file: Path | None) -> sqlite3.Connection:
    if file is not None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = sqlite3.connect(file or ":memory:", timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    """Make the tables. SQLite does not wait for others while it switches a new file to its log: so try again."""
    deadline = time.monotonic() + BUSY
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    database.execute("PRAGMA synchronous = NORMAL")
    tables, version = database.execute(
        "SELECT COUNT(*), user_version FROM sqlite_master, pragma_user_version"
    ).fetchone()
    if not tables:
        database.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT")
    elif version != VERSION:
        raise sqlite3.DatabaseError(f"another version of embedrouter wrote it: {version}, not {VERSION}")


def _write(database: sqlite3.Connection, savings: Savings) -> None:
    database.executemany(
        "INSERT INTO savings VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (day, model, tag) DO UPDATE SET"
        " texts = texts + excluded.texts, tokens = tokens + excluded.tokens, amount = amount + excluded.amount",
        [(*key, *numbers) for key, numbers in savings.items()],
    )
    savings.clear()


def _finish(database: sqlite3.Connection, savings: Savings, process: int) -> None:
    """Write what is in memory and close, when a ledger is closed, forgotten, or its process ends.

    Not in a forked child: the connection and the savings are its parent's.
    """
    if process == os.getpid():
        with suppress(sqlite3.Error):
            _write(database, savings)
        database.close()


_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()
_forking: list[Ledger] = []


def _before_fork() -> None:
    """Close every file: a child that inherits an open one takes its parent's locks for its own, and when the parent
    closes the file the child's bookings are lost. Nobody may be inside a ledger meanwhile.
    """
    for ledger in list(_ledgers):
        ledger._lock.acquire()
        _forking.append(ledger)
        with suppress(sqlite3.Error, EmbedRouterError):
            ledger.flush()
        ledger._shut()


def _after_in_parent() -> None:
    while _forking:
        _forking.pop()._lock.release()


def _after_in_child() -> None:
    while _forking:
        _forking.pop()._start()  # what is saved in memory is the parent's to write


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _after(amount: Decimal | None, tokens: int, free: int) -> Decimal | None:
    """Return the part of an amount that is left when some of the tokens are free; exact, as prices are."""
    return amount if amount is None or not free else amount / tokens * (tokens - free)


def _units(amount: Decimal | None) -> int | None:
    """Return an amount in whole units, rounded up where it has more decimals than there are."""
    if amount is None:
        return None
    whole = amount / UNIT
    return int(whole) + (whole != int(whole))
