"""Entries of a store that has no place for them, in a small file of its folder or beside its file.

The kinds of stores that are folders or files share how they are named, how entries are written, and how their texts
are embedded again.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cache import read_record, write_again, write_once
from ..errors import ConfigError
from ..router import Router

FILE = "embedrouter.json"


def beside_file(store: Path) -> Path:
    """Return the file with the entries of a store that is one file."""
    return store.with_name(f"{store.name}.{FILE}")


def in_folder(store: Path) -> Path:
    """Return the file with the entries of a store that is a folder."""
    return (store.resolve() if store.is_dir() else store) / FILE  # a link to nothing is refused


def read_beside(file: Path) -> dict[str, Any]:
    """Return the entries; none where there is no such file.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return dict(read_record(file))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{file} cannot be read ({error}). Set it right, or embed the texts again.") from error


def write_beside(file: Path, entries: Mapping[str, Any]) -> None:
    """Add entries; of two processes that write the first ones at the same time one wins.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        before = read_beside(file)
        (write_again if before else write_once)(file, {**before, **entries})
    except OSError as error:
        raise ConfigError(f"{file.parent} cannot be written ({error}). Check the path and its rights.") from error


class FolderStore:
    """A store that is a folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.title = f"The folder {str(path)!r}"
        self.place = shlex.quote(str(path))

    def read(self) -> Mapping[str, Any]:
        return read_beside(in_folder(self.path))

    def write(self, entries: Mapping[str, str | int]) -> None:
        write_beside(in_folder(self.path), entries)

    def again(self, router: Router) -> str:
        return "embed the texts again, into another folder, or into this one after its files were removed."


class FileStore:
    """A store that is a file, which may hold its mark itself, too."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.title = f"The file {str(path)!r}"
        self.place = shlex.quote(str(path))

    def write(self, entries: Mapping[str, str | int]) -> None:
        write_beside(beside_file(self.path), entries)

    def again(self, router: Router) -> str:
        return "embed the texts again, into a file of another name."
