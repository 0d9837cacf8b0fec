"""Texts for the demo: the documentation inside Python's standard library, or a folder of the user's.

Source files are parsed and never imported. Everything comes in a fixed order, cut into passages of a paragraph or a
few, short enough for any model. Each passage begins with where it is from and what that is about, because a paragraph
such as "Return the value." alone says nothing to a search.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError

__all__ = ["Corpus", "Passage", "folder", "standard_library"]

LEFT_OUT = {
    "__pycache__",
    "__phello__",
    "_vendor",
    "dist-packages",
    "distutils",  # gone since Python 3.12
    "encodings",  # the same three lines for each character set
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}
"""Folders of the standard library that are not its documentation, or not in every Python."""

SUFFIXES = {".txt", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".py"}
LARGEST_FILE = 5_000_000
"""Bytes; a larger file is most likely no prose."""
ENOUGH = 400
"""Characters after which a passage ends with its paragraph: some sixty words."""
MOST = 1200
"""Characters of a passage: under 200 words of English, so that no model's limit matters."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to embed."""

    text: str
    source: str
    """The module or file it is from: what an answer names."""
    title: str
    """The place within it."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages in a fixed order."""

    name: str
    passages: list[Passage]
    questions: list[str]
    """What to ask when the user asks nothing."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """The files that were left out, by reason."""


# The standard library

QUESTIONS = [
    "parse command line options",
    "compress files into a zip archive",
    "send an email message",
    "generate secure random tokens for passwords",
    "measure how long a piece of code takes",
]


def standard_library(root: Path | None = None) -> Corpus:
    """Return the docstrings of the public modules, classes and functions of the standard library.

    Raises:
        ConfigError: this Python comes without its source files.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    passages = [passage for path in _modules(root) for passage in _documented(path, root)]
    if not passages:
        raise ConfigError(f"There are no docstrings in {root}: this Python comes without its source. Pass a folder.")
    return Corpus("the docstrings of Python's standard library", passages, QUESTIONS)


def _modules(root: Path) -> list[Path]:
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if _is_public(name) and name not in LEFT_OUT]
        names = (Path(name) for name in files if name.endswith(".py"))
        found += [Path(place, name) for name in names if _is_public(name.stem) and name.stem not in LEFT_OUT]
    return sorted(found)


def _is_public(name: str) -> bool:
    return name.isidentifier() and (not name.startswith("_") or (name.startswith("__") and name.endswith("__")))


def _documented(path: Path, root: Path) -> Iterator[Passage]:
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts).removesuffix(".__init__")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in somebody else's strings
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    heading = f"{module}: {_first_sentence(ast.get_docstring(tree) or '')}".removesuffix(": ")
    for name, docstring in _docstrings(tree, module):
        for part in split(docstring.encode(errors="ignore").decode()):
            yield Passage(f"{heading}\n{name}\n{part}", source=module.partition(".")[0], title=name)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Give every public docstring under a node with its qualified name, from top to bottom."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring and docstring.strip():
            yield name, docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if _is_public(child.name):
                yield from _docstrings(child, f"{name}.{child.name}")
        elif isinstance(child, ast.stmt):
            yield from _docstrings(child, name)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s", paragraph, maxsplit=1)[0][:200]


# A folder


def folder(root: Path) -> Corpus:
    """Return the texts in a folder and the folders in it.

    Raises:
        ConfigError: it does not exist, is no folder, or holds no text.
    """
    if not root.exists():
        raise ConfigError(f"{root} does not exist. Pass a folder of text files.")
    if not root.is_dir():
        raise ConfigError(f"{root} is a file. Pass the folder it is in.")
    passages: list[Passage] = []
    openings: list[str] = []
    skipped: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if not path.is_file() or any(part.startswith(".") or part == "__pycache__" for part in place.parts):
            continue
        text, reason = _read(path)
        if reason:
            skipped.setdefault(reason, []).append(str(place))
            continue
        parts = split(text)
        openings.append(_opening(text))
        numbered = enumerate(parts, 1)
        passages += [Passage(f"{place}\n{part}", str(place), f"{place}, passage {number}") for number, part in numbered]
    if not passages:
        reasons = "".join(f"; skipped, {reason}: {len(files)}" for reason, files in skipped.items())
        raise ConfigError(f"There is no text in {root}{reasons}. Read are {', '.join(sorted(SUFFIXES))} files.")
    return Corpus(str(root), passages, _spread(openings, 3), skipped)


def _read(path: Path) -> tuple[str, str]:
    """Return the text of a file, or why it is left out."""
    if path.suffix.lower() not in SUFFIXES:
        return "", f"a {path.suffix.lower()} file" if path.suffix else "a file without suffix"
    try:
        if path.stat().st_size > LARGEST_FILE:
            return "", f"over {LARGEST_FILE // 1_000_000} MB"
        text = path.read_bytes().decode("utf-8-sig", "ignore")
    except OSError as error:
        return "", (error.strerror or "unreadable").lower()
    if "\0" in text:
        return "", "not text"
    return (text, "") if text.strip() else ("", "empty")


def _opening(text: str) -> str:
    """Return the first line that says something, as a question to ask."""
    lines = (line.strip("#=-*/\"'<> \t") for line in text.splitlines())
    return next((line[:100] for line in lines if len(line.split()) > 1), text.split()[0][:100])


def _spread(items: list[str], count: int) -> list[str]:
    return list(dict.fromkeys(items[:: max(1, len(items) // count)]))[:count]


# Passages


def split(text: str) -> list[str]:
    """Cut a text between paragraphs into passages of about ``ENOUGH`` and at most ``MOST`` characters."""
    passages: list[str] = []
    current = ""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        for part in _cut(paragraph.strip("\n").rstrip()):
            if current and len(current) + len(part) > ENOUGH:
                passages.append(current)
                current = ""
            current += ("\n\n" if current else "") + part
    return [*passages, current] if current else passages


def _cut(paragraph: str) -> Iterator[str]:
    while len(paragraph) > MOST:
        end = max(paragraph.rfind(blank, MOST // 2, MOST) for blank in (" ", "\n"))
        end = end if end > 0 else MOST
        yield paragraph[:end]
        paragraph = paragraph[end:].lstrip()
    if paragraph.strip():
        yield paragraph
