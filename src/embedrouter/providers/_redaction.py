"""Redaction: detect provider messages that echo the user's input or API keys.

Providers quote the input they refuse: whole, cut short, or escaped as JSON and Python write it. Some repeat a wrong
key. Errors end up in logs, so a text or a key is passed on neither in a message nor in the cause of an error.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from .._display import MIN_KEY, escaped

MIN_ECHO = 20
"""Consecutive characters of a text that count as an echo; a shorter text must be echoed whole."""
MIN_UNQUOTED = 12
"""Characters from which a text that is echoed whole is recognised without quotation marks around it."""
MAX_SEARCHED = 2_000
"""Characters that are searched of an error; an error that says more is not chained."""

ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
ECHOED_KEY = re.compile(r"(?<=key provided: )\S+|\bsk-[\w*-]{4,}", re.IGNORECASE)
"""A wrong key as OpenAI echoes it: a short one is echoed in full."""
POSSIBLE_KEY = re.compile(r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}", re.ASCII)


def echoes_input(message: str, texts: Sequence[str]) -> bool:
    """Detect a message that repeats one of the texts, or ``MIN_ECHO`` characters of one.

    White space and escapes make no difference.
    """
    return _echo([message], texts)


def _echo(messages: Iterable[str], texts: Sequence[str]) -> bool:
    """Return whether one of the messages repeats a text; the texts, which may be long, are prepared once."""
    forms = {_squeeze(form) for message in messages for form in (message, ESCAPE.sub(_unescape, message))}
    squeezed = [_squeeze(text) for text in texts]
    short_texts = [text for text in squeezed if len(text) <= MIN_ECHO]
    long_texts = "\n".join(text for text in squeezed if len(text) > MIN_ECHO)
    return any(_overlaps(form, long_texts) or any(_contains(form, text) for text in short_texts) for form in forms)


def mask_keys(message: str, secrets: Sequence[str]) -> str:
    """Replace keys in a message by an ellipsis."""
    message = ECHOED_KEY.sub("…", message)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_KEY:
            message = message.replace(secret, "…")
    return message


def find_possible_keys(message: str) -> list[str]:
    """Return the words of a message that may be keys: long ones of letters and digits."""
    return POSSIBLE_KEY.findall(message)


def safe_to_chain(error: BaseException, texts: Sequence[str], secrets: Sequence[str] = ()) -> bool:
    """Return whether a traceback of ``error`` would print no text, no key, nothing that is escaped, and not much."""
    secrets = [secret for secret in secrets if len(secret) >= MIN_KEY]
    try:
        printed = set(_printed(error))
    except Exception:  # noqa: BLE001 - of a library: some errors cannot be printed
        return False
    return (
        all(len(words) <= MAX_SEARCHED for words in printed)
        and all(escaped(line) == line for words in printed for line in words.split("\n"))
        and not any(secret in words for secret in secrets for words in printed)
        and not _echo(printed, texts)
    )


def _printed(error: BaseException) -> Iterator[str]:
    """Yield what a traceback prints of an error, its causes and the errors among its arguments."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield from (str(one), repr(one), *getattr(one, "__notes__", ()))
            waiting += [more for more in (one.__cause__, one.__context__, *one.args) if isinstance(more, BaseException)]


def _contains(message: str, text: str) -> bool:
    if len(text) >= MIN_UNQUOTED:
        return text in message
    return any(f"{mark}{text}{mark}" in message for mark in "\"'`")


def _overlaps(message: str, long_texts: str) -> bool:
    """Return whether the two have ``MIN_ECHO`` consecutive characters in common.

    Every such run holds at least one whole block of half its length, so only blocks that are found are looked at.
    """
    half = MIN_ECHO // 2
    for start in range(0, len(message) - half + 1, half):
        if message[start : start + half] in long_texts and any(
            message[first : first + MIN_ECHO] in long_texts
            for first in range(max(0, start - half), min(start, len(message) - MIN_ECHO) + 1)
        ):
            return True
    return False


def _squeeze(message: str) -> str:
    return " ".join(message.split())


def _unescape(found: re.Match[str]) -> str:
    code, letter = found.groups()
    return chr(int(code, 16)) if code else " " if letter in "nrt" else letter
