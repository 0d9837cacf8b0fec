"""Runs for LangChain's callbacks: each embedding call inside a chain, tool or retriever is a child run of its own.

LangChain hands no callbacks to embedders. A chain keeps its own in a context variable. A retriever does not: a handler,
which each callback manager gets through ``register_configure_hook``, notes which retriever is running, so that its run
is the parent. Inside a function that LangSmith's ``traceable`` decorates, the function's run is. A run has counts,
names and money, and never a text or a vector. Outside of all of these nothing is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    Callbacks,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables.config import RunnableConfig, var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook
from langchain_core.tracers.langchain import LangChainTracer

from ..router import Router, wiring_of
from ..types import EmbeddingResult, InputType, figures

if TYPE_CHECKING:
    from langsmith import RunTree

NAME = "RouterEmbeddings"


class Retrieval:
    """A retriever that runs. Its context may outlive it, so the end is marked here."""

    def __init__(self, run_id: UUID, parent: UUID | None) -> None:
        self.run_id, self.parent = run_id, parent
        self.ended = False


_retrieval: ContextVar[Retrieval | None] = ContextVar("embedrouter_retrieval", default=None)


ALWAYS = property(lambda _: True)


class Retrievals(BaseCallbackHandler):
    """Notes the retrievers that run. It is called in their own contexts, because it runs inline."""

    run_inline = True
    ignore_llm = ignore_retry = ignore_agent = ignore_chain = ignore_chat_model = ignore_custom_event = ALWAYS

    def __init__(self) -> None:
        self._running: dict[UUID, Retrieval] = {}

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: UUID, parent_run_id: UUID | None = None, **_: Any
    ) -> None:
        self._running[run_id] = found = Retrieval(run_id, parent_run_id)
        _retrieval.set(found)

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self._end(run_id)

    def _end(self, run_id: UUID) -> None:
        if (found := self._running.pop(run_id, None)) is not None:
            found.ended = True

    def __deepcopy__(self, memo: Any) -> Retrievals:
        return self


retrievals = Retrievals()
_hook: ContextVar[Any] = ContextVar("embedrouter_retrievals", default=retrievals)
register_configure_hook(_hook, inheritable=True)


def switched_on(callbacks: Callbacks) -> list[BaseCallbackHandler]:
    """Return the tracer of LangSmith for a call outside of chains, where it is switched on and not among the callbacks.

    A retriever would make a tracer of its own, which no embedder can find.
    """
    if isinstance(callbacks, BaseCallbackManager) or var_child_runnable_config.get():
        return []
    given = callbacks or []
    found = CallbackManager.configure(callbacks).handlers
    return [item for item in found if isinstance(item, LangChainTracer) and item not in given]


_called_with: ContextVar[Any] = ContextVar("embedrouter_callbacks", default=None)


@contextmanager
def called_with(config: RunnableConfig | None) -> Iterator[None]:
    """Have the calls of a block use the callbacks of a configuration, where no chain is running."""
    token = _called_with.set(config.get("callbacks") if config else None)
    try:
        yield
    finally:
        _called_with.reset(token)


class Run:
    """The run of one embedding call, in both forms; ``result`` is set where the call returns."""

    def __init__(self, router: Router, texts: int, input_type: InputType, *tiers: str | None) -> None:
        self.result: EmbeddingResult | None = None
        self._leave: Callable[[], object] = _nothing
        self._given = _given()
        if self._given is not None:
            asked = next((tier for tier in tiers if tier is not None), wiring_of(router).default_tiers[input_type])
            self._inputs = {"texts": texts, "input_type": input_type, "tier": asked}
            provider, _, model = router.models[0].partition(":")
            named = {"ls_provider": provider, "ls_model_name": model, "ls_model_type": "embedding"}
            self._given["metadata"] = {**self._given["metadata"], **named}

    def __enter__(self) -> Self:
        if self._given is not None:
            manager = CallbackManager(**self._given)
            self._run = manager.on_chain_start({}, self._inputs, name=NAME, run_type="embedding")
            self._leave = _enter_span(self._run.run_id)
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _: Any) -> None:
        self._leave()
        if self._given is not None and error is not None:
            self._run.on_chain_error(_without_words(error))
        elif self._given is not None and self.result is not None:
            self._run.on_chain_end(_noted(self.result, self._run))

    async def __aenter__(self) -> Self:
        if self._given is not None:
            manager = AsyncCallbackManager(**self._given)
            self._arun = await manager.on_chain_start({}, self._inputs, name=NAME, run_type="embedding")
            self._leave = _enter_span(self._arun.run_id)
        return self

    async def __aexit__(self, _kind: Any, error: BaseException | None, _: Any) -> None:
        if not isinstance(error, GeneratorExit):  # the event loop is gone, and this is another context
            self._leave()
        if self._given is not None and error is not None:
            await self._arun.on_chain_error(_without_words(error))
        elif self._given is not None and self.result is not None:
            await self._arun.on_chain_end(_noted(self.result, self._arun))


def _enter_span(run_id: UUID) -> Callable[[], object]:
    """Make the span of a run current, where OpenInference has made one; return what undoes it.

    OpenInference makes spans of runs and leaves them aside, so that a router's spans would be a trace of their own.
    """
    tool = sys.modules.get("openinference.instrumentation.langchain")
    span = tool.LangChainInstrumentor().get_span(run_id) if tool else None
    if span is None:
        return _nothing
    from opentelemetry import context, trace

    token = context.attach(trace.set_span_in_context(span))
    return lambda: context.detach(token)


def _nothing() -> None:
    """Undo nothing."""


def outputs(result: EmbeddingResult) -> dict[str, Any]:
    """Return what a run says of its result, with usage as LangSmith and Langfuse read it."""
    told = figures([result])
    cost, tokens = told["cost"], told.pop("tokens")
    priced = {} if cost is None else {"input_cost": cost, "total_cost": cost}
    return {
        **told,
        "space": result.space.name,
        "dimensions": result.space.dimensions,
        "usage_metadata": {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens, **priced},
    }


def _noted(result: EmbeddingResult, run: BaseRunManager) -> dict[str, Any]:
    """Return the outputs of a run, with usage in its metadata as well: there LangSmith's tracer has that of LLMs."""
    made = outputs(result)
    for tracer in run.handlers:
        if isinstance(tracer, LangChainTracer) and (found := tracer.run_map.get(str(run.run_id))) is not None:
            found.metadata["usage_metadata"] = made["usage_metadata"]
    return made


