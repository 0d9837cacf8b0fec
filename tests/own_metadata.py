"""The requirements in ``pyproject.toml``, as the metadata of an installed package say them."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]


def requires() -> list[str]:
    """Return a line for each requirement; that of an extra has one marker, which names the extra."""
    lines: list[str] = list(PROJECT["dependencies"])
    for extra, wanted in PROJECT["optional-dependencies"].items():
        for requirement in map(Requirement, wanted):
            marker, requirement.marker = requirement.marker, None
            condition = f"({marker}) and " if marker else ""
            lines.append(f'{requirement}; {condition}extra == "{extra}"')
    return lines
