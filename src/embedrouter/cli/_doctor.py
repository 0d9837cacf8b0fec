"""``embedrouter doctor``: check models, cache, ledger and installation, and show what to do next."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ..doctor import (
    PROBE_FOLDER,
    Checkup,
    Finding,
    Level,
    ProbeRecords,
    check_cache,
    check_ledger,
    check_models,
    installed,
)
from ..errors import EmbedRouterError, RetirementWarning, StalePriceWarning
from ..limits import RetryPolicy
from ..models import load_catalogue
from ..models.agreement import PROBE_VERSION
from ..router import Router, wiring_of
from ..spending import tag
from ..types import Usage, dollars
from ._console import Output
from ._options import AsJson, CacheFolder, ConfigFile, ModelName
from ._routers import router_settings

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
    with output.busy("checking"):
        checkup = _check(model, config, cache, accept=accept)
    _show(output, checkup.findings, checkup.usage)
    if any(finding.level == "problem" for finding in checkup.findings):
        raise typer.Exit(1)


def _check(model: str | None, config: str | None, cache: Path | None, *, accept: bool) -> Checkup:
    """Run every check."""
    total = Checkup()
    providers: set[str] = set()
    checked_files: set[Path | None] = set()
    for name, settings in router_settings(model, config, cache).items():
        try:
            router = _build(settings)
        except EmbedRouterError as error:
            subject = f"router {name}".strip()
            total.findings.append(Finding(subject, "settings", "problem", str(error), "Correct the configuration."))
            continue
        with router, tag(TAG):
            providers |= {candidate.name.partition(":")[0] for candidate in wiring_of(router).candidates}
            findings = []
            if settings["cache"] not in checked_files:
                findings += check_cache(settings["cache"])
            if router.ledger.file is None or router.ledger.file not in checked_files:
                findings += check_ledger(router.ledger)
            checked_files |= {settings["cache"], router.ledger.file}
            checkup = check_models(
                router,
                ProbeRecords(wiring_of(router).folder / PROBE_FOLDER),
                cards=load_catalogue(settings.get("catalog")),
                today=datetime.now(UTC).date(),
                accept=accept,
            )
            total.findings += [*checkup.findings, *findings]
            total.usage += checkup.usage
    total.findings += installed({name.replace("azure_openai", "openai") for name in providers})
    return total


def _build(settings: dict[str, Any]) -> Router:
    """Build a router with two attempts at most; stale prices and retirements become findings instead of warnings."""
    retry = settings.get("retry") or RetryPolicy()
    with warnings.catch_warnings():
        for kind in (StalePriceWarning, RetirementWarning):
            warnings.simplefilter("ignore", kind)
        return Router(**{**settings, "retry": replace(retry, attempts=min(2, retry.attempts)), "on_too_long": "error"})


def _show(output: Output, findings: list[Finding], usage: Usage) -> None:
    count = Counter(finding.level for finding in findings)
    for subject in dict.fromkeys(finding.subject for finding in findings):
        output.line(subject, style="bold")
        for finding in findings:
            if finding.subject == subject:
                label, style = LEVELS[finding.level]
                output.line(f"  {label:<8} {finding.check}: {finding.story}", style=style)
                if finding.advice:
                    output.line(f"           -> {finding.advice}")
    unpriced = f", {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    output.line()
    output.line(
        f"The probes took {usage.requests:,} requests, {usage.tokens:,} tokens, {dollars(usage.cost)}{unpriced} "
        f"(tag {TAG!r})."
    )
    output.line(_verdict(count["problem"], count["warning"]), style="bold")
    output.json(
        {
            "ok": not count["problem"],
            "problems": count["problem"],
            "warnings": count["warning"],
            "probes": PROBE_VERSION,
            "usage": asdict(usage),
            "findings": [asdict(finding) for finding in findings],
        }
    )


def _verdict(problems: int, warned: int) -> str:
    numbers = {"problem": problems, "warning": warned}
    counted = [f"{number} {word}{'s' if number > 1 else ''}" for word, number in numbers.items() if number]
    return f"{', '.join(counted)}." if counted else "All is well."
