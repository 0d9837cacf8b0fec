"""The result of one check."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    subject: str
    """The checked model, or part of the machine."""
    check: str
    level: Level
    story: str
    """The result, for people."""
    advice: str = ""
    """The next action; never empty for a warning or a problem."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The result, for programs."""


def fine(subject: str, check: str, story: str, **facts: Any) -> Finding:
    """Return a finding that needs no action."""
    return Finding(subject, check, "ok", story, facts=facts)


def warning(subject: str, check: str, story: str, advice: str, **facts: Any) -> Finding:
    """Return a finding that leaves the exit code 0."""
    return Finding(subject, check, "warning", story, advice, facts)


def problem(subject: str, check: str, story: str, advice: str, **facts: Any) -> Finding:
    """Return a finding that makes the exit code 1."""
    return Finding(subject, check, "problem", story, advice, facts)
