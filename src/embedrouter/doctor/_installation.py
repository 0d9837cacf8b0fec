"""Versions: the installed packages compared with the requirements in this package's metadata."""

import platform
from collections.abc import Collection
from importlib import metadata

from ..providers.versions import NAME, allows, installed_version, requirements
from ._finding import Finding, fine, problem, warning

SUBJECT = "installation"


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
    for extra, requirement in requirements():
        version = installed_version(requirement)
        if version is None:
            continue  # an extra that is not installed; a model that needs it fails when it is probed
        found[requirement.name] = version
        if not allows(requirement, version):
            report = problem if extra in ("", *extras) else warning
            bounds = str(requirement.specifier)
            story = f"{requirement.name} {version} is installed; embedrouter {own} requires {bounds}"
            advice = f"Run: pip install 'embedrouter{f'[{extra}]' if extra else ''}=={own}'"
            findings.append(report(SUBJECT, requirement.name, story, advice, installed=version, wanted=bounds))
    packages = dict(sorted(found.items()))
    others = ", ".join(f"{name} {version}" for name, version in packages.items())
    facts = {"embedrouter": own, "python": platform.python_version(), "packages": packages}
    return [fine(SUBJECT, "versions", f"embedrouter {own}, {python}; {others}", **facts), *findings]
