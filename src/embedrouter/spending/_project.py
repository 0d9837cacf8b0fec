"""The project of the working directory: the tag of what is spent outside of all ``with embedrouter.tag(…)`` blocks.

One ledger is shared by everything that a user runs. So each router books under the name of its project, unless the
variable ``EMBEDROUTER_TAG`` names another tag, or none.
"""

from __future__ import annotations

import os
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from .._display import escaped
from .._process import running_loop
from ._tags import storable

ENVIRONMENT = "EMBEDROUTER_TAG"
LONGEST = 80
"""Characters of a project's name that are kept."""

found: list[str] = []
"""The project that was found last."""


def project_tag() -> str:
    """Return ``$EMBEDROUTER_TAG``, which may be empty, or the name of the working directory's project.

    That is the ``[project] name`` of the nearest ``pyproject.toml`` in the folder or above it, up to the root of its
    repository; otherwise the name of the repository's folder; otherwise ``""``. Neither the home directory nor the
    folder of temporary files is a project. On an event loop no file is looked at again: it is the project that was
    found before, if one was looked for.
    """
    if (named := os.environ.get(ENVIRONMENT)) is not None:
        return storable(named.strip())
    if not found or running_loop() is None:
        found[:] = [_find()]
    return found[0]


def _find() -> str:
    for folder in _folders():
        if name := _declared(folder / "pyproject.toml"):
            return escaped(name)[:LONGEST]
        with suppress(OSError):
            if (folder / ".git").exists():
                return escaped(folder.name)[:LONGEST]
    return ""


def _folders() -> Iterator[Path]:
    """Yield the working directory and the folders above it, up to one that holds all of a user's or of a machine's."""
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return
    with suppress(RuntimeError, OSError):
        ends = [Path.home(), Path(tempfile.gettempdir())]
        for folder in (here, *here.parents):
            if folder.parent == folder or any(end.exists() and folder.samefile(end) for end in ends):
                return
            yield folder


def _declared(file: Path) -> str:
    """Return the name of the project that a ``pyproject.toml`` declares; ``""`` where there is none."""
    try:
        facts = file.stat()
    except OSError:
        return ""
    return _read_name(file, facts.st_mtime_ns, facts.st_size) if stat.S_ISREG(facts.st_mode) else ""


@lru_cache(maxsize=16)  # reading TOML takes milliseconds, and some programs build a router for each request
def _read_name(file: Path, changed: int, size: int) -> str:
    try:
        project = tomllib.loads(file.read_text("utf-8")).get("project")
    except (OSError, ValueError, RecursionError):
        return ""
    name = project.get("name") if isinstance(project, dict) else None
    return name.strip() if isinstance(name, str) else ""
