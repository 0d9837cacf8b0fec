"""Texts for the demo: the docstrings of Python's standard library, or a folder of the user.

Source files are parsed and never imported. The order is fixed. Texts are split into passages of one or a few
paragraphs, short enough for any model. Each passage begins with its source and the subject of the source, because a
search cannot find a paragraph such as "Return the value." alone.
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

EXCLUDED = {
    "__phello__",
    "distutils",  # removed in Python 3.12
    "encodings",  # the same three lines for each character set
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tests",
    "turtledemo",
}
"""Parts of the standard library without useful docstrings or not in every Python version."""

SUFFIXES = {".txt", ".md", ".markdown", ".rst", ".adoc", ".org", ".tex", ".py"}
MAX_FILE_SIZE = 5_000_000
"""Bytes; a larger file is most likely no prose."""
TARGET_PASSAGE = 400
"""Characters after which a passage ends at the next paragraph: about sixty words."""
MAX_PASSAGE = 1200
"""Characters: under 200 words of English, below the limit of every model."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to embed."""

    text: str
    source: str
    """The module or file, which an answer names."""
    title: str
    """The position within the source."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages in a fixed order."""

    name: str
    passages: list[Passage]
    questions: list[str]
    """Questions for a user without questions of their own."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Skipped files, by reason."""


# The standard library

QUESTIONS = [
    "parse command line options",
    "compress files into a zip archive",
    "send an email message",
    "generate secure random tokens for passwords",
    "measure how long a piece of code takes",
]


def read_standard_library(root: Path | None = None) -> Corpus:
    """Read the docstrings of the public modules, classes and functions of the standard library.

    Raises:
        ConfigError: this Python is installed without its source files.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    passages = [passage for path in _find_modules(root) for passage in _read_module(path, root)]
    if not passages:
        raise ConfigError(f"There are no docstrings in {root}: Python is installed without its source. Pass a folder.")
    return Corpus("the docstrings of Python's standard library", passages, QUESTIONS)


def _find_modules(root: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if _is_public(name) and name not in EXCLUDED]
        names = (Path(name) for name in files if name.endswith(".py"))
        found += [Path(parent, name) for name in names if _is_public(name.stem) and name.stem not in EXCLUDED]
    return sorted(found)


def _is_public(name: str) -> bool:
    return name.isidentifier() and (not name.startswith("_") or (name.startswith("__") and name.endswith("__")))


def _read_module(path: Path, root: Path) -> Iterator[Passage]:
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts).removesuffix(".__init__")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the strings of the parsed module
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    heading = f"{module}: {_first_sentence(ast.get_docstring(tree) or '')}".removesuffix(": ")
    for name, docstring in _docstrings(tree, module):
        for part in split_passages(docstring.encode(errors="ignore").decode()):
            yield Passage(f"{heading}\n{name}\n{part}", source=module.partition(".")[0], title=name)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Return every public docstring under a node after its qualified name, from top to bottom."""
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


def read_folder(root: Path) -> Corpus:
    """Read the texts in a folder and its subfolders.

    Raises:
        ConfigError: the folder does not exist, is a file, or contains no text.
    """
    if not root.exists():
        raise ConfigError(f"{root} does not exist. Pass a folder of text files.")
    if not root.is_dir():
        raise ConfigError(f"{root} is a file. Pass the folder it is in.")
    passages: list[Passage] = []
    questions: list[str] = []
    skipped: dict[str, list[str]] = {}
    for path, relative in files_in(root):
        text, reason = read_listed(path, errors="ignore")
        if reason:
            skipped.setdefault(reason, []).append(relative)
            continue
        questions.append(_first_line(text))
        for number, part in enumerate(split_passages(text), 1):
            passages.append(Passage(f"{relative}\n{part}", relative, f"{relative}, passage {number}"))
    if not passages:
        reasons = "".join(f"; skipped, {reason}: {len(files)}" for reason, files in skipped.items())
        raise ConfigError(f"There is no text in {root}{reasons}. Files with text end in {', '.join(sorted(SUFFIXES))}.")
    return Corpus(str(root), passages, _evenly(questions, 3), skipped)


def files_in(root: Path) -> Iterator[tuple[Path, str]]:
    """Return the files of a folder and its subfolders in a fixed order, without hidden ones, each with its name."""
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in relative.parts):
            yield path, str(relative)


def read_listed(path: Path, errors: str = "strict") -> tuple[str, str]:
    """Return the text of a file of a folder, or the reason why the file is skipped."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return "", f"a {suffix} file" if suffix else "a file without suffix"
    return read_text(path, errors)


def read_text(path: Path, errors: str = "strict") -> tuple[str, str]:
    """Return the text of a file, or the reason why the file is skipped."""
    try:
        if path.stat().st_size > MAX_FILE_SIZE:
            return "", f"over {MAX_FILE_SIZE // 1_000_000} MB"
        text = path.read_text("utf-8-sig", errors)
    except OSError as error:
        return "", (error.strerror or "unreadable").lower()
    except UnicodeDecodeError:
        return "", "not UTF-8 text"
    if "\0" in text:
        return "", "not text"
    return (text, "") if text.strip() else ("", "empty")


def _first_line(text: str) -> str:
    """Return the first line of two words or more, as a question."""
    lines = (line.strip("#=-*/\"'<> \t") for line in text.splitlines())
    return next((line[:100] for line in lines if len(line.split()) > 1), text.split()[0][:100])


def _evenly(items: list[str], count: int) -> list[str]:
    return list(dict.fromkeys(items[:: max(1, len(items) // count)]))[:count]


# Passages


def split_passages(text: str) -> list[str]:
    """Split a text between paragraphs into passages of about ``TARGET_PASSAGE``, at most ``MAX_PASSAGE`` characters."""
    passages: list[str] = []
    current = ""
    for paragraph in re.split(r"\n\s*\n", text):
        for part in _split_paragraph(paragraph.strip("\n").rstrip()):
            if current and len(current) + len(part) > TARGET_PASSAGE:
                passages.append(current)
                current = ""
            current += ("\n\n" if current else "") + part
    return [*passages, current] if current else passages


def _split_paragraph(paragraph: str) -> Iterator[str]:
    while len(paragraph) > MAX_PASSAGE:
        end = max(paragraph.rfind(blank, MAX_PASSAGE // 2, MAX_PASSAGE) for blank in (" ", "\n"))
        end = end if end > 0 else MAX_PASSAGE
        yield paragraph[:end]
        paragraph = paragraph[end:].lstrip()
    if paragraph.strip():
        yield paragraph
