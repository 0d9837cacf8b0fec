"""What shells complete: the names of models, tiers and tags, beside the commands and options that typer knows.

A shell asks at each press of the tab key, so an answer is read from files, and nothing is said where there is none.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from functools import wraps
from io import StringIO
from pathlib import Path

from ._console import say

VARIABLE = "_EMBEDROUTER_COMPLETE"
"""In which typer's scripts say what is asked."""
BASH = "complete_bash"


@contextmanager
def completing() -> Iterator[None]:
    """Answer a shell that asks for completions; an error is an empty answer.

    bash makes a word of each colon, so that typer would see three words in ``openai:text-embedding-3-small``, and
    replaces the last of them only.
    """
    if VARIABLE not in os.environ:
        yield
        return
    said, prefix = StringIO(), ""
    try:
        prefix = _join_words() if os.environ[VARIABLE] == BASH else ""
        with redirect_stdout(said):
            yield
    except SystemExit:
        pass
    except Exception:  # noqa: BLE001 - a traceback would stand in the line that is being typed
        sys.exit(1)
    for line in said.getvalue().splitlines():
        say(line.removeprefix(prefix))
    sys.exit(0)


def _join_words() -> str:
    """Join the words that bash split at colons, and return the last word up to its last colon."""
    words, current = os.environ.get("COMP_WORDS", "").split("\n"), int(os.environ.get("COMP_CWORD", "0"))
    joined: list[str] = []
    for word in words[: current + 1]:
        if joined and (word.startswith(":") or joined[-1].endswith(":")):
            joined[-1] += word
        else:
            joined.append(word)
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = "\n".join(joined), str(len(joined) - 1)
    head, colon, _ = joined[-1].rpartition(":")
    return head + colon


def _quiet(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """Return a function that gives typer the names that begin with a text, and none where they cannot be read."""

    @wraps(names)
    def complete(incomplete: str) -> list[str]:
        with suppress(Exception):
            return [name for name in names() if name.startswith(incomplete) and name.isprintable()]
        return []

    complete.__annotations__ = {"incomplete": str}
    del complete.__wrapped__
    return complete


@_quiet
def models() -> list[str]:
    """Return the names of the catalogue."""
    from ..models import load_catalogue

    return sorted(load_catalogue())


@_quiet
def providers() -> list[str]:
    """Return the providers of the catalogue."""
    from ..models import load_catalogue

    return sorted({card.provider for card in load_catalogue().values()})


@_quiet
def tiers() -> list[str]:
    """Return the tiers of the configuration that a search finds."""
    from ..models import TIERS
    from ._routers import find_config

    config = find_config(None, None)
    tables = config.routers()
    if config.is_tiered:
        return list(tables)
    (settings,) = tables.values()
    return list(settings.get("tiers", TIERS))


@_quiet
def tags() -> list[str]:
    """Return the tags of the ledger that a search finds."""
    from ._ledgers import find_ledgers, open_ledger

    found: set[str] = set()
    for file in find_ledgers(None, None):
        if isinstance(file, Path) and file.exists():  # a server may be far away
            with open_ledger(file) as ledger:
                found |= set(ledger.totals("tag"))
    return sorted(found - {""})
