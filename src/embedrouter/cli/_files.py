"""Files of texts: folders, whole files, and files of lines. Errors name the file, or the line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigError

SUFFIXES = {".txt", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".py"}
MAX_FILE_SIZE = 5_000_000
"""Bytes; a larger file is most likely no prose."""


def files_in(root: Path) -> Iterator[tuple[Path, str]]:
    """Return the files of a folder and its subfolders in a fixed order, without hidden ones, each with its name."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in relative.parts):
            yield path, str(relative)


def read_listed(path: Path, errors: str = "strict") -> tuple[str, str]:
    """Return the text of a file of a folder, or the reason why the file is skipped."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return "", f"a {suffix} file" if suffix else "a file without suffix"
    return read_text(path, errors)


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
