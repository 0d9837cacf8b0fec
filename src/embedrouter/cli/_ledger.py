"""``embedrouter ledger``: inspect the accounts, and correct what requests without an answer left in them."""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeAlias

import typer

from .._display import data_size, escaped
from .._files import load_pyarrow
from ..errors import ConfigError
from ..spending import Account, Unconfirmed
from ._console import Output, say
from ._exclusive import exclusive
from ._files import new_file
from ._ledgers import LedgerPlace, exists, one_ledger, open_ledger, size_of
from ._options import AsJson, CacheFolder, ConfigFile

app = typer.Typer(no_args_is_help=True, help="Inspect, correct and export the accounts of what was spent and saved.")

SHOWN = 20
"""Requests in a table."""
NUMBERS = {"ignore_unknown_options": True}
"""Settings of commands with numbers as arguments: a number may begin with a minus."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute."""
COLUMNS = ("day", "model", "tag")

LedgerName: TypeAlias = Annotated[
    str | None, typer.Option("--ledger", metavar="FILE", help="This ledger file, or redis://… for that of a server.")
]
Numbers: TypeAlias = Annotated[list[int] | None, typer.Argument(help="Numbers from: embedrouter ledger show.")]
OlderThan: TypeAlias = Annotated[float | None, typer.Option(metavar="DAYS", min=0, help="All that are so old.")]


