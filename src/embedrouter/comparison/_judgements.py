"""Judgements: which documents answer which query, as TREC, BEIR, MTEB, JSON, CSV or labels say it."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

from .._display import shown, shown_name
from .._files import format_of
from ..errors import ConfigError
from ._rows import LocatedRow, cells, first_row, is_paths, read_json_file, rows, shown_path
from ._texts import DOCUMENTS, Texts, id_of

Grades: TypeAlias = dict[str, dict[str, int]]

QUERY = ("query-id", "query_id", "qid", "query", "topic", "q_id")
DOCUMENT = (
    "corpus-id",
    "corpus_id",
    "doc-id",
    "doc_id",
    "docid",
    "document_id",
    "document",
    "docno",
    "doc",
    "pid",
)
GRADE = ("score", "relevance", "rel", "grade", "label", "judgement", "judgment")
SEPARATOR = re.compile(r"[,;|\s]+")
"""Between ids in one text."""
TREC_COLUMNS = 4
RUN_COLUMNS = 6


@dataclass(slots=True)
class Judgements:
    """What was read.

    Attributes:
        grades: of documents, by query; those of 0 or less are not relevant, and not here.
        asked: all queries of the file.
        labels: of documents and of queries, where a document is relevant that has the query's label.
        disputed: pairs that stand there with different grades, of which the highest counts.
    """

    grades: Grades = field(default_factory=dict)
    asked: dict[str, None] = field(default_factory=dict)
    labels: tuple[Mapping[str, str], Mapping[str, str]] | None = None
    disputed: dict[tuple[str, str], None] = field(default_factory=dict)
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, query: str, document: str, grade: object, location: str) -> None:
        """Add one judgement.

        Raises:
            ConfigError: the grade is no whole number, or a name is empty.
        """
        if not query or not document:
            raise ConfigError(f"{location}: the id of the {'document' if query else 'query'} is empty. Check the file.")
        value = _grade(grade, location)
        self.asked.setdefault(query)
        pair = query, document
        if self._seen.setdefault(pair, value) != value:
            self.disputed.setdefault(pair)
        self._seen[pair] = value = max(value, self._seen[pair])
        if value > 0:
            self.grades.setdefault(query, {})[document] = value


def read_judgements(source: Any) -> Judgements:
    """Read judgements from paths or from an object in memory: a mapping by query, or rows.

    Raises:
        ConfigError: a line is no judgement, or the file cannot be read; the message has the location.
    """
    found = Judgements()
    if isinstance(source, Mapping):
        _add_mapping(found, source, "the judgements")
    elif is_paths(source):
        for path in source:
            _add_file(found, path)
    else:
        _add_rows(found, rows(source, [*QUERY, *DOCUMENT, *GRADE]))
    if not found.asked and found.labels is None:
        where = ", ".join(map(shown_path, source)) if is_paths(source) else "The judgements"
        raise ConfigError(
            f"{where}: there is no judgement. A line has a query id, a document id and a grade. Or pass documents and "
            "queries alone: then the best model is the measure."
        )
    return found


def inline_judgements(asked: Texts, documents: Container[str]) -> Judgements | None:
    """Return what the rows of queries say of their documents; ``None`` where none says anything.

    A row has a list of ids, or of objects with an id and a grade; grades by id; or one text with ids.
    """
    found = Judgements()
    for query, answers in asked.answers.items():
        where = f"the query {shown_name(query)}"
        found.asked.setdefault(query)
        for document, grade in _pairs(answers, documents, where):
            found.add(query, id_of(document, where), grade, where)
    return found if found.grades else None


def _pairs(answers: object, documents: Container[str], where: str) -> Iterator[tuple[object, object]]:
    if isinstance(answers, str):
        listed = [answers] if answers in documents else SEPARATOR.split(answers.strip("[] "))
        yield from ((name.strip("'\" "), 1) for name in listed if name.strip("'\" "))
    elif isinstance(answers, Mapping):
        yield from answers.items()
    elif isinstance(answers, Iterable):
        for one in answers:
            if not isinstance(one, Mapping):
                yield one, 1
                continue
            name = _first(one, (*DOCUMENT, *DOCUMENTS.ids))
            if name is None:
                raise ConfigError(f"{where}: an answer has no id. An id stands in a field such as {DOCUMENT[3]}.")
            grade = _first(one, GRADE)
            yield name, 1 if grade is None else grade
    elif answers is not None:
        yield answers, 1


def _add_file(found: Judgements, path: Path) -> None:
    format = format_of(path)
    if format == "json":
        content = read_json_file(path)
        if isinstance(content, Mapping):
            _add_mapping(found, content, shown_path(path))
            return
    if format in ("json", "jsonl", "parquet"):
        _add_rows(found, rows([path], [*QUERY, *DOCUMENT, *GRADE]))
    else:
        _add_lines(found, cells(path))


# A mapping


def _add_mapping(found: Judgements, content: Mapping[Any, Any], location: str) -> None:
    """Add ``{query: {document: grade}}`` or ``{query: [document, …]}``, or labels."""
    if (labels := _labels(content)) is not None:
        found.labels = labels
        return
    for query, documents in content.items():
        where = f"{location}, {shown_name(query)}"
        name = id_of(query, location)
        if isinstance(documents, Mapping):
            for document, grade in documents.items():
                found.add(name, id_of(document, where), grade, where)
        elif isinstance(documents, Iterable) and not isinstance(documents, str | bytes):
            for document in documents:
                found.add(name, id_of(document, where), 1, where)
        else:
            raise ConfigError(
                f"{where}: expected the grades of documents by their ids, or a list of ids, not {shown(documents)}."
            )
        found.asked.setdefault(name)


def _labels(content: Mapping[Any, Any]) -> tuple[Mapping[str, str], Mapping[str, str]] | None:
    """Return the labels of ``{"corpus": {id: label}, "queries": {id: label}}``."""
    if set(content) not in ({"corpus", "queries"}, {"documents", "queries"}):
        return None
    sides = [content.get("corpus", content.get("documents")), content["queries"]]
    if not all(isinstance(side, Mapping) and all(isinstance(one, str) for one in side.values()) for side in sides):
        return None
    documents, queries = sides
    return {str(key): value for key, value in documents.items()}, {str(key): value for key, value in queries.items()}


# Rows with names, and lines without


def _add_rows(found: Judgements, judged: Iterable[LocatedRow]) -> None:
    for row in judged:
        if isinstance(row.value, Sequence) and not isinstance(row.value, str | bytes):
            _add_cells(found, row.value, row.location)
            continue
        if not isinstance(row.value, Mapping):
            raise ConfigError(f"{row.location}: expected a query id, a document id and a grade.")
        query, document, grade = (_first(row.value, names) for names in (QUERY, DOCUMENT, GRADE))
        if query is None or document is None:
            there = ", ".join(shown_name(name) for name in list(row.value)[:20])
            wanted = f"{DOCUMENT[0]} or {DOCUMENT[3]}" if query is not None else f"{QUERY[0]} or {QUERY[2]}"
            raise ConfigError(f"{row.location}: no column {wanted}. Columns there: {there}. Rename the column.")
        one = 1 if grade is None and not any(name in row.value for name in GRADE) else grade
        found.add(id_of(query, row.location), id_of(document, row.location), one, row.location)


def _first(row: Mapping[Any, Any], names: Sequence[str]) -> object:
    return next((row[name] for name in names if name in row), None)


def _add_lines(found: Judgements, lines: Iterator[LocatedRow]) -> None:
    """Add lines of cells; the first may name the columns, and without known names they have the usual order."""
    first, lines = first_row(lines)
    names = [str(cell).lower() for cell in first.value] if first and isinstance(first.value, list) else []
    known = [next((names.index(name) for name in group if name in names), None) for group in (QUERY, DOCUMENT, GRADE)]
    if known[0] is not None and known[1] is not None:
        next(lines)
        for line in lines:
            row = line.value
            assert isinstance(row, list)
            if len(row) != len(names):
                raise ConfigError(f"{line.location}: {len(row)} cells under {len(names)} columns. Mend the line.")
            grade = 1 if known[2] is None else row[known[2]]
            found.add(row[known[0]], row[known[1]], grade, line.location)
        return
    if len(names) in (3, TREC_COLUMNS) and _number(names[-1]) is None:
        next(lines)  # a heading in other words
    for line in lines:
        assert isinstance(line.value, list)
        _add_cells(found, line.value, line.location)


def _add_cells(found: Judgements, row: Sequence[Any], location: str) -> None:
    """Add a query, a document and a grade; TREC has one column more, which says nothing."""
    if len(row) == RUN_COLUMNS:
        raise ConfigError(
            f"{location}: six columns are the results of a search (a run of TREC). Pass the judgements (qrels): "
            "query id, 0, document id, grade."
        )
    if len(row) not in (2, 3, TREC_COLUMNS):
        raise ConfigError(f"{location}: expected a query id, a document id and a grade, and not {len(row)} columns.")
    document = row[2] if len(row) == TREC_COLUMNS else row[1]
    found.add(id_of(row[0], location), id_of(document, location), row[-1] if len(row) > 2 else 1, location)


def _grade(value: object, location: str) -> int:
    number = _number(value)
    if number is None or not number.is_integer():
        shown_value = shown(value.strip() if isinstance(value, str) else value)
        raise ConfigError(
            f"{location}: the grade is {shown_value}. Grades are whole numbers: 0, or 1 and more for an answer."
        )
    return int(number)


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, str | Real):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None
