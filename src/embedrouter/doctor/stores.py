"""The cache folder and the ledger: are they there, can they be used, are they sound?"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from itertools import islice
from pathlib import Path

from ..cache import CacheDatabase
from ..errors import EmbedRouterError
from ..spending import Account, Ledger
from ..types import dollars
from .finding import Finding, fine, problem, warning

__all__ = ["check_cache", "check_ledger"]

ROWS = 20_000
"""Rows that are read and checked: 125 MB of 1,536 dimensions."""
LITTLE = 1_000_000_000
"""Bytes of free disk space below which there is a warning: 160,000 vectors of 1,536 dimensions."""
TOO_LITTLE = 50_000_000

CACHE = "cache"
LEDGER = "ledger"


def check_cache(path: Path | None) -> list[Finding]:
    """Look at a cache folder; ``None``: the router has none. Writes nothing."""
    if path is None:
        return [
            warning(
                CACHE,
                "folder",
                "there is no cache: every text is paid for every time",
                "Set cache= to a folder, or leave it out for the usual one.",
            )
        ]
    return [*_folder(path), *_rows(CacheDatabase(path))]


def _folder(path: Path) -> Iterator[Finding]:
    facts = {"folder": str(path)}
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        yield problem(
            CACHE, "folder", f"{there} is a file", "Move it away, or name another folder: cache=… or --cache.", **facts
        )
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield problem(
            CACHE,
            "folder",
            f"{there} cannot be written: nothing that is paid for can be kept",
            f"Allow it, with: chmod u+rwx {there}, or name another folder: cache=… or --cache.",
            **facts,
        )
    elif there != path:
        yield fine(CACHE, "folder", f"{path}: nothing is kept there yet", **facts)
    else:
        yield fine(CACHE, "folder", f"{path} can be written", **facts)
    if there == path and os.name == "posix" and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        yield warning(
            CACHE,
            "mode",
            f"others on this machine may look into it (mode {mode:o}), and vectors tell much about their texts",
            f"Run: chmod 700 {path}",
            mode=f"{mode:o}",
        )
    free = shutil.disk_usage(there).free
    if free >= LITTLE:
        yield fine(CACHE, "disk", f"{free / 1e9:,.1f} GB are free", free=free)
    else:
        found = problem if free < TOO_LITTLE else warning
        yield found(
            CACHE,
            "disk",
            f"only {free / 1e6:,.0f} MB are free",
            "Make room on the disk, move the cache, or remove old rows: embedrouter cache prune --older-than DAYS",
            free=free,
        )


def _rows(folder: CacheDatabase) -> Iterator[Finding]:
    if not folder.exists:
        return
    try:
        count, _ = folder.size()
        damaged = sum(not row.sound for row in islice(folder.rows(), ROWS))
    except EmbedRouterError as error:
        yield problem(
            CACHE,
            "rows",
            str(error),
            "Move cache.db away; a new one is made, and what was in it is paid for again. Or bring back a backup.",
        )
        return
    seen = "all" if count <= ROWS else f"the first {ROWS:,}"
    facts = {"rows": count, "checked": min(count, ROWS), "damaged": damaged}
    if not count:
        yield fine(CACHE, "rows", "empty", **facts)
    elif damaged:
        yield problem(
            CACHE,
            "rows",
            f"{damaged:,} damaged among {seen} of {count:,} rows; the texts of damaged rows are paid for again",
            f"Check the disk, then run: embedrouter cache verify --remove --cache {folder.path}",
            **facts,
        )
    else:
        more = "" if count <= ROWS else f"; for all run: embedrouter cache verify --cache {folder.path}"
        yield fine(CACHE, "rows", f"{count:,} rows, {seen} of them checked, none damaged{more}", **facts)


def check_ledger(ledger: Ledger) -> list[Finding]:
    """Look at a ledger, before anything is booked."""
    try:
        if not ledger.is_persistent:
            return [_in_memory(ledger)]
        months = ledger.totals("month")
        lost = ledger.unconfirmed()
    except (EmbedRouterError, sqlite3.Error) as error:
        cause = error.__cause__ or error
        return [
            problem(
                LEDGER,
                "file",
                f"{ledger.file} cannot be read as a ledger ({cause})",
                "Move it away, and a new one is begun that knows nothing of what was spent. Or name another: ledger=….",
            )
        ]
    spent = sum((month.cost for month in months.values()), Decimal(0))
    saved = sum((month.saved for month in months.values()), Decimal(0))
    now = next(reversed(months.items()), ("", Account()))
    latest = f", of that {dollars(now[1].cost)} in {now[0]}" if now[0] else ""
    story = f"{ledger.file}: {dollars(spent)} spent{latest}; {dollars(saved)} saved"
    months_of = {name: asdict(month) for name, month in months.items()}
    findings = [fine(LEDGER, "file", story, file=str(ledger.file), months=months_of)]
    if lost:
        amount = sum((request.amount or Decimal(0) for request in lost), Decimal(0))
        findings.append(
            warning(
                LEDGER,
                "unconfirmed",
                f"{len(lost):,} requests went out and never came back; {dollars(amount)} of estimates count towards "
                f"budgets. The last was to {lost[-1].model} on {lost[-1].at:%Y-%m-%d}",
                "Compare with the provider's bill; embedrouter stats lists them.",
                requests=len(lost),
                amount=amount,
            )
        )
    return findings


def _in_memory(ledger: Ledger) -> Finding:
    if ledger.file is None:
        return warning(
            LEDGER,
            "file",
            "accounts are kept in memory and end with the process",
            "Name a file, ledger=…, or leave ledger= out.",
        )
    return problem(
        LEDGER,
        "file",
        f"{ledger.file} cannot be opened; spending is counted in memory only",
        "Make its folder writable, or move away what is there; or name another file: ledger=….",
    )
