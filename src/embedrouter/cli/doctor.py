"""``embedrouter doctor``: are models, cache, ledger and installation well, and what helps where they are not?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EmbedRouterError, StalePriceWarning
from .choice import (
    AsJson,
    CacheFolder,
    ConfigFile,
    ModelName,
    configured,
    exclusive,
)

if TYPE_CHECKING:
    from ..doctor import Finding, Level
    from ..router import Router
    from ..types import Usage
    from .sheet import Sheet

__all__ = ["command"]

TAG = "doctor"
"""What the probes are booked under."""

STYLES: dict[Level, str | None] = {"ok": None, "warning": "yellow", "problem": "bold red"}
MARKS: dict[Level, str] = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}


def command(
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Store today's vectors in place of those that differ.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check models, cache, ledger and installation. The exit code is 1 if something is wrong.

    Each model is asked for the vectors of five short texts, as documents and as queries: a few hundred tokens, booked
    under the tag "doctor", within the budget, past the cache. They are compared with those of the first run, to find
    out whether a provider changed the model behind its name, and with those of the router's other models.
    """
    exclusive(model=model, config=config)
    from ..types import Usage
    from .sheet import Sheet

    sheet = Sheet(as_json=as_json)
    findings: list[Finding] = []
    usage = Usage()
    with sheet.busy("checking"):
        for found, used in _checked(model, config, cache, accept=accept):
            findings += found
            usage += used
    _show(sheet, findings, usage)
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        raise typer.Exit(1)


def _checked(
    model: str | None, config: str | None, cache: Path | None, *, accept: bool
) -> Iterator[tuple[list[Finding], Usage]]:
    from ..doctor import PROBE_FOLDER, ProbeRecords, check_cache, check_ledger, check_models, installed
    from ..models import load_catalogue
    from ..router import wiring_of
    from ..spending import tag
    from ..types import Usage

    providers: set[str] = set()
    seen: set[Path | None] = set()
    for name, settings in _routers(model, config, cache).items():
        try:
            router = _router(settings)
        except EmbedRouterError as error:
            yield [_not_built(name, error)], Usage()
            continue
        with router, tag(TAG):
            providers |= {candidate.name.partition(":")[0] for candidate in wiring_of(router).candidates}
            findings = []
            if settings["cache"] not in seen:
                findings += check_cache(settings["cache"])
            if router.ledger.file is None or router.ledger.file not in seen:
                findings += check_ledger(router.ledger)
            seen |= {settings["cache"], router.ledger.file}
            checkup = check_models(
                router,
                ProbeRecords(wiring_of(router).folder / PROBE_FOLDER),
                cards=load_catalogue(settings.get("catalog")),
                today=datetime.now(UTC).date(),
                accept=accept,
            )
            yield [*checkup.findings, *findings], checkup.usage
    yield installed({name.replace("azure_openai", "openai") for name in providers}), Usage()


def _routers(model: str | None, config: str | None, cache: Path | None) -> dict[str, dict[str, Any]]:
    """Return the arguments of each router that the options choose, by its tier; the cache is a path or ``None``."""
    from ..cache import default_folder
    from ..config import load
    from .levels import WORDLLAMA

    where = None if model else configured(config)
    tables: dict[str, dict[str, Any]]
    if where is None:
        tables = {"": {"models": [model or WORDLLAMA]}}
    else:
        loaded = load(None if where == "auto" else where)
        tables = dict(loaded.tiered()[0]) if "routers" in loaded.content else {"": loaded.router()}
    given = {} if cache is None else {"cache": cache}
    for table in tables.values():
        table.update(given)
        place = table.setdefault("cache", default_folder())
        table["cache"] = None if place is None else Path(place).expanduser().absolute()
    return tables


def _router(settings: dict[str, Any]) -> Router:
    """Build a router that does not try for long; old prices are among the findings."""
    from ..limits import RetryPolicy
    from ..router import Router

    retry = settings.get("retry") or RetryPolicy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StalePriceWarning)
        return Router(**{**settings, "retry": replace(retry, attempts=min(2, retry.attempts)), "on_too_long": "error"})


def _not_built(name: str, error: EmbedRouterError) -> Finding:
    from ..doctor import Finding

    subject = f"router {name}".strip()
    return Finding(subject, "settings", "problem", str(error), "Correct the configuration.")


def _show(sheet: Sheet, findings: list[Finding], usage: Usage) -> None:
    from ..models import PROBE_VERSION
    from ..types import dollars

    count = {level: sum(finding.level == level for finding in findings) for level in STYLES}
    subjects = dict.fromkeys(finding.subject for finding in findings)
    for subject in subjects:
        sheet.line(subject, style="bold")
        for finding in findings:
            if finding.subject == subject:
                sheet.line(f"  {MARKS[finding.level]:<8} {finding.check}: {finding.story}", style=STYLES[finding.level])
                if finding.advice:
                    sheet.line(f"           -> {finding.advice}")
    unpriced = f", {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    sheet.line()
    sheet.line(
        f"The probes took {usage.requests:,} requests, {usage.tokens:,} tokens, {dollars(usage.cost)}{unpriced} "
        f"(tag {TAG!r})."
    )
    sheet.line(_verdict(count["problem"], count["warning"]), style="bold")
    sheet.json(
        {
            "ok": not count["problem"],
            "problems": count["problem"],
            "warnings": count["warning"],
            "probes": PROBE_VERSION,
            "usage": asdict(usage),
            "findings": [
                {
                    "subject": finding.subject,
                    "check": finding.check,
                    "level": finding.level,
                    "story": finding.story,
                    "advice": finding.advice,
                    "facts": dict(finding.facts),
                }
                for finding in findings
            ],
        }
    )


def _verdict(problems: int, warned: int) -> str:
    counted = [
        f"{number} {word}{'s' if number > 1 else ''}"
        for number, word in ((problems, "problem"), (warned, "warning"))
        if number
    ]
    return f"{', '.join(counted)}." if counted else "All is well."
