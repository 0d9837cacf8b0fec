"""Chroma: a collection of a client."""

from __future__ import annotations

import inspect
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np

from .._display import shown_name
from ..errors import ConfigError, EmbedRouterError, InvalidInputError
from ..retrieval.store_guard import Row, hold, metadata
from ..router import Router, wiring_of
from ..types import Estimate, Vectors, dollars
from ._failures import explained, shown_address
from ._metadata import fitted, is_text, restored, unkeepable
from ._renaming import rename_both
from ._rows import NODE, others, parts, row, spread, stored_text
from ._transfer import Distance, Readable, StoredText

if TYPE_CHECKING:
    from chromadb import Collection

DISTANCE = "hnsw:space"
"""The entry that Chroma refuses to write again. Chroma copies the entry to the configuration at the creation."""

FILE = "chroma.sqlite3"
"""The file that a folder of Chroma has."""
PUT = 1_000
"""Rows in one request; Chroma takes some thousand."""
READ = 10_000
"""Texts read to estimate the price of embedding all of them again; a refusal should not take minutes."""


def find(store: Any) -> ChromaCollection | None:
    """Return the collection of a store. LangChain's has no public name for it, so all its attributes are tried."""
    found: Any
    for found in (store, getattr(store, "client", None), *getattr(store, "__dict__", {}).values()):
        if all(hasattr(found, name) for name in ("metadata", "configuration_json", "modify")):
            if inspect.iscoroutinefunction(found.modify):
                raise ConfigError(
                    "guard takes a collection of a synchronous client. Open the collection with one to guard it."
                )
            return ChromaCollection(found, ChromaDatabase(lambda: client) if (client := _client_of(store)) else None)
    return None


def _client_of(store: Any) -> Any:
    """Return the client behind LangChain's store, which has no public name for it; ``None`` for other stores."""
    kept = getattr(store, "__dict__", {}).values()
    return next((one for one in kept if hasattr(one, "list_collections") and hasattr(one, "set_tenant")), None)


