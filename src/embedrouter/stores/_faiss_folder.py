"""LangChain's FAISS store in a folder: ``index.faiss`` with the vectors, ``index.pkl`` with the texts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..retrieval.store_guard import DIMENSIONS, Row, Unreadable
from ..types import Vectors
from ._beside import FolderStore
from ._draft import OF_FORMAT, Draft
from ._faiss_pickle import read_documents
from ._rows import parts, row, spread, stored_text
from ._transfer import Distance, Readable, StoredText

METRIC, LINKS = f"{OF_FORMAT}metric", f"{OF_FORMAT}links"
"""Entries of a draft: how the index compares vectors, and for HNSW the links of each vector."""
METRICS: Mapping[int, Distance] = {0: "ip", 1: "l2"}
"""FAISS's numbers of the ways to compare vectors."""
PAGE = 500
"""Vectors that are added to an index at once."""
USUAL = "index"
"""The name of LangChain's files, where no other is given."""


class FaissFolder(FolderStore):
    """A folder that is read. The documents are in one file, which is read as a whole."""

    kind = "FAISS"

    def __init__(self, path: Path, index: str = USUAL) -> None:
        super().__init__(path)
        self._index_name = index

    def settings(self) -> Mapping[str, Any]:
        index = self._index
        links = {LINKS: index.hnsw.nb_neighbors(1)} if hasattr(index, "hnsw") else {}
        return {METRIC: int(index.metric_type), **links}

    def dimensions(self) -> int | None:
        return int(self._index.d) if self._index.ntotal else None

    def sample(self, count: int) -> list[Row]:
        documents, ids = self._documents
        rows: list[Row] = []
        for position in spread(min(self._index.ntotal, len(ids)), count):
            found = documents.get(ids.get(position), {})
            metadata = found.get("metadata")
            rows.append(row(ids.get(position), found.get("page_content"), vector_at(self._index, position),
                            metadata if isinstance(metadata, dict) else None))  # fmt: skip
        return rows

    @cached_property
    def _documents(self) -> tuple[dict[Any, dict[str, Any]], dict[int, Any]]:
        return read_documents(self.path / f"{self._index_name}.pkl")

    @cached_property
    def _index(self) -> Any:
        return read_index(self.path / f"{self._index_name}.faiss")

    @cached_property
    def _positions(self) -> Mapping[str, int]:
        """The position of the vector of each id, in the order of the vectors."""
        return {str(name): position for position, name in sorted(self._documents[1].items())}

    def _stored(self, name: str) -> StoredText:
        documents, ids = self._documents
        found = documents.get(ids[self._positions[name]], {})
        return stored_text(name, found.get("page_content"), found.get("metadata") or {})

    def distance(self) -> Distance | None:
        return distance_of(self._index)

    def count(self) -> int:
        return len(self._positions)

    def ids(self) -> Iterator[str]:
        yield from self._positions

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        for part in parts(list(self._positions), size):
            yield [self._stored(name) for name in part]

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        names = [name for name in dict.fromkeys(ids) if name in self._positions]
        return [(self._stored(name), vector_at(self._index, self._positions[name])) for name in names]

    def search(self, vector: Vectors, count: int) -> list[str]:
        _, found = self._index.search(np.asarray([vector], np.float32), count)
        ids = self._documents[1]
        return [str(ids[int(position)]) for position in found[0] if int(position) in ids]


class FaissFormat:
    """Writes folders as LangChain's ``FAISS.save_local`` does, through that method."""

    kind, suffix = "FAISS", ""

    def __init__(self, index: str = USUAL) -> None:
        self._index_name = index

    def is_saved_in(self, path: Path) -> bool:
        return bool(stores_in(path))

    def read(self, path: Path) -> FaissFolder:
        return FaissFolder(path, self._index_name)

    def settings(self, like: Readable | None) -> Mapping[str, Any]:
        _packages()
        if isinstance(saved := getattr(like, "saved", None), FaissFolder):
            return saved.settings()
        return {METRIC: 0 if like is not None and like.distance() == "ip" else 1}

    def save(self, path: Path, draft: Draft) -> None:
        faiss, store, docstore, document, no_embedder = _packages()
        entries = draft.entries()
        size, metric = int(entries[DIMENSIONS]), int(entries.get(METRIC, 1))
        links = entries.get(LINKS)
        index = faiss.IndexHNSWFlat(size, int(links), metric) if links else faiss.IndexFlat(size, metric)
        documents: dict[str, Any] = {}
        for page in draft.pages(PAGE):
            index.add(np.array([vector for _, vector in page], np.float32))
            for one, _ in page:
                documents[one.id] = document(id=one.id, page_content=one.content, metadata=one.entries())
        made = store(no_embedder, index, docstore(documents), dict(enumerate(documents)))
        made.save_local(str(path), self._index_name)


def stores_in(folder: Path) -> list[str]:
    """Return the names of the stores in a folder, LangChain's usual one first."""
    names = sorted(file.stem for file in folder.glob("*.faiss") if file.with_suffix(".pkl").exists())
    return sorted(names, key=lambda name: name != USUAL)


def _packages() -> tuple[Any, Any, Any, Any, Any]:
    """Return faiss, LangChain's classes of the store, docstore and document, and what embeds nothing.

    Raises:
        ConfigError: one of them is not installed.
    """
    try:
        import faiss

        with warnings.catch_warnings():
            # The package says at import that it will be given up; LangChain's FAISS store is nowhere else yet
            warnings.simplefilter("ignore", DeprecationWarning)
            from langchain_community.docstore.in_memory import InMemoryDocstore
            from langchain_community.vectorstores import FAISS
            from langchain_core.documents import Document
            from langchain_core.embeddings import FakeEmbeddings
    except ImportError as error:
        raise ConfigError(
            f"A FAISS folder of LangChain is written with {error.name}, which is not installed here. Run: pip install "
            "faiss-cpu langchain-community"
        ) from error
    return faiss, FAISS, InMemoryDocstore, Document, FakeEmbeddings(size=1)


def read_index(file: Path) -> Any:
    """Return a FAISS index.

    Raises:
        Unreadable: faiss is not installed, or the file is none of its own.
    """
    try:
        import faiss
    except ImportError as error:
        raise Unreadable("reading its vectors needs faiss. Run: pip install faiss-cpu") from error
    try:
        return faiss.read_index(str(file))
    except RuntimeError as error:
        raise Unreadable(f"{file.name} is no index of FAISS") from error


def distance_of(index: Any) -> Distance | None:
    """Return how a FAISS index compares vectors."""
    return METRICS.get(int(index.metric_type))


def vector_at(index: Any, position: int) -> Any:
    """Return a vector of an index, decompressed where the index compresses.

    Raises:
        Unreadable: the index does not give its vectors back.
    """
    try:
        if hasattr(index, "make_direct_map"):
            index.make_direct_map()
        return index.reconstruct(position)
    except RuntimeError as error:
        raise Unreadable(f"its index ({type(index).__name__}) does not give its vectors back") from error
