"""The result of a verification: a short list of checks, each with the next action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from .._display import counted, html_table


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified.

    Attributes:
        name: what.
        passed: ``None`` for a figure that is neither right nor wrong.
        found: what was found.
        advice: the next action; empty where there is nothing to do.
    """

    name: str
    passed: bool | None
    found: str
    advice: str = ""

    def __str__(self) -> str:
        """Describe the check in one line."""
        mark = {True: "ok", False: "FAILED", None: "note"}[self.passed]
        return f"{mark:6}  {self.name}: {self.found}{f' {self.advice}' if self.advice else ''}"


@dataclass(frozen=True, slots=True, repr=False)
class Verification:
    """The result of ``verify``; ``print`` shows a line for each check."""

    title: str
    checks: Sequence[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no check has failed."""
        return all(check.passed is not False for check in self.checks)

    @property
    def failure(self) -> str:
        """The first check that has failed, with its next action; empty where none has."""
        return next((f"{one.name}: {one.found} {one.advice}" for one in self.checks if one.passed is False), "")

    def __str__(self) -> str:
        """Describe the verification, a check on each line."""
        return "\n".join(map(str, self.checks))

    def __repr__(self) -> str:
        bad = sum(one.passed is False for one in self.checks)
        return f"<Verification of {self.title}: {counted(len(self.checks), 'check')}, {bad or 'none'} failed>"

    def _repr_html_(self) -> str:
        marks = {True: "ok", False: "failed", None: ""}
        rows = [(one.name, marks[one.passed], f"{one.found} {one.advice}".strip()) for one in self.checks]
        return f"<p>{escape(repr(self)[1:-1])}</p>{html_table(rows)}"
