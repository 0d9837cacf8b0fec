"""Versions: the installed packages compared with the requirements in this package's metadata."""

from __future__ import annotations

import platform
import re
from collections.abc import Collection, Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from ._finding import Finding, fine, problem, warning

NAME = "embedrouter"
SUBJECT = "installation"

EXTRA = re.compile(r'extra == "(.+?)"')
INTERNAL_EXTRAS = ("all", "dev")
"""Extras that combine other extras, or serve the development of this package."""


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
    for requirement, extra in _requirements():
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed; a model that needs it fails when it is probed
        found[requirement.name] = version
        if not requirement.specifier.contains(_release(version)):
            report = problem if extra in ("", *extras) else warning
            bounds = str(requirement.specifier)
            story = f"{requirement.name} {version} is installed; embedrouter {own} requires {bounds}"
            advice = f"Run: pip install 'embedrouter{f'[{extra}]' if extra else ''}=={own}'"
            findings.append(report(SUBJECT, requirement.name, story, advice, installed=version, wanted=bounds))
    packages = dict(sorted(found.items()))
    others = ", ".join(f"{name} {version}" for name, version in packages.items())
    facts = {"embedrouter": own, "python": platform.python_version(), "packages": packages}
    return [fine(SUBJECT, "versions", f"embedrouter {own}, {python}; {others}", **facts), *findings]


def _requirements() -> Iterator[tuple[Requirement, str]]:
    """Return each required package with its extra, which is empty for packages that are always required."""
    for requirement in map(Requirement, metadata.requires(NAME) or []):
        match = EXTRA.search(str(requirement.marker))
        extra = match[1] if match else ""
        if requirement.name != NAME and extra not in INTERNAL_EXTRAS:
            yield requirement, extra


def _release(version: str) -> str:
    """Return a version; a pre-release counts as the release that it precedes."""
    parsed = Version(version)
    return parsed.base_version if parsed.is_prerelease else version
