"""``embedrouter stats``: show spending and savings from the ledger."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..cache import default_folder
from ..calls import LEDGER_FILE
from ..errors import ConfigError, LedgerError
from ..spending import Account, Ledger, Unconfirmed, sum_accounts
from ._console import Output, format_money, format_price
from ._options import AsJson, CacheFolder, ConfigFile, exclusive, find_config
from ._routers import build_router, separate_routers

SHOWN = 20
"""Unconfirmed requests in the table."""


class By(StrEnum):
    """The key of the sums."""

    DAY = "day"
    MONTH = "month"
    MODEL = "model"
    TAG = "tag"


def command(
    by: Annotated[By, typer.Option(help="The key of the sums.")] = By.DAY,
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show spending and savings by day, month, model or tag. Days and months are UTC.

    Unconfirmed requests were sent and got no answer. They may have been billed, so budgets count their estimates.
    """
    exclusive(cache=cache, config=config)
    files = _ledgers(cache, config)
    accounts: list[dict[str, Account]] = []
    unconfirmed: list[Unconfirmed] = []
    for file in files:
        if not file.exists():
            continue
        try:
            with closing(Ledger(file, required=True)) as ledger:
                accounts.append(ledger.totals(by.value))
                unconfirmed += ledger.unconfirmed()
        except (ConfigError, LedgerError, sqlite3.Error) as error:  # the ledger's own message is about budgets
            raise ConfigError(
                f"{file} cannot be read as a ledger ({error.__cause__ or error}). Restore a backup, or move the file."
            ) from error
    rows = sum_accounts(accounts)
    total = sum(rows.values(), Account())
    unconfirmed.sort(key=lambda request: request.at)

    output = Output(as_json=as_json)
    locations = ", ".join(map(str, files))
    if rows:
        cells = [(name or "(none)", *_row(account)) for name, account in rows.items()]
        columns = (by.value, "requests", "texts", "tokens", "cost", "saved texts", "saved", "unconfirmed")
        output.table(columns, [*cells, ("total", *_row(total))], numbers=columns[1:], total=True)
    else:
        output.line(f"Nothing is booked yet in {locations}.")
    if total.unpriced_tokens:
        output.line(f"{total.unpriced_tokens:,} of the tokens have no known price and are not in the cost.")
    if unconfirmed:
        output.line("Unconfirmed requests got no answer: they may have been billed, and are not in the cost.")
        heads = ("time (UTC)", "model", "tag", "texts", "tokens", "estimate")
        output.table(heads, [_unconfirmed_row(request) for request in unconfirmed[-SHOWN:]], numbers=heads[3:])
        if len(unconfirmed) > SHOWN:
            output.line(f"{len(unconfirmed) - SHOWN:,} earlier requests are not shown; --json has all.")
    if rows:
        output.line(f"Ledger: {locations}")
    output.json(
        {
            "ledgers": list(map(str, files)),
            "by": by.value,
            "rows": {name: asdict(account) for name, account in rows.items()},
            "total": asdict(total),
            "unconfirmed": [asdict(request) | {"at": request.at.isoformat()} for request in unconfirmed],
        }
    )


def _ledgers(cache: Path | None, config: str | None) -> list[Path]:
    """Return the ledger beside a cache folder, or those of the configured routers."""
    if cache is not None:
        return [cache.expanduser().absolute() / LEDGER_FILE]
    found = find_config(config)
    if found is None:
        return [default_folder() / LEDGER_FILE]
    files = [single.ledger.file for single in separate_routers(build_router(None, found)[0])]
    return list(dict.fromkeys(file for file in files if file is not None))


def _row(account: Account) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (account.requests, account.texts, account.tokens))
    saved = f"{account.saved_texts:,}", format_money(account.saved)
    return *counts, format_money(account.cost), *saved, format_money(account.unconfirmed)


def _unconfirmed_row(request: Unconfirmed) -> tuple[str, ...]:
    counts = f"{request.texts:,}", f"{request.tokens:,}", format_price(request.amount)
    return f"{request.at:%Y-%m-%d %H:%M:%S}", request.model, request.tag or "(none)", *counts
