"""Embedders that users already have, as backends: LangChain's, LlamaIndex's, or a function.

Embedders are told apart by their methods, so that neither framework is imported. An embedder keeps its own batching,
retries and truncation; its vectors are checked like those of any provider.
"""

import asyncio
import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from inspect import isawaitable
from typing import Any

import numpy as np

from .._display import shown_name
from .._process import in_thread
from ..errors import BackendError, BadResponseError, ConfigError, RequestTimeoutError, UnavailableError
from ..models import Backend, Catalogue, Model, custom_card, did_you_mean, framework_methods
from ..types import Answer, Candidate, InputType
from . import Description, never_sent
from ._redaction import safe_to_chain
from ._responses import UNREADABLE, as_numbers, kind_of_status, read_vector, stack_vectors

STATUS = ("status_code", "http_status", "status")
"""Attributes of SDKs' exceptions that hold the HTTP status."""

INHERITED = "langchain_core.embeddings.embeddings"
"""The module of LangChain's base class: its asynchronous methods take threads of the loop's default executor."""


NO_SETTINGS = re.compile(
    r".*(tokens|count|calls|usage|time|seconds|retr|cache|batch|chunk|worker|thread|concurr|key|secret|passw|auth|url|host"
    r"|port$|api_base|endpoint|proxy|header|organi[sz]ation|device|progress|verbose|debug|client|callback|metadata|tags)"
)
"""Matches the names of settings on which no vector depends: counters, keys, addresses, waits and sizes of requests."""

SETTINGS = re.compile(r".*(model|deployment|revision|dimension|prompt|instruct|encode_kwargs)")
"""Matches the names of attributes that are settings, also where the constructor calls them otherwise."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return what the user declares of the embedder, whose name and settings are its identity.

    Raises:
        ConfigError: ``like=`` names no model of the catalogue, or the declaration does not suffice.
    """
    if model.like is None:
        card = catalogue.get(model.name) or custom_card(model, dimensions)
    elif (known := catalogue.find(model.like)) is not None:
        card = replace(known, model=model.name, same_as="", prompts=None, concurrency=None)
    else:
        raise ConfigError(
            f"{model.name}: the catalogue does not know like={shown_name(model.like)}.{did_you_mean(model.like)} "
            "Run embedrouter models for its names, or write space= and dimensions=."
        )
    settings = _settings(model.embedder)
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    return Description(card, identity=f"{model.name}#{digest}" if settings else None)


def _settings(embedder: Any) -> dict[str, Any]:
    """Return the settings by which two embedders of one class, or two functions of one name, differ."""
    if isinstance(embedder, partial):
        given = {str(place): value for place, value in enumerate(embedder.args)} | embedder.keywords
        return _settings(embedder.func) | _plain_items(given)
    holder = getattr(embedder, "__self__", embedder)
    arguments = _parameters(embedder if inspect.isfunction(embedder) else type(holder))
    attributes: dict[str, Any] = dict(getattr(holder, "__dict__", {}))
    found = {name: value for name, value in attributes.items() if name in arguments or SETTINGS.match(name.lower())}
    if inspect.isfunction(embedder):
        found |= {name: item.default for name, item in arguments.items() if item.default is not item.empty}
        with suppress(ValueError):  # a variable that has no value yet
            outer = inspect.getclosurevars(embedder).nonlocals
            found |= {name: value for name, value in outer.items() if isinstance(value, str | int | float)}
    return _plain_items({name: value for name, value in found.items() if not NO_SETTINGS.match(name.lower())})


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # it is not written in Python
        return {}


