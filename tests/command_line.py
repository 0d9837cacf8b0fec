"""The command line: in this process for most tests, in a process of its own for signals, exit codes and start-up."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedrouter.cli import main

__all__ = ["PLAIN", "PROGRAM", "Ended", "environment", "run", "start"]

PROGRAM = "from embedrouter.cli import main; main()"
PLAIN = ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "COLUMNS", "LINES")
"""Variables that change what a terminal shows."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(
    *arguments: object,
    cwd: Path | None = None,
    columns: int | None = None,
    typed: str | None = None,
    encoding: str | None = None,
) -> Ended:
    """Run the program in this process, which saves the seconds that importing it anew takes.

    Args:
        columns: the variable ``COLUMNS``.
        typed: what is typed on a terminal; without it the output is piped, and nothing can be typed.
        encoding: of the streams.
    """
    stream = io.StringIO if typed is None else Terminal
    typing, printed, complaint = stream(typed or ""), stream(), io.StringIO()
    raw = [io.BytesIO(), io.BytesIO()]
    encoded = [io.TextIOWrapper(buffer, encoding=encoding) for buffer in raw] if encoding else []
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(encoded[0] if encoded else printed),
        contextlib.redirect_stderr(encoded[1] if encoded else complaint),
    ):
        for name in PLAIN:
            patch.delenv(name, raising=False)
        if columns is not None:
            patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "argv", ["embedrouter", *map(str, arguments)])
        patch.setattr(sys, "stdin", typing)
        with pytest.raises(SystemExit) as end:
            main()
    code = int(end.value.code or 0)
    for stream_with_encoding in encoded:
        stream_with_encoding.flush()
    if encoding:
        return Ended(code, *(buffer.getvalue().decode(encoding) for buffer in raw))
    return Ended(code, printed.getvalue(), complaint.getvalue())


def start(*arguments: object, cwd: Path | None = None, group: bool = False) -> subprocess.Popen[str]:
    """Start the program in a process of its own, with its output piped and warnings as errors.

    Args:
        group: whether it leads a group of processes of its own, as a program does that is started in a terminal.
    """
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=environment(),
        process_group=0 if group else None,
    )


def environment() -> dict[str, str]:
    """Return the variables of a process of its own, which imports what this one does."""
    plain = {name: value for name, value in os.environ.items() if name not in PLAIN}
    return {**plain, "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place)}
