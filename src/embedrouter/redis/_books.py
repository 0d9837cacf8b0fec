"""Accounts on a Redis server: the same figures as in a SQLite file, for workers on many machines.

Each booking is one script, so that a budget holds for all of them. Questions are answered by SQLite: the hashes that a
question is about are read in one step, put into the tables of a ledger in memory, and asked there.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote, unquote

from ..errors import ConfigError
from ..spending import (
    GRACE,
    REMEMBERED,
    UNIT,
    Budget,
    Refusal,
    Savings,
    TableName,
    over_call,
    over_cap,
    query_rows,
    unknown_price,
    whole_units,
    without_free,
)
from ..types import Spending
from . import _scripts as scripts
from ._server import Server

VERSION = "1"
"""Of the keys and what is in them."""
TAG = "{ledger}"
"""The hash tag of all keys: one node of a cluster has them."""
MOST_DETAIL = 100_000
"""Settled requests of which the detail is kept, at most: about 40 MB of the server's memory."""
FOLDED_AT_ONCE = 500
TIDY_EVERY = 50
"""Bookings of a process between two removals of old detail."""
ROWS_AT_ONCE = 500
"""Savings of one script."""
SAVINGS_INTERVAL = 5.0
REMEMBERED_PARCELS = 600.0
"""Seconds for which the server remembers which savings were written."""
ADVICE = (
    "Start the server, give it memory (maxmemory), or correct its address, password or the rights of its user; or name "
    "a file for this machine alone: ledger=…. when_ledger_fails='open' lets requests go out meanwhile."
)
TOTALS = ("requests", "texts", "tokens", "amount", "unpriced_tokens", "pieces", "free_tokens")
ESTIMATES = ("requests", "estimated", "billed", "exceeded")
SAVED = ("texts", "tokens", "amount")

T = TypeVar("T")


