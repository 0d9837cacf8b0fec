"""Versions: the installed packages compared with the requirements in this package's metadata."""

import platform
import re
from collections.abc import Collection
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
    for requirement in map(Requirement, metadata.requires(NAME) or []):
        match = EXTRA.search(str(requirement.marker))
        extra = match[1] if match else ""  # empty for packages that are always required
        if requirement.name == NAME or extra in INTERNAL_EXTRAS:
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed; a model that needs it fails when it is probed
        found[requirement.name] = version
        parsed = Version(version)
        release = parsed.base_version if parsed.is_prerelease else version  # a pre-release counts as its release
        if not requirement.specifier.contains(release):
            report = problem if extra in ("", *extras) else warning
            bounds = str(requirement.specifier)
            story = f"{requirement.name} {version} is installed; embedrouter {own} requires {bounds}"
            advice = f"Run: pip install 'embedrouter{f'[{extra}]' if extra else ''}=={own}'"
            findings.append(report(SUBJECT, requirement.name, story, advice, installed=version, wanted=bounds))
    packages = dict(sorted(found.items()))
    others = ", ".join(f"{name} {version}" for name, version in packages.items())
    facts = {"embedrouter": own, "python": platform.python_version(), "packages": packages}
    return [fine(SUBJECT, "versions", f"embedrouter {own}, {python}; {others}", **facts), *findings]
