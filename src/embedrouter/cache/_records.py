"""Read and write small JSON records beside the cache, each at once or not at all."""

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._sqlite import make_folder, refuse_link


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
