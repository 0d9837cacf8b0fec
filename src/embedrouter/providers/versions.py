"""Installed versions, compared with the requirements in this package's metadata."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.util import find_spec

from packaging.requirements import Requirement
from packaging.version import Version

from ..errors import ConfigError

NAME = "embedrouter"
EXTRA = re.compile(r'extra == "(.+?)"')
INTERNAL_EXTRAS = ("all", "dev")
"""Extras that combine other extras, or serve the development of this package."""


def requirements() -> Iterator[tuple[str, Requirement]]:
    """Yield what the metadata require under this Python, after the name of the extra, empty where there is none.

    Raises:
        PackageNotFoundError: this package runs from a source tree, without metadata.
    """
    for requirement in map(Requirement, metadata.requires(NAME) or []):
        match = EXTRA.search(str(requirement.marker))
        extra = match[1] if match else ""
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if requirement.name != NAME and extra not in INTERNAL_EXTRAS and applies:
            yield extra, requirement


def installed_version(requirement: Requirement) -> str | None:
    """Return the installed version of a package; ``None`` where the package is not installed."""
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def allows(requirement: Requirement, version: str) -> bool:
    """Return whether a version is within the bounds; a pre-release counts as its release."""
    parsed = Version(version)
    return requirement.specifier.contains(parsed.base_version if parsed.is_prerelease else version)


def check_versions(subject: str, extra: str) -> None:
    """Refuse a package of an extra that is installed in a version outside its range.

    Args:
        subject: what needs the extra, for the message.

    Raises:
        ConfigError: the message names the versions and the command that mends it.
    """
    for requirement, version in outside(extra):
        wanted = f"{requirement.name}{requirement.specifier}"
        raise ConfigError(
            f"{subject} needs {wanted}, and {requirement.name} {version} is installed. Run: pip install '{wanted}'"
        )


@contextmanager
def needed(subject: str, extra: str) -> Iterator[None]:
    """Have a failing import of a framework name the extra to install.

    Args:
        subject: what needs the extra, for the message.

    Raises:
        ModuleNotFoundError: the framework is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == NAME:
            raise
    else:
        return
    raise ModuleNotFoundError(
        f"{subject} needs {missing or extra}, which is not installed. Run: pip install '{NAME}[{extra}]'", name=missing
    )


def require_extra(subject: str, extra: str, module: str) -> None:
    """Refuse to import the library of an extra where it is missing, or in a version outside its range.

    Args:
        subject: what needs the extra, for the message.
        module: that the library is imported as.

    Raises:
        ModuleNotFoundError: the library is missing; the message has the command that installs it.
        ConfigError: its version is outside the range.
    """
    check_versions(subject, extra)
    if find_spec(module) is None:
        message = f"{subject} needs {module}, which is not installed. Run: pip install '{NAME}[{extra}]'"
        raise ModuleNotFoundError(message, name=module)


@cache
def outside(extra: str) -> tuple[tuple[Requirement, str], ...]:
    """Return the packages of an extra that are installed in a version outside their range, with that version."""
    try:
        wanted = [(item, installed_version(item)) for name, item in requirements() if name == extra]
    except metadata.PackageNotFoundError:
        return ()
    return tuple((item, version) for item, version in wanted if version is not None and not allows(item, version))
