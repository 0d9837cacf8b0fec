"""Which files are read: what paths, folders and globs name, in a fixed order, and why others are left out."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

from ..._files import format_of
from ...errors import ConfigError
from ._ignore import Rules, compile_patterns, is_ignored, is_installed, is_secret, rules_above, rules_in
from ._options import STDIN

MAGIC = re.compile(r"[*?\[]")
HAS_SECRETS = "may hold secrets; --no-ignore takes them"

Wanted: TypeAlias = Callable[[Path], bool]
"""Which files of a folder a glob names."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that is read, or a file or folder that is left out for a reason."""

    path: Path
    name: str
    """For messages and ids, printable; a folder's ends with a slash."""
    reason: str = ""
    folder: Path | None = None
    """The folder in which the file was found; ``None`` where the user named the file."""


class FileFinder:
    """Find the files that paths name.

    Args:
        exclude: patterns as in ``.gitignore``, matched with the path as given and with the path inside its folder.
        no_ignore: take hidden, ignored, installed and secret files, too.
    """

    def __init__(self, paths: Sequence[str], exclude: Iterable[str] = (), *, no_ignore: bool = False) -> None:
        self._paths = paths
        self._excluded = compile_patterns(pattern.removeprefix("./") for pattern in exclude)
        self._no_ignore = no_ignore

    def find(self) -> Iterator[FoundFile]:
        """Return each file once, those of a folder by name. Stdin has the path and name ``-``.

        Raises:
            ConfigError: a path does not exist, or a glob matches no file.
        """
        seen: set[Path] = set()
        for path in self._paths:
            for found in self._find(path):
                whole = found.path.absolute()
                if whole not in seen:
                    seen.add(whole)
                    yield found

    def _find(self, given: str) -> Iterator[FoundFile]:
        path = Path(given).expanduser()
        if given == STDIN:
            yield FoundFile(path, STDIN)
            return
        try:
            path.stat()
        except (OSError, ValueError) as error:
            if MAGIC.search(given):
                yield from self._glob(path, given)
                return
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"{name_of(path)} cannot be read ({reason}). Check the path.") from error
        if path.is_dir():
            yield from self._walk(path)
        else:
            yield FoundFile(path, name_of(path), self._not_wanted(path, path.name))

    def _glob(self, pattern: Path, given: str) -> Iterator[FoundFile]:
        fixed = next(index for index, part in enumerate(pattern.parts) if MAGIC.search(part))
        root, parts = Path(*pattern.parts[:fixed]), pattern.parts[fixed:]

        def wanted(path: Path) -> bool:
            inside = path.relative_to(root).parts
            return any(_matches(inside[:count], parts) for count in range(1, len(inside) + 1))

        found = False
        for file in self._walk(root, wanted):
            found = True
            yield file
        if not found:
            raise ConfigError(f"No file matches {given}. Check the pattern; ** stands for any number of folders.")

    # Folders

    def _walk(self, root: Path, wanted: Wanted | None = None) -> Iterator[FoundFile]:
        """Walk a folder and its subfolders, without recursion: folders may be nested deeply."""
        waiting = [(root, () if self._no_ignore else rules_above(root.absolute()))]
        while waiting:
            path, rules = waiting.pop()
            if path != root and not _is_folder(path):
                if wanted is None or wanted(path):
                    reason = self._file_left_out(path, root, rules)
                    if not reason and wanted is None and format_of(path) is None:
                        reason = f"a {path.suffix.lower()} file" if path.suffix else "a file without suffix"
                    yield FoundFile(path, name_of(path), reason, folder=root)
                continue
            if path != root and (reason := self._folder_left_out(path, root, rules)):
                if wanted is None:
                    yield FoundFile(path, f"{name_of(path)}/", reason, folder=root)
                continue
            own = () if self._no_ignore else rules_in(path.absolute())
            try:
                inside = sorted(os.listdir(path), reverse=True)  # noqa: PTH208 - names sort as the files of a folder
            except OSError as error:
                yield FoundFile(path, f"{name_of(path)}/", _reason(error), folder=root)
                continue
            waiting += [(path / name, rules + own) for name in inside]

    def _not_wanted(self, path: Path, relative: str, *, folder: bool = False) -> str:
        """Return why a path is left out that the user named, or that was found."""
        ending = "/" if folder else ""
        for name in (os.path.normpath(path).replace(os.sep, "/"), relative):
            if self._excluded.match_file(name + ending):
                return "excluded"
        return HAS_SECRETS if is_secret(path.name) and not (folder or self._no_ignore) else ""

    def _folder_left_out(self, path: Path, root: Path, rules: Rules) -> str:
        if reason := self._not_wanted(path, path.relative_to(root).as_posix(), folder=True):
            return reason
        if self._no_ignore:
            return ""
        if path.name.startswith("."):
            return "hidden"
        if is_installed(path):
            return "packages of others"
        return "ignored by git" if is_ignored(rules, path.absolute(), folder=True) else ""

    def _file_left_out(self, path: Path, root: Path, rules: Rules) -> str:
        if reason := self._not_wanted(path, path.relative_to(root).as_posix()):
            return reason
        if path.name.startswith(".") and not self._no_ignore:
            return "hidden"
        if is_ignored(rules, path.absolute(), folder=False):
            return "ignored by git"
        try:
            target = path.resolve(strict=True)
            if target.is_dir():  # its files come once, and never in a circle
                return "a link to a folder"
            if not target.is_file():
                return "no regular file"
        except (OSError, RuntimeError) as error:
            return _reason(error)
        if not path.is_symlink():
            return ""
        if not target.is_relative_to(root.resolve()):  # a repository of others must not point at a private file
            return "a link to a file outside the folder"
        return HAS_SECRETS if is_secret(target.name) and not self._no_ignore else ""


def name_of(path: Path) -> str:
    """Return a path for messages, ids and JSON: bytes that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir() and not path.is_symlink()
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or "a link in a circle").lower()


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob; ``**`` stands for any number of folders."""
    if not patterns:
        return not parts
    first, others = patterns[0], patterns[1:]
    if first == "**":
        return any(_matches(parts[count:], others) for count in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], first) and _matches(parts[1:], others)
