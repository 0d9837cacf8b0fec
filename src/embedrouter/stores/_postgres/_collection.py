"""A collection of LangChain's ``PGVector``, which keeps all collections in two tables; the mark is in its row.

The ids of all collections are keys of one table. Where an id is taken by another collection, the row has the id and
``@`` and the collection's UUID, until the collection takes the other's place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...retrieval.store_guard import Row
from ...router import Router
from ...types import Vectors
from .._metadata import fitted, restored
from .._rows import parts, row, spread, stored_text
from .._transfer import Distance, StoredText
from ._statements import SQLDatabase, Statement, as_text, as_vector, holds

ROWS = "langchain_pg_embedding"
PUT = 500
"""Rows in one transaction."""


class LangChainCollection:
    """One collection."""

    kind, keeps = "PostgreSQL, LangChain's `PGVector`", "the collection's row (`cmetadata`)"
    place = "STORE"

    def __init__(self, database: SQLDatabase, name: str) -> None:
        self.database, self._run, self.name = database, database.run, name
        self.title = f"The collection {name!r}"
        self.uuid = str(self._row()["uuid"])
        """The collection's own id."""

    def read(self) -> Mapping[str, Any]:
        return dict(self._row()["cmetadata"] or {})

    def write(self, entries: Mapping[str, str | int]) -> None:
        self._run(
            "UPDATE langchain_pg_collection SET cmetadata = CAST(:entries AS json) WHERE name = :name",
            entries=json.dumps({**self.read(), **entries}),
            name=self.name,
        )

    def dimensions(self) -> int | None:
        found = self._run(
            f"SELECT vector_dims(embedding) AS size FROM {ROWS} WHERE collection_id = :id LIMIT 1", id=self.uuid
        )
        return int(found[0]["size"]) if found else None

    def again(self, router: Router) -> str:
        return "embed the texts again, into a collection of another name, or after store.delete_collection()."

    def sample(self, count: int) -> list[Row]:
        rows: list[Row] = []
        for position in spread(self.count(), count):
            for found in self._run(
                f"SELECT * FROM {ROWS} WHERE collection_id = :id OFFSET :position LIMIT 1",
                id=self.uuid,
                position=position,
            ):
                identifier = self._own(str(found.get("id", found.get("uuid"))))
                rows.append(row(identifier, found["document"], as_vector(found["embedding"]), found["cmetadata"]))
        return rows

    def _row(self) -> Mapping[str, Any]:
        found = self._run("SELECT uuid, cmetadata FROM langchain_pg_collection WHERE name = :name", name=self.name)
        if not found:
            raise ConfigError(f"There is no collection {self.name!r} in langchain_pg_collection.")
        return found[0]

    # What a migration needs

    @cached_property
    def _id(self) -> str:
        """What gives the id of a row; before version 0.0.4 of langchain-postgres there were two columns."""
        found = self._run(
            "SELECT column_name AS name FROM information_schema.columns WHERE table_name = :table", table=ROWS
        )
        return "id" if "id" in {one["name"] for one in found} else "COALESCE(custom_id, CAST(uuid AS text))"

    def _own(self, stored: str) -> str:
        return stored.removesuffix(f"@{self.uuid}")

    def _both(self, ids: Sequence[str]) -> list[str]:
        """Return ids as rows may have them: as they are, and with the collection's UUID."""
        return [*ids, *(f"{name}@{self.uuid}" for name in ids)]

    def distance(self) -> Distance | None:
        return None

    def count(self) -> int:
        found = self._run(f"SELECT count(*) AS total FROM {ROWS} WHERE collection_id = :id", id=self.uuid)
        return int(found[0]["total"])

    def ids(self) -> Iterator[str]:
        for page in self._walk("", 10_000):
            yield from (self._own(one["name"]) for one in page)

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        for page in self._walk(", document, cmetadata", size):
            yield [self._stored(one) for one in page]

    def _walk(self, columns: str, size: int) -> Iterator[list[Mapping[str, Any]]]:
        start = f"SELECT {self._id} AS name{columns} FROM {ROWS} WHERE collection_id = :id"
        end = f"ORDER BY {self._id} LIMIT :size"
        page = self._run(f"{start} {end}", id=self.uuid, size=size)
        while page:
            yield page
            after = page[-1]["name"]
            page = self._run(f"{start} AND {self._id} > :after {end}", id=self.uuid, after=after, size=size)

    def _stored(self, found: Mapping[str, Any]) -> StoredText:
        return stored_text(self._own(found["name"]), found["document"], restored(found["cmetadata"] or {}))

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        found: dict[str, tuple[StoredText, Vectors]] = {}
        for part in parts(ids, PUT):
            for one in self._run(
                f"SELECT {self._id} AS name, document, cmetadata, embedding FROM {ROWS} WHERE collection_id = :id "
                f"AND {self._id} = ANY(:ids)",
                id=self.uuid,
                ids=self._both(part),
            ):
                text = self._stored(one)
                found[text.id] = text, np.asarray(as_vector(one["embedding"]), np.float32)
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    def search(self, vector: Vectors, count: int) -> list[str]:
        found = self._run(
            f"SELECT {self._id} AS name FROM {ROWS} WHERE collection_id = :id "
            "ORDER BY embedding <=> CAST(:vector AS vector) LIMIT :count",
            id=self.uuid,
            vector=as_text(vector),
            count=count,
        )
        return [self._own(one["name"]) for one in found]

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        for part in parts(list(zip(rows, np.asarray(vectors, np.float32), strict=True)), PUT):
            with self._run.together() as run:
                names = self._names(run, [one.id for one, _ in part])
                run(
                    f"INSERT INTO {ROWS} (id, collection_id, embedding, document, cmetadata) VALUES (:id, "
                    "CAST(:collection AS uuid), CAST(:vector AS vector), :content, CAST(:metadata AS jsonb)) "
                    "ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding, document = excluded.document, "
                    f"cmetadata = excluded.cmetadata WHERE {ROWS}.collection_id = excluded.collection_id",
                    each=[
                        {
                            "id": names[one.id],
                            "collection": self.uuid,
                            "vector": as_text(vector),
                            "content": one.content,
                            "metadata": json.dumps(fitted(one.entries(), holds)),
                        }
                        for one, vector in part
                    ],
                )

    def _names(self, run: Statement, ids: Sequence[str]) -> Mapping[str, str]:
        """Return the ids under which rows are written: those that the collection has, or that are free."""
        collection = self.uuid
        found = run(
            f"SELECT id, CAST(collection_id AS text) AS owner FROM {ROWS} WHERE id = ANY(:ids)", ids=self._both(ids)
        )
        owners = {one["id"]: one["owner"] for one in found}
        return {
            name: long if (long := f"{name}@{collection}") in owners or owners.get(name, collection) != collection
            else name
            for name in ids
        }  # fmt: skip

    def remove(self, ids: Sequence[str]) -> None:
        for part in parts(ids, PUT):
            self._run(
                f"DELETE FROM {ROWS} WHERE collection_id = :id AND {self._id} = ANY(:ids)",
                id=self.uuid,
                ids=self._both(part),
            )

    def finish(self) -> None:
        """Do nothing: each transaction is kept."""

    def drop(self) -> None:
        with self._run.together() as run:
            run(f"DELETE FROM {ROWS} WHERE collection_id = :id", id=self.uuid)
            run("DELETE FROM langchain_pg_collection WHERE uuid = :id", id=self.uuid)


def rename(run: Statement, alias: str, to: str, aside: str) -> None:
    """Give a name to another collection, and its ids those that the other had taken."""
    found = run("SELECT CAST(uuid AS text) AS uuid, name FROM langchain_pg_collection WHERE name IN (:one, :other)",
                one=alias, other=to)  # fmt: skip
    uuids = {one["name"]: one["uuid"] for one in found}
    run("UPDATE langchain_pg_collection SET name = :aside WHERE name = :alias", alias=alias, aside=aside)
    run("UPDATE langchain_pg_collection SET name = :alias WHERE name = :to", alias=alias, to=to)
    if alias not in uuids:
        return
    old, new = uuids[alias], uuids[to]
    run(
        f"UPDATE {ROWS} SET id = id || '@' || :old WHERE collection_id = CAST(:old AS uuid) AND id || '@' || :new IN "
        f"(SELECT id FROM {ROWS} WHERE collection_id = CAST(:new AS uuid))",
        old=old,
        new=new,
    )
    run(
        f"UPDATE {ROWS} SET id = left(id, -length('@' || :new)) WHERE collection_id = CAST(:new AS uuid) "
        "AND right(id, length('@' || :new)) = '@' || :new",
        new=new,
    )
