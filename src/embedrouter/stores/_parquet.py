"""Parquet files: columns of ids, texts, metadata (JSON text, or a struct) and vectors, and further ones.

The space is in the metadata of the file's schema. A file without a column of ids has the numbers of its rows for ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .._files import load_pyarrow
from ..errors import ConfigError
from ..retrieval.store_guard import DIMENSIONS, SPACE, Row, Unreadable
from ..types import Vectors
from ._beside import FileStore, beside_file, read_beside
from ._draft import OF_FORMAT, Draft
from ._exact import ExactSearch
from ._json_lines import ID_FIELDS, VECTOR_FIELDS
from ._metadata import packed, unpacked
from ._rows import TEXT_FIELDS, row, spread, stored_text
from ._transfer import Distance, Readable, StoredText

SCHEMA = f"{OF_FORMAT}schema"
"""Entry of a draft: the schema of the file whose columns the new one has."""
PAGE = 500
"""Rows in memory at once."""


class ParquetFile(FileStore):
    """A file that is read, batch by batch."""

    kind = "Parquet"

    def read(self) -> Mapping[str, Any]:
        own = {name.decode(): value.decode() for name, value in (self._schema.metadata or {}).items() if b":" in name}
        return {
            **{name: own[name] for name in (SPACE, DIMENSIONS) if name in own},
            **read_beside(beside_file(self.path)),
        }

    def settings(self) -> Mapping[str, Any]:
        return {SCHEMA: self._schema.serialize().to_pybytes()}

    def dimensions(self) -> int | None:
        first = next(self._batches(None, 1), None)
        return None if first is None else len(first[1][0][self._vector or ""] or ()) if self._vector else 0

    def sample(self, count: int) -> list[Row]:
        wanted = spread(self.count(), count)
        rows: list[Row] = []
        for start, page in self._batches(None, PAGE):
            for number in (one for one in wanted if start <= one < start + len(page)):
                fields = page[number - start]
                text = self._stored(fields, number)
                rows.append(row(text.id, text.content, fields.get(self._vector or ""), text.metadata))
        return rows

    @cached_property
    def _file(self) -> Any:
        _, parquet = load_pyarrow(".jsonl")
        try:
            return parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.title} is no Parquet file ({type(error).__name__}). Check the path.") from error

    @property
    def _schema(self) -> Any:
        return self._file.schema_arrow

    @cached_property
    def _id(self) -> str | None:
        return self._named(ID_FIELDS)

    @cached_property
    def _vector(self) -> str | None:
        return self._named(VECTOR_FIELDS)

    @cached_property
    def _text(self) -> str:
        if (found := self._named(("text", *TEXT_FIELDS))) is None:
            raise Unreadable(f"it has no column of texts, which is called {', '.join(TEXT_FIELDS[:-1])}")
        return found

    def _named(self, names: Sequence[str]) -> str | None:
        return next((name for name in names if name in self._schema.names), None)

    def distance(self) -> Distance | None:
        return None

    def count(self) -> int:
        return int(self._file.metadata.num_rows)

    def ids(self) -> Iterator[str]:
        columns = [self._id] if self._id else [self._text]
        for start, page in self._batches(columns, 10_000):
            for number, fields in enumerate(page, start):
                yield self._identifier(fields, number)

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        columns = [name for name in self._schema.names if name != self._vector]
        for start, page in self._batches(columns, size):
            yield [self._stored(fields, number) for number, fields in enumerate(page, start)]

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        wanted, found = set(ids), dict[str, tuple[StoredText, Vectors]]()
        for start, batch in self._pieces(None, PAGE):
            names = batch[self._id].to_pylist() if self._id else range(start + 1, start + len(batch) + 1)
            for place, name in enumerate(names):
                if str(name) in wanted:
                    fields = batch.slice(place, 1).to_pylist()[0]
                    found[str(name)] = self._stored(fields, start + place), self._numbers(fields)
        return [found[name] for name in dict.fromkeys(ids) if name in found]

    def search(self, vector: Vectors, count: int) -> list[str]:
        return self._search.nearest(vector, count)

    @cached_property
    def _search(self) -> ExactSearch:
        return ExactSearch(self._vectors, 4 * self.count() * (self.dimensions() or 0))

    def _vectors(self) -> Iterator[tuple[list[str], Vectors]]:
        columns = [name for name in (self._id or self._text, self._vector) if name]
        for start, page in self._batches(columns, PAGE):
            ids = [self._identifier(fields, number) for number, fields in enumerate(page, start)]
            yield ids, np.array([self._numbers(fields) for fields in page])

    def _pieces(self, columns: Sequence[str] | None, size: int) -> Iterator[tuple[int, Any]]:
        start = 0
        for batch in self._file.iter_batches(size, columns=columns):
            if len(batch):
                yield start, batch
            start += len(batch)

    def _batches(self, columns: Sequence[str] | None, size: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        for start, batch in self._pieces(columns, size):
            yield start, batch.to_pylist()

    def _numbers(self, fields: Mapping[str, Any]) -> Vectors:
        vector = fields.get(self._vector or "")
        if vector is None:
            raise Unreadable("it holds texts without vectors")
        return np.asarray(vector, np.float32)

    def _identifier(self, fields: Mapping[str, Any], number: int) -> str:
        found = fields.get(self._id or "")
        return str(number + 1 if found is None else found)

    def _stored(self, fields: Mapping[str, Any], number: int) -> StoredText:
        metadata = _metadata(fields.get("metadata"))
        own = {self._id, self._text, self._vector, *(["metadata"] if metadata is not None else [])}
        columns = {name: value for name, value in fields.items() if name not in own}
        return stored_text(self._identifier(fields, number), fields[self._text], metadata or {}, columns)


class ParquetFormat:
    """Writes Parquet files."""

    kind, suffix = "Parquet", ".parquet"

    def is_saved_in(self, path: Path) -> bool:
        return path.is_file() and path.suffix == self.suffix

    def read(self, path: Path) -> ParquetFile:
        return ParquetFile(path)

    def settings(self, like: Readable | None) -> Mapping[str, Any]:
        load_pyarrow(".jsonl")
        saved = getattr(like, "saved", None)
        return saved.settings() if isinstance(saved, ParquetFile) else {}

    def save(self, path: Path, draft: Draft) -> None:
        arrow, parquet = load_pyarrow(".jsonl")
        entries = draft.entries()
        marks = {name: str(entries[name]) for name in (SPACE, DIMENSIONS)}
        pages = draft.pages(PAGE)
        first = next(pages, [])
        kind = arrow.from_numpy_dtype(first[0][1].dtype) if first else arrow.float32()
        own = {"id": arrow.string(), "text": arrow.string(), "metadata": arrow.string(),
               "vector": arrow.list_(kind, int(entries[DIMENSIONS]))}  # fmt: skip
        further: dict[str, Any] = {}
        if SCHEMA in entries:
            old = arrow.ipc.read_schema(arrow.py_buffer(entries[SCHEMA]))
            taken = {*own, *ID_FIELDS, *VECTOR_FIELDS, next((name for name in TEXT_FIELDS if name in old.names), None)}
            further = {field.name: field.type for field in old if field.name not in taken}
        schema = arrow.schema(list({**own, **further}.items()), metadata=marks)
        with parquet.ParquetWriter(path, schema) as writer:
            for page in [first] if first else []:
                writer.write_table(_table(arrow, schema, further, page))
            for page in pages:
                writer.write_table(_table(arrow, schema, further, page))


def _table(arrow: Any, schema: Any, further: Mapping[str, Any], page: Sequence[tuple[StoredText, Vectors]]) -> Any:
    rows = [
        {
            "id": one.id,
            "text": one.content,
            "metadata": packed(
                {**{key: value for key, value in one.columns.items() if key not in further}, **one.metadata}
            ),
            "vector": vector,
            **{key: one.columns.get(key) for key in further},
        }
        for one, vector in page
    ]
    return arrow.Table.from_pylist(rows, schema=schema)


def _metadata(given: Any) -> dict[str, Any] | None:
    """Return the metadata in a column of that name; ``None`` where the column is something else."""
    if given is None or isinstance(given, dict):
        return given or {}
    if not isinstance(given, str):
        return None
    try:
        found = unpacked(given)
    except (ValueError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None
