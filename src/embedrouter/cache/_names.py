"""Record which model the mark in a cache key stands for: one small file for each mark, beside the cache.

A store has no names, only keys. Where a record is missing the name is unknown.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ._records import FolderRecords

FOLDER = "models"


def record_name(folder: Path, mark: bytes, model: str) -> None:
    """Record the name of a model, unless there is one. A folder that cannot be written keeps no names."""
    with suppress(OSError):
        FolderRecords(folder / FOLDER).write_once(mark.hex(), {"model": model})


def recorded_names(folder: Path) -> Mapping[bytes, str]:
    """Return the recorded names by mark; damaged records are left out."""
    names, records = {}, FolderRecords(folder / FOLDER)
    for name in records.names():
        with suppress(OSError, ValueError, KeyError, TypeError):
            names[bytes.fromhex(name)] = str(records.read(name)["model"])
    return names
