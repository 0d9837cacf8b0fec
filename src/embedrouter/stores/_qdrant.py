"""Qdrant: a collection behind a client, on a server or in a folder."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from ..errors import ConfigError
from ..retrieval.store_guard import Item, Row, Unreadable
from ..router import Router
from ._rows import only_one, row, text_in

PUT = 256
"""Points in one request, which a server takes up to 32 MB."""


class QdrantCollection:
    """Reads and writes the metadata of a collection, and reads its points."""

    kind, keeps = "Qdrant", "the collection's metadata; servers from 1.16 on have it"
    place = "STORE"

    def __init__(self, client: Any, name: str) -> None:
        if inspect.iscoroutinefunction(client.get_collection):
            raise ConfigError(
                "guard takes a store with a synchronous client. Open the collection with one to guard it."
            )
        if not client.collection_exists(name):
            raise ConfigError(
                f"There is no collection {name!r} in Qdrant yet. Create it with its mark: client.create_collection("
                f"{name!r}, vectors_config=…, metadata=metadata(router))."
            )
        self._client, self._name = client, name
        self.title = f"The collection {name!r}"

    def read(self) -> Mapping[str, Any]:
        return getattr(self._client.get_collection(self._name).config, "metadata", None) or {}

    def write(self, entries: Mapping[str, str | int]) -> None:
        self._client.update_collection(self._name, metadata=dict(entries))

    def dimensions(self) -> int | None:
        if not self._client.count(self._name, exact=True).count:
            return None
        vectors = self._client.get_collection(self._name).config.params.vectors
        sizes = {one.size for one in (vectors.values() if isinstance(vectors, dict) else [vectors]) if one is not None}
        return sizes.pop() if len(sizes) == 1 else 0

    def again(self, router: Router) -> str:
        return (
            "embed the texts again: into a collection of another name, or into this one after "
            f"client.delete_collection({self._name!r})."
        )

    def sample(self, count: int) -> list[Row]:
        from qdrant_client import models

        query = models.SampleQuery(sample=models.Sample.RANDOM)
        found = self._client.query_points(self._name, query=query, limit=count, with_vectors=True, with_payload=True)
        return [self._row(point) for point in found.points]

    def put(self, items: Sequence[Item], vectors: Any) -> None:
        """Write points as LangChain's store does; one whose id is there is replaced. Qdrant's ids are UUIDs."""
        from qdrant_client import models

        for start in range(0, len(items), PUT):
            part = items[start : start + PUT]
            points = [
                models.PointStruct(
                    id=str(uuid5(NAMESPACE_URL, item.id)),
                    vector=vector.tolist(),
                    payload={"page_content": item.text, "metadata": {"id": item.id, "source": item.location}},
                )
                for item, vector in zip(part, vectors[start : start + PUT], strict=True)
            ]
            self._client.upsert(self._name, points=points, wait=True)

    def _row(self, point: Any) -> Row:
        fields = point.payload or {}
        return row(point.id, text_in(fields), self._vector(point.vector), fields)

    def _vector(self, vector: Any) -> Any:
        if isinstance(vector, dict):
            dense = [name for name, one in vector.items() if isinstance(one, list)]
            vector = vector[only_one(dense, "dense vectors in each point", self.title)]
        if isinstance(vector, list) and vector and isinstance(vector[0], list):
            raise Unreadable("its points have several vectors each (a multivector), which no router gives")
        return vector
