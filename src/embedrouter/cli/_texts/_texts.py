"""The texts of a command: read from files, folders, globs or stdin, once for each iteration.

A cached vector belongs to one exact text, so texts are read as Python's own text mode reads them (UTF-8, line ends as
``\\n``) and never trimmed. Texts are read while they are used. A second iteration gives what the first gave, or
fails before the first other text: a person agreed to the price of these texts. Nameless temporary files keep what can
be read only once.
"""

import os
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, TypeVar

from ..._display import first_few
from ..._files import (
    DOCUMENTS,
    GZIP,
    MAX_FILE_SIZE,
    MAX_NAMED_SIZE,
    Fields,
    FileProblemError,
    Format,
    Row,
    RowProblemError,
    format_of,
    opened,
    read_document,
    read_json,
    read_json_lines,
    read_lines,
    read_parquet,
    read_table,
)
from ...calls import Refusal, without_refused
from ...errors import ConfigError, InputRejectedError, InvalidInputError
from ._documents import langchain_notebook_text, notebook_text, visible_text
from ._files import FileFinder, FoundFile
from ._options import STDIN, TextOptions
from ._skipped import Skipped
from ._split import Splitter

Answer = TypeVar("Answer")

MAX_CHUNK_TEXTS = 8192
MAX_CHUNK_CHARACTERS = 8_000_000
MARK = "\ufeff"
"""The byte order mark."""


@dataclass(frozen=True, slots=True)
class LocatedText:
    """One text, its location for people (a file, a line of a file, a chunk of either) and its id.

    The id is the row's own (``--id``), or the file's name, with ``:7`` for a row and ``#2`` for a chunk.
    """

    location: str
    text: str
    id: str = ""
    file: str = ""


class Texts:
    """Iterate over the texts that options name; each iteration starts from the beginning.

    Raises:
        ConfigError: when it is made, if the splitter is unknown; during an iteration, if a path, a file or a row cannot
            be read, or has changed since the first iteration; the message names the location.
    """

    def __init__(self, options: TextOptions) -> None:
        self._options = options
        join = options.join.replace(r"\n", "\n").replace(r"\t", "\t")
        self._fields = Fields(options.fields, join, options.id_field)
        self._splitter = Splitter(options.split, options.split_options or ()) if options.split else None
        self._finder = FileFinder(options.paths, options.exclude or (), no_ignore=options.no_ignore)
        self._copies: dict[Path, BinaryIO] = {}
        self._confirmed: array[int] | None = None
        self.chunk_size, self.skip_bad = options.chunk_size, options.skip_bad
        self.skipped = Skipped()
        """What the last iteration left out."""

    def __iter__(self) -> Iterator[LocatedText]:
        self.skipped.clear()
        digests, confirmed = array("Q"), self._confirmed
        for count, item in enumerate(self._texts()):
            digest = _digest(item.text)
            if confirmed is None:
                digests.append(digest)
            elif count >= len(confirmed) or confirmed[count] != digest:
                raise ConfigError(
                    f"{item.location} is not what was counted: a file has changed meanwhile. "
                    "This text was not sent. Run the command again."
                )
            yield item
        if confirmed is None:
            self._confirmed = digests

    def close(self) -> None:
        """Remove the copies of stdin and of pipes."""
        for copy in self._copies.values():
            copy.close()

    def _texts(self) -> Iterator[LocatedText]:
        for file in self._finder.find():
            if not file.reason:
                yield from self._read(file)
            elif file.folder is None and len(self._options.paths) == 1:
                raise ConfigError(f"{file.name} is left out: {file.reason}.")
            else:
                self.skipped.add(file.reason, file.name)

    # One file

    def _read(self, file: FoundFile) -> Iterator[LocatedText]:
        """Read the texts of a file.

        A file that is none of its format, or has none of the fields, is left out where it is one of several; a file of
        which a part cannot be read is an error, unless bad parts are to be left out.
        """
        alone = file.folder is None and len(self._options.paths) == 1
        first = True
        try:
            with self._opened(file) as content:
                for row in self._rows(file, content):
                    try:
                        yield from self._items(file, row)
                    except RowProblemError as problem:
                        if problem.foreign and not alone and (first or self._options.fields is None):
                            if first:
                                raise FileProblemError(str(problem)) from None
                            self.skipped.add(str(problem), _location(file, row))
                        else:
                            self._add_bad(str(problem), _location(file, row), problem.hint)
                    first = False
        except FileProblemError as problem:
            if problem.where or (alone and not self._options.skip_bad):
                location = f"{file.name}, {problem.where}" if problem.where else file.name
                self._add_bad(str(problem), location, problem.hint or "Check the file.")
            else:
                self.skipped.add(str(problem), file.name)

    def _add_bad(self, problem: str, location: str, hint: str) -> None:
        if not self._options.skip_bad:
            rest = "" if location in self._options.paths else " Or leave such parts out: --skip-bad."
            raise ConfigError(f"{location}: {problem}. {hint}{rest}")
        self.skipped.add(problem, location)

    def _opened(self, file: FoundFile) -> AbstractContextManager[BinaryIO]:
        """Open a file; what can be read only once is copied the first time."""
        if file.name != STDIN and file.path.is_file():
            return opened(file.path)
        if file.path not in self._copies:
            self._copies[file.path] = copy = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
            with nullcontext(sys.stdin.buffer) if file.name == STDIN else opened(file.path) as source:
                shutil.copyfileobj(source, copy)
        self._copies[file.path].seek(0)
        return nullcontext(self._copies[file.path])

    def _rows(self, file: FoundFile, content: BinaryIO) -> Iterator[Row]:
        format = self._options.format or self._format_of(file)
        if format in DOCUMENTS:
            limit = MAX_FILE_SIZE if file.folder else MAX_NAMED_SIZE
            if self._is_read_by_splitter(file):  # which makes a node of an empty file, too
                yield Row(0, "file", read_document(content, limit, empty=True))
                return
            yield Row(0, "file", _document(content, format, limit, for_program=self._splitter is not None))
        elif format == "lines":
            yield from read_lines(content)
        elif format == "jsonl":
            yield from read_json_lines(content)
        elif format == "json":
            yield from read_json(content, self._fields.path)
        elif format == "parquet":
            yield from read_parquet(content, self._fields.columns)
        else:
            yield from read_table(content, self._fields.columns, tabs=format == "tsv")

    def _format_of(self, file: FoundFile) -> Format:
        if file.path in self._copies:
            return "lines" if self._options.fields is None else "jsonl"
        return format_of(file.path) or "text"

    # One row

    def _items(self, file: FoundFile, row: Row) -> Iterator[LocatedText]:
        if row.problem:
            raise RowProblemError(row.problem, foreign=row.number == 1)
        location = _location(file, row)
        if isinstance(row.value, str) and row.unit != "row":
            found, name = [row.value], ""
        else:
            found, name = self._fields.texts(row.value), self._fields.id(row.value)
        name = name or (f"{file.name}:{row.number}" if row.number else file.name)
        for number, text in enumerate(found, 1):
            own = f"{name}.{number}" if len(found) > 1 else name
            if self._splitter is None:
                yield LocatedText(location, text, own, file.name)
                continue
            for count, chunk in enumerate(self._split(file, row, text), 1):
                if chunk.strip():
                    yield LocatedText(f"{location}, chunk {count}", chunk, f"{own}#{count}", file.name)
                else:
                    self.skipped.add("an empty chunk", f"{location}, chunk {count}")

    def _split(self, file: FoundFile, row: Row, text: str) -> Sequence[str]:
        assert self._splitter is not None
        if row.number == 0 and self._is_read_by_splitter(file):  # with the path as the program's reader embeds it
            return self._splitter.split_file(Path(os.path.abspath(file.path)) if file.folder else file.path)  # noqa: PTH100
        return self._splitter.split_text(text)

    def _is_read_by_splitter(self, file: FoundFile) -> bool:
        plain = file.path.suffix.lower() != GZIP and file.path not in self._copies
        by_suffix = self._options.format in (None, "text")
        return plain and by_suffix and self._splitter is not None and self._splitter.reads_files


