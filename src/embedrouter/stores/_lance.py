"""LanceDB: a table on a disk that this process reaches.

A table that is made here has the columns of LangChain's and LlamaIndex's classes: ``id``, ``text``, ``vector`` and
``metadata``, a struct of the entries that occur. What the struct cannot hold is in the column ``embedrouter:metadata``.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .._display import shown_name
from ..errors import ConfigError
from ..retrieval.store_guard import Row, Unreadable, hold, metadata
from ..router import Router
from ..types import Vectors
from ._failures import explained
from ._metadata import REST, fitted, restored, unkeepable
from ._renaming import rename_both
from ._rows import (
    NODE,
    TEXT_FIELDS,
    filled_by_llama_index,
    node_with_text,
    only_one,
    others,
    parts,
    row,
    spread,
    stored_text,
    text_in,
)
from ._transfer import Distance, Readable, StoredText

IDS = ("id", "_id", "node_id", "uuid")
"""Columns in which people keep ids."""
DOCUMENT = "doc_id"
"""LlamaIndex's column with the document of a node, which the node names as well."""
PAGE = 500
"""Rows in one statement."""
KEYS = 500
"""Entries of metadata in columns of their own; further ones are together in one."""


class LanceTable:
    """One table."""

    kind, keeps = "LanceDB", "the metadata of the table's schema"
    place = "STORE"

    def __init__(self, table: Any, database: LanceDatabase | None = None) -> None:
        self._table, self._database, self.name = table, database, table.name
        self.title = f"The table {table.name!r}"

    def read(self) -> Mapping[str, Any]:
        self._table.checkout_latest()
        return {name.decode(): value.decode() for name, value in (self._table.schema.metadata or {}).items()}

    def write(self, entries: Mapping[str, str | int]) -> None:
        try:
            dataset = self._table.to_lance()
        except ImportError as error:
            raise ConfigError(
                f"{self.title} has no mark, and writing one needs {error.name or 'pylance'}. Run: pip install pylance; "
                "or create the table with metadata(router), as texts, in the metadata of its schema."
            ) from error
        dataset.update_schema_metadata({name: str(value) for name, value in entries.items()})
        self._table.checkout_latest()

    def dimensions(self) -> int | None:
        if not self._table.count_rows():
            return None
        sizes = {size for field in self._table.schema if (size := getattr(field.type, "list_size", 0)) > 0}
        return sizes.pop() if len(sizes) == 1 else 0

    def again(self, router: Router) -> str:
        return f"embed the texts again, into a table of another name, or after drop_table({self._table.name!r})."

    def sample(self, count: int) -> list[Row]:
        rows: list[Row] = []
        for position in spread(self._table.count_rows(), count):
            for fields in self._table.search().limit(1).offset(position).to_arrow().to_pylist():
                entries = fields.get("metadata")
                rows.append(row(fields.get("id", position), text_in(fields), fields[self.vector_column],
                                entries if isinstance(entries, dict) else None))  # fmt: skip
        if not rows:
            raise Unreadable("it is empty")
        return rows

    # What a migration needs

    @property
    def database(self) -> LanceDatabase:
        if self._database is None:
            self._database = _database_of(self._table)
        return self._database

    @property
    def schema(self) -> Any:
        return self._table.schema

    @cached_property
    def vector_column(self) -> str:
        columns = [field.name for field in self.schema if getattr(field.type, "list_size", 0) > 0]
        return only_one(columns, "columns of vectors", self.title)

    @cached_property
    def id_column(self) -> str:
        if (found := next((name for name in IDS if name in self.schema.names), None)) is None:
            raise Unreadable(f"it has no column of ids, which is called {', '.join(IDS[:-1])} or {IDS[-1]}")
        return found

    @cached_property
    def text_column(self) -> str:
        if (found := next((name for name in TEXT_FIELDS if name in self.schema.names), None)) is None:
            raise Unreadable(f"it has no column of texts, which is called {', '.join(TEXT_FIELDS[:-1])}")
        return found

    def distance(self) -> Distance | None:
        for index in self._table.list_indices():
            if self.vector_column in index.columns:
                found = str(getattr(self._table.index_stats(index.name), "distance_type", ""))
                return {"l2": "l2", "cosine": "cosine", "dot": "ip"}.get(found)  # type: ignore[return-value]
        return None

    def count(self) -> int:
        self._table.checkout_latest()
        return int(self._table.count_rows())

    def ids(self) -> Iterator[str]:
        for page in self._batches([self.id_column], 10_000):
            yield from (str(fields[self.id_column]) for fields in page)

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        """Read the version of the table that is there at the beginning."""
        for page in self._batches([name for name in self.schema.names if name != self.vector_column], size):
            yield [self._stored(fields) for fields in page]

    def _batches(self, columns: Sequence[str], size: int) -> Iterator[list[dict[str, Any]]]:
        self._table.checkout_latest()
        for batch in self._table.search().select(list(columns)).to_batches(size):
            if batch.num_rows:
                yield batch.to_pylist()

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        self._table.checkout_latest()
        found: dict[str, tuple[StoredText, Vectors]] = {}
        for part in parts(ids, PAGE):
            for fields in self._table.search().where(self._among(part)).limit(len(part)).to_arrow().to_pylist():
                text = self._stored(fields)
                found[text.id] = text, np.asarray(fields[self.vector_column], np.float32)
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    def search(self, vector: Vectors, count: int) -> list[str]:
        asked = np.asarray(vector, np.float32)
        query = self._table.search(asked, vector_column_name=self.vector_column).limit(count)
        return [str(one) for one in query.select([self.id_column, "_distance"]).to_arrow()[self.id_column].to_pylist()]

    def write_rows(self, rows: Sequence[StoredText], vectors: Vectors) -> None:
        import pyarrow

        for part in parts(list(zip(rows, np.asarray(vectors, np.float32), strict=True)), PAGE):
            table = pyarrow.Table.from_pylist([self._fields(one, vector) for one, vector in part], schema=self.schema)
            writing = self._table.merge_insert(self.id_column).when_matched_update_all().when_not_matched_insert_all()
            writing.execute(table)

    def remove(self, ids: Sequence[str]) -> None:
        for part in parts(ids, PAGE):
            self._table.delete(self._among(part))

    def finish(self) -> None:
        """Have LanceDB join the pieces in which the rows were written."""
        self._table.optimize()

    def drop(self) -> None:
        self.database.drop(self.name)

    def _among(self, ids: Sequence[str]) -> str:
        number = "int" in str(self.schema.field(self.id_column).type)
        texts = [name if number else "'" + name.replace("'", "''") + "'" for name in ids]
        return f"`{self.id_column}` IN ({', '.join(texts)})"

    def _stored(self, fields: Mapping[str, Any]) -> StoredText:
        given = fields.get("metadata")
        entries = dict(given) if isinstance(given, dict) else {}
        if REST in fields:  # made here: what is not there is null
            entries = {name: value for name, value in entries.items() if value is not None}
            entries = restored({**entries, REST: fields[REST]}) if fields[REST] else entries
        own = {self.id_column, self.text_column, self.vector_column, REST}
        own |= {"metadata"} if isinstance(given, dict) or given is None else set()
        own |= {DOCUMENT} if NODE in entries else set()
        columns = {name: value for name, value in fields.items() if name not in own}
        text = fields[self.text_column]
        return stored_text(fields[self.id_column], text, entries, columns)

    def _fields(self, one: StoredText, vector: Vectors) -> dict[str, Any]:
        names = set(self.schema.names)
        beside = {name: value for name, value in one.columns.items() if name in names - {"metadata", REST}}
        rest = {name: value for name, value in one.columns.items() if name not in beside}
        held = fitted({**rest, **node_with_text(one)}, self._holds) if "metadata" in names else {}
        fields = {**beside, self.id_column: one.id, self.text_column: one.content, self.vector_column: vector}
        if "metadata" in names:
            fields["metadata"] = {name: value for name, value in held.items() if name != REST}
        if DOCUMENT in names and DOCUMENT not in beside:
            document = one.metadata.get("ref_doc_id")
            fields[DOCUMENT] = None if document == "None" else document
        if REST in names:
            fields[REST] = held.get(REST)
        elif REST in held:
            raise ConfigError(
                f"{self.title} has no column for a part of the metadata of {shown_name(one.id)}. Nothing of this page "
                "was written. Choose a new table."
            )
        return fields

    def _holds(self, name: str, value: Any) -> bool:
        """Return whether the struct of the metadata gives an entry back as it was."""
        import pyarrow

        struct = self.schema.field("metadata").type
        if name == REST or struct.get_field_index(name) < 0:
            return False
        if value is None:
            return REST not in self.schema.names
        try:
            kept = pyarrow.scalar(value, struct.field(name).type).as_py()
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, ValueError):
            return False
        return type(kept) is type(value) and bool(kept == value)


