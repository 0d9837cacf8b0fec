"""Entries of a store that has no place for them, in a small file of its folder or beside its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cache import read_record, write_again, write_once
from ..errors import ConfigError

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
