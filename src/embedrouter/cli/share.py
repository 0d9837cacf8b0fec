"""Cache rows as a file that a team can share: JSON lines, gzipped or not, or Parquet.

A row travels as it lies in the cache, header and checksum included, so the file holds vectors and neither texts nor
keys of providers. The first JSON line, or the Parquet schema's metadata, names the format and its version. On the way
in every row is checked as the router checks it.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from ..cache import CHUNK_ROWS, chunked
from ..errors import ConfigError

__all__ = ["KINDS", "Pair", "read", "write"]

FORMAT = "embedrouter-cache"
VERSION = 1
KINDS = (".jsonl", ".jsonl.gz", ".parquet")
LONGEST = 2**22
"""Characters of a line: no row is as long."""

Pair: TypeAlias = tuple[bytes, bytes]
"""A key and its row."""


def write(path: Path, pairs: Iterable[Pair]) -> int:
    """Write rows to a new file and return how many; if that fails no file is left.

    Raises:
        ConfigError: the file exists, cannot be written, or its name says no known format.
    """
    put = _put_parquet if _kind(path) == ".parquet" else _put_lines
    part = path.with_name(f".{path.name}.part")
    try:
        if path.exists():
            raise ConfigError(f"{path} exists already. Choose another name, or remove it first.")
        try:
            count = put(part, path.name.endswith(".gz"), pairs)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}). Check the path and the space left.") from error
    return count


def read(path: Path) -> Iterator[Pair | None]:
    """Return the rows of a file, unchecked; ``None`` for one that cannot be understood.

    Raises:
        ConfigError: the file cannot be read or is not one that ``write`` wrote.
    """
    get = _get_parquet if _kind(path) == ".parquet" else _get_lines
    try:
        yield from get(path)
    except OSError as error:  # gzip's own errors too
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}). Check the path.") from error
    except (EOFError, zlib.error) as error:
        raise ConfigError(
            f"{path} is cut short or damaged. Its beginning was imported. Get the file again: importing twice does "
            "no harm."
        ) from error


def _kind(path: Path) -> str:
    kind = next((kind for kind in KINDS if path.name.endswith(kind)), None)
    if kind is None:
        raise ConfigError(f"The name {path.name!r} says no format. Let it end in {', '.join(KINDS)}.")
    return kind


def _foreign(path: Path) -> ConfigError:
    return ConfigError(f"{path} is not a file that embedrouter cache export wrote, or a newer version wrote it.")


# JSON lines


def _put_lines(path: Path, zipped: bool, pairs: Iterable[Pair]) -> int:
    count = 0
    with gzip.open(path, "wt", encoding="ascii") if zipped else path.open("w", encoding="ascii") as file:
        file.write(json.dumps({"format": FORMAT, "version": VERSION}) + "\n")
        for key, row in pairs:
            file.write(json.dumps({"key": key.hex(), "row": base64.b64encode(row).decode()}) + "\n")
            count += 1
    return count


def _get_lines(path: Path) -> Iterator[Pair | None]:
    with cast(IO[bytes], gzip.open(path, "rb")) if path.name.endswith(".gz") else path.open("rb") as file:
        first: object = None
        with suppress(ValueError):
            first = json.loads(file.readline(LONGEST))
        if first != {"format": FORMAT, "version": VERSION}:
            raise _foreign(path)
        while line := file.readline(LONGEST):
            try:
                fields = json.loads(line)
                yield bytes.fromhex(fields["key"]), base64.b64decode(fields["row"], validate=True)
            except (ValueError, KeyError, TypeError, binascii.Error):
                yield None


# Parquet


def _put_parquet(path: Path, _: bool, pairs: Iterable[Pair]) -> int:
    arrow, parquet = _arrow()
    schema = arrow.schema(
        [("key", arrow.binary()), ("row", arrow.binary())], metadata={FORMAT.encode(): str(VERSION).encode()}
    )
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for page in chunked(pairs):
            keys, rows = zip(*page, strict=True)
            writer.write_batch(arrow.record_batch([arrow.array(keys), arrow.array(rows)], schema=schema))
            count += len(page)
    return count


def _get_parquet(path: Path) -> Iterator[Pair | None]:
    arrow, parquet = _arrow()
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened)
            if (file.schema_arrow.metadata or {}).get(FORMAT.encode()) != str(VERSION).encode():
                raise _foreign(path)
            for page in file.iter_batches(CHUNK_ROWS, columns=["key", "row"]):
                for pair in page.to_pylist():
                    known = isinstance(pair.get("key"), bytes) and isinstance(pair.get("row"), bytes)
                    yield (pair["key"], pair["row"]) if known else None
        except arrow.ArrowInvalid as error:
            raise _foreign(path) from error


def _arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            f"Parquet files need {error.name or 'pyarrow'}, which is not installed. "
            "Run: pip install 'embedrouter[parquet]'; or use .jsonl.gz, which needs nothing."
        ) from error
