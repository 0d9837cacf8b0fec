"""Before anything is called: check the texts, and pack them into requests.

Pure functions. ``validate`` refuses what no provider accepts, naming the positions; ``pack`` splits texts into
requests that keep every documented limit: by count, by tokens and by bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..errors import InvalidInputError
from ..types import Limits

__all__ = ["chunks", "listed", "pack", "validate"]

SHOWN = 20
"""Positions that a message lists before it stops."""


def chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut texts into lists of ``size``, which are made one at a time.

    Raises:
        InvalidInputError: one string stands where a list is wanted, or no list at all.
    """
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        validate(texts)
    rest = iter(texts)
    return iter(lambda: list(islice(rest, size)), [])


def validate(texts: Iterable[str], first: int = 0) -> list[str]:
    """Return the texts as a list.

    Args:
        first: the position of the first, for errors.

    Raises:
        InvalidInputError: one string stands where a list is wanted, or some texts are not strings, are empty, or are
            not valid Unicode; ``indices`` are their positions.
    """
    if isinstance(texts, str | bytes):
        raise InvalidInputError(
            f"texts must be a list of strings, not one {type(texts).__name__}. Write embed([text], …)."
        )
    try:
        items = list(texts)
    except TypeError as error:
        raise InvalidInputError(f"texts must be a list of strings, not {type(texts).__name__}.") from error
    if any(map(_fault, items)):
        faults = {index: fault for index, text in enumerate(items, first) if (fault := _fault(text))}
        raise InvalidInputError(_complaint(faults), indices=tuple(faults))
    return items


def _fault(text: object) -> str:
    if not isinstance(text, str):
        return f"not a string but {type(text).__name__}"
    if not text:
        return "empty"
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not valid Unicode (a lone surrogate)"
    return ""


def _complaint(faults: dict[int, str]) -> str:
    by_fault: dict[str, list[int]] = {}
    for index, fault in faults.items():
        by_fault.setdefault(fault, []).append(index)
    parts = [f"{fault}: {listed(indices)}" for fault, indices in by_fault.items()]
    return (
        f"{len(faults)} of the texts cannot be embedded, nothing was sent. By position: {'; '.join(parts)}. "
        "Leave them out, for instance with [text for text in texts if text]."
    )


def listed(indices: Sequence[int]) -> str:
    """Return positions for a message, the first few of many."""
    shown = ", ".join(map(str, indices[:SHOWN]))
    return shown + (f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else "")


def pack(tokens: Sequence[int], sizes: Sequence[int], limits: Limits) -> list[slice]:
    """Split texts, given by their ``tokens`` and ``sizes`` in bytes, into consecutive requests within ``limits``.

    A text that alone is over a limit of the request gets a request of its own: its provider decides.
    """
    requests: list[slice] = []
    start = request_tokens = request_size = 0
    for position, (text_tokens, text_size) in enumerate(zip(tokens, sizes, strict=True)):
        full = (
            position - start >= limits.texts
            or (limits.tokens is not None and request_tokens + text_tokens > limits.tokens)
            or (limits.size is not None and request_size + text_size > limits.size)
        )
        if full and position > start:
            requests.append(slice(start, position))
            start, request_tokens, request_size = position, 0, 0
        request_tokens += text_tokens
        request_size += text_size
    if start < len(tokens):
        requests.append(slice(start, len(tokens)))
    return requests
