"""``embedrouter cache``: inspect and clean the cache folder and the records beside the vectors."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from ..cache import CacheDatabase, StoredRow, chunked, default_folder, is_sound, open_cache
from ..errors import ConfigError
from ..retrieval import FOLDER, forget, recorded
from ._console import Output
from ._export import CacheRow, export_rows, import_rows
from ._options import AsJson, CacheFolder, ConfigFile, Yes
from ._routers import cache_folder

app = typer.Typer(no_args_is_help=True)

DAY = 86400.0
"""Seconds."""


@app.callback()
def group() -> None:
    """Inspect and clean the cache, and the records beside it."""


@app.command("info")
def info(cache: CacheFolder = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show the folder, the number and size of the rows, and the recorded indexes."""
    folder, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json)
    rows, size = folder.size() if folder.exists else (0, 0)
    indexes = {name: str(space) for name, space in recorded(folder.path / FOLDER).items()}
    output.line(f"CacheDatabase: {folder.path}{'' if folder.exists else ' (does not exist yet)'}")
    output.line(f"Rows: {rows:,}, {_format_size(size)} of vectors, {_format_size(folder.bytes_on_disk)} on disk")
    for name, space in indexes.items():
        output.line(f"Index {name!r}: {space}")
    if not indexes:
        output.line("Indexes: none is recorded")
    sizes = {"rows": rows, "bytes": size, "bytes_on_disk": folder.bytes_on_disk}
    output.json({"folder": str(folder.path), **sizes, "indexes": indexes})


@app.command("verify")
def verify(
    cache: CacheFolder = None,
    config: ConfigFile = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove damaged rows; the exit code is then 0.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every row and verify its checksum. The exit code is 1 if a row is damaged.

    A damaged row gives no wrong vector: the router treats the row as missing and pays for its text again.
    """
    folder, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json)
    total = damaged = removed = 0
    with output.busy("reading every row"):
        for page in chunked(folder.rows()):
            bad = [row for row in page if not row.sound]
            total += len(page)
            damaged += len(bad)
            if remove and bad:
                removed += folder.remove(bad)
    output.line(f"{total:,} rows, {damaged:,} damaged{f', {removed:,} removed' if remove else ''}: {folder.path}")
    if damaged and not remove:
        output.line("The texts of damaged rows are paid for again when they are needed. Remove the rows with --remove.")
    facts = {"folder": str(folder.path), "rows": total, "sound": total - damaged, "damaged": damaged}
    output.json({**facts, "removed": removed})
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
    """Remove old or damaged rows, after a question. The text of a removed row is paid for again when needed."""
    if older_than is None and not damaged:
        raise typer.BadParameter("Name the rows to remove: --older-than DAYS, --damaged, or both.")
    folder, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json)
    before = None if older_than is None else time.time() - older_than * DAY

    def selected() -> Iterator[StoredRow]:
        # damage can be in every row, age is selected by the database
        for row in folder.rows(None if damaged else before):
            if (before is not None and row.stored < before) or (damaged and not row.sound):
                yield row

    count = size = 0
    with output.busy("reading rows"):
        for row in selected():
            count += 1
            size += len(row.value)
    question = f"{count:,} rows, {_format_size(size)}, are to be removed from {folder.path}"
    if count:
        output.require_agreement(question, "Nothing was removed. Agree with --yes.", yes=yes)
    removed = 0
    with output.busy("removing rows"):
        for page in chunked(selected()) if count else ():
            removed += folder.remove(page)
    output.line(f"{removed:,} rows, {_format_size(size)}, were removed from {folder.path}.")
    output.json({"folder": str(folder.path), "removed": removed, "bytes": size})


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new .jsonl, .jsonl.gz or .parquet file.")],
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write all sound rows to a file for import elsewhere. The file contains vectors, but no texts and no API keys."""
    folder, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json)
    damaged = 0

    def sound_rows() -> Iterator[CacheRow]:
        nonlocal damaged
        for row in folder.rows():
            if row.sound:
                yield row.key, row.value
            else:
                damaged += 1

    with output.busy("writing rows"):
        count = export_rows(file.expanduser(), sound_rows())
    left = f"; {damaged:,} damaged rows were left out" if damaged else ""
    output.line(f"{count:,} rows of {folder.path} are in {file}{left}.")
    output.json({"folder": str(folder.path), "file": str(file), "rows": count, "damaged": damaged})


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file from embedrouter cache export.")],
    cache: CacheFolder = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Add the rows of an exported file. Sound rows of the folder stay unchanged.

    Every row is verified, but no check can find out which text a vector belongs to: import only files that you trust.
    """
    path, output = cache_folder(cache, config), Output(as_json=as_json)
    store = open_cache(path)
    assert store is not None, "a folder was named"
    added = known = damaged = 0
    try:
        with output.busy("reading rows"), closing(store):
            for page in chunked(import_rows(file.expanduser())):
                rows = {key: value for key, value in filter(None, page) if is_sound(key, value)}
                existing = {key for key, value in store.get_many(list(rows)).items() if is_sound(key, value)}
                new = {key: value for key, value in rows.items() if key not in existing}
                if new:
                    store.put_many(new)
                damaged += sum(row is None or not is_sound(*row) for row in page)
                known += len(existing)
                added += len(new)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"{path} cannot be written ({error}). {added:,} rows were added before. Check the folder's permissions and "
            "the free disk space, and import again: a second import adds no row twice."
        ) from error
    left = f", {damaged:,} damaged rows were left out" if damaged else ""
    output.line(f"{added:,} rows were added to {path}, {known:,} were there already{left}.")
    output.json({"folder": str(path), "file": str(file), "added": added, "known": known, "damaged": damaged})


@app.command("forget-index")
def forget_index(
    name: Annotated[str, typer.Argument(help="The name that was given as index=.")],
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="The cache folder; by default the user's.")] = None,
) -> None:
    """Remove the record of an index's space, after the index was emptied or embedded again."""
    space = forget((cache.expanduser() if cache else default_folder()) / FOLDER, name)
    print(f"Forgotten: the index {name!r} was in the space {space}. The next documents decide its space.")


def _format_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
