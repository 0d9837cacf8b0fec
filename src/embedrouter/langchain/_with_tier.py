"""Runnables that embed their queries at a tier, also where LangChain drops the configuration.

    retriever = with_tier(store.as_retriever())
    retriever.invoke(question, {"configurable": {"embedding_tier": "low"}})

LangChain passes ``configurable`` on to what a chain's steps call, but not to the embedder of a retriever that is called
directly, bound with ``with_config`` or run by ``batch``. The wrapper reads the configuration and calls the retriever
inside ``with embedrouter.tier(…)``. The wrapper makes no run of its own, so traces look as they did without it. A
``BaseRetriever`` stays one, with the attributes that it had, so that chains and retrievers accept it which check types.

The wrapper has four methods, one for each form of a call, and the other methods of ``Runnable`` use these four. Each
item of a batch has its own configuration. A streamed input is collected first, so that the steps before the retriever
do not run at its tier.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, overload

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import Input, Output, get_unique_config_specs
from langchain_core.utils.pydantic import TypeBaseModel
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from ..errors import ConfigError
from ..models import first_given, requested
from ..models import tier as ask_for
from ._asked import FIELD, running_tier, tier_of
from ._runs import called_with, switched_on

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

END = object()
"""Follows the last chunk of a stream."""


Retriever = TypeVar("Retriever", bound=BaseRetriever)
Store = TypeVar("Store", bound="BaseStore")


@overload
def with_tier(retriever: Retriever, tier: str | None = None) -> Retriever: ...  # type: ignore[overload-overlap]
@overload
def with_tier(retriever: Runnable[Input, Output], tier: str | None = None) -> Runnable[Input, Output]: ...
@overload
def with_tier(retriever: Store, tier: str | None = None) -> Store: ...
def with_tier(retriever: Any, tier: str | None = None) -> Any:
    """Return ``retriever`` as a step that embeds its queries at a tier.

    A fixed tier overrides the configuration, and a ``with embedrouter.tier(…)`` around the call, as an inner block
    overrides an outer one. For a tier that callers may change, give the default to ``RouterEmbeddings.with_tier`` or
    ``query_tier=``, and none here.

    Without a fixed tier the nearest of these counts: a ``with embedrouter.tier(…)`` around the call;
    ``config["configurable"]["embedding_tier"]``; the field ``embedding_tier`` of the ``context=`` of the LangGraph that
    is running; the adapter's tier. Documents that are added inside keep their tier.

    Args:
        retriever: a retriever, any other runnable that embeds queries, or a LangGraph store. Everything inside a
            wrapper is asked at one tier, so wrap the retriever rather than the chain around it, unless the chain drops
            the configuration: ``RetrievalQA``, ``MultiQueryRetriever`` and others that call retrievers themselves do
            when they are called directly, and are wrapped whole.
        tier: the tier of all its queries; ``None`` to read the configuration of each call.

    Returns:
        A ``BaseRetriever`` for a ``BaseRetriever`` (a ``VectorStoreRetriever`` for one), a ``BaseStore`` for a store,
        both with the attributes of what they wrap; a ``Runnable`` for another runnable.

    Raises:
        ConfigError: ``retriever`` is none of these. A tier that the router does not know is a ``ValueError`` of the
            router when a query is embedded.
    """
    if isinstance(retriever, BaseRetriever):
        return _retriever(retriever, tier)
    if isinstance(retriever, Runnable):
        return _RunnableAtTier(retriever, tier)
    stores = sys.modules.get("langgraph.store.base")
    if stores is not None and isinstance(retriever, stores.BaseStore):
        from ._store import StoreAtTier

        return StoreAtTier(retriever, tier)
    hint = "a step of a function is RunnableLambda(…); an embedder has a method with_tier"
    if isinstance(retriever, VectorStore):
        hint = "write with_tier(store.as_retriever()), or give the store an embedder with the tier"
    raise ConfigError(
        f"with_tier() wraps a retriever, another Runnable or a LangGraph store, not {type(retriever).__name__}: {hint}."
    )


class _AtTier(Runnable[Input, Output]):
    """Call a runnable inside ``with embedrouter.tier(…)``."""

    bound: Runnable[Input, Output]
    tier: str | None

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        config, merged = self._traced(config)
        with self._asking(config), called_with(merged):
            return self.bound.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        config, merged = self._traced(config)
        with self._asking(config), called_with(merged):
            return await self.bound.ainvoke(input, config, **kwargs)

    # The consumer of a stream runs between two chunks in the same context, so the block is entered for each chunk

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:
        config, merged = self._traced(config)
        asking = self._asking(config)
        with ExitStack() as stack:
            with asking, called_with(merged):
                chunks = self.bound.stream(input, config, **kwargs)
            if close := getattr(chunks, "close", None):  # generators have it, other iterators need not
                stack.callback(close)
            while True:
                with asking, called_with(merged):
                    chunk: Any = next(chunks, END)
                if chunk is END:
                    return
                yield chunk

    async def astream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Output]:
        config, merged = self._traced(config)
        asking = self._asking(config)
        async with AsyncExitStack() as stack:
            with asking, called_with(merged):
                chunks = self.bound.astream(input, config, **kwargs)
            if aclose := getattr(chunks, "aclose", None):
                stack.push_async_callback(aclose)
            while True:
                with asking, called_with(merged):
                    chunk: Any = await anext(chunks, END)
                if chunk is END:
                    return
                yield chunk

    def _traced(self, config: RunnableConfig | None) -> tuple[RunnableConfig | None, RunnableConfig]:
        """Return the configuration of a call with the tracer that is switched on, and as merged with what is bound."""
        merged = merged_configuration(self.bound, config)
        if added := switched_on(merged.get("callbacks")):
            also = RunnableConfig(callbacks=added)
            return merge_configs(config, also), merge_configs(merged, also)
        return config, merged

    def _asking(self, config: RunnableConfig | None) -> AbstractContextManager[object]:
        if self.tier is not None:
            return ask_for(self.tier)
        if requested("query") is not None:
            return nullcontext()
        asked = configured_tier(self.bound, config)
        return nullcontext() if asked is None else ask_for(asked)

    # Names, schemas and drawings are those of the wrapped runnable

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        return self.bound.get_name(suffix, name=name)

    @property
    def InputType(self) -> type[Any]:
        return self.bound.InputType

    @property
    def OutputType(self) -> type[Any]:
        return self.bound.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        return self.bound.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        return self.bound.get_output_schema(config)

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        return self.bound.get_graph(config)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        own = [TIER_SPEC] if self.tier is None else []
        return get_unique_config_specs([*self.bound.config_specs, *own])

    def __repr__(self) -> str:
        return f"with_tier({self.bound!r}, {self.tier!r})"


class _RunnableAtTier(_AtTier[Input, Output]):
    """Any runnable."""

    def __init__(self, bound: Runnable[Input, Output], tier: str | None) -> None:
        self.bound = bound
        self.tier = tier


class _RetrieverAtTier(_AtTier[str, list[Document]], BaseRetriever):
    """A retriever, of which all attributes but two are those of the wrapped one."""

    bound: BaseRetriever
    tier: str | None = None

    def __getattr__(self, name: str) -> Any:
        if name in OWN or name.startswith("_"):  # not there yet, in a copy
            return super().__getattr__(name)  # type: ignore[misc] # which pydantic hides from type checkers
        return getattr(self.bound, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OWN or name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self.bound, name, value)

    def configurable_fields(self, **fields: Any) -> Any:
        return with_tier(self.bound.configurable_fields(**fields), self.tier)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self.invoke(query, {"callbacks": run_manager.get_child()}, **kwargs)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await self.ainvoke(query, {"callbacks": run_manager.get_child()}, **kwargs)


class _VectorStoreRetrieverAtTier(_RetrieverAtTier, VectorStoreRetriever):
    """The retriever of a vector store, which two memories of langchain-classic ask for."""


OWN = frozenset({"bound", "tier"})
"""The attributes that a wrapper of a retriever has itself."""


def _retriever(bound: BaseRetriever, tier: str | None) -> BaseRetriever:
    kind = _VectorStoreRetrieverAtTier if isinstance(bound, VectorStoreRetriever) else _RetrieverAtTier
    made = kind.model_construct(bound=bound, tier=tier)  # neither checked nor copied
    for name in kind.model_fields.keys() - OWN:
        vars(made).pop(name, None)  # so that __getattr__ finds it in the wrapped retriever
    return made


TIER_SPEC = ConfigurableFieldSpec(FIELD, str | None, "Embedding tier", "The tier at which queries are embedded.")


def configured_tier(runnable: Runnable[Any, Any], config: RunnableConfig | None) -> str | None:
    """Return the tier that is asked for around a call.

    The nearest counts: the configuration of the call, merged with the configurations bound by ``with_config``; the
    chain or graph that is running, whose ``configurable`` a call's own may have replaced.
    """
    return first_given(tier_of(ensure_config(merged_configuration(runnable, config))), running_tier())


def merged_configuration(runnable: Runnable[Any, Any], config: RunnableConfig | None) -> RunnableConfig:
    """Return the configuration of a call, merged with the configurations bound by ``with_config``."""
    while isinstance(runnable, RunnableBindingBase | DynamicRunnable):
        config = merge_configs(runnable.config, config)
        runnable = runnable.bound if isinstance(runnable, RunnableBindingBase) else runnable.default
    return config or {}
