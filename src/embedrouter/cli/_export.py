"""Export and import of cache rows: JSON lines, gzipped or not, or Parquet.

A row is exported as stored in the cache, header and checksum included: the file contains vectors, but no texts and no
API keys. The first JSON line, or the metadata of the Parquet schema, names the format and its version.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal, TypeAlias, cast

from ..cache import CHUNK_ROWS, chunked
from ..errors import ConfigError
from ._files import load_pyarrow, new_file

FORMAT = "embedrouter-cache"
VERSION = 1
HEADER = {"format": FORMAT, "version": VERSION}
LINES = ".jsonl.gz"
SUFFIXES = (".jsonl", LINES, ".parquet")
MAX_LINE = 2**22
"""Bytes: more than the longest row takes."""

CacheRow: TypeAlias = tuple[bytes, bytes]
"""A key and its value."""


def export_rows(path: Path, rows: Iterable[CacheRow]) -> None:
    """Write rows to a new file. After a failure no file is left.

    Raises:
        ConfigError: the file exists, cannot be written, or has an unknown suffix.
    """
    write = _write_parquet if _suffix(path) == ".parquet" else _write_lines
    with new_file(path) as part:
        write(part, rows)


def import_rows(path: Path) -> Iterator[CacheRow | None]:
    """Return the rows of a file, not verified; ``None`` for a row that cannot be parsed.

    Raises:
        ConfigError: the file cannot be read, or ``export_rows`` did not write the file.
    """
    read = _read_parquet if _suffix(path) == ".parquet" else _read_lines
    try:
        yield from read(path)
    except OSError as error:  # and gzip's own errors
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}). Check the path.") from error
    except (EOFError, zlib.error) as error:
        raise ConfigError(
            f"{path} is truncated or damaged. Its beginning was imported. Get the file again and repeat: a second "
            "import adds no row twice."
        ) from error


def _suffix(path: Path) -> str:
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(f"The format of {path.name!r} is unknown. Choose a name that ends in {', '.join(SUFFIXES)}.")
    return suffix


def _unknown_format(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} was written by a newer version, or not by embedrouter cache export. Export the rows again."
    )


# JSON lines


def _open_lines(path: Path, mode: Literal["rb", "wb"]) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, mode)) if path.name.endswith(".gz") else path.open(mode)


def _write_lines(path: Path, rows: Iterable[CacheRow]) -> None:
    with _open_lines(path, "wb") as file:
        file.write(_line(HEADER))
        file.writelines(_line({"key": key.hex(), "row": base64.b64encode(value).decode()}) for key, value in rows)


def _line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _read_lines(path: Path) -> Iterator[CacheRow | None]:
    with _open_lines(path, "rb") as file:
        first: object = None
        with suppress(ValueError):
            first = json.loads(file.readline(MAX_LINE))
        if first != HEADER:
            raise _unknown_format(path)
        while line := file.readline(MAX_LINE):
            try:
                fields = json.loads(line)
                yield bytes.fromhex(fields["key"]), base64.b64decode(fields["row"], validate=True)
            except (ValueError, KeyError, TypeError):
                yield None


# Parquet


def _write_parquet(path: Path, rows: Iterable[CacheRow]) -> None:
    arrow, parquet = load_pyarrow(LINES)
    schema = arrow.schema(
        [("key", arrow.binary()), ("row", arrow.binary())], metadata={FORMAT.encode(): str(VERSION).encode()}
    )
    with parquet.ParquetWriter(path, schema) as writer:
        for page in chunked(rows):
            keys, values = zip(*page, strict=True)
            writer.write_batch(arrow.record_batch([arrow.array(keys), arrow.array(values)], schema=schema))


def _read_parquet(path: Path) -> Iterator[CacheRow | None]:
    arrow, parquet = load_pyarrow(LINES)
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened)
            if (file.schema_arrow.metadata or {}).get(FORMAT.encode()) != str(VERSION).encode():
                raise _unknown_format(path)
            for page in file.iter_batches(CHUNK_ROWS, columns=["key", "row"]):
                for row in page.to_pylist():
                    valid = isinstance(row.get("key"), bytes) and isinstance(row.get("row"), bytes)
                    yield (row["key"], row["row"]) if valid else None
        except arrow.ArrowInvalid as error:
            raise _unknown_format(path) from error
