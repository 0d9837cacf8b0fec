"""Export and import of cache rows: JSON lines, gzipped or not, or Parquet.

A row is exported as stored in the cache, header and checksum included: the file contains vectors, but no texts and no
API keys. The first JSON line, or the metadata of the Parquet schema, names the format and its version, and the key's
mark where the rows are signed.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal, TypeAlias, cast

from .._files import load_pyarrow
from ..cache import CHUNK_ROWS, chunked
from ..errors import ConfigError
from ._files import new_file
from ._signature import Signer

FORMAT = "embedrouter-cache"
VERSION = 1
HEADER = {"format": FORMAT, "version": VERSION}
MARK = "signed"
"""The field of the header that has the mark of the key."""
LINES = ".jsonl.gz"
SUFFIXES = (".jsonl", LINES, ".parquet")
MAX_LINE = 2**22
"""Bytes: more than the longest row takes."""

CacheRow: TypeAlias = tuple[bytes, bytes]
"""A key and its value."""
SignedRow: TypeAlias = tuple[bytes, bytes, object]
"""A key, its value, and what stands in the place of the signature."""


def export_rows(path: Path, rows: Iterable[CacheRow], signer: Signer | None = None) -> None:
    """Write rows to a new file, signed where there is a signer. After a failure no file is left.

    Raises:
        ConfigError: the file exists, cannot be written, or has an unknown suffix.
    """
    write = _write_parquet if _suffix(path) == ".parquet" else _write_lines
    with new_file(path) as part:
        write(part, rows, signer)


def import_rows(
    path: Path, signer: Signer | None = None, announce: Callable[[str | None], object] = lambda mark: None
) -> Iterator[CacheRow | None]:
    """Return the rows of a file; ``None`` for a row that cannot be parsed. Vectors are not verified.

    Args:
        path: the file.
        signer: checks each row's signature.
        announce: is called before the first row, with the mark of the key that the file says it is signed with.

    Raises:
        ConfigError: the file cannot be read, ``export_rows`` did not write the file, or a signature is wrong.
    """
    read = _read_parquet if _suffix(path) == ".parquet" else _read_lines
    try:
        for row in read(path, announce):
            if row is not None and signer is not None and not signer.is_own(*row):
                raise ConfigError(
                    f"{path} was changed after it was signed: a row has a wrong signature. That row was not "
                    "imported, and none after it. Get the file again."
                )
            yield None if row is None else row[:2]
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


def _write_lines(path: Path, rows: Iterable[CacheRow], signer: Signer | None) -> None:
    with _open_lines(path, "wb") as file:
        file.write(_line(HEADER | ({MARK: signer.mark} if signer else {})))
        for key, value in rows:
            fields = {"key": key.hex(), "row": base64.b64encode(value).decode()}
            file.write(_line(fields | ({"signature": signer.sign(key, value).hex()} if signer else {})))


def _line(content: object) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _read_lines(path: Path, announce: Callable[[str | None], object]) -> Iterator[SignedRow | None]:
    with _open_lines(path, "rb") as file:
        first: object = None
        with suppress(ValueError, RecursionError):
            first = json.loads(file.readline(MAX_LINE))
        mark = first.pop(MARK, None) if isinstance(first, dict) else None
        if first != HEADER or not isinstance(mark, str | None):
            raise _unknown_format(path)
        announce(mark)
        while line := file.readline(MAX_LINE):
            try:
                fields = json.loads(line)
                signature = bytes.fromhex(fields.get("signature", ""))
                yield bytes.fromhex(fields["key"]), base64.b64decode(fields["row"], validate=True), signature
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                yield None


# Parquet


def _write_parquet(path: Path, rows: Iterable[CacheRow], signer: Signer | None) -> None:
    arrow, parquet = load_pyarrow(LINES)
    names = ["key", "row", *(["signature"] if signer else [])]
    header = {FORMAT: str(VERSION), **({MARK: signer.mark} if signer else {})}
    schema = arrow.schema([(name, arrow.binary()) for name in names], metadata=header)
    with parquet.ParquetWriter(path, schema) as writer:
        for page in chunked(rows):
            signed = [(*row, signer.sign(*row)) if signer else row for row in page]
            columns = [arrow.array(column) for column in zip(*signed, strict=True)]
            writer.write_batch(arrow.record_batch(columns, schema=schema))


def _read_parquet(path: Path, announce: Callable[[str | None], object]) -> Iterator[SignedRow | None]:
    arrow, parquet = load_pyarrow(LINES)
    with path.open("rb") as opened:
        try:
            file = parquet.ParquetFile(opened)
            header = file.schema_arrow.metadata or {}
            if header.get(FORMAT.encode()) != str(VERSION).encode():
                raise _unknown_format(path)
            mark = header.get(MARK.encode())
            announce(None if mark is None else mark.decode("ascii", "replace"))
            for page in file.iter_batches(CHUNK_ROWS, columns=["key", "row", "signature"]):
                for row in page.to_pylist():
                    valid = isinstance(row.get("key"), bytes) and isinstance(row.get("row"), bytes)
                    yield (row["key"], row["row"], row.get("signature")) if valid else None
        except arrow.ArrowInvalid as error:
            raise _unknown_format(path) from error
