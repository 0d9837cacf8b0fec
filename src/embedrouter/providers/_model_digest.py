"""The hash of everything in a local model's folder that can change a vector, however it is reached.

Links are followed. Module folders that the model names outside its folder, or whose names begin with a dot, are read
too, and so is the folder of a base model that an adapter names. What a kind of module reads is the module's own matter:
so every file counts but those in ``IGNORED``.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, TypeAlias

IGNORED = frozenset({".md", ".csv", ".log", ".png", ".jpg", ".svg", ".pdf", ".pyc"})
"""Suffixes of notes, results and pictures: no vector depends on these files."""

SETTLED = 2 * 10**9
"""Nanoseconds after which a further change of a file has another time: the coarsest clock of a file system has steps of
two seconds."""

CHANGES_HAVE_TIMES = os.name != "nt"
"""Whether ``st_ctime`` is the time of the last change, which no program can set. On Windows it is that of creation."""

_State: TypeAlias = tuple[int, ...]
_known: dict[Path, tuple[_State, str]] = {}
"""The state and the hash of each file that was read in this process."""


def folder_digest(folder: Path) -> str:
    """Return the sha256 of a model's files: their names within the folder and their contents.

    Raises:
        OSError: a file cannot be read.
    """
    return _digest(folder, ())


def _digest(folder: Path, inside: tuple[Path, ...]) -> str:
    whole = hashlib.sha256()
    for name, path in sorted(_files(folder).items()):
        whole.update(os.fsencode(name) + f"\0{_file_digest(path)}\n".encode())
        if path.name == "adapter_config.json" and (base := _base_model(path)) and base not in inside:
            whole.update(f"base\0{_digest(base, (*inside, base))}\n".encode())
    return whole.hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a model by their names within its folder; names of files outside begin with ``..``."""
    files: dict[str, Path] = {}
    for part in ("", *_module_paths(folder)):
        root = folder / part
        for path in _walk(root, ()):
            files[os.path.normpath(PurePath(part, path.relative_to(root))).replace(os.sep, "/")] = path
    return files


def _module_paths(folder: Path) -> list[str]:
    with suppress(OSError, ValueError, LookupError, TypeError):  # reading the facts says what is wrong
        parts = [part["path"] for part in json.loads((folder / "modules.json").read_text("utf-8"))]
        return [part for part in parts if isinstance(part, str)]
    return []


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, and in those that links lead to, but not in circles."""
    real = os.path.realpath(folder)
    if real in above or not folder.is_dir():
        return
    for entry in os.scandir(folder):
        if entry.name.startswith("."):  # of version control and downloads
            continue
        path = folder / entry.name
        if entry.is_dir():
            yield from _walk(path, (*above, real))
        elif entry.is_file() and path.suffix not in IGNORED:
            yield path


def _base_model(adapter: Path) -> Path | None:
    """Return the folder of the model that an adapter is applied to, if it is a folder."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        base = Path(json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"])
        return base.resolve() if base.is_dir() else None
    return None


def _file_digest(path: Path) -> str:
    """Return a file's sha256, which is remembered while nothing of the file can have changed."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        state, digest = _known.get(path, ((), ""))
        if state == _state(before):
            return digest
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    settled = time.time_ns() - before.st_ctime_ns > SETTLED
    if CHANGES_HAVE_TIMES and settled and _state(after) == _state(before):
        _known[path] = _state(before), digest
    return digest


def _state(found: Any) -> _State:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
