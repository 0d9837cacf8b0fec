"""Versions: the installed packages compared with the requirements in this package's metadata.

Versions are compared by their numbers, ``1.2.0rc1`` as ``1.2.0``: that much does not justify a dependency.
"""

from __future__ import annotations

import operator
import platform
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest

from ._finding import Finding, fine, problem, warning

NAME = "embedrouter"
SUBJECT = "installation"

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*\(?(?P<bounds>[^;()]*)\)?(?:;(?P<marker>.*))?")
EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")
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
        return all(COMPARISONS[sign](_compare(version, bound), 0) for sign, bound in BOUND.findall(self.bounds))


def installed(extras: Collection[str]) -> list[Finding]:
    """Compare installed versions with the requirements.

    Args:
        extras: the extras that the models need; a wrong version for another extra is only a warning.
    """
    python = f"Python {platform.python_version()} on {platform.system()}"
    try:
        own = metadata.version(NAME)
    except metadata.PackageNotFoundError:
        story = f"{python}; embedrouter runs from a source tree without installation: no version can be compared"
        return [warning(SUBJECT, "versions", story, "Run: pip install -e .", python=platform.python_version())]
    findings, found = [], {}
    for item in _requirements(metadata.requires(NAME) or []):
        try:
            version = metadata.version(item.name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed; a model that needs it fails when it is probed
        found[item.name] = version
        if not item.allows(version):
            report = problem if item.extra is None or item.extra in extras else warning
            extra = f"[{item.extra}]" if item.extra else ""
            story = f"{item.name} {version} is installed; embedrouter {own} requires {item.bounds}"
            advice = f"Run: pip install 'embedrouter{extra}=={own}'"
            findings.append(report(SUBJECT, item.name, story, advice, installed=version, wanted=item.bounds))
    others = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    facts = {"embedrouter": own, "python": platform.python_version(), "packages": dict(sorted(found.items()))}
    return [fine(SUBJECT, "versions", f"embedrouter {own}, {python}; {others}", **facts), *findings]


def _requirements(lines: list[str]) -> list[Requirement]:
    """Parse the requirements of the metadata: each package once for each extra."""
    found = []
    for line in lines:
        match = REQUIREMENT.fullmatch(line.strip())
        if match is None or match["name"] == NAME:
            continue
        extra = EXTRA.search(match["marker"] or "")
        if extra is None or extra[1] not in INTERNAL_EXTRAS:
            found.append(Requirement(match["name"], match["bounds"].strip(), extra[1] if extra else None))
    return found


def _compare(version: str, bound: str) -> int:
    """Return a negative number, 0 or a positive number for a version below, equal to or above ``bound``."""
    pairs = zip_longest(_numbers(version), _numbers(bound), fillvalue=0)
    return next((one - other for one, other in pairs if one != other), 0)


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version, with those of a post-release and without those of a pre-release."""
    release = re.split(r"(?:a|b|rc|\.?dev|\+)", version, maxsplit=1)[0].replace("post", "")
    return [int(part) for part in release.split(".") if part.isdigit()]
