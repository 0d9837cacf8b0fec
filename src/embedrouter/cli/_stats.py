"""``embedrouter stats``: show spending and savings from the ledger, and what is left of the budget."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from ..models import load_catalogue
from ..router import settings_of, wiring_of
from ..spending import Account, BookedRequest, CapLeft, Heading, Period, Unconfirmed, project_tag, sum_accounts
from ._accounts import account_rows, cap_rows, compare, csv_rows, dearest_first, request_rows
from ._console import Output
from ._exclusive import exclusive
from ._ledger import print_csv, show_requests
from ._ledgers import LedgerPlace, exists, find_ledgers, ledgers_of, open_ledger
from ._options import AsJson, CacheFolder, ConfigFile
from ._routers import AnyRouter, find_router, separate_routers

Day = Annotated[str | None, typer.Option(metavar="DAY", help="As 2026-03-01, or a month, as 2026-03. UTC.")]


@dataclass
class Found:
    """What the ledgers say."""

    rows: dict[str, Account]
    total: Account
    project: dict[str, Account] = field(default_factory=dict)
    """The rows of the working directory's project alone."""
    unconfirmed: list[Unconfirmed] = field(default_factory=list)
    requests: list[BookedRequest] = field(default_factory=list)


def command(
    by: Annotated[Heading, typer.Option(help="The key of the sums.")] = "day",
    tag: Annotated[str | None, typer.Option(metavar="NAME", help="What is booked under this tag alone.")] = None,
    since: Day = None,
    until: Day = None,
    requests: Annotated[int, typer.Option(metavar="N", min=0, help="Show the last N requests, too.")] = 0,
    compare_all: Annotated[bool, typer.Option("--compare", help="What other models would have cost.")] = False,
    compare_with: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="What this model would have cost; can be repeated.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: the sums, or with --requests these.")] = False,
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show spending and savings by day, month, model or tag. Days and months are UTC.

    The project of the working directory comes first. Models and tags are sorted by cost.

    Unconfirmed requests were sent and got no answer. They may have been billed, so budgets count their estimates.
    """
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other.")
    Period.of(since, until, tag)  # a wrong day is an error before anything is booked, too
    exclusive(cache=cache, config=config)
    router = None if cache is not None else find_router(None, config, None)
    places = find_ledgers(cache, None) if router is None else ledgers_of(router)
    project = project_tag() if tag is None else ""
    found = _read(places, by, tag, since, until, requests, project)
    if as_csv:
        print_csv(request_rows(found.requests) if requests else csv_rows(by, found.rows), [by, *asdict(Account())])
        return
    caps = _caps_left(router)
    wanted = compare_all or bool(compare_with)
    others = compare(found.total, _prices(router), compare_with or []) if wanted else []

    output = Output(as_json=as_json)
    locations = ", ".join(map(str, places))
    if found.project and by != "tag":
        if found.project != found.rows:
            output.line(f"The project {project}", style="bold")
            _show(output, by, found.project)
        output.line("All" if found.project != found.rows else f"The project {project}, and no other", style="bold")
    elif project in found.rows:
        output.line(f"The project {project}: {found.rows[project]}", style="bold")
    if found.rows:
        _show(output, by, found.rows)
        output.line(f"Ledger: {locations}")
    else:
        what = "Nothing is booked yet" if (tag, since, until) == (None, None, None) else "Nothing of this is booked"
        output.line(f"{what} in {locations}.")
    if caps:
        output.line()
        output.line("Left of the budget", style="bold")
        output.table(cap_rows(caps))
    if others:
        output.line()
        output.line("What these tokens would have cost. Tokenizers differ, so each figure is about right only.")
        output.table(others)
    if found.requests:
        output.line()
        output.table(request_rows(found.requests))
    if found.unconfirmed:
        output.line("Unconfirmed requests got no answer: they may have been billed, and are not in the cost.")
        show_requests(output, found.unconfirmed)
    facts: dict[str, Any] = {
        "ledgers": [str(place) for place in places],
        "by": by,
        "tag": tag,
        "since": since,
        "until": until,
    }
    facts |= {"project": {"tag": project, "rows": found.project}} if project else {}
    facts |= {"rows": found.rows, "total": found.total, "unconfirmed": found.unconfirmed}
    facts |= {"requests": found.requests} if requests else {}
    facts |= {"compared": others} if others else {}
    output.json({**facts, "budget": [{**asdict(cap), "resets_in": _seconds(cap.resets_in)} for cap in caps]})


def _read(
    places: list[LedgerPlace],
    by: Heading,
    tag: str | None,
    since: str | None,
    until: str | None,
    requests: int,
    project: str,
) -> Found:
    """Read the ledgers that exist."""
    rows: list[dict[str, Account]] = []
    of_project: list[dict[str, Account]] = []
    found = Found({}, Account())
    for place in filter(exists, places):
        with open_ledger(place) as ledger:
            rows.append(ledger.totals(by, since=since, until=until, tag=tag))
            if project:
                of_project.append(ledger.totals(by, since=since, until=until, tag=project))
            if requests:
                found.requests += ledger.requests(requests, since=since, until=until, tag=tag)
            found.unconfirmed += [item for item in ledger.unconfirmed() if tag in (None, item.tag)]
    found.rows, found.project = (dearest_first(by, sum_accounts(tables)) for tables in (rows, of_project))
    found.total = sum(found.rows.values(), Account())
    found.unconfirmed.sort(key=lambda request: request.at)
    found.requests = sorted(found.requests, key=lambda request: request.at, reverse=True)[:requests]
    return found


def _show(output: Output, by: str, rows: Mapping[str, Account]) -> None:
    sums = [*rows.items(), ("total", sum(rows.values(), Account()))]
    output.table(account_rows(by, sums), total=True)


def _caps_left(router: AnyRouter | None) -> list[CapLeft]:
    """Return what is left of the caps of each router of a configuration; routers of one ledger and budget once."""
    left: dict[tuple[object, ...], CapLeft] = {}
    for single in separate_routers(router) if router is not None else ():
        with single:
            for cap in single.budget_left().values():
                left.setdefault((single.ledger.place, cap.tag, cap.cap, cap.limit), cap)
    return list(left.values())


def _prices(router: AnyRouter | None) -> dict[str, Decimal | None]:
    """Return the prices of the catalogue, and those that a configuration declares."""
    routers = separate_routers(router) if router is not None else []
    own = [Path(path) for single in routers if (path := settings_of(single).catalog) is not None]
    catalogues = [load_catalogue(), *map(load_catalogue, own)]
    prices = {name: card.price for catalogue in catalogues for name, card in catalogue.items()}
    for single in routers:
        prices |= {item.name: item.price for item in wiring_of(single).candidates if item.price is not None}
    return prices


def _seconds(wait: timedelta | None) -> float | None:
    return None if wait is None else wait.total_seconds()
