"""Qdrant: a collection behind a client, on a server or in a folder.

Qdrant's ids are integers and UUIDs. An id that is neither is kept in the payload, as ``embedrouter_id``, and its point
has the UUID that is made of it (version 5, in the namespace of URLs).
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from .._display import shown_name
from ..errors import ConfigError
from ..retrieval.store_guard import Row, Unreadable, hold, metadata
from ..router import Router
from ..types import Vectors
from ._failures import explained, shown_address
from ._metadata import fitted, is_json, restored, unkeepable
from ._rows import NODE, TEXT_FIELDS, has_node, node_with_text, only_one, others, parts, row, stored_text, text_in
from ._transfer import Distance, NotSwitchable, Readable, StoredText

PUT = 256
"""Points in one request, which a server takes up to 32 MB."""
PATIENCE = 60
"""Seconds in which a server must answer."""
ORIGINAL = "embedrouter_id"
"""The entry of the payload with an id that Qdrant does not take; a colon would need quotes in Qdrant's paths."""
TEXT, METADATA = "page_content", "metadata"
"""The fields of LangChain."""
DISTANCES: Mapping[str, Distance] = {"Cosine": "cosine", "Euclid": "l2", "Dot": "ip"}


class QdrantCollection:
    """One collection."""

    kind, keeps = "Qdrant", "the collection's metadata; servers from 1.16 on have it"
    place = "STORE"

    def __init__(
        self, client: Any, name: str, database: QdrantDatabase | None = None, like: QdrantCollection | None = None
    ) -> None:
        if inspect.iscoroutinefunction(client.get_collection):
            raise ConfigError(
                "guard takes a store with a synchronous client. Open the collection with one to guard it."
            )
        if not client.collection_exists(name):
            raise ConfigError(
                f"There is no collection {name!r} in Qdrant yet. Create it with its mark: client.create_collection("
                f"{name!r}, vectors_config=…, metadata=metadata(router))."
            )
        self._client, self.name, self._like = client, name, like
        self.database = database or QdrantDatabase(lambda: client)
        self.title = f"The collection {name!r}"

    def read(self) -> Mapping[str, Any]:
        return getattr(self.settings.config, "metadata", None) or {}

    def write(self, entries: Mapping[str, str | int]) -> None:
        self._client.update_collection(self.name, metadata=dict(entries))

    def dimensions(self) -> int | None:
        if not self.count():
            return None
        vectors = self.settings.config.params.vectors
        sizes = {one.size for one in (vectors.values() if isinstance(vectors, dict) else [vectors]) if one is not None}
        return sizes.pop() if len(sizes) == 1 else 0

    def again(self, router: Router) -> str:
        return (
            "embed the texts again: into a collection of another name, or into this one after "
            f"client.delete_collection({self.name!r})."
        )

    def sample(self, count: int) -> list[Row]:
        from qdrant_client import models

        query = models.SampleQuery(sample=models.Sample.RANDOM)
        found = self._client.query_points(self.name, query=query, limit=count, with_vectors=True, with_payload=True)
        return [self._row(point) for point in found.points]

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

    # What a migration needs

    @property
    def settings(self) -> Any:
        """What Qdrant says of the collection."""
        return self._client.get_collection(self.name)

    @cached_property
    def vector_name(self) -> str | None:
        """The name of the dense vector; ``None`` where it has none."""
        vectors = self.settings.config.params.vectors
        return only_one(list(vectors), "dense vectors in each point", self.title) if isinstance(vectors, dict) else None

    @cached_property
    def text_field(self) -> str:
        """The field of the payload in which the texts are."""
        points, _ = (self._like or self)._client.scroll((self._like or self).name, limit=1, with_payload=True)
        fields = points[0].payload or {} if points else {}
        return next((name for name in TEXT_FIELDS if isinstance(fields.get(name), str)), TEXT)

    def distance(self) -> Distance | None:
        vectors = self.settings.config.params.vectors
        one = vectors[self.vector_name] if isinstance(vectors, dict) else vectors
        return DISTANCES.get(str(one.distance.value))

    def count(self) -> int:
        return int(self._client.count(self.name, exact=True).count)

    def ids(self) -> Iterator[str]:
        for points in self._scrolled(1_000, [ORIGINAL]):
            yield from map(_id_of, points)

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        for points in self._scrolled(size, True):
            yield [self._stored(point) for point in points]

    def _scrolled(self, size: int, payload: Any) -> Iterator[list[Any]]:
        after = None
        while True:
            points, after = self._client.scroll(self.name, limit=size, offset=after, with_payload=payload)
            if points:
                yield points
            if after is None:
                return

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        found: dict[str, tuple[StoredText, Vectors]] = {}
        for part in parts(ids, PUT):
            for point in self._client.retrieve(
                self.name, list(map(point_id, part)), with_payload=True, with_vectors=True
            ):
                found[_id_of(point)] = self._stored(point), np.asarray(self._vector(point.vector), np.float32)
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    def search(self, vector: Vectors, count: int) -> list[str]:
        found = self._client.query_points(
            self.name,
            query=np.asarray(vector, np.float32).tolist(),
            using=self.vector_name,
            limit=count,
            with_payload=[ORIGINAL],
        )
        return [_id_of(point) for point in found.points]

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        from qdrant_client import models

        for part in parts(list(zip(rows, np.asarray(vectors, np.float32), strict=True)), PUT):
            points = [
                models.PointStruct(
                    id=point_id(one.id),
                    vector={self.vector_name: vector.tolist()} if self.vector_name else vector.tolist(),
                    payload=self._payload(one),
                )
                for one, vector in part
            ]
            self._client.upsert(self.name, points=points, wait=True)

    def remove(self, ids: Sequence[str]) -> None:
        for part in parts(ids, PUT):
            self._client.delete(self.name, list(map(point_id, part)), wait=True)

    def finish(self) -> None:
        """Do nothing: Qdrant keeps each point when it is written."""

    def drop(self) -> None:
        self._client.delete_collection(self.name)

    def _payload(self, one: StoredText) -> dict[str, Any]:
        own = {} if str(point_id(one.id)) == one.id else {ORIGINAL: one.id}
        if has_node(one):
            return {**fitted({**one.columns, **node_with_text(one)}, _holds), **own}
        beside = one.columns if self._like else {}
        text = self.text_field
        free = {name: value for name, value in beside.items() if name not in (text, METADATA) and _holds(name, value)}
        rest = {name: value for name, value in one.columns.items() if name not in free}
        held = fitted({**rest, **one.metadata}, _holds)
        return {**free, text: one.content, **({METADATA: held} if held or text == TEXT else {}), **own}

    def _stored(self, point: Any) -> StoredText:
        fields = {name: value for name, value in (point.payload or {}).items() if name != ORIGINAL}
        name = _id_of(point)
        if NODE in fields:
            return stored_text(name, None, restored(fields))
        given = fields.get(METADATA)
        text = next((one for one in (TEXT, *TEXT_FIELDS) if isinstance(fields.get(one), str)), None)
        used = {text, *([METADATA] if isinstance(given, dict) or given is None else [])}
        columns = {key: value for key, value in fields.items() if key not in used}
        return stored_text(name, fields.get(text or ""), restored(given) if isinstance(given, dict) else {}, columns)


