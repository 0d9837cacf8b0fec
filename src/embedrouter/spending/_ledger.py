"""The ledger: what was spent, set aside and saved, in one SQLite file that threads and processes share.

Money is set aside before a request and settled with the provider's own bill after it. Each is one transaction that
takes the write lock first, so that a budget holds for everybody who shares the file. A request that went out and never
came back (a timeout, a reset, a killed process) may have been billed: its reservation stays counted, at its estimate,
as *unconfirmed*. So a cap can be passed by no more than the error of the estimate of each request in flight.

Amounts are whole numbers of 10^-12 US dollars, so that sums are exact: prices have at most six decimals per million
tokens. What the cache and the removal of duplicates saved is summed in memory and written with the next paid request,
every few seconds, and when the ledger is closed. Texts are never stored.

The file may fail at any moment. Under a budget that is an error before a request, and nothing is spent; without one,
accounts go on in memory. After a request it is never an error, because there is an answer to return: the bill waits in
memory for the next transaction that succeeds, and what was set aside for it stays counted in the file until then.
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
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, partial, wraps
from glob import escape
from itertools import count
from pathlib import Path
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar

from ..errors import ConfigError, LedgerError
from ..types import Spending, dollars
from ._budget import Budget
from ._prices import UNIT

__all__ = ["Account", "Ledger", "Unconfirmed"]

logger = logging.getLogger("embedrouter")

SECONDS_A_DAY = 86_400
EPOCH = date(1970, 1, 1)
BUSY = 30.0
"""Seconds to wait for another process's transaction."""
FLUSH = 5.0
"""Seconds that savings may stay in memory."""
GRACE = 60.0
"""Seconds after its time limit when a reservation that nobody settled counts as unconfirmed."""
MOST_WAITING = 10_000
"""Bookings that wait in memory; of older ones, the estimates stay counted."""
EVERY = 200
"""Transactions, of those that may wait, after which SQLite's log is moved into the file. SQLite itself would do it
after any, in an event loop too."""

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

NOTHING = (0, 0, Decimal(0))
Savings: TypeAlias = dict[tuple[str, str, str], tuple[int, int, Decimal]]
"""Texts, tokens and amount by day, model and tag."""

Booking: TypeAlias = Callable[[sqlite3.Connection], object]

P = ParamSpec("P")
T = TypeVar("T")

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


def _or_in_memory(method: Callable[Concatenate[Ledger, P], T], /) -> Callable[Concatenate[Ledger, P], T]:
    """Let a method do in memory, when the file fails and no budget depends on it, what it would have done in the file.

    Inside a transaction SQLite's own errors pass through: the outermost gives up the whole.
    """

    @wraps(method)
    def done(self: Ledger, /, *args: P.args, **settings: P.kwargs) -> T:
        with self._lock:
            try:
                return method(self, *args, **settings)
            except (LedgerError, ConfigError) as error:
                if self._required:
                    raise
                self._leave(error)
            return method(self, *args, **settings)

    return done


