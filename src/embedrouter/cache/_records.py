"""Read and write small JSON records, each at once or not at all: beside the cache, or where workers share them.

``Records`` are the records of one kind by name. ``FolderRecords`` keeps them in a folder, a file each; the room
``redis`` has others on a server.
"""

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote

from .._sqlite import make_folder, refuse_link

SUFFIX = ".json"


class Records(Protocol):
    """Records of one kind by name. Methods block.

    Raises:
        OSError: they cannot be read or written.
        ValueError: a record that is read is no JSON.
    """

    @property
    def place(self) -> str:
        """Where they are, for messages."""
        ...

    @property
    def shared(self) -> bool:
        """Whether workers on several machines share them, on a server that may be gone for a while."""
        ...

    def read(self, name: str) -> Any:
        """Return the content of a record; ``None`` where there is none."""
        ...

    def write_once(self, name: str, record: Mapping[str, object]) -> None:
        """Write a record unless there is one: of two that are written at the same time one wins."""
        ...

    def write_again(self, name: str, record: Mapping[str, object]) -> None:
        """Write a record in place of an older one."""
        ...

    def remove(self, name: str) -> None:
        """Remove a record, if there is one."""
        ...

    def names(self) -> list[str]:
        """Return the names of all records, in order."""
        ...


@dataclass(frozen=True, slots=True)
class FolderRecords:
    """Records in a folder, each in a file of its name."""

    folder: Path

    @property
    def place(self) -> str:
        return str(self.folder)

    @property
    def shared(self) -> bool:
        return False

    def path(self, name: str) -> Path:
        """Return the file of a record."""
        return self.folder / (quote(name, safe="") + SUFFIX)

    def read(self, name: str) -> Any:
        with suppress(FileNotFoundError, NotADirectoryError):
            return read_record(self.path(name))
        return None

    def write_once(self, name: str, record: Mapping[str, object]) -> None:
        if not self.path(name).exists():
            write_once(self.path(name), record)

    def write_again(self, name: str, record: Mapping[str, object]) -> None:
        write_again(self.path(name), record)

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        return [unquote(path.name.removesuffix(SUFFIX)) for path in sorted(self.folder.glob("*" + SUFFIX))]


def as_records(place: Path | Records) -> Records:
    """Return the records of a folder, or those that are given."""
    return FolderRecords(place) if isinstance(place, Path) else place


def read_record(path: Path) -> Any:
    """Return the content of a record.

    Raises:
        OSError: there is none, or what is there is no file, such as a pipe, for which reading would wait.
        ValueError: it is no JSON.
    """
    if not path.is_file() and path.exists():
        raise OSError(errno.EINVAL, "It is no file", str(path))
    return json.loads(path.read_text("utf-8"))


def write_once(path: Path, record: Mapping[str, object]) -> None:
    """Write a record, atomically, unless there is one: of two processes that write at the same time one wins.

    Folders are made with rights for their owner alone.

    Raises:
        OSError: the record cannot be written, or is a link, or is in a folder that is one.
    """
    _write(path, record, again=False)


def write_again(path: Path, record: Mapping[str, object]) -> None:
    """Write a record in place of an older one, as ``write_once`` does."""
    _write(path, record, again=True)


def _write(path: Path, record: Mapping[str, object], *, again: bool) -> None:
    make_folder(path.parent)
    refuse_link(path.parent)
    handle, name = tempfile.mkstemp(".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(record, file)
        if again:
            Path(name).replace(path)
        else:
            with suppress(FileExistsError):
                os.link(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
    refuse_link(path)
