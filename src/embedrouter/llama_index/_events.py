"""What LlamaIndex's callbacks and instrumentation are told of a batch: who answered, and what it cost.

The framework's own events have the texts and the vectors, which its handlers count tokens of. Ours are the same events
with a ``summary`` beside them, in which there is neither.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent

from ..types import EmbeddingResult, figures

dispatcher = get_dispatcher(__name__)

Vectors = list[list[float]]

SUMMARY = "embedrouter"
"""The entry of a callback's payload that has the summary."""

_answers: ContextVar[list[EmbeddingResult] | None] = ContextVar("embedrouter_answers", default=None)


class RouterEmbeddingEndEvent(EmbeddingEndEvent):
    """A batch has been embedded."""

    summary: dict[str, Any] = Field(default_factory=dict)
    """Models, tiers and space of the vectors; tokens, cost and savings in US dollars; texts, and those from the cache.
    """

    @classmethod
    def class_name(cls) -> str:
        return "RouterEmbeddingEndEvent"


def noted(result: EmbeddingResult) -> EmbeddingResult:
    """Remember a result for the event of its batch."""
    if (answers := _answers.get()) is not None:
        answers.append(result)
    return result


async def observed(
    texts: list[str],
    embed: Callable[[list[str]], Awaitable[Vectors]],
    payload: dict[str, Any],
    callbacks: CallbackManager,
    tier_of: Callable[[str], str],
) -> Vectors:
    """Embed between the events of LlamaIndex's callbacks and instrumentation."""
    dispatcher.event(EmbeddingStartEvent(model_dict=payload))
    answers: list[EmbeddingResult] = []
    token = _answers.set(answers)
    try:
        with callbacks.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: payload}) as event:
            vectors = await embed(texts)
            said = summary(answers, tier_of)
            event.on_end(payload={EventPayload.CHUNKS: texts, EventPayload.EMBEDDINGS: vectors, SUMMARY: said})
    finally:
        _answers.reset(token)
    dispatcher.event(RouterEmbeddingEndEvent(chunks=texts, embeddings=vectors, summary=said))
    return vectors


def summary(results: list[EmbeddingResult], tier_of: Callable[[str], str]) -> dict[str, Any]:
    """Return what was answered, as plain data."""
    models = dict.fromkeys(model for result in results for model in result.models)
    return {
        **figures(results),
        "tier": ", ".join(dict.fromkeys(map(tier_of, models))),
        "space": ", ".join(dict.fromkeys(str(result.space) for result in results)),
    }