@app.command("show")
def show(
    ledger: LedgerName = None, cache: CacheFolder = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show the sums, the requests without an answer, and the bills that cannot be true."""
    place, output = one_ledger(ledger, cache, config, must_exist=False), Output(as_json=as_json)
    total, unconfirmed, bills, size = Account(), [], [], 0
    if exists(place):
        with open_ledger(place) as opened:
            total = sum(opened.totals("model").values(), Account())
            unconfirmed, bills = opened.unconfirmed(), opened.implausible_bills()
            size = size_of(place)
    output.line(f"Ledger: {place}{f', {data_size(size)}' if exists(place) else ' (nothing is booked yet)'}")
    output.line(f"Total: {total}")
    if unconfirmed:
        output.line(
            "Unconfirmed requests got no answer: they may have been billed, and count towards budgets. Compare with "
            "the provider's bill, and run: embedrouter ledger confirm NUMBER, or: embedrouter ledger release NUMBER"
        )
        show_requests(output, unconfirmed)
    if bills:
        output.line("Bills that cannot be true: the estimate is booked in their place.")
        show_requests(output, bills)
    output.json(
        {"ledger": str(place), "bytes": size, "total": total, "unconfirmed": unconfirmed, "implausible_bills": bills}
    )


@app.command("confirm", context_settings=NUMBERS)
def confirm(
    numbers: Numbers = None,
    older_than: OlderThan = None,
    ledger: LedgerName = None,
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Book unconfirmed requests at their estimates, because the provider billed them."""
    place = one_ledger(ledger, cache, config)
    _report(place, "confirmed", _change(place, "confirm", numbers or [], older_than), as_json)


@app.command("release", context_settings=NUMBERS)
def release(
    numbers: Numbers = None,
    older_than: OlderThan = None,
    ledger: LedgerName = None,
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Count unconfirmed requests no longer, because the provider did not bill them."""
    place = one_ledger(ledger, cache, config)
    _report(place, "released", _change(place, "release", numbers or [], older_than), as_json)


@app.command("compact")
def compact(
    older_than: Annotated[float, typer.Option(metavar="DAYS", min=0, help="Keep the detail of younger requests.")] = 30,
    ledger: LedgerName = None,
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove the detail of settled requests, and give unused room back to the disk. The sums stay."""
    place, output = one_ledger(ledger, cache, config), Output(as_json=as_json)
    with output.busy("compacting"), open_ledger(place) as opened:
        before = size_of(place)
        removed = opened.compact(timedelta(days=older_than))
        after = size_of(place)
    output.line(
        f"The detail of {removed:,} requests was removed. {place}: {data_size(before)} before, {data_size(after)} now."
    )
    output.json({"ledger": str(place), "removed": removed, "bytes_before": before, "bytes": after})


@app.command("export")
def export(
    file: Annotated[Path | None, typer.Argument(help="A new file; without it CSV is printed.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Write CSV, whatever the name of the file.")] = False,
    as_parquet: Annotated[bool, typer.Option("--parquet", help="Write Parquet, whatever the name.")] = False,
    ledger: LedgerName = None,
    cache: CacheFolder = None,
    config: ConfigFile = None,
) -> None:
    """Write the accounts of each day, model and tag: requests, texts, tokens, and US dollars spent and saved."""
    exclusive(csv=as_csv, parquet=as_parquet)
    parquet = as_parquet or (not as_csv and file is not None and file.suffix == ".parquet")
    if file is None and parquet:
        raise typer.BadParameter("Parquet needs a file: embedrouter ledger export accounts.parquet.")
    if file is not None and not (as_csv or parquet) and file.suffix != ".csv":
        raise typer.BadParameter("Choose a name that ends in .csv or .parquet, or say --csv or --parquet.")
    source = one_ledger(ledger, cache, config)
    with open_ledger(source) as opened:
        accounts = opened.accounts("day", "model", "tag")
    rows = [{**dict(zip(COLUMNS, names, strict=True)), **asdict(account)} for names, account in accounts.items()]
    names = [*COLUMNS, *asdict(Account())]
    if file is None:
        print_csv(rows, names)
        return
    with new_file(file.expanduser()) as part:
        if parquet:
            _write_parquet(part, rows)
        else:
            with part.open("w", encoding="utf-8", newline="") as text:
                _write_csv(text, rows, names)
    say(f"{len(rows):,} rows of {source} are in {file}.")


# Requests without an answer


def _change(
    place: LedgerPlace, action: Literal["confirm", "release"], numbers: list[int], older_than: float | None
) -> list[Unconfirmed]:
    """Confirm or release requests, all or none, and return them; on a server one after the other."""
    if bool(numbers) == (older_than is not None):
        raise typer.BadParameter("Name the requests: NUMBER …, or --older-than DAYS for all that are so old.")
    with open_ledger(place) as opened, opened.writing():
        waiting = opened.unconfirmed()
        unknown = set(numbers) - {request.number for request in waiting}
        if unknown:
            raise ConfigError(
                f"No unconfirmed request has the number {', '.join(map(str, sorted(unknown)))}, and nothing was "
                "changed. See the numbers: embedrouter ledger show."
            )
        before = datetime.now(UTC) - timedelta(days=older_than or 0)
        chosen = [request for request in waiting if (request.number in numbers if numbers else request.at < before)]
        for request in chosen:
            getattr(opened, action)(request.number)
    return chosen


def _report(place: LedgerPlace, done: str, requests: list[Unconfirmed], as_json: bool) -> None:
    output = Output(as_json=as_json)
    amount = sum((request.amount or Decimal(0) for request in requests), Decimal(0))
    output.line(f"{len(requests):,} requests were {done} in {place}.")
    if requests:
        show_requests(output, requests)
    output.json({"ledger": str(place), done: requests, "amount": amount})


def show_requests(output: Output, requests: Sequence[Any]) -> None:
    """Print the last requests; their numbers are names, without separators of thousands."""
    rows = [asdict(request) for request in requests[-SHOWN:]]
    output.table([{**row, "number": str(row["number"])} if "number" in row else row for row in rows])
    if len(requests) > SHOWN:
        output.line(f"{len(requests) - SHOWN:,} earlier requests are not shown; --json has all.")


# Export


def print_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Print rows as CSV; what a terminal would obey is escaped.

    Args:
        names: of the columns, where there is no row.
    """
    printed = [
        {name: escaped(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    ]
    _write_csv(sys.stdout, printed, list(rows[0]) if rows else names)


def _write_csv(file: IO[str], rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    writer = csv.writer(file)
    writer.writerow(names)
    writer.writerows([_cell(row[name]) for name in names] for row in rows)


def _cell(value: object) -> object:
    """Return a cell of a CSV file: no exponent in money, nothing that a spreadsheet would compute."""
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    arrow, parquet = load_pyarrow(".csv")
    kinds = {Decimal: arrow.decimal128(38, 12), int: arrow.int64()}
    fields = [(name, arrow.string()) for name in COLUMNS]
    fields += [(name, kinds[type(value)]) for name, value in asdict(Account()).items()]
    parquet.write_table(arrow.Table.from_pylist(rows, schema=arrow.schema(fields)), path)
