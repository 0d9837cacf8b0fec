"""``embedrouter batch``: batches that ``warm --batch`` submitted and that the provider completes within a day."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from ..batches import BatchJob, BatchRecord
from ..calls import format_positions
from ..errors import ConfigError
from ..router import Router
from ._console import Output, exit_on_interrupt
from ._options import AsJson, CacheFolder, ConfigFile, ModelName
from ._routers import find_router, separate_routers

app = typer.Typer(no_args_is_help=True)

PollInterval: TypeAlias = Annotated[
    float, typer.Option("--every", metavar="S", min=0.0, help="Seconds between two requests for the status of a batch.")
]

INTERRUPTED = (
    "Stopped waiting; the batches go on. The same command, or embedrouter batch wait, collects them; "
    "embedrouter batch cancel stops one."
)

BatchId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="The batch, as list shows it.")]


@app.callback()
def options() -> None:
    """Manage batches: texts that a provider embeds within a day, submitted by warm --batch."""


@app.command("list")
def list_batches(
    model: ModelName = None, config: ConfigFile = None, cache: CacheFolder = None, as_json: AsJson = False
) -> None:
    """Show the recorded batches: those under way, and ended ones with their failures. No request is made."""
    output = Output(as_json=as_json)
    rows = []
    for router in _routers(model, config, cache):
        with router:
            for job in [*router.batches(ended=True), *router.batches()]:
                rows += [
                    _row(record) | {"failed": len(job.poll().failures) if record.ended else 0} for record in job.records
                ]
    if rows:
        columns = list(rows[0])
        output.table(columns, [[str(cell) for cell in row.values()] for row in rows], numbers=("texts", "failed"))
    else:
        output.line("No batch is recorded.")
    output.json({"batches": rows})


@app.command("wait")
def wait(
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    every: PollInterval = 60.0,
    as_json: AsJson = False,
) -> None:
    """Wait for all batches under way and write their vectors to the cache. The exit code is 1 if a text failed."""
    output = Output(as_json=as_json)
    routers = _routers(model, config, cache)
    facts = collect_batches(routers, every, wait=True, output=output)
    for router in routers:
        router.close()
    if not facts["batches"]:
        output.line("No batch is under way.")
    output.json(facts)
    if facts["failures"]:
        raise typer.Exit(1)


@app.command("cancel")
def cancel(batch_id: BatchId, model: ModelName = None, config: ConfigFile = None, cache: CacheFolder = None) -> None:
    """Ask the provider to stop a batch. Texts answered before the stop are billed; wait collects them."""
    with _job(batch_id, model, config, cache) as job:
        job.cancel()
        print(f"{batch_id} is being cancelled. embedrouter batch wait collects the answered texts.")


@app.command("forget")
def forget(batch_id: BatchId, model: ModelName = None, config: ConfigFile = None, cache: CacheFolder = None) -> None:
    """Drop a batch that cannot be collected. Its estimated cost stays counted as unconfirmed."""
    with _job(batch_id, model, config, cache) as job:
        job.forget()
        print(f"{batch_id} is forgotten. Its texts can be submitted again.")


def collect_batches(routers: Sequence[Router], every: float, *, wait: bool, output: Output) -> dict[str, Any]:
    """Collect the ended batches, or wait for all batches; return the facts to report."""
    jobs = [job for router in routers for job in router.batches()]
    with (
        exit_on_interrupt(lambda: INTERRUPTED),
        output.spending_progress("waiting", sum(record.texts for job in jobs for record in job.records)) as advance,
    ):
        while True:
            statuses = [job.poll() for job in jobs]
            answered = sum(status.answered for status in statuses)
            spent = sum((router.usage.cost for router in routers), Decimal(0))
            advance(answered, spent)
            if not wait or all(status.ended for status in statuses):
                break
            time.sleep(every)
    batches: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for job, status in zip(jobs, statuses, strict=True):
        counts = {"ended": status.ended, "texts": status.texts, "answered": status.answered}
        batches.append({"id": job.ids[0], **counts})
        by_reason: dict[str, list[int]] = {}
        for failure in status.failures:
            by_reason.setdefault(failure.reason, []).append(failure.index)
            failures.append({"batch": job.ids[0], **asdict(failure)})
        state = "ended" if status.ended else "under way"
        output.line(f"{job.ids[0]}: {state}, {status.answered:,} of {status.texts:,} texts answered.")
        for reason, positions in by_reason.items():
            output.line(f"    {reason}: {len(positions):,} texts, by position {format_positions(positions)}")
    if failures:
        output.line("Run warm without --batch: it embeds these texts, or says what is wrong with each.")
    return {"batches": batches, "failures": failures}


@contextmanager
def _job(batch_id: str, model: str | None, config: str | None, cache: Path | None) -> Iterator[BatchJob]:
    """Find a batch under way, and keep its router open meanwhile."""
    with ExitStack() as stack:
        routers = [stack.enter_context(router) for router in _routers(model, config, cache)]
        found = next((job for router in routers for job in router.batches() if batch_id in job.ids), None)
        if found is None:
            raise ConfigError(f"No batch {batch_id!r} is under way. See: embedrouter batch list")
        yield found


def _row(record: BatchRecord) -> dict[str, Any]:
    return {
        "id": record.reference,
        "model": record.model,
        "submitted": f"{record.at:%Y-%m-%d %H:%M} UTC",
        "texts": record.texts,
        "state": "ended" if record.ended else "under way",
        "at the provider": record.provider_id or "unknown",
    }


def _routers(model: str | None, config: str | None, cache: Path | None) -> list[Router]:
    return separate_routers(find_router(model, config, cache)[0])
