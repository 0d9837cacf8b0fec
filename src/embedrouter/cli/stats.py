"""``embedrouter stats``: what was spent and saved, as the ledger booked it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError, LedgerError
from ..router import LEDGER
from ..spending import Account, Ledger, Unconfirmed, sum_accounts
from ..tiered import TieredRouter
from .choice import AsJson, CacheFolder, ConfigFile, configured, exclusive
from .report import money
from .sheet import Sheet, price

__all__ = ["By", "command"]

SHOWN = 20
"""Unconfirmed requests that are shown without --json."""


class By(StrEnum):
    """What to sum up by."""

    DAY = "day"
    MONTH = "month"
    MODEL = "model"
    TAG = "tag"


def command(
    by: Annotated[By, typer.Option(help="What to sum up by.")] = By.DAY,
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what was spent and saved, by day, month, model or tag. Days and months are UTC.

    Unconfirmed are requests that were sent and never answered: they may have been billed, so budgets count them.
    """
    exclusive(cache=cache, config=config)
    files = _ledgers(cache, config)
    accounts: list[dict[str, Account]] = []
    lost: list[Unconfirmed] = []
    for file in files:
        if not file.exists():
            continue
        try:
            with closing(Ledger(file, required=True)) as ledger:
                accounts.append(ledger.totals(by.value))
                lost += ledger.unconfirmed()
        except (ConfigError, LedgerError, sqlite3.Error) as error:  # the ledger's own message is about budgets
            raise ConfigError(f"{file} cannot be read as a ledger ({error.__cause__ or error}).") from error
    rows = sum_accounts(accounts)
    total = sum(rows.values(), Account())
    lost.sort(key=lambda request: request.at)

    sheet = Sheet(as_json=as_json)
    place = ", ".join(map(str, files))
    if rows:
        cells = [(name or "(none)", *_row(account)) for name, account in rows.items()]
        columns = (by.value, "requests", "texts", "tokens", "cost", "saved texts", "saved", "unconfirmed")
        sheet.table(columns, [*cells, ("total", *_row(total))], numbers=columns[1:], total=True)
    else:
        sheet.line(f"Nothing is booked yet in {place}.")
    if total.unpriced_tokens:
        sheet.line(f"{total.unpriced_tokens:,} of the tokens have no known price and are not in the cost.")
    if lost:
        sheet.line("Unconfirmed: sent and never answered; may have been billed, and are not in the cost.")
        heads = ("time (UTC)", "model", "tag", "texts", "tokens", "estimate")
        sheet.table(heads, [_lost(request) for request in lost[-SHOWN:]], numbers=heads[3:])
        if len(lost) > SHOWN:
            sheet.line(f"{len(lost) - SHOWN:,} earlier ones are not shown; --json has all.")
    if rows:
        sheet.line(f"Ledger: {place}")
    sheet.json(
        {
            "ledgers": list(map(str, files)),
            "by": by.value,
            "rows": {name: asdict(account) for name, account in rows.items()},
            "total": asdict(total),
            "unconfirmed": [asdict(request) | {"at": request.at.isoformat()} for request in lost],
        }
    )


def _ledgers(cache: Path | None, config: str | None) -> list[Path]:
    """Return the ledger beside a cache folder, or those of the configured routers."""
    if cache is not None:
        return [cache.expanduser().absolute() / LEDGER]
    where = configured(config)
    if where is None:
        from ..cache import default_folder

        return [default_folder() / LEDGER]
    from .levels import choose

    router, _ = choose(None, where, "default")
    routers = [router.router(name) for name in router.own_tiers] if isinstance(router, TieredRouter) else [router]
    files = [each.ledger.file for each in routers]
    return list(dict.fromkeys(file for file in files if file is not None))


def _row(account: Account) -> tuple[str, ...]:
    return (
        f"{account.requests:,}",
        f"{account.texts:,}",
        f"{account.tokens:,}",
        money(account.cost),
        f"{account.saved_texts:,}",
        money(account.saved),
        money(account.unconfirmed),
    )


def _lost(request: Unconfirmed) -> tuple[str, ...]:
    return (
        f"{request.at:%Y-%m-%d %H:%M:%S}",
        request.model,
        request.tag or "(none)",
        f"{request.texts:,}",
        f"{request.tokens:,}",
        price(request.amount),
    )
