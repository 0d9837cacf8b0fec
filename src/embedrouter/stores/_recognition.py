"""Recognise an open store by what it can do, so that neither a store nor a framework is imported for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..retrieval.store_guard import Marked
from ._chroma import find as find_chroma
from ._folder import Folder
from ._lance import LanceTable, find_table
from ._milvus import MilvusCollection
from ._postgres import find_postgres
from ._qdrant import QdrantCollection


class UnknownStore(ConfigError):
    """A store is of a kind that is not known here."""


def recognised(store: Any) -> Marked:
    """Return the adapter of a store.

    Raises:
        ConfigError: it is of a kind that is not known here.
    """
    if isinstance(store, str | Path):
        return Folder(Path(store).expanduser())
    if (postgres := find_postgres(store)) is not None:
        return postgres
    client = getattr(store, "client", None)
    if hasattr(store, "collection_name") and hasattr(client, "update_collection"):
        return QdrantCollection(client, store.collection_name)
    if hasattr(store, "collection_name") and hasattr(client, "alter_collection_properties"):
        return MilvusCollection(client, store.collection_name)
    if (table := find_table(store)) is not None:
        return LanceTable(table)
    if (collection := find_chroma(store)) is not None:
        return collection
    raise UnknownStore(
        f"guard knows no place for a mark in {type(store).__name__}. Name the store with index= of the adapter, which "
        "guards every store on one machine; a store that is saved to a folder is guarded by the folder: guard(path, …)."
    )