def _given() -> dict[str, Any] | None:
    """Return what makes a manager, whose runs are children of the nearest chain or retriever, if that has callbacks."""
    config = var_child_runnable_config.get()
    given = config.get("callbacks") if config else _called_with.get()
    retrieval = _retrieval.get()
    retrieval = None if retrieval is None or retrieval.ended else retrieval
    function = _traced_function() if given is None else None
    if given is None and retrieval is None and function is None:
        return None
    manager = CallbackManager.configure(given)
    handlers = [item for item in manager.handlers if item is not retrievals]
    inside = retrieval is not None and (given is None or retrieval.parent == manager.parent_run_id)
    if given is None and retrieval is not None:  # what is switched on for the process; LangSmith's tracer is a new one
        handlers = [
            item for item in handlers if not isinstance(item, LangChainTracer) or _introduced(item, retrieval, function)
        ]
    if not handlers:
        return None
    parent = manager.parent_run_id
    if retrieval is not None and inside:
        parent = retrieval.run_id if all(map(_has_retrievers, handlers)) else retrieval.parent
    return {
        "handlers": handlers,
        "parent_run_id": parent,
        "tags": manager.tags,
        "metadata": manager.metadata,
    }


def _without_words(error: BaseException) -> BaseException:
    """Return an error of the same class name without its message, which may repeat a text of the user's."""
    kind: type[Exception] = type(type(error).__name__, (Exception,), {})
    return kind()


def _has_retrievers(handler: BaseCallbackHandler) -> bool:
    """Return whether a handler takes a retriever as a parent; Opik's makes no span of it, and fails at its children."""
    return not handler.ignore_retriever and not type(handler).__module__.startswith("opik.")


def _traced_function() -> RunTree | None:
    """Return the run of the function around, if LangSmith's ``traceable`` has decorated one."""
    langsmith = sys.modules.get("langsmith.run_helpers")
    return langsmith.get_current_run_tree() if langsmith else None


def _introduced(tracer: LangChainTracer, retrieval: Retrieval, function: RunTree | None) -> bool:
    """Give a tracer the run of a retriever, which is a child of a traced function's; return whether it is."""
    for run in function.child_runs if function else ():
        if run.id == retrieval.run_id:
            tracer.run_map[str(run.id)] = run
            tracer.order_map[run.id] = run.trace_id, run.dotted_order
            return True
    return False
