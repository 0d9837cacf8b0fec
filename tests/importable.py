"""Names the test files whose imports are not installed: ``python -m tests.importable``, for ``nox -s pythons``.

The imports at the head of a file are followed through the other modules of the repository; nothing is imported. What
a test imports later it asks for itself, with ``pytest.importorskip``.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
OWN = ("tests", "docs")
"""Folders of the repository from which tests import."""


def missing() -> dict[Path, str]:
    """Return the files, by their place under the root, with the first package that each of them lacks."""
    found = {file: _lacks(file) for file in sorted((ROOT / "tests").glob("test_*.py"))}
    return {file.relative_to(ROOT): package for file, package in found.items() if package is not None}


def _lacks(file: Path) -> str | None:
    seen, waiting = {file}, [file]
    while waiting:
        for name in _imported(waiting.pop()):
            top, _, rest = name.partition(".")
            if top in OWN:
                own = ROOT.joinpath(*name.split("."))
                places = {place for place in (own.with_suffix(".py"), own / "__init__.py") if place.exists()} - seen
                seen |= places
                waiting += places
            elif not _here(top) or (rest and not _here(f"{top}.{rest.partition('.')[0]}")):
                return name
    return None


@functools.cache
def _here(name: str) -> bool:
    if name.startswith("embedrouter."):
        return True
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@functools.cache
def _imported(file: Path) -> list[str]:
    return list(_names(file))


def _names(file: Path) -> Iterator[str]:
    for statement in ast.parse(file.read_text("utf-8")).body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            package = file.relative_to(ROOT).parent.parts if statement.level else ()
            base = ".".join([*package, *([statement.module] if statement.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in statement.names if base.split(".")[0] in OWN)


if __name__ == "__main__":
    for file, package in missing().items():
        print(file, package)