def _document(content: BinaryIO, format: str | None, limit: int, *, for_program: bool) -> str:
    """Read a file that is one text.

    Args:
        for_program: as LangChain's ``TextLoader`` and ``NotebookLoader`` do, of a program whose splitter is used: a
            byte order mark is kept.
    """
    text = read_document(content, limit)
    if format == "text" and for_program:
        return text
    text = text.removeprefix(MARK)
    if format == "ipynb":
        text = langchain_notebook_text(text) if for_program else notebook_text(text)
    elif format == "html":
        text = visible_text(text)
    if not text.strip():
        raise FileProblemError("empty")
    return text


def _location(file: FoundFile, row: Row) -> str:
    name = "stdin" if file.name == STDIN else file.name
    return f"{name}, {row.unit} {row.number}" if row.number else name


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


# Chunks of texts


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


def usable_texts(
    chunk: Sequence[LocatedText], skipped: Skipped | None, call: Callable[[list[str]], Answer]
) -> tuple[list[LocatedText], Answer]:
    """Call a router's method with the texts of a chunk; leave refused texts out, and call again with the others.

    Args:
        skipped: is told what was left out; ``None``: a refused text is an error.

    Returns:
        The texts of the last call, and its answer.

    Raises:
        InvalidInputError: a text was refused; the message names its location, where the router knows only positions.
    """

    def refuse(error: Refusal, rest: list[LocatedText]) -> None:
        if skipped is None:
            raise _located(error, rest) from None
        rejected = isinstance(error, InputRejectedError)
        for index in error.indices:
            skipped.add("refused by the model" if rejected else "longer than the model takes", rest[index].location)

    return without_refused(chunk, lambda rest: call([item.text for item in rest]), refuse)


def _located(error: Refusal, chunk: Sequence[LocatedText]) -> Refusal:
    refused = first_few([chunk[index].location for index in error.indices], separator="; ")
    where = f"Position 0 is {chunk[0].location}; refused: {refused}. Or leave such texts out: --skip-bad."
    if isinstance(error, InputRejectedError):
        error.add_note(where)
        return error
    return InvalidInputError(f"{error} {where}", indices=error.indices)
