"""Milvus: a collection behind a client, on a server or in a file of Milvus Lite."""

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..retrieval.store_guard import Row
from ..router import Router
from ._rows import only_one, row, spread, text_in

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
