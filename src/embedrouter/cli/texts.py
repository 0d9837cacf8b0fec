"""The texts that ``estimate`` and ``warm`` are about, read as they are needed and as often as they are needed.

A cached vector belongs to one exact text, so texts are taken as Python's own text mode reads them (UTF-8, line ends
as ``\\n``) and never trimmed. A ``.jsonl`` file has one text per line, in a field; any other file is one text. From
stdin comes one text per line, or JSON lines if a field is named; it is kept in a nameless temporary file for the second
reading.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ConfigError
from .corpus import LARGEST_FILE, SUFFIXES

__all__ = ["FIELD", "STDIN", "Item", "Texts", "slices"]

FIELD = "text"
STDIN = "-"
MOST_TEXTS = 8192
MOST_CHARACTERS = 8_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """One text and where it stands."""

    place: str
    text: str


class Texts:
    """Iterates over the texts of a file, a folder or stdin; again from the beginning each time.

    Args:
        path: ``"-"`` for stdin.
        field: of JSON lines.

    Raises:
        ConfigError: while iterating: something cannot be read as asked; the message says what.
    """

    def __init__(self, path: str, field: str | None = None) -> None:
        self._path = path
        self._field = field
        self._spool: IO[bytes] | None = None
        self.skipped: dict[str, list[str]] = {}
        """Files of a folder that the last reading left out, by reason."""

    def __iter__(self) -> Iterator[Item]:
        if self._path == STDIN:
            return self._stdin()
        path = Path(self._path).expanduser()
        if path.is_dir():
            return self._folder(path)
        return self._file(path)

    def close(self) -> None:
        """Forget what came from stdin."""
        if self._spool is not None:
            self._spool.close()

    def _stdin(self) -> Iterator[Item]:
        if self._spool is None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
            shutil.copyfileobj(sys.stdin.buffer, self._spool)
        self._spool.seek(0)
        for place, line in _lines(self._spool, "stdin"):
            yield Item(place, line if self._field is None else _field(line, self._field, place))

    def _file(self, path: Path) -> Iterator[Item]:
        if path.suffix.lower() == ".jsonl":
            with _opened(path) as file:
                for place, line in _lines(file, str(path)):
                    yield Item(place, _field(line, self._field or FIELD, place))
            return
        with _opened(path):  # the same errors for both kinds
            text, reason = _read(path)
        if reason:
            raise ConfigError(
                f"{path} is {reason}. Pass a file of text, JSON lines, a folder of these, or - for stdin."
            )
        yield Item(str(path), text)

    def _folder(self, root: Path) -> Iterator[Item]:
        self.skipped = {}
        for path in sorted(root.rglob("*")):
            place = path.relative_to(root)
            if not path.is_file() or any(part.startswith(".") or part == "__pycache__" for part in place.parts):
                continue
            suffix = path.suffix.lower()
            if suffix == ".jsonl":
                yield from self._file(path)
                continue
            text, reason = "", f"a {suffix} file" if suffix else "a file without suffix"
            if suffix in SUFFIXES:
                text, reason = _read(path)
            if reason:
                self.skipped.setdefault(reason, []).append(str(place))
            else:
                yield Item(str(path), text)


def slices(items: Iterable[Item], most: int = MOST_TEXTS) -> Iterator[list[Item]]:
    """Cut texts into lists that memory can hold, and that still keep several requests in flight."""
    part: list[Item] = []
    characters = 0
    for item in items:
        if part and (len(part) >= most or characters + len(item.text) > MOST_CHARACTERS):
            yield part
            part, characters = [], 0
        part.append(item)
        characters += len(item.text)
    if part:
        yield part


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Check the path.") from error


def _read(path: Path) -> tuple[str, str]:
    """Return the text of a file, or why it is left out."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            return "", f"over {LARGEST_FILE // 1_000_000} MB"
        text = path.read_text("utf-8-sig")
    except OSError as error:
        return "", (error.strerror or "unreadable").lower()
    except UnicodeDecodeError:
        return "", "not UTF-8 text"
    if "\0" in text:
        return "", "not text"
    return (text, "") if text.strip() else ("", "empty")


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    """Return the lines that are not blank, each with its place."""
    for number, line in enumerate(file, 1):
        place = f"{name}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise ConfigError(f"{place} is not UTF-8 text.") from None
        if text.strip():
            yield place, text


def _field(line: str, field: str, place: str) -> str:
    row: object = None
    with suppress(ValueError):
        row = json.loads(line)
    if not isinstance(row, dict):
        raise ConfigError(f"{place} is not a JSON object.")
    text = row.get(field)
    if not isinstance(text, str) or not text:
        there = ", ".join(map(repr, row)) or "none"
        raise ConfigError(f"{place}: the field {field!r} holds no text. Fields there: {there}. Choose with --field.")
    return text
