"""JSON lines: a row in each line, with its id, text, metadata and vector, and the space of the vector.

A file of another program is read as well: the text is in the first field that is usual for texts, what is neither id
nor text nor vector belongs to the metadata, and a line without an id has its number for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..retrieval.store_guard import DIMENSIONS, SPACE, Row, Unreadable
from ..types import Vectors
from ._beside import FileStore, beside_file, read_beside
from ._draft import Draft
from ._exact import ExactSearch
from ._metadata import fitted, is_json, restored
from ._rows import TEXT_FIELDS, row, spread, stored_text
from ._transfer import Distance, Readable, StoredText

ID_FIELDS, VECTOR_FIELDS = ("id", "_id"), ("vector", "embedding")
OWN = "text"
"""The field of the text in files that are written here; they have ``id``, ``metadata`` and ``vector`` beside it."""
PAGE = 500
"""Vectors in memory at once, in a search."""


class JsonLines(FileStore):
    """A file that is read: in one pass, or line by line from the places of the ids."""

    kind = "JSON lines"

    def read(self) -> Mapping[str, Any]:
        first = next((fields for _, fields in self._lines()), {})
        own = {name: first[name] for name in (SPACE, DIMENSIONS) if name in first}
        return {**own, **read_beside(beside_file(self.path))}

    def settings(self) -> Mapping[str, Any]:
        return {}

    def dimensions(self) -> int | None:
        first = next((fields for _, fields in self._lines()), None)
        if first is None:
            return None
        vector = _first(first, VECTOR_FIELDS)
        return len(vector) if isinstance(vector, list) else 0

    def sample(self, count: int) -> list[Row]:
        wanted = set(spread(self.count(), count))
        rows: list[Row] = []
        for number, (_, fields) in enumerate(self._lines()):
            if number in wanted:
                text = _stored(fields, number)
                rows.append(row(text.id, text.content, _first(fields, VECTOR_FIELDS), text.metadata))
        return rows

    def distance(self) -> Distance | None:
        return None

    def count(self) -> int:
        return sum(1 for _ in self._raw())

    def ids(self) -> Iterator[str]:
        for number, (_, fields) in enumerate(self._lines()):
            yield _identifier(fields, number)

    def pages(self, size: int) -> Iterator[list[StoredText]]:
        rows = (_stored(fields, number) for number, (_, fields) in enumerate(self._lines()))
        while page := list(islice(rows, size)):
            yield page

    def fetch(self, ids: Sequence[str]) -> list[tuple[StoredText, Vectors]]:
        found: list[tuple[StoredText, Vectors]] = []
        with self.path.open("rb") as file:
            for name in dict.fromkeys(ids):
                if (known := self._places.get(name)) is not None:
                    place, number = known
                    file.seek(place)
                    fields = self._parsed(file.readline(), number)
                    found.append((_stored(fields, number), self._vector(fields)))
        return found

    def search(self, vector: Vectors, count: int) -> list[str]:
        return self._search.nearest(vector, count)

    @cached_property
    def _search(self) -> ExactSearch:
        return ExactSearch(self._vectors, 4 * self.count() * (self.dimensions() or 0))

    def _vectors(self) -> Iterator[tuple[list[str], Vectors]]:
        rows = ((_identifier(fields, number), self._vector(fields)) for number, (_, fields) in enumerate(self._lines()))
        while page := list(islice(rows, PAGE)):
            yield [name for name, _ in page], np.array([vector for _, vector in page])

    def _vector(self, fields: Mapping[str, Any]) -> Vectors:
        vector = _first(fields, VECTOR_FIELDS)
        if not isinstance(vector, list):
            raise Unreadable("it holds texts without vectors")
        return np.asarray(vector, np.float32)

    @cached_property
    def _places(self) -> Mapping[str, tuple[int, int]]:
        """Where the line of each id begins, and its number."""
        places: dict[str, tuple[int, int]] = {}
        for number, (place, fields) in enumerate(self._lines()):
            places[_identifier(fields, number)] = place, number
        return places

    def _raw(self) -> Iterator[tuple[int, bytes]]:
        place = 0
        with self.path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield place, line
                place += len(line)

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, (place, line) in enumerate(self._raw()):
            yield place, self._parsed(line, number)

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"its row {number + 1} is no JSON ({type(error).__name__})") from error
        if not isinstance(fields, dict):
            raise Unreadable(f"its row {number + 1} is no JSON object")
        return fields


class JsonLinesFormat:
    """Writes JSON lines."""

    kind, suffix = "JSON lines", ".jsonl"

    def is_saved_in(self, path: Path) -> bool:
        return path.is_file() and path.suffix == self.suffix

    def read(self, path: Path) -> JsonLines:
        return JsonLines(path)

    def settings(self, like: Readable | None) -> Mapping[str, Any]:
        return {}

    def save(self, path: Path, draft: Draft) -> None:
        entries = draft.entries()
        mark = {name: entries[name] for name in (SPACE, DIMENSIONS) if name in entries}
        with path.open("wb") as file:
            for page in draft.pages(PAGE):
                for one, vector in page:
                    columns = {
                        name: value for name, value in one.columns.items() if not _is_own(name) and is_json(value)
                    }
                    rest = {name: value for name, value in one.columns.items() if name not in columns}
                    held = fitted({**rest, **one.metadata}, lambda _, value: is_json(value))
                    fields = {"id": one.id, OWN: one.content, "metadata": held, **columns, "vector": vector.tolist()}
                    file.write(json.dumps({**fields, **mark}, ensure_ascii=False).encode() + b"\n")


def _is_own(name: str) -> bool:
    return name in (*ID_FIELDS, *VECTOR_FIELDS, *TEXT_FIELDS, "metadata", SPACE, DIMENSIONS)


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _identifier(fields: Mapping[str, Any], number: int) -> str:
    found = _first(fields, ID_FIELDS)
    return str(number + 1 if found is None else found)


def _stored(fields: Mapping[str, Any], number: int) -> StoredText:
    text = next((name for name in (OWN, *TEXT_FIELDS) if isinstance(fields.get(name), str)), None)
    given = fields.get("metadata")
    metadata = restored(given) if isinstance(given, dict) else {}
    used = {text, *ID_FIELDS, *VECTOR_FIELDS, SPACE, DIMENSIONS, *(["metadata"] if isinstance(given, dict) else [])}
    columns = {name: value for name, value in fields.items() if name not in used}
    return stored_text(_identifier(fields, number), fields.get(text or ""), metadata, columns)