def _plain_items(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are text, numbers, or lists and tables of these."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        with suppress(TypeError, ValueError):
            plain[str(name)] = json.loads(json.dumps(value))
    return plain


FORM = (
    "A function that is wrapped takes a list of texts and returns a list of vectors, one for each. Of one that takes a "
    "single text write Model.wrap(lambda texts: [function(text) for text in texts], …)."
)


class WrappedBackend(Backend):
    """Calls an embedder of the user's.

    The embedder has LangChain's ``embed_documents`` and ``embed_query``, or LlamaIndex's ``get_text_embedding_batch``
    and ``get_query_embedding``, or takes a list of texts (and ``input_type=``, if it has such a parameter) and returns
    a list of vectors or an array.
    """

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self._embedder, self._name = model.embedder, model.name
        self._length, self._number = candidate.space.dimensions, candidate.number
        self._methods = framework_methods(self._embedder)
        self._takes_input_type = self._methods is None and "input_type" in inspect.signature(self._embedder).parameters

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder, which keeps its own time limit."""
        try:
            return self._call(list(texts), input_type)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self._translate(error, texts)
        raise failure

    async def aembed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Call the embedder's asynchronous form, for at most ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                return await self._acall(list(texts), input_type)
        except Exception as error:  # noqa: BLE001 - raised below
            failure = self._translate(error, texts)
            ended = _of_ended_loop(error)
        if ended:  # the synchronous form has a client of its own, and nothing was sent
            return await in_thread(self.embed, texts, input_type, timeout=timeout)
        raise failure

    def _call(self, texts: list[str], input_type: InputType) -> Answer:
        if self._methods is None:
            settings = {"input_type": input_type} if self._takes_input_type else {}
            answer = self._answer(self._embedder(texts, **settings))
            if answer.vectors.ndim != 2 or len(answer.vectors) != len(texts):
                raise BadResponseError(
                    f"{len(answer.vectors)} rows came for {len(texts)} texts. {FORM}", model=self._name, retryable=False
                )
            return answer
        documents, query = (getattr(self._embedder, name) for name in self._methods)
        if input_type == "document":
            return self._answer(documents(texts))
        return self._answer([copied(query(text)) for text in texts])

    async def _acall(self, texts: list[str], input_type: InputType) -> Answer:
        """Call the embedder's asynchronous method; where it has none of its own, the synchronous one in a thread."""
        method = self._methods and getattr(self._embedder, "a" + self._methods[input_type == "query"], None)
        if method is None or getattr(method, "__module__", None) == INHERITED:
            return await in_thread(self._call, texts, input_type)
        if input_type == "document":
            return self._answer(await method(texts))
        return self._answer([copied(await method(text)) for text in texts])

    def _answer(self, rows: Any) -> Answer:
        """Copy vectors before the embedder is called again: it may use one buffer for all its answers."""
        if isinstance(rows, Mapping | str | bytes | None) or isawaitable(rows):
            if inspect.iscoroutine(rows):
                rows.close()
            kind = "None" if rows is None else type(rows).__name__
            raise BadResponseError(f"{kind} came back. {FORM}", model=self._name, retryable=False)
        try:
            if isinstance(rows, np.ndarray) and rows.dtype != object and self._number == "float32":
                return Answer(np.array(rows, np.float32, order="C"), tokens=None)
            found = [read_vector(row, partial(as_numbers, number=self._number)) for row in rows]
            return Answer(stack_vectors(found, self._length, self._number), tokens=None)
        except UNREADABLE as error:
            raise BadResponseError(
                f"what came back is not a list of vectors. {FORM}", model=self._name, retryable=False
            ) from error

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
            if self._methods is None and isinstance(error, TypeError | AttributeError):
                error.add_note(FORM)
            return error
        ours.__cause__ = error if safe_to_chain(error, texts) else None
        return ours


def _of_ended_loop(error: BaseException | None) -> bool:
    """Return whether an embedder's asynchronous client belongs to an event loop that has ended."""
    while error is not None and not (isinstance(error, RuntimeError) and "loop is closed" in str(error)):
        error = error.__cause__ or error.__context__
    return error is not None


def copied(vector: Any) -> Any:
    """Copy the vector of one query; what is no vector stays, and spoils no other."""
    try:
        return np.array(vector, np.float32)
    except UNREADABLE:
        return None


create = WrappedBackend