class RedisBooks:
    """The accounts of all routers that name the same server and prefix.

    Args:
        server: the server.
        own_clock: whether time is that of ``now``, and not the server's: in tests.
    """

    file: Path | None = None
    is_lasting = True
    is_remote = True
    is_writing = False
    advice = ADVICE
    savings_interval = SAVINGS_INTERVAL

    def __init__(self, server: Server, *, own_clock: bool = False) -> None:
        self.place = server.place
        self.server, self._own_clock = server, own_clock
        self._keys = [self.key(name) for name in scripts.KEYS]
        self._opened = False
        self._bookings = 0

    def key(self, name: str) -> bytes:
        """Return a key beside those of the accounts, which a script may change together with them."""
        return self.server.key(TAG, name)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Those of redis-py, where it is installed."""
        try:
            from redis.exceptions import RedisError
        except ImportError:  # and ``Server`` says so
            return ()
        return (RedisError,)

    def is_uncertain(self, error: BaseException | None) -> bool:
        """Say no of a server that was not reached, or has refused the command."""
        from redis.exceptions import ConnectionError as NotConnected
        from redis.exceptions import TimeoutError as TooSlow

        refused = isinstance(getattr(error, "__context__", None), ConnectionRefusedError)
        return isinstance(error, (NotConnected, TooSlow)) and not refused

    def is_empty(self) -> bool:
        """Say nothing: the server would have to be asked."""
        return False

    def new_number(self) -> int:
        """Return a number that no other request has."""
        return 1 + secrets.randbits(62)

    @contextmanager
    def writing(self, patience: float) -> Iterator[RedisBooks]:
        """Each booking is a step of its own, also where another fails."""
        if not self._opened:
            self._require_version(self._run(scripts.OPEN, VERSION))
            self._opened = True
        yield self

    def vacuum(self) -> None:
        """Do nothing: the server has its memory back already."""

    def close(self) -> None:
        """Close the connections of this process to the server; others open again when they are used."""
        self._opened = False
        self.server.close()

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same accounts."""
        return isinstance(other, RedisBooks) and (self.place, self._keys) == (other.place, other._keys)

    def __hash__(self) -> int:
        return hash((self.place, *self._keys))

    def __str__(self) -> str:
        return self.place

    def memory(self) -> int:
        """Return about how many bytes of the server's memory the accounts take; 0 where this user may not ask."""
        from redis.exceptions import ResponseError

        try:
            return sum(self.server.client.memory_usage(key) or 0 for key in self._keys)
        except ResponseError:
            return 0

    # Bookings

    def refusal(self, budget: Budget, amount: Decimal | None, now: float, tag: str) -> Refusal | None:
        scopes = budget.scopes(tag)
        if not scopes or amount == 0:
            return None
        if amount is None:
            return unknown_price(scopes[0][0])
        for scope, own in scopes:
            if "per_call" in own and amount > own["per_call"]:
                return over_call(scope, own["per_call"], amount)
        caps = _windows(budget, tag)
        found = self._run(scripts.REFUSAL, self._clock(now), _text(whole_units(amount)), *_arguments(caps))
        return _refused(found, caps, amount)

    def reserve_within(self, budget: Budget, spending: Spending, now: float, number: int | None) -> int | Refusal:
        if spending.amount is None and (scopes := budget.scopes(spending.tag)):
            return unknown_price(scopes[0][0])
        assert number is not None, "the ledger has asked for one"
        caps = _windows(budget, spending.tag)
        found = self._reserve(spending, self._clock(now), number, "within", caps)
        return _refused(found, caps, None) or number

    def reserve(self, spending: Spending, now: float, number: int | None, *, late: bool = False) -> int:
        assert number is not None, "the ledger has asked for one"
        self._reserve(spending, repr(now) if late else self._clock(now), number, "late" if late else "anyway", [])
        return number

    def _reserve(self, spending: Spending, now: str, number: int, how: str, caps: Sequence[_Cap]) -> Any:
        units = whole_units(spending.amount)
        exact = "" if spending.exact is None else str(int(spending.exact))
        rest = [
            *map(_name, (spending.input_type, spending.tier, spending.tag)),
            *map(str, (spending.texts - spending.pieces, spending.pieces)),
            *(exact, str(spending.attempt)),
        ]
        price = _text(units), _of_one(units, spending.tokens)
        about = _name(spending.model), spending.free_tokens, spending.tokens, json.dumps(rest)
        lasts = spending.timeout + GRACE
        return self._run(scripts.RESERVE, now, number, how, lasts, *price, *about, *_arguments(caps))

    def settle(
        self, reservation: int, tokens: int, amount: Decimal | None, bill: str | None, *, reported: bool
    ) -> Decimal | None:
        units = whole_units(amount)
        bill = "" if bill is None else _name(bill)
        price = _text(units), _of_one(units, tokens)
        found = self._run(scripts.SETTLE, reservation, tokens, *price, bill, int(reported), REMEMBERED)
        return without_free(amount, tokens, int(found[1])) if found else amount

    def release(self, number: int, now: float) -> int:
        return int(self._run(scripts.RELEASE, self._clock(now), number))

    def confirm(self, number: int, now: float) -> int:
        return int(self._run(scripts.CONFIRM, self._clock(now), number))

    def change_older(self, change: Literal["release", "confirm"], age: float, now: float) -> int:
        return int(self._run(scripts.CHANGE_OLDER, self._clock(now), change, age))

    def mark_unconfirmed(self, reservation: int) -> None:
        self._run(scripts.MARK_UNCONFIRMED, reservation)

    def write_savings(self, savings: Savings, parcel: str) -> None:
        rows = list(savings.items())
        for first in range(0, len(rows), ROWS_AT_ONCE):
            values = [
                value
                for (day, model, tag), (texts, tokens, amount) in rows[first : first + ROWS_AT_ONCE]
                for value in (day, _name(model), _name(tag), texts, tokens, _text(whole_units(amount)))
            ]
            self._run(scripts.SAVE, "", f"{parcel}/{first}", REMEMBERED_PARCELS, *values)

    def fold(self, state: Literal["settled", "released"], age: float, now: float) -> int:
        return int(self._run(scripts.FOLD, self._clock(now), state, age, FOLDED_AT_ONCE, MOST_DETAIL))

    def tidy(self, age: float, now: float) -> None:
        """Remove some detail with the first booking and with some of the later ones."""
        if self._bookings % TIDY_EVERY == 0:
            self.fold("settled", age, now)
        self._bookings += 1

    # Questions

    def read(self, query: Callable[[sqlite3.Connection], T], tables: Iterable[TableName]) -> T:
        hashes = list(dict.fromkeys(HASHES[name] for name in tables if name != "requests"))
        version, *found = self._run(scripts.READ, VERSION, *hashes)
        self._require_version(version)
        rows: dict[str, Iterable[tuple[Any, ...]]] = {}
        for name, content in zip(hashes, found, strict=True):
            rows |= ROWS[name](dict(zip(content[::2], content[1::2], strict=True)))
        if "requests" in tables:
            rows["requests"] = _requests(dict(self.server.client.hscan_iter(self._keys[0], count=1000)))["requests"]
        return query_rows(rows, query)

    # The server

    def _run(self, script: str, *arguments: str | float) -> Any:
        return self.server.run(script, self._keys, arguments)

    def _clock(self, now: float) -> str:
        return repr(now) if self._own_clock else ""

    def _require_version(self, found: bytes) -> None:
        if found.decode() != VERSION:
            raise ConfigError(
                f"Another version of embedrouter keeps its ledger on {self.place}: {found.decode()}, not {VERSION}. "
                "Use that version, or another prefix: state=RedisState(…, prefix='…')."
            )