class LanceDatabase:
    """The tables in a folder."""

    kind = "LanceDB"
    named: str | None = None

    def __init__(self, connect: Callable[[], Any], folder: Path, place: str = "STORE") -> None:
        self._connect, self._folder, self.place = connect, folder, place
        self.title = f"The folder {str(folder)!r}"

    @classmethod
    def in_folder(cls, folder: Path) -> LanceDatabase:
        """Return the tables in a folder; the folder is made with the first table."""

        def connect() -> Any:
            import lancedb

            return lancedb.connect(str(folder))

        return cls(connect, folder, shlex.quote(str(folder)))

    @cached_property
    def connection(self) -> Any:
        """LanceDB's own connection."""
        with explained("LanceDB"):
            return self._connect()

    def close(self) -> None:
        """Do nothing: LanceDB keeps no file open."""

    def names(self) -> list[str]:
        return sorted(item.stem for item in self._folder.glob("*.lance"))

    def fitting_name(self, wanted: str) -> str:
        return re.sub(r"[^a-zA-Z0-9._-]+", "-", wanted).strip("._-")[:200] or "index"

    def refusal(self, row: StoredText) -> str | None:
        return unkeepable(row)

    def open(self, name: str) -> LanceTable:
        if name not in self.names():
            raise ConfigError(f"{self.title} has no table {shown_name(name)}.")
        with explained("LanceDB"):
            return LanceTable(self.connection.open_table(name), self)

    def create(self, name: str, router: Router, like: Readable | None = None) -> LanceTable:
        if name not in self.names():
            marks = {key: str(value) for key, value in metadata(router).items()}
            schema = _like_table(like, router, marks) if isinstance(like, LanceTable) else _schema(like, router, marks)
            self.connection.create_table(name, schema=schema)
        made = self.open(name)
        hold(made, router, adopt=False)
        return made

    def drop(self, name: str) -> None:
        """Remove a table."""
        shutil.rmtree(self._folder / f"{name}.lance")

    def leads_to(self, alias: str) -> str | None:
        return None

    def switch(self, alias: str, to: str, aside: str) -> None:
        """Rename the folders of both tables: LanceDB itself renames none on a disk."""
        file = self._folder.joinpath
        rename_both(self.names(), lambda old, new: file(f"{old}.lance").rename(file(f"{new}.lance")), alias, to, aside)


