"""``embedrouter doctor``: check models, cache, ledger and installation, and show what to do next."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ..doctor import PROBE_FOLDER, Finding, Level, ProbeRecords, check_cache, check_ledger, check_models, installed
from ..errors import EmbedRouterError, StalePriceWarning
from ..limits import RetryPolicy
from ..models import PROBE_VERSION, load_catalogue
from ..router import Router, wiring_of
from ..spending import tag
from ..types import Usage, dollars
from ._console import Output
from ._options import AsJson, CacheFolder, ConfigFile, ModelName
from ._routers import find_config

TAG = "doctor"
"""The tag of the probes' spending."""

LEVELS: dict[Level, tuple[str, str | None]] = {
    "ok": ("ok", None),
    "warning": ("warning", "yellow"),
    "problem": ("PROBLEM", "bold red"),
}
"""The label and the style of each level."""


def command(
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    accept: Annotated[bool, typer.Option("--accept", help="Replace stored vectors that differ with today's.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check models, cache, ledger and installation. The exit code is 1 if there is a problem.

    Each model embeds five short texts, as documents and as queries: a few hundred tokens, booked under the tag
    "doctor", within the budget, without the cache. The vectors are compared with those of the first run, to detect a
    provider that changed the model behind a name, and with those of the router's other models.
    """
    output = Output(as_json=as_json)
    tables = find_config(model, config).routers()
    for settings in tables.values() if cache else ():
        settings["cache"] = cache
    with output.busy("checking"):
        findings, usage = _check(tables, accept)
    levels = Counter(finding.level for finding in findings)
    _show(output, findings, levels, usage)
    output.json(
        {
            "ok": not levels["problem"],
            "problems": levels["problem"],
            "warnings": levels["warning"],
            "probes": PROBE_VERSION,
            "usage": usage,
            "findings": findings,
        }
    )
    if levels["problem"]:
        raise typer.Exit(1)


def _check(tables: dict[str, dict[str, Any]], accept: bool) -> tuple[list[Finding], Usage]:
    """Run every check of the routers with these arguments, and of the installation."""
    findings: list[Finding] = []
    files: list[Finding] = []
    usage = Usage()
    providers: set[str] = set()
    checked: set[Path | None] = set()
    for name, settings in tables.items():
        try:
            router = _build(settings)
        except EmbedRouterError as error:
            subject = f"router {name}".strip()
            findings.append(Finding(subject, "settings", "problem", str(error), "Correct the configuration."))
            continue
        with router, tag(TAG):
            wiring = wiring_of(router)
            providers |= {candidate.name.partition(":")[0] for candidate in wiring.candidates}
            files += _check_files(router, checked)
            records = ProbeRecords(wiring.folder / PROBE_FOLDER)
            cards = load_catalogue(settings.get("catalog"))
            findings += check_models(router, records, cards=cards, today=datetime.now(UTC).date(), accept=accept)
            usage += router.usage
    extras = {name.replace("azure_openai", "openai") for name in providers}
    return [*findings, *files, *installed(extras)], usage


def _check_files(router: Router, checked: set[Path | None]) -> Iterator[Finding]:
    """Check the cache and the ledger of a router, each file once."""
    cache = None if router.cache.store is None else wiring_of(router).folder
    ledger = router.ledger
    if cache not in checked:
        yield from check_cache(cache)
    if ledger.file is None or ledger.file not in checked:
        yield from check_ledger(ledger)
    checked |= {cache, ledger.file}


def _build(settings: dict[str, Any]) -> Router:
    """Build a router with two attempts at most; stale prices become findings instead of warnings."""
    retry = settings.get("retry") or RetryPolicy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StalePriceWarning)
        return Router(**{**settings, "retry": replace(retry, attempts=min(2, retry.attempts)), "on_too_long": "error"})


def _show(output: Output, findings: list[Finding], levels: Counter[Level], usage: Usage) -> None:
    for subject in dict.fromkeys(finding.subject for finding in findings):
        output.line(subject, style="bold")
        for finding in findings:
            if finding.subject == subject:
                label, style = LEVELS[finding.level]
                output.line(f"  {label:<8} {finding.check}: {finding.story}", style=style)
                if finding.advice:
                    output.line(f"           -> {finding.advice}")
    unpriced = f", {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    spent = f"{usage.requests:,} requests, {usage.tokens:,} tokens, {dollars(usage.cost)}{unpriced}"
    output.line(f"\nThe probes took {spent} (tag {TAG!r}).")
    numbers = {"problem": levels["problem"], "warning": levels["warning"]}
    counts = [f"{number} {level}{'s' if number > 1 else ''}" for level, number in numbers.items() if number]
    output.line(f"{', '.join(counts)}." if counts else "All is well.", style="bold")
