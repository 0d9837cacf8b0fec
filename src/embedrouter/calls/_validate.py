"""Validate texts before any request, and report invalid texts by position."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeAlias, TypeVar

from .._display import shown
from ..errors import ConfigError, InputRejectedError, InvalidInputError
from ..types import Space
from ._inputs import EMPTY, defect, label_of, line_for, text_in, texts_in

SHOWN = 20
"""Maximum number of positions in a message."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Refusal: TypeAlias = InvalidInputError | InputRejectedError
"""An error that names texts, by their positions."""


def validate(texts: Iterable[str], first: int = 0, given: object = None) -> list[str]:
    """Return the texts as a list of plain strings: a subclass of ``str`` may join itself with a prompt in its own way.

    Args:
        texts: any ordered collection of strings, also a column of a data frame, an array, documents of LangChain and
            nodes of LlamaIndex.
        first: the position of the first text, for errors.
        given: what the user handed over, where ``texts`` is a part of it.

    Raises:
        InvalidInputError: ``texts`` is no such collection, or some texts are not strings, are empty, or are not valid
            Unicode; ``indices`` are the positions of these texts. The message has the line to write.
    """
    items = [text if type(text) is str else text_in(text) for text in texts_in(texts)]
    if any(map(_fault, items)):
        faults = {index: (text, fault) for index, text in enumerate(items, first) if (fault := _fault(text))}
        given, some = texts if given is None else given, len(faults) < len(items)
        raise InvalidInputError(_complaint(faults, given, first, some=some), indices=tuple(faults))
    return items


CHUNK_BYTES = 64 * 2**20
"""Bytes of vectors in one result of ``embed_iter``."""


def chunk_size_of(size: int | None, space: Space) -> int:
    """Return the number of texts in one result of ``embed_iter``, by default as many as have ``CHUNK_BYTES``.

    Raises:
        ConfigError: ``size`` is no such number.
    """
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ConfigError(f"chunk_size is a number of texts, at least 1, not {shown(size)}.")
    return size or max(1, CHUNK_BYTES // (4 * space.dimensions))


def chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Split texts into lists of ``size``, one list at a time.

    Raises:
        InvalidInputError: ``texts`` is a single string, or no ordered collection.
    """
    rest = iter(texts_in(texts))
    return iter(lambda: list(islice(rest, size)), [])


def achunks(texts: Iterable[str] | AsyncIterable[str], size: int) -> AsyncIterator[list[str]]:
    """Do what ``chunks`` does, also for an async iterable."""
    if not isinstance(texts, AsyncIterable):
        texts_in(texts)
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


def without_refused(
    items: Iterable[Item], call: Callable[[list[Item]], Answer], refuse: Callable[[Refusal, list[Item]], object]
) -> tuple[list[Item], Answer]:
    """Call a router's method, and again without the items that it refuses, until it takes the others.

    Args:
        call: is given the items.
        refuse: is given the error, whose indices are positions in the items of that call; raises where a refusal is an
            error.

    Returns:
        The items of the last call, and its answer.
    """
    rest = list(items)
    while True:
        try:
            return rest, call(rest)
        except (InvalidInputError, InputRejectedError) as error:
            if not error.indices:
                raise
            refuse(error, rest)
            refused = set(error.indices)
            rest = [item for index, item in enumerate(rest) if index not in refused]


def positions(texts: Sequence[str], wanted: Collection[str], first: int) -> list[int]:
    """Return the positions of the wanted texts, counted from ``first``."""
    return [index for index, text in enumerate(texts, first) if text in wanted]


def format_positions(indices: Sequence[int], given: object = None) -> str:
    """Format positions for a message, at most ``SHOWN`` positions; with the labels of a column of pandas."""
    labels = [label_of(given, index) for index in indices[:SHOWN]]
    pairs = zip(indices, labels, strict=False)
    listed = ", ".join(f"{index} (label {label})" if label else str(index) for index, label in pairs)
    return listed + (f" and {len(indices) - SHOWN} more" if len(indices) > SHOWN else "")


def _fault(text: object) -> str:
    if type(text) is not str:
        return defect(text)
    if not text:
        return EMPTY
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not valid Unicode (a lone surrogate)"
    return ""


def _complaint(faults: Mapping[int, tuple[object, str]], given: object, first: int, *, some: bool) -> str:
    by_fault: dict[str, list[int]] = {}
    for index, (_, fault) in faults.items():
        by_fault.setdefault(fault, []).append(index)
    parts = [f"{fault}: {format_positions(indices, given)}" for fault, indices in by_fault.items()]
    sent = "none of this chunk was sent" if first else "nothing was sent"
    return (
        f"{len(faults)} of the texts cannot be embedded, {sent}. By position: {'; '.join(parts)}. "
        f"{line_for(faults, given, some=some)}"
    )
