"""``embedrouter batch``: batches that ``warm --batch`` submitted and that the provider completes within hours."""

import time
from dataclasses import asdict
from typing import Annotated, Any, TypeAlias

import typer

from .._display import shown_name
from ..batches import BatchJob, BatchRecord
from ..calls import Progress, format_positions
from ..errors import ConfigError
from ._console import Output, exit_on_interrupt, say
from ._options import AsJson, CachePlace, ConfigFile, ModelName
from ._routers import AnyRouter, find_router, separate_routers

app = typer.Typer(
    no_args_is_help=True, help="Manage batches: texts that a provider embeds within hours, submitted by warm --batch."
)

PollInterval: TypeAlias = Annotated[float, typer.Option("--every", min=0, help="Seconds between two status requests.")]

INTERRUPTED = (
    "Stopped waiting; the batches go on. The same command, or embedrouter batch wait, collects them; "
    "embedrouter batch cancel stops one."
)

BatchId: TypeAlias = Annotated[str, typer.Argument(metavar="ID", help="The batch, as list shows it.")]


@app.command("list")
def list_batches(
    model: ModelName = None, config: ConfigFile = None, cache: CachePlace = None, as_json: AsJson = False
) -> None:
    """Show the recorded batches: those under way, and ended ones with their failures. No request is made."""
    output = Output(as_json=as_json)
    with find_router(model, config, cache) as router:
        jobs = [*_jobs(router, ended=True), *_jobs(router)]
        rows = [_row(job, record) for job in jobs for record in job.records]
    if rows:
        output.table(rows)
    else:
        output.line("No batch is recorded.")
    output.json({"batches": rows})


@app.command("wait")
def wait(
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CachePlace = None,
    every: PollInterval = 60.0,
    as_json: AsJson = False,
) -> None:
    """Wait for all batches under way and write their vectors to the cache. The exit code is 1 if a text failed."""
    output = Output(as_json=as_json)
    with find_router(model, config, cache) as router:
        facts = collect_batches(router, every, wait=True, output=output)
    if not facts["batches"]:
        output.line("No batch is under way.")
    output.json(facts)
    if facts["failures"]:
        raise typer.Exit(1)


@app.command("cancel")
def cancel(batch_id: BatchId, model: ModelName = None, config: ConfigFile = None, cache: CachePlace = None) -> None:
    """Ask the provider to stop a batch. Texts answered before the stop are billed; wait collects them."""
    with find_router(model, config, cache) as router:
        _find_job(router, batch_id).cancel()
    say(f"{batch_id} is being cancelled. embedrouter batch wait collects the answered texts.")


@app.command("forget")
def forget(batch_id: BatchId, model: ModelName = None, config: ConfigFile = None, cache: CachePlace = None) -> None:
    """Drop a batch that cannot be collected. Its estimated cost stays counted as unconfirmed."""
    with find_router(model, config, cache) as router:
        _find_job(router, batch_id).forget()
    say(f"{batch_id} is forgotten. Its texts can be submitted again.")


def collect_batches(router: AnyRouter, every: float, *, wait: bool, output: Output) -> dict[str, Any]:
    """Collect the ended batches, or wait for all batches; return the facts to report."""
    jobs = _jobs(router)
    with (
        exit_on_interrupt(lambda: INTERRUPTED),
        Progress("auto", sum(record.texts for job in jobs for record in job.records), "waiting") as progress,
    ):
        while True:
            statuses = [job.poll() for job in jobs]
            progress.reach(sum(status.answered for status in statuses), router.usage)
            if not wait or all(status.ended for status in statuses):
                break
            time.sleep(every)
    batches: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for job, status in zip(jobs, statuses, strict=True):
        name = job.ids[0]
        batches.append({"id": name, "ended": status.ended, "texts": status.texts, "answered": status.answered})
        failures += [{"batch": name, **asdict(failure)} for failure in status.failures]
        state = "ended" if status.ended else "under way"
        output.line(f"{name}: {state}, {status.answered:,} of {status.texts:,} texts answered.")
        for reason in dict.fromkeys(failure.reason for failure in status.failures):
            positions = [failure.index for failure in status.failures if failure.reason == reason]
            output.line(f"    {reason}: {len(positions):,} texts, by position {format_positions(positions)}")
    if failures:
        output.line("Run warm without --batch: it embeds these texts, or says what is wrong with each.")
    return {"batches": batches, "failures": failures}


def _jobs(router: AnyRouter, *, ended: bool = False) -> list[BatchJob]:
    return [job for single in separate_routers(router) for job in single.batches(ended=ended)]


def _find_job(router: AnyRouter, batch_id: str) -> BatchJob:
    for job in _jobs(router):
        if batch_id in job.ids:
            return job
    raise ConfigError(f"No batch {shown_name(batch_id)} is under way. See: embedrouter batch list")


def _row(job: BatchJob, record: BatchRecord) -> dict[str, Any]:
    return {
        "id": record.reference,
        "model": record.model,
        "submitted": f"{record.at:%Y-%m-%d %H:%M} UTC",
        "texts": record.texts,
        "state": "ended" if record.ended else "under way",
        "at the provider": record.provider_id or "unknown",
        "failed": len(job.poll().failures) if record.ended else 0,
    }
