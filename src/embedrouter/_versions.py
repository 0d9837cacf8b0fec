"""Installed versions, compared with the requirements in this package's metadata.

Versions are compared by their numbers, ``1.2.0rc1`` as ``1.2.0``: that much does not justify a dependency.
"""

from __future__ import annotations

import operator
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from itertools import zip_longest

from .errors import ConfigError

NAME = "embedrouter"

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*\(?(?P<bounds>[^;()]*)\)?(?:;(?P<marker>.*))?")
EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")
PYTHON = re.compile(r"python_version\s*(==|!=|<=|>=|<|>)\s*['\"]([\w.]+)['\"]")
BOUND = re.compile(r"(==|!=|<=|>=|<|>)\s*([\w.]+)")
INTERNAL_EXTRAS = ("all", "dev")
"""Extras that combine other extras, or serve the development of this package."""

COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that this package requires, or supports through an extra."""

    name: str
    bounds: str
    extra: str | None

    def allows(self, version: str) -> bool:
        """Return whether a version is within the bounds."""
        return _within(version, BOUND.findall(self.bounds))

    def installed(self) -> str | None:
        """Return the installed version; ``None`` where the package is not installed."""
        try:
            return metadata.version(self.name)
        except metadata.PackageNotFoundError:
            return None


def requirements() -> list[Requirement]:
    """Return what the metadata require under this Python: each package once for each extra.

    Raises:
        PackageNotFoundError: this package runs from a source tree, without metadata.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    found = []
    for line in metadata.requires(NAME) or []:
        match = REQUIREMENT.fullmatch(line.strip())
        if match is None or match["name"] == NAME:
            continue
        marker = match["marker"] or ""
        extra = EXTRA.search(marker)
        if (extra is None or extra[1] not in INTERNAL_EXTRAS) and _within(python, PYTHON.findall(marker)):
            found.append(Requirement(match["name"], match["bounds"].strip(), extra[1] if extra else None))
    return found


def check_versions(subject: str, extra: str) -> None:
    """Refuse a package of an extra that is installed in a version outside its range.

    Args:
        subject: what needs the extra, for the message.

    Raises:
        ConfigError: the message names the versions and the command that mends it.
    """
    for item, version in outside(extra):
        raise ConfigError(
            f"{subject} needs {item.name}{item.bounds}, and {item.name} {version} is installed. Run: "
            f"pip install '{item.name}{item.bounds}'"
        )


@cache
def outside(extra: str) -> tuple[tuple[Requirement, str], ...]:
    """Return the packages of an extra that are installed in a version outside their range, with that version."""
    try:
        wanted = [item for item in requirements() if item.extra == extra]
    except metadata.PackageNotFoundError:
        return ()
    found = [(item, item.installed()) for item in wanted]
    return tuple((item, version) for item, version in found if version is not None and not item.allows(version))


def _within(version: str, bounds: list[tuple[str, str]]) -> bool:
    return all(COMPARISONS[sign](_compare(version, bound), 0) for sign, bound in bounds)


def _compare(version: str, bound: str) -> int:
    """Return a negative number, 0 or a positive number for a version below, equal to or above ``bound``."""
    pairs = zip_longest(_numbers(version), _numbers(bound), fillvalue=0)
    return next((one - other for one, other in pairs if one != other), 0)


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version, with those of a post-release and without those of a pre-release."""
    release = re.split(r"(?:a|b|rc|\.?dev|\+)", version, maxsplit=1)[0].replace("post", "")
    return [int(part) for part in release.split(".") if part.isdigit()]