class Ledger:
    """Keeps accounts in a file that is made when something is first booked.

    Args:
        file: the same file is the same ledger; ``None`` keeps accounts in memory, for this object alone.
        required: whether a budget depends on it. Otherwise a file that fails is no reason to fail: accounts are then
            kept in memory, and a warning is logged.
        now: seconds since 1970.

    Raises:
        ConfigError: from the first method that needs it: the file cannot be opened, and ``required`` is set.
        LedgerError: from every method that books nothing afterwards: it could be opened before, and failed now.
    """

    def __init__(
        self, file: Path | None = None, *, required: bool = False, now: Callable[[], float] = time.time
    ) -> None:
        self.file = file
        self._required = required
        self._now = now
        self._identity: tuple[int, int] | None = None
        """Of the file that was opened first, since when it must not be replaced."""
        self._told: set[str] = set()
        self._start()
        _ledgers.add(self)

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._in_file = self.file is not None
        self._savings: Savings = {}
        self._waiting: list[Booking] = []
        self._written = self._now()
        self._inside = False
        """Whether a transaction is under way."""
        self._waited = 0
        """Transactions so far that might wait."""
        self._quick = False
        """Whether the file has a log: some file systems cannot do that, and each commit waits for the disk."""

    # Money before and after a request

    @_or_in_memory
    def refusal(self, budget: Budget, amount: Decimal | None) -> str | None:
        """Say why a whole call that costs ``amount`` does not fit the budget, or return ``None``."""
        if amount == 0 or not budget.caps:
            return None
        with self.transaction() as database:
            return self._exceeded(database, budget, amount, whole_call=True)

    @_or_in_memory
    def reserve(self, budget: Budget, spending: Spending) -> int | str:
        """Set the cost of one request aside and return the reservation, or say why it does not fit."""
        with self.transaction() as database:
            free = min(self.free_tokens(spending.model, spending.free_tokens), spending.tokens)
            amount = _after(spending.amount, spending.tokens, free)
            if amount != 0:
                refusal = self._exceeded(database, budget, amount, whole_call=False)
                if refusal is not None:
                    return refusal
            now, units = self._now(), _units(amount)
            _add(database, _day(now), units)
            _use(database, spending.model, free)
            left = self.file is not None and not self._in_file
            row = (
                next(_ids) if left else None,
                now, _day(now), spending.model, spending.input_type, spending.tier, spending.tag, spending.texts,
                spending.tokens, units, spending.attempt, now + spending.timeout + GRACE, free,
            )  # fmt: skip
            cursor = database.execute(
                "INSERT INTO requests"
                " (id, at, day, state, model, input_type, tier, tag, texts, tokens, amount, attempt, until, free)"
                " VALUES (?, ?, ?, 'reserved', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def reserve_at_once(self, budget: Budget, spending: Spending) -> int | str | None:
        """Do what ``reserve`` does without waiting for others or for the disk; ``None`` when that is not possible."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self.reserve(budget, spending) if self._begun_at_once() else None
        finally:
            self._lock.release()

    def settle(self, reservation: int, tokens: int, amount: Decimal | None) -> Decimal | None:
        """Book what a request was billed in place of what was set aside; return it without what was free."""
        return self._book(partial(_settle, reservation, tokens, amount), amount)

    def release(self, reservation: int) -> None:
        """Forget a request that was refused and cost nothing."""
        self._book(partial(_release, reservation), None)

    def flush_due(self) -> bool:
        """Return whether savings have been in memory for long enough to be written."""
        return bool(self._savings) and self._now() - self._written > FLUSH

    def mark_unconfirmed(self, reservation: int) -> None:
        """Keep counting a request that went out and never came back: it may have been billed."""
        self._book(partial(_suspect, reservation), None)

    def _book(self, booking: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Write down what has happened already, now or with the next transaction that succeeds."""
        with self._lock:
            if not self._waiting:  # or the file failed a moment ago: whoever spends next tries it again
                try:
                    with self.transaction() as database:
                        outcome = booking(database)
                        self._write_savings(database)
                    return outcome
                except (LedgerError, ConfigError) as error:
                    self._tell(error, "what was billed waits in memory to be booked")
            self._waiting.append(booking)
            del self._waiting[:-MOST_WAITING]
            return otherwise

    def save(self, model: str, tag: str, texts: int, tokens: int, amount: Decimal) -> None:
        """Add to what was not paid for. Usually writes nothing."""
        now = self._now()
        with self._lock:
            key = (_day(now), model, tag)
            before = self._savings.get(key, NOTHING)
            self._savings[key] = (before[0] + texts, before[1] + tokens, before[2] + amount)

    def flush(self) -> None:
        """Write what is still in memory; what cannot be written stays there."""
        with self._lock:
            if self._savings or self._waiting:
                try:
                    with self.transaction() as database:
                        self._write_savings(database)
                except (LedgerError, ConfigError) as error:
                    self._written = self._now()
                    self._tell(error, "savings stay in memory")

    def close(self) -> None:
        """Write what is in memory and close the file; the next call opens it again."""
        with self._lock:
            self.flush()
            self._shut()
            self._identity = None

    # Reading

    @property
    @_or_in_memory
    def lasting(self) -> bool:
        """Whether accounts are in a file, and not in memory."""
        with self.transaction():
            return self._in_file

    @_or_in_memory
    def free_tokens(self, model: str, allowance: int) -> int:
        """Return how many of a model's free tokens are left."""
        if not allowance:
            return 0
        with self.transaction() as database:
            row = database.execute("SELECT used FROM allowances WHERE model = ?", (model,)).fetchone()
        return max(0, allowance - (row[0] if row else 0))

    @_or_in_memory
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

    @_or_in_memory
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
            if self._inside:  # one inside another
                assert self._database is not None
                yield self._database
                return
            waiting, savings = list(self._waiting), dict(self._savings)
            self._inside = True
            try:
                database = self._open()
                if not database.in_transaction:  # else it was begun at once
                    self._move_log(database)
                    database.execute("BEGIN IMMEDIATE")
                while self._waiting:
                    self._waiting.pop(0)(database)
                yield database
                database.execute("COMMIT")
            except BaseException as error:
                self._waiting[:] = waiting
                self._savings.update(savings)
                self._undo()
                if not isinstance(error, sqlite3.Error):
                    raise
                self._shut()  # whatever state it is in
                opened = LedgerError if self._identity else ConfigError
                raise opened(
                    f"{self._story(error)}, so no budget can hold. Free space on its disk, give the right to write it, "
                    "end the process that locks it, or move a damaged file away; or name another file: ledger=…."
                ) from error
            finally:
                self._inside = False

    def _begun_at_once(self) -> bool:
        """Begin the next transaction if the file is open, nobody else writes, and a commit needs no disk."""
        database = self._database
        if database is None or self._inside or not self._quick:
            return False
        try:
            database.execute("PRAGMA busy_timeout = 0")
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:  # whoever may wait meets it again
            return False
        finally:
            database.execute(f"PRAGMA busy_timeout = {int(1000 * BUSY)}")
        return True

    def _move_log(self, database: sqlite3.Connection) -> None:
        """Move SQLite's log into the file now and then, before a transaction: the first one after it waits, too."""
        if self._waited % EVERY == 0:
            with suppress(sqlite3.Error):  # all is in the log, and next time may do
                database.execute("PRAGMA wal_checkpoint").fetchone()
        self._waited += 1

    def _undo(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):  # SQLite may have done it
                self._database.execute("ROLLBACK")

    def _shut(self) -> None:
        """Close the file; accounts that are kept in memory stay."""
        if self._database is not None and self._in_file:
            self._finalizer.detach()
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _open(self) -> sqlite3.Connection:
        if self._identity and _identity(self.file) != self._identity:
            raise sqlite3.OperationalError("it was removed or replaced; close the router to begin a new one")
        if self._database is None:
            file = self.file if self._in_file else None
            try:
                self._database = _connect(file)
            except OSError as error:
                raise sqlite3.OperationalError(str(error)) from error
            self._identity = _identity(file)
            self._quick = self._database.execute("PRAGMA journal_mode").fetchone() != ("delete",)
            self._finalizer = weakref.finalize(self, _finish, self._database, self._savings, self._waiting, os.getpid())
        return self._database

    def _leave(self, error: Exception) -> None:
        """Keep accounts in memory from now on."""
        self._tell(error, "spending is counted in memory until this process ends")
        self._shut()
        self._in_file, self._identity = False, None

    def _story(self, error: BaseException | None) -> str:
        return f"The ledger {self.file} {'failed' if self._identity else 'cannot be opened'} ({error})"

    def _tell(self, error: Exception, consequence: str) -> None:
        """Log what the file did, once."""
        story = f"{self._story(error.__cause__)}; {consequence}"
        if story not in self._told:
            self._told.add(story)
            logger.warning("%s", story)

    def _write_savings(self, database: sqlite3.Connection) -> None:
        _write(database, self._savings)
        self._written = self._now()

    def _exceeded(
        self, database: sqlite3.Connection, budget: Budget, amount: Decimal | None, *, whole_call: bool
    ) -> str | None:
        caps = budget.caps
        if not caps:
            return None
        if amount is None:
            return "its price is unknown, so no budget can hold. Set Model(…, price=…), US dollars per million tokens."
        for name, cap in caps.items():
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


def _add(database: sqlite3.Connection, day: str, units: int | None) -> None:
    if units:
        database.execute(
            "INSERT INTO days VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET amount = amount + excluded.amount",
            (day, units),
        )


def _use(database: sqlite3.Connection, model: str, free: int) -> None:
    if free:
        database.execute(
            "INSERT INTO allowances VALUES (?, ?) ON CONFLICT (model) DO UPDATE SET used = used + excluded.used",
            (model, free),
        )


def _settle(reservation: int, tokens: int, amount: Decimal | None, database: sqlite3.Connection) -> Decimal | None:
    held = _held(database, reservation)
    free = min(held.free, tokens) if held else 0
    amount = _after(amount, tokens, free)
    _replace(database, held, _units(amount), free)
    database.execute(
        "UPDATE requests SET state = 'settled', tokens = ?, amount = ?, free = ? WHERE id = ?",
        (tokens, _units(amount), free, reservation),
    )
    return amount


def _release(reservation: int, database: sqlite3.Connection) -> None:
    _replace(database, _held(database, reservation), 0, 0)
    database.execute("DELETE FROM requests WHERE id = ?", (reservation,))


def _suspect(reservation: int, database: sqlite3.Connection) -> None:
    database.execute("UPDATE requests SET state = 'unconfirmed' WHERE id = ?", (reservation,))


class _Held(NamedTuple):
    """What was set aside for one request."""

    day: str
    model: str
    units: int | None
    free: int


def _held(database: sqlite3.Connection, reservation: int) -> _Held | None:
    """Return what was set aside, if that is in this file at all."""
    row = database.execute("SELECT day, model, amount, free FROM requests WHERE id = ?", (reservation,)).fetchone()
    return None if row is None else _Held(*row)


def _replace(database: sqlite3.Connection, held: _Held | None, units: int | None, free: int) -> None:
    """Count other money and free tokens in place of what was set aside."""
    if held is not None:
        _add(database, held.day, (units or 0) - (held.units or 0))
        _use(database, held.model, free - held.free)


def _connect(file: Path | None) -> sqlite3.Connection:
    new = file is not None and not file.exists()
    if file is not None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = sqlite3.connect(file or ":memory:", timeout=BUSY, isolation_level=None, check_same_thread=False)
    try:
        _prepare(database)
        if file is not None and new:
            for made in file.parent.glob(f"{escape(file.name)}*"):
                made.chmod(0o600)
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
    database.execute("PRAGMA wal_autocheckpoint = 0")
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
        [(*key, texts, tokens, _units(amount)) for key, (texts, tokens, amount) in savings.items()],
    )
    savings.clear()


