"""``embedrouter cache``: inspect and clean the cache folder and the records beside the vectors."""

import itertools
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from .._display import data_size
from ..cache import (
    CacheDatabase,
    ForeignRows,
    Records,
    StoredRow,
    StoreError,
    chunked,
    default_folder,
    is_sound,
    open_cache,
    without_password,
)
from ..errors import ConfigError
from ..redis import SERVERS, RedisState
from ..retrieval.index_guard import FOLDER, forget, recorded, users_folder
from ._console import Output, complain, say
from ._export import CacheRow, export_rows, import_rows
from ._options import AsJson, CachePlace, ConfigFile, Yes
from ._routers import cache_folder, cache_place
from ._signature import Signer, read_signer

DAY = 86_400.0

app = typer.Typer(no_args_is_help=True, help="Inspect and clean the cache, and the records beside it.")


@app.command("info")
def info(cache: CachePlace = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show the folder, the number and size of the rows of each model, and the recorded indexes."""
    database, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json)
    sizes = database.sizes() if database.exists else {}
    rows, size = (sum(sums) for sums in zip(*sizes.values(), strict=True)) if sizes else (0, 0)
    indexes = {name: str(space) for name, space in recorded(users_folder(), database.path / FOLDER).items()}
    on_disk = database.bytes_on_disk
    output.line(f"Cache: {database.path}{'' if database.exists else ' (does not exist yet)'}")
    free = database.free_bytes
    output.line(
        f"Rows: {rows:,}, {data_size(size)} of vectors, {data_size(on_disk)} on disk; "
        f"{'the folder may only be read' if database.is_read_only else f'{data_size(free)} are free'}"
    )
    for model, (own_rows, own_size) in sorted(sizes.items()):
        share = f"{data_size(own_size)}, about {data_size(on_disk * own_size // size)} on disk"
        output.line(f"Model {model or 'unknown'}: {own_rows:,} rows, {share}")
    for name, space in indexes.items():
        output.line(f"Index {name!r}: {space}")
    if not indexes:
        output.line("Indexes: none is recorded")
    facts = {"folder": database.path, "rows": rows, "bytes": size, "bytes_on_disk": on_disk, "indexes": indexes}
    facts |= {"free": free, "read_only": database.is_read_only}
    models = {name or "unknown": dict(zip(("rows", "bytes"), sums, strict=True)) for name, sums in sizes.items()}
    output.json({**facts, "models": models})


@app.command("verify")
def verify(
    cache: CachePlace = None,
    config: ConfigFile = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove damaged rows; the exit code is then 0.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read every row and verify its checksum. The exit code is 1 if a row is damaged.

    A damaged row gives no wrong vector: the router treats the row as missing and pays for its text again.
    """
    database, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json)
    if remove:
        database.require_writable()
    with output.busy("reading every row"):
        count = Counter(row.sound for row in database.rows())
        removed = _remove(database, (row for row in database.rows() if not row.sound)) if remove else 0
    total, damaged = count.total(), count[False]
    output.line(f"{total:,} rows, {damaged:,} damaged{f', {removed:,} removed' if remove else ''}: {database.path}")
    if damaged and not remove:
        output.line("The texts of damaged rows are paid for again when they are needed. Remove the rows with --remove.")
    facts = {"folder": database.path, "rows": total, "sound": count[True], "damaged": damaged}
    output.json({**facts, "removed": removed})
    if damaged > removed:
        raise typer.Exit(1)


