"""Embedders that users already have, as backends: LangChain's, LlamaIndex's, or a function.

They are told apart by their methods, so that neither framework is imported. Whatever they do inside (batching, retries,
truncation) stays theirs; what comes back is checked like any provider's answer.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import (
    AuthenticationError,
    BackendError,
    BadResponseError,
    InputRejectedError,
    RateLimitedError,
    RequestTimeoutError,
    UnavailableError,
)
from ..models import Backend, Card, Model, custom_card
from ..types import Answer, Candidate, InputType
from . import Description
from ._redaction import harmless

__all__ = ["WrappedBackend"]

STATUS = ("status_code", "http_status", "status")
"""Where SDKs' exceptions keep the HTTP status."""


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return what the user declares of the embedder."""
    return Description(cards.get(model.name) or custom_card(model, dimensions))


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    return WrappedBackend(model.embedder, model.name)


class WrappedBackend(Backend):
    """Calls an embedder of the user's.

    Args:
        embedder: has LangChain's ``embed_documents`` and ``embed_query``, or LlamaIndex's ``get_text_embedding_batch``
            and ``get_query_embedding``, or takes a list of texts (and ``input_type=``, if it has such a parameter) and
            returns a list of vectors or an array.
        name: of the model, for messages.
    """

    def __init__(self, embedder: Any, name: str) -> None:
        self._embedder = embedder
        self._name = name
        if hasattr(embedder, "embed_documents") and hasattr(embedder, "embed_query"):
            self._ask, self._aask = self._langchain, self._alangchain
        elif hasattr(embedder, "get_text_embedding_batch") and hasattr(embedder, "get_query_embedding"):
            self._ask, self._aask = self._llama_index, self._allama_index
        else:
            self._ask, self._aask = self._function, self._afunction
            self._takes_input_type = "input_type" in inspect.signature(embedder).parameters

    _ask: Callable[[list[str], InputType], Any]
    _aask: Callable[[list[str], InputType], Awaitable[Any]]

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder; it keeps its own time limit."""
        try:
            return self._answer(self._ask(list(texts), input_type))
        except Exception as error:  # noqa: BLE001 - raised below
            failure = _translated(error, self._name, texts)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder's asynchronous form, for at most ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return self._answer(await self._aask(list(texts), input_type))
        except Exception as error:  # noqa: BLE001 - raised below
            failure = _translated(error, self._name, texts)
        raise failure

    def _answer(self, rows: Any) -> Answer:
        try:
            return Answer(np.ascontiguousarray(rows, np.float32), tokens=None)
        except (ValueError, TypeError) as error:
            raise BadResponseError("what came back is not a list of vectors", model=self._name) from error

    # The three kinds, twice

    def _langchain(self, texts: list[str], input_type: InputType) -> Any:
        if input_type == "document":
            return self._embedder.embed_documents(texts)
        return [self._embedder.embed_query(text) for text in texts]

    async def _alangchain(self, texts: list[str], input_type: InputType) -> Any:
        if input_type == "document":
            return await self._embedder.aembed_documents(texts)
        return [await self._embedder.aembed_query(text) for text in texts]

    def _llama_index(self, texts: list[str], input_type: InputType) -> Any:
        if input_type == "document":
            return self._embedder.get_text_embedding_batch(texts)
        return [self._embedder.get_query_embedding(text) for text in texts]

    async def _allama_index(self, texts: list[str], input_type: InputType) -> Any:
        if input_type == "document":
            return await self._embedder.aget_text_embedding_batch(texts)
        return [await self._embedder.aget_query_embedding(text) for text in texts]

    def _function(self, texts: list[str], input_type: InputType) -> Any:
        return self._embedder(texts, input_type=input_type) if self._takes_input_type else self._embedder(texts)

    async def _afunction(self, texts: list[str], input_type: InputType) -> Any:
        return await asyncio.to_thread(self._function, texts, input_type)


def _translated(error: Exception, model: str, texts: Sequence[str]) -> Exception:
    """Return our error for a failure of the network or of a provider behind the embedder, or ``error`` itself.

    What the embedder raised is its cause, unless that repeats a text.
    """
    ours = _ours(error, model)
    if ours is not error:
        ours.__cause__ = error if harmless(error, texts) else None
    return ours


def _ours(error: Exception, model: str) -> Exception:
    if isinstance(error, BackendError):
        return error
    reason = type(error).__name__
    status = next((s for s in (getattr(error, name, None) for name in STATUS) if isinstance(s, int)), None)
    match status:
        case 401 | 403:
            return AuthenticationError(f"{reason}, HTTP {status}", model=model, status=status)
        case 400 | 413 | 422:
            return InputRejectedError(f"{reason}, HTTP {status}", model=model, status=status)
        case 408:
            return RequestTimeoutError(f"{reason}, HTTP {status}", model=model, status=status)
        case 429:
            return RateLimitedError(f"{reason}, HTTP {status}", model=model, status=status)
        case int() if status >= 500:
            return UnavailableError(f"{reason}, HTTP {status}", model=model, status=status)
    if isinstance(error, TimeoutError):
        return RequestTimeoutError("no answer in time", model=model)
    if isinstance(error, OSError):
        return UnavailableError(f"the connection failed ({reason})", model=model, perhaps_billed=True)
    return error