# What scripts are told


_Cap = tuple[str, str, Decimal]
"""Of a tag (``""`` for everything) the name of a cap and the cap."""


def _windows(budget: Budget, tag: str) -> list[_Cap]:
    """Return the caps that count in windows, in the order in which they are checked."""
    return [
        (scope, name, cap) for scope, caps in budget.scopes(tag) for name, cap in caps.items() if name != "per_call"
    ]


def _arguments(caps: Sequence[_Cap]) -> Iterator[str]:
    for scope, name, cap in caps:
        yield from (_name(scope), name, str(int(cap / UNIT)))


def _refused(found: Sequence[Any], caps: Sequence[_Cap], amount: Decimal | None) -> Refusal | None:
    """Return the refusal that a script has found."""
    if not found:
        return None
    place, counted, units, unconfirmed, day, now = found
    scope, name, cap = caps[place]
    return over_cap(
        scope,
        name,
        cap,
        counted=int(counted) * UNIT,
        amount=int(units) * UNIT if amount is None else amount,
        unconfirmed=int(unconfirmed) * UNIT,
        day=day.decode(),
        now=float(now),
    )


def _text(units: int | None) -> str:
    return "" if units is None else str(units)


def _of_one(units: int | None, tokens: int) -> str:
    """Return the units of one token: a whole number, as prices have six decimals per million tokens at most."""
    if not units or not tokens:
        return "0"
    return str(units // tokens) if units % tokens == 0 else repr(units / tokens)


@lru_cache(10_000)
def _name(text: str) -> str:
    """Return a text that has no ``|``, and nothing that JSON would escape."""
    return quote(text, safe=" /:@+", errors="strict")


def _plain(name: str) -> str:
    return unquote(name)


# What hashes say, as rows of SQLite's tables


def _requests(found: Mapping[bytes, bytes]) -> dict[str, list[tuple[Any, ...]]]:
    return {"requests": [_request(int(number), json.loads(detail)) for number, detail in found.items() if detail]}


def _request(number: int, detail: Sequence[str]) -> tuple[Any, ...]:
    at, day, state, *names, texts, pieces, tokens, estimate, exact, amount, attempt, until, free, bill = detail
    model, input_type, tier, tag = map(_plain, names)
    return (
        *(number, float(at), day, state, model, input_type, tier, tag, int(texts), int(tokens)),
        *(int(amount) if amount else None, int(attempt), float(until), int(free), _plain(bill) if bill else None),
        *(int(pieces), int(estimate), int(exact) if exact else None),
    )


def _sums(found: Mapping[bytes, bytes], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return rows whose columns are fields of a hash, ``column|names…``."""
    rows: dict[str, dict[str, int]] = {}
    for field, value in found.items():
        column, _, key = field.decode().partition("|")
        rows.setdefault(key, {})[column] = int(value)
    return [
        (*map(_plain, key.split("|")), *(values.get(column, 0) for column in columns)) for key, values in rows.items()
    ]


def _days(found: Mapping[bytes, bytes]) -> dict[str, list[tuple[Any, ...]]]:
    days, of_tags = [], []
    for field, value in found.items():
        day, _, tag = field.decode().partition("|")
        if len(day) < len("2026-11-30"):  # a month, or all days
            continue
        if tag:
            of_tags.append((_plain(tag), day, int(value)))
        else:
            days.append((day, int(value)))
    return {"days": days, "tag_days": of_tags}


def _allowances(found: Mapping[bytes, bytes]) -> dict[str, list[tuple[Any, ...]]]:
    return {"allowances": [(_plain(model.decode()), int(used)) for model, used in found.items()]}


ROWS: dict[str, Callable[[Mapping[bytes, bytes]], dict[str, list[tuple[Any, ...]]]]] = {
    "open": _requests,
    "windows": _days,
    "allowances": _allowances,
    "totals": lambda found: {"totals": _sums(found, TOTALS)},
    "savings": lambda found: {"savings": _sums(found, SAVED)},
    "estimates": lambda found: {"estimates": _sums(found, ESTIMATES)},
}
HASHES: dict[TableName, str] = {
    "open requests": "open",
    "days": "windows",
    "tag_days": "windows",
    "allowances": "allowances",
    "totals": "totals",
    "savings": "savings",
    "estimates": "estimates",
}
