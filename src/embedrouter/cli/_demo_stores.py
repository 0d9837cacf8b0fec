"""The vector stores of LangChain and LlamaIndex behind one small interface, for the demo.

No code here embeds: ``RouterEmbeddings`` and ``RouterEmbedding`` do, as in a user's program.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TypeAlias

from ..errors import ConfigError
from ..router import Router
from ._corpus import Passage

HITS = 10
"""Passages that a search returns."""
HITS_PER_SOURCE = 3
"""Passages of one source that count towards its rank."""
SOURCES = 3
"""Sources of an answer."""


class LangChainStore:
    """An ``InMemoryVectorStore``."""

    name = "LangChain InMemoryVectorStore"
    framework = "langchain_core"

    def __init__(self, router: Router) -> None:
        from langchain_core.vectorstores import InMemoryVectorStore

        from ..langchain import RouterEmbeddings

        self._store = InMemoryVectorStore(RouterEmbeddings(router))

    def add(self, passages: Sequence[Passage]) -> None:
        sources = [{"source": passage.source} for passage in passages]
        self._store.add_texts([passage.text for passage in passages], metadatas=sources)

    def search(self, question: str) -> list[str]:
        found = self._store.similarity_search_with_score(question, k=HITS)
        return rank_sources((document.metadata["source"], score) for document, score in found)


class LlamaIndexStore:
    """A ``VectorStoreIndex``."""

    name = "LlamaIndex VectorStoreIndex"
    framework = "llama_index.core"

    def __init__(self, router: Router) -> None:
        from llama_index.core import VectorStoreIndex

        from ..llama_index import RouterEmbedding

        self._index = VectorStoreIndex(nodes=[], embed_model=RouterEmbedding(router=router))

    def add(self, passages: Sequence[Passage]) -> None:
        from llama_index.core.schema import TextNode

        hidden = ["source"]  # so that both frameworks embed the same text
        self._index.insert_nodes(
            [
                TextNode(text=item.text, metadata={"source": item.source}, excluded_embed_metadata_keys=hidden)
                for item in passages
            ]
        )

    def search(self, question: str) -> list[str]:
        found = self._index.as_retriever(similarity_top_k=HITS).retrieve(question)
        return rank_sources((item.metadata["source"], item.score or 0.0) for item in found)


Store: TypeAlias = LangChainStore | LlamaIndexStore
"""A vector store and the adapter that embeds for it: ``add`` embeds passages, ``search`` returns the best sources."""

STORES: dict[str, type[Store]] = {"langchain": LangChainStore, "llama-index": LlamaIndexStore}
"""By the extra of this package that installs the framework."""


def find_stores() -> dict[str, type[Store]]:
    """Return the stores whose framework is installed, by extra.

    Raises:
        ConfigError: neither framework is installed.
    """
    found = {}
    for extra, store in STORES.items():
        with suppress(ImportError):
            import_module(store.framework)
            found[extra] = store
    if not found:
        raise ConfigError(
            "The demo fills a vector store of LangChain or LlamaIndex, and neither is installed. "
            "Run: pip install 'embedrouter[langchain]' or 'embedrouter[llama-index]'"
        )
    return found


def rank_sources(hits: Iterable[tuple[str, float]]) -> list[str]:
    """Return the sources of the nearest passages, each given with its cosine similarity, best first.

    The rank of a source is the sum of its three best scores: a single short passage can be near by chance.
    """
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for source, score in hits:
        scores[source].append(score)
    best = {source: sum(sorted(scores[source], reverse=True)[:HITS_PER_SOURCE]) for source in scores}
    return sorted(best, key=lambda source: (-best[source], source))[:SOURCES]
