"""Whether what somebody else says repeats a text or a key of the user's.

Providers quote the input they refuse, whole, cut short, or escaped as JSON and Python write it; some repeat a wrong
key. Errors end up in logs, so what repeats either is not passed on, neither in a message nor as the cause of an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

__all__ = ["RUN", "harmless", "hidden", "repeats"]

RUN = 20
"""Characters in a row, of a text that has as many, that count as a repetition."""
WORD = 12
"""Characters of a text that is recognised without quotation marks around it."""
LONGEST = 4_000
"""Characters of a cause beyond which it is not searched, but left out."""
SHORTEST = 8
"""Characters of a key: what is shorter is a placeholder, such as ``none``."""

ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
QUOTED_KEY = re.compile(r"(?<=key provided: )\S+|\bsk-[\w*-]{4,}", re.IGNORECASE)
"""OpenAI repeats a wrong key, a short one in full."""


def repeats(words: str, texts: Sequence[str]) -> bool:
    """Say whether words repeat one of the texts, or ``RUN`` characters of it; white space and escapes do not matter."""
    forms = {_flat(words), _flat(ESCAPE.sub(_unescaped, words))}
    flat = [_flat(text) for text in texts]
    for text in flat:
        if len(text) <= RUN and any(_holds(form, text) for form in forms):
            return True
    everything = "\n".join(text for text in flat if len(text) > RUN)
    return any(_shares(form, everything) for form in forms)


def hidden(words: str, secrets: Sequence[str]) -> str:
    """Return words with keys replaced by an ellipsis."""
    words = QUOTED_KEY.sub("…", words)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            words = words.replace(secret, "…")
    return words


def harmless(error: BaseException, texts: Sequence[str], secrets: Sequence[str] = ()) -> bool:
    """Say whether nothing that a traceback of ``error`` prints repeats a text or holds a key."""
    secrets = [secret for secret in secrets if len(secret) >= SHORTEST]
    return not any(
        len(words) > LONGEST or any(secret in words for secret in secrets) or repeats(words, texts)
        for words in set(_shown(error))
    )


def _shown(error: BaseException) -> Iterator[str]:
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield from (str(one), repr(one), *getattr(one, "__notes__", ()))
            waiting += [more for more in (one.__cause__, one.__context__, *one.args) if isinstance(more, BaseException)]


def _holds(words: str, text: str) -> bool:
    if len(text) >= WORD:
        return text in words
    return any(f"{mark}{text}{mark}" in words for mark in "\"'`")


def _shares(words: str, everything: str) -> bool:
    """Say whether the two have ``RUN`` characters in a row in common: then one of these blocks lies among them."""
    half = RUN // 2
    for start in range(0, len(words) - half + 1, half):
        if words[start : start + half] in everything and any(
            words[first : first + RUN] in everything
            for first in range(max(0, start - half), min(start, len(words) - RUN) + 1)
        ):
            return True
    return False


def _flat(words: str) -> str:
    return " ".join(words.split())


def _unescaped(found: re.Match[str]) -> str:
    code, letter = found.groups()
    return chr(int(code, 16)) if code else " " if letter in "nrt" else letter
