"""The rows of files that hold many texts: lines, JSON, tables. One row is in memory, of Parquet a few hundred."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from shutil import copyfileobj
from typing import BinaryIO

from ._formats import MAX_PART_SIZE, FileProblemError, Row
from ._pyarrow import load_pyarrow

STEP = 65_536
"""Characters of a JSON list read at once."""
PARQUET_ROWS = 500
MAX_CELL = 16_000_000
"""Characters of one cell of a table: a quotation mark without its partner takes the rest of the file."""
BLANK = " \t\r\n"


def read_lines(file: BinaryIO) -> Iterator[Row]:
    """Return the lines that are not blank, without their ends; a byte order mark is dropped."""
    number = 0
    while line := file.readline(MAX_PART_SIZE + 1):
        number += 1
        if len(line) > MAX_PART_SIZE:
            raise FileProblemError("a line that is too long", f"line {number}")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            yield Row(number, "line", None, "not UTF-8 text")
        else:
            if "\0" in text:
                yield Row(number, "line", None, "not text")
            elif text.strip():
                yield Row(number, "line", text)


def read_json_lines(file: BinaryIO) -> Iterator[Row]:
    """Return the values of JSON lines."""
    for row in read_lines(file):
        if row.problem:
            yield row
            continue
        try:
            yield Row(row.number, "line", json.loads(str(row.value)))
        except (ValueError, RecursionError) as error:
            yield Row(row.number, "line", None, _json_problem(error))


def read_json(file: BinaryIO, path: Sequence[str]) -> Iterator[Row]:
    """Return the elements of a list, one after the other, or of the list in an object, or the object itself.

    Args:
        path: the field with the text; where it leads through the lists of an object, the object is one row.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig")
    try:
        start = text.read(STEP)
        if start.lstrip(BLANK).startswith("["):
            yield from _list_elements(start, text)
            return
        whole = start + text.read(MAX_PART_SIZE)
        if len(whole) > MAX_PART_SIZE:
            raise FileProblemError("a large JSON object", hint="Write a list, or JSON lines.")
        value = json.loads(whole)
    except UnicodeDecodeError:
        raise FileProblemError("not UTF-8 text", hint="Convert the file to UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise FileProblemError("no JSON", hint=_json_problem(error)) from None
    finally:
        text.detach()
    yield from _rows_of(value, path)


def _rows_of(value: object, path: Sequence[str]) -> Iterator[Row]:
    if not isinstance(value, dict):
        yield Row(1, "row", value)
        return
    lists = [key for key, inside in value.items() if isinstance(inside, list)]
    if path[0] in value or not lists:
        yield Row(1, "row", value)
    elif len(lists) > 1:
        names = ", ".join(map(repr, lists[:10]))
        raise FileProblemError(
            f"a JSON object with several lists, {names}", hint=f"Choose one: --field {lists[0]}.*.text."
        )
    else:
        yield from (Row(number, "row", element) for number, element in enumerate(value[lists[0]], 1))


def _list_elements(buffer: str, file: io.TextIOWrapper) -> Iterator[Row]:
    """Decode the elements of a list while it is read."""
    decoder = json.JSONDecoder()
    number, step = 0, STEP
    position = buffer.index("[") + 1
    while True:
        position = _skip_blanks(buffer, position)
        separator = buffer[position : position + 1]
        if separator == "]":
            break
        begin = position
        if number and separator == ",":
            begin = _skip_blanks(buffer, position + 1)
        elif number and separator:
            raise FileProblemError("broken JSON", f"row {number + 1}")
        try:
            value, end = decoder.raw_decode(buffer, begin)
            complete = end < len(buffer)  # a number at the end of the buffer may go on
        except RecursionError:
            raise FileProblemError("JSON that is nested too deeply", f"row {number + 1}") from None
        except ValueError:
            complete = False
        if complete:
            number += 1
            yield Row(number, "row", value)
            position = end
            continue
        more = file.read(step)
        if not more or len(buffer) - position > MAX_PART_SIZE:
            raise FileProblemError("broken JSON", f"row {number + 1}")
        buffer, position = buffer[position:] + more, 0
        step = max(STEP, len(buffer))  # an element is decoded again at most so often as its length doubles


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in BLANK:
        position += 1
    return position


def _json_problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "JSON that is nested too deeply"
    return "broken JSON" if isinstance(error, json.JSONDecodeError) else "JSON with a number that is too long"


# Tables


def read_table(file: BinaryIO, columns: Iterable[str], *, tabs: bool = False) -> Iterator[Row]:
    """Return the rows of a table by column; the first line names the columns.

    Commas are between cells, or semicolons where the first line has these alone, or ``tabs``.

    Raises:
        FileProblemError: the first line names none of the columns.
    """
    csv.field_size_limit(MAX_CELL)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        first = text.readline(MAX_CELL)
        delimiter = "\t" if tabs else ";" if ";" in first and "," not in first else ","
        reader = csv.reader(chain([first], text), delimiter=delimiter, strict=True)
        names: list[str] = []
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                if not names:
                    raise FileProblemError("no table", f"line {number}", str(error)) from None
                yield Row(number, "line", None, f"a broken row ({error})")
                continue
            if cells is None:
                return
            if not cells:
                continue
            if not names:
                names = cells
                _require_columns(names, columns)
            elif len(cells) != len(names):
                yield Row(number, "line", None, f"{len(cells)} cells under {len(names)} columns")
            elif problem := _not_text("".join(cells)):
                yield Row(number, "line", None, problem)
            else:
                yield Row(number, "line", dict(zip(names, cells, strict=True)))
    finally:
        text.detach()


def _not_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not UTF-8 text"
    return "not text" if "\0" in text else ""


def read_parquet(file: BinaryIO, columns: Iterable[str]) -> Iterator[Row]:
    """Return the rows of a Parquet file, with the named columns alone.

    Raises:
        ConfigError: pyarrow is not installed.
        FileProblemError: the file is no Parquet file, or has none of the columns.
    """
    arrow, parquet = load_pyarrow("JSON lines")
    with tempfile.TemporaryFile() as copy:
        if isinstance(file, gzip.GzipFile):  # whose every step back decompresses from the beginning
            copyfileobj(file, copy)
            file = copy
        try:
            table = parquet.ParquetFile(file)
            names = [field.name for field in table.schema_arrow]
            _require_columns(names, columns)
            wanted = [name for name in names if name in columns]
            number = 0
            for batch in table.iter_batches(batch_size=PARQUET_ROWS, columns=wanted):
                for value in batch.to_pylist():
                    number += 1
                    yield Row(number, "row", value)
        except (arrow.ArrowException, ValueError) as error:
            raise FileProblemError("no Parquet file", hint=str(error).partition("\n")[0][:200]) from None


def _require_columns(names: Sequence[str], columns: Iterable[str]) -> None:
    if not any(name in columns for name in names):
        there = ", ".join(map(repr, names[:20])) or "none"
        wanted = next(iter(columns))
        raise FileProblemError(f"no column {wanted!r}", hint=f"Columns there: {there}. Choose with --field.")