@app.command("prune")
def prune(
    older_than: Annotated[float | None, typer.Option(metavar="DAYS", min=0, help="Rows written so long ago.")] = None,
    unused: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Rows neither written nor read for so long.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="MODEL", help="Rows of a model; may be repeated.")] = None,
    damaged: Annotated[bool, typer.Option("--damaged", help="Rows that fail their checksum, of any age.")] = False,
    cache: CachePlace = None,
    config: ConfigFile = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove rows, after a question. The text of a removed row is paid for again when needed.

    Of --older-than, --unused and --model all must hold of a row; --damaged is apart from them. Reads are noted once a
    day, so a row may count as unused a day early.
    """
    aged = older_than is not None or unused is not None or bool(model)
    if not aged and not damaged:
        raise typer.BadParameter("Name the rows to remove: --older-than DAYS, --unused DAYS, --model MODEL, --damaged.")
    database, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json, yes=yes)
    database.require_writable()
    now = time.time()
    marks = _marks(database, model) if model else None

    def selected() -> Iterator[StoredRow]:
        chosen = database.rows(
            stored_before=math.inf if older_than is None else now - older_than * DAY,
            used_before=math.inf if unused is None else now - unused * DAY,
            marks=marks,
        )
        return itertools.chain(
            chosen if aged else (), (row for row in database.rows() if not row.sound) if damaged else ()
        )

    with output.busy("reading rows"):
        sizes = {row.number: len(row.value) for row in selected()}
    size = sum(sizes.values())
    amount = f"{len(sizes):,} rows, {data_size(size)},"
    if sizes:
        question = f"{amount} are to be removed from {database.path}"
        output.require_agreement(question, "Nothing was removed. Agree with --yes.")
    with output.busy("removing rows"):
        removed = _remove(database, selected()) if sizes else 0
    output.line(f"{amount} were removed from {database.path}.")
    output.json({"folder": database.path, "removed": removed, "bytes": size})


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new .jsonl, .jsonl.gz or .parquet file.")],
    sign: Annotated[
        str | None, typer.Option("--sign", metavar="NAME", help="Sign each row with the key in this variable or file.")
    ] = None,
    cache: CachePlace = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write all sound rows to a file for import elsewhere. The file contains vectors, but no texts and no API keys."""
    signer = read_signer(sign)
    database, output = CacheDatabase(cache_folder(cache, config)), Output(as_json=as_json)
    count: Counter[bool] = Counter()

    def sound_rows() -> Iterator[CacheRow]:
        for row in database.rows():
            count[row.sound] += 1
            if row.sound:
                yield row.key, row.value

    with output.busy("writing rows"):
        export_rows(file.expanduser(), sound_rows(), signer)
    left = f"; {count[False]:,} damaged rows were left out" if count[False] else ""
    signed = ", signed" if signer else ""
    output.line(f"{count[True]:,} rows of {database.path} are in {file}{signed}{left}.")
    facts = {"folder": database.path, "file": file, "rows": count[True], "damaged": count[False]}
    output.json({**facts, "signed": signer is not None})


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file from embedrouter cache export.")],
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="NAME", help="Take only rows signed with the key in this variable or file."),
    ] = None,
    cache: CachePlace = None,
    config: ConfigFile = None,
    any_length: Annotated[
        bool, typer.Option("--any-length", help="Also take vectors whose length is unlike that of the others.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Add the rows of an exported file, to a folder or an address. Sound rows that are there stay unchanged.

    Every row is verified: its checksum, its numbers (finite, not all zero), and its length where all other vectors of
    as many dimensions have length 1. No check can find out which text a vector belongs to: import only files that you
    trust, or files that were exported with --sign, with --key.
    """
    place, output, signer = cache_place(cache, config), Output(as_json=as_json), read_signer(key)
    path = without_password(str(place))
    marks: list[str | None] = []

    def announce(mark: str | None) -> None:
        marks.append(mark)
        complain(_require_signature(file, mark, signer))

    added = known = damaged = unfit = 0
    try:
        with output.busy("reading rows"), closing(open_cache(place, SERVERS)) as store:
            known_values = _first_values(place) if isinstance(place, Path) else []
            foreign = ForeignRows(known_values, any_length=any_length)
            for number, page in enumerate(chunked(import_rows(file.expanduser(), signer, announce))):
                checked = [row for row in page if row is not None and foreign.is_sound(*row)]
                sound = dict(checked)
                if number == 0:
                    foreign.learn(sound.values())
                rows = {key: value for key, value in sound.items() if foreign.fits(value)}
                existing = {key for key, value in store.get_many(list(rows)).items() if is_sound(key, value)}
                store.put_many({key: value for key, value in rows.items() if key not in existing})
                damaged += len(page) - len(checked)
                unfit += len(sound) - len(rows)
                known += len(existing)
                added += len(rows) - len(existing)
    except (OSError, sqlite3.Error, StoreError) as error:
        raise ConfigError(
            f"{path} cannot be written ({error}). {added:,} rows were added before. Check its permissions and the "
            "free space, and import again: a second import adds no row twice."
        ) from error
    left = f", {damaged:,} damaged rows were left out" if damaged else ""
    output.line(f"{added:,} rows were added to {path}, {known:,} were there already{left}.")
    if unfit:
        output.line(
            f"{unfit:,} vectors were left out, because their length is unlike that of the others. If the file is from "
            "a source that you trust, and has vectors of another model, import again with --any-length."
        )
    facts = {"folder": path, "file": file, "added": added, "known": known, "damaged": damaged, "unfit": unfit}
    output.json({**facts, "signed": marks != [None], "checked": signer is not None})


@app.command("forget-index")
def forget_index(
    name: Annotated[str, typer.Argument(help="The name that was given as index=.")],
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="The cache folder; by default the user's.")] = None,
    state: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The Redis server of state=, if routers share one.")
    ] = None,
) -> None:
    """Remove the record of an index's space, after the index was emptied or embedded again.

    Records are in the user's data folder, and on the server of state=. Those that earlier versions kept in the cache
    folder are removed, too.
    """
    places: list[Path | Records] = [users_folder(), (cache.expanduser() if cache else default_folder()) / FOLDER]
    if state is not None:
        places.insert(0, RedisState(state).records(FOLDER))
    try:
        space = forget(name, *places)
    except OSError as error:
        raise ConfigError(f"The records cannot be read or removed ({error}).") from error
    say(f"Forgotten: the index {name!r} was in the space {space}. The next documents decide its space.")


def _require_signature(file: Path, mark: str | None, signer: Signer | None) -> str:
    """Return what is said of a file's signature before its rows are taken.

    Raises:
        ConfigError: a key is given, and the file is not signed with the key.
    """
    if signer is None:
        state = "signed, which is not checked without --key" if mark else "not signed"
        return f"{file} is {state}: its vectors are taken as they are. Import only files that you trust."
    if mark is None:
        raise ConfigError(f"{file} is not signed. Nothing was imported. Export it again with --sign.")
    if mark != signer.mark:
        raise ConfigError(
            f"{file} is signed with another key. Nothing was imported. Name the key that it was signed with."
        )
    return f"{file} is signed with this key."


def _marks(database: CacheDatabase, models: Iterable[str]) -> list[bytes]:
    """Return the marks of models in the keys of rows."""
    names = database.names()
    for model in models:
        if model not in names.values():
            known = ", ".join(sorted(set(names.values()))) or "none"
            raise typer.BadParameter(f"{database.path} has no rows of {model!r}, only of: {known}.")
    return [mark for mark, name in names.items() if name in models]


def _first_values(path: Path) -> list[bytes]:
    """Return the values of the folder's first rows, as far as they are sound."""
    database = CacheDatabase(path)
    rows = next(chunked(database.rows()), []) if database.exists else []
    return [row.value for row in rows if row.sound]


def _remove(database: CacheDatabase, rows: Iterable[StoredRow]) -> int:
    return sum(database.remove(page) for page in chunked(rows))
