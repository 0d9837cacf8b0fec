"""What is installed: Python, this package, and the packages it works with against the versions it was made for.

The versions come from this package's own metadata. Only comparisons of numbers are needed to read them, which do not
justify a dependency; of a version such as ``1.2.0rc1`` the numbers count.
"""

from __future__ import annotations

import operator
import platform
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest

from .finding import Finding, fine, problem, warning

__all__ = ["installed"]

NAME = "embedrouter"
SUBJECT = "installation"

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*\(?(?P<bounds>[^;()]*)\)?(?:;(?P<marker>.*))?")
EXTRA = re.compile(r"extra\s*==\s*['\"]([\w.-]+)['\"]")
BOUND = re.compile(r"(==|!=|<=|>=|<|>)\s*([\w.]+)")
NOT_USED = ("all", "dev")
"""Extras that name others, or are for work on this package."""

COMPARE: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that this one works with."""

    name: str
    bounds: str
    extra: str | None

    def allows(self, version: str) -> bool:
        """Say whether a version is within the bounds."""
        return all(COMPARE[sign](_order(version, bound), 0) for sign, bound in BOUND.findall(self.bounds))


def installed(extras: Collection[str]) -> list[Finding]:
    """Look at versions.

    Args:
        extras: those that the models need; a wrong version of another is no more than a warning.
    """
    python = f"Python {platform.python_version()} on {platform.system()}"
    try:
        own = metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return [
            warning(
                SUBJECT,
                "versions",
                f"{python}; embedrouter runs from a source tree that is not installed, so no version could be compared",
                "Run: pip install -e .",
                python=platform.python_version(),
            )
        ]
    findings, found = [], {}
    for item in _requirements(metadata.requires(NAME) or []):
        try:
            version = metadata.version(item.name)
        except metadata.PackageNotFoundError:
            continue  # an extra nobody asked for; a model that needs it says so when it is probed
        found[item.name] = version
        if not item.allows(version):
            report = problem if item.extra is None or item.extra in extras else warning
            extra = f"[{item.extra}]" if item.extra else ""
            findings.append(
                report(
                    SUBJECT,
                    item.name,
                    f"{item.name} {version} is installed; embedrouter {own} is made for {item.bounds}",
                    f"Run: pip install 'embedrouter{extra}=={own}'",
                    installed=version,
                    wanted=item.bounds,
                )
            )
    others = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    facts = {"embedrouter": own, "python": platform.python_version(), "packages": dict(sorted(found.items()))}
    return [fine(SUBJECT, "versions", f"embedrouter {own}, {python}; {others}", **facts), *findings]


def _requirements(lines: list[str]) -> list[Requirement]:
    """Return what the metadata asks for, each package once for each extra of the user's."""
    found = []
    for line in lines:
        match = REQUIREMENT.fullmatch(line.strip())
        if match is None or match["name"] == NAME:
            continue
        extra = EXTRA.search(match["marker"] or "")
        if extra is None or extra[1] not in NOT_USED:
            found.append(Requirement(match["name"], match["bounds"].strip(), extra[1] if extra else None))
    return found


def _order(version: str, bound: str) -> int:
    """Return a number below, equal to or above 0, as ``version`` is below, equal to or above ``bound``."""
    pairs = zip_longest(_numbers(version), _numbers(bound), fillvalue=0)
    return next((one - other for one, other in pairs if one != other), 0)


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version; those of a post-release count, what follows a pre-release's mark does not."""
    release = re.split(r"(?:a|b|rc|\.?dev|\+)", version, maxsplit=1)[0].replace("post", "")
    return [int(part) for part in release.split(".") if part.isdigit()]
