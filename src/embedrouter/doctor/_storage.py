"""Checks of the cache folder and the ledger."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path

from .._display import data_size
from .._sqlite import size_on_disk
from ..cache import KEY_BYTES, Cache, CacheDatabase, StoreError, VectorCache, default_folder
from ..errors import EmbedRouterError
from ..redis import RedisBooks, durability
from ..spending import Account, CapLeft, Ledger
from ..types import dollars
from ._finding import Finding, fine, problem, warning

MAX_ROWS = 20_000
"""Rows to read: 125 MB of 1,536 dimensions."""
FREE_SPACE_WARNING = 1_000_000_000
"""Bytes: 160,000 vectors of 1,536 dimensions."""
FREE_SPACE_PROBLEM = 50_000_000

CACHE = "cache"
LEDGER = "ledger"
BUDGET = "budget"


def check_caches(caches: Iterable[VectorCache], *, default: bool = False) -> list[Finding]:
    """Check each store of these caches once, without writing rows.

    Args:
        default: whether the user's cache folder is checked, too, which holds the ledger of a router that keeps nothing.
    """
    stores = {place: store for cache in caches for place, store in cache.places.items()}
    findings = check_cache(default_folder()) if default and str(default_folder()) not in stores else []
    for place, store in stores.items():
        folder = getattr(store, "folder", None)
        findings += check_cache(folder) if isinstance(folder, Path) else [_store(place, store)]
    return findings or check_cache(None)


def _store(place: str, store: Cache) -> Finding:
    """Check a store that is no folder: whether it can be read, and written where it tells so."""
    facts = {"place": place}
    try:
        store.get_many([bytes(KEY_BYTES)])
        require_room = getattr(store, "require_room", None)
        if require_room is not None:
            require_room(0)
    except Exception as error:  # noqa: BLE001 - a store may be of others
        advice = error.advice if isinstance(error, StoreError) else "Look into the settings of that store."
        return problem(CACHE, "store", f"{place} cannot be used: {error}", advice, **facts)
    can = "read" if require_room is None else "read and written"
    return fine(CACHE, "store", f"{place} can be {can}", **facts)


def check_cache(path: Path | None, *, max_rows: int = MAX_ROWS) -> list[Finding]:
    """Check a cache folder without writing to the folder.

    Args:
        path: the folder; ``None`` for a router without a cache.
        max_rows: how many rows to read.
    """
    if path is None:
        advice = "Set cache= to a folder, or leave cache= out for the default folder."
        return [warning(CACHE, "folder", "there is no cache: every text is paid for every time", advice)]
    return [*_folder(path), *_rows(CacheDatabase(path), max_rows)]


def _folder(path: Path) -> Iterator[Finding]:
    facts = {"folder": str(path)}
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        advice = "Move the file, or name another folder: cache=… or --cache."
        yield problem(CACHE, "folder", f"{there} is a file", advice, **facts)
        return
    if not os.access(there, os.W_OK | os.X_OK):
        story = f"{there} cannot be written: new vectors cannot be stored"
        advice = f"Run: chmod u+rwx {there}, or name another folder: cache=… or --cache."
        yield problem(CACHE, "folder", story, advice, **facts)
    else:
        story = "can be written" if there == path else "does not exist yet"
        yield fine(CACHE, "folder", f"{path} {story}", **facts)
    if there == path and os.name == "posix" and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        story = f"other users can read the folder (mode {mode:o}), and vectors reveal much of their texts"
        yield warning(CACHE, "mode", story, f"Run: chmod 700 {path}", mode=f"{mode:o}")
    if (free := shutil.disk_usage(there).free) >= FREE_SPACE_WARNING:
        yield fine(CACHE, "disk", f"{free / 1e9:,.1f} GB are free", free=free)
    else:
        found = problem if free < FREE_SPACE_PROBLEM else warning
        advice = "Free disk space, move the cache, or remove old rows: embedrouter cache prune --older-than DAYS"
        yield found(CACHE, "disk", f"only {data_size(free)} are free", advice, free=free)


def _rows(folder: CacheDatabase, max_rows: int) -> Iterator[Finding]:
    if not folder.exists:
        return
    try:
        sizes = folder.sizes().values()
        damaged = sum(not row.sound for row in islice(folder.rows(), max_rows))
    except EmbedRouterError as error:
        advice = "Restore a backup, or move cache.db: a new file is created, and the texts are paid for again."
        yield problem(CACHE, "rows", str(error), advice)
        return
    count = sum(rows for rows, _ in sizes)
    on_disk = f"{data_size(folder.bytes_on_disk)} on disk"
    checked = "all" if count <= max_rows else f"the first {max_rows:,}"
    facts = {"rows": count, "checked": min(count, max_rows), "damaged": damaged, "bytes_on_disk": folder.bytes_on_disk}
    if not count:
        yield fine(CACHE, "rows", "empty", **facts)
    elif damaged:
        story = f"{damaged:,} damaged among {checked} of {count:,} rows; the texts of damaged rows are paid for again"
        advice = f"Check the disk, then run: embedrouter cache verify --remove --cache {folder.path}"
        yield problem(CACHE, "rows", story, advice, **facts)
    else:
        more = "" if count <= max_rows else f"; for all run: embedrouter cache verify --cache {folder.path}"
        yield fine(CACHE, "rows", f"{count:,} rows, {on_disk}, {checked} of them checked, none damaged{more}", **facts)


def check_budget(left: Mapping[str, CapLeft]) -> list[Finding]:
    """Check what is left of the caps of a budget, as ``Router.budget_left`` says."""
    findings = []
    for name, cap in left.items():
        if cap.cap == "per_call":
            findings.append(fine(BUDGET, name, f"at most {dollars(cap.limit)} for a call"))
            continue
        story = f"{dollars(cap.left)} of {dollars(cap.limit)} are left"
        if cap.resets_at is not None:
            story += f", until {cap.resets_at:%Y-%m-%d %H:%M} UTC"
        facts = {"limit": cap.limit, "counted": cap.counted, "resets_at": cap.resets_at}
        if cap.left:
            findings.append(fine(BUDGET, name, story, **facts))
        else:
            wait = f"Raise {name}{'' if cap.resets_at is None else ', or wait for the next window'}."
            findings.append(warning(BUDGET, name, f"{story}: paid requests are refused", wait, **facts))
    return findings


def check_ledger(ledger: Ledger) -> list[Finding]:
    """Check a ledger, before the run records anything in the ledger."""
    what = "server" if ledger.books.is_remote else "file"
    errors: tuple[type[Exception], ...] = (EmbedRouterError, sqlite3.Error, *ledger.books.errors)
    try:
        if not ledger.books.is_lasting:
            story = "spending is counted in memory and forgotten with the process"
            return [warning(LEDGER, "file", story, "Name a file: ledger=…, or leave ledger= out.")]
        if not ledger.is_persistent:
            story = f"{ledger.place} cannot be opened; spending is counted in memory only"
            advice = "Make its folder writable, move the file, or name another file: ledger=…."
            return [problem(LEDGER, what, story, ledger.books.advice if what == "server" else advice)]
        months = ledger.totals("month")
        unconfirmed = ledger.unconfirmed()
        about_server = [] if ledger.file is not None else list(_durability(ledger))
    except errors as error:
        story = f"{ledger.place} cannot be read as a ledger ({error.__cause__ or error})"
        advice = "Restore a backup, move the file (a new ledger starts at zero), or name another file: ledger=…."
        return [problem(LEDGER, what, story, ledger.books.advice if what == "server" else advice)]
    total = sum(months.values(), Account())
    latest = next((f", of that {dollars(months[name].cost)} in {name}" for name in reversed(months)), "")
    size = ledger.books.memory() if isinstance(ledger.books, RedisBooks) else size_on_disk(ledger.file or Path())
    story = f"{ledger.place}, {data_size(size)}: {dollars(total.cost)} spent{latest}; {dollars(total.saved)} saved"
    facts = {"file": ledger.place, "bytes_on_disk": size} if what == "file" else {"server": ledger.place, "bytes": size}
    findings = [fine(LEDGER, what, story, **facts, months=months), *about_server]
    if unconfirmed:
        amount = sum((request.amount or Decimal(0) for request in unconfirmed), Decimal(0))
        story = (
            f"{len(unconfirmed):,} requests got no answer; their estimates, {dollars(amount)}, count towards "
            f"budgets. The last was to {unconfirmed[-1].model} on {unconfirmed[-1].at:%Y-%m-%d}"
        )
        advice = (
            "Compare with the provider's bill; embedrouter stats lists the requests, and embedrouter ledger confirm or "
            "release ends them."
        )
        findings.append(warning(LEDGER, "unconfirmed", story, advice, requests=len(unconfirmed), amount=amount))
    return findings


def _durability(ledger: Ledger) -> Iterator[Finding]:
    """Check whether the server of a ledger may forget what was spent."""
    if not isinstance(ledger.books, RedisBooks):
        return
    found = durability(ledger.books.server)
    facts = {"version": found.version, "on_disk": found.on_disk, "eviction": found.eviction}
    if found.on_disk in ("", "snapshots"):
        lost = "all" if not found.on_disk else "what came after its last snapshot"
        story = f"after a restart the server has forgotten {lost}: budgets begin anew with what it still knows"
        yield warning(LEDGER, "on disk", story, "Let it append to a file: CONFIG SET appendonly yes.", **facts)
    elif found.on_disk is None:
        story = "whether the server keeps its accounts on disk cannot be asked with the rights of this user"
        yield fine(LEDGER, "on disk", story, **facts)
    else:
        yield fine(LEDGER, "on disk", f"the server ({found.version}) writes its accounts {found.on_disk}", **facts)
    if found.eviction not in (None, "noeviction"):
        story = f"a full server removes keys ({found.eviction}), perhaps the accounts, and budgets begin anew"
        advice = "Set maxmemory-policy noeviction, or give ledger= a server of its own beside that of the cache."
        yield warning(LEDGER, "eviction", story, advice, **facts)
