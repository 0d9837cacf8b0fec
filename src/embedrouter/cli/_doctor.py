"""``embedrouter doctor``: check models, cache, ledger and installation, and show what to do next."""

import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer

from ..doctor import (
    PROBE_FOLDER,
    RECENT,
    Finding,
    ProbeRecords,
    check_budget,
    check_caches,
    check_ledger,
    check_models,
    check_retirement,
    installed,
    recent_models,
)
from ..errors import EmbedRouterError, RetirementWarning, StalePriceWarning
from ..limits import RetryPolicy
from ..models import Catalogue, load_catalogue
from ..models.agreement import PROBE_VERSION
from ..retrieval.index_guard import places_of, recorded, users_folder
from ..router import Router, wiring_of
from ..spending import project_tag, tag
from ..types import Usage, dollars
from ._console import Output
from ._options import AsJson, CachePlace, ConfigFile, ModelName
from ._routers import find_config

TAG = "doctor"
"""The tag of the probes' spending."""

STYLES = {"ok": None, "warning": "magenta", "problem": "bold red"}
"""By the level of a finding."""


def command(
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CachePlace = None,
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
    levels = Counter[str](finding.level for finding in findings)
    _show(output, findings, levels, usage)
    counts = {"ok": not levels["problem"], "problems": levels["problem"], "warnings": levels["warning"]}
    output.json({**counts, "probes": PROBE_VERSION, "usage": usage, "findings": findings})
    if levels["problem"]:
        raise typer.Exit(1)


def _check(tables: Mapping[str, dict[str, Any]], accept: bool) -> tuple[list[Finding], Usage]:
    """Run every check of the routers with these arguments, and of the installation."""
    findings: list[Finding] = []
    routers: list[tuple[Router, Catalogue]] = []
    for name, settings in tables.items():
        try:
            routers.append((_build(settings), load_catalogue(settings.get("catalog"))))
        except EmbedRouterError as error:
            subject = f"router {name}".strip()
            findings.append(Finding(subject, "settings", "problem", str(error), "Correct the configuration."))
    ledgers = {router.ledger.place: router.ledger for router, _ in routers}
    keeps_none = any(wiring_of(router).keeps_none for router, _ in routers)
    files = check_caches([router.cache for router, _ in routers], default=keeps_none)
    files += [finding for ledger in ledgers.values() for finding in check_ledger(ledger)]
    usage, extras, today = Usage(), set(), datetime.now(UTC).date()
    for router, cards in routers:
        with router, tag(TAG):
            records = ProbeRecords(wiring_of(router).folder / PROBE_FOLDER)
            findings += check_models(router, records, cards=cards, today=today, accept=accept)
            findings += _check_budget(router)
            usage += router.usage
            extras |= {_extra(cards, name) for name in router.models}
    findings += _check_retirement(routers, today)
    return [*findings, *files, *installed(extras)], usage


def _check_retirement(routers: list[tuple[Router, Catalogue]], today: date) -> list[Finding]:
    """Check the models of the routers, of the project's last requests, and of the indexes on this machine."""
    project = project_tag()
    ledgers = {router.ledger.place: router.ledger for router, _ in routers}
    uses = {name: ["this configuration"] for router, _ in routers for name in router.models}
    for name in sorted({name for ledger in ledgers.values() for name in recent_models(ledger, project, today)}):
        uses.setdefault(name, []).append(f"requests of {project or 'no project'} in the last {RECENT.days} days")
    places = [users_folder(), *(place for router, _ in routers for place in places_of(router))]
    catalogues = [cards for _, cards in routers] or [load_catalogue()]
    cards = {name: card for catalogue in reversed(catalogues) for name, card in catalogue.items()}
    known = Catalogue(cards, catalogues[0].servers, catalogues[0].refused)
    return list(check_retirement(uses, recorded(*dict.fromkeys(places)), known, today))


def _check_budget(router: Router) -> list[Finding]:
    """Check the budget after the probes; a ledger that fails has a finding of its own."""
    with suppress(EmbedRouterError):
        return check_budget(router.budget_left())
    return []


def _extra(catalogue: Catalogue, model: str) -> str:
    """Return the extra that a model needs: that of the protocol of its server."""
    provider = model.partition(":")[0]
    server = catalogue.servers.get(provider)
    return server.protocol.replace("_", "-") if server else provider


def _build(settings: dict[str, Any]) -> Router:
    """Build a router with two attempts at most; stale prices and retirements become findings instead of warnings."""
    retry = settings.get("retry") or RetryPolicy()
    with warnings.catch_warnings():
        for kind in (StalePriceWarning, RetirementWarning):
            warnings.simplefilter("ignore", kind)
        return Router(**{**settings, "retry": replace(retry, attempts=min(2, retry.attempts)), "on_too_long": "error"})


def _show(output: Output, findings: list[Finding], levels: Counter[str], usage: Usage) -> None:
    for subject in dict.fromkeys(finding.subject for finding in findings):
        output.line(subject, style="bold")
        for finding in findings:
            if finding.subject == subject:
                label = finding.level.replace("problem", "PROBLEM")
                output.line(f"  {label:<8} {finding.check}: {finding.story}", style=STYLES[finding.level])
                if finding.advice:
                    output.line(f"           -> {finding.advice}")
    unpriced = f", {usage.unpriced_tokens:,} tokens of unknown price" if usage.unpriced_tokens else ""
    spent = f"{usage.requests:,} requests, {usage.tokens:,} tokens, {dollars(usage.cost)}{unpriced}"
    output.line()
    output.line(f"The probes took {spent} (tag {TAG!r}).")
    verdict = f"Problems: {levels['problem']}. Warnings: {levels['warning']}."
    output.line(verdict if levels["problem"] or levels["warning"] else "All is well.", style="bold")
