"""Where a ledger's accounts may be, for tests that hold in each place: a SQLite file, and a Redis server."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from embedrouter.redis import RedisBooks, RedisState
from embedrouter.spending import Ledger

__all__ = ["PLACES", "Place"]

PLACES = ("file", "redis")


@dataclass
class Place:
    """A place with accounts of its own, which several ledgers open."""

    file: Path | None = None
    address: str = ""
    """Of a Redis server, where there is no file."""
    prefix: str = field(default_factory=lambda: f"t{uuid4().hex}")

    def open(self, now: Callable[[], float] | None = None, **settings: Any) -> Ledger:
        """Open a ledger; with a clock of its own, time is what the clock says, also on the server."""
        settings |= {} if now is None else {"now": now}
        if self.file is not None:
            return Ledger(self.file, **settings)
        return Ledger(books=RedisBooks(self.state().server, own_clock=now is not None), **settings)

    def state(self) -> RedisState:
        return RedisState(self.address, prefix=self.prefix)

    @property
    def named(self) -> str:
        """What ``Router(ledger=…)`` and other processes take."""
        return f"{self.address}?prefix={self.prefix}" if self.file is None else str(self.file)

    def days(self) -> dict[str, Decimal]:
        """Return the sums that caps are held against."""
        if self.file is not None:
            with closing(sqlite3.connect(self.file)) as database:
                return {day: Decimal(n).scaleb(-12) for day, n in database.execute("SELECT day, amount FROM days")}
        server = self.state().server
        windows = server.client.hgetall(server.key("{ledger}", "windows"))
        server.close()
        days = {name.decode().partition("|")[::2]: Decimal(int(units)).scaleb(-12) for name, units in windows.items()}
        return {day: amount for (day, tag), amount in days.items() if len(day) == len("2026-11-30") and not tag}

    def requests(self) -> dict[str, int]:
        """Return how many requests there is the detail of, by their state."""
        with closing(self.open(required=True)) as ledger:
            states = [item.state for item in ledger.requests(None)]
        return {state: states.count(state) for state in states}

    def content(self) -> bytes:
        """Return all that is kept."""
        if self.file is not None:
            return b"".join(item.read_bytes() for item in self.file.parent.glob(f"{self.file.name}*"))
        client = self.state().server.client
        hashes = [key for key in client.scan_iter(f"{self.prefix}:*") if client.type(key) == b"hash"]
        return b"".join(part for key in hashes for pair in client.hgetall(key).items() for part in pair)
