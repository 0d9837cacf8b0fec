"""What LlamaIndex hands over: nodes and texts that are empty are named, and its bar moves when vectors arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from llama_index.core.schema import BaseNode, MetadataMode

from .._display import first_few
from .._process import Future, threads
from ..calls import validate
from ..errors import InvalidInputError


class Turns:
    """The turns that a rate limiter of LlamaIndex gives. Two are equal if the limiter is the same."""

    def __init__(self, limiter: Any) -> None:
        self._limiter = limiter

    def __call__(self, loop: Any) -> Future[None]:
        """Return what is done when one request is allowed."""
        if loop is None:
            return threads.submit(self._limiter.acquire)
        return asyncio.run_coroutine_threadsafe(self._limiter.async_acquire(), loop)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Turns) and other._limiter is self._limiter

    def __hash__(self) -> int:
        return id(self._limiter)


def with_text(nodes: Sequence[BaseNode], on_empty: Literal["error", "skip"]) -> dict[int, str]:
    """Return the text of each node by position.

    Args:
        on_empty: ``"skip"`` leaves out the nodes without text.

    Raises:
        InvalidInputError: some nodes have no text; ``indices`` are their positions.
    """
    texts = {place: node.get_content(metadata_mode=MetadataMode.EMBED) for place, node in enumerate(nodes)}
    filled = {place: text for place, text in texts.items() if text}
    if on_empty == "error" and len(filled) < len(texts):
        empty = [place for place in texts if place not in filled]
        named = [f"{type(nodes[place]).__name__} {nodes[place].node_id!r} (position {place})" for place in empty]
        raise InvalidInputError(
            f"{len(empty)} of {len(nodes)} nodes have no text, nothing was sent: {first_few(named)}. Leave them out: "
            "[node for node in nodes if node.get_content(metadata_mode='embed')]; or RouterEmbedding(…, "
            "on_empty='skip') leaves such nodes without an embedding, and a pipeline does not store them.",
            indices=tuple(empty),
        )
    return filled


def checked(texts: Sequence[str]) -> list[str]:
    """Return the texts of a batch, validated all together before the first is sent.

    Raises:
        InvalidInputError: some texts cannot be embedded; the message says what LlamaIndex counts from.
    """
    try:
        return validate(texts)
    except InvalidInputError as error:
        if not error.indices:
            raise
        story, indices = str(error), error.indices
    raise InvalidInputError(
        f"{story} Positions count in the {len(texts)} texts that were handed over; an index hands over its nodes, at "
        "most insert_batch_size at a time. Its nodes without text: [node for node in nodes if not "
        "node.get_content(metadata_mode='embed')].",
        indices=indices,
    )


def require_text(text: str) -> None:
    """Refuse an empty text, which LlamaIndex hands over alone, such as an answer to be evaluated.

    Raises:
        InvalidInputError: the message says what may have been empty.
    """
    if isinstance(text, str) and not text:
        raise InvalidInputError(
            "The text is empty and has no vector; nothing was sent. Leave the call out where there is no text: an "
            "evaluator's empty response is a failure, and an empty query finds nothing.",
            indices=(0,),
        )
