"""Runnables that embed their queries at a tier, also where LangChain drops the configuration.

    retriever = with_tier(store.as_retriever())
    retriever.invoke(question, {"configurable": {"embedding_tier": "low"}})

LangChain passes ``configurable`` on to what a chain's steps call, but not to the embedder of a retriever that is called
directly, bound with ``with_config`` or run by ``batch``. The wrapper reads the configuration and calls the retriever
inside ``with embedrouter.tier(…)``. The wrapper makes no run of its own, so traces look as they did without it.

The wrapper has four methods, one for each form of a call, and the other methods of ``Runnable`` use these four. Each
item of a batch has its own configuration. A streamed input is collected first, so that the steps before the retriever
do not run at its tier.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, nullcontext
from typing import Any

from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import Input, Output, get_unique_config_specs
from langchain_core.utils.pydantic import TypeBaseModel

from ..errors import ConfigError
from ..models import requested
from ..models import tier as ask_for
from ._embeddings import CONFIGURABLE

END = object()
"""Follows the last chunk of a stream."""


def with_tier(retriever: Runnable[Input, Output], tier: str | None = None) -> Runnable[Input, Output]:
    """Return ``retriever`` as a step that embeds its queries at a tier.

    A fixed tier overrides the configuration, and a ``with embedrouter.tier(…)`` around the call, as an inner block
    overrides an outer one. For a tier that callers may change, give the default to ``RouterEmbeddings.with_tier`` or
    ``query_tier=``, and none here.

    Without a fixed tier the nearest of these counts: a ``with embedrouter.tier(…)`` around the call;
    ``config["configurable"]["embedding_tier"]``; the adapter's tier. Documents that are added inside keep their tier.

    Args:
        retriever: any runnable that embeds queries. Wrap the retriever rather than the chain around it: everything
            inside the wrapper is asked at one tier.
        tier: the tier of all its queries; ``None`` to read the configuration of each call.

    Raises:
        ConfigError: ``retriever`` is no runnable. A tier that the router does not know is a ``ValueError`` of the
            router when a query is embedded.
    """
    if not isinstance(retriever, Runnable):
        raise ConfigError(
            f"with_tier() wraps a Runnable, not {type(retriever).__name__}. Make a retriever of a vector store with "
            "store.as_retriever(), and a step of a function with RunnableLambda(…); an embedder has a method with_tier."
        )
    return _AtTier(retriever, tier)


class _AtTier(Runnable[Input, Output]):
    """Call a runnable inside ``with embedrouter.tier(…)``."""

    def __init__(self, bound: Runnable[Input, Output], tier: str | None) -> None:
        self.bound = bound
        self.tier = tier

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        with self._asking(config):
            return self.bound.invoke(input, config, **kwargs)

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        with self._asking(config):
            return await self.bound.ainvoke(input, config, **kwargs)

    # The consumer of a stream runs between two chunks in the same context, so the block is entered for each chunk

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Output]:
        asking = self._asking(config)
        with ExitStack() as stack:
            with asking:
                chunks = self.bound.stream(input, config, **kwargs)
            if close := getattr(chunks, "close", None):  # generators have it, other iterators need not
                stack.callback(close)
            while True:
                with asking:
                    chunk: Any = next(chunks, END)
                if chunk is END:
                    return
                yield chunk

    async def astream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Output]:
        asking = self._asking(config)
        async with AsyncExitStack() as stack:
            with asking:
                chunks = self.bound.astream(input, config, **kwargs)
            if aclose := getattr(chunks, "aclose", None):
                stack.push_async_callback(aclose)
            while True:
                with asking:
                    chunk: Any = await anext(chunks, END)
                if chunk is END:
                    return
                yield chunk

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


TIER_SPEC = ConfigurableFieldSpec(CONFIGURABLE, str | None, "Embedding tier", "The tier at which queries are embedded.")


def configured_tier(runnable: Runnable[Any, Any], config: RunnableConfig | None) -> str | None:
    """Return the tier in the configuration of a call, merged with the configurations bound by ``with_config``."""
    while isinstance(runnable, RunnableBindingBase | DynamicRunnable):
        config = merge_configs(runnable.config, config)
        runnable = runnable.bound if isinstance(runnable, RunnableBindingBase) else runnable.default
    return ensure_config(config).get("configurable", {}).get(CONFIGURABLE)
