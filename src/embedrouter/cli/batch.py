"""``embedrouter batch``: texts that a provider embeds within a day, submitted by ``warm --batch``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from ..calls import format_positions
from ..errors import ConfigError
from .choice import AsJson, CacheFolder, ConfigFile, ModelName, exclusive

if TYPE_CHECKING:
    from ..batches import BatchJob, BatchRecord
    from ..router import Router
    from .sheet import Sheet

__all__ = ["Every", "app", "collect"]

app = typer.Typer(no_args_is_help=True, help="Look after batches: texts that a provider embeds within a day.")

Every: TypeAlias = Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds between two looks at a batch.")]


Named: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="The batch, as list shows it.")]


@app.callback()
def options() -> None:
    """Look after batches: texts that a provider embeds within a day, submitted by warm --batch."""


@app.command("list")
def show(
    model: ModelName = None, config: ConfigFile = None, cache: CacheFolder = None, as_json: AsJson = False
) -> None:
    """Show the batches on file: under way, and ended with their failures. Asks no provider."""
    from .sheet import Sheet

    sheet = Sheet(as_json=as_json)
    rows = []
    for router in _routers(model, config, cache):
        with router:
            for job in [*router.batches(ended=True), *router.batches()]:
                rows += [
                    _row(record) | {"failed": len(job.poll().failures) if record.ended else 0} for record in job.records
                ]
    if rows:
        columns = list(rows[0])
        sheet.table(columns, [[str(cell) for cell in row.values()] for row in rows], numbers=("texts", "failed"))
    else:
        sheet.line("No batch is on file.")
    sheet.json({"batches": rows})


@app.command("wait")
def wait(
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    every: Every = 60.0,
    as_json: AsJson = False,
) -> None:
    """Wait for all batches under way and collect them into the cache. The exit code is 1 if a text failed."""
    from .sheet import Sheet

    sheet = Sheet(as_json=as_json)
    routers = _routers(model, config, cache)
    facts = collect(routers, every, wait=True, sheet=sheet)
    for router in routers:
        router.close()
    if not facts["batches"]:
        sheet.line("No batch is under way.")
    sheet.json(facts)
    if facts["failures"]:
        raise typer.Exit(1)


@app.command("cancel")
def cancel(
    name: Named,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
) -> None:
    """Ask the provider to stop a batch. What is answered until then is billed; wait collects it."""
    from .sheet import Sheet

    with closing(_under_way(name, model, config, cache)) as router:
        _job(router, name).cancel()
        Sheet(as_json=False).line(f"{name} is being cancelled. embedrouter batch wait collects the rest.")


@app.command("forget")
def forget(
    name: Named,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
) -> None:
    """Give up a batch that cannot be collected. What it may have cost stays counted as unconfirmed."""
    from .sheet import Sheet

    with closing(_under_way(name, model, config, cache)) as router:
        _job(router, name).forget()
        Sheet(as_json=False).line(f"{name} is forgotten. Its texts can be submitted again.")


def collect(routers: Sequence[Router], every: float, *, wait: bool, sheet: Sheet) -> dict[str, Any]:
    """Collect what has ended of the batches under way, or wait for all of them; return what is to be reported."""
    jobs = [job for router in routers for job in router.batches()]
    began = time.monotonic()
    try:
        with sheet.spending("waiting", sum(record.texts for job in jobs for record in job.records)) as advance:
            while True:
                found = [job.poll() for job in jobs]
                answered = sum(status.answered for status in found)
                spent = sum((router.usage.cost for router in routers), Decimal(0))
                advance(answered, speed=answered / max(time.monotonic() - began, 1e-6), spent=spent)
                if not wait or all(status.ended for status in found):
                    break
                time.sleep(every)
    except KeyboardInterrupt:
        print("\nStopped waiting; the batches go on. The same command, or embedrouter batch wait, collects them; "
              "embedrouter batch cancel stops one.", file=sys.stderr)  # fmt: skip
        raise typer.Exit(130) from None
    failures: list[dict[str, Any]] = []
    for job, status in zip(jobs, found, strict=True):
        by_reason: dict[str, list[int]] = {}
        for failure in status.failures:
            by_reason.setdefault(failure.reason, []).append(failure.index)
            failures.append({"batch": job.ids[0], **asdict(failure)})
        state = "ended" if status.ended else "under way"
        sheet.line(f"{job.ids[0]}: {state}, {status.answered:,} of {status.texts:,} texts answered.")
        for reason, positions in by_reason.items():
            sheet.line(f"    {reason}: {len(positions):,} texts, by position {format_positions(positions)}")
    if failures:
        sheet.line("warm without --batch embeds what failed, or says what is wrong with it.")
    batches = [
        {"id": job.ids[0], "ended": status.ended, "texts": status.texts, "answered": status.answered}
        for job, status in zip(jobs, found, strict=True)
    ]
    return {"batches": batches, "failures": failures}


def _under_way(name: str, model: str | None, config: str | None, cache: Path | None) -> Router:
    for router in _routers(model, config, cache):
        if any(name in job.ids for job in router.batches()):
            return router
        router.close()
    raise ConfigError(f"No batch {name!r} is under way. See: embedrouter batch list")


def _job(router: Router, name: str) -> BatchJob:
    return next(job for job in router.batches() if name in job.ids)


def _row(record: BatchRecord) -> dict[str, Any]:
    return {
        "id": record.mark,
        "model": record.model,
        "submitted": f"{record.at:%Y-%m-%d %H:%M} UTC",
        "texts": record.texts,
        "state": "ended" if record.ended else "under way",
        "at the provider": record.provider_id or "unknown",
    }


def _routers(model: str | None, config: str | None, cache: Path | None) -> list[Router]:
    from ..tiered import TieredRouter
    from .estimate import chosen_by

    exclusive(model=model, config=config)
    chosen, _ = chosen_by(model, config, cache)
    return [chosen.router(name) for name in chosen.own_tiers] if isinstance(chosen, TieredRouter) else [chosen]
