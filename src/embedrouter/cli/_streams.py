"""The standard streams of the program: what is closed, what breaks, and characters that an encoding does not have.

A reader that has enough, such as ``head``, closes the pipe: the program then ends as others do, without a word and with
the exit code of SIGPIPE. The signal itself stays ignored, because a connection to a provider may break, too.
"""

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ._console import complain

CLOSED_PIPE = 141
"""The exit code of a program that SIGPIPE ends, as shells report it."""
SUBSTITUTES = {"…": "...", "─": "-", "│": "|", "—": "-", "–": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "·": "-"}
"""For characters of the program's own."""
SCREEN = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
"""Variables that rich and typer read as numbers."""
MAX_DIGITS = 4
"""Of the width of a screen."""


@contextmanager
def standard_streams() -> Iterator[None]:
    """Prepare the streams, and turn what goes wrong with them into an exit code.

    Raises:
        SystemExit: of what runs inside; or the output cannot be written.
    """
    for name in SCREEN:
        value = os.environ.get(name, "1")
        if not (value.isdecimal() and len(value) <= MAX_DIGITS and int(value)):
            del os.environ[name]
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="embedrouter")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich and typer exit with code 1
            _give_up(CLOSED_PIPE)
        raise
    except BrokenPipeError:
        _give_up(CLOSED_PIPE)
    except OSError as error:
        what = "The output cannot be written" if error.filename is None else str(error.filename)
        with suppress(OSError):
            complain(f"embedrouter: {what} ({error.strerror or error}).")
        _give_up(1)


def _open_closed() -> None:
    """Open what the caller closed: the next file, such as the cache, would else become a standard stream."""
    for name, mode, flags in (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_WRONLY), ("stderr", "w", os.O_WRONLY)):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, flags)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))  # open until the process ends


def _give_up(code: int) -> None:
    """Exit without writing what still waits to be written."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
                continue
            os.dup2(null, stream.fileno())
    sys.exit(code)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that the encoding of a stream does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    shown = (SUBSTITUTES.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in missing)
    return "".join(shown), error.end


codecs.register_error("embedrouter", _substitute)
