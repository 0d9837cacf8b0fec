"""What ``compare`` is given, as ``Questions``; data frames become rows, which ``read_questions`` reads."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ._questions import Questions
from ._reading import read_questions
from ._texts import DOCUMENTS, QUERIES


def as_questions(corpus: Any, queries: Any, qrels: Any) -> Questions:
    """Return documents, queries and judgements as one value.

    Raises:
        ConfigError: as of ``read_questions``; or ``Questions`` come with further queries.
    """
    if isinstance(corpus, Questions):
        if queries is not None or qrels is not None:
            raise ConfigError("Questions hold queries and judgements already. Write compare(questions, models=[…]).")
        return corpus
    return read_questions(*map(rows_of, (corpus, queries, qrels)))


def rows_of(given: Any) -> Any:
    """Return the rows of a data frame of pandas, polars or pyarrow, the texts of a column; and all else as it is.

    The index of pandas names the rows that no column names, unless it only counts them.
    """
    library = type(given).__module__.partition(".")[0]
    if library == "polars":
        given = given.collect() if hasattr(given, "collect") else given
        return given.to_dicts() if hasattr(given, "to_dicts") else given.to_list()
    if library == "pyarrow":
        return given.to_pylist()
    if library != "pandas":
        return given
    counts = type(given.index).__name__ == "RangeIndex"
    if not hasattr(given, "columns"):
        return given.to_list() if counts else {str(name): text for name, text in given.items()}
    rows = given.to_dict("records")
    if counts or {*DOCUMENTS.ids, *QUERIES.ids} & set(given.columns):
        return rows
    return [{"_id": name, **row} for name, row in zip(given.index.tolist(), rows, strict=True)]
