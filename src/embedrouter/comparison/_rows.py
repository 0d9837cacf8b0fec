"""Rows of what people have, each with its location: files of every format, several such files, objects in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from .._display import escaped, shown_name
from .._files import (
    FileProblemError,
    Row,
    format_of,
    opened,
    read_document,
    read_json,
    read_json_lines,
    read_lines,
    read_parquet,
    read_table,
)
from ..errors import ConfigError

START = 65_536
"""Bytes that are looked at to find out what a file holds."""
MAX_OBJECT = 1_000_000_000
"""Bytes of a JSON object, which is read as a whole."""


@dataclass(frozen=True, slots=True)
class LocatedRow:
    """One row: a text, an object with fields, or the cells of a line."""

    location: str
    value: object
    id: str = ""
    """The key under which the row was found."""


def rows(source: Any, columns: Iterable[str]) -> Iterator[LocatedRow]:
    """Yield the rows of paths or of an object in memory.

    Args:
        source: paths; or a mapping of rows by id, or any iterable of rows.
        columns: those that may be needed of a table.

    Raises:
        ConfigError: a file or a row cannot be read; the message has its location and the next action.
    """
    if isinstance(source, Mapping):
        yield from (LocatedRow(f"the entry {shown_name(key)}", value, str(key)) for key, value in source.items())
    elif is_paths(source):
        for path in source:
            yield from _file_rows(path, list(columns))
    elif isinstance(source, Iterable) and not isinstance(source, str | bytes):
        yield from (LocatedRow(f"position {position}", _as_row(value)) for position, value in enumerate(source))
    else:
        raise ConfigError(f"{type(source).__name__} holds no texts. Pass a path, a mapping of texts by id, or a list.")


def _as_row(value: Any) -> object:
    """Return a document of LangChain or a node of LlamaIndex as an object with fields, and anything else as it is."""
    if hasattr(value, "page_content"):
        return {"id": getattr(value, "id", None), "text": value.page_content}
    if hasattr(value, "node_id") and hasattr(value, "get_content"):
        return {"id": value.node_id, "text": value.get_content(metadata_mode="embed")}
    return value


def is_paths(source: object) -> bool:
    """Return whether this is a list of paths."""
    return isinstance(source, list) and bool(source) and all(isinstance(path, Path) for path in source)


def _file_rows(path: Path, columns: Sequence[str]) -> Iterator[LocatedRow]:
    name = shown_path(path)
    with _told(path):
        for row in _rows_by_format(path, columns):
            if isinstance(row, LocatedRow):
                yield row
                continue
            location = f"{name}, {row.unit} {row.number}"
            if row.problem:
                raise ConfigError(f"{location}: {row.problem}. Mend or remove it, and run this again.")
            yield LocatedRow(location, row.value)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise what is wrong with a file as a sentence with its path."""
    try:
        yield
    except FileProblemError as problem:
        where = f", {problem.where}" if problem.where else ""
        hint = problem.hint.rstrip(".") or "Check the file"
        raise ConfigError(f"{shown_path(path)}{where}: {problem}. {escaped(hint)}.") from problem


def _rows_by_format(path: Path, columns: Sequence[str]) -> Iterator[Row | LocatedRow]:
    format = format_of(path)
    if format in ("html", "ipynb"):
        raise FileProblemError(f"a .{format} file is one text", hint="Write JSON lines, CSV or Parquet.")
    if format == "json":
        yield from _json_rows(path)
        return
    with opened(path) as content:
        if format == "jsonl":
            yield from read_json_lines(content)
        elif format == "parquet":
            yield from read_parquet(content, columns)
        elif format == "tsv" and _has_no_heading(path, columns):
            yield from _pairs(read_lines(content))
        elif format in ("csv", "tsv"):
            yield from read_table(content, columns, tabs=format == "tsv")
        else:
            yield from read_lines(content)


def _has_no_heading(path: Path, columns: Sequence[str]) -> bool:
    """Return whether a file has an id and a text in each line, as MS MARCO's, and no names of columns."""
    with opened(path) as content:
        first = content.readline(START).decode("utf-8-sig", "replace").rstrip("\r\n").split("\t")
    return len(first) == 2 and not any(name in columns for name in first)


def _pairs(lines: Iterable[Row]) -> Iterator[Row | LocatedRow]:
    for row in lines:
        id, tab, text = str(row.value).partition("\t")
        if row.problem or not tab:
            yield Row(row.number, "line", None, row.problem or "no tab between an id and a text")
        else:
            yield Row(row.number, "line", {"id": id, "text": text})


# JSON


def _json_rows(path: Path) -> Iterator[Row | LocatedRow]:
    """Return the elements of a list, the entries of an object of texts by id, or the lines of JSON lines."""
    with opened(path) as content:
        is_object = content.read(START).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    found = read_json_file(path) if is_object else None
    if isinstance(found, Mapping):
        yield from _entries(path, found)
        return
    with opened(path) as content:
        yield from read_json_lines(content) if is_object else read_json(content, ["text"])


def _entries(path: Path, found: Mapping[str, Any]) -> Iterator[Row | LocatedRow]:
    lists = [value for value in found.values() if isinstance(value, list)]
    if len(lists) == 1:
        yield from (Row(number, "row", value) for number, value in enumerate(lists[0], 1))
    elif lists:
        names = ", ".join(shown_name(name) for name in list(found)[:10])
        raise FileProblemError(f"an object with several lists ({names})", hint="Write the one with the texts alone.")
    else:
        name = shown_path(path)
        yield from (LocatedRow(f"{name}, {shown_name(key)}", value, key) for key, value in found.items())


def read_json_file(path: Path) -> object:
    """Return what a JSON file holds; ``None`` for one that holds several values, one after the other.

    Raises:
        ConfigError: it cannot be read, or is no JSON.
    """
    with _told(path):
        with opened(path) as content:
            text = read_document(content, MAX_OBJECT).removeprefix("\ufeff")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                return None
            raise FileProblemError("broken JSON", f"line {error.lineno}") from None
        except (ValueError, RecursionError):
            raise FileProblemError("JSON with too long a number, or nested too deeply") from None


# Lines of cells


def cells(path: Path) -> Iterator[LocatedRow]:
    """Yield the cells of each line that is not blank, between tabs, commas of a .csv file, or blanks.

    Raises:
        ConfigError: the file cannot be read.
    """
    name = shown_path(path)
    is_csv = format_of(path) == "csv"
    with _told(path), opened(path) as content:
        for row in read_lines(content):
            location = f"{name}, line {row.number}"
            if row.problem:
                raise ConfigError(f"{location}: {row.problem}. Save the file as UTF-8.")
            line = str(row.value)
            try:
                found = line.split("\t") if "\t" in line else next(csv.reader([line]), []) if is_csv else line.split()
            except csv.Error as error:
                raise ConfigError(f"{location}: {error}. Check the file.") from None
            yield LocatedRow(location, [cell.strip() for cell in found])


def first_row(found: Iterator[LocatedRow]) -> tuple[LocatedRow | None, Iterator[LocatedRow]]:
    """Return the first row, and all rows."""
    first = next(found, None)
    return first, found if first is None else chain([first], found)


def shown_path(path: Path) -> str:
    """Return a path for messages."""
    return escaped(str(path).encode("utf-8", "backslashreplace").decode())