class QdrantDatabase:
    """The collections of one client: a folder, which one client alone can open, or a server."""

    kind = "Qdrant"
    named: str | None = None

    def __init__(self, connect: Callable[[], Any], place: str = "STORE", folder: Path | None = None) -> None:
        self._connect, self.place, self._folder = connect, place, folder
        self.title = f"The Qdrant store {place}" if place != "STORE" else "The Qdrant store"

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Return the collections in a folder; the folder is made with the first collection."""

        def connect() -> Any:
            from qdrant_client import QdrantClient

            return QdrantClient(path=str(folder))

        return cls(connect, shlex.quote(str(folder)), folder)

    @classmethod
    def at_address(cls, address: str) -> Self:
        """Return the collections of a server."""

        def connect() -> Any:
            from qdrant_client import QdrantClient

            parts = urlsplit(address)
            port = parts.port or (443 if parts.scheme == "https" else 6333)
            return QdrantClient(url=address, port=port, api_key=os.environ.get("QDRANT_API_KEY"), timeout=PATIENCE)

        return cls(connect, shlex.quote(shown_address(address)))

    @cached_property
    def client(self) -> Any:
        """Qdrant's own client."""
        with explained("Qdrant"):
            return self._connect()

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def names(self) -> list[str]:
        if self._folder is not None and not (self._folder / "meta.json").is_file():
            return []
        return sorted(one.name for one in self.client.get_collections().collections)

    def fitting_name(self, wanted: str) -> str:
        return re.sub(r'[\s<>:"/\\|?*\x00-\x1f]+', "-", wanted).strip("-.")[:200] or "index"

    def refusal(self, row: StoredText) -> str | None:
        return unkeepable(row)

    def open(self, name: str) -> QdrantCollection:
        return QdrantCollection(self.client, self.leads_to(name) or name, self)

    def create(self, name: str, router: Router, like: Readable | None = None) -> QdrantCollection:
        source = like if isinstance(like, QdrantCollection) else None
        if name not in self.names():
            self.client.create_collection(name, **_settings(router, like))
            for field, index in (source.settings.payload_schema if source else {}).items():
                self.client.create_payload_index(name, field, index.params or index.data_type)
        made = QdrantCollection(self.client, name, self, source)
        hold(made, router, adopt=False)
        return made

    def leads_to(self, alias: str) -> str | None:
        aliases = self.client.get_aliases().aliases
        return next((one.collection_name for one in aliases if one.alias_name == alias), None)

    def switch(self, alias: str, to: str, aside: str) -> None:
        """Let an alias lead to another collection, in one step."""
        from qdrant_client import models

        if alias in self.names():
            raise NotSwitchable(
                f"{alias!r} is a collection of its own, and Qdrant renames none. Nothing was changed. Change the line "
                f"in the program: collection_name={to!r}; or let it name an alias, which later migrations turn in one "
                f"step: client.update_collection_aliases([CreateAliasOperation(create_alias=CreateAlias("
                f"collection_name={to!r}, alias_name='NAME'))])."
            )
        if to not in self.names():
            raise ConfigError(f"There is no collection {shown_name(to)} to switch to. Nothing was changed.")
        steps: list[Any] = []
        if self.leads_to(alias) is not None:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        create = models.CreateAlias(collection_name=to, alias_name=alias)
        self.client.update_collection_aliases([*steps, models.CreateAliasOperation(create_alias=create)])


