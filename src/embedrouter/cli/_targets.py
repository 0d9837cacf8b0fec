"""Where ``embed`` writes: Parquet, JSON lines, .npy with the ids beside it, stdout, or a vector store.

A file is written beside its name and gets the name when it is whole. Vectors are written as the router gives them, to
the bit.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import typer

from .._display import counted, data_size, first_few, shown_name
from .._files import load_pyarrow
from ..errors import ConfigError
from ..retrieval.store_guard import metadata
from ..router import Router, wiring_of
from ..stores import MAKERS, StoredText, filling
from ..types import Vectors
from ._console import complain
from ._files import new_file, require_new
from ._texts import LocatedText

STDOUT = "-"
FILES = (".parquet", ".jsonl", ".jsonl.gz", ".npy")
JSON_BYTES = 20
"""Bytes of one number in JSON, about."""

Write: TypeAlias = Callable[[Sequence[LocatedText], Vectors], None]
"""Writes the texts and the vectors of one chunk."""


class Sink(NamedTuple):
    """Takes what is embedded."""

    write: Write
    begin: Callable[[], None] = lambda: None
    """Called when the user has agreed, before anything is paid."""


class Target(Protocol):
    """Opens where vectors are written."""

    def __call__(self, router: Router, texts: int) -> AbstractContextManager[Sink]:
        """Give what writes; what is written counts when the block ends without an error.

        Args:
            router: gives the vectors.
            texts: how many there are at most.
        """
        ...


def target(name: str, collection: str | None, *, replace: bool) -> Target:
    """Return what ``--to`` names.

    Raises:
        ConfigError: it is no file that is written, and no store.
    """
    if name == STDOUT:
        return _to_stdout
    suffix = next((suffix for suffix in FILES if name.lower().endswith(suffix)), None)
    if suffix is None:
        if ":" not in name and not Path(name).expanduser().exists():
            raise ConfigError(
                f"{shown_name(name)} is no store that is there, and no file that embed writes: {', '.join(FILES)}. A "
                f"new store is made by its kind: --to {', '.join(f'{kind}:{name}' for kind in MAKERS)}."
            )
        return lambda router, texts: _to_store(name, collection, router)
    if collection is not None:
        raise typer.BadParameter("--collection goes with a store.")
    path = Path(name).expanduser()
    require_new(path, replace=replace)
    return lambda router, texts: _to_file(path, suffix, router, texts, replace)


def is_file(name: str) -> bool:
    """Return whether ``--to`` names a file."""
    return name.lower().endswith(FILES)


# Files


@contextmanager
def _to_file(path: Path, suffix: str, router: Router, texts: int, replace: bool) -> Iterator[Sink]:
    with new_file(path, replace=replace) as part:
        candidate = wiring_of(router).candidates[0]
        number = np.dtype(candidate.number)
        size = texts * router.space.dimensions * (number.itemsize if ".jsonl" not in suffix else JSON_BYTES)
        if suffix == ".jsonl.gz":
            size //= 2
        if size > (free := shutil.disk_usage(path.parent).free):
            raise ConfigError(
                f"{path} takes about {data_size(size)} for {texts:,} vectors, and {data_size(free)} are free. Nothing "
                "was called. Free space on the disk, or name a file elsewhere."
            )
        writers = {".parquet": _parquet, ".npy": _npy}
        with writers.get(suffix, _lines)(part, path, router, number) as write:
            yield Sink(write)


@contextmanager
def _lines(part: Path, path: Path, router: Router, number: np.dtype[Any]) -> Iterator[Write]:
    if path.name.lower().endswith(".gz"):
        # without the time and the name of the part, so that equal vectors make equal files
        with part.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            yield lambda texts, vectors: _write_lines(packed, texts, vectors)
        return
    with part.open("wb") as file:
        yield lambda texts, vectors: _write_lines(file, texts, vectors)


def _write_lines(file: IO[bytes] | gzip.GzipFile, texts: Sequence[LocatedText], vectors: Vectors) -> None:
    for item, vector in zip(texts, vectors, strict=True):
        row = {"id": item.id or item.location, "location": item.location, "text": item.text, "vector": vector.tolist()}
        file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")


@contextmanager
def _parquet(part: Path, path: Path, router: Router, number: np.dtype[Any]) -> Iterator[Write]:
    arrow, parquet = load_pyarrow(".jsonl.gz")
    length = router.space.dimensions
    facts = {"embedrouter:model": ", ".join(dict.fromkeys(router.models)), **metadata(router)}
    schema = arrow.schema(
        [
            ("id", arrow.string()),
            ("location", arrow.string()),
            ("text", arrow.string()),
            ("vector", arrow.list_(arrow.from_numpy_dtype(number), length)),
        ],
        metadata={name: str(value) for name, value in facts.items()},
    )
    with parquet.ParquetWriter(part, schema) as writer:

        def write(texts: Sequence[LocatedText], vectors: Vectors) -> None:
            numbers = arrow.array(np.ascontiguousarray(vectors, number).reshape(-1))
            columns = [
                arrow.array([item.id or item.location for item in texts], arrow.string()),
                arrow.array([item.location for item in texts], arrow.string()),
                arrow.array([item.text for item in texts], arrow.string()),
                arrow.FixedSizeListArray.from_arrays(numbers, length),
            ]
            writer.write_batch(arrow.record_batch(columns, schema=schema))

        yield write


@contextmanager
def _npy(part: Path, path: Path, router: Router, number: np.dtype[Any]) -> Iterator[Write]:
    """Write the array, and the ids in its order into ``NAME.ids.jsonl``."""
    count, length = 0, router.space.dimensions
    with new_file(ids_beside(path), replace=True) as ids, ids.open("wb") as names, part.open("wb") as file:
        file.write(_npy_header(0, length, number))

        def write(texts: Sequence[LocatedText], vectors: Vectors) -> None:
            nonlocal count
            count += len(texts)
            file.write(np.ascontiguousarray(vectors, number).tobytes())
            for item in texts:
                row = {"id": item.id or item.location, "location": item.location, "text": item.text}
                names.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

        yield write
        file.seek(0)
        file.write(_npy_header(count, length, number))


def _npy_header(count: int, length: int, number: np.dtype[Any]) -> bytes:
    """Return the header of an array, of one size for all numbers of rows: numpy leaves room for their digits."""
    file = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(number), "fortran_order": False, "shape": (count, length)}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.getvalue()


def ids_beside(path: Path) -> Path:
    """Return the file with the ids of a .npy file."""
    return path.with_name(f"{path.stem}.ids.jsonl")


# Stdout and stores


@contextmanager
def _to_stdout(router: Router, texts: int) -> Iterator[Sink]:
    def write(items: Sequence[LocatedText], vectors: Vectors) -> None:
        _write_lines(sys.stdout.buffer, items, vectors)
        sys.stdout.flush()

    yield Sink(write)


@contextmanager
def _to_store(name: str, collection: str | None, router: Router) -> Iterator[Sink]:
    seen: set[int] = set()
    repeated: list[str] = []
    with filling(name, collection, router) as store:

        def write(texts: Sequence[LocatedText], vectors: Vectors) -> None:
            rows: dict[str, tuple[LocatedText, Any]] = {}
            for item, vector in zip(texts, vectors, strict=True):
                own = item.id or item.location
                if hash(own) in seen:
                    repeated.append(own)
                seen.add(hash(own))
                rows[own] = item, vector
            kept = [StoredText(name, one.text, one.text, {"source": one.location}) for name, (one, _) in rows.items()]
            store.put(kept, np.asarray([vector for _, vector in rows.values()], np.float32))

        yield Sink(write, store.begin)
    if repeated:
        complain(
            f"{counted(len(repeated), 'text')} had the id of an earlier one ({first_few(repeated)}): the store has the "
            "last of each. Name a field whose values differ: --id FIELD."
        )
