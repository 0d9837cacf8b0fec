"""Embedders that users already have, as backends: LangChain's, LlamaIndex's, or a function.

Embedders are told apart by their methods, so that neither framework is imported. An embedder keeps its own batching,
retries and truncation; its vectors are checked like those of any provider.
"""

import asyncio
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from .._process import in_thread
from ..errors import BackendError, BadResponseError, RequestTimeoutError, UnavailableError
from ..models import Backend, Card, Model, custom_card, framework_methods
from ..types import Answer, Candidate, InputType
from . import Description, never_sent
from ._redaction import safe_to_chain
from ._responses import kind_of_status

STATUS = ("status_code", "http_status", "status")
"""Attributes of SDKs' exceptions that hold the HTTP status."""

INHERITED = "langchain_core.embeddings.embeddings"
"""The module of LangChain's base class: its asynchronous methods take threads of the loop's default executor."""


def describe(model: Model, cards: Mapping[str, Card], dimensions: int | None) -> Description:
    """Return what the user declares of the embedder."""
    return Description(cards.get(model.name) or custom_card(model, dimensions))


class WrappedBackend(Backend):
    """Calls an embedder of the user's.

    The embedder has LangChain's ``embed_documents`` and ``embed_query``, or LlamaIndex's ``get_text_embedding_batch``
    and ``get_query_embedding``, or takes a list of texts (and ``input_type=``, if it has such a parameter) and returns
    a list of vectors or an array.
    """

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self._embedder, self._name = model.embedder, model.name
        self._methods = framework_methods(self._embedder)
        self._takes_input_type = self._methods is None and "input_type" in signature(self._embedder).parameters

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder, which keeps its own time limit."""
        try:
            return self._answer(self._call(list(texts), input_type))
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self._translate(error, texts)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder's asynchronous form, for at most ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return self._answer(await self._acall(list(texts), input_type))
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self._translate(error, texts)
        raise failure

    def _call(self, texts: list[str], input_type: InputType) -> Any:
        if self._methods is None:
            return self._embedder(texts, **({"input_type": input_type} if self._takes_input_type else {}))
        documents, query = (getattr(self._embedder, name) for name in self._methods)
        return documents(texts) if input_type == "document" else [query(text) for text in texts]

    async def _acall(self, texts: list[str], input_type: InputType) -> Any:
        """Call the embedder's asynchronous method; where it has none of its own, the synchronous one in a thread."""
        method = self._methods and getattr(self._embedder, "a" + self._methods[input_type == "query"], None)
        if method is None or getattr(method, "__module__", None) == INHERITED:
            return await in_thread(self._call, texts, input_type)
        return await method(texts) if input_type == "document" else [await method(text) for text in texts]

    def _answer(self, rows: Any) -> Answer:
        try:
            return Answer(np.ascontiguousarray(rows, np.float32), tokens=None)
        except (ValueError, TypeError) as error:
            raise BadResponseError("what came back is not a list of vectors", model=self._name) from error

    def _translate(self, error: Exception, texts: Sequence[str]) -> Exception:
        """Return our error for a failure of the network or of a provider behind the embedder, or ``error`` itself.

        The embedder's error becomes the cause, unless a traceback would then print a text.
        """
        reason = type(error).__name__
        status = next((s for s in (getattr(error, name, None) for name in STATUS) if isinstance(s, int)), None)
        ours: BackendError
        if isinstance(error, BackendError):
            return error
        if status is not None and (kind := kind_of_status(status)) is not None:
            ours = kind(f"{reason}, HTTP {status}", model=self._name, status=status)
        elif isinstance(error, TimeoutError):
            ours = RequestTimeoutError("no answer in time", model=self._name)
        elif isinstance(error, OSError):
            sent = not never_sent(error)
            ours = UnavailableError(f"the connection failed ({reason})", model=self._name, perhaps_billed=sent)
        else:
            return error
        ours.__cause__ = error if safe_to_chain(error, texts) else None
        return ours


create = WrappedBackend
