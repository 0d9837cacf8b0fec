"""Counting tokens without a tokenizer, and cutting texts to a number of tokens.

The estimate is an upper one, because budgets and limits must not be passed: it has to hold for tokenizers of 30,000 to
250,000 pieces, in any script. ASCII words cost a token for every four letters begun, digits and punctuation one each (a
number one more), white space one for every four blanks that follow another; every other script costs four tokens for
five bytes of UTF-8, which is more than two for a Chinese, Japanese or Korean character. Measured against cl100k_base on
English prose and Python source it is 1.4 to 1.6 times the true number; only words of random letters exceed it. So each
character of a long run without blanks and punctuation, such as an image in a notebook, costs a token.
"""

import re
from collections.abc import Callable
from numbers import Real
from typing import Any, cast

from ..types import OverlongPolicy

MOST_TOKENS = 10**9
"""That a provider can mean when it says what it bills for one request, or what it bears in a minute."""
MOST_TIMES = 10
"""A plausible number of billed tokens is at most so many times the estimate, and ``ADDED`` more for each text."""
ADDED = 1000
LEAST_PART = 50
"""The estimate is at most so many times a plausible number of billed tokens."""
LEAST_RUN = 64
"""Characters of what is no word in any language."""
LEAST_VARIETY = 10
"""Different characters in it."""
_RUN = re.compile(f"[A-Za-z0-9+/=_-]{{{LEAST_RUN},}}")
_ASCII_WORD = re.compile(r"[A-Za-z]+")
_BLANKS = re.compile(r"\s+")
_NUMBER = re.compile(r"\d+")


def estimate(text: str) -> int:
    """Return an upper estimate of the tokens of ``text`` for any current embedding model."""
    runs = sum(map(len, filter(_is_random, _RUN.findall(text))))
    if runs:
        text = _RUN.sub(lambda run: " " if _is_random(run[0]) else run[0], text)
    words = sum(-(-len(word) // 4) for word in _ASCII_WORD.findall(text))
    blanks = sum(len(run) // 4 for run in _BLANKS.findall(text))
    rest = _BLANKS.sub("", _ASCII_WORD.sub("", text))
    marks = len(rest)
    if not rest.isascii():
        marks = len(rest.encode("ascii", "ignore"))
        marks += -(-4 * (len(rest.encode("utf-8")) - marks) // 5)
    return runs + words + blanks + marks + len(_NUMBER.findall(text)) + 2


def _is_random(run: str) -> bool:
    """Tell an image or a key from a line that is drawn."""
    return len(set(run)) >= LEAST_VARIETY


def parse_token_count(tokens: Any) -> int | None:
    """Parse the billed tokens of an answer; ``None`` where there is no number, or one that cannot be."""
    if not isinstance(tokens, Real) or isinstance(tokens, bool):
        return None
    number = cast("float", tokens)
    return int(number) if 0 <= number <= MOST_TOKENS and number == int(number) else None


def implausible_count(tokens: Any) -> str | None:
    """Return a reported number of billed tokens that no bill can have, such as -1 or NaN, in a few characters."""
    if not isinstance(tokens, Real) or isinstance(tokens, bool) or parse_token_count(tokens) is not None:
        return None
    try:
        return f"{float(tokens):g}"
    except OverflowError:  # of a whole number without bounds
        return "more than 1e308"


def plausible_count(tokens: Any, estimate: int, texts: int) -> tuple[int | None, str | None]:
    """Compare the reported tokens of a request with their estimate.

    Estimates are upper ones, up to three times the true number; a server may cut long texts, or add words of its own to
    each text. So the band is wide. What is outside is a defect of a server or a gateway: such a bill would use up a
    budget at once, or never.

    Returns:
        The tokens, ``None`` where the estimate is to be booked; and the reported number where it is not plausible.
    """
    count = parse_token_count(tokens)
    if count is None:
        return None, implausible_count(tokens)
    too_many = count > MOST_TIMES * estimate + ADDED * texts
    too_few = count * LEAST_PART < estimate
    return (None, str(count)) if too_many or too_few else (count, None)


def split_text(text: str, limit: int, policy: OverlongPolicy, count: Callable[[str], int]) -> list[str]:
    """Cut ``text`` into parts of at most ``limit`` tokens: the first alone for ``"truncate"``, all for ``"mean"``.

    Parts end after white space where there is some in their last tenth, so that words stay whole.
    """
    parts: list[str] = []
    rest = text
    while rest:
        part = _prefix(rest, limit, count)
        parts.append(part)
        if policy != "mean":
            break
        rest = rest[len(part) :]
    return parts


def _prefix(text: str, limit: int, count: Callable[[str], int]) -> str:
    part = text[: limit * 8]  # more characters than that to a token is no language
    while (tokens := count(part)) > limit:
        if len(part) == 1:
            return part
        part = part[: min(len(part) - 1, len(part) * limit // tokens) or 1]
    if part == text:
        return text
    start = len(part) - len(part) // 10
    whole_words = part[: max(part.rfind(blank, start) for blank in " \n\t") + 1]
    return whole_words if whole_words and count(whole_words) <= limit else part
