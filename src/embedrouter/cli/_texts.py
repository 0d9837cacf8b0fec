"""The texts of ``estimate`` and ``warm``: read from a file, a folder or stdin, once for each iteration.

A cached vector belongs to one exact text, so texts are read as Python's own text mode reads them (UTF-8, line ends as
``\\n``) and never trimmed. A ``.jsonl`` file has one text per line, in a field; any other file is one text. Stdin has
one text per line, or JSON lines if a field is named; a nameless temporary file keeps these texts for the second
iteration.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, TypeAlias

import typer

from ..errors import ConfigError, InvalidInputError
from ..types import InputType
from ._console import first_few
from ._files import decode_lines, files_in, open_file, read_lines, read_listed, read_text

DEFAULT_FIELD = "text"
STDIN = "-"
MAX_CHUNK_TEXTS = 8192
MAX_CHUNK_CHARACTERS = 8_000_000
SHOWN = 5
"""Locations that a message names."""

Source: TypeAlias = Annotated[
    str, typer.Argument(metavar="PATH|-", help="A file, a folder of text and .jsonl files, or - (stdin).")
]
FieldName: TypeAlias = Annotated[
    str | None, typer.Option("--field", metavar="NAME", help="The field of JSON lines; text.")
]
InputTypeName: TypeAlias = Annotated[InputType, typer.Option("--input-type", help="The purpose of the texts.")]
ChunkSize: TypeAlias = Annotated[
    int | None, typer.Option("--chunk-size", metavar="N", min=1, help="The number of texts in memory at once.")
]


@dataclass(frozen=True, slots=True)
class LocatedText:
    """One text and its location: a file, or a line of a file."""

    location: str
    text: str


class Texts:
    """Iterate over the texts of a file, a folder or stdin; each iteration starts from the beginning.

    Args:
        path: ``"-"`` for stdin.
        field: of JSON lines.

    Raises:
        ConfigError: during the iteration, if a file or a line cannot be read; the message names the location.
    """

    def __init__(self, path: str, field: str | None = None) -> None:
        self._path = path
        self._field = field
        self._stdin_copy: IO[bytes] | None = None
        self.skipped: dict[str, list[str]] = {}
        """Files of a folder that the last iteration skipped, by reason."""

    def __iter__(self) -> Iterator[LocatedText]:
        if self._path == STDIN:
            return self._read_stdin()
        path = Path(self._path).expanduser()
        if path.is_dir():
            return self._read_folder(path)
        return self._read_file(path)

    def close(self) -> None:
        """Remove the copy of stdin."""
        if self._stdin_copy is not None:
            self._stdin_copy.close()

    def _read_stdin(self) -> Iterator[LocatedText]:
        if self._stdin_copy is None:
            self._stdin_copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
            shutil.copyfileobj(sys.stdin.buffer, self._stdin_copy)
        self._stdin_copy.seek(0)
        for location, line in decode_lines(self._stdin_copy, "stdin"):
            yield LocatedText(location, line if self._field is None else _parse_line(line, self._field, location))

    def _read_file(self, path: Path) -> Iterator[LocatedText]:
        if path.suffix.lower() == ".jsonl":
            for location, line in read_lines(path):
                yield LocatedText(location, _parse_line(line, self._field or DEFAULT_FIELD, location))
            return
        with open_file(path):  # for the same errors as with JSON lines
            text, reason = read_text(path)
        if reason:
            raise ConfigError(
                f"{path} is {reason}. Pass a file of text, JSON lines, a folder of these, or - for stdin."
            )
        yield LocatedText(str(path), text)

    def _read_folder(self, root: Path) -> Iterator[LocatedText]:
        self.skipped = {}
        for path, relative in files_in(root):
            if path.suffix.lower() == ".jsonl":
                yield from self._read_file(path)
                continue
            text, reason = read_listed(path)
            if reason:
                self.skipped.setdefault(reason, []).append(relative)
            else:
                yield LocatedText(str(path), text)


def chunks(texts: Iterable[LocatedText], size: int | None = None) -> Iterator[list[LocatedText]]:
    """Split texts into lists that fit into memory and are long enough for several concurrent requests."""
    size = size or MAX_CHUNK_TEXTS
    chunk: list[LocatedText] = []
    characters = 0
    for item in texts:
        if chunk and (len(chunk) >= size or characters + len(item.text) > MAX_CHUNK_CHARACTERS):
            yield chunk
            chunk, characters = [], 0
        chunk.append(item)
        characters += len(item.text)
    if chunk:
        yield chunk


@contextmanager
def locate_rejected(chunk: Sequence[LocatedText]) -> Iterator[None]:
    """Add the locations of refused texts to an error: the router knows only positions in one chunk."""
    try:
        yield
    except InvalidInputError as error:
        locations = [chunk[index].location for index in error.indices]
        refused = first_few(locations, SHOWN, separator="; ")
        message = f"{error} Position 0 is {chunk[0].location}; refused: {refused}."
        raise InvalidInputError(message, indices=error.indices) from error


def _parse_line(line: str, field: str, location: str) -> str:
    """Return the text in a field of a JSON line."""
    row: object = None
    with suppress(ValueError):
        row = json.loads(line)
    if not isinstance(row, dict):
        raise ConfigError(f"{location} is not a JSON object.")
    text = row.get(field)
    if not isinstance(text, str) or not text:
        there = ", ".join(map(repr, row)) or "none"
        raise ConfigError(f"{location}: the field {field!r} holds no text. Fields there: {there}. Choose with --field.")
    return text
