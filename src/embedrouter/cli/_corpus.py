"""Texts for the demo: the docstrings of Python's standard library, or a folder of the user.

Source files are parsed and never imported. The order is fixed. Texts are split into passages, short
enough for any model. Each passage begins with its source and the subject of the source, because a
search cannot find a paragraph such as "Return the value." alone.
"""

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from ._texts import SUFFIXES, read_files

EXCLUDED = {"distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tests", "turtledemo"}
"""Parts of the standard library without useful docstrings or not in every Python version."""

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MAX_PASSAGE = 600
"""Characters: about a hundred words of English, below the limit of every model."""
PASSAGE = re.compile(rf"\S(?:.{{0,{MAX_PASSAGE - 2}}}\S)?(?=\s|$)|\S{{{MAX_PASSAGE}}}", re.DOTALL)
"""As many whole words as fit; a longer word is cut."""


@dataclass(frozen=True, slots=True)
class Passage:
    """One text to embed."""

    text: str
    source: str
    """The module or file, which an answer names."""


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


def read_standard_library() -> Corpus:
    """Read the docstrings of the public modules, classes and functions of the standard library.

    Raises:
        ConfigError: this Python is installed without its source files.
    """
    root = Path(sysconfig.get_path("stdlib"))
    passages = [passage for path in _find_modules(root) for passage in _read_module(path, root)]
    if not passages:
        raise ConfigError(f"There are no docstrings in {root}: Python is installed without its source. Pass a folder.")
    return Corpus("the docstrings of Python's standard library", passages, QUESTIONS)


def _find_modules(root: Path) -> list[Path]:
    public = (place for place in root.iterdir() if _is_public(place.stem))  # site-packages, for one, is not
    found = (path for place in public for path in ([place] if place.suffix == ".py" else place.rglob("*.py")))
    names = {path: path.relative_to(root).with_suffix("").parts for path in found}
    return sorted(path for path in names if all(map(_is_public, names[path])) and EXCLUDED.isdisjoint(names[path]))


def _is_public(name: str) -> bool:
    return name.isidentifier() and (not name.startswith("_") or (name.startswith("__") and name.endswith("__")))


def _read_module(path: Path, root: Path) -> Iterator[Passage]:
    module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the strings of the parsed module
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    heading = f"{module}: {_first_sentence(ast.get_docstring(tree) or '')}".removesuffix(": ")
    for name, docstring in _docstrings(tree, module):
        for part in split_passages(docstring.encode(errors="ignore").decode()):
            yield Passage(f"{heading}\n{name}\n{part}", source=module.partition(".")[0])


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Return every public docstring under a node after its qualified name, from top to bottom."""
    if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node)):
        yield name, docstring
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, DOCUMENTED):
            yield from _docstrings(child, name)
        elif not isinstance(child, ast.Module) and _is_public(child.name):
            yield from _docstrings(child, f"{name}.{child.name}")


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[.:])\s", paragraph, maxsplit=1)[0][:200]


# A folder


def read_folder(root: Path) -> Corpus:
    """Read the texts in a folder and its subfolders.

    Raises:
        ConfigError: the folder does not exist, is a file, or contains no text.
    """
    if not root.is_dir():
        problem = "is a file. Pass the folder it is in" if root.exists() else "does not exist. Pass a folder of texts"
        raise ConfigError(f"{root} {problem}.")
    passages: list[Passage] = []
    questions: list[str] = []
    skipped: dict[str, list[str]] = {}
    for path, text, reason in read_files(root, errors="ignore"):
        relative = str(path.relative_to(root))
        if reason:
            skipped.setdefault(reason, []).append(relative)
            continue
        questions.append(_first_line(text))
        passages += [Passage(f"{relative}\n{part}", relative) for part in split_passages(text)]
    if not passages:
        reasons = "".join(f"; skipped, {reason}: {len(files)}" for reason, files in skipped.items())
        raise ConfigError(f"There is no text in {root}{reasons}. Files with text end in {', '.join(sorted(SUFFIXES))}.")
    return Corpus(str(root), passages, questions[:: max(1, len(questions) // 3)][:3], skipped)


def _first_line(text: str) -> str:
    """Return the first line of two words or more, as a question."""
    lines = (line.strip("#=-*/\"'<> \t") for line in text.splitlines())
    return next((line[:100] for line in lines if len(line.split()) > 1), text.split()[0][:100])


# Passages


def split_passages(text: str) -> list[str]:
    """Split a text between words into passages of at most ``MAX_PASSAGE`` characters."""
    return PASSAGE.findall(text)
