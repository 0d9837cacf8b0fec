"""Find and open the ledgers that the options of a command name."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

from .._sqlite import size_on_disk
from ..calls import LEDGER_FILE
from ..errors import ConfigError, LedgerError
from ..redis import SCHEMES, RedisBooks, RedisState
from ..spending import Ledger
from ._exclusive import exclusive
from ._routers import AnyRouter, find_router, separate_routers

LedgerPlace: TypeAlias = Path | RedisBooks
"""A file, or the accounts on a server."""


def find_ledgers(cache: Path | None, config: str | None) -> list[LedgerPlace]:
    """Return the ledger beside a cache folder, or those of the configured routers."""
    exclusive(cache=cache, config=config)
    if cache is not None:
        return [cache.expanduser().absolute() / LEDGER_FILE]
    return ledgers_of(find_router(None, config, None))


def ledgers_of(router: AnyRouter) -> list[LedgerPlace]:
    """Return the ledgers of a router that was built, each once."""
    found = [single.ledger for single in separate_routers(router)]
    places = (item.books if isinstance(item.books, RedisBooks) else item.file for item in found)
    return list(dict.fromkeys(place for place in places if place is not None))


def exists(place: LedgerPlace) -> bool:
    """Say whether something may have been booked."""
    return isinstance(place, RedisBooks) or place.exists()


def size_of(place: LedgerPlace) -> int:
    """Return the bytes that a ledger takes, on the disk or in the memory of its server."""
    return place.memory() if isinstance(place, RedisBooks) else size_on_disk(place)


def one_ledger(ledger: str | None, cache: Path | None, config: str | None, *, must_exist: bool = True) -> LedgerPlace:
    """Return the ledger that the options name.

    Raises:
        BadParameter: several options were given.
        ConfigError: the configuration has no ledger, or several, or nothing was booked yet.
    """
    exclusive(ledger=ledger, cache=cache, config=config)
    places = find_ledgers(cache, config) if ledger is None else [_named(ledger)]
    if len(places) != 1:
        raise ConfigError(f"The configuration has {len(places) or 'no'} ledgers. Name one: --ledger FILE.")
    if must_exist and not exists(places[0]):
        raise ConfigError(f"There is no ledger {places[0]}: nothing is booked yet. Name another: --ledger FILE.")
    return places[0]


def _named(ledger: str) -> LedgerPlace:
    return RedisState(ledger).books() if ledger.startswith(SCHEMES) else Path(ledger).expanduser().absolute()


@contextmanager
def open_ledger(place: LedgerPlace) -> Iterator[Ledger]:
    """Open a ledger for a command, for which a failure is an error.

    Raises:
        ConfigError: the file is no ledger, or cannot be used; or the server.
    """
    server = place if isinstance(place, RedisBooks) else None
    file = None if isinstance(place, RedisBooks) else place
    try:
        with closing(Ledger(file, books=server, required=True)) as opened:
            yield opened
    except (LedgerError, ConfigError, sqlite3.Error) as error:  # the ledger's own message is about budgets
        if error.__cause__ is None and isinstance(error, ConfigError):  # of a command
            raise
        advice = "End the process that locks the file, restore a backup, or move the file."
        if server is not None:
            advice = "Start the server, or correct its address, password or the rights of its user."
        raise ConfigError(f"{place} cannot be read as a ledger ({error.__cause__ or error}). {advice}") from error