def _finish(database: sqlite3.Connection, savings: Savings, waiting: list[Booking], process: int) -> None:
    """Write what is in memory and close, when a ledger is closed, forgotten, or its process ends.

    Not in a forked child: the connection and the savings are its parent's. It waits for nobody: the garbage collector
    may have come while this very thread writes to the same file.
    """
    if process == os.getpid():
        with suppress(sqlite3.Error):
            database.execute("PRAGMA busy_timeout = 100")
            if savings or waiting:
                database.execute("BEGIN IMMEDIATE")
                for booking in waiting:
                    booking(database)
                _write(database, savings)
                database.execute("COMMIT")
        with suppress(sqlite3.Error):
            database.close()


def _identity(file: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name."""
    try:
        found = file.stat() if file is not None else None
    except OSError:
        found = None
    return None if found is None else (found.st_dev, found.st_ino)


_ids = count(-1, -1)
"""Of reservations in memory, after a file failed that has others."""
_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()
_forking: list[Ledger] = []


def _before_fork() -> None:
    """Close every file: a child that inherits an open one takes its parent's locks for its own, and when the parent
    closes the file the child's bookings are lost. Nobody may be inside a ledger meanwhile.
    """
    for ledger in list(_ledgers):
        ledger._lock.acquire()
        _forking.append(ledger)
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
    return _date(int(seconds // SECONDS_A_DAY))


@lru_cache(maxsize=8)
def _date(days: int) -> str:
    return (EPOCH + timedelta(days=days)).isoformat()


def _after(amount: Decimal | None, tokens: int, free: int) -> Decimal | None:
    """Return the part of an amount that is left when some of the tokens are free; exact, as prices are."""
    return amount if amount is None or not free else amount / tokens * (tokens - free)


def _units(amount: Decimal | None) -> int | None:
    """Return an amount in whole units, rounded up where it has more decimals than there are."""
    if amount is None:
        return None
    whole = amount / UNIT
    return int(whole) + (whole != int(whole))
