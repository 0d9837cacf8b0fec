"""Write small JSON records beside the cache, each once."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def write_once(path: Path, record: Mapping[str, object]) -> None:
    """Write a record, atomically, unless there is one: of two processes that write at the same time one wins.

    Folders are made with rights for their owner alone.

    Raises:
        OSError: the record cannot be written.
    """
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)