class ChromaCollection:
    """Reads and writes the entries of one collection, and reads its rows."""

    kind, keeps = "Chroma", "the collection's metadata"
    place = "STORE"

    def __init__(self, collection: Collection, database: ChromaDatabase | None = None) -> None:
        self._collection, self._database = collection, database
        self.name = collection.name
        self.title = f"The collection {collection.name!r}"

    def read(self) -> Mapping[str, Any]:
        return self._collection.metadata or {}

    def write(self, entries: Mapping[str, str | int]) -> None:
        """Add entries to those of the collection, which Chroma writes as a whole."""
        collection = self._collection
        others = dict(collection.metadata or {})
        distance = others.pop(DISTANCE, None)
        configuration = collection.configuration_json
        configured = (configuration.get("hnsw") or configuration.get("spann") or {}).get("space")
        if distance not in (None, configured):
            raise ConfigError(
                f"{self.title} has {DISTANCE!r} in its metadata and another distance in its configuration. Chroma "
                "would drop that entry when the space is marked, so nothing was changed. Create the collection anew, "
                f"with metadata=embedrouter.chroma.metadata(router) | {{{DISTANCE!r}: {distance!r}}}."
            )
        collection.modify(metadata={**others, **entries})

    def dimensions(self) -> int | None:
        first = self._collection.get(limit=1, include=["embeddings"])
        if not first["ids"]:
            return None
        assert first["embeddings"] is not None, "they are included"
        return len(first["embeddings"][0])

    def again(self, router: Router) -> str:
        """Return how to embed the texts again, and the price."""
        return (
            "embed the texts again: into a collection of another name, or into this one after "
            f"client.delete_collection({self._collection.name!r}). {_price(self._collection, router)}"
        )

    def sample(self, count: int) -> list[Row]:
        rows: list[Row] = []
        for position in spread(self._collection.count(), count):
            found: Any = self._collection.get(
                limit=1, offset=position, include=["embeddings", "documents", "metadatas"]
            )
            if found["ids"]:
                rows.append(row(found["ids"][0], found["documents"][0], found["embeddings"][0], found["metadatas"][0]))
        return rows

    # What a migration needs

    @property
    def database(self) -> ChromaDatabase:
        if self._database is None:
            raise ConfigError(
                f"{self.title} does not show its client, in which a new collection could be made. Name the folder or "
                "address of the store instead, or pass the new store."
            )
        return self._database

    @property
    def configuration(self) -> Mapping[str, Any]:
        """The settings of the index of vectors."""
        found: Any = self._collection.configuration_json
        return {name: value for name in ("hnsw", "spann") if (value := found.get(name))}

    def distance(self) -> Distance | None:
        settings: Any = next(iter(self.configuration.values()), None) or {}
        found = settings.get("space")
        return found if found in ("cosine", "l2", "ip") else None

    def count(self) -> int:
        return int(self._collection.count())

    def ids(self) -> Iterator[str]:
        yield from self._collection.get(include=[])["ids"]

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        """Read by ids that are listed once: Chroma's own pages move when rows are removed."""
        for part in parts(list(self.ids()), size):
            yield [text for text, _ in self._fetched(part, ["documents", "metadatas"])]

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        return self._fetched(ids, ["documents", "metadatas", "embeddings"])

    def _fetched(self, ids: Sequence[str], include: Any) -> list[tuple[StoredText, Any]]:
        asked = list(dict.fromkeys(one for one in ids if one))
        rows: dict[str, tuple[StoredText, Any]] = {}
        for part in parts(asked, PUT):
            found: Any = self._collection.get(ids=list(part), include=include)
            vectors = found["embeddings"] if "embeddings" in include else [None] * len(found["ids"])
            for name, text, entries, vector in zip(
                found["ids"], found["documents"], found["metadatas"], vectors, strict=True
            ):
                rows[name] = stored_text(name, text, restored(entries or {})), vector
        return [rows[name] for name in asked if name in rows]

    def search(self, vector: Vectors, count: int) -> list[str]:
        if not (total := self.count()):
            return []
        return list(
            self._collection.query(query_embeddings=[vector], n_results=min(count, total), include=[])["ids"][0]
        )

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        for part in parts(list(zip(rows, np.asarray(vectors, np.float32), strict=True)), PUT):
            ids = [one.id for one, _ in part]
            before: Any = self._collection.get(ids=ids, include=["metadatas"])
            old: dict[str, Any] = {
                name: found for name, found in zip(before["ids"], before["metadatas"], strict=True) if found
            }
            entries: list[Any] = []
            for one, _ in part:
                new = fitted(one.entries(), _holds)
                # Chroma keeps the entries of a replaced row that are not named
                entries.append({**dict.fromkeys(old.get(one.id) or ()), **new} or None)
            self._collection.upsert(
                ids=ids,
                embeddings=[vector for _, vector in part],
                documents=[one.content for one, _ in part],
                metadatas=entries,
            )

    def remove(self, ids: Sequence[str]) -> None:
        for part in parts(ids, PUT):
            self._collection.delete(ids=list(part))

    def finish(self) -> None:
        """Do nothing: Chroma keeps each row when it is written."""

    def drop(self) -> None:
        self.database.client.delete_collection(self.name)


