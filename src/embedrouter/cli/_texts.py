"""The texts of ``estimate`` and ``warm``: read from a file, a folder or stdin, once for each iteration.

A cached vector belongs to one exact text, so texts are read as Python's own text mode reads them (UTF-8, line ends as
``\\n``) and never trimmed. A ``.jsonl`` file has one text per line, in a field; any other file is one text. Stdin has
one text per line, or JSON lines if a field is named; a nameless temporary file keeps these texts for the second
iteration.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, TypeAlias

import typer

from .._display import shown_name
from ..errors import ConfigError, InvalidInputError
from ..types import InputType
from ._console import first_few

STDIN = "-"
MAX_CHUNK_TEXTS = 8192
MAX_CHUNK_CHARACTERS = 8_000_000
SUFFIXES = {".txt", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".py"}
MAX_FILE_SIZE = 5_000_000
"""Bytes; a larger file is most likely no prose."""

Source: TypeAlias = Annotated[str, typer.Argument(metavar="PATH|-", help="A file, a folder of files, or - (stdin).")]
FieldName: TypeAlias = Annotated[str | None, typer.Option("--field", metavar="NAME", help="The field; text.")]
InputTypeName: TypeAlias = Annotated[InputType, typer.Option("--input-type", help="The purpose of the texts.")]
ChunkSize: TypeAlias = Annotated[int | None, typer.Option(metavar="N", min=1, help="Texts in memory at once.")]


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
        self._stdin_copy: BinaryIO | None = None
        self.skipped: dict[str, list[str]] = {}
        """Files of a folder that the last iteration skipped, by reason."""

    def __iter__(self) -> Iterator[LocatedText]:
        root = Path(self._path).expanduser()
        if self._path == STDIN:
            if self._stdin_copy is None:
                self._stdin_copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
                shutil.copyfileobj(sys.stdin.buffer, self._stdin_copy)
            self._stdin_copy.seek(0)
            for location, line in decode_lines(self._stdin_copy, "stdin"):
                yield LocatedText(location, line if self._field is None else _parse_line(line, self._field, location))
        elif not root.is_dir():
            yield from self._read_file(root)
        else:
            self.skipped = {}
            for path, text, reason in read_files(root):
                if path.suffix.lower() == ".jsonl":
                    yield from self._read_file(path)
                elif reason:
                    self.skipped.setdefault(reason, []).append(str(path.relative_to(root)))
                else:
                    yield LocatedText(str(path), text)

    def close(self) -> None:
        """Remove the copy of stdin."""
        if self._stdin_copy is not None:
            self._stdin_copy.close()

    def _read_file(self, path: Path) -> Iterator[LocatedText]:
        if path.suffix.lower() == ".jsonl":
            for location, line in read_lines(path):
                yield LocatedText(location, _parse_line(line, self._field or "text", location))
            return
        with open_file(path):  # for the same errors as with JSON lines
            text, reason = read_text(path)
        if reason:
            raise ConfigError(
                f"{path} is {reason}. Pass a file of text, JSON lines, a folder of these, or - for stdin."
            )
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
        refused = first_few(locations, "; ")
        message = f"{error} Position 0 is {chunk[0].location}; refused: {refused}."
        raise InvalidInputError(message, indices=error.indices) from error


def _parse_line(line: str, field: str, location: str) -> str:
    """Return the text in a field of a JSON line."""
    row: object = None
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
    if not isinstance(row, dict):
        raise ConfigError(f"{location} is not a JSON object.")
    text = row.get(field)
    if not isinstance(text, str) or not text:
        there = ", ".join(map(repr, row)) or "none"
        raise ConfigError(
            f"{location}: the field {shown_name(field)} holds no text. Fields there: {there}. Choose with --field."
        )
    return text


# Files


def read_files(root: Path, errors: str = "strict") -> Iterator[tuple[Path, str, str]]:
    """Return the files of a folder and its subfolders in a fixed order, without hidden ones.

    Each comes with its text, or with the reason why the file is skipped.
    """
    for path in sorted(root.rglob("*")):
        suffix, parts = path.suffix.lower(), path.relative_to(root).parts
        if not path.is_file() or any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        if suffix in SUFFIXES:
            yield path, *read_text(path, errors)
        else:
            yield path, "", f"a {suffix} file" if suffix else "a file without suffix"


def read_text(path: Path, errors: str = "strict") -> tuple[str, str]:
    """Return the text of a file, or the reason why the file is skipped."""
    try:
        if path.stat().st_size > MAX_FILE_SIZE:
            return "", f"over {MAX_FILE_SIZE // 1_000_000} MB"
        text = path.read_text("utf-8-sig", errors)
    except OSError as error:
        return "", (error.strerror or "unreadable").lower()
    except UnicodeDecodeError:
        return "", "not UTF-8 text"
    if "\0" in text:
        return "", "not text"
    return (text, "") if text.strip() else ("", "empty")


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return path.expanduser().open("rb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Check the path.") from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Return the lines of a file as ``decode_lines`` does."""
    with open_file(path) as file:
        yield from decode_lines(file, str(path))


def decode_lines(file: Iterable[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Return the lines that are not blank, each after its location.

    Raises:
        ConfigError: a line is not UTF-8.
    """
    for number, line in enumerate(file, 1):
        location = f"{name}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise ConfigError(f"{location} is not UTF-8 text. Convert the file.") from None
        if text.strip():
            yield location, text
