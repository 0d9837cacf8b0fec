"""How a file is read, by its suffix or by ``--as``: what opens it, and which texts or rows it holds."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal, TypeAlias, cast

Format: TypeAlias = Literal["text", "lines", "html", "ipynb", "csv", "tsv", "json", "jsonl", "parquet"]

SUFFIXES = {
    **dict.fromkeys((".txt", ".text", ".md", ".mdx", ".markdown", ".rst", ".adoc", ".org", ".tex", ".py"), "text"),
    ".rmd": "text",
    ".qmd": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".ndjson": "jsonl",
    **{f".{name}": name for name in ("ipynb", "csv", "tsv", "json", "jsonl", "parquet")},
}
"""The format of files, by suffix; a file of another suffix is text, where the user named it."""
DOCUMENTS = {"text", "html", "ipynb"}
"""Formats of which a file is one text."""
GZIP = ".gz"
MAX_FILE_SIZE = 5_000_000
"""Bytes of a file that is one text; a larger one is most likely no prose."""
MAX_NAMED_SIZE = 100_000_000
"""Bytes of such a file where the user named it."""
MAX_PART_SIZE = 100_000_000
"""Bytes of what is held in memory at once: a line, an element of a list, a JSON object."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")


class FileProblemError(Exception):
    """A file, or the rest of a file, cannot be read; the message is the reason, as it is counted.

    Args:
        where: the line or row from which on; nothing where the file as a whole is no file of its format.
        hint: what to do next.
    """

    def __init__(self, reason: str, where: str = "", hint: str = "") -> None:
        super().__init__(reason)
        self.where, self.hint = where, hint


@dataclass(frozen=True, slots=True)
class Row:
    """A part of a file: a line, a row, or the whole."""

    number: int
    """From 1; 0 is the whole file."""
    unit: str
    """``line`` or ``row``."""
    value: object
    """What was read: a text, or an object with fields."""
    problem: str = ""
    """Why it could not be read."""


def format_of(path: Path) -> Format | None:
    """Return the format that a path's suffix names."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [GZIP]:
        suffixes.pop()
    return cast("Format | None", SUFFIXES.get(suffixes[-1])) if suffixes else None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed.

    Raises:
        FileProblemError: the file cannot be read, now or while it is used, or its compressed data are damaged.
    """
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == GZIP:
                with gzip.open(file) as decompressed:
                    yield cast(BinaryIO, decompressed)
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "compressed data that end too early" if isinstance(error, EOFError) else "damaged compressed data"
        raise FileProblemError(reason) from error
    except OSError as error:
        raise FileProblemError((error.strerror or str(error)).lower()) from error


def read_document(file: IO[bytes], limit: int, *, empty: bool = False) -> str:
    """Read a file that is one text, as Python's text mode does: UTF-8, line ends as ``\\n``, a byte order mark kept.

    Raises:
        FileProblemError: too large, or no text.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        hint = "Name the file itself, or read it line by line: --as lines." if limit < MAX_NAMED_SIZE else ""
        raise FileProblemError(f"over {limit // 1_000_000} MB", hint=hint)
    if content.startswith(UTF16):
        raise FileProblemError("UTF-16 text, not UTF-8", hint="Save the file as UTF-8.")
    if b"\0" in content:
        raise FileProblemError("not text")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise FileProblemError("not UTF-8 text", hint="Convert the file to UTF-8.") from None
    if not (empty or text.removeprefix("\ufeff").strip()):
        raise FileProblemError("empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")
