"""``embedrouter stats``: show spending and savings from the ledger."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..spending import Account, Heading, Unconfirmed, sum_accounts
from ._console import Output
from ._ledger import find_ledgers, open_ledger
from ._options import AsJson, CacheFolder, ConfigFile

SHOWN = 20
"""Unconfirmed requests in the table."""


def command(
    by: Annotated[Heading, typer.Option(help="The key of the sums.")] = "day",
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show spending and savings by day, month, model or tag. Days and months are UTC.

    Unconfirmed requests were sent and got no answer. They may have been billed, so budgets count their estimates.
    """
    files = find_ledgers(cache, config)
    accounts: list[dict[str, Account]] = []
    unconfirmed: list[Unconfirmed] = []
    for file in filter(Path.exists, files):
        with open_ledger(file) as ledger:
            accounts.append(ledger.totals(by))
            unconfirmed += ledger.unconfirmed()
    rows = sum_accounts(accounts)
    total = sum(rows.values(), Account())
    unconfirmed.sort(key=lambda request: request.at)

    output = Output(as_json=as_json)
    locations = ", ".join(map(str, files))
    if rows:
        sums = [*rows.items(), ("total", total)]
        output.table([{by: name or "(none)", **asdict(account)} for name, account in sums], total=True)
        output.line(f"Ledger: {locations}")
    else:
        output.line(f"Nothing is booked yet in {locations}.")
    if unconfirmed:
        output.line("Unconfirmed requests got no answer: they may have been billed, and are not in the cost.")
        output.table([asdict(request) for request in unconfirmed[-SHOWN:]])
        if len(unconfirmed) > SHOWN:
            output.line(f"{len(unconfirmed) - SHOWN:,} earlier requests are not shown; --json has all.")
    output.json({"ledgers": files, "by": by, "rows": rows, "total": total, "unconfirmed": unconfirmed})
