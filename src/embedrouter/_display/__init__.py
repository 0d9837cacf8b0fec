"""What people see of what others wrote: names, paths and messages, escaped; and values of settings, masked.

A terminal obeys control characters: they move its cursor, overwrite what was printed, change its title, make links.
Others show the characters of a line in another order, and a line end begins a line that was never logged. So errors,
warnings, log lines and the output of commands show all of these escaped, each at the one place where text leaves.
"""

import logging
import re
import traceback
from collections.abc import Iterator
from numbers import Number

from ._arguments import explained as explained
from ._arguments import hint_for as hint_for
from ._tables import Table as Table
from ._tables import amounts as amounts
from ._tables import cells as cells
from ._tables import cost_shown as cost_shown
from ._tables import counted as counted
from ._tables import data_size as data_size
from ._tables import dollars as dollars
from ._tables import first_few as first_few
from ._tables import html_table as html_table
from ._tables import plural as plural
from ._tables import priced as priced

MIN_KEY = 8
"""Characters of a key; a shorter text is a placeholder, or a plain word."""
NAME = re.compile(r"[^ ]{1,80}")
KEY = re.compile(r"\b(?:sk|rk|pk|pa|al)[-_]|(?=[^\W_]*\d)(?=[\d]*[^\W\d_])[^\W_]{12,}", re.IGNORECASE)
"""How a key begins, or a long word of letters and digits, which no part of a model's name is."""


def escaped(text: str) -> str:
    """Return a text on one line, with characters that a terminal obeys, or does not show, as Python writes them."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def looks_like_key(word: str) -> bool:
    """Return whether a word may be a key: where one may have been put in the place of a name."""
    return KEY.search(word) is not None


def shown(value: object) -> str:
    """Return a wrong value for a message: a number or a short word. Of all else, which may be a key, only the type."""
    if value is None or isinstance(value, Number):
        return repr(value)
    if not isinstance(value, str):
        return type(value).__name__
    return repr(value) if len(value) < MIN_KEY and not looks_like_key(value) else f"a text of {len(value)} characters"


def shown_name(name: object) -> str:
    """Return a wrong name for a message, unless it looks like a key or like a text."""
    return repr(name) if isinstance(name, str) and NAME.fullmatch(name) and not looks_like_key(name) else shown(name)


def masked(message: str) -> str:
    """Replace the words of a message that look like keys by an ellipsis."""
    return re.sub(r"\S+", lambda word: "…" if looks_like_key(word[0]) else word[0], message)


class _Escaping(logging.Filter):
    """Escape the arguments of a log line, and the traceback after it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_argument, record.args))
        elif record.args:
            record.args = {name: _argument(value) for name, value in record.args.items()}
        if record.exc_info and record.exc_info[1]:
            record.exc_text = "\n".join(_lines(record.exc_info[1]))
        return True


def _lines(error: BaseException) -> Iterator[str]:
    """Yield the lines of a traceback, without those of source files, which no event loop may read."""
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None:
        yield from _lines(earlier)
        yield ""
    yield "Traceback (most recent call last):"
    for frame, number in traceback.walk_tb(error.__traceback__):
        yield f'  File "{escaped(frame.f_code.co_filename)}", line {number}, in {frame.f_code.co_name}'
    yield escaped(f"{type(error).__qualname__}: {error}")


def _argument(value: object) -> object:
    return value if isinstance(value, int | float) else escaped(str(value))


_escaping = _Escaping()


def get_logger(name: str) -> logging.Logger:
    """Return a logger of this package. What its lines are made of is escaped; a logger above has no part in that."""
    found = logging.getLogger(name)
    found.addFilter(_escaping)
    return found
