"""Validate texts before any request, and report invalid texts by position."""

from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterable, Iterator, Sequence
from itertools import islice

from ..errors import InvalidInputError
from ..types import plain

SHOWN = 20
"""Maximum number of positions in a message."""


def validate(texts: Iterable[str], first: int = 0) -> list[str]:
    """Return the texts as a list of plain strings: a subclass of ``str`` may join itself with a prompt in its own way.

    Args:
        first: the position of the first text, for errors.

    Raises:
        InvalidInputError: ``texts`` is a single string, or some texts are not strings, are empty, or are not valid
            Unicode; ``indices`` are the positions of these texts.
    """
    _require_collection(texts)
    items = [text if type(text) is str else _plain(text) for text in texts]
    if any(map(_fault, items)):
        faults = {index: fault for index, text in enumerate(items, first) if (fault := _fault(text))}
        raise InvalidInputError(_complaint(faults), indices=tuple(faults))
    return items


def chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Split texts into lists of ``size``, one list at a time.

    Raises:
        InvalidInputError: ``texts`` is a single string, or not iterable.
    """
    _require_collection(texts)
    rest = iter(texts)
    return iter(lambda: list(islice(rest, size)), [])


def achunks(texts: Iterable[str] | AsyncIterable[str], size: int) -> AsyncIterator[list[str]]:
    """Do what ``chunks`` does, also for an async iterable."""
    if not isinstance(texts, AsyncIterable):
        _require_collection(texts)
    return _achunks(texts, size)


async def _achunks(texts: Iterable[str] | AsyncIterable[str], size: int) -> AsyncIterator[list[str]]:
    if not isinstance(texts, AsyncIterable):
        for part in chunks(texts, size):
            yield part
        return
    chunk: list[str] = []
    async for text in texts:
        chunk.append(text)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def positions(texts: Sequence[str], wanted: Collection[str], first: int) -> list[int]:
    """Return the positions of the wanted texts, counted from ``first``."""
    return [index for index, text in enumerate(texts, first) if text in wanted]


def format_positions(indices: Sequence[int]) -> str:
    """Format positions for a message, at most ``SHOWN`` positions."""
    shown = ", ".join(map(str, indices[:SHOWN]))
    return shown + (f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else "")


def _require_collection(texts: object) -> None:
    if isinstance(texts, str | bytes):
        raise InvalidInputError(
            f"texts must be a list of strings, not one {type(texts).__name__}. Write embed([text], …)."
        )
    if not isinstance(texts, Iterable):
        raise InvalidInputError(f"texts must be a list of strings, not {type(texts).__name__}.")


def _plain(text: str) -> str:
    """Return a text as a plain ``str``; what is no text stays, and is refused."""
    return plain(text) if issubclass(type(text), str) else text  # isinstance believes what an object says


def _fault(text: object) -> str:
    if type(text) is not str:
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
    parts = [f"{fault}: {format_positions(indices)}" for fault, indices in by_fault.items()]
    return (
        f"{len(faults)} of the texts cannot be embedded, nothing was sent. By position: {'; '.join(parts)}. "
        "Leave them out, for instance with [text for text in texts if text]."
    )
