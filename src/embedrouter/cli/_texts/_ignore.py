"""Which files of a folder are left out by default: what git ignores, hidden files, packages of others, secrets."""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

from pathspec import GitIgnoreSpec

INSTALLED = {"node_modules", "bower_components", "venv", "env", "virtualenv", "__pycache__", "site-packages"}
"""Folders with packages of others, which no project wrote."""
SECRETS = (
    *(".env", ".env.*", "*.env", "secret.*", "secrets.*", "*.secret", "*.secrets", "credentials", "credentials.*"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.kdbx", "*.gpg"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "service[-_]account*.json", "client_secret*.json"),
    *(".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass", ".htpasswd", ".git-credentials", "*.tfstate", "*.tfvars"),
)
"""Names of files that hold keys and passwords."""
REPOSITORY = ".git"
IGNORE_FILE = ".gitignore"

Rules: TypeAlias = tuple[tuple[Path, GitIgnoreSpec], ...]
"""The rules of ignore files with the folder that each holds in; later ones are stronger."""


def is_secret(name: str) -> bool:
    """Return whether a file of this name most likely holds keys or passwords."""
    return any(fnmatch(name.lower(), pattern) for pattern in SECRETS)


def is_installed(folder: Path) -> bool:
    """Return whether a folder holds packages of others, by its name or as a virtual environment of Python."""
    return folder.name in INSTALLED or (folder / "pyvenv.cfg").exists()


def rules_above(folder: Path) -> Rules:
    """Return the rules that hold in a folder because of the repository that it is in, without the folder's own.

    All paths are absolute.
    """
    above = [folder, *folder.parents]
    root = next((index for index, place in enumerate(above) if (place / REPOSITORY).exists()), 0)
    rules: Rules = ()
    if (above[root] / REPOSITORY).is_dir():
        rules += _read_rules(above[root], above[root] / REPOSITORY / "info" / "exclude")
    for place in above[root:0:-1]:
        rules += _read_rules(place, place / IGNORE_FILE)
    return rules


def rules_in(folder: Path) -> Rules:
    """Return the rules of a folder's own ignore file."""
    return _read_rules(folder, folder / IGNORE_FILE)


def is_ignored(rules: Rules, path: Path, *, folder: bool) -> bool:
    """Return what the strongest rule says that matches a file or folder."""
    for base, spec in reversed(rules):
        relative = path.relative_to(base).as_posix()
        found = spec.check_file(f"{relative}/" if folder else relative).include
        if found is not None:
            return found
    return False


def compile_patterns(lines: Iterable[str]) -> GitIgnoreSpec:
    """Return the rules of lines as git writes them; lines that are no pattern are left out, as git does."""
    return GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))


def _is_pattern(line: str) -> bool:
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _read_rules(base: Path, file: Path) -> Rules:
    try:
        lines = file.read_text("utf-8-sig", "surrogateescape").splitlines()
    except OSError:
        return ()
    return ((base, compile_patterns(lines)),)
