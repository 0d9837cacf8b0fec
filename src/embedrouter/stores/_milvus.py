"""Milvus: a collection behind a client, on a server or in a file of Milvus Lite."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from ..errors import ConfigError
from ..retrieval.store_guard import Row
from ..router import Router
from ._failures import explained
from ._rows import only_one, row, spread, text_in

PATIENCE = 5.0
"""Seconds in which a server must answer."""
REACH = 16_384
"""Rows that Milvus reaches by an offset."""


class MilvusCollection:
    """Reads and writes the properties of a collection, and reads its rows."""

    kind, keeps = "Milvus", "the collection's properties"
    place = "STORE"

    def __init__(self, client: Any, name: str) -> None:
        if not client.has_collection(name):
            raise ConfigError(
                f"There is no collection {name!r} in Milvus yet. Create it with its mark: Milvus(…, "
                "collection_properties=metadata(router)) in LangChain, client.create_collection(…, "
                "properties=metadata(router)) elsewhere."
            )
        self._client, self._name = client, name
        self.title = f"The collection {name!r}"

    def read(self) -> Mapping[str, Any]:
        return dict(self._client.describe_collection(self._name).get("properties") or {})

    def write(self, entries: Mapping[str, str | int]) -> None:
        texts = {name: str(value) for name, value in entries.items()}
        self._client.alter_collection_properties(self._name, properties=texts)

    def dimensions(self) -> int | None:
        if not self._count():
            return None
        sizes = {int(size) for size in self._vector_fields().values()}
        return sizes.pop() if len(sizes) == 1 else 0

    def again(self, router: Router) -> str:
        return (
            "embed the texts again: into a collection of another name, or into this one after "
            f"client.drop_collection({self._name!r})."
        )

    def sample(self, count: int) -> list[Row]:
        column = only_one(list(self._vector_fields()), "fields of dense vectors", self.title)
        rows: list[Row] = []
        for position in spread(min(self._count(), REACH), count):
            found = self._client.query(self._name, filter="", limit=1, offset=position, output_fields=["*"])
            for fields in found:
                identifier = next((fields[name] for name in ("pk", "id") if name in fields), position)
                rows.append(row(identifier, text_in(fields), fields.get(column), fields))
        return rows

    def _vector_fields(self) -> dict[str, int]:
        """Return the length of each field of dense vectors."""
        fields = self._client.describe_collection(self._name)["fields"]
        return {field["name"]: field["params"]["dim"] for field in fields if "dim" in (field.get("params") or {})}

    def _count(self) -> int:
        self._client.load_collection(self._name)
        found = self._client.query(self._name, filter="", output_fields=["count(*)"])
        return int(found[0]["count(*)"])


class MilvusDatabase:
    """The collections of one client, which are checked, and not moved."""

    kind = "Milvus"

    def __init__(self, connect: Callable[[], Any], title: str) -> None:
        self._connect, self._title = connect, title

    @classmethod
    def in_file(cls, path: Path) -> Self:
        """Return the collections in a file of Milvus Lite.

        Raises:
            ConfigError: another version has written it, and this one would convert it.
        """
        folders = int(version("milvus-lite").partition(".")[0]) >= 3
        if folders != path.is_dir():
            wanted = "<3" if folders else ">=3"
            raise ConfigError(
                f"{str(path)!r} was written by another version of Milvus Lite, which this one would convert. Run: pip "
                f"install 'milvus-lite{wanted}'"
            )

        def connect() -> Any:
            from pymilvus import MilvusClient

            return MilvusClient(str(path))

        return cls(connect, "Milvus Lite")

    @classmethod
    def at_address(cls, address: str) -> Self:
        """Return the collections of a server."""

        def connect() -> Any:
            from pymilvus import MilvusClient

            return MilvusClient(uri=address, token=os.environ.get("MILVUS_TOKEN", ""), timeout=PATIENCE)

        return cls(connect, "server (neither Chroma nor Qdrant answers there, so Milvus was tried)")

    @cached_property
    def _client(self) -> Any:
        with explained(self._title):
            return self._connect()

    def names(self) -> list[str]:
        return sorted(self._client.list_collections())

    def leads_to(self, alias: str) -> str | None:
        return None

    def open(self, name: str) -> MilvusCollection:
        return MilvusCollection(self._client, name)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()


def is_milvus_lite(path: Path) -> bool:
    """Return whether a path is what Milvus Lite has written: a folder since version 3, before that a file."""
    if path.is_dir():
        return (path / "collections").is_dir() and (path / "LOCK").exists()
    return path.suffix == ".db" and path.read_bytes()[:15] == b"SQLite format 3"
