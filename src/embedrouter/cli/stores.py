"""The two frameworks' own vector stores behind one small interface, for the demo.

Nothing here embeds: ``RouterEmbeddings`` and ``RouterEmbedding`` do, as they would in anybody's program.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

from ..router import Router
from .corpus import Passage

__all__ = ["BEST", "EXTRAS", "NEAREST", "Hit", "Store", "installed", "sources"]

NEAREST = 10
"""Passages that an answer is made of."""
BEST = 3
"""Passages of one source that count."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found."""

    source: str
    title: str
    score: float
    """Cosine similarity."""


class Store(Protocol):
    """A vector store and the adapter that embeds for it."""

    name: str

    def __init__(self, router: Router) -> None: ...

    def add(self, passages: Sequence[Passage]) -> None:
        """Embed and keep passages."""

    def ask(self, question: str) -> list[Hit]:
        """Embed a question and return the nearest passages, best first."""


class LangChainStore:
    """An ``InMemoryVectorStore``."""

    name = "LangChain InMemoryVectorStore"

    def __init__(self, router: Router) -> None:
        from langchain_core.vectorstores import InMemoryVectorStore

        from ..langchain import RouterEmbeddings

        self._store = InMemoryVectorStore(RouterEmbeddings(router))

    def add(self, passages: Sequence[Passage]) -> None:
        self._store.add_texts(
            [passage.text for passage in passages],
            metadatas=[{"source": passage.source, "title": passage.title} for passage in passages],
        )

    def ask(self, question: str) -> list[Hit]:
        found = self._store.similarity_search_with_score(question, k=NEAREST)
        return [Hit(document.metadata["source"], document.metadata["title"], score) for document, score in found]


class LlamaIndexStore:
    """A ``VectorStoreIndex``."""

    name = "LlamaIndex VectorStoreIndex"

    def __init__(self, router: Router) -> None:
        from llama_index.core import VectorStoreIndex

        from ..llama_index import RouterEmbedding

        self._index = VectorStoreIndex(nodes=[], embed_model=RouterEmbedding(router=router))

    def add(self, passages: Sequence[Passage]) -> None:
        from llama_index.core.schema import TextNode

        keys = ["source", "title"]  # left out of what is embedded, so that both frameworks embed the same text
        nodes = [
            TextNode(
                text=passage.text,
                metadata={"source": passage.source, "title": passage.title},
                excluded_embed_metadata_keys=keys,
            )
            for passage in passages
        ]
        self._index.insert_nodes(nodes)

    def ask(self, question: str) -> list[Hit]:
        found = self._index.as_retriever(similarity_top_k=NEAREST).retrieve(question)
        return [Hit(item.metadata["source"], item.metadata["title"], item.score or 0.0) for item in found]


EXTRAS: dict[str, tuple[str, type[Store]]] = {
    "langchain": ("langchain_core", LangChainStore),
    "llama-index": ("llama_index.core", LlamaIndexStore),
}
"""What each extra of this package brings: the module to look for, and the store."""


def installed() -> tuple[list[type[Store]], list[str]]:
    """Return the stores whose framework is installed, and the extras that would bring the others."""
    there = {extra: _exists(module) for extra, (module, _) in EXTRAS.items()}
    return [EXTRAS[extra][1] for extra in there if there[extra]], [extra for extra in there if not there[extra]]


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False


def sources(hits: Sequence[Hit]) -> list[str]:
    """Return the sources that the nearest passages point to, best first.

    Every source is worth its three best passages among the nearest: one passage of a few words can be near by chance.
    """
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for hit in hits:
        scores[hit.source].append(hit.score)
    return sorted(scores, key=lambda source: (-sum(sorted(scores[source], reverse=True)[:BEST]), source))
