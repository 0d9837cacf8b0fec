"""``embedrouter cache``: the folder that holds vectors, and what is kept beside them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from .choice import (
    AsJson,
    CacheFolder,
    ConfigFile,
    Yes,
    cache_folder,
    exclusive,
)

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Look after the cache and what is kept beside it.")

DAY = 86400.0


@app.callback()
def options() -> None:
    """Look after the cache and what is kept beside it."""


@app.command("info")
def info(cache: CacheFolder = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show where the cache is, how much is in it, and which indexes are recorded."""
    exclusive(cache=cache, config=config)
    from ..cache import CacheDatabase
    from ..retrieval import FOLDER, recorded
    from .sheet import Sheet

    folder, sheet = CacheDatabase(cache_folder(cache, config)), Sheet(as_json=as_json)
    rows, size = folder.size() if folder.exists else (0, 0)
    indexes = {name: str(space) for name, space in recorded(folder.path / FOLDER).items()}
    sheet.line(f"Folder: {folder.path}{'' if folder.exists else ' (nothing is kept there yet)'}")
    sheet.line(f"Rows: {rows:,}, {_bytes(size)} of vectors, {_bytes(folder.bytes_on_disk)} on disk")
    for name, space in indexes.items():
        sheet.line(f"Index {name!r}: {space}")
    if not indexes:
        sheet.line("Indexes: none is recorded")
    sheet.json(
        {
            "folder": str(folder.path),
            "rows": rows,
            "bytes": size,
            "bytes_on_disk": folder.bytes_on_disk,
            "indexes": indexes,
        }
    )


@app.command("verify")
def verify(
    cache: CacheFolder = None,
    config: ConfigFile = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged; the exit code is then 0.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every row and check it against its checksum. The exit code is 1 if any is damaged.

    Damaged rows do no harm: the router takes them for absent and pays for their texts again.
    """
    exclusive(cache=cache, config=config)
    from ..cache import CacheDatabase, chunked
    from .sheet import Sheet

    folder, sheet = CacheDatabase(cache_folder(cache, config)), Sheet(as_json=as_json)
    total = damaged = removed = 0
    with sheet.busy("reading every row"):
        for page in chunked(folder.rows()):
            bad = [row for row in page if not row.sound]
            total += len(page)
            damaged += len(bad)
            if remove and bad:
                removed += folder.remove(bad)
    sheet.line(f"{total:,} rows, {damaged:,} damaged{f', {removed:,} removed' if remove else ''}: {folder.path}")
    if damaged and not remove:
        sheet.line(
            "The texts of damaged rows are embedded and paid for again when they are needed. Remove with --remove."
        )
    facts = {"folder": str(folder.path), "rows": total, "sound": total - damaged, "damaged": damaged}
    sheet.json({**facts, "removed": removed})
    if damaged > removed:
        raise typer.Exit(1)


@app.command("prune")
def prune(
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Remove rows stored so many days ago or earlier.")
    ] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Remove rows that fail their checksum.")] = False,
    cache: CacheFolder = None,
    config: ConfigFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove old or damaged rows, after saying how many. Sound rows were paid for, and are paid for again if needed."""
    exclusive(cache=cache, config=config)
    if older_than is None and not damaged:
        raise typer.BadParameter("Say what to remove: --older-than DAYS, --damaged, or both.")
    from ..cache import CacheDatabase, StoredRow, chunked
    from ..errors import ConfigError
    from .sheet import Sheet

    folder, sheet = CacheDatabase(cache_folder(cache, config)), Sheet(as_json=as_json)
    before = None if older_than is None else time.time() - older_than * DAY

    def doomed() -> Iterator[StoredRow]:
        # only damage has to be looked for in every row
        for row in folder.rows(None if damaged else before):
            if (before is not None and row.stored < before) or (damaged and not row.sound):
                yield row

    count = size = 0
    with sheet.busy("reading rows"):
        for row in doomed():
            count += 1
            size += len(row.value)
    asked = f"{count:,} rows, {_bytes(size)}, are to be removed from {folder.path}"
    if count and not yes and not sheet.confirm(f"{asked}. Go ahead?"):
        raise ConfigError(f"{asked}. Nothing was removed. Agree with --yes.")
    removed = 0
    with sheet.busy("removing rows"):
        for page in chunked(doomed()) if count else ():
            removed += folder.remove(page)
    sheet.line(f"{removed:,} rows, {_bytes(size)}, were removed from {folder.path}.")
    sheet.json({"folder": str(folder.path), "removed": removed, "bytes": size})


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new .jsonl, .jsonl.gz or .parquet file.")],
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write all sound rows to a file that others can import. It holds vectors, no texts and no keys."""
    exclusive(cache=cache, config=config)
    from ..cache import CacheDatabase
    from . import share
    from .sheet import Sheet

    folder, sheet = CacheDatabase(cache_folder(cache, config)), Sheet(as_json=as_json)
    damaged = 0

    def pairs() -> Iterator[share.Pair]:
        nonlocal damaged
        for row in folder.rows():
            if row.sound:
                yield row.key, row.value
            else:
                damaged += 1

    with sheet.busy("writing rows"):
        count = share.write(file.expanduser(), pairs())
    left = f"; {damaged:,} damaged ones were left out" if damaged else ""
    sheet.line(f"{count:,} rows of {folder.path} are in {file}{left}.")
    sheet.json({"folder": str(folder.path), "file": str(file), "rows": count, "damaged": damaged})


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that export wrote.")],
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Add the rows of an exported file. Sound rows that are there already stay as they are.

    Every row is checked, but no check can tell which text a vector belongs to: import files of people you trust.
    """
    exclusive(cache=cache, config=config)
    from contextlib import closing

    from ..cache import chunked, is_sound, open_cache
    from . import share
    from .sheet import Sheet

    path, sheet = cache_folder(cache, config), Sheet(as_json=as_json)
    added = known = damaged = 0
    try:
        with sheet.busy("reading rows"), closing(open_cache(path)) as store:
            for page in chunked(share.read(file.expanduser())):
                pairs = {key: row for key, row in filter(None, page) if is_sound(key, row)}
                there = {key for key, row in store.get_many(list(pairs)).items() if is_sound(key, row)}
                fresh = {key: row for key, row in pairs.items() if key not in there}
                if fresh:
                    store.put_many(fresh)
                damaged += sum(pair is None or not is_sound(*pair) for pair in page)
                known += len(there)
                added += len(fresh)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"{path} cannot be written ({error}). {added:,} rows were added before. Check its rights and the space on "
            "its disk, and import again: it does no harm."
        ) from error
    left = f", {damaged:,} damaged ones were left out" if damaged else ""
    sheet.line(f"{added:,} rows were added to {path}, {known:,} were there already{left}.")
    sheet.json({"folder": str(path), "file": str(file), "added": added, "known": known, "damaged": damaged})


@app.command("forget-index")
def forget_index(
    name: Annotated[str, typer.Argument(help="The name that was given as index=.")],
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="The cache folder; otherwise the user's.")] = None,
) -> None:
    """Forget which space an index is in, after it was emptied or embedded again."""
    from ..cache import default_folder
    from ..retrieval import FOLDER, forget

    space = forget((cache.expanduser() if cache else default_folder()) / FOLDER, name)
    print(f"Forgotten: the index {name!r} was in the space {space}. The next documents decide anew.")


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
