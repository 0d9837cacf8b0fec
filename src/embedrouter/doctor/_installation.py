"""Versions: the installed packages compared with the requirements in this package's metadata."""

from __future__ import annotations

import platform
from collections.abc import Collection
from importlib import metadata

from .._versions import NAME, requirements
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
    for item in requirements():
        version = item.installed()
        if version is None:
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
