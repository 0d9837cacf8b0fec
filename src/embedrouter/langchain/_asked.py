"""The tier that LangChain and LangGraph ask for: in a configuration, in the context of a graph, with a query.

A graph keeps its ``context=`` in the configuration of its nodes, so everything that has the configuration has the
context. Of LangGraph only the public ``get_runtime`` is used, and only where a program has imported LangGraph.
"""

import sys
from collections.abc import Mapping
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ..models import first_given

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

FIELD = "embedding_tier"
"""The entry of ``config["configurable"]``, and the field of LangGraph's ``context=``, that asks for a tier."""


class Question(str):
    """A query with the context in which it was asked, for stores that embed in another thread, or as a document."""

    asked_in: Context

    @classmethod
    def of(cls, query: str, context: Context) -> "Question":
        question = cls(query)
        question.asked_in = context
        return question


def tier_of(config: "RunnableConfig") -> Any:
    """Return the tier that a configuration asks for: its own entry, else the field of the graph's context.

    A context of another type, or without the field, asks for none. What is no tier is refused by the router.
    """
    configurable = config.get("configurable") or {}
    return first_given(configurable.get(FIELD), _in_context(config) if configurable else None)


def running_tier() -> Any:
    """Return the tier that the chain or graph asks for which is running, if one is."""
    running = sys.modules.get("langchain_core.runnables.config")  # where no chain was imported none is running
    config = running.var_child_runnable_config.get() if running else None
    return tier_of(config) if config else None


def _in_context(config: "RunnableConfig") -> Any:
    langgraph = sys.modules.get("langgraph.runtime")
    if langgraph is None:
        return None
    from langchain_core.runnables.config import var_child_runnable_config

    token = var_child_runnable_config.set(config)
    try:
        runtime = langgraph.get_runtime()
    finally:
        var_child_runnable_config.reset(token)
    context = getattr(runtime, "context", None)  # outside of a graph there is no runtime
    return context.get(FIELD) if isinstance(context, Mapping) else getattr(context, FIELD, None)