def point_id(name: str) -> int | str:
    """Return the id of the point for an id of a row."""
    if name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) < 2**64:
        return int(name)
    try:
        if str(UUID(name)) == name:
            return name
    except ValueError:
        pass
    return str(uuid5(NAMESPACE_URL, name))


def _id_of(point: Any) -> str:
    return str((point.payload or {}).get(ORIGINAL, point.id))


def _holds(name: str, value: Any) -> bool:
    return name != ORIGINAL and is_json(value)


def _settings(router: Router, like: Readable | None) -> dict[str, Any]:
    """Return the arguments of a new collection: those of an old one, but for the length of the vectors.

    Raises:
        ConfigError: the old one has vectors that a router does not give.
    """
    from qdrant_client import models

    size = router.space.dimensions
    if not isinstance(like, QdrantCollection):
        # l2 is the default of other stores, and LangChain's class opens no collection with it
        dot = like is not None and like.distance() == "ip"
        distance = models.Distance.DOT if dot else models.Distance.COSINE
        return {
            "vectors_config": models.VectorParams(size=size, distance=distance),
            "metadata": dict(metadata(router)),
        }
    config = like.settings.config
    params = config.params
    if params.sparse_vectors:
        raise ConfigError(
            f"{like.title} has sparse vectors beside the dense ones ({', '.join(params.sparse_vectors)}), for hybrid "
            "search, and they would be lost. Nothing was made. Fill a new collection with the framework's own class."
        )
    vectors = params.vectors
    name = like.vector_name
    changed = (vectors[name] if name is not None else vectors).model_copy(update={"size": size})
    kept = {
        "shard_number": params.shard_number,
        "replication_factor": params.replication_factor,
        "write_consistency_factor": params.write_consistency_factor,
        "on_disk_payload": params.on_disk_payload,
        "quantization_config": config.quantization_config,
        "hnsw_config": models.HnswConfigDiff(**config.hnsw_config.model_dump()) if config.hnsw_config else None,
    }
    return {
        "vectors_config": {name: changed} if name is not None else changed,
        "metadata": {**others(like.read()), **metadata(router)},
        **{name: value for name, value in kept.items() if value is not None},
    }
