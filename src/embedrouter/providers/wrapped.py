"""Embedders that users already have, as backends: LangChain's, LlamaIndex's, or a function.

Embedders are told apart by their methods, so that neither framework is imported. An embedder keeps its own batching,
retries and truncation; its vectors are checked like those of any provider.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._process import in_thread
from ..errors import BackendError, BadResponseError, RequestTimeoutError, UnavailableError
from ..models import Backend, Card, Model, custom_card, framework_methods
from ..types import Answer, Candidate, InputType
from . import Description
from ._redaction import safe_to_chain
from ._responses import kind_of_status

__all__ = ["WrappedBackend"]

STATUS = ("status_code", "http_status", "status")
"""Attributes of SDKs' exceptions that hold the HTTP status."""

INHERITED = "langchain_core.embeddings.embeddings"
"""The module of LangChain's base class: its asynchronous methods take threads of the loop's default executor."""

Method = Callable[[list[str], InputType], Any]
AsyncMethod = Callable[[list[str], InputType], Awaitable[Any]]


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return what the user declares of the embedder."""
    return Description(cards.get(model.name) or custom_card(model, dimensions))


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    """Return the backend of an embedder."""
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
        self._name = name
        self._embed, self._aembed = _methods(embedder)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder, which keeps its own time limit."""
        request = self.build_request(texts)
        try:
            return self.parse_answer(self.send(request, input_type))
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self.translate_error(error, texts)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder's asynchronous form, for at most ``timeout`` seconds."""
        request = self.build_request(texts)
        try:
            async with asyncio.timeout(timeout):
                return self.parse_answer(await self.asend(request, input_type))
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self.translate_error(error, texts)
        raise failure

    def build_request(self, texts: Sequence[str]) -> list[str]:
        """Return the texts as a list, which embedders take."""
        return list(texts)

    def send(self, request: list[str], input_type: InputType) -> Any:
        """Call the embedder."""
        return self._embed(request, input_type)

    async def asend(self, request: list[str], input_type: InputType) -> Any:
        """Call the embedder's asynchronous methods; without such methods, the synchronous ones in a thread."""
        return await self._aembed(request, input_type)

    def parse_answer(self, rows: Any) -> Answer:
        """Return the embedder's vectors as an array.

        Raises:
            BadResponseError: the embedder returned something else.
        """
        try:
            return Answer(np.ascontiguousarray(rows, np.float32), tokens=None)
        except (ValueError, TypeError) as error:
            raise BadResponseError("what came back is not a list of vectors", model=self._name) from error

    def translate_error(self, error: Exception, texts: Sequence[str]) -> Exception:
        """Return our error for a failure of the network or of a provider behind the embedder, or ``error`` itself.

        The embedder's error becomes the cause, unless a traceback would then print a text.
        """
        ours = _translated(error, self._name)
        if ours is not error:
            ours.__cause__ = error if safe_to_chain(error, texts) else None
        return ours


def _methods(embedder: Any) -> tuple[Method, AsyncMethod]:
    """Return the functions that embed texts synchronously and asynchronously."""
    if (names := framework_methods(embedder)) is not None:
        documents, query = names

        def framework(texts: list[str], input_type: InputType) -> Any:
            if input_type == "document":
                return getattr(embedder, documents)(texts)
            return [getattr(embedder, query)(text) for text in texts]

        async def aframework(texts: list[str], input_type: InputType) -> Any:
            method = getattr(embedder, f"a{documents if input_type == 'document' else query}", None)
            if method is None or getattr(method, "__module__", None) == INHERITED:
                return await in_thread(framework, texts, input_type)
            return await method(texts) if input_type == "document" else [await method(text) for text in texts]

        return framework, aframework

    takes_input_type = "input_type" in inspect.signature(embedder).parameters

    def function(texts: list[str], input_type: InputType) -> Any:
        return embedder(texts, input_type=input_type) if takes_input_type else embedder(texts)

    async def afunction(texts: list[str], input_type: InputType) -> Any:
        return await in_thread(function, texts, input_type)

    return function, afunction


def _translated(error: Exception, model: str) -> Exception:
    if isinstance(error, BackendError):
        return error
    reason = type(error).__name__
    status = next((s for s in (getattr(error, name, None) for name in STATUS) if isinstance(s, int)), None)
    if status is not None and (kind := kind_of_status(status)) is not None:
        return kind(f"{reason}, HTTP {status}", model=model, status=status)
    if isinstance(error, TimeoutError):
        return RequestTimeoutError("no answer in time", model=model)
    if isinstance(error, OSError):
        return UnavailableError(f"the connection failed ({reason})", model=model, perhaps_billed=True)
    return error