class ChromaDatabase:
    """The collections of one client: a folder, or a server."""

    kind = "Chroma"
    named: str | None = None

    def __init__(self, connect: Callable[[], Any], place: str = "STORE", folder: Path | None = None) -> None:
        self._connect, self.place, self._folder = connect, place, folder
        self.title = f"The Chroma store {place}" if place != "STORE" else "The Chroma store"

    @classmethod
    def in_folder(cls, folder: Path) -> Self:
        """Return the collections in a folder; the folder is made with the first collection."""

        def connect() -> Any:
            from chromadb import PersistentClient
            from chromadb.config import Settings

            # another version's files are not converted: that would change the store
            migrations: Any = "validate" if (folder / FILE).is_file() else "apply"
            if folder.exists() and not os.access(folder, os.W_OK):
                raise ConfigError(
                    f"Chroma opens no folder that cannot be written to, and that is so of {str(folder)!r}. Copy it to "
                    "another place, and name the copy."
                )
            settings = Settings(anonymized_telemetry=False, migrations=migrations)
            return PersistentClient(str(folder.absolute()), settings=settings)

        return cls(connect, shlex.quote(str(folder)), folder)

    @classmethod
    def at_address(cls, address: str) -> Self:
        """Return the collections of a server."""

        def connect() -> Any:
            from chromadb import HttpClient
            from chromadb.config import Settings

            parts = urlsplit(address)
            secure = parts.scheme == "https"
            return HttpClient(
                parts.hostname or "",
                parts.port or (443 if secure else 80),
                ssl=secure,
                settings=Settings(anonymized_telemetry=False),
            )

        return cls(connect, shlex.quote(shown_address(address)))

    @cached_property
    def client(self) -> Any:
        """Chroma's own client."""
        with explained("Chroma"):
            return self._connect()

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    def names(self) -> list[str]:
        if self._folder is not None and not (self._folder / FILE).is_file():
            return []
        return sorted(one.name for one in self.client.list_collections())

    def fitting_name(self, wanted: str) -> str:
        name = re.sub(r"[^a-zA-Z0-9._-]+", "-", wanted).strip("._-")[:512]
        return name if len(name) >= 3 else f"{name or 'index'}-index"

    def refusal(self, row: StoredText) -> str | None:
        if not row.id:
            return "its id is empty, which Chroma does not take"
        return unkeepable(row)

    def open(self, name: str) -> ChromaCollection:
        if name not in self.names():
            raise ConfigError(f"{self.title} has no collection {shown_name(name)}.")
        return ChromaCollection(self.client.get_collection(name, embedding_function=None), self)

    def create(self, name: str, router: Router, like: Readable | None = None) -> ChromaCollection:
        if name in self.names():
            made = self.open(name)
            hold(made, router, adopt=False)
            return made
        entries: dict[str, Any] = {}
        settings: dict[str, Any] = {}
        if isinstance(like, ChromaCollection):
            entries = others(like.read())
            settings = dict(like.configuration)
        elif like is not None and (distance := like.distance()) is not None:
            settings = {"hnsw": {"space": distance}}
        collection = self.client.create_collection(
            name, embedding_function=None, metadata={**entries, **metadata(router)}, configuration=settings or None
        )
        return ChromaCollection(collection, self)

    def leads_to(self, alias: str) -> str | None:
        return None

    def switch(self, alias: str, to: str, aside: str) -> None:
        """Rename both collections; programs that are running keep the old one until they open it again."""
        rename_both(
            self.names(), lambda old, new: self.client.get_collection(old, embedding_function=None).modify(name=new),
            alias, to, aside,
        )  # fmt: skip


def _holds(name: str, value: Any) -> bool:
    """Return whether Chroma gives an entry back as it was: some it drops silently, and large integers it rounds."""
    if not name or name[0] in "#$" or name.startswith("chroma:") or not is_text(name):
        return False
    if type(value) is list:
        return bool(value) and len({type(one) for one in value}) == 1 and all(_is_scalar(one) for one in value)
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    if type(value) is int:
        return -(2**63) <= value < 2**63
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is bool or (type(value) is str and is_text(value))


# The price of embedding a collection again


def _price(collection: Collection, router: Router) -> str:
    """Return a sentence with the price of a collection's texts."""
    total = collection.count()
    if not total:
        return "It is empty, so that costs nothing."
    documents = collection.get(limit=READ, include=["documents"])["documents"] or []
    read, texts = len(documents), [text for text in documents if text]
    if not texts:
        return "Chroma has only its vectors; take the texts from the source that it was filled from."
    rest = max(0, total - read)
    try:
        estimate, long = _estimate(router, texts)
        tokens = estimate.tokens * (read + rest) // read
        cost = wiring_of(router).cost(estimate.model, tokens) if tokens else Decimal(0)
    except EmbedRouterError as error:
        return f"The price could not be estimated: {error}"
    more = _filled_by_llama_index(collection)
    bound = "about" if rest or more else "at most"
    amount = "unknown" if cost is None else f"{bound} {dollars(cost)}"
    message = f"Price for its {len(texts) + rest:,} texts with this router: {amount}"
    if rest:
        message += f", estimated from {len(texts):,} of them"
    if more:
        message += ", without the metadata that LlamaIndex embeds with each text"
    if long:
        message += f"; {long:,} are longer than the model takes and not counted"
    if len(texts) < read:
        message += f"; {read - len(texts):,} vectors have no text in Chroma, so take their texts from the source"
    return message + "."


def _estimate(router: Router, texts: list[str]) -> tuple[Estimate, int]:
    """Return the estimate of the texts that the router accepts, and the number of texts that it refuses."""
    try:
        return router.estimate(texts, input_type="document"), 0
    except InvalidInputError as error:
        accepted = [text for index, text in enumerate(texts) if index not in error.indices]
        return router.estimate(accepted, input_type="document"), len(texts) - len(accepted)


def _filled_by_llama_index(collection: Collection) -> bool:
    """Return whether LlamaIndex filled a collection: it embeds texts with their metadata and stores them without."""
    entries = collection.get(limit=1, include=["metadatas"])["metadatas"]
    return bool(entries and NODE in (entries[0] or {}))