def find_table(store: Any) -> Any:
    """Return the table of a store, or the store itself if it is one; ``None`` for what is no store of LanceDB.

    Raises:
        ConfigError: there is no table yet.
    """
    try:
        table = store.get_table() if hasattr(store, "get_table") else getattr(store, "table", store)
    except Exception as error:
        if type(error).__name__ != "TableNotFoundError":
            raise
        table = None
    if table is None and "lancedb" in type(store).__name__.lower():
        raise ConfigError(
            "There is no table in LanceDB yet: the store makes it with the first texts. Add them, then mark it: "
            "guard(store, router, adopt=True)."
        )
    return table if hasattr(table, "to_lance") and hasattr(table, "count_rows") else None


def _database_of(table: Any) -> LanceDatabase:
    """Return the database of an open table, by its address.

    Raises:
        ConfigError: it is not on a disk here, or the address is not known.
    """
    try:
        address = str(table.to_lance().uri).removeprefix("file://")
    except ImportError:
        address = "://"
    if "://" in address:
        raise ConfigError(
            f"The table {table.name!r} does not show a folder of this machine. Name the folder instead of the table."
        )
    return LanceDatabase.in_folder(Path(address).parent)


def _like_table(like: LanceTable, router: Router, marks: Mapping[str, str]) -> Any:
    """Return the schema of a table, but for the length of the vectors."""
    import pyarrow

    schema = like.schema
    place = schema.names.index(like.vector_column)
    field = schema.field(place)
    vectors = pyarrow.list_(field.type.value_type, router.space.dimensions)
    own = {name.decode(): value.decode() for name, value in (schema.metadata or {}).items()}
    # LanceDB keeps the embedding function of a table there, which is the old model
    kept = {name: value for name, value in others(own).items() if name != "embedding_functions"}
    return schema.set(place, field.with_type(vectors)).with_metadata({**kept, **marks})


def _schema(like: Readable | None, router: Router, marks: Mapping[str, str]) -> Any:
    """Return the schema of a new table for rows of another kind of store, whose metadata are read once."""
    import pyarrow

    types = {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}
    found: dict[str, set[type]] = {"source": {str}} if like is None else {}
    for page in like.pages(PAGE) if like is not None else ():
        for one in page:
            for name, value in one.entries().items():
                if value is not None and (name in found or len(found) < KEYS):
                    found.setdefault(name, set()).add(type(value))
    single = {name: next(iter(kinds)) for name, kinds in found.items() if len(kinds) == 1}
    entries = [(name, types[kind]) for name, kind in single.items() if kind in types]
    nodes = [(DOCUMENT, pyarrow.string())] if filled_by_llama_index(like) else []
    return pyarrow.schema(
        [
            ("id", pyarrow.string()),
            *nodes,
            ("text", pyarrow.string()),
            ("vector", pyarrow.list_(pyarrow.float32(), router.space.dimensions)),
            ("metadata", pyarrow.struct(entries or [("source", pyarrow.string())])),
            (REST, pyarrow.string()),
        ],
        metadata=marks,
    )
