"""LangGraph stores that embed at a tier, also where a store loses what was asked around it.

    graph.compile(store=with_tier(InMemoryStore(index={"dims": 1024, "embed": RouterEmbeddings(router)})))

``InMemoryStore`` embeds queries in threads of its own, stores with a batch task embed in that task, and stores in SQL
embed queries as documents. The wrapper hands over each query with the context in which it was asked, and calls
``batch`` and ``abatch`` directly, so that tiers and tags hold for documents, too.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from typing import Any

from langgraph.store.base import BaseStore, Op, Result, SearchOp

from ..models import tier as ask_for
from ._asked import Question


class StoreAtTier(BaseStore):
    """Call a store in the context of the caller, or inside ``with embedrouter.tier(…)``.

    Other attributes, such as ``setup`` and ``start_ttl_sweeper``, are those of the wrapped store.
    """

    def __init__(self, bound: BaseStore, tier: str | None) -> None:
        self.bound = bound
        self.tier = tier
        self.supports_ttl = bound.supports_ttl
        self.ttl_config = bound.ttl_config

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        with self._asking():
            return self.bound.batch(_with_context(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        with self._asking():
            return await self.bound.abatch(_with_context(ops))

    def _asking(self) -> AbstractContextManager[object]:
        return nullcontext() if self.tier is None else ask_for(self.tier)

    def __getattr__(self, name: str) -> Any:
        if name == "bound":  # not there yet, in a copy
            raise AttributeError(name)
        return getattr(self.bound, name)

    def __repr__(self) -> str:
        return f"with_tier({self.bound!r}, {self.tier!r})"


def _with_context(ops: Iterable[Op]) -> list[Op]:
    context = copy_context()
    return [
        op._replace(query=Question.of(op.query, context)) if isinstance(op, SearchOp) and op.query else op for op in ops
    ]
